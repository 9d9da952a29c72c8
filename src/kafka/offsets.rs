//! Where partitions begin and end.
//!
//! librdkafka's call for both watermarks reports success if the leader answers only one of its two requests, and the
//! missing one is then 0 or a time (seen with librdkafka 2.12). Taken for an end, it would hide records. The call for
//! offsets by time has an error for each partition, and "the beginning" and "the end" are two of its times.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Error, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::Offset;

use super::client::{KafkaClient, Quiet};
use super::error::{Meaning, meaning};
use crate::log::Topic;
use crate::service::ServiceError;

const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// For the leader of a partition: brokers list a new topic a moment before its leaders serve it, and a leader that
/// moves knows its end a moment later.
const LEADER_WAIT: Duration = Duration::from_secs(10);
const LEADER_POLL: Duration = Duration::from_millis(20);

/// Low and high watermark of a partition, the high one including what is not yet committed. Blocks.
///
/// # Errors
/// No broker answers, or the topic may not be read.
pub fn watermarks(client: &KafkaClient, topic: Topic, partition: i32) -> Result<(i64, i64), ServiceError> {
    let reader = client.asking(&client.brokers, "read_uncommitted")?;
    Ok(watermarks_by(client, &reader, topic, &[partition])?[0])
}

/// The end offset of each of `topics` in the partition, uncommitted records included. Blocks.
///
/// # Errors
/// As [`watermarks`].
pub fn ends_of(client: &KafkaClient, topics: &[Topic], partition: i32) -> Result<Vec<i64>, ServiceError> {
    let reader = client.asking(&client.brokers, "read_uncommitted")?;
    let end = |topic: &Topic| {
        let name = led(client, &reader, *topic)?;
        let ends = waiting(client, &reader, &name, &[(partition, Offset::End)])?;
        // Only times have an answer without an offset.
        Ok(ends[0].unwrap_or(0))
    };
    topics.iter().map(end).collect()
}

/// Low and high watermark of each of `partitions`, as the isolation level of `reader` sees them. Blocks.
///
/// # Errors
/// As [`watermarks`].
pub fn watermarks_by(
    client: &KafkaClient,
    reader: &BaseConsumer<Quiet>,
    topic: Topic,
    partitions: &[i32],
) -> Result<Vec<(i64, i64)>, ServiceError> {
    let all = |place: Offset| -> Vec<_> { partitions.iter().map(|partition| (*partition, place)).collect() };
    let name = led(client, reader, topic)?;
    let lows = waiting(client, reader, &name, &all(Offset::Beginning))?;
    // Asked for after the low ones, so that none of them is behind its end.
    let highs = waiting(client, reader, &name, &all(Offset::End))?;
    // Only times have an answer without an offset.
    Ok(lows.into_iter().zip(highs).map(|(low, high)| (low.unwrap_or(0), high.unwrap_or(0))).collect())
}

/// The first offset of each partition whose record was written at `millis` or later; the end if there is none.
/// Uncommitted records count: a partition knows of a commit a moment after the committing program does, and a reader
/// of committed records would be sent behind records that are in it. Blocks.
///
/// # Errors
/// As [`watermarks`].
pub fn offsets_at(
    client: &KafkaClient,
    topic: Topic,
    partitions: &[i32],
    millis: i64,
) -> Result<Vec<(i32, Offset)>, ServiceError> {
    let reader = client.asking(&client.brokers, "read_uncommitted")?;
    let asked: Vec<_> = partitions.iter().map(|partition| (*partition, Offset::Offset(millis))).collect();
    let found = waiting(client, &reader, &led(client, &reader, topic)?, &asked)?;
    Ok(partitions.iter().zip(found).map(|(at, offset)| (*at, offset.map_or(Offset::End, Offset::Offset))).collect())
}

/// The name of a topic whose leaders the client knows. If it is asked for offsets before it is connected, librdkafka
/// looks for their leaders half a second later.
fn led(client: &KafkaClient, reader: &BaseConsumer<Quiet>, topic: Topic) -> Result<String, ServiceError> {
    let name = client.topic(topic);
    match reader.fetch_metadata(Some(&name), ANSWER_WAIT) {
        Ok(_) => Ok(name),
        Err(error) => Err(client.explain_topic(reader, &name, &error)),
    }
}

/// As [`list`], asking again while leaders move.
fn waiting(
    client: &KafkaClient,
    reader: &BaseConsumer<Quiet>,
    name: &str,
    asked: &[(i32, Offset)],
) -> Result<Vec<Option<i64>>, ServiceError> {
    let began = Instant::now();
    loop {
        match list(reader, name, asked, ANSWER_WAIT) {
            Err(error) if passes(&error) && began.elapsed() < LEADER_WAIT && client.lists(reader, name) => {
                thread::sleep(LEADER_POLL);
            }
            found => return found.map_err(|error| client.explain_topic(reader, name, &error)),
        }
    }
}

/// One request to each leader. For each of `asked` the offset of its place: the beginning, the end, or a time in
/// milliseconds (as librdkafka has it, in the place of an offset). `None` for a time after all records. Blocks.
///
/// # Errors
/// The first one of a partition, or that of the request.
pub fn list(
    reader: &BaseConsumer<Quiet>,
    name: &str,
    asked: &[(i32, Offset)],
    wait: Duration,
) -> Result<Vec<Option<i64>>, Error> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let mut places = TopicPartitionList::new();
    for (partition, place) in asked {
        places.add_partition_offset(name, *partition, *place)?;
    }
    let found = reader.offsets_for_times(places, wait)?;
    let unanswered = || Error::OffsetFetch(Code::OffsetNotAvailable);
    let answer = |(partition, place): &(i32, Offset)| {
        let element = found.find_partition(name, *partition).ok_or_else(unanswered)?;
        element.error()?;
        match (place, element.offset()) {
            (_, Offset::Offset(offset)) => Ok(Some(offset)),
            (Offset::Offset(_), Offset::End) => Ok(None),
            _ => Err(unanswered()),
        }
    };
    asked.iter().map(answer).collect()
}

/// True if the leader may answer a moment later. librdkafka passes these errors on, or leaves them in its answer after
/// it has asked again.
fn passes(error: &Error) -> bool {
    const PASSING: [Code; 8] = [
        Code::NotLeaderForPartition,
        Code::LeaderNotAvailable,
        Code::ReplicaNotAvailable,
        Code::FencedLeaderEpoch,
        Code::UnknownLeaderEpoch,
        Code::OffsetNotAvailable,
        Code::KafkaStorageError,
        Code::RequestTimedOut,
    ];
    meaning(error) == Meaning::Missing || error.rdkafka_error_code().is_some_and(|code| PASSING.contains(&code))
}
