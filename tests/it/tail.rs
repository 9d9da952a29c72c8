//! `scimtail tail` against real services: where it starts, what it prints, what it steps over.

use std::io::{BufRead, BufReader};
use std::time::{Duration, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use scimtail::kafka::partition::partition_of;
use serde_json::Value;

use crate::program::{AccountText, Program};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "tail-test-token";
const PARTITIONS: i32 = 2;

/// Two accounts: one whose first sync published its baseline as events, and one without any.
async fn published() -> (SimulatedDirectory, Program) {
    let directory = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 7, SystemTime::now).await.expect("a directory");
    let account = |name, more| AccountText { name, provider: "chargebee", base_url: directory.base_url(), more };
    let accounts = [account("acme", "baseline = \"events\""), account("other", "")];
    let program = Program::new(services(), &unique_prefix("tail"), TOKEN, "5m", &accounts);
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    (directory, program)
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
    assert!(all.code == 0 && count > 50 && all.err.is_empty(), "{all:?}");
    assert!(events.iter().enumerate().all(|(index, event)| event["sequence"] == index + 1));

    let lines = async |arguments: &[&str]| {
        let ended = program.run(&[&["tail", "--exit"], arguments].concat()).await;
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}");
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

    // A time between two syncs: what came after it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let between = jiff::Timestamp::now().to_string();
    tokio::time::sleep(Duration::from_millis(50)).await;
    while directory.change() != "user.added" {}
    assert_eq!(program.run(&["run", "--once", "--account", "acme"]).await.code, 0);
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
    while directory.change() != "user.added" {}
    assert_eq!(program.run(&["run", "--once", "--account", "acme"]).await.code, 0);
    let ended = program.run(&["tail", "--from", "beginning", "--exit"]).await;
    assert_eq!((ended.code, ended.err.lines().count()), (0, 1), "{}", ended.err);
    let place = format!("{} [{}] @ ", program.topic("events"), partition_of("acme", PARTITIONS));
    assert!(ended.err.starts_with(&place) && ended.err.contains("skipped"), "{}", ended.err);
    let news = ended.out.lines().any(|line| line.contains("user.added") && !line.ends_with("(baseline)"));
    assert!(news, "reading goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_tail_quietly() {
    let (_directory, program) = published().await;
    // More than a pipe holds, so that it is still writing when the reader goes.
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
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tail_cannot_do_is_said_in_one_line() {
    let text = "[kafka]\nbrokers = [\"localhost:1\"]\n[registry]\nurl = \"http://localhost:1\"\n\
        [[account]]\nname = \"acme\"\nprovider = \"stripe\"\ntoken_env = \"SCIMTAIL_TEST_TOKEN\"\n\
        [[account]]\nname = \"other\"\nprovider = \"stripe\"\ntoken_env = \"SCIMTAIL_TEST_TOKEN\"\n";
    let program = Program::with_text("none", TOKEN, text);
    std::fs::write(program.file().with_file_name("key.pem"), "no key").expect("a file");
    for (arguments, code, words) in [
        (vec!["--account", "acmee"], 78, vec!["no account `acmee`", "did you mean `acme`"]),
        (vec!["--from-sequence", "5"], 2, vec!["one account", "→ --account"]),
        (vec!["--set-key", "key.pem"], 2, vec!["→ --format set"]),
        (vec!["--format", "set", "--set-key", "absent.pem"], 78, vec!["absent.pem cannot be read"]),
        (vec!["--format", "set", "--set-key", "key.pem"], 78, vec!["key.pem is no private key", "→ PEM"]),
    ] {
        program.run(&[&["tail"], arguments.as_slice()].concat()).await.refused(code, &words);
    }
    for arguments in [["--format", "cef"], ["--from", "yesterday"]] {
        let ended = program.run(&[&["tail"], arguments.as_slice()].concat()).await;
        assert!(ended.code == 2 && ended.out.is_empty() && ended.err.contains(arguments[1]), "{ended:?}");
    }
}
