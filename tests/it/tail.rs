//! `scimtail tail` against real services: where it starts, what it prints, and which records it steps over.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use axum::routing::get;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use scimtail::kafka::partition::partition_of;
use serde_json::{Value, json};

use crate::meddling;
use crate::program::{AccountText, Ended, Program};
use crate::services::{Services, broker, services, unique_prefix};
use crate::tls::write;

const TOKEN: &str = "tail-test-token";
const PARTITIONS: i32 = 2;
/// Bound on the wait for something that must happen.
const WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// A `tail` of nearly nothing takes a second; one that goes on so long waits for something.
const STILL_WAITING: Duration = Duration::from_secs(4);

/// `tail` while it runs; it ends with its test.
struct Following {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Following {
    fn start(program: &Program, arguments: &[&str]) -> Following {
        let mut child = program.spawn(&[&["tail"], arguments].concat());
        let out = lines(child.stdout.take().expect("its output"));
        let err = lines(child.stderr.take().expect("its errors"));
        Following { child, out, err }
    }

    fn prints(&self) -> String {
        self.out.recv_timeout(WAIT).expect("a line on standard output")
    }

    /// The next line, after the one that says what is read.
    fn says(&self) -> String {
        let next = || self.err.recv_timeout(WAIT).expect("a line on standard error");
        let line = next();
        if line.starts_with("reading ") { next() } else { line }
    }

    /// Its output until it ends by itself.
    fn ended(mut self) -> Ended {
        let rest = |lines: &Receiver<String>| {
            let mut all = String::new();
            loop {
                match lines.recv_timeout(WAIT) {
                    Ok(line) => all = all + &line + "\n",
                    Err(RecvTimeoutError::Disconnected) => return all,
                    Err(RecvTimeoutError::Timeout) => panic!("it does not end; so far: {all}"),
                }
            }
        };
        let (out, err) = (rest(&self.out), rest(&self.err));
        Ended { code: self.child.wait().expect("it ended").code().unwrap_or(-1), out, err }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

/// An account whose directory is never asked.
fn acme() -> AccountText {
    let base_url = "http://127.0.0.1:1/scim/v2".to_owned();
    AccountText { name: "acme", provider: "chargebee", base_url, more: "" }
}

fn nowhere() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    format!("127.0.0.1:{port}")
}

/// Two accounts: one whose first sync published its baseline as events, and one without any.
async fn published() -> (SimulatedDirectory, Program) {
    published_on(services()).await
}

async fn published_on(services: &Services) -> (SimulatedDirectory, Program) {
    let directory = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 7, SystemTime::now).await.expect("a directory");
    let account = |name, more| AccountText { name, provider: "chargebee", base_url: directory.base_url(), more };
    let accounts = [account("acme", "baseline = \"events\""), account("other", "")];
    let program = Program::new(services, &unique_prefix("tail"), TOKEN, "5m", &accounts);
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    (directory, program)
}

/// Standard error without its first line, which says what is read.
fn said(ended: &Ended) -> String {
    let (first, rest) = ended.err.split_once('\n').expect("a line");
    assert!(first.starts_with("reading ") && first.ends_with("; times are UTC"), "{ended:?}");
    rest.to_owned()
}

/// How many events there are.
async fn count(program: &Program) -> usize {
    let ended = program.run(&["tail", "--from", "beginning", "--exit"]).await;
    assert_eq!((ended.code, said(&ended).as_str()), (0, ""));
    ended.out.lines().count()
}

/// One more event, at least.
async fn publish_more(directory: &SimulatedDirectory, program: &Program) {
    while directory.change() != "user.added" {}
    let ended = program.run(&["run", "--once", "--account", "acme"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

fn write_garbage(program: &Program) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &services().bootstrap).create().expect("a producer");
    let topic = program.topic("events");
    let record = BaseRecord::to(&topic).key("acme").payload("no event").partition(partition_of("acme", PARTITIONS));
    producer.send(record).map_err(|(error, _)| error).expect("it is queued");
    producer.flush(Duration::from_secs(30)).expect("it is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_starts_where_it_is_told_and_prints_every_format() {
    let (directory, program) = published().await;
    let all = program.run(&["tail", "--from", "beginning", "--exit", "--format", "json"]).await;
    let events: Vec<Value> = all.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let count = events.len();
    assert!(all.code == 0 && count > 50 && said(&all).is_empty(), "{all:?}");
    assert!(all.err.contains(&format!("{} of acme, other, from the oldest event on", program.topic("events"))));
    assert!(events.iter().enumerate().all(|(index, event)| event["sequence"] == index + 1));

    let lines = async |arguments: &[&str]| {
        let ended = program.run(&[&["tail", "--exit"], arguments].concat()).await;
        assert_eq!((ended.code, said(&ended).as_str()), (0, ""), "{arguments:?}");
        ended.out.lines().count()
    };
    assert_eq!(lines(&["--from-beginning"]).await, count);
    assert_eq!(lines(&["--from", "1h"]).await, count);
    assert_eq!(lines(&["--from", "2020-01-01T00:00:00Z"]).await, count);
    assert_eq!(lines(&["--from", "2120-01-01T00:00:00Z"]).await, 0);
    assert_eq!(lines(&["--from", "end"]).await, 0);
    assert_eq!(lines(&[]).await, 0);
    let last_five = (count - 4).to_string();
    assert_eq!(lines(&["--from-sequence", &last_five, "--account", "acme"]).await, 5);
    assert_eq!(lines(&["--from", "beginning", "--account", "other"]).await, 0);
    for format in ["ocsf", "ecs", "cim", "asim", "set"] {
        assert_eq!(lines(&["--from", "beginning", "--format", format]).await, count, "{format}");
    }

    // A time between two syncs; `tail` prints the events after it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let between = jiff::Timestamp::now().to_string();
    tokio::time::sleep(Duration::from_millis(50)).await;
    publish_more(&directory, &program).await;
    let since = program.run(&["tail", "--from", &between, "--exit", "--format", "json"]).await;
    let first: Value = serde_json::from_str(since.out.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["sequence"], Value::from(count + 1));
    assert!(since.out.contains("user.added") && !since.out.contains("\"snapshot\":true"), "{}", since.err);

    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/p256.pem");
    let signed = program.run(&["tail", "--from", &between, "--exit", "--format", "set", "--set-key", key]).await;
    assert_eq!(signed.out.lines().count(), since.out.lines().count());
    assert!(signed.out.lines().all(|token| token.split('.').count() == 3 && token.starts_with("eyJ")), "{signed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_steps_over_a_record_that_does_not_decode_and_names_it() {
    let (directory, program) = published().await;
    write_garbage(&program);
    publish_more(&directory, &program).await;
    let ended = program.run(&["tail", "--from", "beginning", "--exit"]).await;
    let said = said(&ended);
    assert_eq!((ended.code, said.lines().count()), (0, 1), "{}", ended.err);
    let place = format!("{} [{}] @ ", program.topic("events"), partition_of("acme", PARTITIONS));
    assert!(said.starts_with(&place) && said.contains("skipped"), "{said}");
    let news = ended.out.lines().any(|line| line.contains("user.added") && !line.ends_with("(baseline)"));
    assert!(news, "reading goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_tail_quietly() {
    let (_directory, program) = published().await;
    // More than a pipe holds: it is still writing when the reader goes.
    let all = ["tail", "--from", "beginning", "--format", "ocsf"];
    for arguments in [all.to_vec(), [all.as_slice(), &["--exit"]].concat()] {
        let mut child = program.spawn(&arguments);
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let ended = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            out.read_line(&mut line).expect("a line");
            drop(out);
            (line, child.wait_with_output().expect("it ends"))
        });
        let (line, output) = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("soon").expect("read");
        assert!(line.contains("acme"), "{line}");
        let ended = Ended::from(output);
        assert_eq!((ended.code, said(&ended).as_str()), (0, ""), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_refuses_in_one_line() {
    let text = "[kafka]\nbrokers = [\"localhost:1\"]\n[registry]\nurl = \"http://localhost:1\"\n\
        [[account]]\nname = \"acme\"\nprovider = \"stripe\"\ntoken_env = \"SCIMTAIL_TEST_TOKEN\"\n\
        [[account]]\nname = \"other\"\nprovider = \"stripe\"\ntoken_env = \"SCIMTAIL_TEST_TOKEN\"\n";
    let program = Program::with_text("none", TOKEN, text);
    write(program.file().parent().expect("a folder"), "key.pem", "no key");
    let pipe = program.file().with_file_name("pipe");
    let made = std::process::Command::new("mkfifo").arg(pipe).status().expect("every Unix system has mkfifo");
    assert!(made.success());
    for (arguments, code, words) in [
        (vec!["--account", "acmee"], 78, vec!["no account `acmee`", "did you mean `acme`"]),
        (vec!["--from-sequence", "5"], 2, vec!["one account", "→ add --account"]),
        (vec!["--set-key", "key.pem"], 2, vec!["→ add --format set"]),
        (
            vec!["--format", "set", "--set-key", "absent.pem"],
            78,
            vec![
                "the file that --set-key names cannot be read (entity not found)",
                "→ --set-key takes the PATH of a file",
            ],
        ),
        (
            vec!["--format", "set", "--set-key", "/dev/zero"],
            78,
            vec!["secret file /dev/zero is larger than 65536 bytes, which is not the private key"],
        ),
        (vec!["--format", "set", "--set-key", "/tmp"], 78, vec!["secret file /tmp cannot be read (is a directory)"]),
        // No process writes to it.
        (vec!["--format", "set", "--set-key", "pipe"], 78, vec!["secret file pipe is not a private key", "→ use PEM"]),
        (vec!["--format", "set", "--set-key", "key.pem"], 78, vec!["key.pem is not a private key", "→ use PEM"]),
    ] {
        program.run(&[&["tail"], arguments.as_slice()].concat()).await.refused(code, &words);
    }
    for (arguments, words) in [
        (["--format", "cef"], ["'cef'", "text, json, ocsf, ecs, cim, asim, set"]),
        (["--from", "yesterday"], ["'yesterday'", "neither `beginning` nor `end`"]),
        (["--from-sequence", "0"], ["'0'", "the first event has number 1"]),
        (["--from-sequence", "-3"], ["'-3'", "the first event has number 1"]),
        (["--from-sequence", "one"], ["'one'", "not a number"]),
    ] {
        program.run(&[&["tail"], arguments.as_slice()].concat()).await.refused(2, &words);
    }
    let help = program.run(&["tail", "--help"]).await;
    assert!(help.code == 0 && help.out.contains("--from-sequence <N>") && help.err.is_empty(), "{help:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_ends_with_an_error_where_the_topic_or_the_broker_is_missing_also_when_it_follows() {
    let absent = Program::new(services(), &unique_prefix("absent"), TOKEN, "5m", &[acme()]);
    let dead = Services { bootstrap: nowhere(), registry: services().registry.clone() };
    let dead = Program::new(&dead, "none", TOKEN, "5m", &[acme()]);
    // All at once: each takes its time to be sure.
    let (mut topics, mut brokers) = (Vec::new(), Vec::new());
    for arguments in
        [&["--from", "beginning", "--exit"][..], &["--exit"], &["--from", "beginning"], &["--from", "1h"], &[]]
    {
        topics.push(Following::start(&absent, arguments));
        brokers.push(Following::start(&dead, arguments));
    }
    let words = [&absent.topic("events"), "does not exist", "→ scimtail topics --create"];
    for tail in topics {
        let ended = tail.ended();
        Ended { err: said(&ended), ..ended }.refused(78, &words);
    }
    brokers.into_iter().for_each(|tail| tail.ended().refused(69, &["kafka", "connection refused", "→"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open_before_the_end_ends_tail_with_69_after_what_can_be_read() {
    let (_directory, program) = published().await;
    let count = count(&program).await;
    let id = unique_prefix("open");
    // Open for longer than a reader waits.
    let settings = [("transactional.id", id.as_str()), ("transaction.timeout.ms", "600000")];
    let producer = meddling::producer(&services().bootstrap, &settings);
    producer.init_transactions(WAIT).expect("a producer");
    producer.begin_transaction().expect("a transaction");
    meddling::enqueue(&producer, &program.topic("events"), partition_of("acme", PARTITIONS), Some("acme"), Some(b"-"));
    producer.flush(WAIT).expect("it is written");
    let ended = program.run(&["tail", "--from", "beginning", "--exit"]).await;
    producer.abort_transaction(WAIT).expect("the end of the transaction");
    assert_eq!((ended.code, ended.out.lines().count(), ended.err.lines().count()), (69, count, 2), "{}", ended.err);
    assert!(ended.err.contains("reading stands still") && ended.err.contains("open transaction"), "{}", ended.err);
}

/// Kafka answers a commit before every partition knows of it. A transaction that is open stands for that moment: events
/// that `run` has just published must not be passed over.
#[tokio::test(flavor = "multi_thread")]
async fn tail_from_a_time_waits_for_records_whose_commit_the_partition_does_not_know_yet() {
    let (_directory, program) = published().await;
    let from = jiff::Timestamp::now().to_string();
    let id = unique_prefix("late");
    let producer = meddling::producer(&services().bootstrap, &[("transactional.id", id.as_str())]);
    producer.init_transactions(WAIT).expect("a producer");
    producer.begin_transaction().expect("a transaction");
    meddling::enqueue(&producer, &program.topic("events"), partition_of("acme", PARTITIONS), Some("acme"), Some(b"-"));
    producer.flush(WAIT).expect("it is written");
    let tail = Following::start(&program, &["--from", &from, "--exit"]);
    assert_eq!(
        tail.out.recv_timeout(STILL_WAITING).err(),
        Some(RecvTimeoutError::Timeout),
        "it is over before the commit"
    );
    producer.commit_transaction(WAIT).expect("the end of the transaction");
    let ended = tail.ended();
    assert!(ended.code == 0 && said(&ended).contains("skipped"), "{ended:?}");
}

/// The registry behind a switch: while that is off, it says that it is there, and answers 503 to everything else.
async fn switched_registry() -> (String, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(false));
    let (client, switch) = (reqwest::Client::builder().no_proxy().build().expect("a client"), on.clone());
    let answer = move |uri: axum::http::Uri| {
        let (client, on) = (client.clone(), switch.load(Ordering::Relaxed));
        async move {
            if !on && uri.path() != "/subjects" {
                return (axum::http::StatusCode::SERVICE_UNAVAILABLE, String::new());
            }
            let answer = client.get(format!("{}{}", services().registry, uri.path())).send().await;
            (axum::http::StatusCode::OK, answer.expect("the registry answers").text().await.expect("a text"))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    (format!("http://{address}"), on)
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_waits_for_a_registry_that_does_not_answer_and_skips_nothing() {
    let (_directory, program) = published().await;
    let count = count(&program).await;
    let (registry, on) = switched_registry().await;
    let services = Services { bootstrap: services().bootstrap.clone(), registry };
    let switched = Program::new(&services, &program.prefix, TOKEN, "5m", &[acme()]);
    let exit = switched.run(&["tail", "--from", "beginning", "--exit"]).await;
    assert_eq!((exit.code, exit.out.as_str(), exit.err.lines().count()), (69, "", 2), "{exit:?}");
    let last = exit.err.lines().last().expect("an error");
    assert!(last.contains(&services.registry) && last.contains("503"), "{last}");

    let tail = Following::start(&switched, &["--from", "beginning", "--format", "json"]);
    let said = tail.says();
    assert!(said.contains("waits") && said.contains(&services.registry), "{said}");
    on.store(true, Ordering::Relaxed);
    for sequence in 1..=count {
        let event: Value = serde_json::from_str(&tail.prints()).expect("JSON");
        assert_eq!(event["sequence"], sequence);
    }
    assert_eq!(tail.err.try_recv().ok(), None, "it is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_an_event_that_comes_later() {
    let (directory, program) = published().await;
    let count = count(&program).await;
    let tail = Following::start(&program, &["--from", "beginning", "--format", "json"]);
    (0..count).for_each(|_| drop(tail.prints()));
    publish_more(&directory, &program).await;
    let event: Value = serde_json::from_str(&tail.prints()).expect("JSON");
    assert_eq!((&event["sequence"], &event["snapshot"]), (&json!(count + 1), &json!(false)));
    assert!(tail.err.recv_timeout(WAIT).expect("a line").starts_with("reading "));
    assert_eq!(tail.err.try_recv().ok(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_tail_though_no_event_comes() {
    let (_directory, program) = published().await;
    let count = count(&program).await;
    let mut child = program.spawn(&["tail", "--from", "beginning"]);
    let mut out = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert!(out.by_ref().take(count).all(|line| line.is_ok_and(|line| line.contains("acme"))));
    drop(out);
    let deadline = Instant::now() + WAIT;
    while child.try_wait().expect("its status").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it is there");
            panic!("it goes on without a reader");
        }
        tokio::time::sleep(POLL).await;
    }
    let ended = Ended::from(child.wait_with_output().expect("it ended"));
    assert_eq!((ended.code, said(&ended).as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_says_once_that_no_broker_answers_and_goes_on_when_one_does() {
    let mut broker = broker();
    let services = Services { bootstrap: broker.bootstrap.clone(), registry: services().registry.clone() };
    let (directory, program) = published_on(&services).await;
    let count = count(&program).await;
    let tail = Following::start(&program, &["--from", "beginning", "--format", "json"]);
    (0..count).for_each(|_| drop(tail.prints()));
    broker.kill();
    let said = tail.says();
    assert!(said.contains("no broker answers") && said.contains(&services.bootstrap), "{said}");
    broker.restart();
    let said = tail.says();
    assert!(said.contains("answers again"), "{said}");
    publish_more(&directory, &program).await;
    let event: Value = serde_json::from_str(&tail.prints()).expect("JSON");
    assert_eq!(event["sequence"], count + 1);
    assert_eq!(tail.err.try_recv().ok(), None, "each is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_kafka_keeps_no_longer_are_named_where_a_sequence_before_them_is_asked_for() {
    let (_directory, program) = published().await;
    let count = count(&program).await;
    let topic = program.topic("events");
    let partition = partition_of("acme", PARTITIONS);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &services().bootstrap).create().expect("a client");
    let (low, _) = admin.inner().fetch_watermarks(&topic, partition, WAIT).expect("watermarks");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, partition, Offset::Offset(low + 5)).expect("an offset");
    admin.delete_records(&before, &AdminOptions::new()).await.expect("the records are deleted");

    let lines = async |sequence: &str| {
        let from = ["tail", "--account", "acme", "--exit", "--from-sequence", sequence];
        let ended = program.run(&from).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        (ended.out.lines().count(), said(&ended))
    };
    let gone = "acme: the events before sequence 6 are no longer in Kafka\n".to_owned();
    assert_eq!(lines("1").await, (count - 5, gone.clone()));
    assert_eq!(lines("5").await, (count - 5, gone));
    assert_eq!(lines("6").await, (count - 5, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_has_colours_on_a_terminal_and_none_in_a_pipe() {
    let (_directory, program) = published().await;
    let piped = program.run(&["tail", "--from", "beginning", "--exit"]).await.out;
    assert!(piped.contains("acme") && !piped.contains('\u{1b}'), "{piped}");
    let no_color = [("NO_COLOR", "1")];
    for (arguments, variables, coloured) in
        [(&[][..], &[][..], true), (&[], &no_color, false), (&["--format", "json"], &[], false)]
    {
        let arguments = [&["tail", "--from", "beginning", "--exit"], arguments].concat();
        let (code, shown) = program.on_terminal(&arguments, 80, variables).await;
        assert!(code == 0 && shown.contains("acme") && shown.contains('\u{1b}') == coloured, "{shown}");
    }
}

/// A directory of one user, by this name.
async fn directory_of(name: &'static str) -> String {
    let list = |resources: Value| {
        let count = resources.as_array().map_or(0, Vec::len);
        axum::Json(json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": count, "startIndex": 1, "itemsPerPage": count, "Resources": resources,
        }))
    };
    let users = move || async move { list(json!([{ "id": "u1", "userName": name, "active": true }])) };
    let groups = move || async move { list(json!([])) };
    let router = axum::Router::new().route("/Users", get(users)).route("/Groups", get(groups));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_for_programs_keep_every_character_in_a_pipe() {
    let name = "a\u{7f}b\u{9b}31mc\u{1b}[31md";
    let base_url = directory_of(name).await;
    let account = AccountText { name: "acme", provider: "generic", base_url, more: "baseline = \"events\"" };
    let program = Program::new(services(), &unique_prefix("characters"), TOKEN, "5m", &[account]);
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines = async |format: &str| {
        let ended = program.run(&["tail", "--from", "beginning", "--exit", "--format", format]).await;
        assert_eq!((ended.code, ended.out.lines().count()), (0, 1), "{ended:?}");
        ended.out
    };
    let event: Value = serde_json::from_str(&lines("json").await).expect("JSON");
    assert_eq!(event["user"]["user_name"], name);
    // Security event tokens show no name of a user.
    for format in ["ocsf", "ecs", "cim", "asim"] {
        let line = lines(format).await;
        assert!(line.contains("a\u{7f}b\u{9b}31mc\\u001b[31md"), "{format}: {line}");
    }
    assert!(!lines("text").await.contains(['\u{7f}', '\u{1b}', '\u{9b}']), "what people read is clean");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_format_lets_a_name_act_on_a_terminal() {
    const ACTS: [char; 5] = ['\u{7f}', '\u{9b}', '\u{200b}', '\u{202e}', '\u{feff}'];
    let name = "山田\u{7f}\u{9b}\u{200b}\u{202e}\u{feff}";
    let account = AccountText {
        name: "acme",
        provider: "generic",
        base_url: directory_of(name).await,
        more: "baseline = \"events\"",
    };
    let program = Program::new(services(), &unique_prefix("acts"), TOKEN, "5m", &[account]);
    let plan: &[&str] = &["plan"];
    let plan_json: &[&str] = &["plan", "--format", "json"];
    let shown = async |arguments: &[&str]| {
        let (code, shown) = program.on_terminal(arguments, 80, &[("NO_COLOR", "1")]).await;
        assert!(code == 0 && shown.contains("山田") && !shown.contains(ACTS), "{arguments:?}: {shown:?}");
        shown
    };
    // Before the first sync: afterwards there is nothing to plan.
    for arguments in [plan, plan_json] {
        shown(arguments).await;
    }
    assert_eq!(program.run(&["run", "--once"]).await.code, 0);
    for format in ["text", "json", "ocsf", "ecs", "cim", "asim"] {
        shown(&["tail", "--from", "beginning", "--exit", "--format", format]).await;
    }
    for format in ["text", "csv"] {
        shown(&["state", "users", "--format", format]).await;
    }
    let (_, json) = program.on_terminal(&["state", "users", "--format", "json"], 80, &[]).await;
    let row = json.lines().find(|line| line.starts_with('{')).expect("a row");
    assert!(!row.contains(ACTS), "{row:?}");
    let row: Value = serde_json::from_str(row).expect("JSON");
    assert_eq!(row["user_name"], name, "the value stays what it is");
}
