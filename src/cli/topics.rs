//! `topics`: verify them, create them, or print the commands for an operator, for when scimtail may not create topics.

use clap::Args;

use super::asyncapi;
use super::failure::{Exit, Failure};
use super::output::print;
use crate::config::Config;
use crate::kafka::topics::{Difference, create, settings, verify};

#[derive(Debug, Args)]
pub struct Options {
    /// Create the missing topics
    #[arg(long)]
    create: bool,
    /// Print the commands that create the topics and the ACLs of the service
    #[arg(long)]
    print: bool,
    /// Print the topics as an AsyncAPI 3 document, with keys, headers and schemas
    #[arg(long, conflicts_with_all = ["create", "print"])]
    asyncapi: bool,
}

pub async fn topics(config: &Config, options: Options) -> Result<Exit, Failure> {
    if options.print {
        for line in commands(config) {
            print(&line)?;
        }
        return Ok(Exit::Done);
    }
    if options.asyncapi {
        print(&format!("{:#}", asyncapi::document(config)))?;
        return Ok(Exit::Done);
    }
    if options.create {
        create(&config.kafka, config.replication).await?;
    }
    let differences = verify(&config.kafka).await?;
    for topic in config.kafka.topics() {
        print(&format!("ok    {}  {} partitions", config.kafka.topic(topic), config.kafka.partitions))?;
    }
    for Difference { topic, setting, found, expected } in differences {
        print(&format!("note  {topic}: {setting}={found}, readers are promised {expected}"))?;
    }
    Ok(Exit::Done)
}

fn commands(config: &Config) -> Vec<String> {
    let kafka = &config.kafka;
    let bootstrap = &kafka.brokers;
    let mut lines = Vec::new();
    for topic in kafka.topics() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acls_name_the_topics_the_producers_and_the_consumer_group() {
        let text = r#"
[kafka]
brokers = ["localhost:9092"]
topic_prefix = "acme"
[registry]
url = "http://localhost:8081"
[[account]]
name = "acme-stripe"
provider = "stripe"
token_env = "TOKEN"
"#;
        let lines = commands(&Config::parse("test", text).unwrap());
        let acls: Vec<&String> = lines.iter().filter(|line| line.starts_with("kafka-acls.sh")).collect();
        assert_eq!(acls.len(), 3);
        assert!(acls[0].contains("--topic acme. --resource-pattern-type prefixed"), "{}", acls[0]);
        assert!(acls[1].contains("--transactional-id acme-shard- --resource-pattern-type prefixed"), "{}", acls[1]);
        // The group that the service joins, and the one that readers name without joining it.
        assert!(acls[2].ends_with("--operation Read --group acme --group acme-reader"), "{}", acls[2]);
    }
}
