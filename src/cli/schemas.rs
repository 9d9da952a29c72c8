//! `schemas`: verify them in the registry, register them, or print them.

use clap::Args;

use super::{CONFIGURATION, DONE, Failure, print};
use crate::avro::registry::COMPATIBILITY;
use crate::avro::{Registry, schema};
use crate::config::Config;
use crate::record::Topic;

#[derive(Debug, Args)]
pub struct Options {
    /// Register those that are missing
    #[arg(long)]
    register: bool,
    /// Print subjects and schemas as JSON lines
    #[arg(long)]
    print: bool,
}

pub async fn schemas(config: &Config, options: Options) -> Result<u8, Failure> {
    let prefix = &config.kafka.topic_prefix;
    if options.print {
        for topic in Topic::ALL {
            let line = serde_json::json!({ "subject": schema::subject(prefix, topic), "schema": schema::text(topic), "compatibility": COMPATIBILITY });
            print(&line.to_string())?;
        }
        return Ok(DONE);
    }
    let registry = Registry::new(&config.registry_url)?;
    let ids = registry.ids(prefix, options.register).await?;
    let mut code = DONE;
    for topic in Topic::ALL {
        let subject = schema::subject(prefix, topic);
        let level = registry.compatibility(&subject).await?.unwrap_or_else(|| "not set".to_owned());
        let label = if level == COMPATIBILITY { "ok  " } else { "FAIL" };
        if level != COMPATIBILITY {
            code = CONFIGURATION;
        }
        print(&format!("{label}  {subject}  id {}  compatibility {level}", ids.of(topic)))?;
    }
    Ok(code)
}
