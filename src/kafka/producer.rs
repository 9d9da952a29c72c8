//! One transactional producer: four verbs and their outcomes.
//!
//! **Safety argument.** A record that fails to enqueue or to be delivered does not poison a transaction:
//! librdkafka would commit the rest with Ok. So every send is checked, every delivery is counted, and only a
//! transaction all of whose records are acknowledged is committed. From the call of `commit_transaction`
//! on, anything but Ok or "retriable" leaves the outcome unknown (librdkafka lacks KIP-890: a late EndTxn can hit
//! a later transaction, and it may report an abortable error although the broker committed): the producer is
//! dropped and the next `init_transactions` resolves it, before anything is read back.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as Error, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;
use tokio_util::sync::CancellationToken;

use super::client::{KafkaClient, KafkaError, Quiet, in_words, is_transport};
use crate::failpoint::{self, Point};
use crate::pipeline::{Batch, CommitError, Ended, Positions};
use crate::record::{Record, Topic};

/// Broker-side life of a transaction; a stuck one blocks read_committed readers this long.
const TRANSACTION_TIMEOUT_MS: &str = "60000";
/// A record that is not acknowledged by then fails its transaction. Below the transaction's timeout.
const MESSAGE_TIMEOUT_MS: &str = "45000";
/// Waiting for all acknowledgements of a transaction; the message timeout ends it sooner.
const DRAIN_WAIT: Duration = Duration::from_secs(50);
/// Repeating one transactional call while it is retriable.
const RETRY_WAIT: Duration = Duration::from_secs(60);
const FENCE_WAIT: Duration = Duration::from_secs(30);
/// How soon a fence that nobody wants any more is given up.
const FENCE_SLICE: Duration = Duration::from_secs(2);
const IN_FLIGHT_POLL: Duration = Duration::from_micros(50);
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);
/// Of what librdkafka carries along with each record: the place of its positions in the transaction.
const SLOT_BITS: u32 = 16;
/// Batches that one transaction can tell apart.
pub const BATCHES_MAX: usize = (1 << SLOT_BITS) / Topic::ALL.len();

/// Where the positions of a batch and a topic stand, the topic by its place in [`Topic::ALL`].
fn slot(batch: usize, topic: Topic) -> usize {
    batch * Topic::ALL.len() + topic as usize
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
        let (batch, topic) = (slot / Topic::ALL.len(), slot % Topic::ALL.len());
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if opaque >> SLOT_BITS != ledger.transaction {
            return;
        }
        ledger.settled += 1;
        match result {
            Ok(message) => {
                if let Some(positions) = ledger.reached.get_mut(batch) {
                    let reached = positions.entry(Topic::ALL[topic]).or_default();
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

pub struct TransactionalProducer {
    producer: ThreadedProducer<Deliveries>,
    topics: BTreeMap<Topic, String>,
    partition: i32,
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
        let config = client.config(&[
            ("transactional.id", &transactional_id),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("compression.type", "lz4"),
            // A transaction waits for its last acknowledgement: lingering would only add to it.
            ("linger.ms", "1"),
            ("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS),
            ("message.timeout.ms", MESSAGE_TIMEOUT_MS),
            // The batch is bounded by us; librdkafka's bound would only split it.
            ("queue.buffering.max.messages", "0"),
        ]);
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
        let topics = Topic::ALL.into_iter().map(|topic| (topic, client.topic(topic))).collect();
        Ok(TransactionalProducer { producer, topics, partition })
    }

    /// Commits batches of different accounts, at most [`BATCHES_MAX`], and their markers in one transaction; returns the
    /// positions of each. Blocks until the outcome is known.
    ///
    /// # Errors
    /// [`CommitError::Aborted`]: nothing is visible. [`CommitError::Ended`]: drop this producer.
    pub fn commit(&self, batches: &[Batch]) -> Result<Vec<Positions>, CommitError> {
        failpoint::hit(Point::BeginBefore);
        self.call(|| self.producer.begin_transaction())?;
        failpoint::hit(Point::BeginAfter);
        let transaction = (self.ledger().transaction + 1) & (usize::MAX >> SLOT_BITS);
        *self.ledger() = Ledger { transaction, reached: vec![Positions::new(); batches.len()], ..Ledger::default() };
        match self.fill(batches) {
            Ok(()) => {}
            Err(failure) => return Err(self.abort(failure)),
        }
        let deadline = Instant::now() + RETRY_WAIT;
        failpoint::hit(Point::CommitBefore);
        loop {
            match self.producer.commit_transaction(Timeout::Never) {
                Ok(()) => {
                    failpoint::hit(Point::CommitAfter);
                    return Ok(std::mem::take(&mut self.ledger().reached));
                }
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                // Abortable errors included: the broker may have committed.
                Err(error) => return Err(ended(&error, "the outcome of a commit is unknown")),
            }
        }
    }

    /// Sends everything and waits until all of it is acknowledged: first all data, whose acknowledgements are the
    /// positions, then the markers that are made of them.
    fn fill(&self, batches: &[Batch]) -> Result<(), Failure> {
        let transaction = self.ledger().transaction;
        let mut sent = 0;
        for (number, batch) in batches.iter().enumerate() {
            self.send_all((transaction, number), &batch.records, &mut sent)?;
        }
        self.drain(sent)?;
        let reached = self.ledger().reached.clone();
        for (number, (batch, reached)) in batches.iter().zip(&reached).enumerate() {
            let marker = (batch.marker)(reached).map_err(Failure::Words)?;
            self.send_all((transaction, number), &marker, &mut sent)?;
        }
        self.drain(sent)
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
        let deadline = Instant::now() + DRAIN_WAIT;
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
            .wait_timeout_while(self.ledger(), DRAIN_WAIT, outstanding)
            .unwrap_or_else(PoisonError::into_inner);
        match ledger.failed.take() {
            Some(error) => return Err(Failure::Kafka(error)),
            None if waited.timed_out() => {
                return Err(Failure::Words("acknowledgements did not come in time".to_owned()));
            }
            None => {}
        }
        drop(ledger);
        // The last report counts as in flight until its callback has returned, a moment from now.
        let deadline = Instant::now() + DRAIN_WAIT;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(IN_FLIGHT_POLL);
        }
        failpoint::hit(Point::DrainAfter);
        Ok(())
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.producer.context().ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After its Ok nothing of the transaction is visible. Any other end leaves the outcome open.
    fn abort(&self, failure: Failure) -> CommitError {
        let words = match &failure {
            Failure::Words(words) => words.clone(),
            Failure::Kafka(error) if is_fatal(error) => return ended(error, "Kafka refuses this producer"),
            Failure::Kafka(error) => in_words(error),
        };
        failpoint::hit(Point::AbortBefore);
        let aborted = self.call(|| self.producer.abort_transaction(Timeout::Never));
        failpoint::hit(Point::AbortAfter);
        match aborted {
            Ok(()) => CommitError::Aborted(format!("the transaction was aborted: {words}")),
            Err(CommitError::Aborted(text)) => CommitError::Ended(Ended { fenced: false, reason: text }),
            Err(error) => error,
        }
    }

    /// A call before the commit, repeated while it is retriable.
    fn call(&self, mut call: impl FnMut() -> Result<(), Error>) -> Result<(), CommitError> {
        let deadline = Instant::now() + RETRY_WAIT;
        loop {
            match call() {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                Err(error) => return Err(ended(&error, "Kafka refuses this producer")),
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
    let producer = TransactionalProducer { producer, topics, partition };
    match producer.send((0, 0), record).and_then(|()| producer.drain(1)) {
        Ok(()) => Ok(()),
        Err(Failure::Words(_)) => Err(client.unreachable()),
        Err(Failure::Kafka(error)) if is_transport(&error) || is_expired(&error) => Err(client.unreachable()),
        Err(Failure::Kafka(error)) => Err(refused(&error)),
    }
}

fn is_expired(error: &Error) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut)
}

enum Failure {
    Kafka(Error),
    Words(String),
}

fn ended(error: &Error, what: &str) -> CommitError {
    let fenced = is_fenced(error);
    let reason = if fenced {
        "another producer took this shard over (or the broker gave its transaction up)".to_owned()
    } else {
        format!("{what}: {}", in_words(error))
    };
    CommitError::Ended(Ended { fenced, reason })
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
