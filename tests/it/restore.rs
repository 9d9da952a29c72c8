//! Restoring from a real broker with everything in the way: foreign transactions, aborted records, and compacted
//! topics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::producer::Producer;
use scimtail::config::AccountConfig;
use scimtail::connect::Connection;
use scimtail::directory::{Kind, Status};
use scimtail::kafka::partition_of;
use scimtail::kafka::read::Progress;
use scimtail::schedule::now_millis;
use scimtail::shards::{Acquisition, Services as Shared, acquire, acquire_unless, serve};
use tokio_util::sync::CancellationToken;

use crate::broker::directory::LargeDirectory;
use crate::broker::{self, shared_program};
use crate::meddling;
use crate::program::Program;
use crate::reader::{compacted, read, read_stable};
use crate::services::{services, unique_prefix};

const PARTITIONS: i32 = 2;
/// Bound on the wait for something that must happen.
const WAIT: Duration = Duration::from_secs(60);
/// A restore of nearly nothing takes a second; one that goes on so long waits for something.
const STILL_WAITING: Duration = Duration::from_secs(4);

async fn sync(shared: &Shared, config: &Arc<AccountConfig>, owned: &mut Acquisition) -> i64 {
    let known = owned.known.remove("acme").expect("the account").expect("its state");
    let mut account = shared.owned(&config.account, known, &owned.writer);
    let mut connection = Connection::new(config, now_millis);
    let status = serve::sync_once(&mut account, &mut connection).await.expect("it commits");
    assert_eq!(status.status, Status::Completed, "{:?}", status.reason);
    owned.known.insert("acme".to_owned(), Ok(account.known));
    status.events_published()
}

async fn own(shared: &Shared, config: &Arc<AccountConfig>) -> Acquisition {
    acquire(shared, config.account.partition, std::slice::from_ref(config), |_| {}).await.expect("the shard")
}

/// A read_committed reader stops before a foreign open transaction, although committed records of ours are beyond it.
/// It never reads aborted records.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_waits_for_a_foreign_open_transaction_and_passes_over_what_was_aborted() {
    let (directory, program, shared, config) = shared_program("foreign").await;
    let (users, partition) = (program.topic("users"), config.account.partition);
    let mut owned = own(&shared, &config).await;
    sync(&shared, &config, &mut owned).await;

    let foreign = meddling::producer(&services().bootstrap, &[("transactional.id", &format!("{users}-foreign"))]);
    foreign.init_transactions(WAIT).expect("another producer");
    for aborted in [true, false] {
        foreign.begin_transaction().expect("begun");
        let key = if aborted { "acme/Users/aborted" } else { "elsewhere/Users/1" };
        meddling::enqueue(&foreign, &users, partition, Some(key), Some(b"not Avro"));
        foreign.flush(WAIT).expect("in the log, uncommitted");
        directory.churn(0.5, u64::from(aborted));
        assert_eq!(sync(&shared, &config, &mut owned).await, 10, "our records are beyond it");

        let (again, whose) = (shared.clone(), config.clone());
        let mut acquiring = tokio::spawn(async move { own(&again, &whose).await });
        let early = tokio::time::timeout(STILL_WAITING, &mut acquiring).await;
        assert!(early.is_err(), "it must not end before what it cannot see yet");
        match aborted {
            true => foreign.abort_transaction(WAIT).expect("aborted"),
            false => foreign.commit_transaction(WAIT).expect("committed"),
        }
        let restored = tokio::time::timeout(WAIT, acquiring).await.expect("it goes on").expect("no panic");
        let before = owned.known.remove("acme").expect("the account").expect("its state");
        let known = restored.known["acme"].as_ref().expect("nothing is wrong with it");
        assert_eq!(known.repair, None);
        assert_eq!((known.state_digest(), &known.latest), (before.state_digest(), &before.latest));
        assert!(!known.table(Kind::User).contains("aborted"));
        owned = restored;
    }
}

/// The independent reader of these tests must not take the last stable offset for the end: Kafka answers a commit before
/// every partition knows of it, and the events of a sync would seem to be missing.
#[tokio::test(flavor = "multi_thread")]
async fn the_reader_that_judges_the_topics_waits_for_an_open_transaction_too() {
    let (directory, program, shared, config) = shared_program("judge").await;
    let (users, partition) = (program.topic("users"), config.account.partition);
    let mut owned = own(&shared, &config).await;
    sync(&shared, &config, &mut owned).await;
    let before = read(services(), std::slice::from_ref(&users)).await.len();

    let foreign = meddling::producer(&services().bootstrap, &[("transactional.id", &format!("{users}-foreign"))]);
    foreign.init_transactions(WAIT).expect("another producer");
    foreign.begin_transaction().expect("begun");
    meddling::enqueue(&foreign, &users, partition, Some("elsewhere/Users/1"), None);
    foreign.flush(WAIT).expect("in the log, uncommitted");
    directory.churn(0.5, 0);
    let changed = sync(&shared, &config, &mut owned).await;
    assert!(changed > 0, "records of ours are beyond it");
    assert_eq!(read_stable(services(), std::slice::from_ref(&users)).await.len(), before);

    let mut reading = tokio::spawn(async move { read(services(), &[users]).await });
    let early = tokio::time::timeout(STILL_WAITING, &mut reading).await;
    assert!(early.is_err(), "it must not end before what it cannot see yet");
    foreign.commit_transaction(WAIT).expect("committed");
    let records = tokio::time::timeout(WAIT, reading).await.expect("it goes on").expect("no panic");
    assert_eq!(records.len() as i64, before as i64 + 1 + changed);
}

/// An owner that gives the shard away, or ends, does not wait for a foreign transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_waits_for_a_foreign_open_transaction_can_be_called_off() {
    let (_directory, program, shared, config) = shared_program("called-off").await;
    let (users, partition) = (program.topic("users"), config.account.partition);
    sync(&shared, &config, &mut own(&shared, &config).await).await;
    let foreign = meddling::producer(&services().bootstrap, &[("transactional.id", &format!("{users}-foreign"))]);
    foreign.init_transactions(WAIT).expect("another producer");
    foreign.begin_transaction().expect("begun");
    meddling::enqueue(&foreign, &users, partition, Some("elsewhere/Users/1"), Some(b"not Avro"));
    foreign.flush(WAIT).expect("in the log, uncommitted");

    let stop = CancellationToken::new();
    let (waits, watched) = (Arc::new(AtomicBool::new(false)), stop.clone());
    let shown = waits.clone();
    let progress = move |Progress { read, total }| shown.store(read < total, Ordering::Relaxed);
    let acquiring = tokio::spawn(async move {
        acquire_unless(&watched, &shared, partition, std::slice::from_ref(&config), progress).await.map(drop)
    });
    let deadline = Instant::now() + WAIT;
    while !waits.load(Ordering::Relaxed) {
        assert!(Instant::now() < deadline, "it shows how far it has come while it waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    let called_off = tokio::time::timeout(STILL_WAITING, acquiring).await.expect("at once").expect("no panic");
    assert!(called_off.is_err_and(|error| error.to_string().contains("called off")));
    foreign.abort_transaction(WAIT).expect("aborted");
}

/// A long restore shows how far it has come while records come.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_restore_shows_how_far_it_has_come() {
    const USERS: usize = 5_000;
    let directory = LargeDirectory::start(USERS, 0, 0, 1_000, broker::TOKEN).await;
    let (_program, shared, config) = broker::program_on(&directory, &unique_prefix("progress")).await;
    sync(&shared, &config, &mut own(&shared, &config).await).await;
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (accounts, seen) = (std::slice::from_ref(&config), shown.clone());
    let progress = move |Progress { read, total }| seen.lock().expect("no panic").push((read, total));
    drop(acquire(&shared, config.account.partition, accounts, progress).await.expect("the shard"));
    let shown = shown.lock().expect("no panic").clone();
    let between = shown.iter().filter(|(read, total)| (1..*total).contains(read));
    assert!(between.count() >= USERS / 2_048, "{shown:?}");
    assert!(shown.is_sorted() && shown.last().is_some_and(|(read, total)| read == total), "{shown:?}");
}

/// Topics whose broker compacts at once, as it does elsewhere after hours.
async fn compacting_program(directory: &LargeDirectory) -> (Program, Shared, Arc<AccountConfig>) {
    let prefix = unique_prefix("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "50"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
        ("max.compaction.lag.ms", "100"),
        ("delete.retention.ms", "0"),
    ];
    for suffix in ["users", "groups", "memberships", "syncs"] {
        meddling::create(&services().bootstrap, &format!("{prefix}.{suffix}"), PARTITIONS, &settings).await;
    }
    broker::program_on(directory, &prefix).await
}

/// Records of the account's users that are left in the log, whatever their age.
async fn left(program: &Program) -> usize {
    read(services(), &[program.topic("users")]).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_topic_that_the_broker_really_compacted_restores_to_what_was_read() {
    const USERS: usize = 20;
    const ROUNDS: u64 = 6;
    let directory = LargeDirectory::start(USERS, 2, 10, 20, broker::TOKEN).await;
    let (program, shared, config) = compacting_program(&directory).await;
    let mut owned = own(&shared, &config).await;
    let deadline = Instant::now() + WAIT;
    let mut written = 0;
    let mut removed = 0;
    let mut round = 0;
    // The newest segment is never compacted: it takes new records to close it.
    loop {
        directory.churn(1.0, round);
        if round == 1 {
            directory.remove_users(2);
            removed = 2;
        }
        sync(&shared, &config, &mut owned).await;
        written += USERS - removed;
        round += 1;
        let left = left(&program).await;
        if round > ROUNDS && left < written / 2 {
            println!("{written} records written, {left} left");
            break;
        }
        assert!(Instant::now() < deadline, "{left} of {written} records are left: nothing was compacted");
    }
    let records = read(services(), &[program.topic("users")]).await;
    let gone = records.iter().filter(|record| record.is_tombstone()).count();
    assert_eq!(gone, 0, "tombstones are compacted too");
    assert_eq!(compacted(&records, &program.topic("users")).len(), USERS - 2);

    let before = owned.known.remove("acme").expect("the account").expect("its state");
    let restored = own(&shared, &config).await;
    let known = restored.known["acme"].as_ref().expect("nothing is wrong with it");
    assert_eq!(known.repair, None, "records and digest agree with the checkpoint");
    assert_eq!((known.state_digest(), &known.latest), (before.state_digest(), &before.latest));
    assert_eq!(known.table(Kind::User).len(), USERS - 2);
    drop(restored);
    let ended = program.run(&["run", "--once"]).await;
    assert!(ended.code == 0 && ended.out.contains("no change"), "{ended:?}");
}

/// A broker has lost a record of one account: that account is repaired, loudly for the operator and silently for
/// readers. Its neighbour does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_broker_lost_is_repaired_and_the_output_says_so() {
    let (directory, program, shared, config) = shared_program("lost").await;
    let mut owned = own(&shared, &config).await;
    sync(&shared, &config, &mut owned).await;
    directory.churn(0.5, 3);
    sync(&shared, &config, &mut owned).await;
    let state = compacted(&read(services(), &[program.topic("users")]).await, &program.topic("users"));
    let key = state.keys().next().expect("a user").clone();
    // A foreign tombstone is as good as a loss.
    meddling::write(&services().bootstrap, &program.topic("users"), partition_of("acme", PARTITIONS), Some(&key), None);
    let state = program.run(&["state", "users"]).await;
    assert!(state.code == 75 && state.err.contains("incomplete"), "{state:?}");
    let plan = program.run(&["plan"]).await;
    assert!(plan.code == 0 && plan.out.contains("0 changes and 1 silent"), "{plan:?}");

    let events = read(services(), &[program.topic("events")]).await.len();
    let ended = program.run(&["run", "--once"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.contains("repaired") && ended.out.contains("its newest syncs record says"), "{ended:?}");
    assert_eq!(read(services(), &[program.topic("events")]).await.len(), events);
    let after = compacted(&read(services(), &[program.topic("users")]).await, &program.topic("users"));
    assert!(after.contains_key(&key));
    let state = program.run(&["state", "users"]).await;
    assert_eq!(state.code, 0, "{state:?}");
}
