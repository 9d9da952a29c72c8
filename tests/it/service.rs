//! `scimtail run` as a service: several accounts, one of them down, a clean end.

use std::io::Read;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use scimtail::demo::directory::{SimulatedDirectory, Vendor};

use crate::program::{AccountText, Program};
use crate::reader::{Facts, ReadRecord, differences, folded, read, stated};
use crate::services::{Services, broker, services, unique_prefix};

const TOKEN: &str = "service-test-token-canary";
const WAIT: Duration = Duration::from_secs(120);
const TOPICS: [&str; 5] = ["syncs", "events", "users", "groups", "memberships"];
/// The time that the service promises for SIGTERM.
const STOP_WAIT: Duration = Duration::from_secs(10);

fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

fn ended_within(child: &mut Child, wait: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + wait;
    loop {
        match child.try_wait().expect("the child can be asked") {
            Some(status) => return Some(status),
            None if Instant::now() > deadline => return None,
            None => std::thread::yield_now(),
        }
    }
}

async fn until(program: &Program, what: &str, done: impl Fn(&[ReadRecord]) -> bool) -> Vec<ReadRecord> {
    until_on(services(), program, what, done).await
}

async fn until_on(
    services: &Services,
    program: &Program,
    what: &str,
    done: impl Fn(&[ReadRecord]) -> bool,
) -> Vec<ReadRecord> {
    let deadline = Instant::now() + WAIT;
    loop {
        let records = read(services, &TOPICS.map(|suffix| program.topic(suffix))).await;
        if done(&records) {
            return records;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", WAIT.as_secs());
    }
}

fn count(records: &[ReadRecord], account: &str, status: &str) -> usize {
    let key = format!("{account}/latest");
    records.iter().filter(|record| record.key.as_deref() == Some(&key) && record.value["status"] == status).count()
}

/// Several accounts go on at their intervals while one is down; SIGTERM ends the service cleanly. The test checks G9
/// too.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_keep_syncing_while_one_is_down_and_sigterm_ends_it_cleanly() {
    let stripe = SimulatedDirectory::start(Vendor::Stripe, TOKEN, 1, SystemTime::now).await.expect("a directory");
    let chargebee = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 1, SystemTime::now).await.expect("a directory");
    let down = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let program = Program::new(
        services(),
        &unique_prefix("service"),
        TOKEN,
        "1s",
        &[
            AccountText { name: "up-stripe", provider: "stripe", base_url: stripe.base_url(), more: "" },
            AccountText { name: "up-chargebee", provider: "chargebee", base_url: chargebee.base_url(), more: "" },
            AccountText { name: "down", provider: "generic", base_url: format!("http://{down}/scim/v2"), more: "" },
        ],
    );
    let listen = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let text = std::fs::read_to_string(program.file()).expect("the configuration");
    std::fs::write(program.file(), format!("{text}\n[http]\nlisten = \"{listen}\"\n")).expect("it is written");
    // The topics have to exist before they can be read.
    let created = program.run(&["topics", "--create"]).await;
    assert_eq!(created.code, 0, "{created:?}");
    let mut service = program.spawn(&["run", "--log-format", "json", "--log-level", "debug"]);
    // The log is read all the time: a service that cannot write its log blocks.
    let mut stderr = service.stderr.take().expect("stderr");
    let logs = std::thread::spawn(move || {
        let mut logs = String::new();
        stderr.read_to_string(&mut logs).expect("logs are text");
        logs
    });

    until(&program, "both accounts synced twice, the third failed", |records| {
        count(records, "up-stripe", "completed") >= 2
            && count(records, "up-chargebee", "completed") >= 2
            && count(records, "down", "failed") >= 1
    })
    .await;
    let change = chargebee.change();
    let records = until(&program, "a change arrives", |records| {
        records.iter().any(|record| record.value["event_type"] == change)
    })
    .await;
    let failed = records.iter().find(|record| record.value["status"] == "failed").expect("a failed sync");
    assert_eq!(failed.value["reason_code"], "unreachable");
    assert_eq!(failed.value["users_read"], serde_json::Value::Null, "not read is not 0");
    assert_eq!(failed.value["hold_id"], serde_json::Value::Null);

    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let get = async |page: &str| {
        let answer = client.get(format!("http://{listen}{page}")).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let until_shown = async |shown: &dyn Fn(f64) -> bool| {
        let series = "scimtail_account_paused_since_timestamp_seconds{account=\"up-stripe\"} ";
        let deadline = Instant::now() + WAIT;
        loop {
            let (_, page) = get("/metrics").await;
            let value = page.lines().find_map(|line| line.strip_prefix(series)?.parse::<f64>().ok());
            if value.is_some_and(shown) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {} s: {series}{value:?}", WAIT.as_secs());
        }
    };

    // Pause, poll and resume reach the running service.
    assert_eq!(program.run(&["pause", "up-stripe", "--reason", "maintenance"]).await.code, 0);
    until(&program, "the pause is recorded", |records| {
        let newest = records.iter().rfind(|record| record.key.as_deref() == Some("up-stripe/latest"));
        newest.is_some_and(|newest| {
            newest.value["paused_by"] == "tester" && newest.value["pause_reason"] == "maintenance"
        })
    })
    .await;
    until_shown(&|since| since > 1_700_000_000.0).await;
    let before = stripe.page_requests();
    let chargebee_before = chargebee.page_requests();
    until(&program, "the other account goes on", |_| chargebee.page_requests() > chargebee_before + 6).await;
    assert_eq!(stripe.page_requests(), before, "a paused account is left alone");
    assert_eq!(program.run(&["resume", "up-stripe"]).await.code, 0);
    until(&program, "the account syncs again", |_| stripe.page_requests() > before).await;
    until_shown(&|since| since == 0.0).await;

    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get("/config").await.0, 404);
    let (_, metrics) = get("/metrics").await;
    for (line, least) in [
        ("scimtail_syncs_total{account=\"up-stripe\",status=\"completed\"}", 2.0),
        ("scimtail_syncs_total{account=\"down\",status=\"failed\"}", 1.0),
        (&*format!("scimtail_events_total{{account=\"up-chargebee\",event_type=\"{change}\"}}"), 1.0),
        ("scimtail_principals{account=\"up-stripe\",kind=\"user\"}", 1.0),
        ("scimtail_memberships{account=\"up-chargebee\"}", 1.0),
        ("scimtail_requests_total{account=\"up-stripe\",outcome=\"2xx\"}", 2.0),
        ("scimtail_requests_total{account=\"down\",outcome=\"none\"}", 1.0),
        ("scimtail_sync_duration_seconds_count{account=\"up-stripe\",status=\"completed\"}", 2.0),
        ("scimtail_sync_duration_seconds_bucket{account=\"down\",status=\"failed\",le=\"14400\"}", 1.0),
        ("scimtail_walk_duration_seconds_count{account=\"up-stripe\",kind=\"user\"}", 2.0),
        ("scimtail_walk_duration_seconds_count{account=\"up-chargebee\",kind=\"group\"}", 2.0),
        ("scimtail_transaction_duration_seconds_count", 4.0),
        ("scimtail_restore_duration_seconds_count", 1.0),
        ("process_resident_memory_bytes", 1_000_000.0),
        ("process_open_fds", 10.0),
        ("process_start_time_seconds", 1_700_000_000.0),
        ("scimtail_last_completed_sync_timestamp_seconds{account=\"up-stripe\"}", 1_700_000_000.0),
        ("scimtail_transactions_total{outcome=\"committed\"}", 4.0),
        ("scimtail_shards_owned", 1.0),
        ("scimtail_account_owned{account=\"down\"}", 1.0),
        ("scimtail_account_interval_seconds{account=\"down\"}", 1.0),
    ] {
        let value = metrics.lines().find_map(|other| other.strip_prefix(line)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= least), "{line}: {metrics}");
    }
    // A counter that is not there before its first increase hides it from Prometheus.
    assert!(metrics.contains("scimtail_principals_reduced_total{account=\"up-stripe\"} 0\n"), "{metrics}");
    assert!(metrics.contains("scimtail_requests_total{account=\"up-stripe\",outcome=\"broken\"} 0\n"), "{metrics}");
    assert!(metrics.contains("scimtail_walk_duration_seconds_count{account=\"down\",kind=\"user\"} 0\n"), "{metrics}");
    let build = format!("scimtail_build_info{{version=\"{}\",commit=", env!("CARGO_PKG_VERSION"));
    assert!(metrics.contains(&build) && metrics.contains(",librdkafka=\"2."), "{metrics}");
    assert!(metrics.contains("scimtail_account_needs_person{account=\"up-stripe\",reason=\"held\"} 0\n"), "{metrics}");
    assert!(!metrics.contains("scimtail_last_completed_sync_timestamp_seconds{account=\"down\"}"), "{metrics}");

    signal(&service, "TERM");
    let status = ended_within(&mut service, STOP_WAIT).expect("the service ends within 10 s");
    assert_eq!(status.code(), Some(0));
    let logs = logs.join().expect("the log was read");
    assert!(logs.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "every line is JSON");
    assert!(logs.contains("sync completed") && logs.contains("sync failed"));
    // G9: no credential and no attribute of a person in any log.
    let name = &chargebee.users()[0].user_name;
    for text in [&logs, &metrics] {
        assert!(!text.contains("canary"), "the token is in the log or the metrics");
        assert!(!text.contains(name.as_str()), "a person's name is in the log or the metrics");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_is_said_before_anything_is_owned() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("its address").to_string();
    for (listen, reason) in [(listen.as_str(), "address in use"), ("localhost:9464", "→ listen = \"127.0.0.1:9464\"")]
    {
        let text = format!(
            "[kafka]\nbrokers = [\"localhost:1\"]\n[registry]\nurl = \"http://localhost:1\"\n[http]\nlisten = \"{listen}\"\n\
             [[account]]\nname = \"acme\"\nprovider = \"generic\"\nbase_url = \"https://acme.example\"\ntoken_env = \"SCIM_TOKEN\"\n"
        );
        let program = Program::with_text(&unique_prefix("listen"), TOKEN, &text);
        program.run(&["run"]).await.refused(78, &[listen, reason]);
    }
}

/// Answers paths that begin with `/401` and `/403` so; the counts of each.
async fn refusing() -> (String, Arc<[AtomicUsize; 2]>) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = counts.clone();
    let answer = move |uri: axum::http::Uri| async move {
        let forbidden = uri.path().starts_with("/403");
        counted[usize::from(forbidden)].fetch_add(1, Ordering::Relaxed);
        if forbidden { axum::http::StatusCode::FORBIDDEN } else { axum::http::StatusCode::UNAUTHORIZED }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    (format!("http://{address}"), counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_stop_their_account_alone_and_are_not_tried_in_a_loop() {
    let chargebee = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 4, SystemTime::now).await.expect("a directory");
    let (vendor, counts) = refusing().await;
    let account = |name, base_url| AccountText { name, provider: "generic", base_url, more: "" };
    let program = Program::new(
        services(),
        &unique_prefix("refused"),
        TOKEN,
        "1s",
        &[
            account("unauthorized", format!("{vendor}/401/scim/v2")),
            account("forbidden", format!("{vendor}/403/scim/v2")),
            AccountText { name: "up", provider: "chargebee", base_url: chargebee.base_url(), more: "" },
        ],
    );
    assert_eq!(program.run(&["topics", "--create"]).await.code, 0);
    let mut service = program.spawn(&["run"]);
    until(&program, "the refused fail, the other goes on", |records| {
        ["unauthorized", "forbidden"].iter().all(|account| count(records, account, "failed") >= 3)
            && count(records, "up", "completed") >= 3
    })
    .await;
    signal(&service, "TERM");
    assert_eq!(ended_within(&mut service, STOP_WAIT).expect("the service ends within 10 s").code(), Some(0));

    let records = read(services(), &[program.topic("syncs")]).await;
    for (account, status, requests) in
        [("unauthorized", "Users: 401: ", &counts[0]), ("forbidden", "Users: 403: ", &counts[1])]
    {
        let key = format!("{account}/latest");
        let failed: Vec<&ReadRecord> = records.iter().filter(|record| record.key.as_deref() == Some(&key)).collect();
        for record in &failed {
            assert_eq!(
                (&record.value["status"], &record.value["reason_code"]),
                (&"failed".into(), &"credentials_refused".into())
            );
            assert!(record.value["reason"].as_str().expect("a reason").starts_with(status), "{record:?}");
        }
        let started = |record: &ReadRecord| record.value["started_at"].as_i64().expect("a time");
        for pair in failed.windows(2) {
            // The shortest wait after a failure is a second, give or take a tenth.
            assert!(started(pair[1]) - started(pair[0]) >= 900, "a loop: {pair:?}");
        }
        // Users and groups, each once a sync; the last sync may have been cut off.
        assert!(requests.load(Ordering::Relaxed) <= 2 * (failed.len() + 1), "{requests:?} for {} syncs", failed.len());
    }
}

/// G9: neither the token nor an attribute outside the list is anywhere in Kafka.
#[tokio::test(flavor = "multi_thread")]
async fn g9_credentials_and_unlisted_attributes_leave_the_process_nowhere() {
    let chargebee = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 3, SystemTime::now).await.expect("a directory");
    let account = AccountText {
        name: "acme",
        provider: "chargebee",
        base_url: chargebee.base_url(),
        more: "attributes = [\"userName\"]\nbaseline = \"events\"",
    };
    let program = Program::new(services(), &unique_prefix("secrets"), TOKEN, "5m", &[account]);
    let ended = program.run(&["--log-level", "trace", "run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let wrong = program.command(&["run", "--once"]).env(crate::program::TOKEN_VARIABLE, "wrong-canary").output();
    let wrong = crate::program::Ended::from(wrong.expect("the program runs"));
    assert_eq!(wrong.code, 78, "{wrong:?}");
    let topics = ["events", "users", "groups", "memberships", "syncs"].map(|suffix| program.topic(suffix));
    let records = read(services(), &topics).await;
    assert!(records.len() > 100);
    let everything = format!("{records:?}{ended:?}{wrong:?}");
    assert!(!everything.contains("canary"), "a token got out");
    assert!(everything.contains(&chargebee.users()[0].user_name), "the listed attribute is there");
    assert!(!everything.contains(&chargebee.users()[0].display_name), "an unlisted attribute got out");
}

/// The comparable part of a user or group in a Chargebee-like directory: everything that changes, and userName.
const CHANGING: [&str; 5] = ["userName", "displayName", "title", "userType", "active"];

/// The resources of an account's directory as it serves them, as facts: the changing part of each, and the members of
/// each group.
async fn truth(directory: &SimulatedDirectory) -> Facts {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut facts = Facts::new();
    for endpoint in ["Users", "Groups"] {
        let mut read = 0;
        loop {
            let url = format!("{}/{endpoint}?startIndex={}", directory.base_url(), read + 1);
            let answer = client.get(url).bearer_auth(TOKEN).send().await.expect("the directory answers");
            let page: serde_json::Value = answer.json().await.expect("a page");
            let resources = page["Resources"].as_array().expect("a list");
            if resources.is_empty() {
                break;
            }
            read += resources.len();
            for resource in resources {
                let key = format!("acme/{endpoint}/{}", resource["id"].as_str().expect("an id"));
                let shown =
                    CHANGING.iter().filter_map(|name| Some(((*name).to_owned(), resource.get(name)?.to_string())));
                facts.insert(key, shown.collect());
            }
        }
    }
    for group in directory.groups() {
        for member in &group.members {
            facts.insert(format!("acme/Users/{member}/Groups/{}", group.id), Default::default());
        }
    }
    facts
}

/// Of the facts, the part that [`truth`] knows.
fn changing(mut facts: Facts) -> Facts {
    for attributes in facts.values_mut() {
        attributes.retain(|name, _| CHANGING.contains(&name.as_str()));
    }
    facts
}

fn events(records: &[ReadRecord]) -> Vec<&ReadRecord> {
    records.iter().filter(|record| record.topic.ends_with(".events")).collect()
}

/// G1 when it is the broker that dies: SIGKILL, restart, and the events are exactly the differences.
#[tokio::test(flavor = "multi_thread")]
async fn g1_a_broker_killed_and_restarted_loses_and_doubles_nothing() {
    /// Number of changes at a time: enough for attributes and memberships to be among them.
    const CHANGES: usize = 5;
    const NONE: [&str; 0] = [];
    let mut extra = broker();
    let services = Services { bootstrap: extra.bootstrap.clone(), registry: services().registry.clone() };
    let directory = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 9, SystemTime::now).await.expect("a directory");
    let account = AccountText { name: "acme", provider: "chargebee", base_url: directory.base_url(), more: "" };
    let program = Program::new(&services, &unique_prefix("broker"), TOKEN, "1s", &[account]);
    assert_eq!(program.run(&["topics", "--create"]).await.code, 0);
    let mut service = program.spawn(&["run"]);
    let completed = |records: &[ReadRecord]| count(records, "acme", "completed") >= 1;
    let records = until_on(&services, &program, "the baseline is there", completed).await;
    let baseline = stated(&records, &program.prefix);
    assert_eq!(differences(&changing(baseline.clone()), &truth(&directory).await), NONE);
    assert!(events(&records).is_empty());

    let mut made = Vec::new();
    for _ in 0..2 {
        made.extend((0..CHANGES).map(|_| directory.change()));
        extra.kill();
        made.extend((0..CHANGES).map(|_| directory.change()));
        extra.restart();
        let truth = truth(&directory).await;
        let arrived = |records: &[ReadRecord]| changing(stated(records, &program.prefix)) == truth;
        until_on(&services, &program, "the state follows after the restart", arrived).await;
    }
    signal(&service, "TERM");
    let status = ended_within(&mut service, STOP_WAIT).expect("the service ends within 10 s");
    assert_eq!(status.code(), Some(0));
    println!("changed: {}", made.join(", "));

    let topics = TOPICS.map(|suffix| program.topic(suffix));
    let records = read(&services, &topics).await;
    let published = events(&records);
    for (index, event) in published.iter().enumerate() {
        assert_eq!(event.value["sequence"], serde_json::json!(index + 1), "gapless, none twice");
    }
    let state = stated(&records, &program.prefix);
    assert!(!differences(&state, &baseline).is_empty(), "something changed");
    // Each event is a difference from the state before it, and together they are all differences.
    assert_eq!(differences(&folded(baseline, &published), &state), NONE);
    assert_eq!(differences(&changing(state.clone()), &truth(&directory).await), NONE);

    // A last sync finds no difference.
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    let after = read(&services, &topics).await;
    assert_eq!(events(&after), published);
    assert_eq!(differences(&stated(&after, &program.prefix), &state), NONE);
}
