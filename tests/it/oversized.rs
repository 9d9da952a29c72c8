//! Records that are too large, on topics as a broker creates them: no resource makes one, however large it is, and
//! where a topic allows less, one account fails and says so.

use scimtail::account::Account;
use scimtail::config::AccountConfig;
use scimtail::directory::{GroupPattern, ReasonCode, Status, SyncStatus};
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use metrics_exporter_prometheus::PrometheusBuilder;
use scimtail::log::Topic;
use scimtail::shards::acquire;
use scimtail::shards::writer::Writer;
use scimtail::sync::{self, OwnedAccount};
use serde_json::{Map, Value, json};

use crate::meddling;
use crate::memory::{self, MemoryDirectory};
use crate::outcomes::{World, set};
use crate::outputs;
use crate::reader::compacted;
use crate::services::services;

/// Maximum size of a message that librdkafka sends by default; a broker takes a little more (1,048,588).
const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// The largest values that stay in a resource if it has little else: a value, a user's name, a group's name, attributes
/// with long paths. As `directory::reduction` reckons them, a message holds each several times.
const VALUE: usize = 199_000;
const USER_NAME: usize = 149_000;
const GROUP_NAME: usize = 74_000;
const PATHS: usize = 118_000;

/// Letters, different for every `seed`; compression gains nothing that matters.
fn text(seed: u64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.alphanumeric()).take(bytes).collect()
}

/// Attributes inside attributes until they take `bytes`: paths of this many bytes each, without much of a value.
fn nested(seed: u64, bytes: usize, path: usize) -> Value {
    let mut outer = Map::new();
    let mut left = bytes;
    for number in 0..60 {
        let mut inner = Map::new();
        for place in 0..60 {
            let Some(rest) = left.checked_sub(path) else { break };
            left = rest;
            let name = text(seed.wrapping_mul(10_000) + number * 100 + place, path.saturating_sub(40).max(4));
            inner.insert(name, json!(1));
        }
        outer.insert(format!("part-of-a-longer-path-{number:02}"), Value::Object(inner));
    }
    Value::Object(outer)
}

/// What a test changes of a configured account.
fn settings(account: &mut Arc<AccountConfig>) -> &mut Account {
    Arc::make_mut(&mut Arc::make_mut(account).account)
}

/// A directory of the largest resources there are, one of each kind, all different in every `turn`.
fn directory(turn: u64) -> MemoryDirectory {
    let mut directory = MemoryDirectory::default();
    let seed = turn * 100;
    for (number, (id, mut user)) in (0..).zip([
        ("name", json!({ "userName": text(seed, USER_NAME) })),
        ("names", json!({ "userName": text(seed, USER_NAME / 2), "displayName": text(seed + 1, USER_NAME / 2) })),
        ("email", json!({ "userName": "e", "emails": [{ "value": text(seed + 2, USER_NAME) }] })),
        ("value", json!({ "userName": "v", "title": text(seed + 3, VALUE) })),
        ("quotes", json!({ "userName": "q", "title": format!("{turn}{}", "\"".repeat(VALUE / 2)) })),
        ("paths", json!({ "userName": "p", "userType": nested(seed + 4, PATHS, 500) })),
        ("tiny", json!({ "userName": "t", "userType": nested(seed + 5, PATHS, 45) })),
        ("longer", json!({ "userName": "l", "userType": nested(seed + 12, VALUE, 500) })),
        ("beyond", json!({ "userName": "b", "title": text(seed + 6, 2 * VALUE), "userType": "kept" })),
    ]) {
        user["id"] = json!(id);
        user["active"] = json!(turn % 2 == number % 2);
        directory.users.insert(id.to_owned(), user);
    }
    // Keys hold ids percent-encoded.
    let slashes = "/".repeat(1_000);
    // Members that GET does not find: the record keeps their ids.
    let members: Vec<Value> =
        (0..150).map(|number| json!({ "value": format!("{number:03}-{}", "x".repeat(1_000)) })).collect();
    for (id, name) in [
        ("plain", text(seed + 7, GROUP_NAME)),
        ("granting", format!("CB/example.com/ROLE/{}", text(seed + 8, GROUP_NAME))),
        (&slashes, format!("CB/{}/ROLE/{}", text(seed + 9, GROUP_NAME / 2), text(seed + 10, GROUP_NAME / 2))),
        ("beyond", text(seed + 11, 2 * GROUP_NAME)),
    ] {
        directory.groups.insert(id.to_owned(), json!({ "id": id, "displayName": name, "members": members }));
    }
    directory
}

async fn sync(owned: &mut OwnedAccount<Writer>, directory: &MemoryDirectory) -> SyncStatus {
    sync::sync(owned, directory).await.expect("the acquisition lasts")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_resources_there_are_fit_into_records_of_the_default_size() {
    let mut world = World::on(services(), services(), "largest", 1).await;
    settings(&mut world.account).pattern =
        Some(GroupPattern::parse("CB/{domain}/{kind:ROLE=role}/{name}").expect("a pattern"));
    settings(&mut world.account).limits.max_ratio = 1.0;
    let mut owner = world.acquire().await;
    for turn in 0..3 {
        let status = sync(&mut owner.owned, &directory(turn)).await;
        assert_eq!(status.status, Status::Completed, "turn {turn}: {:?}", status.reason);
    }
    for suffix in ["events", "users", "groups", "syncs"] {
        let records = world.committed(suffix).await;
        let largest =
            records.iter().map(|record| record.value_bytes.as_ref().map_or(0, |base64| base64.len() / 4 * 3)).max();
        println!("{suffix}: {} records, the largest of {largest:?} bytes", records.len());
        assert!(largest.is_some_and(|largest| largest < MESSAGE_BYTES_MAX));
    }
    // The record declares it: it names every attribute that was left out, and no other.
    let expected = [
        ("users", vec![("beyond", json!(["title"])), ("longer", json!(["userType"]))]),
        ("groups", vec![("beyond", json!(["displayName"]))]),
    ];
    for (suffix, expected) in expected {
        let records = compacted(&world.committed(suffix).await, &world.program.topic(suffix));
        let reduced: Vec<(&str, Value)> = records
            .values()
            .filter(|record| record.value["omitted_attributes"] != json!([]))
            .map(|record| (record.value["id"].as_str().expect("an id"), record.value["omitted_attributes"].clone()))
            .collect();
        assert_eq!(reduced, expected);
    }
    let users = compacted(&world.committed("users").await, &world.program.topic("users"));
    assert_eq!(users["acme/Users/beyond"].value["attributes"]["userType"], "\"kept\"", "the rest is there");
}

/// A format may state a name more often than the event does.
#[tokio::test(flavor = "multi_thread")]
async fn no_copy_of_the_largest_events_is_too_large_and_what_it_leaves_out_is_named() {
    let mut world = World::on(services(), services(), "copies", 1).await;
    settings(&mut world.account).limits.max_ratio = 1.0;
    settings(&mut world.account).outputs = Topic::OUTPUTS.to_vec();
    world.shared.kafka.outputs = Topic::OUTPUTS.to_vec();
    for topic in Topic::OUTPUTS {
        meddling::create(&services().bootstrap, &world.program.topic(topic.suffix()), 1, &[]).await;
    }
    let mut owner = world.acquire().await;
    for turn in 0..3 {
        let status = sync(&mut owner.owned, &directory(turn)).await;
        assert_eq!(status.status, Status::Completed, "turn {turn}: {:?}", status.reason);
    }
    let events = world.committed("events").await;
    for (topic, uid, omitted) in [
        (Topic::EventsOcsf, "/metadata/uid", "/unmapped/omitted_attributes"),
        (Topic::EventsEcs, "/event/id", "/labels/omitted_attributes"),
    ] {
        let copies = outputs::committed(&world.program.topic(topic.suffix()), 0);
        let largest = copies.iter().map(|(_, _, text)| text.len()).max();
        println!("{topic:?}: {} copies, the largest of {largest:?} bytes", copies.len());
        assert!(largest.is_some_and(|largest| largest < MESSAGE_BYTES_MAX));
        let copies: Vec<Value> = copies.iter().map(|(_, _, text)| serde_json::from_str(text).expect("JSON")).collect();
        let ids: Vec<&Value> = copies.iter().map(|copy| copy.pointer(uid).expect("an id")).collect();
        assert_eq!(ids, events.iter().map(|event| &event.value["event_id"]).collect::<Vec<_>>(), "one for each event");
        for (copy, event) in copies.iter().zip(&events) {
            let left_out = copy.pointer(omitted).cloned().unwrap_or_else(|| json!([]));
            let is_cut = topic == Topic::EventsOcsf
                && event.value["principal_id"] == "name"
                && event.value["event_type"] == "user.updated";
            if is_cut {
                assert_eq!(left_out, json!(["userName"]));
                assert_eq!(copy["metadata"]["is_truncated"], true);
                assert_eq!(copy["unmapped"]["changed_attributes"], event.value["changed_attributes"]);
                assert_eq!(copy["entity"]["uid"], "name");
                assert_eq!(copy["message"], "user.updated name");
            } else {
                assert_eq!(left_out, event.value["omitted_attributes"], "{}", event.value["event_type"]);
            }
        }
    }
    let updated: Vec<&Value> = events
        .iter()
        .map(|event| &event.value)
        .filter(|event| event["principal_id"] == "name" && event["event_type"] == "user.updated")
        .collect();
    assert_eq!(updated.len(), 2);
    for event in updated {
        assert_eq!(event["user"]["user_name"].as_str().map(str::len), Some(USER_NAME), "the event is whole");
        assert_eq!(event["omitted_attributes"], json!([]));
    }
}

/// A directory with one user whose title takes so many bytes.
fn titled(turn: u64, bytes: usize) -> MemoryDirectory {
    let mut directory = MemoryDirectory::default();
    directory.users.insert("u1".to_owned(), json!({ "id": "u1", "userName": "ann", "title": text(turn, bytes) }));
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_topic_takes_less_the_account_says_so_and_the_others_go_on() {
    let world = World::on(services(), services(), "smaller", 1).await;
    let accounts = ["small", "large"].map(|name| {
        let mut config = world.account.clone();
        settings(&mut config).name = name.to_owned();
        config
    });
    let mut acquisition = acquire(&world.shared, 0, &accounts, |_| {}).await.expect("the shard");
    let [mut small, mut large] = accounts.map(|config| {
        let known = acquisition.known.remove(&config.account.name).expect("the account").expect("its state");
        world.shared.owned(&config.account, known, &acquisition.writer)
    });
    for turn in 0..4 {
        // The baseline has no events, and the last turn finds the topic as it was.
        set(&world, "events", "max.message.bytes", if [1, 2].contains(&turn) { "20000" } else { "1048588" }).await;
        let (few, many) = (titled(turn, 100), titled(turn, 30_000));
        let (small, large) = futures::join!(sync(&mut small, &few), sync(&mut large, &many),);
        assert_eq!(small.status, Status::Completed, "turn {turn}: {:?}", small.reason);
        if turn == 0 || turn == 3 {
            assert_eq!(large.status, Status::Completed, "turn {turn}: {:?}", large.reason);
        } else {
            assert_eq!(
                (large.status, large.reason_code.as_ref().map(ReasonCode::as_str)),
                (Status::Failed, Some("commit_aborted"))
            );
            let reason = large.reason.expect("a reason");
            assert!(reason.contains("larger than Kafka takes; → raise max.message.bytes"), "{reason}");
        }
    }
    let events = world.committed("events").await;
    let of = |name: &str| events.iter().filter(|event| event.value["account"] == name).count();
    assert_eq!((of("small"), of("large")), (3, 1), "each change once");
}

/// Where a subscriber writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// While there is just one subscriber, the thread that first comes to a place that logs is asked alone whether the
/// place is of interest. A thread of another test has no subscriber, and would switch the place off for this one. With
/// a second subscriber, all subscribers are asked.
static SECOND_SUBSCRIBER: LazyLock<tracing::Dispatch> =
    LazyLock::new(|| tracing_subscriber::fmt().with_writer(std::io::sink).finish().into());

/// The log of this thread, on which the whole test runs.
fn captured() -> (Lines, tracing::subscriber::DefaultGuard) {
    LazyLock::force(&SECOND_SUBSCRIBER);
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("text")
    }
}

#[tokio::test]
async fn a_log_is_captured_even_if_another_thread_came_first_to_the_place_that_logs() {
    fn logs() {
        tracing::info!("here");
    }
    let (lines, _captured) = captured();
    std::thread::spawn(logs).join().expect("it logs");
    logs();
    assert_eq!(lines.text().matches("here").count(), 1, "{}", lines.text());
}

#[tokio::test]
async fn principals_that_are_reduced_are_counted_and_named_nowhere() {
    let (lines, _captured) = captured();
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counted = metrics::set_default_local_recorder(&recorder);
    let mut world = memory::World::new(memory::account("acme"));
    for (turn, bytes) in [(0, 100), (1, 2 * VALUE), (1, 2 * VALUE), (2, 100)] {
        world.completed(&titled(turn, bytes)).await;
    }
    let lines = lines.text();
    let reduced: Vec<&str> = lines.lines().filter(|line| line.contains("principals truncated")).collect();
    assert_eq!(reduced.len(), 1, "where the record is written: {lines}");
    assert!(reduced[0].contains("sync=2 reduced=1"), "{}", reduced[0]);
    let metrics = recorder.handle().render();
    assert!(metrics.contains("scimtail_principals_reduced_total{account=\"acme\"} 1\n"), "{metrics}");
    assert!(metrics.contains("scimtail_events_total{account=\"acme\",event_type=\"user.updated\"} 2\n"), "{metrics}");
    assert!(!lines.contains("ann") && !lines.contains("u1"), "{lines}");
    assert!(!metrics.contains("ann") && !metrics.contains("u1"), "{metrics}");
}

#[tokio::test]
async fn copies_that_are_reduced_are_counted_and_named_nowhere() {
    let (lines, _captured) = captured();
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counted = metrics::set_default_local_recorder(&recorder);
    let mut account = memory::account("acme");
    account.outputs = Topic::OUTPUTS.to_vec();
    let mut world = memory::World::new(account);
    for (turn, bytes) in [(0, 100), (1, USER_NAME), (2, USER_NAME), (2, USER_NAME), (3, 100)] {
        let mut directory = MemoryDirectory::default();
        let user = json!({ "id": "u1", "userName": format!("ann{}", text(turn, bytes)) });
        directory.users.insert("u1".to_owned(), user);
        world.completed(&directory).await;
    }
    let lines = lines.text();
    let reduced: Vec<&str> = lines.lines().filter(|line| line.contains("JSON copies truncated")).collect();
    assert_eq!(reduced.len(), 1, "only a change from one such name to another states it too often: {lines}");
    assert!(reduced[0].contains("sync=3 reduced=1"), "{}", reduced[0]);
    let metrics = recorder.handle().render();
    assert!(metrics.contains("scimtail_copies_reduced_total{account=\"acme\"} 1\n"), "{metrics}");
    assert!(!lines.contains("principals truncated") && !lines.contains("ann") && !lines.contains("u1"), "{lines}");
}
