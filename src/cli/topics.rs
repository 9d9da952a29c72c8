//! `topics`: verify them, create them, or print the commands for an operator, for when scimtail may not create topics.

use clap::Args;

use super::asyncapi;
use super::failure::{Exit, Failure};
use super::output::{print, print_json};
use crate::config::Config;
use crate::kafka::topics::{DURABLE_BROKERS_MIN, Difference, create, durability, settings, verify};
use crate::kafka::{KafkaClient, TransactionalProducer};
use crate::log::Topic;

#[derive(Debug, Args)]
pub struct Options {
    /// Create the missing topics
    #[arg(long)]
    create: bool,
    /// Print the commands that create the topics, and the rights (ACLs) of three roles
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
        print_json(&format!("{:#}", asyncapi::document(config)))?;
        return Ok(Exit::Done);
    }
    if options.create {
        create(&config.kafka, config.replication).await?;
    }
    let differences = verify(&config.kafka, options.create).await?;
    for topic in config.kafka.topics() {
        print(&format!("ok    {}  {} partitions", config.kafka.topic(topic), config.kafka.partitions))?;
    }
    for Difference { topic, setting, found, expected } in differences {
        print(&format!("note  {topic}: {setting}={found}, readers are promised {expected}"))?;
    }
    Ok(Exit::Done)
}

/// The commands that create the topics, and the rights of three roles. Lines that begin with `#` say what follows.
fn commands(config: &Config) -> Vec<String> {
    let mut lines = vec!["# The topics, for a cluster of three brokers or more.".to_owned()];
    lines.extend(config.kafka.topics().into_iter().map(|topic| creation(config, topic)));
    lines.extend(rights(&config.kafka, config.create_topics));
    lines
}

fn creation(config: &Config, topic: Topic) -> String {
    let kafka = &config.kafka;
    let (replication, durable) = durability(config.replication, DURABLE_BROKERS_MIN);
    let configs: Vec<String> =
        settings(topic, durable).iter().map(|(key, value)| format!("--config {key}={value}")).collect();
    format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {} --replication-factor {replication} {}",
        kafka.brokers,
        kafka.topic(topic),
        kafka.partitions,
        configs.join(" ")
    )
}

/// What may be done with which topics, groups and transactional ids.
struct Role {
    principal: &'static str,
    what: &'static str,
}

const SERVICE: Role = Role { principal: "scimtail", what: "the service (`run`, `check`, `plan`)" };
const READER: Role = Role { principal: "scim-reader", what: "readers of events and state (SIEMs, `tail`, `state`)" };
const OPERATOR: Role = Role { principal: "scim-operator", what: "people who release, pause, resume and poll accounts" };

/// Topics are named one by one, because a rule for a prefix also covers a prefix that begins with it.
fn rights(kafka: &KafkaClient, creates: bool) -> Vec<String> {
    let topics = |of: &[Topic]| of.iter().map(|topic| format!(" --topic {}", kafka.topic(*topic))).collect::<String>();
    let all = topics(&kafka.topics());
    let readable: Vec<Topic> = kafka.topics().into_iter().filter(|topic| *topic != Topic::Control).collect();
    let (readable, prefix) = (topics(&readable), &kafka.topic_prefix);
    let grant = |role: &Role, operations: &[&str], resource: &str| {
        let operations: String = operations.iter().map(|operation| format!(" --operation {operation}")).collect();
        let (brokers, principal) = (&kafka.brokers, role.principal);
        format!(
            "kafka-acls.sh --bootstrap-server {brokers} --add --allow-principal User:{principal}{operations}{resource}"
        )
    };
    let says = |role: &Role| format!("# {}", role.what);
    let reader_group = format!(" --group {prefix}-reader");
    let mut lines = vec![says(&SERVICE), grant(&SERVICE, &["Read", "Write", "Describe", "DescribeConfigs"], &all)];
    if creates {
        lines.push(grant(&SERVICE, &["Create"], &all));
    }
    let ids = TransactionalProducer::id(kafka, "");
    lines.extend([
        format!("# The rule for the prefix {ids} covers one id for each partition. No topic_prefix may begin with it."),
        grant(&SERVICE, &["Write", "Describe"], &format!(" --transactional-id {ids} --resource-pattern-type prefixed")),
        grant(&SERVICE, &["Read"], &format!(" --group {prefix}{reader_group}")),
        says(&READER),
        grant(&READER, &["Read", "Describe"], &readable),
        // Where the topic ends is part of the proof that the state is whole.
        grant(&READER, &["Describe"], &topics(&[Topic::Control])),
        grant(&READER, &["Read"], &reader_group),
        "# A reader that joins a consumer group of its own needs Read on that group too.".to_owned(),
        format!("# With Describe on the group {prefix}, `scimtail status` also shows which instance owns an account."),
        says(&OPERATOR),
        grant(&OPERATOR, &["Read", "Describe", "DescribeConfigs"], &all),
        grant(&OPERATOR, &["Write"], &topics(&[Topic::Control])),
        grant(&OPERATOR, &["Read"], &reader_group),
    ]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_three_roles_name_topics_producers_and_groups() {
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
        let of = |principal: &str| -> Vec<&String> {
            let user = format!("--allow-principal User:{principal} ");
            lines.iter().filter(|line| line.starts_with("kafka-acls.sh") && line.contains(&user)).collect()
        };
        let service = of("scimtail");
        assert_eq!(service.len(), 4, "{service:#?}");
        assert!(
            service[0].contains(" --topic acme.events ") && service[0].ends_with("--topic acme.control"),
            "{}",
            service[0]
        );
        assert!(
            service[2].contains("--transactional-id acme-shard- --resource-pattern-type prefixed"),
            "{}",
            service[2]
        );
        // The group that the service joins, and the one that readers name without joining it.
        assert!(service[3].ends_with("--operation Read --group acme --group acme-reader"), "{}", service[3]);
        // No rule for topics is one for a prefix: it would cover acme.test.events too.
        assert!(service[..2].iter().all(|line| !line.contains("prefixed")), "{service:#?}");
        assert!(of("scim-reader").iter().all(|line| !line.contains("Write")));
        let control: Vec<&String> =
            of("scim-reader").into_iter().filter(|line| line.contains("acme.control")).collect();
        assert_eq!(control.len(), 1);
        assert!(!control[0].contains("Read "), "{}", control[0]);
        let writes: Vec<&String> = of("scim-operator").into_iter().filter(|line| line.contains("Write")).collect();
        assert_eq!(writes.len(), 1);
        assert!(writes[0].ends_with("--operation Write --topic acme.control"), "{}", writes[0]);
    }
}
