//! Commits whose outcome the client does not learn: a proxy withholds their end, a transaction runs into its timeout,
//! replicas are missing, a record is too large. In every case a read_committed reader finds each change exactly once.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use scimtail::avro::{Codec, Registry};
use scimtail::config::{AccountConfig, Config, Secret};
use scimtail::connect::Connection;
use scimtail::directory::{Status, SyncStatus};
use scimtail::kafka::offsets::watermarks;
use scimtail::kafka::{KafkaClient, topics};
use scimtail::log::{Batch, CommitError, EndKind, Ended, Headers, Log, Positions, Record, Topic};
use scimtail::schedule::now_millis;
use scimtail::shards::writer::Writer;
use scimtail::shards::{Acquisition, Services as Shared, acquire, serve};
use scimtail::sync::OwnedAccount;

use tokio::sync::{mpsc, oneshot};

use crate::broker::directory::LargeDirectory;
use crate::program::Program;
use crate::proxy::{Api, Fault, proxy};
use crate::reader::{ReadRecord, compacted, read, read_stable};
use crate::services::{Services, broker, broker_beside, services, unique_prefix};

const TOKEN: &str = "outcomes-test-token";
const USERS: usize = 50;
/// Of [`USERS`], as `churn` draws them.
const CHANGED: usize = 5;
/// How long a transaction lives here; within a second more every wait for its end is over.
const LIFE: Duration = Duration::from_secs(6);
/// Bound on the wait for something that must happen.
const WAIT: Duration = Duration::from_secs(90);

/// One account whose service writes through the proxy, under a name by which the proxy knows it.
pub struct World {
    reader: Services,
    directory: LargeDirectory,
    pub program: Program,
    pub shared: Shared,
    pub account: Arc<AccountConfig>,
}

impl World {
    async fn new(test: &str) -> World {
        World::on(&proxy().through, &proxy().around, test, 1).await
    }

    /// `reader`: the same services, for a reader that only looks.
    pub async fn on(services: &Services, reader: &Services, test: &str, replicas: i32) -> World {
        World::living(LIFE, services, reader, test, replicas).await
    }

    /// `life`: how long a transaction lives.
    async fn living(life: Duration, services: &Services, reader: &Services, test: &str, replicas: i32) -> World {
        let directory = LargeDirectory::start(USERS, 0, 0, 100, TOKEN).await;
        let prefix = unique_prefix(test);
        let text = format!(
            r#"
[kafka]
brokers = ["{}"]
topic_prefix = "{prefix}"
partitions = 1
replication = 1
[kafka.properties]
"client.id" = "{prefix}"
"transaction.timeout.ms" = "{}"
"message.timeout.ms" = "{}"
[registry]
url = "{}"
[defaults]
interval = "1s"
[[account]]
name = "acme"
provider = "generic"
base_url = "{}"
token_env = "{}"
"#,
            services.bootstrap,
            life.as_millis(),
            life.as_millis() * 3 / 4,
            services.registry,
            directory.base_url(),
            crate::program::TOKEN_VARIABLE,
        );
        let program = Program::with_text(&prefix, TOKEN, &text);
        let config = Config::parse("test", &text).expect("a configuration");
        topics::create(&config.kafka, replicas).await.expect("topics");
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
        World { reader: reader.clone(), directory, program, shared, account }
    }

    fn client(&self) -> &str {
        &self.program.prefix
    }

    pub async fn acquire(&self) -> Owner {
        let accounts = std::slice::from_ref(&self.account);
        let mut acquisition = acquire(&self.shared, 0, accounts, |_| {}).await.expect("the shard");
        let known = acquisition.known.remove("acme").expect("the account").expect("its state");
        let owned = self.shared.owned(&self.account.account, known, &acquisition.writer);
        Owner { acquisition, owned, connection: Connection::new(&self.account, now_millis) }
    }

    /// An owner of the shard that has published the baseline.
    pub async fn baseline(&self) -> Owner {
        let mut owner = self.acquire().await;
        let status = owner.sync().await.expect("the baseline commits");
        assert_eq!((status.status, status.events_published()), (Status::Completed, 0), "{status:?}");
        owner
    }

    pub async fn committed(&self, suffix: &str) -> Vec<ReadRecord> {
        read(&self.reader, &[self.program.topic(suffix)]).await
    }

    /// G1: nothing is published while a transaction is open.
    async fn assert_nothing_published_yet(&self) {
        let topics = ["events", "users"].map(|suffix| self.program.topic(suffix));
        let records = read_stable(&self.reader, &topics).await;
        assert!(records.iter().all(|record| record.topic != topics[0]), "{records:?}");
        assert_eq!(compacted(&records, &topics[1]).len(), USERS);
    }

    /// G1, G6: exactly these changes, each once, without a gap.
    async fn assert_published_once(&self, changes: usize) {
        let events = self.committed("events").await;
        let sequences: Vec<i64> = events.iter().map(|event| event.value["sequence"].as_i64().expect("one")).collect();
        assert_eq!(sequences, (1..=changes as i64).collect::<Vec<_>>(), "each change once");
        let ids: BTreeSet<&str> = events.iter().map(|event| event.value["event_id"].as_str().expect("one")).collect();
        assert_eq!(ids.len(), changes);
        let users = self.committed("users").await;
        assert_eq!(compacted(&users, &self.program.topic("users")).len(), USERS);
    }
}

/// One ownership of the shard, and what it knows.
pub struct Owner {
    pub acquisition: Acquisition,
    pub owned: OwnedAccount<Writer>,
    connection: Connection,
}

impl Owner {
    async fn sync(&mut self) -> Result<SyncStatus, Ended> {
        let sync = serve::sync_once(&mut self.owned, &mut self.connection);
        tokio::time::timeout(WAIT, sync).await.expect("a sync ends, however it ends")
    }

    /// Gives the shard up: its producer is gone when this returns.
    async fn ended(self) {
        let Owner { acquisition: Acquisition { writer, writer_ended, .. }, owned, .. } = self;
        drop((writer, owned));
        // The sender is dropped, not used.
        drop(tokio::time::timeout(WAIT, writer_ended).await.expect("the writer ends"));
    }
}

/// Waits until the proxy withholds something of the client.
async fn withheld(world: &World) {
    let client = world.client().to_owned();
    tokio::task::spawn_blocking(move || proxy().wait(&client)).await.expect("something is withheld");
}

/// The end of an acquisition that could not say how its commit ended.
fn assert_unknown(outcome: Result<SyncStatus, Ended>) {
    match outcome {
        Err(Ended { kind: EndKind::Failed, reason }) => {
            assert!(reason.contains("outcome of a commit is unknown"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_answered_late_is_waited_for() {
    let world = World::new("answered-late").await;
    let mut owner = world.baseline().await;
    assert_eq!(world.directory.churn(0.1, 1), CHANGED);
    for fault in [Fault::Requests(Api::EndTxn), Fault::Answers(Api::EndTxn)] {
        proxy().withhold(world.client(), fault);
        let (outcome, ()) = tokio::join!(owner.sync(), async {
            withheld(&world).await;
            // Long enough that the call has said "retriable" at least once.
            tokio::time::sleep(LIFE / 2).await;
            proxy().release(world.client());
        });
        assert_eq!(outcome.expect("it commits").status, Status::Completed, "{fault:?}");
        world.assert_published_once(CHANGED).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_not_repeated() {
    let world = World::new("unheard-commit").await;
    let mut owner = world.baseline().await;
    world.directory.churn(0.1, 1);
    proxy().withhold(world.client(), Fault::Answers(Api::EndTxn));
    assert_unknown(owner.sync().await);
    owner.ended().await;
    proxy().take(world.client());
    world.assert_published_once(CHANGED).await;
    let mut next = world.acquire().await;
    let status = next.sync().await.expect("it commits");
    assert_eq!((status.status, status.events_published()), (Status::Completed, 0), "{status:?}");
    world.assert_published_once(CHANGED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_reached_the_broker_is_made_by_the_next_acquisition() {
    let world = World::new("lost-commit").await;
    let mut owner = world.baseline().await;
    world.directory.churn(0.1, 1);
    proxy().withhold(world.client(), Fault::Requests(Api::EndTxn));
    assert_unknown(owner.sync().await);
    owner.ended().await;
    proxy().take(world.client());
    let mut next = world.acquire().await;
    world.assert_published_once(0).await;
    let status = next.sync().await.expect("it commits");
    assert_eq!((status.status, status.events_published()), (Status::Completed, CHANGED as i64), "{status:?}");
    world.assert_published_once(CHANGED).await;
}

/// librdkafka lacks KIP-890: only the epoch tells the end of one transaction from the end of the next. When the second
/// owner takes over, the first is in the middle of its commit, and would be for longer than this test waits. The fence
/// ends its transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_in_the_next_transaction_changes_nothing() {
    let world = World::living(10 * WAIT, &proxy().through, &proxy().around, "late-commit", 1).await;
    let mut owner = world.baseline().await;
    world.directory.churn(0.1, 1);
    proxy().withhold(world.client(), Fault::Requests(Api::EndTxn));
    let (hears, heard) = oneshot::channel();
    let first = async {
        let first = owner.sync().await;
        hears.send(()).expect("the second owner waits to hear of it");
        first
    };
    let (first, second) = tokio::join!(first, async {
        withheld(&world).await;
        let mut next = world.acquire().await;
        let late = proxy().take(world.client());
        proxy().withhold(world.client(), Fault::Requests(Api::EndTxn));
        let (second, ()) = tokio::join!(next.sync(), async {
            // The next transaction is complete but for its end.
            withheld(&world).await;
            let late = late.first().expect("the first commit was withheld");
            late.deliver().expect("the first owner's connection is open");
            // The answer to it ends the first owner, so the broker has dealt with it.
            heard.await.expect("the first owner ends");
            world.assert_nothing_published_yet().await;
            proxy().release(world.client());
        });
        second
    });
    assert!(matches!(first, Err(Ended { kind: EndKind::Fenced, .. })), "{first:?}");
    assert_eq!(second.expect("it commits").status, Status::Completed);
    world.assert_published_once(CHANGED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_written_but_never_acknowledged_are_aborted_and_redone() {
    let world = World::new("unacknowledged").await;
    let mut owner = world.baseline().await;
    world.directory.churn(0.1, 1);
    proxy().withhold(world.client(), Fault::Answers(Api::Produce));
    let (outcome, ()) = tokio::join!(owner.sync(), async {
        withheld(&world).await;
        // Longer than a record waits for its acknowledgement, shorter than all tries take.
        tokio::time::sleep(LIFE).await;
        world.assert_nothing_published_yet().await;
        proxy().release(world.client());
    });
    let status = outcome.expect("the acquisition goes on");
    assert_eq!((status.status, status.events_published()), (Status::Completed, CHANGED as i64), "{status:?}");
    world.assert_published_once(CHANGED).await;
    // The records did reach the log.
    let (topic, kafka) = (Topic::Events, world.shared.kafka.clone());
    let end =
        tokio::task::spawn_blocking(move || watermarks(&kafka, topic, 0)).await.expect("asked").expect("the end").1;
    assert!(end >= 2 * CHANGED as i64 + 2, "two tries and their control records: {end}");
}

/// Alters one setting of a topic; everything else about it goes back to the broker's defaults.
pub async fn set(world: &World, suffix: &str, setting: &str, value: &str) {
    let admin: AdminClient<DefaultClientContext> =
        world.shared.kafka.config(&[]).expect("no secrets").create().expect("an admin client");
    let topic = world.program.topic(suffix);
    let altered = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set(setting, value);
    let results = admin.alter_configs([&altered], &AdminOptions::new()).await.expect("the broker answers");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_end_the_acquisition_and_publish_nothing_until_there_are_enough() {
    let first = broker();
    let cluster = Services { bootstrap: first.bootstrap.clone(), registry: services().registry.clone() };
    // The transactions' own topic has one replica here, and it is to be on the broker that stays.
    drop(World::on(&cluster, &cluster, "before", 1).await.acquire().await);
    let mut second = broker_beside(&first);
    let world = World::on(&cluster, &cluster, "too-few-replicas", 2).await;
    set(&world, "events", "min.insync.replicas", "2").await;
    let mut owner = world.baseline().await;
    world.directory.churn(0.1, 1);
    second.kill();
    // No replica acknowledges the end of the abort either: the acquisition ends with it.
    let ended = owner.sync().await.expect_err("nothing can be written");
    assert!(!ended.is_fenced() && ended.reason.contains("min.insync.replicas"), "{ended}");
    owner.ended().await;
    world.assert_nothing_published_yet().await;
    second.restart();
    let mut next = world.acquire().await;
    let status = next.sync().await.expect("it commits");
    assert_eq!((status.status, status.events_published()), (Status::Completed, CHANGED as i64), "{status:?}");
    world.assert_published_once(CHANGED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_broker_gives_up_ends_the_acquisition_and_the_next_publishes() {
    let world = World::on(services(), services(), "given-up", 1).await;
    let mut owner = world.baseline().await;
    world.directory.churn(0.1, 1);
    // Its data is in an open transaction until the broker has aborted it.
    let kafka = world.shared.kafka.clone();
    let closing = move |_: &Positions| {
        until_nothing_is_open(&kafka);
        Ok(vec![stray(Topic::Syncs)])
    };
    let Acquisition { number, writer, .. } = &owner.acquisition;
    let batch = Batch { acquisition: *number, records: vec![stray(Topic::Users)], closing: Box::new(closing) };
    match writer.commit(batch).await {
        Err(CommitError::Ended(ended)) => assert!(ended.is_fenced(), "another epoch: {ended}"),
        other => panic!("{other:?}"),
    }
    // The acquisition is over for anything that was computed under it.
    owner.sync().await.expect_err("nothing is written under it any more");
    owner.ended().await;
    world.assert_published_once(0).await;
    let mut next = world.acquire().await;
    let status = next.sync().await.expect("it commits");
    assert_eq!((status.status, status.events_published()), (Status::Completed, CHANGED as i64), "{status:?}");
    world.assert_published_once(CHANGED).await;
}

fn stray(topic: Topic) -> Record {
    Record { topic, key: "stray".to_owned(), value: Some(vec![0; 100]), headers: Headers::default() }
}

/// Waits until readers of committed records see the end of the log again.
fn until_nothing_is_open(kafka: &KafkaClient) {
    let name = kafka.topic(Topic::Users);
    let [committed, all] =
        ["read_committed", "read_uncommitted"].map(|isolation| kafka.reader(isolation).expect("a reader"));
    let deadline = Instant::now() + WAIT;
    loop {
        let [stable, end] =
            [&committed, &all].map(|reader| reader.fetch_watermarks(&name, 0, WAIT).expect("the topic").1);
        if stable == end {
            return;
        }
        assert!(Instant::now() < deadline, "a transaction is still open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_given_up_and_taken_up_again_and_no_sync_fails_for_it() {
    let world = World::new("black-hole").await;
    assert_eq!(world.program.run(&["run", "--once"]).await.code, 0);
    let mut service = Service::start(&world);
    service.until("sync completed").await;
    // It falls silent in the middle of a commit, which without a bound would wait for ever.
    proxy().withhold(world.client(), Fault::Requests(Api::EndTxn));
    world.directory.churn(0.1, 1);
    withheld(&world).await;
    proxy().withhold(world.client(), Fault::Everything);
    service.until("acquisition ended").await;
    proxy().release(world.client());
    // The withheld commit may still be in time; if it is not, this sync finds the differences again.
    service.until("sync completed").await;
    assert_eq!(service.terminate().await, Some(0));
    world.assert_published_once(CHANGED).await;
    let syncs = world.committed("syncs").await;
    // The first sync writes while it reads.
    let is_right = |status: &serde_json::Value| *status == "completed" || *status == "running";
    let wrong: Vec<_> = syncs.iter().filter(|record| !is_right(&record.value["status"])).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The program as a service, whose log is read all the time; it ends with the test.
struct Service {
    process: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Service {
    fn start(world: &World) -> Service {
        let mut process = world.program.spawn(&["run"]);
        let log = BufReader::new(process.stderr.take().expect("stderr"));
        let (line, lines) = mpsc::unbounded_channel();
        // The receiver may be gone, but the log has to be read on: a service that cannot write its log blocks.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|text| drop(line.send(text))));
        Service { process, lines }
    }

    /// Waits until a line of the log holds these words.
    async fn until(&mut self, words: &str) {
        let mut seen = Vec::new();
        let found = tokio::time::timeout(WAIT, async {
            while let Some(line) = self.lines.recv().await {
                if line.contains(words) {
                    return;
                }
                seen.push(line);
            }
            panic!("the service ended without `{words}`");
        });
        assert!(found.await.is_ok(), "no `{words}` in the log:\n{}", seen.join("\n"));
    }

    async fn terminate(&mut self) -> Option<i32> {
        let killed = std::process::Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
        let ended = async {
            loop {
                match self.process.try_wait().expect("the child can be asked") {
                    Some(status) => return status.code(),
                    None => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(WAIT, ended).await.expect("the service ends")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Over already, where the test went well.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
