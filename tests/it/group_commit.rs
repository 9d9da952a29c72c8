//! Group commit on a real broker: waiting batches share a transaction, and no reader notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use futures::future::join_all;
use futures::poll;
use scimtail::avro::{Codec, Registry};
use scimtail::config::{AccountConfig, Config, Secret};
use scimtail::connect::Connection;
use scimtail::directory::Status;
use scimtail::kafka::read::read_to_end;
use scimtail::kafka::topics::found;
use scimtail::kafka::{rights, topics};
use scimtail::log::{Batch, CommitError, Headers, Log, Positions, Record, Topic};
use scimtail::schedule::now_millis;
use scimtail::shards::{Services as Shared, acquire, serve};
use serde_json::Value;

use crate::broker::directory::LargeDirectory;
use crate::reader::{ReadRecord, read};
use crate::services::{services, unique_prefix};

const TOKEN: &str = "group-commit-test-token";
/// Bound on the wait for something that must happen.
const WAIT: Duration = Duration::from_secs(120);

/// Everything in one partition.
async fn shared(test: &str, base_url: &str, accounts: usize) -> (Shared, Vec<Arc<AccountConfig>>) {
    let (prefix, services) = (unique_prefix(test), services());
    let mut text = format!(
        "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{prefix}\"\npartitions = 1\n[registry]\nurl = \"{}\"\n",
        services.bootstrap, services.registry
    );
    for number in 0..accounts {
        text.push_str(&format!(
            "[[account]]\nname = \"acme-{number}\"\nprovider = \"generic\"\nbase_url = \"{base_url}\"\ntoken_env = \"GIVEN\"\n"
        ));
    }
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
    let given = |mut account: Arc<AccountConfig>| {
        Arc::make_mut(&mut account).secret = Secret::Given(TOKEN.to_owned().into());
        account
    };
    (shared, config.accounts.into_iter().map(given).collect())
}

fn record(topic: Topic, key: &str, bytes: usize) -> Record {
    // Random text, because compression must not make it fit.
    let value = std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect();
    Record { topic, key: key.to_owned(), value: Some(value), headers: Headers::default() }
}

/// A batch of two users' records of `bytes` bytes. Its closing record writes down the positions that it was given.
fn batch(acquisition: u64, name: &str, bytes: usize) -> Batch {
    let records =
        vec![record(Topic::Users, &format!("{name}/1"), 10), record(Topic::Users, &format!("{name}/2"), bytes)];
    let name = name.to_owned();
    let closing = move |reached: &Positions| Ok(vec![record(Topic::Syncs, &format!("{name}@{reached:?}"), 1)]);
    Batch { acquisition, records, closing: Box::new(closing) }
}

/// Keys by offset, as a read_committed reader finds them.
async fn committed(shared: &Shared, topic: Topic) -> BTreeMap<i64, String> {
    let kafka = shared.kafka.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut keys = BTreeMap::new();
        let each = |record: scimtail::kafka::read::ReadRecord<'_>| {
            let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("a text key");
            keys.insert(record.offset, key);
            Ok(())
        };
        read_to_end(&kafka, &[&[topic]], &[0], each, |_| Ok(())).expect("the topic can be read");
        keys
    });
    reading.await.expect("the topic was read")
}

/// Keeps the writer busy with a first batch while `batches` queue up behind it; returns their outcomes.
async fn queued_behind_a_first(
    shared: &Shared,
    batches: impl FnOnce(u64) -> Vec<Batch>,
) -> Vec<Result<Positions, CommitError>> {
    let acquisition = acquire(shared, 0, &[], |_| {}).await.expect("the shard");
    let writer = acquisition.writer;
    let number = acquisition.number;
    let ((begun, begins), (go_on, told)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
    let wait_to_be_told = move |_: &Positions| {
        begun.send(()).expect("the test waits");
        told.recv().expect("the test goes on");
        Ok(vec![record(Topic::Syncs, "first", 1)])
    };
    let records = vec![record(Topic::Users, "first/1", 10)];
    let mut first = Box::pin(writer.commit(Batch { acquisition: number, records, closing: Box::new(wait_to_be_told) }));
    assert!(poll!(&mut first).is_pending());
    tokio::task::spawn_blocking(move || begins.recv()).await.expect("waited").expect("the writer has begun");
    let mut waiting: Vec<_> = batches(number).into_iter().map(|batch| Box::pin(writer.commit(batch))).collect();
    for commit in &mut waiting {
        assert!(poll!(commit).is_pending(), "it waits behind the first");
    }
    go_on.send(()).expect("the writer waits");
    first.await.expect("the first commits");
    join_all(waiting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_wait_share_a_transaction_and_each_gets_its_own_positions() {
    let (shared, _) = shared("grouped", "http://127.0.0.1:9", 1).await;
    let names = ["a", "b", "c", "d"];
    let results = queued_behind_a_first(&shared, |number| names.map(|name| batch(number, name, 10)).into()).await;
    let users = committed(&shared, Topic::Users).await;
    // 0 and its control record, then eight records without one in between: one transaction.
    let expected: Vec<(i64, String)> = [(0, "first/1".to_owned())]
        .into_iter()
        .chain((2..).zip(names.iter().flat_map(|name| [format!("{name}/1"), format!("{name}/2")])))
        .collect();
    assert_eq!(users.into_iter().collect::<Vec<_>>(), expected);
    let syncs: Vec<String> = committed(&shared, Topic::Syncs).await.into_values().skip(1).collect();
    for ((name, result), (marker, end)) in names.iter().zip(results).zip(syncs.iter().zip([4, 6, 8, 10])) {
        let positions = Positions::from([(Topic::Users, end)]);
        assert_eq!(*marker, format!("{name}@{positions:?}"), "the marker knows the account's own positions");
        // The part that the sync applies may name topics of its marker too; readers are promised the others.
        let result = result.expect("it commits");
        assert_eq!(result.get(&Topic::Users), Some(&end));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_written_fails_alone() {
    // Larger than librdkafka's message.max.bytes: it fails to enqueue, and a commit would go on without it.
    const TOO_LARGE: usize = 2_000_000;
    let (shared, _) = shared("bad-batch", "http://127.0.0.1:9", 1).await;
    let results = queued_behind_a_first(&shared, |number| {
        let closing = |_: &Positions| Err("a value does not fit its schema".to_owned());
        let unclosed = Batch { closing: Box::new(closing), ..batch(number, "unmarked", 10) };
        vec![
            batch(number, "a", 10),
            batch(number, "large", TOO_LARGE),
            batch(number, "b", 10),
            unclosed,
            batch(number, "c", 10),
        ]
    })
    .await;
    let outcomes: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, false, true, false, true], "{results:?}");
    assert!(matches!(results[1], Err(CommitError::Aborted(_))), "the acquisition goes on: {results:?}");
    assert!(matches!(results[3], Err(CommitError::Aborted(_))), "the acquisition goes on: {results:?}");
    let users: Vec<String> = committed(&shared, Topic::Users).await.into_values().collect();
    assert_eq!(users, ["first/1", "a/1", "a/2", "b/1", "b/2", "c/1", "c/2"], "each once, nothing of the bad ones");
    assert_eq!(committed(&shared, Topic::Syncs).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_broker_refuses_fails_alone() {
    let (mut shared, _) = shared("refused-batch", "http://127.0.0.1:9", 1).await;
    // This client would send it; the topic's limit of 1 MiB refuses it.
    for (name, value) in [
        ("message.max.bytes", "8000000"),
        // The batches behind it must not wait for its own timeout.
        ("transaction.timeout.ms", "900000"),
        ("message.timeout.ms", "600000"),
    ] {
        shared.kafka.properties.insert(name.to_owned(), value.to_owned());
    }
    let results = queued_behind_a_first(&shared, |number| {
        vec![batch(number, "a", 10), batch(number, "large", 2_000_000), batch(number, "b", 10)]
    });
    let results = tokio::time::timeout(WAIT, results).await.expect("an abort ends soon");
    let outcomes: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, false, true], "{results:?}");
    assert!(matches!(results[1], Err(CommitError::Aborted(_))), "the acquisition goes on: {results:?}");
    let users: Vec<String> = committed(&shared, Topic::Users).await.into_values().collect();
    assert_eq!(users, ["first/1", "a/1", "a/2", "b/1", "b/2"]);
}

/// A transaction goes to the broker one request of each topic at a time (1 MB).
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_several_requests_is_whole_and_nothing_of_one_is_left_if_a_request_is_refused() {
    const RECORDS: usize = 30;
    let (mut shared, _) = shared("several-requests", "http://127.0.0.1:9", 1).await;
    // As above: the client would send the large record, and nothing waits for its timeout.
    for (name, value) in
        [("message.max.bytes", "8000000"), ("transaction.timeout.ms", "900000"), ("message.timeout.ms", "600000")]
    {
        shared.kafka.properties.insert(name.to_owned(), value.to_owned());
    }
    // A request and a half of each topic lie before the large record, and as much behind it.
    let large = |number: u64, name: &str, middle: usize| {
        let bytes = |place: usize| if place == RECORDS / 2 { middle } else { 100_000 };
        let both = |place: usize| {
            [Topic::Users, Topic::Groups].map(|topic| record(topic, &format!("{name}/{place}"), bytes(place)))
        };
        let closing = |_: &Positions| Ok(vec![record(Topic::Syncs, "closed", 1)]);
        Batch { acquisition: number, records: (0..RECORDS).flat_map(both).collect(), closing: Box::new(closing) }
    };
    let results = queued_behind_a_first(&shared, |number| {
        vec![large(number, "a", 100_000), large(number, "refused", 2_000_000), large(number, "b", 100_000)]
    });
    let results = tokio::time::timeout(WAIT, results).await.expect("an abort ends soon");
    let outcomes: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, false, true], "{results:?}");
    assert!(matches!(results[1], Err(CommitError::Aborted(_))), "the acquisition goes on: {results:?}");
    let all: Vec<String> =
        ["a", "b"].iter().flat_map(|name| (0..RECORDS).map(move |n| format!("{name}/{n}"))).collect();
    for (topic, first) in [(Topic::Users, &["first/1".to_owned()][..]), (Topic::Groups, &[])] {
        let keys: Vec<String> = committed(&shared, topic).await.into_values().collect();
        assert_eq!(keys, [first, &all].concat(), "{topic:?}: each once, in their order");
    }
    assert_eq!(committed(&shared, Topic::Syncs).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_another_acquisition_ends_this_one_and_nothing_of_it_is_written() {
    let (shared, _) = shared("stale-batch", "http://127.0.0.1:9", 1).await;
    let results =
        queued_behind_a_first(&shared, |number| vec![batch(number, "a", 10), batch(number + 1, "stale", 10)]).await;
    assert!(results.iter().all(|result| matches!(result, Err(CommitError::Ended(_)))), "{results:?}");
    assert_eq!(committed(&shared, Topic::Users).await.into_values().collect::<Vec<_>>(), ["first/1"]);
}

/// `check` tries the rights of a producer while the shard's owner goes on.
#[tokio::test(flavor = "multi_thread")]
async fn trying_the_rights_fences_no_owner_and_leaves_no_record() {
    let (shared, _) = shared("looks", "http://127.0.0.1:9", 1).await;
    let acquisition = acquire(&shared, 0, &[], |_| {}).await.expect("the shard");
    let cluster = found(&shared.kafka).await.expect("the topics");
    let rights = rights::probe(&shared.kafka, &cluster, 7).await.expect("a broker that does transactions");
    assert_eq!(rights.len(), 4, "{rights:?}");
    assert!(rights.iter().all(|right| right.tried == rights::Tried::Granted), "{rights:?}");
    for topic in Topic::ALL {
        assert_eq!(committed(&shared, topic).await.len(), 0, "{topic:?}");
    }
    acquisition.writer.commit(batch(acquisition.number, "a", 10)).await.expect("the owner still owns the shard");
}

/// G8 for accounts that share every topic-partition and every transaction.
#[tokio::test(flavor = "multi_thread")]
async fn positions_are_each_accounts_own_where_many_share_a_partition() {
    const ACCOUNTS: usize = 12;
    const USERS: usize = 60;
    let directory = LargeDirectory::start(USERS, 4, 80, 30, TOKEN).await;
    let (shared, accounts) = shared("shared-partition", &directory.base_url(), ACCOUNTS).await;
    let mut acquisition = acquire(&shared, 0, &accounts, |_| {}).await.expect("the shard");
    let mut owned: Vec<_> = accounts
        .iter()
        .map(|config| {
            let known = acquisition.known.remove(&config.account.name).expect("the account").expect("its state");
            shared.owned(&config.account, known, &acquisition.writer)
        })
        .collect();
    for round in 0..3 {
        let syncs = accounts.iter().zip(&mut owned).map(|(config, owned)| async move {
            let mut connection = Connection::new(config, now_millis);
            serve::sync_once(owned, &mut connection).await.expect("it commits")
        });
        for status in join_all(syncs).await {
            assert_eq!(status.status, Status::Completed, "{:?}", status.reason);
        }
        directory.churn(0.2, round);
    }
    let prefix = &shared.kafka.topic_prefix;
    let topics = ["events", "users", "groups", "memberships", "syncs"].map(|suffix| format!("{prefix}.{suffix}"));
    let records = read(services(), &topics).await;
    let own =
        |record: &&ReadRecord, name: &str| record.key.as_deref().is_some_and(|key| key.split('/').next() == Some(name));
    for config in &accounts {
        let name = config.account.name.as_str();
        // Each completed record points behind the last of the account's own records before it, and no further.
        let mut rounds = 0;
        for marker in records.iter().filter(|record| record.topic == topics[4] && record.key.as_deref() == Some(name)) {
            rounds += 1;
            let sync = marker.value["sync"].as_i64().expect("a number");
            for position in marker.value["positions"].as_array().expect("positions") {
                let topic = position["topic"].as_str().expect("a name");
                let of_sync = |record: &&ReadRecord| record.value["sync"].as_i64().is_some_and(|of| of <= sync);
                let mine = records.iter().filter(|record| record.topic == topic && own(record, name));
                let end = mine.filter(of_sync).map(|record| record.offset + 1).max().unwrap_or(0);
                assert_eq!(position["next_offset"], Value::from(end), "{name}, sync {sync}, {topic}");
            }
        }
        assert_eq!(rounds, 3);
    }
    // Transactions show as gaps, one control record each.
    let syncs: Vec<i64> =
        records.iter().filter(|record| record.topic == topics[4]).map(|record| record.offset).collect();
    let transactions = 1 + syncs.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    println!("{} syncs of {ACCOUNTS} accounts in {transactions} transactions", 3 * ACCOUNTS);
    assert!(transactions < 3 * ACCOUNTS, "{transactions} transactions: no batches shared one");
    assert!(!crate::reader::compacted(&records, &topics[1]).is_empty());
}
