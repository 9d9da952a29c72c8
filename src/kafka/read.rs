//! Reading partitions to their end.
//!
//! **Safety argument.** A read_committed consumer sees "end of partition" at the last stable offset, which is
//! before committed data while any other transaction is open. So the end is the high watermark as a
//! *read_uncommitted* client sees it, taken first, and reading ends only when the position (which counts control
//! records too) has reached it. End-of-partition is merely a wake-up.

use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as Error;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;

use super::blocking::aside;
use super::client::{KafkaClient, Quiet};
use super::credentials::Given;
use super::error::{Meaning, in_words, is_unreachable, meaning};
use super::offsets::watermarks_by;
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

const METADATA_WAIT: Duration = Duration::from_secs(30);
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How long the broker holds a fetch back when there is nothing more, in milliseconds. A reader that wants to know the
/// end would otherwise wait for librdkafka's 500 ms. One that follows a topic keeps these: it would ask 100 times a
/// second.
const FETCH_WAIT: (&str, &str) = ("fetch.wait.max.ms", "10");
/// For a broker to answer that it is there.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// Without an answer for so long, no broker is there. A broker that starts accepts connections before it keeps them.
const LOST_WAIT: Duration = Duration::from_secs(5);
/// Without an answer for so long, a new client takes the place of the one that follows a topic: certificates, keys and
/// passwords of librdkafka are those of the time at which a client is made. Longer than a broker takes to start.
pub const NEW_CLIENT_AFTER: Duration = Duration::from_secs(60);
/// Records between two calls of `progress`, while records come.
const BATCH_RECORDS_MAX: usize = 1_024;
/// Keys and values of a batch, and one record more. librdkafka bounds only what it has not yet handed out, and a record
/// may have a megabyte.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches that are fetched and not yet looked at.
const BATCHES_WAITING_MAX: usize = 4;
/// Without any progress for so long, reading fails: a hanging transaction, or a lost broker. Longer than a
/// predecessor's transaction can stay open.
const STALL_WAIT: Duration = Duration::from_secs(90);

/// A record as read, bytes only.
pub struct ReadRecord<'m> {
    pub topic: Topic,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<&'m [u8]>,
    pub value: Option<&'m [u8]>,
    message: &'m BorrowedMessage<'m>,
}

impl ReadRecord<'_> {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.message.headers()?;
        let header = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    }

    /// When the record was written, by the writer's clock, milliseconds since 1970-01-01 UTC; `None` if the topic keeps
    /// no times.
    pub fn written_at(&self) -> Option<i64> {
        self.message.timestamp().to_millis()
    }

    /// `topic [partition] @ offset`, for error messages.
    pub fn address(&self) -> String {
        format!("{} [{}] @ {}", self.message.topic(), self.partition, self.offset)
    }
}

/// One partition of one topic, from an offset to an end.
#[derive(Clone, Copy, Debug)]
struct Span {
    topic: Topic,
    partition: i32,
    start: Offset,
    position: i64,
    end: i64,
}

/// How far reading has come, for progress displays.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub read: i64,
    pub total: i64,
}

/// Reads the partitions of topics from their beginning to their present end: first all topics of the first of `turns`,
/// then those of the next. Blocks. `progress` is called at least every poll interval, also while nothing comes.
///
/// # Errors
/// No progress within the bound, a broker error, or the error that `each` or `progress` returns.
pub fn read_to_end(
    client: &KafkaClient,
    turns: &[&[Topic]],
    partitions: &[i32],
    mut each: impl FnMut(ReadRecord<'_>) -> Result<(), ServiceError>,
    mut progress: impl FnMut(Progress) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let uncommitted = client.asking(&client.brokers, "read_uncommitted")?;
    let mut all = Vec::new();
    for topics in turns {
        let mut spans = Vec::new();
        for topic in *topics {
            let marks = watermarks_by(client, &uncommitted, *topic, partitions)?;
            spans.extend(partitions.iter().zip(marks).map(|(partition, (position, end))| Span {
                topic: *topic,
                partition: *partition,
                start: Offset::Beginning,
                position,
                end,
            }));
        }
        all.push(spans);
    }
    drop(uncommitted);
    read_spans(client, all, &mut each, &mut progress)
}

/// Reads partitions of one topic from given offsets to their present end. Blocks.
///
/// # Errors
/// As [`read_to_end`].
pub fn read_from(
    client: &KafkaClient,
    topic: Topic,
    from: &[(i32, Offset)],
    mut each: impl FnMut(ReadRecord<'_>) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let mut spans = Vec::new();
    let uncommitted = client.asking(&client.brokers, "read_uncommitted")?;
    let partitions: Vec<i32> = from.iter().map(|(partition, _)| *partition).collect();
    let marks = watermarks_by(client, &uncommitted, topic, &partitions)?;
    for ((partition, start), (low, high)) in from.iter().zip(marks) {
        let position = match start {
            Offset::Beginning => low,
            Offset::Offset(offset) => (*offset).max(low),
            _ => high,
        };
        let start = if position == low { Offset::Beginning } else { Offset::Offset(position) };
        spans.push(Span { topic, partition: *partition, start, position, end: high });
    }
    drop(uncommitted);
    read_spans(client, vec![spans], &mut each, &mut |_| Ok(()))
}

fn read_spans(
    client: &KafkaClient,
    mut turns: Vec<Vec<Span>>,
    each: &mut impl FnMut(ReadRecord<'_>) -> Result<(), ServiceError>,
    progress: &mut impl FnMut(Progress) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    turns.iter_mut().for_each(|spans| spans.retain(|span| span.position < span.end));
    turns.retain(|spans| !spans.is_empty());
    if turns.is_empty() {
        return Ok(());
    }
    let reader = client.with(FETCH_WAIT).reader("read_committed")?;
    let outcome = read_with(&reader, client, turns, each, progress);
    aside(reader);
    outcome
}

fn read_with(
    reader: &BaseConsumer<Quiet>,
    client: &KafkaClient,
    turns: Vec<Vec<Span>>,
    each: &mut impl FnMut(ReadRecord<'_>) -> Result<(), ServiceError>,
    progress: &mut impl FnMut(Progress) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let total: i64 = turns.iter().map(|spans| left_of(spans)).sum();
    let mut later = total;
    for spans in turns {
        later -= left_of(&spans);
        let progress = |left| progress(Progress { read: total - later - left, total });
        read_turn(reader, client, spans, each, progress)?;
    }
    Ok(())
}

/// Offsets before the ends of the spans.
fn left_of(spans: &[Span]) -> i64 {
    spans.iter().map(|span| (span.end - span.position).max(0)).sum()
}

/// Reads spans to their ends. `progress` is told how many offsets are left.
///
/// One thread fetches, and `each` looks at the records on this one meanwhile: a restore takes twice as long to understand
/// a record as to fetch it.
fn read_turn(
    reader: &BaseConsumer<Quiet>,
    client: &KafkaClient,
    spans: Vec<Span>,
    each: &mut impl FnMut(ReadRecord<'_>) -> Result<(), ServiceError>,
    mut progress: impl FnMut(i64) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let (fetched, batches) = mpsc::sync_channel::<Batch<'_>>(BATCHES_WAITING_MAX);
    thread::scope(|scope| {
        let fetching = scope.spawn(move || fetch(reader, client, spans, &fetched));
        // What ends this drops `batches`, and with it ends the other thread.
        let taken = batches.into_iter().try_for_each(|Batch { records, left }| {
            for (topic, message) in &records {
                let (partition, offset) = (message.partition(), message.offset());
                let (key, value) = (message.key(), message.payload());
                each(ReadRecord { topic: *topic, partition, offset, key, value, message })?;
            }
            progress(left)
        });
        let fetched = fetching.join().unwrap_or_else(|panic| resume_unwind(panic));
        taken.and(fetched)
    })
}

/// Records in their order, and how many offsets are left behind them.
struct Batch<'m> {
    records: Vec<(Topic, BorrowedMessage<'m>)>,
    left: i64,
}

/// Fetches spans to their ends, or until nothing receives them any more. There is a batch at least every poll interval,
/// if need be an empty one.
fn fetch<'m>(
    reader: &'m BaseConsumer<Quiet>,
    client: &KafkaClient,
    mut spans: Vec<Span>,
    fetched: &mpsc::SyncSender<Batch<'m>>,
) -> Result<(), ServiceError> {
    let mut names: Vec<(Topic, String)> = spans.iter().map(|span| (span.topic, client.topic(span.topic))).collect();
    names.dedup();
    let mut assignment = TopicPartitionList::new();
    for span in &spans {
        assignment
            .add_partition_offset(&client.topic(span.topic), span.partition, span.start)
            .map_err(|error| client.explain("reading", &error))?;
    }
    // A partition whose leader librdkafka does not know when it is assigned waits half a second to ask again.
    for (_, name) in &names {
        reader.fetch_metadata(Some(name), METADATA_WAIT).map_err(|error| client.explain(name, &error))?;
    }
    reader.assign(&assignment).map_err(|error| client.explain("reading", &error))?;

    let (mut moved, mut last_moved) = (false, Instant::now());
    let (credentials, given) = (client.credentials(), Given::default());
    let (mut records, mut bytes) = (Vec::new(), 0);
    loop {
        credentials.renew(reader.client(), &given);
        match reader.poll(POLL_WAIT) {
            Some(Ok(message)) => {
                let Some((topic, _)) = names.iter().find(|(_, name)| name == message.topic()) else { continue };
                let (topic, partition, offset) = (*topic, message.partition(), message.offset());
                let span = spans.iter_mut().find(|span| span.topic == topic && span.partition == partition);
                let Some(span) = span.filter(|span| offset < span.end) else { continue };
                span.position = offset + 1;
                moved = true;
                bytes += message.key_len() + message.payload_len();
                records.push((topic, message));
                if span.position < span.end && records.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
                    continue;
                }
            }
            // Control records move the position without a message.
            None | Some(Err(Error::PartitionEOF(_))) => moved |= update_positions(reader, &names, &mut spans),
            // librdkafka reconnects by itself; the stall bound ends it.
            Some(Err(error)) if is_unreachable(&error) => {}
            // Old records went, or the leader changed, after the start was looked up. Reading again begins at a new one.
            Some(Err(error)) if meaning(&error) == Meaning::OutOfLog => {
                let problem = in_words(&error).of(&format!("kafka {}", client.brokers));
                return Err(ServiceError::Unreachable(problem.with_remedy("try again")));
            }
            Some(Err(error)) => return Err(client.explain("reading", &error)),
        }
        let left = left_of(&spans);
        bytes = 0;
        if fetched.send(Batch { records: std::mem::take(&mut records), left }).is_err() || left == 0 {
            return Ok(());
        }
        if std::mem::take(&mut moved) {
            last_moved = Instant::now();
        } else if last_moved.elapsed() > STALL_WAIT {
            let what = format!("kafka {}: reading stands still {left} offsets before the end", client.brokers);
            let remedy = "look for an open transaction of another producer, and for a broker that is down";
            return Err(ServiceError::Unreachable(Problem::new(what).with_remedy(remedy)));
        }
    }
}

/// True if any position moved.
fn update_positions(reader: &BaseConsumer<Quiet>, names: &[(Topic, String)], spans: &mut [Span]) -> bool {
    let Ok(positions) = reader.position() else { return false };
    let mut moved = false;
    for span in spans {
        let name = names.iter().find(|(topic, _)| *topic == span.topic).map(|(_, name)| name.as_str());
        let element = name.and_then(|name| positions.find_partition(name, span.partition));
        if let Some(Offset::Offset(position)) = element.map(|element| element.offset()) {
            moved |= position > span.position;
            span.position = span.position.max(position);
        }
    }
    moved
}

fn assign(
    client: &KafkaClient,
    reader: &BaseConsumer<Quiet>,
    name: &str,
    from: &[(i32, Offset)],
) -> Result<(), ServiceError> {
    let mut assignment = TopicPartitionList::new();
    for (partition, offset) in from {
        assignment
            .add_partition_offset(name, *partition, *offset)
            .map_err(|error| client.explain("reading", &error))?;
    }
    reader.assign(&assignment).map_err(|error| client.explain(name, &error))
}

/// Where a reader goes on that began at `from`.
fn positions(reader: &BaseConsumer<Quiet>, name: &str, from: &[(i32, Offset)]) -> Vec<(i32, Offset)> {
    let Ok(positions) = reader.position() else { return from.to_vec() };
    let position = |(partition, start): &(i32, Offset)| {
        let element = positions.find_partition(name, *partition);
        match element.map(|element| element.offset()) {
            Some(position @ Offset::Offset(_)) => (*partition, position),
            // It has read nothing yet.
            _ => (*partition, *start),
        }
    };
    from.iter().map(position).collect()
}

/// Follows partitions of one topic from given offsets until `each` says stop. Blocks; `each` is called with
/// `None` at least every poll interval, or every second while no broker answers, so that it can end the following.
/// `answered` is called with false when no broker answers any more, and with true when one answers again.
///
/// # Errors
/// As [`read_to_end`], without an end.
pub fn follow(
    client: &KafkaClient,
    topic: Topic,
    from: &[(i32, Offset)],
    mut answered: impl FnMut(bool),
    mut each: impl FnMut(Option<ReadRecord<'_>>) -> Result<std::ops::ControlFlow<()>, ServiceError>,
) -> Result<(), ServiceError> {
    let name = client.topic(topic);
    let mut reader = client.reader("read_committed")?;
    // A new client has to begin where this one did, so the end is the present one.
    let mut from = from.to_vec();
    for (partition, start) in &mut from {
        if *start == Offset::End {
            *start = Offset::Offset(watermarks_by(client, &reader, topic, &[*partition])?[0].1);
        }
    }
    assign(client, &reader, &name, &from)?;
    // Since when no broker answers, and whether `answered` was told.
    let (mut lost, mut said) = (None::<Instant>, false);
    let (mut made, credentials, mut given) = (Instant::now(), client.credentials(), Given::default());
    loop {
        if lost.is_some_and(|since| since.max(made).elapsed() > NEW_CLIENT_AFTER) {
            made = Instant::now();
            from = positions(&reader, &name, &from);
            // A secret may be unreadable at the moment. The next client is made after the same time.
            if let Ok(new) = client.reader("read_committed") {
                assign(client, &new, &name, &from)?;
                (reader, given) = (new, Given::default());
            }
        }
        credentials.renew(reader.client(), &given);
        let polled = reader.poll(POLL_WAIT);
        if matches!(&polled, Some(Err(error)) if is_unreachable(error)) {
            lost.get_or_insert_with(Instant::now);
        }
        // The broker is asked, because nothing says it otherwise: a lost connection may be one of several, and a
        // partition with nothing new is silent when its broker is back.
        if let Some(since) = lost {
            if reader.client().fetch_metadata(Some(&name), ANSWER_WAIT).is_ok() {
                lost = None;
                if std::mem::take(&mut said) {
                    answered(true);
                }
            } else if !said && since.elapsed() > LOST_WAIT {
                said = true;
                answered(false);
            }
        }
        let flow = match polled {
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), message.offset());
                let (key, value) = (message.key(), message.payload());
                each(Some(ReadRecord { topic, partition, offset, key, value, message: &message }))?
            }
            None | Some(Err(Error::PartitionEOF(_))) => each(None)?,
            Some(Err(error)) if is_unreachable(&error) => each(None)?,
            Some(Err(error)) => return Err(client.explain(&name, &error)),
        };
        if flow.is_break() {
            return Ok(());
        }
    }
}
