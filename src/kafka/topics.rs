//! The topics: created with the settings that readers are promised, verified at every start, never altered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::blocking::{aside, blocking};
use super::client::{KafkaClient, Quiet, hidden};
use super::contact::{self, Contact};
use super::credentials::Given;
use super::error::{Meaning, code_in_words, meaning_of, not_permitted};
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

const ADMIN_WAIT: Duration = Duration::from_secs(15);
/// After the creation, until every broker knows the topics.
const CREATED_WAIT: Duration = Duration::from_secs(30);
/// For the settings of topics that exist.
const DESCRIBED_WAIT: Duration = Duration::from_secs(5);
const CREATED_POLL: Duration = Duration::from_millis(100);
/// Brokers that are asked whether they know the topics.
const BROKERS_ASKED_MAX: usize = 32;
/// From this number of brokers on, one of them may be lost without an acknowledged transaction.
pub const DURABLE_BROKERS_MIN: usize = 3;
/// Replicas of a topic there, unless configured.
const DURABLE_REPLICAS: i32 = 3;
/// Replicas that acknowledge a record there.
const DURABLE_ACKNOWLEDGED: i32 = 2;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The settings that readers of a topic are promised. `durable`: each record is acknowledged by two replicas.
pub fn settings(topic: Topic, durable: bool) -> Vec<(&'static str, String)> {
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
    if durable {
        settings.push((MIN_INSYNC, DURABLE_ACKNOWLEDGED.to_string()));
    }
    settings
}

const MIN_INSYNC: &str = "min.insync.replicas";

/// What a new topic gets on so many brokers: its replication factor, -1 for the brokers' default, and whether two
/// replicas acknowledge each record. Without the second, Kafka acknowledges a transaction that one broker holds alone,
/// and loses it with that broker. With one replica it would refuse every record. `configured`: -1 leaves it open.
pub fn durability(configured: i32, brokers: usize) -> (i32, bool) {
    let enough = brokers >= DURABLE_BROKERS_MIN;
    match configured {
        1.. => (configured, configured >= DURABLE_REPLICAS || enough && configured >= DURABLE_ACKNOWLEDGED),
        // The brokers' default may be one replica, and is if it was never set.
        _ if enough => (DURABLE_REPLICAS, true),
        _ => (configured, false),
    }
}

/// What Kafka shows of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It exists, with so many partitions.
    Exists(i32),
    Missing,
    /// This user may not describe it (ACL), so that it may exist or not.
    Hidden,
}

/// A setting of a topic that differs from what readers are promised; the topic can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub topic: String,
    pub setting: String,
    pub found: String,
    pub expected: String,
}

/// Creates the topics that are missing, and waits until every broker knows them. `replication` -1: left open.
///
/// # Errors
/// No broker answers, or fewer have registered than there are to be replicas, or creating is not permitted.
pub async fn create(client: &KafkaClient, replication: i32) -> Result<(), ServiceError> {
    let created = ask_to_create(client, replication, false).await?;
    if created.is_empty() { Ok(()) } else { settled(client, created).await }
}

/// Returns the names of the topics that are missing.
async fn ask_to_create(client: &KafkaClient, replication: i32, only_ask: bool) -> Result<Vec<String>, ServiceError> {
    let existing = found(client).await?;
    let missing: Vec<Topic> = client
        .topics()
        .into_iter()
        .zip(&existing.topics)
        .filter(|(_, found)| **found == Found::Missing)
        .map(|(topic, _)| topic)
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let (asked, brokers) = (replication, existing.brokers.len());
    let (replication, durable) = durability(asked, brokers);
    let names: Vec<String> = missing.iter().map(|topic| client.topic(*topic)).collect();
    let configs: Vec<Vec<(&str, String)>> = missing.iter().map(|topic| settings(*topic, durable)).collect();
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .zip(&configs)
        .map(|(name, config)| {
            let topic = NewTopic::new(name, client.partitions, TopicReplication::Fixed(replication));
            config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        })
        .collect();
    let admin = admin(client)?;
    let options = AdminOptions::new()
        .operation_timeout(Some(ADMIN_WAIT))
        .request_timeout(Some(ADMIN_WAIT))
        .validate_only(only_ask);
    let results =
        admin.create_topics(&topics, &options).await.map_err(|error| client.explain("creating topics", &error))?;
    for result in results {
        match result {
            Ok(_) => {}
            Err((_, code)) if meaning_of(code) == Meaning::AlreadyExists => {}
            // Whether it was created is not known. The next attempt finds out.
            Err((_, code)) if matches!(meaning_of(code), Meaning::Unreachable | Meaning::TimedOut) => {
                return Err(client.unreachable());
            }
            Err((_, code)) if meaning_of(code) == Meaning::ReplicasRefused => {
                if let Some(problem) = too_few_brokers(asked, replication, brokers) {
                    return Err(ServiceError::Unreachable(problem.of(&format!("kafka {}", client.brokers))));
                }
                let problem = code_in_words(code);
                return Err(
                    client.refused(problem.of(&format!("topics with {replication} replicas cannot be created")))
                );
            }
            Err((topic, code)) => {
                let problem = Problem::new(format!("{topic} cannot be created ({})", code_in_words(code).what));
                return Err(client.refused(problem.with_remedy("scimtail topics --print shows what to create by hand")));
            }
        }
    }
    Ok(names)
}

/// Why brokers refuse a number of replicas if more of them may still start; `None` if enough of them have. `asked`: as
/// configured, `replication`: as asked for, -1 for the brokers' default.
fn too_few_brokers(asked: i32, replication: i32, brokers: usize) -> Option<Problem> {
    let registered =
        if brokers == 1 { "1 broker has registered".to_owned() } else { format!("{brokers} brokers have registered") };
    match replication {
        1.. if usize::try_from(replication).is_ok_and(|replicas| replicas <= brokers) => None,
        1.. if asked == replication => Some(
            Problem::new(format!("{registered}, and replication = {replication} needs {replication}"))
                .with_remedy("start the missing brokers, or lower kafka.replication"),
        ),
        // The brokers' default is not shown to clients that may create topics and no more.
        _ => Some(
            Problem::new(format!("{registered}, and the brokers' default replication factor needs more"))
                .with_remedy("start the missing brokers, or set kafka.replication"),
        ),
    }
}

/// Asks Kafka whether the missing topics may be created, and creates none.
///
/// # Errors
/// No broker answers, or creating is not permitted.
pub async fn may_create(client: &KafkaClient, replication: i32) -> Result<(), ServiceError> {
    ask_to_create(client, replication, true).await.map(drop)
}

/// Waits until every broker knows the topics: the answer to their creation comes before, and the next question may go to
/// another broker.
async fn settled(client: &KafkaClient, names: Vec<String>) -> Result<(), ServiceError> {
    let client = client.clone();
    blocking(move || {
        let deadline = Instant::now() + CREATED_WAIT;
        let brokers = addresses(&contact::metadata(&client)?);
        for broker in brokers.iter().take(BROKERS_ASKED_MAX) {
            loop {
                let known = contact::metadata_of(&client, broker).is_ok_and(|metadata| {
                    let ready =
                        |name: &String| metadata.topics().iter().any(|topic| topic.name() == name && is_ready(topic));
                    names.iter().all(ready)
                });
                if known {
                    break;
                }
                if Instant::now() > deadline {
                    let seconds = CREATED_WAIT.as_secs();
                    let what = format!("kafka {broker}: this broker does not know the new topics after {seconds} s");
                    return Err(ServiceError::unreachable(
                        Problem::new(what).with_remedy("check that all brokers run"),
                    ));
                }
                std::thread::sleep(CREATED_POLL);
            }
        }
        Ok(())
    })
    .await
}

/// A topic whose partitions all have a leader.
fn is_ready(topic: &MetadataTopic) -> bool {
    topic.error().is_none() && topic.partitions().iter().all(|partition| partition.error().is_none())
}

/// Checks existing topics: refuses what would break ordering or lose state, and reports other differences.
///
/// `created`: they may have been created a moment ago, by any instance, so one that is missing is waited for.
///
/// # Errors
/// A missing topic, another partition count, another cleanup policy; or no broker answers.
pub async fn verify(client: &KafkaClient, created: bool) -> Result<Vec<Difference>, ServiceError> {
    let began = Instant::now();
    let deadline = began + DESCRIBED_WAIT;
    loop {
        match verify_once(client).await? {
            Verified::Topics(differences) => return Ok(differences),
            Verified::Missing(_) if created && began.elapsed() < CREATED_WAIT => tokio::time::sleep(CREATED_POLL).await,
            Verified::Missing(problem) => return Err(client.refused(problem)),
            // Another instance may have created it a moment ago, and not every broker knows it yet.
            Verified::Undescribed(_) if Instant::now() < deadline => tokio::time::sleep(CREATED_POLL).await,
            Verified::Undescribed(name) => {
                return Err(client.refused(not_permitted("DescribeConfigs", &name)));
            }
        }
    }
}

enum Verified {
    Topics(Vec<Difference>),
    /// A topic does not exist.
    Missing(Problem),
    /// A broker does not describe the settings of this topic, which a broker lists.
    Undescribed(String),
}

async fn verify_once(client: &KafkaClient) -> Result<Verified, ServiceError> {
    let cluster = found(client).await?;
    for (topic, found) in client.topics().into_iter().zip(&cluster.topics) {
        let name = client.topic(topic);
        match found {
            Found::Missing => {
                let problem = Problem::new(format!("topic {name} does not exist"));
                let remedy = "scimtail topics --create, or kafka.create_topics = true";
                return Ok(Verified::Missing(problem.with_remedy(remedy)));
            }
            // A new topic is missing at first and never hidden, so there is nothing to wait for.
            Found::Hidden => return Err(client.refused(hidden(&name))),
            Found::Exists(count) => same_count(client, &name, *count)?,
        }
    }
    let names: Vec<String> = client.topics().into_iter().map(|topic| client.topic(topic)).collect();
    let enough = cluster.brokers.len() >= DURABLE_BROKERS_MIN;
    let mut differences = Vec::new();
    for ((topic, name), config) in client.topics().into_iter().zip(&names).zip(describe(client, &names).await?) {
        // rdkafka passes on no error of a single topic, but a description without entries.
        if config.entries.is_empty() {
            return Ok(Verified::Undescribed(name.clone()));
        }
        let replicas = cluster.replicas.get(name).copied().unwrap_or(DURABLE_REPLICAS);
        if enough && replicas < DURABLE_ACKNOWLEDGED {
            let (setting, found) = ("replication factor".to_owned(), replicas.to_string());
            differences.push(Difference {
                topic: name.clone(),
                setting,
                found,
                expected: DURABLE_REPLICAS.to_string(),
            });
        }
        // With one replica, Kafka would refuse every record if two had to acknowledge it.
        for (setting, expected) in settings(topic, enough && replicas >= DURABLE_ACKNOWLEDGED) {
            let found = config.get(setting).and_then(|entry| entry.value.clone()).unwrap_or_default();
            let more = setting == MIN_INSYNC && found.parse().is_ok_and(|found: i32| found >= DURABLE_ACKNOWLEDGED);
            if found == expected || more {
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
    Ok(Verified::Topics(differences))
}

/// The settings of topics, in the order of the names.
async fn describe(client: &KafkaClient, names: &[String]) -> Result<Vec<ConfigResource>, ServiceError> {
    let resources: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ADMIN_WAIT));
    let admin = admin(client)?;
    let described = admin.describe_configs(&resources, &options).await;
    aside(admin);
    let described = described.map_err(|error| client.explain("describing topics", &error))?;
    // An answer that leaves out a topic is not an answer.
    let described: Vec<ConfigResource> = described.into_iter().filter_map(Result::ok).collect();
    if described.len() == names.len() { Ok(described) } else { Err(client.unreachable()) }
}

/// Refuses topics with another partition count before a command reads them: it would look for accounts in the wrong
/// partitions. Topics that do not exist, or may not be seen, are left to the reading.
///
/// # Errors
/// Another partition count; or no broker answers.
pub async fn verify_counts(client: &KafkaClient) -> Result<(), ServiceError> {
    for (topic, found) in client.topics().into_iter().zip(found(client).await?.topics) {
        if let Found::Exists(count) = found {
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

/// What Kafka shows of its brokers, and of each of [`KafkaClient::topics`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `host:port` of each.
    pub brokers: Vec<String>,
    pub topics: Vec<Found>,
    /// The smallest number of replicas of a partition, by the name of the topic.
    pub replicas: HashMap<String, i32>,
}

/// Asks which brokers and topics there are.
///
/// # Errors
/// No broker answers.
pub async fn found(client: &KafkaClient) -> Result<Cluster, ServiceError> {
    let (asked, names) =
        (client.clone(), client.topics().into_iter().map(|topic| client.topic(topic)).collect::<Vec<_>>());
    blocking(move || {
        let contact = Contact::new(&asked)?;
        let metadata = contact.ask(contact::ANSWER_WAIT)?;
        // A topic without leaders exists too.
        let listed: HashMap<&str, i32> =
            metadata.topics().iter().map(|topic| (topic.name(), topic.partitions().len() as i32)).collect();
        let found = |name: &String| match listed.get(name.as_str()) {
            Some(partitions) => Ok(Found::Exists(*partitions)),
            // A list of all topics leaves out what this user may not describe, as if it did not exist.
            None => Ok(match contact.ask_for(name)? {
                // It was created in between.
                Ok(partitions) => Found::Exists(partitions),
                Err(Meaning::Missing) => Found::Missing,
                Err(_) => Found::Hidden,
            }),
        };
        let topics = names.iter().map(found).collect::<Result<_, ServiceError>>()?;
        let replicas = |topic: &MetadataTopic| {
            let fewest = topic.partitions().iter().map(|partition| partition.replicas().len() as i32).min();
            Some((topic.name().to_owned(), fewest?))
        };
        let replicas = metadata.topics().iter().filter_map(replicas).collect();
        Ok(Cluster { brokers: addresses(&metadata), topics, replicas })
    })
    .await
}

fn addresses(metadata: &Metadata) -> Vec<String> {
    metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect()
}

fn admin(client: &KafkaClient) -> Result<AdminClient<Quiet>, ServiceError> {
    let made = client.config(&[])?.create_with_context(client.context());
    let admin: AdminClient<Quiet> = made.map_err(|error| KafkaClient::misconfigured(&error))?;
    client.credentials().give(admin.inner(), &Given::default())?;
    Ok(admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_replicas_is_waited_for_only_while_fewer_brokers_have_registered() {
        let said = |asked, replication, brokers| {
            too_few_brokers(asked, replication, brokers).map(|problem| problem.to_string())
        };
        let two = "2 brokers have registered, and replication = 3 needs 3; \
                   → start the missing brokers, or lower kafka.replication";
        assert_eq!(said(3, 3, 2).as_deref(), Some(two));
        let one = "1 broker has registered, and the brokers' default replication factor needs more; \
                   → start the missing brokers, or set kafka.replication";
        assert_eq!(said(-1, -1, 1).as_deref(), Some(one));
        // Redpanda takes odd numbers only, and some clouds three replicas only.
        assert_eq!(said(2, 2, 3), None);
        assert_eq!(said(1, 1, 6), None);
        assert_eq!(said(-1, DURABLE_REPLICAS, 3), None);
    }
}
