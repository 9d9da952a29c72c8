//! Changes that others make to the topics behind scimtail's back.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client")
}

pub async fn create(bootstrap: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    let deadline = Instant::now() + WAIT;
    loop {
        let created = admin(bootstrap).create_topics([&new], &AdminOptions::new()).await.expect("the broker answers");
        match &created[0] {
            Ok(_) => return,
            // The deleted topic is not quite gone.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) if Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub async fn delete(bootstrap: &str, topic: &str) {
    let deleted = admin(bootstrap).delete_topics(&[topic], &AdminOptions::new()).await.expect("the broker answers");
    deleted[0].as_ref().expect("the topic is deleted");
}

/// Another topic by the same name, compacted or not.
pub async fn recreate(bootstrap: &str, topic: &str, partitions: i32, policy: &str) {
    delete(bootstrap, topic).await;
    create(bootstrap, topic, partitions, &[("cleanup.policy", policy)]).await;
}

pub fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().expect("a producer")
}

/// Writes one record outside any transaction.
pub fn write<K: ToBytes + ?Sized>(bootstrap: &str, topic: &str, partition: i32, key: Option<&K>, value: Option<&[u8]>) {
    let producer = producer(bootstrap, &[]);
    enqueue(&producer, topic, partition, key, value);
    producer.flush(WAIT).expect("it is written");
}

pub fn enqueue<K: ToBytes + ?Sized>(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    key: Option<&K>,
    value: Option<&[u8]>,
) {
    let mut record: BaseRecord<'_, K, [u8]> = BaseRecord::to(topic).partition(partition);
    (record.key, record.payload) = (key, value);
    producer.send(record).map_err(|(error, _)| error).expect("it is queued");
}
