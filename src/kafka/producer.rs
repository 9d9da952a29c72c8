//! The transactional producer of a shard: connect, fence, commit, and the outcomes of a commit.
//!
//! **Safety argument.** A record that fails to enqueue or to be delivered does not poison a transaction:
//! librdkafka would commit the rest with Ok. So every send is checked, every delivery is counted, and a transaction is
//! committed only if all its records are acknowledged. From the call of `commit_transaction` on, any answer but Ok or
//! "retriable" leaves the outcome unknown (librdkafka lacks KIP-890: a late EndTxn can hit a later transaction, and it
//! may report an abortable error although the broker committed). Then the producer is dropped, and the next
//! `init_transactions` resolves the outcome before anything is read back.
//!
//! Commit and abort are called for `CALL_TURN` at a time, and called again while they say "retriable", which resumes
//! what is under way in librdkafka. This bounds the wait for a broker that never answers. Each call of the abort also
//! purges the queue again. That matters when a broker refuses one record: those behind it, already under way, come back
//! as "out of order" after the first purge, into a queue that nothing sends any more, and would wait there for their
//! own timeout. The purge takes what is queued, never what is under way, and comes only after a first delivery report
//! or the drain, so that the abort cannot overtake the registration of the partitions (librdkafka#4849).
//!
//! What this producer writes has higher offsets than everything that was there when the shard was taken over, and than
//! everything that it wrote before. A lower offset is in another topic by the same name: the transaction is aborted and
//! the acquisition ends, because what known says of that topic is no longer there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as Error;
use rdkafka::producer::Producer;
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;

use super::client::{KafkaClient, Quiet};
use super::error::{Meaning, in_words, is_fatal, is_retriable, is_unreachable, meaning, not_permitted};
use super::sender::{Place, Sender, Undelivered};
use super::written::{Written, recreated, recreated_in_words};
use crate::failpoint::{self, Point};
use crate::log::{Batch, EndKind, Ended, Positions, Record, Topic};
use crate::service::ServiceError;

/// Broker-side life of a transaction, milliseconds: a stuck one blocks read_committed readers this long. Nothing here
/// waits longer for its end, since the broker has aborted it by then. `transaction.timeout.ms` in `[kafka.properties]`
/// wins.
const TRANSACTION_TIMEOUT_MS: u64 = 60_000;
/// A record that is not acknowledged by then fails its transaction, as a share of the transaction's timeout: above it
/// librdkafka refuses. `message.timeout.ms` in `[kafka.properties]` wins.
const MESSAGE_TIMEOUT_SHARE: (u64, u64) = (3, 4);
/// One turn of a call that commits or aborts; above what either takes, so that a turn rarely ends in the middle.
const CALL_TURN: Duration = Duration::from_secs(1);
/// For a broker to grant the producer epoch.
const FENCE_WAIT: Duration = Duration::from_secs(30);
/// How soon a fence ends after it was called off.
const FENCE_SLICE: Duration = Duration::from_secs(2);

/// What is sent of one topic before its acknowledgement is waited for: less than a request of librdkafka takes
/// (`batch.size`). An idempotent producer of librdkafka has one request under way for each partition, and its thread turns
/// round without rest while records wait behind it: 10 % of the CPU of a first load.
const REQUEST_BYTES_MAX: usize = 900_000;
/// About what a record takes in a request beside its key, its value and its headers. Too little only brings the turning back.
const RECORD_FRAME_BYTES: usize = 64;

/// A producer under the shard's `transactional.id` that has not asked for a producer epoch. No other producer notices
/// it, and it cannot write.
pub struct ConnectedProducer {
    client: KafkaClient,
    sender: Sender,
    /// How long a transaction lives: the bound of every wait for its end.
    life: Duration,
}

/// What a transaction has sent.
#[derive(Default)]
struct Sent {
    records: usize,
    /// Bytes of each topic that were not waited for yet.
    unsettled: [usize; Topic::EVERY.len()],
}

impl ConnectedProducer {
    /// Fences every earlier producer of the shard and resolves what it left open. Blocks.
    ///
    /// `stop` gives it up: a fence that comes late, when another instance owns the shard, would take the shard from it.
    ///
    /// # Errors
    /// No broker answers in time, or the broker refuses (ACL).
    pub fn fence(self, stop: &CancellationToken) -> Result<TransactionalProducer, ServiceError> {
        let ConnectedProducer { client, sender, life } = self;
        failpoint::hit(Point::FenceBefore);
        // librdkafka looks for its coordinator at once if it is connected, and otherwise every half second. The first
        // answer comes from a bootstrap server, which librdkafka then leaves; the second from a broker that it keeps.
        // What the answers say is not of interest here.
        if let Some(topic) = sender.topics.values().next() {
            for _ in ["bootstrap server", "broker"] {
                drop(sender.producer.client().fetch_metadata(Some(topic), FENCE_SLICE));
            }
        }
        let deadline = Instant::now() + FENCE_WAIT;
        loop {
            // Called again, it waits on for the same answer.
            match sender.producer.init_transactions(FENCE_SLICE) {
                Ok(()) => break,
                Err(error) if is_retriable(&error) && Instant::now() < deadline && !stop.is_cancelled() => {}
                Err(error) if is_retriable(&error) || is_unreachable(&error) => {
                    tracing::debug!(%error, "the fence failed");
                    return Err(client.unreachable());
                }
                Err(error) => return Err(client.refused(in_words(&error))),
            }
        }
        failpoint::hit(Point::FenceAfter);
        Ok(TransactionalProducer { sender, written: Written::default(), life })
    }
}

/// The producer that owns the shard: it has the newest producer epoch.
pub struct TransactionalProducer {
    sender: Sender,
    /// To be raised to where the topics end, once they were read.
    pub written: Written,
    /// How long a transaction lives: the bound of every wait for its end.
    life: Duration,
}

/// Why a transaction was not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotCommitted {
    /// Aborted, and trying it again changes nothing: a record cannot be written as it is.
    Refused(String),
    /// Aborted: nothing of it is visible, and it may be tried again.
    Aborted(String),
    /// Fenced, fatal, or the outcome is unknown: drop the producer.
    Ended(Ended),
}

impl TransactionalProducer {
    /// The `transactional.id` of a shard; `shard`: its partition.
    pub fn id(client: &KafkaClient, shard: &str) -> String {
        format!("{}-shard-{shard}", client.topic_prefix)
    }

    /// A producer for the shard of this partition that has not fenced its predecessor yet: [`ConnectedProducer::fence`] does.
    ///
    /// # Errors
    /// A property that librdkafka does not take.
    pub fn connect(client: &KafkaClient, partition: i32) -> Result<ConnectedProducer, ServiceError> {
        TransactionalProducer::connect_as(client, &partition.to_string(), partition)
    }

    /// As [`TransactionalProducer::connect`], under the `transactional.id` of `shard`.
    pub(super) fn connect_as(
        client: &KafkaClient,
        shard: &str,
        partition: i32,
    ) -> Result<ConnectedProducer, ServiceError> {
        let transactional_id = TransactionalProducer::id(client, shard);
        let millis = |name: &str, ours: u64| -> u64 {
            // librdkafka complains about a value that is not a number.
            client.properties.get(name).and_then(|configured| configured.trim().parse().ok()).unwrap_or(ours)
        };
        let life = millis("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        let mut config = client.config(&[
            ("transactional.id", &transactional_id),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("compression.type", "lz4"),
            // Nothing lingers so long: `Sender::settle` sends what is there. It must not go in pieces before.
            ("linger.ms", "50"),
            // The batch is bounded by us; librdkafka's bound would only split it.
            ("queue.buffering.max.messages", "0"),
        ])?;
        let message_timeout = life.saturating_mul(MESSAGE_TIMEOUT_SHARE.0) / MESSAGE_TIMEOUT_SHARE.1;
        for (name, ours) in [("transaction.timeout.ms", life), ("message.timeout.ms", message_timeout)] {
            if !client.properties.contains_key(name) {
                config.set(name, ours.to_string());
            }
        }
        let topics: BTreeMap<Topic, String> =
            client.topics().into_iter().map(|topic| (topic, client.topic(topic))).collect();
        let life = Duration::from_millis(life);
        let sender = Sender::new(client, &config, topics, partition, life)?;
        Ok(ConnectedProducer { client: client.clone(), sender, life })
    }

    /// Commits batches of different accounts, at most `sender::BATCHES_MAX`, and their closing records in one
    /// transaction. Returns the positions of each batch. Blocks until the outcome is known, or cannot be known.
    ///
    /// # Errors
    /// As [`NotCommitted`] says.
    pub fn commit(&self, batches: &[Batch]) -> Result<Vec<Positions>, NotCommitted> {
        failpoint::hit(Point::BeginBefore);
        self.call(|| self.sender.producer.begin_transaction()).map_err(|error| ended(&error, REFUSED))?;
        failpoint::hit(Point::BeginAfter);
        let reached = match self.fill(batches) {
            Ok(reached) => reached,
            Err(failure) => return Err(self.abort(failure)),
        };
        failpoint::hit(Point::CommitBefore);
        match self.call(|| self.sender.producer.commit_transaction(CALL_TURN)) {
            Ok(()) => {
                failpoint::hit(Point::CommitAfter);
                Ok(reached)
            }
            // Abortable errors included: the broker may have committed.
            Err(error) => Err(ended(&error, "the outcome of a commit is unknown")),
        }
    }

    /// Writes a record without a key in a transaction that it aborts. Returns why Kafka refuses the record. If the topic is
    /// refused, the producer can do nothing more. Blocks.
    ///
    /// # Errors
    /// A transaction does not begin, or cannot be aborted.
    pub(super) fn try_to_write(&self, topic: Topic) -> Result<Option<Error>, ServiceError> {
        self.aborted(|| {
            let place = Place { transaction: self.sender.count_next(1), batch: 0 };
            match self.sender.send_without_key(place, topic).and_then(|()| self.sender.drain(1)) {
                Ok(()) => None,
                Err(Undelivered::Late) => Some(Error::Canceled),
                Err(Undelivered::Failed(error)) => Some(self.cause(error)),
            }
        })
    }

    /// Commits an offset for the group of `consumer` in a transaction that it aborts. Returns why Kafka refuses it.
    /// Blocks.
    ///
    /// # Errors
    /// As [`TransactionalProducer::try_to_write`].
    pub(super) fn try_to_commit_offset(&self, consumer: &BaseConsumer<Quiet>) -> Result<Option<Error>, ServiceError> {
        self.aborted(|| {
            let mut offsets = TopicPartitionList::new();
            if let Err(error) = offsets.add_partition_offset(&self.sender.topics[&Topic::Syncs], 0, Offset::Offset(0)) {
                return Some(error);
            }
            let Some(group) = consumer.group_metadata() else { return Some(Error::Canceled) };
            self.call(|| self.sender.producer.send_offsets_to_transaction(&offsets, &group, CALL_TURN)).err()
        })
    }

    fn aborted(&self, work: impl FnOnce() -> Option<Error>) -> Result<Option<Error>, ServiceError> {
        let failed = |error: Error| ServiceError::unreachable(in_words(&error).of("a transaction"));
        self.call(|| self.sender.producer.begin_transaction()).map_err(failed)?;
        let outcome = work();
        match self.call(|| self.sender.producer.abort_transaction(CALL_TURN)) {
            Err(error) if outcome.is_none() => Err(failed(error)),
            // What was refused may never have reached a transaction of the broker, which then has none to abort.
            Ok(()) | Err(_) => Ok(outcome),
        }
    }

    /// Sends everything and waits until all of it is acknowledged: first all data, whose acknowledgements are the
    /// positions, then the closing records that are made of them. Returns the positions of each batch, closing records
    /// included.
    fn fill(&self, batches: &[Batch]) -> Result<Vec<Positions>, Failure> {
        let transaction = self.sender.count_next(batches.len());
        let place = |batch| Place { transaction, batch };
        let mut sent = Sent::default();
        for (number, batch) in batches.iter().enumerate() {
            self.send_all(place(number), &batch.records, &mut sent)?;
        }
        self.sender.drain(sent.records)?;
        for (number, (batch, reached)) in batches.iter().zip(self.sender.reached()).enumerate() {
            let closing = (batch.closing)(&reached).map_err(Failure::Closing)?;
            self.send_all(place(number), &closing, &mut sent)?;
        }
        self.sender.drain(sent.records)?;
        if let Some(topic) = recreated(&self.written.up_to(), &self.sender.first()) {
            return Err(Failure::Recreated(recreated_in_words(&self.sender.topics[&topic])));
        }
        let reached = self.sender.reached();
        for positions in &reached {
            self.written.raise(positions);
        }
        Ok(reached)
    }

    fn send_all(&self, place: Place, records: &[Record], sent: &mut Sent) -> Result<(), Failure> {
        for record in records {
            let marker = record.topic == Topic::Syncs;
            failpoint::hit(if marker { Point::MarkerBefore } else { Point::SendBefore });
            let bytes = record.len() + RECORD_FRAME_BYTES;
            if sent.unsettled[record.topic as usize] + bytes > REQUEST_BYTES_MAX {
                self.sender.settle(sent.records)?;
                sent.unsettled = Default::default();
            }
            if let Err(failure) = self.sender.send(place, record) {
                // What was sent before is waited for: an abort that overtakes it can be fatal (librdkafka#4849), and
                // would end the acquisition for one record that is too large. Its own outcome changes nothing.
                drop(self.sender.drain(sent.records));
                return Err(failure.into());
            }
            sent.records += 1;
            sent.unsettled[record.topic as usize] += bytes;
            failpoint::hit(if marker { Point::MarkerAfter } else { Point::SendAfter });
        }
        Ok(())
    }

    /// Aborts the transaction. When Kafka confirms the abort, nothing of the transaction is visible; any other answer
    /// leaves the outcome open.
    fn abort(&self, failure: Failure) -> NotCommitted {
        let mut refused = false;
        let (words, outcome): (String, fn(String) -> NotCommitted) = match failure {
            Failure::Closing(words) => (words, NotCommitted::Refused),
            Failure::Recreated(words) => (words, gone),
            Failure::Undelivered(Undelivered::Late) => {
                ("acknowledgements did not come in time".to_owned(), NotCommitted::Aborted)
            }
            Failure::Undelivered(Undelivered::Failed(error)) => {
                let cause = self.cause(error);
                if is_fatal(&cause) {
                    return ended(&cause, REFUSED);
                }
                refused = meaning(&cause) == Meaning::TopicRefused;
                let outcome = match meaning(&cause) {
                    Meaning::RecordRefused | Meaning::TopicRefused => NotCommitted::Refused,
                    Meaning::Missing => gone,
                    _ => NotCommitted::Aborted,
                };
                let words = match self.sender.refused() {
                    names if refused && !names.is_empty() => not_permitted("Write", &names.join(", ")),
                    _ => in_words(&cause),
                };
                (words.to_string(), outcome)
            }
        };
        failpoint::hit(Point::AbortBefore);
        let aborted = self.call(|| self.sender.producer.abort_transaction(CALL_TURN));
        failpoint::hit(Point::AbortAfter);
        match aborted {
            // A topic that may not be written never became part of the broker's transaction, which may then not exist.
            Err(_) if refused => NotCommitted::Ended(Ended { kind: EndKind::Refused, reason: words }),
            Err(error) => ended(&error, &format!("{words}; the transaction could not be aborted")),
            Ok(()) => outcome(format!("the transaction was aborted: {words}")),
        }
    }

    /// The error behind an error. When a transaction cannot go on, librdkafka purges its queue and reports that of
    /// every record; the reason it tells only when another transaction is about to begin.
    fn cause(&self, error: Error) -> Error {
        if meaning(&error) != Meaning::Purged {
            return error;
        }
        match self.sender.producer.begin_transaction() {
            Err(Error::Transaction(cause)) if cause.txn_requires_abort() || cause.is_fatal() => {
                Error::Transaction(cause)
            }
            _ => error,
        }
    }

    /// One call, repeated while it is retriable and the transaction may live.
    fn call(&self, mut call: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
        let deadline = Instant::now() + self.life;
        loop {
            match call() {
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                result => return result,
            }
        }
    }
}

/// Why a transaction is aborted before its commit is asked for.
enum Failure {
    Undelivered(Undelivered),
    /// The closing records could not be made.
    Closing(String),
    /// A topic no longer holds what was written to it.
    Recreated(String),
}

impl From<Undelivered> for Failure {
    fn from(undelivered: Undelivered) -> Failure {
        Failure::Undelivered(undelivered)
    }
}

/// The outcome of an aborted transaction when a topic is gone: what known says of the topic is no longer there, so
/// restoring is all that can be done.
fn gone(reason: String) -> NotCommitted {
    NotCommitted::Ended(Ended { kind: EndKind::Failed, reason })
}

const REFUSED: &str = "Kafka refuses this producer";

fn ended(error: &Error, what: &str) -> NotCommitted {
    let words = in_words(error);
    let (kind, reason) = match meaning(error) {
        Meaning::Fenced => (EndKind::Fenced, words.to_string()),
        _ => (EndKind::Failed, words.of(what).to_string()),
    };
    NotCommitted::Ended(Ended { kind, reason })
}
