//! Topics that no longer hold what was written: the account stops with a reason, and nothing is replayed silently.
//! `reseed` is the explicit way on. `retire` is the explicit way out.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use scimtail::failpoint::Point;
use scimtail::kafka::partition_of;
use serde_json::Value;

use crate::broker::directory::LargeDirectory;
use crate::meddling;
use crate::program::{AccountText, Ended, Program, await_line};
use crate::reader::{ReadRecord, compacted, read};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "reseed-test-token";
const PARTITIONS: i32 = 2;
const USERS: usize = 12;
const STATE: [&str; 3] = ["users", "groups", "memberships"];

/// Two accounts in one partition, synced twice, the second time with events.
async fn synced(test: &str) -> (LargeDirectory, Program) {
    assert_eq!(partition(), partition_of("other1", PARTITIONS), "neighbours");
    let directory = LargeDirectory::start(USERS, 2, 10, 5, TOKEN).await;
    let account = |name| AccountText { name, provider: "generic", base_url: directory.base_url(), more: "" };
    let accounts = [account("acme"), account("other1")];
    let program = Program::new(services(), &unique_prefix(test), TOKEN, "5m", &accounts);
    run(&program, 0).await;
    directory.churn(0.5, 1);
    run(&program, 0).await;
    (directory, program)
}

fn partition() -> i32 {
    partition_of("acme", PARTITIONS)
}

async fn run(program: &Program, code: i32) -> Ended {
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, code, "{ended:?}");
    ended
}

/// The line of an account.
fn line<'e>(ended: &'e Ended, account: &str) -> &'e str {
    ended.out.lines().find(|line| line.starts_with(account)).unwrap_or_else(|| panic!("{account}: {ended:?}"))
}

async fn records(program: &Program, suffix: &str) -> Vec<ReadRecord> {
    read(services(), &[program.topic(suffix)]).await
}

async fn state(program: &Program, suffix: &str, account: &str) -> BTreeMap<String, Value> {
    let records = records(program, suffix).await;
    let state = compacted(&records, &program.topic(suffix)).into_iter();
    let own = state.filter(|(key, _)| key.split('/').next() == Some(account));
    own.map(|(key, record)| (key, record.value["attributes"].clone())).collect()
}

/// Sequences of an account's events, in order.
async fn sequences(program: &Program, account: &str) -> Vec<i64> {
    let events = records(program, "events").await;
    let own = events.iter().filter(|event| event.value["account"] == account);
    own.map(|event| event.value["sequence"].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_stops_the_account_until_it_is_reseeded() {
    for suffix in STATE {
        let (directory, program) = synced("recreated").await;
        let before = state(&program, suffix, "acme").await;
        let published = sequences(&program, "acme").await;
        meddling::recreate(&services().bootstrap, &program.topic(suffix), PARTITIONS, "compact").await;

        let stopped = run(&program, 78).await;
        for account in ["acme", "other1"] {
            let line = line(&stopped, account);
            assert!(line.contains(&format!("{suffix} ends before what {account} wrote")), "{line}");
            assert!(line.contains(&format!("→ scimtail reseed {account}")), "{line}");
        }
        assert_eq!(records(&program, suffix).await.len(), 0, "nothing is replayed silently");

        let reseeded = program.run(&["reseed", "acme", "--by", "tester", "--reason", "a test"]).await;
        assert!(reseeded.code == 0 && reseeded.out.contains("acme: continues from the"), "{reseeded:?}");
        let still = program.run(&["run", "--once", "--account", "other1"]).await;
        assert!(still.code == 78 && line(&still, "other1").contains("stopped"), "a word for each account: {still:?}");
        assert_eq!(program.run(&["reseed", "other1"]).await.code, 0);
        directory.churn(0.25, 2);
        let ended = run(&program, 0).await;
        assert!(
            line(&ended, "acme").contains("repaired") && ended.out.contains("no user or group was removed"),
            "{ended:?}"
        );
        let after = state(&program, suffix, "acme").await;
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "all of it is back");

        // Events go on where they were: a lost user's change is not published, each other change is.
        directory.churn(0.25, 3);
        run(&program, 0).await;
        let sequences = sequences(&program, "acme").await;
        let expected = published.len() + if suffix == "users" { 3 } else { 6 };
        assert_eq!(sequences, (1..=expected as i64).collect::<Vec<_>>(), "{suffix}");
        let complete = program.run(&["state", "users", "--account", "acme"]).await;
        assert_eq!((complete.code, complete.out.lines().count()), (0, USERS + 1), "{complete:?}");
        let requests = records(&program, "control").await;
        assert_eq!(
            (&requests[0].value["action"], &requests[0].value["requested_by"]),
            (&"reseed".into(), &"tester".into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_events_topic_stops_the_account_and_a_reseed_goes_on_with_the_sequence() {
    let (directory, program) = synced("events").await;
    let published = sequences(&program, "acme").await.len() as i64;
    meddling::recreate(&services().bootstrap, &program.topic("events"), PARTITIONS, "delete").await;
    let stopped = run(&program, 78).await;
    assert!(line(&stopped, "acme").contains("events ends before"), "{stopped:?}");
    for account in ["acme", "other1"] {
        assert_eq!(program.run(&["reseed", account]).await.code, 0);
    }
    directory.churn(0.25, 2);
    let ended = run(&program, 0).await;
    assert!(line(&ended, "acme").contains("3 changes"), "{ended:?}");
    assert_eq!(sequences(&program, "acme").await, [published + 1, published + 2, published + 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_checkpoint_stops_the_account_and_a_reseed_numbers_on_beyond_everything() {
    let (directory, program) = synced("checkpoint").await;
    let before = sequences(&program, "acme").await;
    meddling::recreate(&services().bootstrap, &program.topic("syncs"), PARTITIONS, "compact").await;
    let stopped = run(&program, 78).await;
    assert!(line(&stopped, "acme").contains("the checkpoint of acme is lost"), "{stopped:?}");
    for account in ["acme", "other1"] {
        assert_eq!(program.run(&["reseed", account]).await.code, 0);
    }
    let again = program.run(&["reseed", "acme"]).await;
    assert!(again.code == 0 && again.out.contains("nothing to reseed"), "{again:?}");
    directory.churn(0.25, 2);
    let ended = run(&program, 0).await;
    // Known state stays known: the changes since are published, and are numbered on.
    assert!(line(&ended, "acme").contains("sync 3") && line(&ended, "acme").contains("3 changes"), "{ended:?}");
    let after = sequences(&program, "acme").await;
    assert_eq!(after, (1..=before.len() as i64 + 3).collect::<Vec<_>>());
    let ids = records(&program, "events").await;
    let mut ids: Vec<String> = ids.iter().map(|event| event.value["event_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), after.len() * 2, "two accounts, no id twice");
}

/// Half a checkpoint counts as none. The rest of it does not make an account a beginner, whose removals would go
/// unseen.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_place_of_a_checkpoint_stops_the_account_and_a_reseed_keeps_the_numbers() {
    let (directory, program) = synced("half").await;
    let mut expected = sequences(&program, "acme").await;
    for (round, key) in ["acme", "acme/latest"].into_iter().enumerate() {
        meddling::write(&services().bootstrap, &program.topic("syncs"), partition(), Some(key), Some(b"no Avro"));
        let stopped = run(&program, 78).await;
        assert!(line(&stopped, "acme").contains("no Confluent framing"), "{key}: {stopped:?}");
        assert_eq!(program.run(&["reseed", "acme"]).await.code, 0);
        directory.churn(0.25, 10 + round as u64);
        let ended = run(&program, 0).await;
        assert!(
            line(&ended, "acme").contains("repaired") && line(&ended, "acme").contains("3 changes"),
            "{key}: {ended:?}"
        );
        run(&program, 0).await;
        expected.extend((1..=3).map(|next| expected.len() as i64 + next).collect::<Vec<_>>());
        assert_eq!(sequences(&program, "acme").await, expected, "{key}");
    }
}

/// A running service reads the request and takes the shard back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_goes_on_with_an_account_that_is_reseeded() {
    let (_directory, program) = of_other_users("service").await;
    let mut service = program.spawn(&["run"]);
    let stopped = await_line(&mut service, "account stopped");
    assert!(stopped.contains("users ends before"), "{stopped}");
    assert_eq!(program.run(&["reseed", "acme"]).await.code, 0);
    goes_on(&program, service).await;
}

/// The service has read its topics back, and has not looked at `control` yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_starts_goes_on_with_an_account_that_is_reseeded_meanwhile() {
    let (_directory, program) = of_other_users("meanwhile").await;
    let mut command = program.command(&["run"]);
    command.env("FAILPOINTS", format!("{}=1*return(stop)", Point::RestoreAfter.name()));
    let service = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let id = Pid::from_child(&service);
    waitid(WaitId::Pid(id), WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("it stops");
    assert_eq!(program.run(&["reseed", "acme"]).await.code, 0);
    kill_process(id, Signal::CONT).expect("it is there");
    goes_on(&program, service).await;
}

/// One account, whose `users` topic is another than the one that was written.
async fn of_other_users(test: &str) -> (LargeDirectory, Program) {
    let (directory, program, ..) = crate::broker::shared_program(test).await;
    run(&program, 0).await;
    meddling::recreate(&services().bootstrap, &program.topic("users"), PARTITIONS, "compact").await;
    (directory, program)
}

/// The service repairs its account after a reseed.
async fn goes_on(program: &Program, mut service: Child) {
    let repaired = await_line(&mut service, "sync completed");
    assert!(repaired.contains("sync=2") && repaired.contains("changes=0"), "{repaired}");
    service.kill().expect("SIGKILL");
    service.wait().expect("it ended");
    assert_eq!(program.run(&["state", "users"]).await.code, 0);
}

/// Garbage is named by topic, partition and offset. Garbage that can belong to no account is passed over, and one
/// account's garbage does not stop another.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_stops_only_its_own_account_until_it_is_reseeded() {
    let (_directory, program) = synced("garbage").await;
    let (users, bootstrap) = (program.topic("users"), &services().bootstrap);
    // Compacted topics take no record without a key.
    let control = program.topic("control");
    meddling::write(bootstrap, &control, partition(), None::<&str>, Some(b"nobody's"));
    meddling::write(bootstrap, &control, partition(), Some("acme"), None);
    let foreign = [
        (&b"elsewhere/Users/1"[..], Some(&b"not ours"[..])),
        (b"elsewhere", Some(b"\0\0\0\0\x01not ours")),
        (b"acme/Users/\xff", Some(b"not ours")),
        (b"elsewhere", None),
    ];
    for (key, value) in foreign {
        meddling::write(bootstrap, &users, partition(), Some(key), value);
    }
    let fine = run(&program, 0).await;
    assert!(
        fine.err.contains(&format!("{control} [{}] @ 0", partition())),
        "garbage that is passed over is named: {fine:?}"
    );
    assert_eq!(fine.err.matches(&format!("{users} [{}] @ ", partition())).count(), foreign.len(), "{fine:?}");

    let records = records_of_bytes(&program, &users).await;
    let (key, value) = &records[0];
    let unknown_schema = [&[0, 0, 0x7f, 0xff, 0xff], &value[5..]].concat();
    let account_key = |id: &str| format!("acme/{id}");
    for (key, value, words) in [
        (key.clone(), &b"no Avro"[..], "no Confluent framing"),
        (key.clone(), &unknown_schema[..], "does not know schema"),
        (key.clone(), &value[..7], "does not fit its schema"),
        (account_key("Users/somebody-else"), &value[..], "keys were encoded in another way"),
        (account_key("of/no/known/form/at/all"), &value[..], "no known form"),
    ] {
        meddling::write(bootstrap, &users, partition(), Some(&key), Some(value));
        let stopped = run(&program, 78).await;
        let line = line(&stopped, "acme");
        assert!(line.contains(&format!("{users} [{}] @ ", partition())) && line.contains(words), "{words}: {line}");
        assert!(self::line(&stopped, "other1").contains("completed"), "{stopped:?}");
        let reseeded = program.run(&["reseed", "acme"]).await;
        assert_eq!(reseeded.code, 0, "{words}: {reseeded:?}");
        let ended = run(&program, 0).await;
        assert!(self::line(&ended, "acme").contains("no change"), "{words}: {ended:?}");
        run(&program, 0).await;
    }
}

/// Key and value bytes of acme's users as they are in Kafka.
async fn records_of_bytes(program: &Program, users: &str) -> Vec<(String, Vec<u8>)> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::{Message, Offset, TopicPartitionList};
    let (bootstrap, users) = (services().bootstrap.clone(), users.to_owned());
    let _ = program;
    let reading = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .set("group.id", "reads-bytes")
            .create()
            .expect("a consumer");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&users, partition(), Offset::Beginning).expect("an offset");
        consumer.assign(&all).expect("assigned");
        loop {
            let message = consumer.poll(std::time::Duration::from_secs(30)).expect("a record").expect("no error");
            let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
            if key.starts_with("acme/Users/") {
                return vec![(key, message.payload().expect("a value").to_vec())];
            }
        }
    });
    reading.await.expect("it is read")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_account_leaves_tombstones_and_no_event_and_others_are_not_touched() {
    let (_directory, program) = synced("retire").await;
    let configured = program.run(&["retire", "acme"]).await;
    configured.refused(78, &["acme is still configured", "from the configuration"]);
    let text = std::fs::read_to_string(program.file()).expect("the file");
    let (head, rest) = text.split_once("[[account]]\nname = \"acme\"").expect("the account");
    let other = rest.split_once("[[account]]").expect("the other account").1;
    std::fs::write(program.file(), format!("{head}[[account]]{other}")).expect("written");

    // If the account leaves the configuration, everything stays until it is retired.
    run(&program, 0).await;
    assert_eq!(state(&program, "users", "acme").await.len(), USERS);
    let events = records(&program, "events").await.len();
    program.run(&["retire", "acne"]).await.refused(1, &["nothing of an account `acne`"]);
    let retired = program.run(&["retire", "acme", "--reason", "sold"]).await;
    assert!(retired.code == 0 && retired.out.contains("acme: 24 records were removed"), "{retired:?}");
    for suffix in [&STATE[..], &["syncs"]].concat() {
        assert_eq!(state(&program, suffix, "acme").await.len(), 0, "{suffix}");
        assert_ne!(state(&program, suffix, "other1").await.len(), 0, "{suffix}");
    }
    assert_eq!(records(&program, "events").await.len(), events, "no user lost access");
    let ended = run(&program, 0).await;
    assert!(line(&ended, "other1").contains("no change"), "{ended:?}");

    // An account that is configured again begins again, silently.
    std::fs::write(program.file(), text).expect("written");
    let ended = run(&program, 0).await;
    assert!(line(&ended, "acme").contains("sync 1 ") && line(&ended, "acme").contains("no events"), "{ended:?}");
}

/// The same under a running owner: what it would write there is aborted, and its acquisition ends, because what it
/// knows is no longer there. Trying again and again would fill the new topic up to where the old one was.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_recreated_under_a_running_owner_ends_its_acquisition_and_the_next_one_stops_the_account() {
    use scimtail::directory::Status;
    use scimtail::shards::{acquire, serve};
    for (suffix, words) in [("users", "users ends before what acme wrote"), ("syncs", "the checkpoint of acme is lost")]
    {
        let (directory, program, shared, config) = crate::broker::shared_program("under-way").await;
        let accounts = std::slice::from_ref(&config);
        let mut owned = acquire(&shared, config.account.partition, accounts, |_| {}).await.expect("the shard");
        let known = owned.known.remove("acme").expect("the account").expect("its state");
        let mut account = shared.owned(&config.account, known, &owned.writer);
        let mut connection = scimtail::connect::Connection::new(&config, scimtail::schedule::now_millis);
        for seed in 0..2 {
            directory.churn(0.5, seed);
            let status = serve::sync_once(&mut account, &mut connection).await;
            assert_eq!(status.expect("the owner commits").status, Status::Completed);
        }
        meddling::recreate(&services().bootstrap, &program.topic(suffix), PARTITIONS, "compact").await;
        // More than there ever was before: its end alone would show nothing.
        directory.churn(1.0, 9);
        let status = serve::sync_once(&mut account, &mut connection).await;
        let ended = status.expect_err("the acquisition is over");
        assert!(!ended.is_fenced() && ended.reason.contains("ends before what was written to it"), "{ended:?}");
        assert_eq!(records(&program, suffix).await.len(), 0, "nothing is visible there");

        drop((owned, account));
        let mut again = acquire(&shared, config.account.partition, accounts, |_| {}).await.expect("the shard");
        let Err(stopped) = again.known.remove("acme").expect("the account") else { panic!("{suffix}: it goes on") };
        let reason = stopped.reason.to_string();
        assert!(reason.contains(words) && reason.contains("→ scimtail reseed acme"), "{stopped:?}");
    }
}

/// A directory in which nothing changes writes nothing to its state's topics and would never notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_notices_that_the_state_of_an_unchanged_directory_is_gone() {
    let (_directory, program) = synced("unchanged").await;
    let memberships = program.topic("memberships");
    let mut command = program.command(&["run"]);
    command.env("FAILPOINTS", "topics.watch_ms=return(200)").stderr(std::process::Stdio::piped());
    let mut service = command.spawn().expect("the program starts");
    crate::program::await_line(&mut service, "sync completed");
    meddling::delete(&services().bootstrap, &memberships).await;
    let ended = crate::program::await_line(&mut service, "acquisition ended");
    assert!(ended.contains(&format!("{memberships} does not exist; → scimtail topics --create")), "{ended}");
    // Nothing brings it back by itself, and nothing is published meanwhile.
    let refused = crate::program::await_line(&mut service, "shard not acquired: refused");
    assert!(refused.contains(&memberships), "{refused}");
    meddling::create(&services().bootstrap, &memberships, PARTITIONS, &[("cleanup.policy", "compact")]).await;
    for _ in ["acme", "other1"] {
        let stopped = crate::program::await_line(&mut service, "account stopped");
        assert!(stopped.contains("memberships ends before what"), "{stopped}");
    }
    service.kill().expect("SIGKILL");
    service.wait().expect("it ended");
    assert_eq!(records(&program, "memberships").await.len(), 0);
}
