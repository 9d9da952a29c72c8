//! A producer of librdkafka that knows which of its records Kafka has acknowledged, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings::{rd_kafka_flush, rd_kafka_resp_err_t};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError as Error;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::client::{KafkaClient, Quiet};
use super::credentials::{Given, Keeper};
use super::error::{Meaning, in_words, is_unreachable, meaning, not_permitted};
use crate::failpoint::{self, Point};
use crate::log::{Positions, Record, Topic};
use crate::service::ServiceError;

const IN_FLIGHT_POLL: Duration = Duration::from_micros(50);
/// How long one turn of waiting for acknowledgements takes at most, until a failure is looked for.
const FLUSH_TURN: Duration = Duration::from_millis(10);
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);
/// Of a single record, until Kafka acknowledges it.
const SINGLE_RECORD_WAIT: Duration = Duration::from_secs(60);
/// As [`SINGLE_RECORD_WAIT`], for librdkafka, milliseconds. It is shorter, so that librdkafka says what failed.
const SINGLE_RECORD_TIMEOUT_MS: &str = "30000";
/// Bits for the batch and the topic in the number that librdkafka carries along with each record.
const SLOT_BITS: u32 = 16;
/// Batches that one transaction can tell apart.
pub const BATCHES_MAX: usize = (1 << SLOT_BITS) / Topic::EVERY.len();

/// The batch that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Counted by the sender, modulo what fits above [`SLOT_BITS`].
    pub transaction: usize,
    /// By its index in the transaction; below [`BATCHES_MAX`].
    pub batch: usize,
}

impl Place {
    /// As the number that librdkafka carries: the transaction above [`SLOT_BITS`], the batch and the topic below.
    fn pack(self, topic: Topic) -> usize {
        self.transaction << SLOT_BITS | (self.batch * Topic::EVERY.len() + topic as usize)
    }

    /// Inverse of [`Place::pack`].
    fn unpack(opaque: usize) -> (Place, Topic) {
        let slot = opaque & ((1 << SLOT_BITS) - 1);
        let (batch, topic) = (slot / Topic::EVERY.len(), slot % Topic::EVERY.len());
        (Place { transaction: opaque >> SLOT_BITS, batch }, Topic::EVERY[topic])
    }
}

/// Counts deliveries. A thread of librdkafka reports them.
#[derive(Default)]
pub(super) struct Deliveries {
    ledger: Mutex<Ledger>,
    moved: Condvar,
    quiet: Quiet,
    /// Their names.
    topics: BTreeMap<Topic, String>,
}

#[derive(Default)]
struct Ledger {
    /// The transaction that is counted. Reports of an earlier one come late and do not count.
    transaction: usize,
    settled: usize,
    /// How many records the waiting thread waits for; 0 while none waits. It is woken once, not once a record.
    awaited: usize,
    failed: Option<Error>,
    /// Of each batch of the transaction, the offset after its last acknowledged record, by topic. Batches of several
    /// accounts lie in one partition, but none counts another's records: its positions are exactly its own.
    reached: Vec<Positions>,
    /// The lowest offset of the transaction, by topic.
    first: Positions,
    /// The topics that may not be written.
    refused: BTreeSet<Topic>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let refused = refused_topic(facility, message);
        let refused = refused.and_then(|name| self.topics.iter().find(|(_, topic)| *topic == name));
        if let Some((topic, _)) = refused {
            self.ledger.lock().unwrap_or_else(PoisonError::into_inner).refused.insert(*topic);
        }
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: Error, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// A [`Place`] and a topic, packed.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (place, topic) = Place::unpack(opaque);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if place.transaction != ledger.transaction {
            return;
        }
        ledger.settled += 1;
        match result {
            Ok(message) => {
                let first = ledger.first.entry(topic).or_insert(i64::MAX);
                *first = (*first).min(message.offset());
                if let Some(positions) = ledger.reached.get_mut(place.batch) {
                    let reached = positions.entry(topic).or_default();
                    *reached = (*reached).max(message.offset() + 1);
                }
            }
            Err((error, _)) => {
                if meaning(error) == Meaning::TopicRefused {
                    ledger.refused.insert(topic);
                }
                ledger.failed.get_or_insert(error.clone());
            }
        }
        let all_came = ledger.settled == ledger.awaited;
        let wake = all_came || result.is_err();
        drop(ledger);
        if wake {
            self.moved.notify_all();
        }
    }
}

/// The topic that Kafka does not let into a transaction (ACL). librdkafka takes back the records of every topic then, so
/// that their reports name no cause, and says the topic only in a line of its log.
fn refused_topic<'a>(facility: &str, line: &'a str) -> Option<&'a str> {
    let (_, rest) = line.split_once("Failed to add partition \"").filter(|_| facility == "ADDPARTS")?;
    let (name, rest) = rest.split_once('"')?;
    rest.ends_with("Topic authorization failed").then_some(name)
}

/// Why a record is not known to be in Kafka.
pub(super) enum Undelivered {
    /// The record was not enqueued, or not delivered.
    Failed(Error),
    /// The record was neither delivered nor failed, although its timeout has passed.
    Late,
}

/// A producer for one partition of the topics. Its calls block.
pub(super) struct Sender {
    /// Dropped before the producer, so that the producer ends where this is dropped.
    _keeper: Option<Keeper>,
    pub producer: ThreadedProducer<Deliveries>,
    pub topics: BTreeMap<Topic, String>,
    partition: i32,
    /// The bound of every wait.
    wait: Duration,
}

impl Sender {
    /// # Errors
    /// A property that librdkafka does not take, or no token is issued.
    pub fn new(
        client: &KafkaClient,
        config: &ClientConfig,
        topics: BTreeMap<Topic, String>,
        partition: i32,
        wait: Duration,
    ) -> Result<Sender, ServiceError> {
        let deliveries = Deliveries { quiet: client.context(), topics: topics.clone(), ..Deliveries::default() };
        let producer = config.create_with_context(deliveries);
        let producer: ThreadedProducer<Deliveries> = producer.map_err(|error| KafkaClient::misconfigured(&error))?;
        let given = Given::default();
        client.credentials().give(producer.client(), &given)?;
        let keeper = client.credentials().keep(&producer, given);
        Ok(Sender { _keeper: keeper, producer, topics, partition, wait })
    }

    /// Begins to count the deliveries of the next transaction, and returns its number.
    pub fn count_next(&self, batches: usize) -> usize {
        let mut ledger = self.ledger();
        let transaction = (ledger.transaction + 1) & (usize::MAX >> SLOT_BITS);
        *ledger = Ledger { transaction, reached: vec![Positions::new(); batches], ..Ledger::default() };
        transaction
    }

    /// Of each batch of the transaction, the offset after its last acknowledged record, by topic.
    pub fn reached(&self) -> Vec<Positions> {
        self.ledger().reached.clone()
    }

    /// The lowest acknowledged offset of the transaction, by topic.
    pub fn first(&self) -> Positions {
        self.ledger().first.clone()
    }

    /// The names of the topics that this user may not write, as far as the transaction has shown.
    pub fn refused(&self) -> Vec<&str> {
        self.ledger().refused.iter().map(|topic| self.topics[topic].as_str()).collect()
    }

    pub fn send(&self, place: Place, record: &Record) -> Result<(), Undelivered> {
        let headers = (!record.headers.is_empty()).then(|| {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            record
                .headers
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
        });
        let opaque = place.pack(record.topic);
        let mut message: BaseRecord<'_, str, [u8], usize> =
            BaseRecord::with_opaque_to(&self.topics[&record.topic], opaque).partition(self.partition).key(&record.key);
        message.payload = record.value.as_deref();
        message.headers = headers;
        let deadline = Instant::now() + self.wait;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    if meaning(&error) != Meaning::QueueFull || Instant::now() > deadline {
                        return Err(Undelivered::Failed(error));
                    }
                    message = back;
                    std::thread::sleep(QUEUE_FULL_WAIT);
                }
            }
        }
    }

    /// Sends a record with neither key nor value.
    pub fn send_without_key(&self, place: Place, topic: Topic) -> Result<(), Undelivered> {
        let opaque = place.pack(topic);
        let record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(&self.topics[&topic], opaque).partition(self.partition);
        self.producer.send(record).map_err(|(error, _)| Undelivered::Failed(error))
    }

    /// Waits until `sent` records are acknowledged, or any of them failed: records behind one that the broker refuses
    /// wait for the abort, and would wait for their own timeout.
    pub fn drain(&self, sent: usize) -> Result<(), Undelivered> {
        failpoint::hit(Point::DrainBefore);
        self.settle(sent)?;
        failpoint::hit(Point::DrainAfter);
        Ok(())
    }

    /// As [`Sender::drain`], before all of the transaction is sent.
    pub fn settle(&self, sent: usize) -> Result<(), Undelivered> {
        let outstanding = |ledger: &mut Ledger| ledger.settled < sent && ledger.failed.is_none();
        let context = self.producer.context();
        let deadline = Instant::now() + self.wait;
        self.ledger().awaited = sent;
        let mut bound = Duration::ZERO;
        loop {
            let waited = context.moved.wait_timeout_while(self.ledger(), bound, outstanding);
            let (mut ledger, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            match ledger.failed.take() {
                Some(error) => return Err(Undelivered::Failed(error)),
                None if !waited.timed_out() => break,
                // The message timeout comes first.
                None if Instant::now() >= deadline => return Err(Undelivered::Late),
                None => {}
            }
            drop(ledger);
            let all_came = self.flush(FLUSH_TURN);
            // The last report may be on its way to its callback. Before that, no wait: records would linger.
            bound = if all_came { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        }
        // The last report counts as in flight until its callback has returned, a moment from now.
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(IN_FLIGHT_POLL);
        }
        Ok(())
    }

    /// Sends what lingers, and goes on to do so for as long as `turn`; true once every record has its outcome.
    ///
    /// librdkafka's own call: rdkafka's `flush` makes it without any time, so that it is over before a thread hears of it.
    #[expect(unsafe_code, reason = "rdkafka has no safe call that takes time")]
    fn flush(&self, turn: Duration) -> bool {
        let millis = i32::try_from(turn.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is the producer's own and valid as long as it lives; any thread may call it at any time.
        let outcome = unsafe { rd_kafka_flush(self.producer.client().native_ptr(), millis) };
        outcome == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.producer.context().ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes one record outside any transaction, e.g. a person's request, with a plain idempotent producer: it fences
/// no owner, and a single record needs no transaction. Blocks.
///
/// # Errors
/// Kafka does not acknowledge the record in time, or refuses it.
pub fn send_one(client: &KafkaClient, partition: i32, record: &Record) -> Result<(), ServiceError> {
    let config = client.config(&[
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.timeout.ms", SINGLE_RECORD_TIMEOUT_MS),
    ])?;
    let topics = BTreeMap::from([(record.topic, client.topic(record.topic))]);
    let sender = Sender::new(client, &config, topics, partition, SINGLE_RECORD_WAIT)?;
    match sender.send(Place { transaction: 0, batch: 0 }, record).and_then(|()| sender.drain(1)) {
        Ok(()) => Ok(()),
        Err(Undelivered::Late) => Err(client.unreachable()),
        Err(Undelivered::Failed(error)) if is_unreachable(&error) || meaning(&error) == Meaning::Expired => {
            Err(client.unreachable())
        }
        Err(Undelivered::Failed(error)) if meaning(&error) == Meaning::TopicRefused => {
            Err(client.refused(not_permitted("Write", &client.topic(record.topic))))
        }
        Err(Undelivered::Failed(error)) => Err(client.refused(in_words(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_may_not_be_written_is_known_from_the_line_about_it() {
        let line = |why: &str| {
            format!("[thrd:main]: b:9092/1: Failed to add partition \"scim.users\" [2] to transaction: {why}")
        };
        let refused = line("Broker: Topic authorization failed");
        assert_eq!(refused_topic("ADDPARTS", &refused), Some("scim.users"));
        assert_eq!(refused_topic("FAIL", &refused), None);
        // Skipped because of another topic.
        assert_eq!(refused_topic("ADDPARTS", &line("Broker: Operation not attempted")), None);
    }

    #[test]
    fn the_place_of_a_record_comes_back_as_it_was_packed() {
        for transaction in [0, 1, usize::MAX >> SLOT_BITS] {
            for batch in [0, 1, BATCHES_MAX - 1] {
                for topic in Topic::EVERY {
                    let place = Place { transaction, batch };
                    assert_eq!(Place::unpack(place.pack(topic)), (place, topic));
                }
            }
        }
    }
}
