//! The rights (ACLs) that the service needs, each tried on its own.
//!
//! Kafka answers no question about the rights of the one who asks, so each is used, in a way that leaves nothing that a
//! reader sees. A transaction under a `transactional.id` of its own writes to every topic and commits an offset of the
//! consumer group, and is aborted. The records have no key, so compacted topics refuse them after the right was checked.
//! No running service notices: it has another `transactional.id`, and the group is not joined.

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as Error;
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
use super::client::{KafkaClient, Quiet};
use super::error::{Meaning, in_words, is_unreachable, meaning, not_permitted};
use super::offsets::list;
use super::producer::TransactionalProducer;
use super::topics::{Cluster, Found};
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

/// For each answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How long the broker holds a fetch at the end of a topic back, milliseconds. librdkafka's 500 ms is for readers that
/// wait for records.
const FETCH_WAIT: (&str, &str) = ("fetch.wait.max.ms", "1");
/// Until a request is repeated, milliseconds: the broker may still end the transaction before. librdkafka waits for
/// 100 ms.
const RETRY_WAIT: (&str, &str) = ("retry.backoff.ms", "20");
/// In place of the partition in the `transactional.id`, so that the same rule covers it. A number follows: of two
/// checks at once under one id, each would fence the other.
const PROBE: &str = "check";

/// A right of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What it permits, in a few words.
    pub name: String,
    pub tried: Tried,
}

/// What came of using a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    Granted,
    Missing(Problem),
    /// Kafka gave another answer, or none: e.g. a coordinator that was just starting. It says nothing about the right.
    Unclear(Problem),
}

/// Tries each right on the topics that exist. `cluster`: what Kafka shows. `random`: another number for each check.
///
/// # Errors
/// A property that librdkafka does not take.
pub async fn probe(client: &KafkaClient, cluster: &Cluster, random: u32) -> Result<Vec<Right>, ServiceError> {
    let exists = |(_, found): &(Topic, &Found)| matches!(found, Found::Exists(_));
    let topics: Vec<Topic> =
        client.topics().into_iter().zip(&cluster.topics).filter(exists).map(|(topic, _)| topic).collect();
    let client = client.clone();
    blocking(move || {
        // At the same time, because neither part needs the other, and each waits for answers.
        std::thread::scope(|scope| {
            // Of topics that do not exist, nothing is known.
            let reading = (!topics.is_empty()).then(|| scope.spawn(|| reads(&client, &topics)));
            let writing = transactions(&client, &topics, random);
            let mut rights = reading.map(join).transpose()?.unwrap_or_default();
            rights.extend(writing?);
            Ok(rights)
        })
    })
    .await
}

fn join<T>(one: ScopedJoinHandle<'_, T>) -> T {
    one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// READ on every topic, and the group of readers if it is not granted. All are tried at once, because an error does not
/// name its topic, and each takes its time.
fn reads(client: &KafkaClient, topics: &[Topic]) -> Result<Vec<Right>, ServiceError> {
    let names: Vec<String> = topics.iter().map(|topic| client.topic(*topic)).collect();
    let client = &client.with(FETCH_WAIT);
    let read_one = |name: &String| -> Result<Result<bool, Error>, ServiceError> {
        Ok(read(&client.reader("read_committed")?, name))
    };
    let (group, outcomes): (_, Vec<_>) = std::thread::scope(|scope| {
        let grouping = scope.spawn(|| Ok(ask_for_offsets(&client.reader("read_committed")?, &names[0])));
        let trying: Vec<_> = names.iter().map(|name| scope.spawn(move || read_one(name))).collect();
        let outcomes = trying.into_iter().map(join).collect();
        (join(grouping), outcomes)
    });
    let group = group_of_readers(client, group?);
    let mut refused = Vec::new();
    let mut unclear = None;
    for (name, outcome) in names.into_iter().zip(outcomes) {
        match outcome? {
            Ok(true) => {}
            Ok(false) => unclear = Some(Problem::new(format!("{name}: no answer in time"))),
            Err(error) if meaning(&error) == Meaning::TopicRefused => refused.push(name),
            Err(error) => unclear = Some(in_words(&error).of(&name)),
        }
    }
    Ok([on_topics("Read", topics.len(), &refused, unclear)].into_iter().chain(group).collect())
}

/// READ on the group that readers name without joining it; `None` if it is granted. `asked`: what came of
/// [`ask_for_offsets`].
fn group_of_readers(client: &KafkaClient, asked: Result<bool, Error>) -> Option<Right> {
    let group = format!("{}-reader", client.topic_prefix);
    let unclear = |problem: Problem| Some(Right { name: group_name(&group), tried: Tried::Unclear(problem) });
    match asked {
        Ok(true) => None,
        Ok(false) => unclear("no answer in time".into()),
        Err(error) if meaning(&error) == Meaning::GroupRefused => Some(of_group(&group, false)),
        Err(error) => unclear(in_words(&error)),
    }
}

/// Asks for an offset of the group, which nothing commits; false without an answer in time.
fn ask_for_offsets(consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<bool, Error> {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition(topic, 0);
    let deadline = Instant::now() + ANSWER_WAIT;
    while Instant::now() < deadline {
        if consumer.committed_offsets(offsets.clone(), POLL_WAIT).is_ok() {
            return Ok(true);
        }
        // The call only waits for a coordinator. Why there is none comes as an event.
        match consumer.poll(POLL_WAIT) {
            Some(Err(error)) if !is_unreachable(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

/// One fetch at the end of a topic; false without an answer in time.
fn read(consumer: &BaseConsumer<Quiet>, name: &str) -> Result<bool, Error> {
    let deadline = Instant::now() + ANSWER_WAIT;
    let Some(end) = end(consumer, name, deadline)? else { return Ok(false) };
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(name, 0, Offset::Offset(end))?;
    consumer.assign(&assignment)?;
    while Instant::now() < deadline {
        match consumer.poll(POLL_WAIT) {
            None => {}
            Some(Ok(_) | Err(Error::PartitionEOF(_))) => return Ok(true),
            // The group is tried on its own, and is not needed for a fetch.
            Some(Err(error)) if is_unreachable(&error) || meaning(&error) == Meaning::GroupRefused => {}
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// Where a topic ends; `None` without an answer in time. It is asked for here, once the leader is known. If librdkafka
/// is told to start at the end, or asked before it knows the leader, it looks half a second later.
fn end(consumer: &BaseConsumer<Quiet>, name: &str, deadline: Instant) -> Result<Option<i64>, Error> {
    let left = || deadline.saturating_duration_since(Instant::now());
    while !left().is_zero() {
        let led = consumer.fetch_metadata(Some(name), left());
        match led.and_then(|_| list(consumer, name, &[(0, Offset::End)], left())) {
            Ok(ends) => return Ok(ends[0]),
            // A leader that moves answers so at once.
            Err(error) if is_unreachable(&error) => std::thread::sleep(POLL_WAIT.min(left())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The `transactional.id`, WRITE on every topic, and READ on the consumer group.
fn transactions(client: &KafkaClient, topics: &[Topic], random: u32) -> Result<Vec<Right>, ServiceError> {
    let client = &client.with(RETRY_WAIT);
    let ids = format!("transactional ids {}", TransactionalProducer::id(client, "*"));
    let right = |tried| Right { name: ids.clone(), tried };
    let shard = format!("{PROBE}-{random:08x}");
    let producer = || TransactionalProducer::connect_as(client, &shard, 0)?.fence(&CancellationToken::new());
    let bare = |problem: &Problem| problem.clone().without(&format!("kafka {}", client.brokers)).of(&ids);
    let mut trying = match producer() {
        Ok(producer) => producer,
        // Refused for a missing right, or because Kafka does no transactions.
        Err(ServiceError::Refused(problem)) => return Ok(vec![right(Tried::Missing(bare(&problem)))]),
        Err(error) => return Ok(vec![right(Tried::Unclear(bare(error.problem())))]),
    };
    let (mut refused, mut unclear) = (Vec::new(), None);
    for topic in topics {
        match trying.try_to_write(*topic) {
            Ok(Some(error)) if meaning(&error) == Meaning::TopicRefused => {
                refused.push(client.topic(*topic));
                // For the broker no transaction has begun, so librdkafka could not abort it.
                match producer() {
                    Ok(another) => trying = another,
                    Err(error) => {
                        unclear = Some(error.problem().clone());
                        break;
                    }
                }
            }
            // A compacted topic refuses a record without a key, which shows that this user may write.
            Ok(Some(error)) if meaning(&error) == Meaning::RecordRefused => {}
            Ok(Some(error)) => unclear = Some(in_words(&error).of(&client.topic(*topic))),
            Ok(None) => {}
            Err(error) => {
                unclear = Some(error.problem().clone());
                break;
            }
        }
    }
    let mut rights = vec![right(Tried::Granted)];
    // Of topics that do not exist, nothing is known; and an offset is one of a topic.
    if !topics.is_empty() {
        rights.push(on_topics("Write", topics.len(), &refused, unclear));
        rights.push(match trying.try_to_commit_offset(&client.reader_of(&client.topic_prefix)?) {
            Ok(Some(error)) if meaning(&error) == Meaning::GroupRefused => of_group(&client.topic_prefix, false),
            // A missing right to the topic shows here too. It was named above.
            Ok(Some(error)) if meaning(&error) == Meaning::TopicRefused => of_group(&client.topic_prefix, true),
            Ok(None) => of_group(&client.topic_prefix, true),
            Ok(Some(error)) => {
                Right { name: group_name(&client.topic_prefix), tried: Tried::Unclear(in_words(&error)) }
            }
            Err(error) => {
                Right { name: group_name(&client.topic_prefix), tried: Tried::Unclear(error.problem().clone()) }
            }
        });
    }
    Ok(rights)
}

fn group_name(group: &str) -> String {
    format!("consumer group {group}")
}

fn of_group(group: &str, granted: bool) -> Right {
    let missing = || not_permitted("Read", &format!("the consumer group {group}"));
    Right { name: group_name(group), tried: if granted { Tried::Granted } else { Tried::Missing(missing()) } }
}

fn on_topics(operation: &str, count: usize, refused: &[String], unclear: Option<Problem>) -> Right {
    let missing = || not_permitted(operation, &refused.join(", "));
    let tried = match unclear {
        _ if !refused.is_empty() => Tried::Missing(missing()),
        Some(problem) => Tried::Unclear(problem),
        None => Tried::Granted,
    };
    Right { name: format!("{operation} on {count} existing topics"), tried }
}
