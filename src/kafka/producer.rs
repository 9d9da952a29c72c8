//! One transactional producer: four verbs and their outcomes.
//!
//! **Safety argument.** A record that fails to enqueue or to be delivered does not poison a transaction:
//! librdkafka would commit the rest with Ok. So every send is checked, every delivery is counted, and only a
//! transaction all of whose records are acknowledged is committed. From the call of `commit_transaction`
//! on, anything but Ok or "retriable" leaves the outcome unknown (librdkafka lacks KIP-890: a late EndTxn can hit
//! a later transaction, and it may report an abortable error although the broker committed): the producer is
//! dropped and the next `init_transactions` resolves it, before anything is read back.
//!
//! Commit and abort are called for `CALL_TURN` at a time and called again while they say "retriable", which
//! resumes what is under way in librdkafka. This bounds a broker that never answers; and each call of the abort purges
//! the queue anew. That matters where a broker refuses one record: those behind it, already under way, come back as
//! "out of order" after the first purge, into a queue that nothing sends any more, and would wait there for their own
//! timeout. It purges what is queued, never what is under way, and only after a first delivery report or the drain, so
//! that the abort cannot overtake the registration of the partitions (librdkafka#4849).
//!
//! What is written stands behind everything that was there when the shard was taken over, and behind whatever this
//! producer wrote since. An offset before that is in another topic by the same name: the transaction is aborted and
//! the acquisition ends, because what known says of that topic is no longer there (issue 5).

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as Error, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio_util::sync::CancellationToken;

use super::client::{KafkaClient, KafkaError, Quiet, in_words, is_transport};
use crate::failpoint::{self, Point};
use crate::log::{Batch, Ended, Positions, Record, Topic};

/// Broker-side life of a transaction, milliseconds: a stuck one blocks read_committed readers this long. Nothing here
/// waits longer for its end, since the broker has aborted it by then. `transaction.timeout.ms` in `[kafka.properties]`
/// wins.
const TRANSACTION_TIMEOUT_MS: u64 = 60_000;
/// A record that is not acknowledged by then fails its transaction, as a share of the transaction's timeout: above it
/// librdkafka refuses. `message.timeout.ms` in `[kafka.properties]` wins.
const MESSAGE_TIMEOUT_SHARE: (u64, u64) = (3, 4);
/// One turn of a call that commits or aborts; above what either takes, so that a turn rarely ends in the middle.
const CALL_TURN: Duration = Duration::from_secs(1);
const FENCE_WAIT: Duration = Duration::from_secs(30);
/// How soon a fence that nobody wants any more is given up.
const FENCE_SLICE: Duration = Duration::from_secs(2);
const IN_FLIGHT_POLL: Duration = Duration::from_micros(50);
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);
/// Of what librdkafka carries along with each record: the place of its positions in the transaction.
const SLOT_BITS: u32 = 16;
/// Batches that one transaction can tell apart.
pub const BATCHES_MAX: usize = (1 << SLOT_BITS) / Topic::EVERY.len();

/// Where the positions of a batch and a topic stand, the topic by its place in [`Topic::EVERY`].
fn slot(batch: usize, topic: Topic) -> usize {
    batch * Topic::EVERY.len() + topic as usize
}

/// Counts deliveries; librdkafka's own thread reports them.
#[derive(Default)]
struct Deliveries {
    ledger: Mutex<Ledger>,
    moved: Condvar,
}

#[derive(Default)]
struct Ledger {
    /// Counted by this producer; reports of an earlier transaction come late and count for nothing.
    transaction: usize,
    settled: usize,
    failed: Option<Error>,
    /// Of each batch of the transaction, the offset after its last acknowledged record, by topic. Batches of several
    /// accounts lie in one partition, but none counts another's records: its positions are exactly its own.
    reached: Vec<Positions>,
    /// The lowest offset of the transaction, by topic.
    first: Positions,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: Error, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// The transaction above [`SLOT_BITS`], the [`slot`] below.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let slot = opaque & ((1 << SLOT_BITS) - 1);
        let (batch, topic) = (slot / Topic::EVERY.len(), slot % Topic::EVERY.len());
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if opaque >> SLOT_BITS != ledger.transaction {
            return;
        }
        ledger.settled += 1;
        match result {
            Ok(message) => {
                let first = ledger.first.entry(Topic::EVERY[topic]).or_insert(i64::MAX);
                *first = (*first).min(message.offset());
                if let Some(positions) = ledger.reached.get_mut(batch) {
                    let reached = positions.entry(Topic::EVERY[topic]).or_default();
                    *reached = (*reached).max(message.offset() + 1);
                }
            }
            Err((error, _)) => {
                ledger.failed.get_or_insert(error.clone());
            }
        }
        drop(ledger);
        self.moved.notify_all();
    }
}

/// Up to where each topic of the partition is written, as far as its owner knows. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Positions>>);

impl Written {
    pub fn up_to(&self) -> Positions {
        self.lock().clone()
    }

    /// At least so far.
    pub fn raise(&self, positions: &Positions) {
        let mut written = self.lock();
        for (topic, position) in positions {
            let end = written.entry(*topic).or_default();
            *end = (*end).max(*position);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first topic that ends, or takes a record, before where it is written to: it is another one by the same name.
pub fn begun_anew(written: &Positions, now: &Positions) -> Option<Topic> {
    now.iter().find(|(topic, offset)| written.get(topic).is_some_and(|end| *offset < end)).map(|(topic, _)| *topic)
}

pub struct TransactionalProducer {
    producer: ThreadedProducer<Deliveries>,
    /// To be raised to where the topics end, once they were read.
    pub written: Written,
    topics: BTreeMap<Topic, String>,
    partition: i32,
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
    /// Fences every earlier producer of the shard and resolves what it left open. Blocks.
    ///
    /// `stop` gives it up: a fence that comes late, when the shard is somebody else's, would take it from them.
    ///
    /// # Errors
    /// No broker answers in time, or the broker refuses (ACL).
    pub fn fence(
        client: &KafkaClient,
        partition: i32,
        stop: &CancellationToken,
    ) -> Result<TransactionalProducer, KafkaError> {
        let transactional_id = format!("{}-shard-{partition}", client.topic_prefix);
        let millis = |name: &str, ours: u64| -> u64 {
            // What is no number is for librdkafka to complain about.
            client.properties.get(name).and_then(|configured| configured.trim().parse().ok()).unwrap_or(ours)
        };
        let life = millis("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        let mut config = client.config(&[
            ("transactional.id", &transactional_id),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("compression.type", "lz4"),
            // A transaction waits for its last acknowledgement: lingering would only add to it.
            ("linger.ms", "1"),
            // The batch is bounded by us; librdkafka's bound would only split it.
            ("queue.buffering.max.messages", "0"),
        ]);
        let message_timeout = life.saturating_mul(MESSAGE_TIMEOUT_SHARE.0) / MESSAGE_TIMEOUT_SHARE.1;
        for (name, ours) in [("transaction.timeout.ms", life), ("message.timeout.ms", message_timeout)] {
            if !client.properties.contains_key(name) {
                config.set(name, ours.to_string());
            }
        }
        let refused = |error: &Error| KafkaError::Refused(format!("kafka {}: {}", client.brokers, in_words(error)));
        let producer: ThreadedProducer<Deliveries> =
            config.create_with_context(Deliveries::default()).map_err(|error| refused(&error))?;
        failpoint::hit(Point::FenceBefore);
        let deadline = Instant::now() + FENCE_WAIT;
        loop {
            // Called again, it waits on for the same answer.
            match producer.init_transactions(FENCE_SLICE) {
                Ok(()) => break,
                Err(error) if is_retriable(&error) && Instant::now() < deadline && !stop.is_cancelled() => {}
                Err(error) if is_retriable(&error) || is_transport(&error) => return Err(client.unreachable()),
                Err(error) => return Err(refused(&error)),
            }
        }
        failpoint::hit(Point::FenceAfter);
        let topics = client.topics().into_iter().map(|topic| (topic, client.topic(topic))).collect();
        let (written, life) = (Written::default(), Duration::from_millis(life));
        Ok(TransactionalProducer { producer, written, topics, partition, life })
    }

    /// Commits batches of different accounts, at most [`BATCHES_MAX`], and their closing records in one transaction; returns the
    /// positions of each. Blocks until the outcome is known, or cannot be known.
    ///
    /// # Errors
    /// As [`NotCommitted`] says.
    pub fn commit(&self, batches: &[Batch]) -> Result<Vec<Positions>, NotCommitted> {
        failpoint::hit(Point::BeginBefore);
        self.call(|| self.producer.begin_transaction()).map_err(|error| ended(&error, REFUSED))?;
        failpoint::hit(Point::BeginAfter);
        let transaction = (self.ledger().transaction + 1) & (usize::MAX >> SLOT_BITS);
        *self.ledger() = Ledger { transaction, reached: vec![Positions::new(); batches.len()], ..Ledger::default() };
        match self.fill(batches) {
            Ok(()) => {}
            Err(failure) => return Err(self.abort(failure)),
        }
        failpoint::hit(Point::CommitBefore);
        match self.call(|| self.producer.commit_transaction(CALL_TURN)) {
            Ok(()) => {
                failpoint::hit(Point::CommitAfter);
                Ok(std::mem::take(&mut self.ledger().reached))
            }
            // Abortable errors included: the broker may have committed.
            Err(error) => Err(ended(&error, "the outcome of a commit is unknown")),
        }
    }

    /// Sends everything and waits until all of it is acknowledged: first all data, whose acknowledgements are the
    /// positions, then the closing records that are made of them.
    fn fill(&self, batches: &[Batch]) -> Result<(), Failure> {
        let transaction = self.ledger().transaction;
        let mut sent = 0;
        for (number, batch) in batches.iter().enumerate() {
            self.send_all((transaction, number), &batch.records, &mut sent)?;
        }
        self.drain(sent)?;
        let reached = self.ledger().reached.clone();
        for (number, (batch, reached)) in batches.iter().zip(&reached).enumerate() {
            let closing = (batch.closing)(reached).map_err(Failure::Closing)?;
            self.send_all((transaction, number), &closing, &mut sent)?;
        }
        self.drain(sent)?;
        let ledger = self.ledger();
        if let Some(topic) = begun_anew(&self.written.up_to(), &ledger.first) {
            return Err(Failure::Gone(lost(&self.topics[&topic])));
        }
        for reached in &ledger.reached {
            self.written.raise(reached);
        }
        Ok(())
    }

    fn send_all(&self, batch: (usize, usize), records: &[Record], sent: &mut usize) -> Result<(), Failure> {
        for record in records {
            let marker = record.topic == Topic::Syncs;
            failpoint::hit(if marker { Point::MarkerBefore } else { Point::SendBefore });
            if let Err(failure) = self.send(batch, record) {
                // What was sent before is waited for: an abort that overtakes it can be fatal (librdkafka#4849), and
                // would end the acquisition for one record that is too large. Its own outcome changes nothing.
                drop(self.drain(*sent));
                return Err(failure);
            }
            *sent += 1;
            failpoint::hit(if marker { Point::MarkerAfter } else { Point::SendAfter });
        }
        Ok(())
    }

    /// `batch`: the transaction, and the number of the batch in it.
    fn send(&self, (transaction, batch): (usize, usize), record: &Record) -> Result<(), Failure> {
        let headers = (!record.headers.is_empty()).then(|| {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            record
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
        });
        let opaque = transaction << SLOT_BITS | slot(batch, record.topic);
        let mut message: BaseRecord<'_, str, [u8], usize> =
            BaseRecord::with_opaque_to(&self.topics[&record.topic], opaque).partition(self.partition).key(&record.key);
        message.payload = record.value.as_deref();
        message.headers = headers;
        let deadline = Instant::now() + self.life;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !full || Instant::now() > deadline {
                        return Err(Failure::Kafka(error));
                    }
                    message = back;
                    std::thread::sleep(QUEUE_FULL_WAIT);
                }
            }
        }
    }

    /// Until everything is acknowledged, or anything failed: what comes behind a record that the broker refuses waits
    /// for the abort, and would wait for its own timeout.
    ///
    /// Waiting here instead of in rdkafka's flush saves its 100 ms floor (kafka.md §0.3).
    fn drain(&self, sent: usize) -> Result<(), Failure> {
        failpoint::hit(Point::DrainBefore);
        let outstanding = |ledger: &mut Ledger| ledger.settled < sent && ledger.failed.is_none();
        let context = self.producer.context();
        let (mut ledger, waited) = context
            .moved
            .wait_timeout_while(self.ledger(), self.life, outstanding)
            .unwrap_or_else(PoisonError::into_inner);
        match ledger.failed.take() {
            Some(error) => return Err(Failure::Kafka(error)),
            // The message timeout comes first.
            None if waited.timed_out() => return Err(Failure::Late),
            None => {}
        }
        drop(ledger);
        // The last report counts as in flight until its callback has returned, a moment from now.
        let deadline = Instant::now() + self.life;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(IN_FLIGHT_POLL);
        }
        failpoint::hit(Point::DrainAfter);
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.producer.context().ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After its Ok nothing of the transaction is visible. Any other end leaves the outcome open.
    fn abort(&self, failure: Failure) -> NotCommitted {
        let (words, outcome): (String, fn(String) -> NotCommitted) = match failure {
            Failure::Closing(words) => (words, NotCommitted::Refused),
            Failure::Late => ("acknowledgements did not come in time".to_owned(), NotCommitted::Aborted),
            Failure::Gone(words) => (words, gone),
            Failure::Kafka(error) => {
                let cause = self.cause(error);
                if is_fatal(&cause) {
                    return ended(&cause, REFUSED);
                }
                let words = in_words(&cause);
                match cause {
                    cause if is_refusal(&cause) => (words, NotCommitted::Refused),
                    cause if is_missing(&cause) => (words, gone),
                    _ => (words, NotCommitted::Aborted),
                }
            }
        };
        failpoint::hit(Point::AbortBefore);
        let aborted = self.call(|| self.producer.abort_transaction(CALL_TURN));
        failpoint::hit(Point::AbortAfter);
        match aborted {
            Err(error) => ended(&error, &format!("{words}; the transaction could not be aborted")),
            Ok(()) => outcome(format!("the transaction was aborted: {words}")),
        }
    }

    /// Where a transaction cannot go on, librdkafka purges its queue and reports that of every record; why, it tells
    /// whoever wants to begin another.
    fn cause(&self, error: Error) -> Error {
        let purged = [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight];
        if !error.rdkafka_error_code().is_some_and(|code| purged.contains(&code)) {
            return error;
        }
        match self.producer.begin_transaction() {
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

/// Writes one record outside any transaction, e.g. a person's request. Blocks.
///
/// # Errors
/// It is not acknowledged in time, or not permitted.
pub fn send_one(client: &KafkaClient, partition: i32, record: &Record) -> Result<(), KafkaError> {
    let config = client.config(&[("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", "30000")]);
    let refused = |error: &Error| KafkaError::Refused(format!("kafka {}: {}", client.brokers, in_words(error)));
    let producer: ThreadedProducer<Deliveries> =
        config.create_with_context(Deliveries::default()).map_err(|error| refused(&error))?;
    let topics = BTreeMap::from([(record.topic, client.topic(record.topic))]);
    let (written, life) = (Written::default(), Duration::from_millis(TRANSACTION_TIMEOUT_MS));
    let producer = TransactionalProducer { producer, written, topics, partition, life };
    match producer.send((0, 0), record).and_then(|()| producer.drain(1)) {
        Ok(()) => Ok(()),
        Err(Failure::Late | Failure::Closing(_) | Failure::Gone(_)) => Err(client.unreachable()),
        Err(Failure::Kafka(error)) if is_transport(&error) || is_expired(&error) => Err(client.unreachable()),
        Err(Failure::Kafka(error)) => Err(refused(&error)),
    }
}

fn is_expired(error: &Error) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut)
}

/// Why a transaction is aborted before anybody asked to commit it.
enum Failure {
    /// A record was not enqueued, or not delivered.
    Kafka(Error),
    /// Neither delivered nor failed, although its timeout has passed.
    Late,
    /// The closing records could not be made.
    Closing(String),
    /// A topic no longer holds what was written to it.
    Gone(String),
}

/// What is said of a topic that is another one than was written to.
pub fn lost(topic: &str) -> String {
    format!("{topic} ends before what was written to it: it was deleted or recreated, or the brokers lost records")
}

/// Aborted; but what known says of the topic is no longer there: restoring is all that can be done.
fn gone(reason: String) -> NotCommitted {
    NotCommitted::Ended(Ended { fenced: false, reason })
}

const REFUSED: &str = "Kafka refuses this producer";

fn ended(error: &Error, what: &str) -> NotCommitted {
    let fenced = is_fenced(error);
    let reason = if fenced {
        "another producer took this shard over (or the broker gave its transaction up)".to_owned()
    } else {
        format!("{what}: {}", in_words(error))
    };
    NotCommitted::Ended(Ended { fenced, reason })
}

/// The record itself is refused, or the right to write it.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::TopicAuthorizationFailed
        )
    )
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

fn is_retriable(error: &Error) -> bool {
    match error {
        Error::Transaction(error) => error.is_retriable(),
        // rdkafka flushes before it commits; the transaction is still open.
        Error::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

fn is_fatal(error: &Error) -> bool {
    is_fenced(error) || matches!(error, Error::Transaction(error) if error.is_fatal())
}

/// These mean "another epoch", whatever flags they carry.
fn is_fenced(error: &Error) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::FencedInstanceId
        )
    )
}
