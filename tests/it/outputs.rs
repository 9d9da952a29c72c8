//! `[outputs]`: events as JSON, for readers that cannot decode Avro, in the transaction of the event itself.

use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use scimtail::kafka::partition_of;
use serde_json::Value;

use crate::meddling;
use crate::program::{AccountText, Program};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "outputs-test-token";
const PARTITIONS: i32 = 2;
const WAIT: Duration = Duration::from_secs(60);

/// Name and value.
pub type Header = (String, String);

/// Key, headers and text of all committed records of a topic's partition.
pub fn committed(topic: &str, partition: i32) -> Vec<(String, Vec<Header>, String)> {
    let consumer = |isolation: &str| -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &services().bootstrap)
            .set("group.id", "reads-json")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer")
    };
    // Not the end that a reader of committed records sees: it may not know of the last commit yet.
    let (_, end) = consumer("read_uncommitted").fetch_watermarks(topic, partition, WAIT).expect("the topic");
    let consumer = consumer("read_committed");
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    consumer.assign(&all).expect("assigned");
    let (mut records, deadline) = (Vec::new(), Instant::now() + WAIT);
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("never null").to_vec()).expect("UTF-8");
    // Control records move the position, too. Before the first record it is none.
    let reached = || {
        let positions = consumer.position().expect("the partition is assigned");
        let place = positions.find_partition(topic, partition).expect("it is assigned");
        place.offset().to_raw().map_or(0, |offset| offset.max(0))
    };
    while reached() < end {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let headers = message.headers().expect("headers");
                let headers = headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect();
                records.push((text(message.key()), headers, text(message.payload())));
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                assert!(Instant::now() < deadline, "the end is not reached")
            }
            Some(Err(error)) => panic!("{error}"),
        }
    }
    records
}

async fn program(test: &str, outputs: &str) -> (SimulatedDirectory, Program) {
    let directory = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 7, SystemTime::now).await.expect("a directory");
    let more = "baseline = \"events\"";
    let account = AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more };
    let prefix = unique_prefix(test);
    let program = Program::new(services(), &prefix, TOKEN, "5m", &[account]);
    let text = std::fs::read_to_string(program.file()).expect("the file");
    std::fs::write(program.file(), format!("{text}{outputs}")).expect("written");
    (directory, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_carries_every_event_as_tail_prints_it() {
    let (directory, program) = program("outputs", "[outputs.ocsf]\n[outputs.ecs]\n").await;
    for _ in 0..3 {
        let ended = program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        for _ in 0..5 {
            directory.change();
        }
    }
    let partition = partition_of("acme", PARTITIONS);
    for format in ["ocsf", "ecs"] {
        let printed = program.run(&["tail", "--from", "beginning", "--exit", "--format", format]).await;
        let records = committed(&program.topic(&format!("events.{format}")), partition);
        assert!(records.len() > 50, "{}", records.len());
        let values: Vec<&str> = records.iter().map(|(_, _, value)| value.as_str()).collect();
        assert_eq!(values, printed.out.lines().collect::<Vec<_>>(), "{format}");
        for (key, headers, value) in &records {
            let header = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
            assert!(key.starts_with("acme/"), "{key}");
            assert_eq!(header("content-type"), Some("application/json"));
            assert!(value.contains(header("ce_id").expect("the event's id")), "{value}");
        }
    }
    // Avro readers see the same events as without outputs.
    let json = program.run(&["tail", "--from", "beginning", "--exit", "--format", "json"]).await;
    let sequences = json.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["sequence"].clone());
    assert!(sequences.eq((1..=json.out.lines().count()).map(Value::from)));
    let check = program.run(&["check"]).await;
    assert!(check.out.contains("topics      8 of 8"), "{check:?}");
    let print = program.run(&["topics", "--print"]).await;
    assert!(print.out.contains(&format!("--topic {}", program.topic("events.ocsf"))), "{print:?}");
}

/// Event and copy commit together: where the copy cannot be written, neither is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_copy_is_refused_is_not_published_either() {
    let (directory, program) = program("refused", "[outputs.ocsf]\n").await;
    let (bootstrap, topic) = (&services().bootstrap, program.topic("events.ocsf"));
    meddling::create(bootstrap, &topic, PARTITIONS, &[("cleanup.policy", "delete"), ("max.message.bytes", "700")])
        .await;
    let ended = program.run(&["run", "--once"]).await;
    assert!(ended.code == 75 && ended.out.contains("failed"), "{ended:?}");
    let partition = partition_of("acme", PARTITIONS);
    for suffix in ["events", "events.ocsf", "users"] {
        assert_eq!(committed(&program.topic(suffix), partition).len(), 0, "{suffix}");
    }
    drop(directory);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_output_is_refused_with_the_nearest_one() {
    let (_directory, program) = program("unknown", "[outputs.osfc]\n").await;
    program.run(&["run", "--once"]).await.refused(78, &["unknown key `osfc`", "did you mean `ocsf`"]);
}
