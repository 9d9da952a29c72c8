//! Speed and memory of a first load and of unchanged polls, against the real broker: `cargo bench`.
//!
//! The SCIM server runs in this process on a separate thread, Kafka and the registry as in the tests (`KAFKA_BOOTSTRAP`
//! and `SCHEMA_REGISTRY_URL` use others). Figures are medians; nothing is asserted but the counts, because a figure
//! about wrong data is void.

#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

#[path = "support/directory.rs"]
mod directory;
#[path = "../tests/it/services.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod services;

use std::time::{Duration, Instant};

use directory::BenchDirectory;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use scimtail::avro::{Codec, Registry};
use scimtail::config::{AccountConfig, Config, Secret};
use scimtail::connect::Connection;
use scimtail::directory::{Status, SyncStatus};
use scimtail::kafka::topics;
use scimtail::log::Topic;
use scimtail::schedule::now_millis;
use scimtail::shards::writer::Writer;
use scimtail::shards::{Services, acquire, serve};
use scimtail::sync::OwnedAccount;

const TOKEN: &str = "bench-token";
const USERS: usize = 100_000;
const GROUPS: usize = 5_000;
const MEMBERSHIPS: usize = 300_000;
const PAGE: usize = 1_000;
const ROUNDS: usize = 3;
const LARGE_GROUP: usize = 250_000;
const ACCOUNTS: usize = 1_000;
const USERS_EACH: usize = 100;
const CHURN: f64 = 0.001;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("{USERS} users, pages of {PAGE}, medians of {ROUNDS}");
        println!("{:44} {:>12} {:>10} {:>10} {:>12}", "", "users/s", "wall s", "CPU s", "bytes/user");
        Box::pin(scenario("users only", 0, 0)).await;
        Box::pin(scenario("users, 5,000 groups, 300,000 memberships", GROUPS, MEMBERSHIPS)).await;
        one_large_group().await;
        many_accounts().await;
    });
}

struct Figure {
    wall: Duration,
    cpu: f64,
}

async fn scenario(name: &str, groups: usize, memberships: usize) {
    let (mut first, mut unchanged, mut churned) = (Vec::new(), Vec::new(), Vec::new());
    let (mut restores, mut bare) = (Vec::new(), Vec::new());
    let mut bytes_per_user = 0;
    for round in 0..ROUNDS {
        let directory = BenchDirectory::start(USERS, groups, memberships, PAGE, TOKEN).await;
        let (services, config) = prepare(&directory).await;
        let before = resident();
        let mut owned = own(&services, &config).await;
        let mut connection = Connection::new(&config, now_millis);
        first.push(measure(&mut owned, &mut connection, USERS as i64).await);
        bytes_per_user = resident().saturating_sub(before) / USERS;
        for _ in 0..2 {
            unchanged.push(measure(&mut owned, &mut connection, USERS as i64).await);
        }
        let changes = directory.churn(CHURN, round as u64);
        churned.push(measure(&mut owned, &mut connection, USERS as i64).await);
        let published = owned.known.latest.as_ref().map_or(0, SyncStatus::events_published);
        assert_eq!(published, changes as i64, "every change is one event");
        drop(owned);
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let owned = own(&services, &config).await;
        assert_eq!(owned.known.state_records(), USERS + groups + memberships);
        restores.push(Figure { wall: started.elapsed(), cpu: cpu_seconds() - cpu });
        bare.push(bare_consumer(&services));
    }
    report(&format!("first load, {name}"), &mut first, Some(bytes_per_user));
    report(&format!("unchanged poll, {name}"), &mut unchanged, None);
    report(&format!("poll with 0.1 % churn, {name}"), &mut churned, None);
    report(&format!("fence and restore, {name}"), &mut restores, None);
    report(&format!("a bare consumer of the same topics, {name}"), &mut bare, None);
}

/// A consumer that drops the records it reads, set up as the reader of a restore: the baseline for that measurement.
fn bare_consumer(services: &Services) -> Figure {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &services.kafka.brokers)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "10")
        .create()
        .expect("a consumer");
    let mut topics = TopicPartitionList::new();
    for topic in Topic::STATE {
        consumer.fetch_metadata(Some(&services.kafka.topic(topic)), Duration::from_secs(10)).expect("its leaders");
        topics.add_partition_offset(&services.kafka.topic(topic), 0, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&topics).expect("the partitions");
    let mut ends = 0;
    while ends < Topic::STATE.len() {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(_)) | None => {}
        }
    }
    Figure { wall: started.elapsed(), cpu: cpu_seconds() - cpu }
}

/// A group with all users as members: its body is one row of about 50 MB.
async fn one_large_group() {
    let directory = BenchDirectory::start(LARGE_GROUP, 1, LARGE_GROUP, PAGE, TOKEN).await;
    let (services, config) = prepare(&directory).await;
    let mut owned = own(&services, &config).await;
    let mut connection = Connection::new(&config, now_millis);
    for name in ["first load", "unchanged poll"] {
        let before = forget_peak();
        let figure = measure(&mut owned, &mut connection, LARGE_GROUP as i64).await;
        let peak = (peak().saturating_sub(before)) >> 20;
        assert_eq!(owned.known.memberships_len(), LARGE_GROUP);
        let (wall, cpu) = (figure.wall.as_secs_f64(), figure.cpu);
        println!("{:58} {:>12} {wall:>8.2} {cpu:>8.2}   peak +{peak} MiB", format!("{name}, one group of 250,000"), "");
    }
}

/// All accounts are in one shard and due at the same moment: the number of transactions decides the time.
async fn many_accounts() {
    let directory = BenchDirectory::start(USERS_EACH, 0, 0, USERS_EACH, TOKEN).await;
    let (services, config) = prepare(&directory).await;
    let named = |number: usize| {
        let mut config = config.clone();
        config.account.name = format!("bench-{number}");
        config
    };
    let accounts: Vec<AccountConfig> = (0..ACCOUNTS).map(named).collect();
    let mut acquisition = acquire(&services, 0, &accounts, |_| {}).await.expect("the shard");
    let mut due = Vec::new();
    for config in accounts {
        let known = acquisition.known.remove(&config.account.name).expect("the account").expect("its state");
        due.push((Connection::new(&config, now_millis), services.owned(&config.account, known, &acquisition.writer)));
    }
    for name in ["first load", "unchanged poll", "poll with 10 % churn"] {
        if name.contains("churn") {
            assert_eq!(directory.churn(0.1, 1), USERS_EACH / 10);
        }
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let mut syncs = tokio::task::JoinSet::new();
        for (mut connection, mut owned) in due.drain(..) {
            syncs.spawn(async move {
                let users = Some(USERS_EACH as i64);
                let synced = serve::sync_once(&mut owned, &mut connection).await;
                let status = synced.expect("a sync");
                assert_eq!((status.status, status.users_read), (Status::Completed, users), "{:?}", status.reason);
                (connection, owned)
            });
        }
        due.extend(syncs.join_all().await);
        let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        println!(
            "{:58} {:>12.0} {wall:>8.2} {cpu:>8.2}",
            format!("{name}, {ACCOUNTS} accounts of {USERS_EACH} users"),
            (ACCOUNTS * USERS_EACH) as f64 / wall
        );
    }
}

async fn prepare(directory: &BenchDirectory) -> (Services, AccountConfig) {
    let services = services::services();
    let text = format!(
        r#"
[kafka]
brokers = ["{}"]
topic_prefix = "{}"
partitions = 1
[registry]
url = "{}"
[[account]]
name = "bench"
provider = "generic"
base_url = "{}"
token_env = "GIVEN_BELOW"
"#,
        services.bootstrap,
        services::unique_prefix("bench"),
        services.registry,
        directory.base_url(),
    );
    let config = Config::parse("bench", &text).expect("a configuration");
    topics::create(&config.kafka, 1).await.expect("topics");
    let registry = Registry::new(&config.registry.url).expect("a registry");
    let ids = registry.ids(&config.kafka.topic_prefix, true).await.expect("schemas");
    let mut account = config.accounts[0].clone();
    account.secret = Secret::Given(TOKEN.to_owned().into());
    account.profile.page_size = PAGE as u32;
    let services = Services {
        kafka: config.kafka.clone(),
        registry,
        codec: Codec { ids },
        clock: now_millis,
        progress: Default::default(),
    };
    (services, account)
}

async fn own(services: &Services, config: &AccountConfig) -> OwnedAccount<Writer> {
    let mut acquisition = acquire(services, 0, std::slice::from_ref(config), |_| {}).await.expect("the shard");
    let known = acquisition.known.remove("bench").expect("the account").expect("its state");
    services.owned(&config.account, known, &acquisition.writer)
}

async fn measure(owned: &mut OwnedAccount<Writer>, connection: &mut Connection, users: i64) -> Figure {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let status = serve::sync_once(owned, connection).await.expect("a sync");
    assert_eq!((status.status, status.users_read), (Status::Completed, Some(users)), "{:?}", status.reason);
    Figure { wall: started.elapsed(), cpu: cpu_seconds() - cpu }
}

fn report(name: &str, figures: &mut [Figure], bytes_per_user: Option<usize>) {
    figures.sort_by_key(|figure| figure.wall);
    let Figure { wall, cpu } = &figures[figures.len() / 2];
    let wall = wall.as_secs_f64();
    let bytes = bytes_per_user.map_or_else(String::new, |bytes| bytes.to_string());
    println!("{name:58} {:>12.0} {wall:>8.2} {cpu:>8.2} {bytes:>10}", USERS as f64 / wall);
}

/// Resident memory of this process in bytes; 0 where /proc does not say.
fn resident() -> usize {
    memory("VmRSS:")
}

fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}

/// Begins a new peak of resident memory; returns the present resident memory.
fn forget_peak() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap_or_default();
    resident()
}

fn peak() -> usize {
    memory("VmHWM:")
}

/// User and system time of this process, the SCIM server's thread included; 0 where /proc does not say.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    fields.iter().sum::<f64>() / TICKS_PER_SECOND
}
