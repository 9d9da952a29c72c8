//! `state` as an auditor uses it, on real services: the present state, and the state at past times, as far back as
//! Kafka keeps events.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path as AxumPath, Query};
use axum::http::StatusCode;
use axum::routing::get;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use scimtail::demo::registry::EmbeddedRegistry;
use serde_json::{Value, json};

use crate::meddling;
use crate::program::{AccountText, Ended, Program};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "state-test-token";
const LISTINGS: [&str; 4] = ["users", "groups", "memberships", "access"];

fn now() -> String {
    jiff::Timestamp::try_from(SystemTime::now()).expect("a time").to_string()
}

/// Every listing as CSV, without the last column: the start of a removed membership is not always known.
async fn listings(program: &Program, as_of: Option<&str>) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for what in LISTINGS {
        let mut arguments = vec!["state", what, "--format", "csv"];
        arguments.extend(as_of.iter().flat_map(|time| ["--as-of", time]));
        let listed = program.run(&arguments).await;
        assert_eq!(listed.code, 0, "{what}: {listed:?}");
        let told = if as_of.is_some() { "later events undone" } else { "complete as of sync" };
        let is_own = |line: &&str| !line.ends_with("; skipped") && !line.contains("; not included: ");
        let own: Vec<&str> = listed.err.lines().filter(is_own).collect();
        assert!(own.len() == 1 && own[0].contains(told), "{listed:?}");
        let lines = listed.out.lines().map(|line| line.rsplit_once(',').expect("columns").0.to_owned());
        let lines: Vec<String> = lines.collect();
        assert!(lines.len() > 2, "{what}: {lines:?}");
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
    // The guard lets any loss through.
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

    let words = ["acme: the state of", "is not known", "→ --as-of "];
    program.run(&["state", "users", "--as-of", &before]).await.refused(1, &words);
    program.run(&["state", "users", "--as-of", "2999-01-01T00:00:00Z"]).await.refused(2, &["in the future"]);
    let usage = program.run(&["state", "users", "--as-of", "yesterday"]).await;
    assert!(usage.code == 2 && usage.err.contains("neither a time with its offset"), "{usage:?}");

    // Retention has taken the oldest events: refused, with the time from which on it can be told.
    drop_events(&program.topic("events"), 10).await;
    let gone = program.run(&["state", "access", "--as-of", &moments[0].0]).await;
    gone.refused(1, &words);
    let earliest = gone.err.split("--as-of ").nth(1).expect("a time").trim();
    let told = program.run(&["state", "access", "--as-of", earliest]).await;
    assert!(told.code == 0 && told.out.lines().count() > 5, "{told:?}");
    // How far back it is, as a listing says it, is the same time.
    assert!(told.err.contains(&format!("events reach back to {earliest};")), "{told:?}");
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
        let object: Value = serde_json::from_str(line).expect("a JSON line");
        object["account"].as_str().expect("an account").to_owned()
    };
    let accounts: Vec<String> = listed.out.lines().map(of).collect();
    assert_eq!(accounts.len(), 80);
    assert!(accounts.is_sorted() && accounts[0] == "alpha" && accounts[79] == "zulu");
    let whole = program.run(&["state", "users", "--account", "zulu", "--account", "zulu"]).await;
    assert_eq!((whole.code, whole.out.lines().count()), (0, 41), "{whole:?}");
}

/// A SCIM server with the contents of `groups`, and three users.
async fn serve(groups: Arc<Mutex<Value>>) -> String {
    let all = move |kind: &str| -> Vec<Value> {
        if kind == "Groups" {
            return groups.lock().expect("not poisoned").as_array().expect("groups").clone();
        }
        let user = |number: i32| json!({ "id": format!("u{number}"), "userName": format!("name{number}") });
        if kind == "Users" { (1..4).map(user).collect() } else { Vec::new() }
    };
    let by_id = all.clone();
    let list = move |AxumPath(kind): AxumPath<String>, Query(parameters): Query<HashMap<String, String>>| {
        let number = |name: &str, or: usize| parameters.get(name).map_or(or, |text| text.parse().expect("a number"));
        let (all, start) = (all(&kind), number("startIndex", 1));
        let page: Vec<&Value> = all.iter().skip(start - 1).take(number("count", 100)).collect();
        let schemas = ["urn:ietf:params:scim:api:messages:2.0:ListResponse"];
        ready(Json(json!({
            "schemas": schemas,
            "totalResults": all.len(),
            "startIndex": start,
            "itemsPerPage": page.len(),
            "Resources": page,
        })))
    };
    let one = move |AxumPath((kind, id)): AxumPath<(String, String)>| {
        let found = by_id(&kind).into_iter().find(|resource| resource["id"] == id.as_str());
        ready(found.map(Json).ok_or((StatusCode::NOT_FOUND, Json(json!({ "status": "404" })))))
    };
    let router = axum::Router::new().route("/scim/{kind}", get(list)).route("/scim/{kind}/{id}", get(one));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/scim")
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_in_groups_are_told_as_of_a_time_with_who_had_access_through_them() {
    let group = |id: &str, name: &str, members: &[&str]| {
        let member = |id: &&str| json!({ "value": id, "type": if id.starts_with('g') { "Group" } else { "User" } });
        json!({ "id": id, "displayName": name, "members": members.iter().map(member).collect::<Vec<_>>() })
    };
    let stages = [
        [group("g1", "Leads", &["u1"]), group("g2", "Admins", &["g1"]), group("g3", "All", &["g2", "u2"])].to_vec(),
        // One group is in no other any more, and has a member more.
        [group("g1", "Leads", &["u1", "u3"]), group("g2", "Admins", &[]), group("g3", "All", &["g2", "u2"])].to_vec(),
        [group("g1", "Leads", &["u1", "u3"]), group("g2", "Owners", &["g3"]), group("g3", "All", &["g1"])].to_vec(),
        // The one between is gone.
        [group("g1", "Leads", &["u1", "u3"]), group("g2", "Owners", &["u2"])].to_vec(),
    ];
    let groups = Arc::new(Mutex::new(Value::Null));
    let base_url = serve(groups.clone()).await;
    let account = AccountText { name: "acme", provider: "generic", base_url, more: "" };
    let program = Program::new(services(), &unique_prefix("nested"), TOKEN, "5m", &[account]);
    let mut moments = Vec::new();
    for stage in stages {
        *groups.lock().expect("not poisoned") = Value::Array(stage);
        let ended = program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        moments.push((now(), listings(&program, None).await));
    }
    let access = |moment: usize, row: &str| moments[moment].1[3].iter().any(|line| line == row);
    let through = |ways: &str| format!("acme,user,u1,name1,,g3,All,,,,nested,{ways}");
    assert!(access(0, &through("Leads > Admins")) && access(2, &through("Leads")), "{:?}", moments[0].1[3]);
    assert!(!moments[1].1[3].iter().any(|line| line.contains("name1") && line.contains("nested")));
    for (time, then) in &moments {
        assert_eq!(&listings(&program, Some(time)).await, then, "as of {time}");
    }
}

/// Writes a foreign value into a topic of the program.
fn litter(program: &Program, suffix: &str, account: &str, key: &str, value: &[u8]) {
    let partition = scimtail::kafka::partition_of(account, 2);
    meddling::write(&services().bootstrap, &program.topic(suffix), partition, Some(key), Some(value));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_an_event_is_skipped_and_changes_no_answer_about_a_time() {
    let directory =
        SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 13, SystemTime::now).await.expect("a directory");
    let more = "guard = { max_ratio = 1.0 }";
    let account = AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more };
    let program = Program::new(services(), &unique_prefix("litter"), TOKEN, "5m", &[account]);
    let mut moments = Vec::new();
    // The first one is before every event.
    for round in 0..3 {
        assert_eq!(program.run(&["run", "--once"]).await.code, 0);
        moments.push((now(), listings(&program, None).await));
        litter(&program, "events", "acme", "acme/Users/litter", if round == 1 { b"{}" } else { &[0, 0, 0, 99, 99, 1] });
        for _ in 0..12 {
            directory.change();
        }
    }
    for (time, then) in &moments {
        assert_eq!(&listings(&program, Some(time)).await, then, "as of {time}");
    }
    let told = program.run(&["state", "users", "--as-of", "0s"]).await;
    let skipped: Vec<&str> = told.err.lines().filter(|line| line.ends_with("skipped")).collect();
    let address = format!("{} [{}] @ ", program.topic("events"), scimtail::kafka::partition_of("acme", 2));
    assert!(skipped.len() == 1 && skipped[0].contains(&address) && skipped[0].contains("2 more"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_told_keeps_back_no_other_and_the_exit_code_is_its_own() {
    let directory =
        SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 14, SystemTime::now).await.expect("a directory");
    let account =
        |name: &'static str| AccountText { name, provider: "chargebee", base_url: directory.base_url(), more: "" };
    let names = ["early", "late", "other"];
    let program = Program::new(services(), &unique_prefix("one-of"), TOKEN, "5m", &names.map(account));
    assert_eq!(program.run(&["run", "--once", "--account", "early", "--account", "other"]).await.code, 0);
    let before_late = now();
    let of = |listed: &Ended| -> Vec<String> {
        let account = |line: &str| line.split(',').next().unwrap_or_default().to_owned();
        let mut accounts: Vec<String> = listed.out.lines().skip(1).map(account).collect();
        accounts.dedup();
        accounts
    };
    let as_of = ["state", "users", "--format", "csv", "--as-of", &before_late];
    let unborn = program.run(&as_of).await;
    assert_eq!((unborn.code, of(&unborn)), (75, vec!["early".to_owned(), "other".to_owned()]), "{unborn:?}");
    assert!(unborn.err.contains("late: no sync has completed yet"), "{unborn:?}");

    assert_eq!(program.run(&["run", "--once", "--account", "late"]).await.code, 0);
    let young = program.run(&as_of).await;
    assert_eq!((young.code, of(&young)), (1, vec!["early".to_owned(), "other".to_owned()]), "{young:?}");
    assert!(young.err.contains("late: the state of") && young.err.contains("→ --as-of "), "{young:?}");

    litter(&program, "users", "other", "other/Users/litter", b"{}");
    let litter = program.run(&["state", "users", "--format", "csv"]).await;
    assert_eq!((litter.code, of(&litter)), (78, vec!["early".to_owned(), "late".to_owned()]), "{litter:?}");
    let line = litter.err.lines().find(|line| line.starts_with("error: ")).expect("a reason");
    assert!(line.contains(&program.topic("users")) && line.contains("no Confluent framing"), "{line}");
    assert!(!line.contains("reseed") && line.contains('→') && line.contains("other"), "{line}");
    // An error that waiting mends does not hide it.
    assert_eq!(program.run(&as_of).await.code, 78);
    assert_eq!(program.run(&["state", "users", "--account", "early"]).await.code, 0);
    program.run(&["state", "users", "--account", "other"]).await.refused(78, &["other", "→"]);
}

/// The same configuration with other contents, beside the same topics.
fn instead(program: &Program, from: &str, to: &str) -> Program {
    let text = std::fs::read_to_string(program.file()).expect("a configuration");
    assert!(text.contains(from), "{from} is not in {text}");
    Program::with_text(&program.prefix, TOKEN, &text.replacen(from, to, 1))
}

/// Answers every request alike.
async fn answers(status: u16) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let status = StatusCode::from_u16(status).expect("a status");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(async move || status)).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_not_the_registry_is_named_as_the_reason_and_no_reader_is_told_to_reseed() {
    let directory =
        SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 15, SystemTime::now).await.expect("a directory");
    let account = AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more: "" };
    let program = Program::new(services(), &unique_prefix("registry"), TOKEN, "5m", &[account]);
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    let real = services().registry.as_str();
    let with = |url: &str| instead(&program, real, url);
    let asking: [&[&str]; 7] = [
        &["schemas"],
        &["schemas", "--register"],
        &["state", "users"],
        &["state", "users", "--as-of", "0s"],
        &["plan"],
        &["run", "--once"],
        &["tail", "--from-beginning", "--exit"],
    ];
    let api = "/apis/ccompat/v7";
    let root = real.strip_suffix(api);
    let asked_for_credentials = answers(401).await;
    let nowhere = format!("{real}/nowhere");
    for (url, words) in root
        .into_iter()
        .chain([nowhere.as_str()])
        .map(|url| (url, ["not a registry of the Confluent API", "it ends in /apis/ccompat/v7"]))
        .chain([(asked_for_credentials.as_str(), ["asks for credentials", "HTTP 401"])])
    {
        let wrong = with(url);
        for arguments in asking {
            wrong.run(arguments).await.refused(78, &words);
        }
        let check = wrong.run(&["check"]).await;
        assert!(check.code == 78 && check.out.contains("FAIL  reach  ") && check.out.contains("→ "), "{check:?}");
        assert!(words.iter().all(|word| check.out.contains(word)), "{check:?}");
    }
    // A client that may not list subjects may read schemas all the same; here, neither is allowed.
    let forbidden = with(&answers(403).await).run(&["state", "users"]).await;
    forbidden.refused(69, &["HTTP 403", "→ ask the registry's operator"]);

    // A registry, but another one: it holds none of the schemas.
    let other = EmbeddedRegistry::start().await.expect("a registry");
    let lost = with(&other.url()).run(&["state", "users"]).await;
    lost.refused(78, &["does not know schema", "acme", "→ check that registry.url"]);
    assert!(!lost.err.contains("reseed"), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_partition_count_than_that_of_the_topics_is_refused_to_readers_too() {
    let directory =
        SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 16, SystemTime::now).await.expect("a directory");
    let account = AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more: "" };
    let program = Program::new(services(), &unique_prefix("counts"), TOKEN, "5m", &[account]);
    let unborn = program.run(&["state", "users"]).await;
    unborn.refused(78, &["does not exist", "→"]);
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    let reading: [&[&str]; 4] =
        [&["state", "users"], &["state", "access", "--as-of", "0s"], &["tail", "--exit"], &["plan"]];
    for count in [1, 12] {
        let wrong = instead(&program, "partitions = 2", &format!("partitions = {count}"));
        let said = format!("kafka.partitions says {count}");
        for arguments in reading {
            wrong.run(arguments).await.refused(78, &["has 2 partitions", &said, "→ set it to 2"]);
        }
    }
}
