//! The view of consumers: the records of topics, read by `read_topics.py`, which shares no code
//! with scimtail.

use std::collections::{BTreeMap, BTreeSet};
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

/// All committed records of `topics`: topics in the given order, then by partition and offset. It waits for the end of
/// each transaction that has records in them.
///
/// # Panics
/// If a topic is missing, or a record breaks the contract (text keys, Avro values).
pub async fn read(services: &Services, topics: &[String]) -> Vec<ReadRecord> {
    read_with(services, topics, &[]).await
}

/// As [`read`], but only what comes before the first open transaction: it waits for none.
pub async fn read_stable(services: &Services, topics: &[String]) -> Vec<ReadRecord> {
    read_with(services, topics, &["--stable"]).await
}

async fn read_with(services: &Services, topics: &[String], options: &'static [&str]) -> Vec<ReadRecord> {
    let services = services.clone();
    let topics = topics.to_vec();
    tokio::task::spawn_blocking(move || run(&services, &topics, options))
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The newest record of each key of `topic`, without the keys whose newest record is a
/// tombstone: the state in a compacted topic.
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

/// Facts by state key: the attributes of a user or group as JSON; none for a membership.
pub type Facts = BTreeMap<String, BTreeMap<String, String>>;

/// The facts in the compacted topics of a prefix.
pub fn stated(records: &[ReadRecord], prefix: &str) -> Facts {
    let topics = ["users", "groups", "memberships"].map(|suffix| format!("{prefix}.{suffix}"));
    let state = topics.iter().flat_map(|topic| compacted(records, topic));
    state.map(|(key, record)| (key, attributes(&record.value))).collect()
}

/// Facts that are in one of the two, and not in the other.
pub fn differences(left: &Facts, right: &Facts) -> Vec<String> {
    let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let different = keys.into_iter().filter(|key| left.get(*key) != right.get(*key));
    different.map(|key| format!("{key}: {:?}, {:?}", left.get(key), right.get(key))).collect()
}

/// The facts after the events.
///
/// # Panics
/// If the old value in an event is not the fact before it: an event was not published, or was
/// published twice.
pub fn folded(mut facts: Facts, events: &[&ReadRecord]) -> Facts {
    for event in events {
        let value = &event.value;
        let mut key = event.key.clone().expect("events have keys");
        let (kind, verb) = value["event_type"].as_str().and_then(|name| name.split_once('.')).expect("an event type");
        if kind == "membership" {
            key.push_str(&format!("/Groups/{}", value["group_id"].as_str().expect("a group")));
        }
        match verb {
            "added" => assert_eq!(facts.insert(key, attributes(&value[kind])), None, "was there already: {value}"),
            "removed" => assert!(facts.remove(&key).is_some(), "was not there: {value}"),
            _ => {
                let known = facts.get_mut(&key).unwrap_or_else(|| panic!("was not there: {value}"));
                let changes = value["changes"].as_array().expect("changes");
                assert!(!changes.is_empty(), "{value}");
                for change in changes {
                    let name = change["attribute"].as_str().expect("a name").to_owned();
                    let [old, new] = ["old_value", "new_value"].map(|side| change[side].as_str().map(str::to_owned));
                    assert_eq!(known.get(&name), old.as_ref(), "{name} was not so: {value}");
                    match new {
                        Some(new) => drop(known.insert(name, new)),
                        None => drop(known.remove(&name)),
                    }
                }
            }
        }
    }
    facts
}

/// The attributes in a user or group, of an event or a state.
fn attributes(value: &Value) -> BTreeMap<String, String> {
    let listed = value["attributes"].as_object().into_iter().flatten();
    let mut attributes: BTreeMap<String, String> =
        listed.map(|(name, json)| (name.clone(), json.as_str().expect("JSON as text").to_owned())).collect();
    for (field, name) in [("active", "active"), ("user_name", "userName"), ("display_name", "displayName")] {
        if let Some(value) = value.get(field).filter(|value| !value.is_null()) {
            attributes.insert(name.to_owned(), value.to_string());
        }
    }
    attributes
}

fn run(services: &Services, topics: &[String], options: &[&str]) -> Vec<ReadRecord> {
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/read_topics.py"))
        .args(["--bootstrap", &services.bootstrap])
        .args(["--registry", &services.registry])
        .args(options)
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
