//! Requests on `control` that no record can hold: they are cut or passed over, and never end the work of an account.

use std::sync::atomic::Ordering;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use scimtail::avro::Codec;
use scimtail::avro::wire::ControlRequest;
use scimtail::control::{self, Request, TEXT_BYTES_MAX};
use scimtail::directory::{Known, SyncStatus};
use scimtail::kafka::sender::send_one;
use scimtail::log::{Batch, CommitError, Ended, Log, Positions};
use scimtail::sync::OwnedAccount;
use serde_json::{Value, json};

use crate::memory::{Crash, IDS, MemoryDirectory, MemoryLog, World, account, clock};
use crate::outcomes;
use crate::program::await_line;
use crate::services::services;

const CODEC: Codec = Codec { ids: IDS };

fn pause(by: &str, reason: &str) -> ControlRequest {
    ControlRequest {
        account: "acme".to_owned(),
        action: "pause".to_owned(),
        requested_by: by.to_owned(),
        requested_at: 1,
        reason: Some(reason.to_owned()),
        ..ControlRequest::default()
    }
}

/// As Kafka does: a log that aborts what holds a larger record.
struct Bounded<'l> {
    log: &'l MemoryLog,
    bytes: usize,
}

impl Log for Bounded<'_> {
    async fn commit(&self, batch: Batch) -> Result<Positions, CommitError> {
        let marker = (batch.closing)(&Positions::new()).expect("the closing records encode");
        if marker.iter().chain(&batch.records).any(|record| record.len() > self.bytes) {
            return Err(CommitError::Aborted("a record is larger than Kafka takes".to_owned()));
        }
        self.log.commit(batch).await
    }
}

/// An account with one user, synced once.
async fn synced() -> (World, MemoryDirectory) {
    let mut world = World::new(account("acme"));
    let directory = MemoryDirectory::parse("user u1 ann");
    world.completed(&directory).await;
    (world, directory)
}

/// Carries out the request at the next offset, where records of more than `bytes` are refused.
async fn carry_out(world: &mut World, content: ControlRequest, bytes: usize) -> Result<bool, Ended> {
    let offset = latest(&world.known).control_offset;
    let (account, known) = (world.account.clone(), std::mem::take(&mut world.known));
    let log = Bounded { log: &world.log, bytes };
    let mut owned = OwnedAccount { account, known, log, codec: CODEC, clock };
    let carried_out = control::carry_out(&mut owned, &Request::read(offset, content)).await;
    world.known = owned.known;
    carried_out
}

fn latest(known: &Known) -> &SyncStatus {
    known.latest.as_ref().expect("it was synced")
}

/// Bytes of the account's newest record.
fn record_bytes(world: &World) -> usize {
    world.log.records.lock().unwrap().last().expect("a record").len()
}

#[tokio::test]
async fn a_huge_request_takes_effect_with_its_texts_cut() {
    let (mut world, _) = synced().await;
    let long = "x".repeat(600_000);
    assert_eq!(carry_out(&mut world, pause(&long, &long), 1_000_000).await, Ok(false));
    let pause = latest(&world.known).pause.clone().expect("it is paused");
    assert_eq!((pause.by.as_str(), pause.reason.as_deref()), (&long[..TEXT_BYTES_MAX], Some(&long[..TEXT_BYTES_MAX])));
    world.assert_known_is_the_log();
    let resume = ControlRequest { action: "resume".to_owned(), ..self::pause(&long, &long) };
    assert_eq!(carry_out(&mut world, resume, 1_000_000).await, Ok(true), "a sync is due");
    assert_eq!(latest(&world.known).pause, None);
}

#[tokio::test]
async fn a_request_that_cannot_be_recorded_is_passed_over_and_the_account_goes_on() {
    let (mut world, directory) = synced().await;
    let before = latest(&world.known).clone();
    let (bytes, long) = (record_bytes(&world) + 100, "x".repeat(200));
    assert_eq!(carry_out(&mut world, pause("ann", &long), bytes).await, Ok(false));
    let passed = SyncStatus { control_offset: before.control_offset + 1, ..before };
    assert_eq!(latest(&world.known), &passed, "only the offset is recorded");
    world.assert_known_is_the_log();
    let sync = ControlRequest { action: "poll".to_owned(), ..pause("ann", &long) };
    assert_eq!(carry_out(&mut world, sync, bytes).await, Ok(true), "the next one takes effect");
    assert_eq!(carry_out(&mut world, pause("ann", "short"), bytes).await, Ok(false));
    assert!(latest(&world.known).pause.is_some());
    world.restart();
    world.completed(&directory).await;
}

#[tokio::test]
async fn where_not_even_the_offset_can_be_recorded_the_acquisition_ends() {
    let (mut world, _) = synced().await;
    let before = latest(&world.known).clone();
    let ended = carry_out(&mut world, pause("ann", "why"), 10).await.expect_err("nothing can be written");
    assert!(!ended.is_fenced() && ended.reason.contains("larger than Kafka takes"), "{ended}");
    assert_eq!(latest(&world.known), &before);
    world.assert_known_is_the_log();
}

#[tokio::test]
async fn a_request_whose_record_may_or_may_not_be_written_is_left_to_the_next_owner() {
    let (mut world, _) = synced().await;
    let commits = world.log.commits.load(Ordering::Relaxed);
    for crash in [Crash::Before(commits), Crash::After(commits + 1)] {
        *world.log.crash.lock().unwrap() = Some(crash);
        let ended = carry_out(&mut world, pause("ann", "why"), 1_000_000).await.expect_err("it ends");
        assert_eq!(ended.reason, "crashed on purpose");
        assert_eq!(latest(&world.known).pause, None, "memory follows the log");
    }
    world.restart();
    assert!(latest(&world.known).pause.is_some(), "the second one was written");
}

/// The newest record of the account.
async fn newest(world: &outcomes::World) -> Value {
    let records = world.committed("syncs").await;
    let newest = records.iter().rfind(|record| record.key.as_deref() == Some("acme/latest"));
    newest.map_or(Value::Null, |record| record.value.clone())
}

async fn until(world: &outcomes::World, what: &str, done: impl Fn(&Value) -> bool) {
    let wait = async { while !done(&newest(world).await) {} };
    tokio::time::timeout(std::time::Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

/// Makes the topic of the account's record refuse larger messages. Other settings get the broker's default.
async fn take_at_most(world: &outcomes::World, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> =
        world.shared.kafka.config(&[]).expect("no secrets").create().expect("an admin client");
    let topic = world.program.topic("syncs");
    let altered = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set("cleanup.policy", "compact")
        .set("max.message.bytes", bytes);
    let results = admin.alter_configs([&altered], &AdminOptions::new()).await.expect("the broker answers");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// The longest text that is kept, different for every `seed`; compression hardly makes it shorter.
fn random(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.alphanumeric()).take(TEXT_BYTES_MAX).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_stops_a_service_or_a_run_whatever_its_size() {
    /// Of a message, above what the account's record takes by itself.
    const BYTES: &str = "2000";
    let world = outcomes::World::on(services(), services(), "requests", 1).await;
    let ask = |by: &str, reason: &str| {
        let record = world.shared.codec.encode_control_request(&pause(by, reason)).expect("a record");
        let kafka = world.shared.kafka.clone();
        tokio::task::spawn_blocking(move || send_one(&kafka, 0, &record).expect("it is written"))
    };
    let mut service = world.program.spawn(&["run"]);
    until(&world, "the baseline", |newest| newest["status"] == "completed").await;

    // Kafka takes it; beside everything else in the account's record it would take it no longer.
    ask("somebody", &"x".repeat(999_800)).await.expect("the task ends");
    until(&world, "it is paused", |newest| newest["pause_reason"] == json!("x".repeat(TEXT_BYTES_MAX))).await;
    assert_eq!(world.program.run(&["resume", "acme"]).await.code, 0);
    until(&world, "it goes on", |newest| newest["paused_by"].is_null() && newest["status"] == "completed").await;

    take_at_most(&world, BYTES).await;
    ask(&random(1), &random(2)).await.expect("the task ends");
    let line = await_line(&mut service, "skipped");
    assert!(line.contains("a control request is skipped: it cannot be recorded"), "{line}");
    let sync = newest(&world).await["sync"].as_i64().expect("a number");
    until(&world, "it still goes on", |newest| newest["sync"].as_i64() > Some(sync + 1)).await;
    assert!(newest(&world).await["paused_by"].is_null());
    service.kill().expect("it is killed");
    service.wait().expect("it ended");

    ask(&random(1), &random(2)).await.expect("the task ends");
    let once = world.program.run(&["run", "--once"]).await;
    assert!(once.code == 0 && once.err.contains("a control request is skipped"), "{once:?}");
    let again = world.program.run(&["run", "--once"]).await;
    assert!(again.code == 0 && !again.err.contains("skipped"), "once is enough: {again:?}");
}

/// A pause that is requested is carried out; one that would not be is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_a_record_cannot_be_paused_and_one_with_a_record_is() {
    let world = outcomes::World::on(services(), services(), "early", 1).await;
    assert_eq!(world.program.run(&["topics", "--create"]).await.code, 0);
    let early = world.program.run(&["pause", "acme"]).await;
    early.refused(1, &["acme has no record yet", "nothing is paused; → start `run`"]);
    assert_eq!(world.program.run(&["run", "--once"]).await.code, 0);
    assert_eq!(world.program.run(&["pause", "acme"]).await.code, 0);
    let paused = world.program.run(&["run", "--once"]).await;
    assert!(paused.code == 75 && paused.out.contains("paused"), "{paused:?}");
}

#[tokio::test]
async fn texts_that_would_be_cut_are_refused_where_they_are_written() {
    let text = "[kafka]\nbrokers = [\"localhost:1\"]\n[registry]\nurl = \"http://localhost:1\"\n[[account]]\nname = \"acme\"\n\
                provider = \"generic\"\nbase_url = \"https://acme.example\"\ntoken_env = \"SCIM_TOKEN\"\n";
    let program = crate::program::Program::with_text("requests", "requests-test-token", text);
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    for command in ["pause", "resume", "poll", "release", "reseed"] {
        for option in ["--by", "--reason"] {
            let ended = program.run(&[command, "acme", option, &long]).await;
            ended.refused(2, &[&format!("{option} is longer than 1024 bytes; → shorten it")]);
        }
    }
    program.run(&["retire", "gone", "--reason", &long]).await.refused(2, &["--reason is longer than 1024 bytes"]);
    program.run(&["pause", "acme", "--reason", &long[1..]]).await.refused(69, &["localhost:1"]);
}
