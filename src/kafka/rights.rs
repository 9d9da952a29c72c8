//! The rights (ACLs) that the service needs, each tried on its own.
//!
//! Kafka answers no question about the rights of the one who asks, so each is used, in a way that leaves nothing that a
//! reader sees. A transaction under a `transactional.id` of its own writes to every topic and commits an offset of the
//! consumer group, and is aborted. The records have no key, so compacted topics refuse them after the right was checked.
//! No running service notices: it has another `transactional.id`, and the group is not joined.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as Error;
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
use super::client::{KafkaClient, Quiet};
use super::error::{Meaning, PERMIT, is_unreachable, meaning};
use super::producer::TransactionalProducer;
use super::topics::{Cluster, Found};
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

/// For each answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const POLL_WAIT: Duration = Duration::from_millis(100);
/// In place of the partition in the `transactional.id`, so that the same rule covers it.
const PROBE: &str = "check";

/// A right of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What it permits, in a few words.
    pub name: String,
    /// `None` if it is granted.
    pub missing: Option<Problem>,
}

/// Tries each right on the topics that exist. `cluster`: what Kafka shows.
///
/// # Errors
/// No broker answers, or Kafka does no transactions.
pub async fn probe(client: &KafkaClient, cluster: &Cluster) -> Result<Vec<Right>, ServiceError> {
    let exists = |(_, found): &(Topic, &Found)| matches!(found, Found::Exists(_));
    let topics: Vec<Topic> =
        client.topics().into_iter().zip(&cluster.topics).filter(exists).map(|(topic, _)| topic).collect();
    let client = client.clone();
    blocking(move || {
        let mut rights = Vec::new();
        // Of topics that do not exist, nothing is known.
        if !topics.is_empty() {
            rights.push(reads(&client, &topics)?);
        }
        rights.extend(transactions(&client, &topics)?);
        Ok(rights)
    })
    .await
}

/// READ on every topic. All are tried at once, because an error does not name its topic, and each takes its time.
fn reads(client: &KafkaClient, topics: &[Topic]) -> Result<Right, ServiceError> {
    let names: Vec<String> = topics.iter().map(|topic| client.topic(*topic)).collect();
    let read_one = |name: &String| -> Result<Result<bool, Error>, ServiceError> {
        Ok(read(&client.reader("read_committed")?, name))
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let trying: Vec<_> = names.iter().map(|name| scope.spawn(move || read_one(name))).collect();
        let join = |one: std::thread::ScopedJoinHandle<'_, _>| {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        trying.into_iter().map(join).collect()
    });
    let mut refused = Vec::new();
    for (name, outcome) in names.into_iter().zip(outcomes) {
        match outcome? {
            Ok(true) => {}
            Ok(false) => return Err(client.unreachable()),
            Err(error) if meaning(&error) == Meaning::TopicRefused => refused.push(name),
            // Readers name this group without joining it, and librdkafka asks for its coordinator.
            Err(error) if meaning(&error) == Meaning::GroupRefused => {
                return Ok(of_group(&format!("{}-reader", client.topic_prefix), false));
            }
            Err(error) => return Err(client.explain(&name, &error)),
        }
    }
    Ok(on_topics("Read", topics.len(), &refused))
}

/// One fetch at the end of a topic; false without an answer in time.
fn read(consumer: &BaseConsumer<Quiet>, name: &str) -> Result<bool, Error> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(name, 0, Offset::End)?;
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + ANSWER_WAIT;
    while Instant::now() < deadline {
        match consumer.poll(POLL_WAIT) {
            None => {}
            Some(Ok(_) | Err(Error::PartitionEOF(_))) => return Ok(true),
            Some(Err(error)) if is_unreachable(&error) => {}
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// The `transactional.id`, WRITE on every topic, and READ on the consumer group.
fn transactions(client: &KafkaClient, topics: &[Topic]) -> Result<Vec<Right>, ServiceError> {
    let ids = format!("transactional ids {}", TransactionalProducer::id(client, "*"));
    let producer = || TransactionalProducer::connect_as(client, PROBE, 0)?.fence(&CancellationToken::new());
    let mut trying = match producer() {
        Ok(producer) => producer,
        Err(ServiceError::Refused(problem)) => {
            let problem = problem.without(&format!("kafka {}", client.brokers)).of(&ids);
            return Ok(vec![Right { name: ids, missing: Some(problem) }]);
        }
        Err(error) => return Err(error),
    };
    let mut refused = Vec::new();
    for topic in topics {
        match trying.try_to_write(*topic)? {
            Some(error) if meaning(&error) == Meaning::TopicRefused => {
                refused.push(client.topic(*topic));
                // For the broker no transaction has begun, so librdkafka could not abort it.
                trying = producer()?;
            }
            // A compacted topic refuses a record without a key, which shows that this user may write.
            Some(error) if meaning(&error) == Meaning::RecordRefused => {}
            Some(error) if meaning(&error) == Meaning::Fenced => {
                let problem = Problem::new("another `check` tries the same rights at the moment");
                return Err(ServiceError::unreachable(problem.with_remedy("run it again")));
            }
            Some(error) => return Err(client.explain(&client.topic(*topic), &error)),
            None => {}
        }
    }
    if topics.is_empty() {
        return Ok(vec![Right { name: ids, missing: None }]);
    }
    let group = match trying.try_to_commit_offset(&client.reader_of(&client.topic_prefix)?)? {
        Some(error) if meaning(&error) == Meaning::GroupRefused => of_group(&client.topic_prefix, false),
        // The offset is one of a topic, so a missing right to the topic shows here too. It was named above.
        Some(error) if meaning(&error) == Meaning::TopicRefused => of_group(&client.topic_prefix, true),
        Some(error) => return Err(client.explain("the consumer group", &error)),
        None => of_group(&client.topic_prefix, true),
    };
    Ok(vec![Right { name: ids, missing: None }, on_topics("Write", topics.len(), &refused), group])
}

fn of_group(group: &str, granted: bool) -> Right {
    let missing =
        Problem::new(format!("Read is not permitted on the consumer group {group} (ACL)")).with_remedy(PERMIT);
    Right { name: format!("consumer group {group}"), missing: (!granted).then_some(missing) }
}

fn on_topics(operation: &str, count: usize, refused: &[String]) -> Right {
    let missing = (!refused.is_empty()).then(|| {
        Problem::new(format!("{operation} is not permitted on {} (ACL)", refused.join(", "))).with_remedy(PERMIT)
    });
    Right { name: format!("{operation} on {count} existing topics"), missing }
}
