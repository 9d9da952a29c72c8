//! Bare producers and consumers, set up as those of scimtail, for records that scimtail has written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::Stopwatch;

const STATE: [&str; 3] = ["users", "groups", "memberships"];
const EVENTS: &str = "events";
const SYNCS: &str = "syncs";
/// Records of one transaction, as scimtail has them on the whole in a first load.
const RECORDS_PER_TRANSACTION: usize = 11_000;
const KAFKA_WAIT: Duration = Duration::from_secs(60);
const POLL_WAIT: Duration = Duration::from_secs(1);
/// Between two looks at how many records are acknowledged. As scimtail, the limit commits only when all are: librdkafka's
/// own wait inside a commit is a slow one.
const DRAIN_LOOK: Duration = Duration::from_micros(50);

struct Record {
    topic: String,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Option<OwnedHeaders>,
}

#[derive(Default)]
struct Delivered {
    count: AtomicUsize,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.count.fetch_add(1, Relaxed);
            }
            Err((error, _)) => *self.failed.lock().expect("no panic") = Some(error.clone()),
        }
    }
}

/// Writes what the topics of one prefix hold to those of another, in transactions.
pub fn produce(brokers: &str, from: &str, to: &str, events: bool) -> Value {
    let mut records = read(brokers, from, &STATE, to);
    if events {
        // Event and state are one transaction.
        let mut mixed = Vec::new();
        let mut events = read(brokers, from, &[EVENTS], to).into_iter();
        for record in records {
            mixed.push(record);
            mixed.extend(events.next());
        }
        mixed.extend(events);
        records = mixed;
    }
    let bytes: usize = records.iter().map(|record| record.key.len() + record.value.len()).sum();
    let producer = producer(brokers, to);
    // Kafka knows the producer's partitions before time counts.
    transact(&producer, &records[..1]);
    let stopwatch = Stopwatch::start();
    let mut transactions = 0;
    for batch in records.chunks(RECORDS_PER_TRANSACTION) {
        transact(&producer, batch);
        transactions += 1;
    }
    let further = json!({"records": records.len(), "bytes": bytes, "transactions": transactions});
    stopwatch.stop(further)
}

/// Transactions of so many records, one after the other; each ends with one of `syncs`.
pub fn commit(brokers: &str, prefix: &str, records: usize, transactions: usize) -> Value {
    let record = |topic: &str, number: usize| Record {
        topic: format!("{prefix}.{topic}"),
        key: format!("limit/Users/{number}").into_bytes(),
        value: vec![b'x'; 400],
        headers: None,
    };
    let mut batch: Vec<Record> = (0..records).map(|number| record("users", number)).collect();
    batch.push(record(SYNCS, 0));
    let producer = producer(brokers, prefix);
    transact(&producer, &batch);
    let stopwatch = Stopwatch::start();
    for _ in 0..transactions {
        transact(&producer, &batch);
    }
    stopwatch.stop(json!({"records": batch.len() * transactions, "transactions": transactions}))
}

fn producer(brokers: &str, prefix: &str) -> ThreadedProducer<Delivered> {
    let producer: ThreadedProducer<Delivered> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", format!("{prefix}-limit"))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "1")
        .set("queue.buffering.max.messages", "0")
        .create_with_context(Delivered::default())
        .expect("a producer");
    producer.init_transactions(KAFKA_WAIT).expect("a producer epoch");
    producer
}

fn transact(producer: &ThreadedProducer<Delivered>, batch: &[Record]) {
    let context = producer.context();
    let acknowledged = context.count.load(Relaxed) + batch.len();
    producer.begin_transaction().expect("a transaction");
    for record in batch {
        let mut base = BaseRecord::to(&record.topic).key(&record.key).payload(&record.value).partition(0);
        base.headers.clone_from(&record.headers);
        while let Err((error, back)) = producer.send(base) {
            assert!(error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
            std::thread::sleep(Duration::from_millis(1));
            base = back;
        }
    }
    let started = Instant::now();
    while context.count.load(Relaxed) < acknowledged {
        let failed = context.failed.lock().expect("no panic");
        assert!(failed.is_none(), "Kafka did not take a record: {failed:?}");
        assert!(started.elapsed() < KAFKA_WAIT, "Kafka did not acknowledge all records in {KAFKA_WAIT:?}");
        drop(failed);
        std::thread::sleep(DRAIN_LOOK);
    }
    producer.commit_transaction(KAFKA_WAIT).expect("a commit");
}

/// Reads the state topics to their end and drops the records.
pub fn consume(brokers: &str, prefix: &str) -> Value {
    let stopwatch = Stopwatch::start();
    let (mut records, mut bytes) = (0, 0);
    each(brokers, prefix, &STATE, |message| {
        records += 1;
        bytes += message.payload_len() + message.key_len();
    });
    stopwatch.stop(json!({"records": records, "bytes": bytes}))
}

fn read(brokers: &str, prefix: &str, topics: &[&str], to: &str) -> Vec<Record> {
    let mut records = Vec::new();
    each(brokers, prefix, topics, |message| {
        let topic = message.topic().replacen(prefix, to, 1);
        let headers = message.headers().map(|headers| headers.detach());
        let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        records.push(Record { topic, key: key.to_vec(), value: value.to_vec(), headers });
    });
    records
}

/// Gives each committed record of the topics' partition 0 to `take`.
fn each(brokers: &str, prefix: &str, topics: &[&str], mut take: impl FnMut(&rdkafka::message::BorrowedMessage<'_>)) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "unused")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "10")
        .create()
        .expect("a consumer");
    let mut places = TopicPartitionList::new();
    for topic in topics {
        let topic = format!("{prefix}.{topic}");
        consumer.fetch_metadata(Some(&topic), KAFKA_WAIT).expect("its leaders");
        places.add_partition_offset(&topic, 0, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&places).expect("the partitions");
    let (mut ends, mut moved) = (0, Instant::now());
    while ends < topics.len() {
        match consumer.poll(POLL_WAIT) {
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => panic!("Kafka cannot be read: {error}"),
            Some(Ok(message)) => {
                take(&message);
                moved = Instant::now();
            }
            None => assert!(moved.elapsed() < KAFKA_WAIT, "Kafka did not answer for {KAFKA_WAIT:?}"),
        }
    }
}
