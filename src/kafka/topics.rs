//! The topics: created with the settings that readers are promised, verified at every start, never altered.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;

use super::blocking::blocking;
use super::client::{KafkaClient, Quiet};
use super::error::{Meaning, code_in_words, meaning_of};
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

const ADMIN_WAIT: Duration = Duration::from_secs(15);
/// After the creation, until every broker knows the topics.
const CREATED_WAIT: Duration = Duration::from_secs(10);
const CREATED_POLL: Duration = Duration::from_millis(100);

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The settings that readers of a topic are promised. `replication`: its replication factor.
pub fn settings(topic: Topic, replication: i32) -> Vec<(&'static str, String)> {
    let mut settings = if topic.is_compacted() {
        vec![
            ("cleanup.policy", "compact".to_owned()),
            ("min.compaction.lag.ms", (6 * HOUR_MS).to_string()),
            ("segment.ms", (6 * HOUR_MS).to_string()),
            ("min.cleanable.dirty.ratio", "0.2".to_owned()),
            ("max.compaction.lag.ms", (7 * DAY_MS).to_string()),
            ("delete.retention.ms", (7 * DAY_MS).to_string()),
        ]
    } else {
        let days = if topic == Topic::Control { 90 } else { 28 };
        vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", (days * DAY_MS).to_string())]
    };
    if replication >= 3 {
        settings.push(("min.insync.replicas", "2".to_owned()));
    }
    settings
}

/// A setting of a topic that differs from what readers are promised; the topic can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub topic: String,
    pub setting: String,
    pub found: String,
    pub expected: String,
}

/// Creates the topics that are missing. `replication` -1: the broker's default.
///
/// # Errors
/// No broker answers, or creating is not permitted.
pub async fn create(client: &KafkaClient, replication: i32) -> Result<(), ServiceError> {
    let existing = partition_counts(client).await?;
    let missing: Vec<Topic> = client
        .topics()
        .into_iter()
        .zip(&existing)
        .filter(|(_, count)| count.is_none())
        .map(|(topic, _)| topic)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(|topic| client.topic(*topic)).collect();
    let configs: Vec<Vec<(&str, String)>> = missing.iter().map(|topic| settings(*topic, replication)).collect();
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .zip(&configs)
        .map(|(name, config)| {
            let topic = NewTopic::new(name, client.partitions, TopicReplication::Fixed(replication));
            config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let admin = admin(client)?;
    let options = AdminOptions::new().operation_timeout(Some(ADMIN_WAIT)).request_timeout(Some(ADMIN_WAIT));
    let results =
        admin.create_topics(&topics, &options).await.map_err(|error| client.explain("creating topics", &error))?;
    for result in results {
        match result {
            Ok(_) => {}
            Err((_, code)) if meaning_of(code) == Meaning::AlreadyExists => {}
            Err((topic, code)) => {
                let problem = Problem::new(format!("{topic} cannot be created ({})", code_in_words(code).what));
                return Err(client.refused(problem.with_remedy("scimtail topics --print shows what to create by hand")));
            }
        }
    }
    // The answer comes before every broker knows the topics.
    let waiting = tokio::time::timeout(CREATED_WAIT, async {
        while partition_counts(client).await?.iter().any(Option::is_none) {
            tokio::time::sleep(CREATED_POLL).await;
        }
        Ok(())
    });
    waiting.await.unwrap_or_else(|_| Err(client.unreachable()))
}

/// Checks existing topics: refuses what would break ordering or lose state, and reports other differences.
///
/// # Errors
/// A missing topic, another partition count, another cleanup policy; or no broker answers.
pub async fn verify(client: &KafkaClient) -> Result<Vec<Difference>, ServiceError> {
    let counts = partition_counts(client).await?;
    for (topic, count) in client.topics().into_iter().zip(counts) {
        let name = client.topic(topic);
        match count {
            None => {
                let problem = Problem::new(format!("topic {name} does not exist"));
                return Err(
                    client.refused(problem.with_remedy("scimtail topics --create, or kafka.create_topics = true"))
                );
            }
            Some(count) => same_count(client, &name, count)?,
        }
    }
    let admin = admin(client)?;
    let names: Vec<String> = client.topics().into_iter().map(|topic| client.topic(topic)).collect();
    let resources: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ADMIN_WAIT));
    let described = admin
        .describe_configs(&resources, &options)
        .await
        .map_err(|error| client.explain("describing topics", &error))?;
    let mut differences = Vec::new();
    for (topic, config) in client.topics().into_iter().zip(described) {
        let name = client.topic(topic);
        let config = config.map_err(|code| client.refused(code_in_words(code).of(&name)))?;
        for (setting, expected) in settings(topic, 0) {
            let found = config.get(setting).and_then(|entry| entry.value.clone()).unwrap_or_default();
            if found == expected {
                continue;
            }
            if setting == "cleanup.policy" {
                let what = format!("topic {name} has cleanup.policy={found}, it must be {expected}");
                let remedy = format!("kafka-configs.sh --alter --topic {name} --add-config cleanup.policy={expected}");
                return Err(client.refused(Problem::new(what).with_remedy(remedy)));
            }
            differences.push(Difference { topic: name.clone(), setting: setting.to_owned(), found, expected });
        }
    }
    Ok(differences)
}

/// Refuses topics with another partition count before a command reads them: it would look for accounts in the wrong
/// partitions. Topics that do not exist, or may not be seen, are left to the reading.
///
/// # Errors
/// Another partition count; or no broker answers.
pub async fn verify_counts(client: &KafkaClient) -> Result<(), ServiceError> {
    let counts = partition_counts(client).await?;
    for (topic, count) in client.topics().into_iter().zip(counts) {
        if let Some(count) = count {
            same_count(client, &client.topic(topic), count)?;
        }
    }
    Ok(())
}

fn same_count(client: &KafkaClient, name: &str, count: i32) -> Result<(), ServiceError> {
    if count == client.partitions {
        return Ok(());
    }
    let what = format!("topic {name} has {count} partitions, kafka.partitions says {}", client.partitions);
    let remedy = format!("set it to {count}: accounts live in partitions, so the count never changes in place");
    Err(client.refused(Problem::new(what).with_remedy(remedy)))
}

/// Partition count of each of [`KafkaClient::topics`]; `None`: it does not exist.
///
/// # Errors
/// No broker answers.
pub async fn partition_counts(client: &KafkaClient) -> Result<Vec<Option<i32>>, ServiceError> {
    let client = client.clone();
    blocking(move || {
        let admin = admin(&client)?;
        // All topics at once: a question for one by name would create it if brokers create topics by themselves.
        let metadata = metadata(&client, admin.inner())?;
        let count = |topic: Topic| {
            let name = client.topic(topic);
            let found = metadata.topics().iter().find(|found| found.name() == name && found.error().is_none());
            found.map(|found| found.partitions().len() as i32)
        };
        Ok(client.topics().into_iter().map(count).collect())
    })
    .await
}

fn metadata(client: &KafkaClient, inner: &Client<Quiet>) -> Result<rdkafka::metadata::Metadata, ServiceError> {
    inner.fetch_metadata(None, ADMIN_WAIT).map_err(|error| match client.explain("metadata", &error) {
        ServiceError::Refused(_) if error.rdkafka_error_code().is_none() => client.unreachable(),
        explained => explained,
    })
}

fn admin(client: &KafkaClient) -> Result<AdminClient<Quiet>, ServiceError> {
    client.config(&[]).create_with_context(Quiet).map_err(|error| KafkaClient::misconfigured(&error))
}
