//! `topics`: verify them, create them, or print what an operator without CREATE needs.

use clap::Args;

use super::{DONE, Failure, print};
use crate::config::Config;
use crate::kafka::topics::{Difference, create, settings, verify};
use crate::record::Topic;

#[derive(Debug, Args)]
pub struct Options {
    /// Create those that are missing
    #[arg(long)]
    create: bool,
    /// Print the commands that create them, and the ACLs the service needs
    #[arg(long)]
    print: bool,
}

pub async fn topics(config: &Config, options: Options) -> Result<u8, Failure> {
    if options.print {
        for line in commands(config) {
            print(&line)?;
        }
        return Ok(DONE);
    }
    if options.create {
        create(&config.kafka, config.replication).await?;
    }
    let differences = verify(&config.kafka).await?;
    for topic in Topic::ALL {
        print(&format!("ok    {}  {} partitions", config.kafka.topic(topic), config.kafka.partitions))?;
    }
    for Difference { topic, setting, found, expected } in differences {
        print(&format!("note  {topic}: {setting}={found}, readers are promised {expected}"))?;
    }
    Ok(DONE)
}

fn commands(config: &Config) -> Vec<String> {
    let kafka = &config.kafka;
    let bootstrap = &kafka.brokers;
    let mut lines = Vec::new();
    for topic in Topic::ALL {
        let configs: Vec<String> =
            settings(topic, config.replication).iter().map(|(key, value)| format!("--config {key}={value}")).collect();
        let replication = if config.replication > 0 {
            format!(" --replication-factor {}", config.replication)
        } else {
            String::new()
        };
        lines.push(format!(
            "kafka-topics.sh --bootstrap-server {bootstrap} --create --topic {} --partitions {}{replication} {}",
            kafka.topic(topic),
            kafka.partitions,
            configs.join(" ")
        ));
    }
    let acl = format!("kafka-acls.sh --bootstrap-server {bootstrap} --add --allow-principal User:scimtail");
    let prefix = &kafka.topic_prefix;
    lines.push(format!("{acl} --operation Read --operation Write --operation Describe --operation DescribeConfigs --topic {prefix}. --resource-pattern-type prefixed"));
    lines.push(format!("{acl} --operation Write --operation Describe --transactional-id {prefix}-shard- --resource-pattern-type prefixed"));
    lines.push(format!("{acl} --operation Read --group {prefix} --group {prefix}-reader"));
    lines
}
