//! What consumers see: the records of topics, read by `read_topics.py`, which shares no code with
//! scimtail.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::python::python;
use crate::services::Services;

/// A record as [`read`] returns it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadRecord {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub headers: BTreeMap<String, String>,
    /// The decoded value, times as milliseconds since 1970; `Value::Null` for a tombstone.
    pub value: Value,
    /// The value as stored, with its schema id, in base64; `None` for a tombstone.
    pub value_bytes: Option<String>,
}

impl ReadRecord {
    pub fn is_tombstone(&self) -> bool {
        self.value_bytes.is_none()
    }
}

/// Everything in `topics` that is committed: topics in the given order, then by partition and
/// offset.
///
/// # Panics
/// If a topic is missing, or a record is not what the contract says (text keys, Avro values).
pub async fn read(services: &Services, topics: &[String]) -> Vec<ReadRecord> {
    let services = services.clone();
    let topics = topics.to_vec();
    tokio::task::spawn_blocking(move || run(&services, &topics))
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The newest record of each key of `topic`, without the keys whose newest record is a tombstone:
/// what a compacted topic says.
pub fn compacted(records: &[ReadRecord], topic: &str) -> BTreeMap<String, ReadRecord> {
    let mut newest = BTreeMap::new();
    for record in records.iter().filter(|record| record.topic == topic) {
        let key = record.key.clone().expect("a compacted topic has no records without a key");
        if record.is_tombstone() {
            newest.remove(&key);
        } else {
            newest.insert(key, record.clone());
        }
    }
    newest
}

fn run(services: &Services, topics: &[String]) -> Vec<ReadRecord> {
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/read_topics.py"))
        .args(["--bootstrap", &services.bootstrap])
        .args(["--registry", &services.registry])
        .args(["--isolation", "read_committed"])
        .args(topics)
        .output()
        .expect("the interpreter that `python` returned can be run");
    assert!(
        output.status.success(),
        "read_topics.py failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("JSON is UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("read_topics.py printed {line}: {error}")))
        .collect()
}
