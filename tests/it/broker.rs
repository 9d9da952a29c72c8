//! Fencing, isolation, and SIGKILL in the middle of a sync: only a real broker shows them.

pub mod directory;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use scimtail::avro::{Codec, Registry};
use scimtail::config::{AccountConfig, Config, Secret};
use scimtail::connect::Connection;
use scimtail::directory::Status;
use scimtail::kafka::topics;
use scimtail::log::{EndKind, Ended, Topic};
use scimtail::schedule::now_millis;
use scimtail::shards::{Services as Shared, acquire, serve};

use self::directory::LargeDirectory;
use crate::program::{AccountText, Program};
use crate::reader::{compacted, read, read_stable};
use crate::services::{services, unique_prefix};

pub const TOKEN: &str = "broker-test-token";
/// Bound on the wait for something that must happen.
const WAIT: Duration = Duration::from_secs(60);
/// Half a second between the last acknowledgement of a transaction and its commit.
const OPEN_LONGER: &str = "commit.before=sleep(500)";

async fn program(directory: &LargeDirectory, test: &str) -> (Program, Shared, Arc<AccountConfig>) {
    program_on(directory, &unique_prefix(test)).await
}

/// The program on its topics, those that are missing created, and what its shards share.
pub async fn program_on(directory: &LargeDirectory, prefix: &str) -> (Program, Shared, Arc<AccountConfig>) {
    let account = AccountText { name: "acme", provider: "generic", base_url: directory.base_url(), more: "" };
    let program = Program::new(services(), prefix, TOKEN, "1s", &[account]);
    let text = std::fs::read_to_string(program.file()).expect("the file was written");
    let config = Config::parse("test", &text).expect("a configuration");
    topics::create(&config.kafka, 1).await.expect("topics");
    let registry = Registry::new(&config.registry.url).expect("a registry");
    let ids = registry.ids(&config.kafka.topic_prefix, true).await.expect("schemas");
    let shared = Shared {
        kafka: config.kafka.clone(),
        registry,
        codec: Codec { ids },
        clock: now_millis,
        progress: Default::default(),
    };
    let mut account = config.accounts[0].clone();
    Arc::make_mut(&mut account).secret = Secret::Given(TOKEN.to_owned().into());
    (program, shared, account)
}

/// An account on a small directory, for tests that own its shard themselves.
pub async fn shared_program(test: &str) -> (LargeDirectory, Program, Shared, Arc<AccountConfig>) {
    let directory = LargeDirectory::start(20, 2, 10, 20, TOKEN).await;
    let (program, shared, account) = program(&directory, test).await;
    (directory, program, shared, account)
}

/// Brokers list a new topic a moment before the leaders of its partitions serve it.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_creates_its_topics_succeeds_every_time() {
    const AT_ONCE: usize = 4;
    let directory = LargeDirectory::start(20, 2, 10, 20, TOKEN).await;
    let start = || async {
        let account = AccountText { name: "acme", provider: "generic", base_url: directory.base_url(), more: "" };
        let program = Program::new(services(), &unique_prefix("first-start"), TOKEN, "5m", &[account]);
        let ended = program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
    };
    for _ in 0..8 {
        futures::future::join_all((0..AT_ONCE).map(|_| start())).await;
    }
}

/// G1: SIGKILL in the middle of a sync of 20,000 changes; after a restart the committed events are exactly the
/// differences.
#[tokio::test(flavor = "multi_thread")]
async fn g1_sigkill_during_20_000_changes_loses_and_doubles_nothing() {
    const USERS: usize = 20_000;
    // Number of events that are committed, at least, when the process is killed; more of them are written by then.
    for least in [0, 1, 10_000] {
        let directory = LargeDirectory::start(USERS, 0, 0, 1_000, TOKEN).await;
        let (program, shared, config) = program(&directory, "sigkill").await;
        let ended = program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(directory.churn(1.0, 7), USERS);

        // Each transaction stays open for a moment, because its state must not change before the signal comes.
        let mut command = program.command(&["run", "--once"]);
        command.env("FAILPOINTS", OPEN_LONGER).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let (kafka, partition) = (shared.kafka.clone(), config.account.partition);
        let seen = tokio::task::spawn_blocking(move || {
            let topic = Topic::Events.name(&kafka.topic_prefix);
            let ends = ["read_committed", "read_uncommitted"].map(|isolation| {
                let reader = kafka.reader(isolation).expect("a reader");
                let topic = topic.clone();
                move || reader.fetch_watermarks(&topic, partition, WAIT).expect("the topic can be asked").1
            });
            let deadline = Instant::now() + WAIT;
            loop {
                let [committed, written] = [ends[0](), ends[1]()];
                if committed >= least && written > committed {
                    return (committed, written);
                }
                assert!(Instant::now() < deadline, "{committed} events of {written} were committed");
            }
        });
        let (stable, written) = seen.await.expect("the point was reached");
        child.kill().expect("SIGKILL");
        let status = child.wait().expect("the child ended");
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");

        let topics = ["events", "users", "syncs"].map(|suffix| program.topic(suffix));
        // Its transaction is still open.
        let before = read_stable(services(), &topics).await;
        let committed = before.iter().filter(|record| record.topic == topics[0]).count();
        println!("killed at offset {written}, stable up to {stable}; {committed} events committed");
        assert!(committed >= least as usize && committed < USERS, "not in the middle: {committed} events committed");

        let ended = program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        let records = read(services(), &topics).await;
        let events: Vec<_> = records.iter().filter(|record| record.topic == topics[0]).collect();
        assert_eq!(events.len(), USERS);
        let users: BTreeSet<&str> =
            events.iter().map(|event| event.value["principal_id"].as_str().expect("an id")).collect();
        assert_eq!(users.len(), USERS, "each user once");
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event.value["sequence"], serde_json::json!(index + 1));
            assert_eq!(event.value["event_type"], "user.updated");
        }
        let state = compacted(&records, &topics[1]);
        let titled = events.iter().filter(|event| {
            let key = event.key.as_deref().expect("a key");
            state[key].value["attributes"] == event.value["user"]["attributes"]
        });
        assert_eq!(titled.count(), USERS, "state is what the last event says");
    }
}

/// G5: a new owner of the shard fences every earlier owner, also in the middle of a sync.
#[tokio::test(flavor = "multi_thread")]
async fn g5_a_predecessor_cannot_commit_once_another_took_over() {
    let directory = LargeDirectory::start(50, 5, 100, 50, TOKEN).await;
    let (_program, shared, config) = program(&directory, "fencing").await;
    let partition = config.account.partition;
    let accounts = std::slice::from_ref(&config);
    let mut first = acquire(&shared, partition, accounts, |_| {}).await.expect("the shard");
    let known = first.known.remove("acme").expect("the account").expect("its state");
    let mut first = shared.owned(&config.account, known, &first.writer);
    let mut connection = Connection::new(&config, now_millis);
    let status = serve::sync_once(&mut first, &mut connection).await;
    assert_eq!(status.expect("the first owner commits").status, Status::Completed);

    let mut second = acquire(&shared, partition, accounts, |_| {}).await.expect("the shard again");
    let known = second.known.remove("acme").expect("the account").expect("its state");
    let mut second = shared.owned(&config.account, known, &second.writer);
    assert_eq!(second.known.state_digest(), first.known.state_digest(), "committed state is restored");
    directory.churn(0.1, 1);
    let late = serve::sync_once(&mut first, &mut connection).await;
    assert!(matches!(late, Err(Ended { kind: EndKind::Fenced, .. })), "{late:?}");
    let status = serve::sync_once(&mut second, &mut connection).await;
    assert_eq!(status.expect("the second owner commits").events_published(), 5);

    // A walk that outlived its acquisition: its batches are refused by number, before any broker is asked.
    second.known.acquisition -= 1;
    let stale = serve::sync_once(&mut second, &mut connection).await;
    assert!(
        matches!(&stale, Err(Ended { kind: EndKind::Failed, reason }) if reason.contains("another acquisition")),
        "{stale:?}"
    );
}
