//! `docs/asyncapi.json` is generated from the definitions of topics and schemas, and compared with real records.
//! `UPDATE_EXPECT=1 cargo test --test it asyncapi` writes it again. `.ci/run` checks with AsyncAPI's own parser that it
//! is valid AsyncAPI.

use std::collections::BTreeSet;

use expect_test::expect_file;
use scimtail::cli::asyncapi::document;
use scimtail::config::Config;
use scimtail::log::Topic;
use serde_json::Value;

use crate::memory::{MemoryDirectory, World, account};

fn config(more: &str) -> Config {
    let text = format!(
        "[kafka]\nbrokers = [\"localhost:9092\"]\n{more}\n[[account]]\nname = \"acme\"\nprovider = \"stripe\"\n\
         token_env = \"STRIPE_SCIM_TOKEN\"\n"
    );
    Config::parse("asyncapi", &text).expect("a configuration")
}

fn default_document() -> Value {
    document(&config("[registry]\nurl = \"http://localhost:8081\""))
}

#[test]
fn the_asyncapi_document_is_that_of_the_code() {
    let page = format!("{:#}\n", default_document());
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/asyncapi.json")].assert_eq(&page);
}

/// What the document says about a message of the topic: (keys of its headers, those that have to be there).
fn headers(document: &Value, topic: Topic, tombstone: bool) -> (BTreeSet<String>, BTreeSet<String>) {
    let messages = document["channels"][topic.suffix()]["messages"].as_object().expect("messages");
    let name = messages.keys().find(|name| name.ends_with("Tombstone") == tombstone).expect("a message");
    let headers = &document["components"]["messages"][name]["headers"];
    let properties = headers["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let required = headers["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned());
    (properties.collect(), required.collect())
}

#[tokio::test]
async fn real_records_have_the_topics_keys_headers_and_null_values_that_the_document_says() {
    let mut world = World::new(account("acme"));
    for text in [
        "user u1 ann\nuser u2 bob\nuser u3 cid\nuser u4 dan\nuser u5 eve\ngroup g1 A: u1 u2",
        "user u1 ann title=Lead\nuser u3 cid\nuser u4 dan\nuser u5 eve\ngroup g1 A: u1",
    ] {
        world.completed(&MemoryDirectory::parse(text)).await;
    }
    let document = default_document();
    let mut seen = BTreeSet::new();
    for record in world.log.records.lock().unwrap().iter() {
        let (properties, required) = headers(&document, record.topic, record.value.is_none());
        let there: BTreeSet<String> = record.headers.iter().map(|(name, _)| name.to_owned()).collect();
        assert!(there.is_subset(&properties), "{:?} has {there:?}, said are {properties:?}", record.topic);
        assert!(required.is_subset(&there), "{:?} has {there:?}, required are {required:?}", record.topic);
        seen.insert((record.topic, record.value.is_none()));
    }
    let expected = [Topic::Events, Topic::Users, Topic::Groups, Topic::Memberships, Topic::Syncs].map(|of| (of, false));
    assert!(expected.iter().all(|pair| seen.contains(pair)), "{seen:?}");
    assert!(seen.contains(&(Topic::Users, true)) && seen.contains(&(Topic::Memberships, true)), "{seen:?}");
}

#[test]
fn the_document_is_that_of_the_configured_deployment() {
    let more = "topic_prefix = \"acme\"\npartitions = 3\nreplication = 3\nproperties = { \"security.protocol\" = \"sasl_ssl\" }\n\
                [registry]\nurl = \"http://localhost:8081/apis/ccompat/v7\"";
    let document = document(&config(more));
    let events = &document["channels"]["events"];
    assert_eq!(events["address"], "acme.events");
    let binding = &events["bindings"]["kafka"];
    assert_eq!((&binding["partitions"], &binding["replicas"]), (&Value::from(3), &Value::from(3)));
    assert_eq!(binding["topicConfiguration"]["min.insync.replicas"], 2);
    let server = &document["servers"]["broker-1"];
    assert_eq!(server["protocol"], "kafka-secure");
    assert_eq!(server["bindings"]["kafka"]["schemaRegistryUrl"], "http://localhost:8081/apis/ccompat/v7");
}
