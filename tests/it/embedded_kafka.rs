//! The Kafka that `demo` brings along keeps what the demo shows: what was not committed is not read, and a producer that
//! was replaced cannot commit. librdkafka is the judge.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use scimtail::demo::kafka::EmbeddedKafka;
use scimtail::kafka::consumer_group::{self, MOVES, Move};
use scimtail::kafka::group::{self, Group};
use scimtail::kafka::{KafkaClient, topics};
use scimtail::log::Topic;
use scimtail::schedule::now_millis;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(20);

struct Embedded {
    kafka: EmbeddedKafka,
    client: KafkaClient,
}

async fn embedded() -> Embedded {
    let kafka = EmbeddedKafka::start(now_millis).await.expect("a port");
    let text = format!(
        "[kafka]\nbrokers = [\"{}\"]\npartitions = 2\n[registry]\nurl = \"http://127.0.0.1:1\"\n\
         [[account]]\nname = \"acme\"\nprovider = \"stripe\"\ntoken_env = \"UNUSED\"\n",
        kafka.address()
    );
    let client = scimtail::config::Config::parse("embedded", &text).expect("a configuration").kafka;
    topics::create(&client, 1).await.expect("topics");
    Embedded { kafka, client }
}

impl Embedded {
    fn producer(&self, id: &str) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.address()).set("transactional.id", id);
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(WAIT).expect("an epoch");
        producer
    }

    fn topic(&self) -> String {
        self.client.topic(Topic::Events)
    }

    fn send(&self, producer: &BaseProducer, values: &[&str]) {
        let topic = self.topic();
        for value in values {
            producer.send(BaseRecord::<str, str>::to(&topic).partition(0).payload(value)).expect("it is queued");
        }
        producer.flush(WAIT).expect("it is written");
    }

    /// Everything up to the end that such a reader sees.
    fn read(&self, isolation: &str) -> Vec<String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.address()).set("group.id", "judge");
        config.set("isolation.level", isolation).set("enable.partition.eof", "true");
        let reader: BaseConsumer = config.create().expect("a reader");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&self.topic(), 0, Offset::Beginning).expect("a partition");
        reader.assign(&all).expect("it is assigned");
        let mut values = Vec::new();
        loop {
            match reader.poll(WAIT).expect("something within the time") {
                Ok(message) => values.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned()),
                Err(KafkaError::PartitionEOF(_)) => return values,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topics_have_the_settings_that_they_were_created_with() {
    let embedded = embedded().await;
    assert_eq!(topics::verify(&embedded.client, false).await.expect("they are described"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_or_aborted_is_never_read_as_committed() {
    let embedded = embedded().await;
    let producer = embedded.producer("one");
    producer.begin_transaction().expect("it begins");
    embedded.send(&producer, &["a", "b"]);
    assert_eq!(embedded.read("read_committed"), [""; 0]);
    assert_eq!(embedded.read("read_uncommitted"), ["a", "b"]);
    producer.commit_transaction(WAIT).expect("it commits");
    assert_eq!(embedded.read("read_committed"), ["a", "b"]);

    producer.begin_transaction().expect("it begins");
    embedded.send(&producer, &["c"]);
    producer.abort_transaction(WAIT).expect("it aborts");
    producer.begin_transaction().expect("it begins");
    embedded.send(&producer, &["d"]);
    producer.commit_transaction(WAIT).expect("it commits");
    assert_eq!(embedded.read("read_committed"), ["a", "b", "d"]);
    assert_eq!(embedded.read("read_uncommitted"), ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_was_replaced_cannot_commit() {
    let embedded = embedded().await;
    let old = embedded.producer("one");
    old.begin_transaction().expect("it begins");
    embedded.send(&old, &["old"]);
    let new = embedded.producer("one");
    assert_eq!(embedded.read("read_committed"), [""; 0], "what the old one left open is aborted");
    let fenced = old.commit_transaction(WAIT).expect_err("it is fenced");
    assert!(matches!(&fenced, KafkaError::Transaction(error) if error.is_fatal()), "{fenced}");
    new.begin_transaction().expect("it begins");
    embedded.send(&new, &["new"]);
    new.commit_transaction(WAIT).expect("it commits");
    assert_eq!(embedded.read("read_committed"), ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_caught_is_not_carried_out() {
    let embedded = embedded().await;
    let caught = embedded.kafka.catch_commit(&embedded.topic(), 2);
    let producer = embedded.producer("one");
    producer.begin_transaction().expect("it begins");
    embedded.send(&producer, &["small"]);
    producer.commit_transaction(WAIT).expect("it is below the number");
    producer.begin_transaction().expect("it begins");
    embedded.send(&producer, &["a", "b"]);
    let asking = tokio::task::spawn_blocking(move || producer.commit_transaction(Duration::from_secs(2)));
    assert_eq!(caught.await.expect("it is caught").records, 2);
    assert!(asking.await.expect("it returned").is_err(), "no answer comes");
    assert_eq!(embedded.read("read_committed"), ["small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_lead_to_offsets_and_an_offset_behind_the_end_is_refused() {
    let embedded = embedded().await;
    let producer = embedded.producer("one");
    producer.begin_transaction().expect("it begins");
    embedded.send(&producer, &["a"]);
    producer.commit_transaction(WAIT).expect("it commits");
    let client = embedded.client.clone();
    let found = tokio::task::spawn_blocking(move || {
        let at =
            |millis| scimtail::kafka::offsets::offsets_at(&client, Topic::Events, &[0], millis).expect("an answer");
        (at(0), at(now_millis() + 60_000))
    });
    let (early, late) = found.await.expect("it returned");
    assert_eq!((early, late), (vec![(0, Offset::Offset(0))], vec![(0, Offset::End)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_says_which_member_has_which_partitions() {
    let embedded = embedded().await;
    let client = embedded.client.clone();
    let described = || group::describe(&client).expect("an answer");
    assert_eq!(described(), None, "a group that nothing has joined");
    let (moves, mut moved) = mpsc::channel(MOVES);
    let leave = CancellationToken::new();
    let left = consumer_group::join(&client, moves, leave.clone()).expect("a member");
    let Some(Move::Assigned(partitions)) = moved.recv().await else { panic!("it is assigned nothing") };
    assert_eq!(partitions, [0, 1]);
    let owner = |partition| (partition, "127.0.0.1".to_owned());
    assert_eq!(described(), Some(Group { instances: 1, owners: HashMap::from([owner(0), owner(1)]) }));
    leave.cancel();
    // What is given away is not waited for any longer.
    drop(moved.recv().await);
    drop(left.await);
    assert_eq!(described().map(|group| group.instances), Some(0));
}
