//! `state` as an auditor uses it, on real services: now, and as it was, as far back as Kafka keeps events.

use std::time::SystemTime;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use scimtail::demo::directory::{SimulatedDirectory, Vendor};

use crate::program::{AccountText, Program};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "state-test-token";
const LISTINGS: [&str; 2] = ["users", "access"];

fn now() -> String {
    jiff::Timestamp::try_from(SystemTime::now()).expect("a time").to_string()
}

/// Every listing as CSV, without the last column: since when something removed had been there is not always known.
async fn listings(program: &Program, as_of: Option<&str>) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for what in LISTINGS {
        let mut arguments = vec!["state", what, "--format", "csv"];
        arguments.extend(as_of.iter().flat_map(|time| ["--as-of", time]));
        let listed = program.run(&arguments).await;
        assert_eq!(listed.code, 0, "{what}: {listed:?}");
        let told = if as_of.is_some() { "later events undone" } else { "complete as of sync" };
        assert!(listed.err.contains(told) && listed.err.lines().count() == 1, "{listed:?}");
        let lines = listed.out.lines().map(|line| line.rsplit_once(',').expect("columns").0.to_owned());
        let lines: Vec<String> = lines.collect();
        assert!(lines.len() > 5, "{what}: {lines:?}");
        all.push(lines);
    }
    all
}

/// Drops the oldest events of both partitions, as retention does, but for the last `kept` offsets.
async fn drop_events(topic: &str, kept: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &services().bootstrap).create().expect("a client");
    let mut offsets = TopicPartitionList::new();
    for partition in 0..2 {
        let ends = admin.inner().fetch_watermarks(topic, partition, std::time::Duration::from_secs(30));
        let (low, high) = ends.expect("watermarks");
        if high - kept > low {
            offsets.add_partition_offset(topic, partition, Offset::Offset(high - kept)).expect("a partition");
        }
    }
    admin.delete_records(&offsets, &AdminOptions::new()).await.expect("the records are deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_as_of_a_time_is_what_was_listed_then_as_far_back_as_events_are_kept() {
    let directory =
        SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 11, SystemTime::now).await.expect("a directory");
    // Whatever is lost is let through.
    let more = "guard = { max_ratio = 1.0 }";
    let account = AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more };
    let program = Program::new(services(), &unique_prefix("as-of"), TOKEN, "5m", &[account]);
    let before = now();
    let none = program.run(&["state", "users", "--as-of", &before]).await;
    assert!(none.code != 0 && none.out.is_empty(), "{none:?}");
    let mut moments = Vec::new();
    for _ in 0..3 {
        assert_eq!(program.run(&["run", "--once"]).await.code, 0);
        moments.push((now(), listings(&program, None).await));
        for _ in 0..12 {
            directory.change();
        }
    }
    for (time, then) in &moments {
        assert_eq!(&listings(&program, Some(time)).await, then, "as of {time}");
    }
    assert_ne!(moments[0].1, moments[2].1, "something has changed");

    let words = ["acme: the state of", "cannot be told", "→ --as-of "];
    program.run(&["state", "users", "--as-of", &before]).await.refused(1, &words);
    program.run(&["state", "users", "--as-of", "2999-01-01T00:00:00Z"]).await.refused(2, &["lies ahead"]);
    let usage = program.run(&["state", "users", "--as-of", "yesterday"]).await;
    assert!(usage.code == 2 && usage.err.contains("neither a time with its offset"), "{usage:?}");

    // Retention has taken the oldest events: refused, with the time from which on it can be told.
    drop_events(&program.topic("events"), 10).await;
    let gone = program.run(&["state", "access", "--as-of", &moments[0].0]).await;
    gone.refused(1, &words);
    let earliest = gone.err.split("--as-of ").nth(1).expect("a time").trim();
    let told = program.run(&["state", "access", "--as-of", earliest]).await;
    assert!(told.code == 0 && told.out.lines().count() > 5, "{told:?}");
    assert_eq!(&listings(&program, Some(&moments[2].0)).await, &moments[2].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_accounts_are_listed_by_name_and_an_account_that_is_not_complete_says_so() {
    let directory =
        SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 12, SystemTime::now).await.expect("a directory");
    let account =
        |name: &'static str| AccountText { name, provider: "chargebee", base_url: directory.base_url(), more: "" };
    let names = ["zulu", "alpha", "mike"];
    let program = Program::new(services(), &unique_prefix("state"), TOKEN, "5m", &names.map(account));
    assert_eq!(program.run(&["run", "--once", "--account", "zulu", "--account", "alpha"]).await.code, 0);
    let listed = program.run(&["state", "users", "--format", "json"]).await;
    assert_eq!(listed.code, 75, "{listed:?}");
    assert!(listed.err.contains("mike: no sync has completed yet"), "{listed:?}");
    let of = |line: &str| {
        let object: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        object["account"].as_str().expect("an account").to_owned()
    };
    let accounts: Vec<String> = listed.out.lines().map(of).collect();
    assert_eq!(accounts.len(), 80);
    assert!(accounts.is_sorted() && accounts[0] == "alpha" && accounts[79] == "zulu");
    let whole = program.run(&["state", "users", "--account", "zulu", "--account", "zulu"]).await;
    assert_eq!((whole.code, whole.out.lines().count()), (0, 41), "{whole:?}");
}
