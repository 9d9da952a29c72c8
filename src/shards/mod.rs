//! Shards: who owns which partition, and what that takes.
//!
//! **Safety argument.** An acquisition is fence → restore → write, in this order. Only when
//! `init_transactions` has returned is what we read back final: it resolved the predecessor's open transaction and
//! no other producer can commit under this shard's id any more. Everything computed later carries the acquisition's
//! number, and the one writer refuses any other. An unknown outcome, a fence or a fatal error ends the
//! acquisition: producer, known and walks are dropped, and the next one starts from the fence. There is no
//! partial re-read.

pub mod assignment;
pub mod once;
pub mod reseed;
pub mod restore;
pub mod serve;
pub mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::account::Account;
use crate::avro::{Codec, Decoder, Registry};
use crate::config::AccountConfig;
use crate::directory::Known;
use crate::failpoint::{self, Point};
use crate::kafka::producer::Written;
use crate::kafka::read::Progress;
use crate::kafka::{KafkaClient, KafkaError, TransactionalProducer};
use crate::sync::OwnedAccount;
use restore::Restored;
use writer::Writer;

/// What every shard of the process shares.
#[derive(Clone)]
pub struct Services {
    pub kafka: KafkaClient,
    pub registry: Registry,
    pub codec: Codec,
    /// Milliseconds since 1970-01-01 UTC.
    pub clock: fn() -> i64,
}

impl Services {
    /// An account of an acquisition, with what was restored of it.
    pub fn owned(&self, account: &Account, known: Known, log: &Writer) -> OwnedAccount<Writer> {
        OwnedAccount { account: account.clone(), known, log: log.clone(), codec: self.codec.clone(), clock: self.clock }
    }
}

/// One ownership of a shard by one producer, from its fence to its end.
pub struct Acquisition {
    /// What everything computed under it bears, and the writer asks for.
    pub number: u64,
    pub partition: i32,
    pub writer: Writer,
    /// Resolves when the writer has ended.
    pub writer_ended: oneshot::Receiver<()>,
    /// Up to where its topics are written.
    pub written: Written,
    pub known: Restored,
}

/// Numbers the acquisitions of this process.
static ACQUISITIONS: AtomicU64 = AtomicU64::new(0);

/// Accounts by the partition they live in.
pub fn by_partition(accounts: Vec<AccountConfig>) -> HashMap<i32, Vec<AccountConfig>> {
    let mut shards: HashMap<i32, Vec<AccountConfig>> = HashMap::new();
    for config in accounts {
        shards.entry(config.account.partition).or_default().push(config);
    }
    shards
}

/// Takes the shard over and restores what Kafka holds of `accounts`.
///
/// # Errors
/// Kafka is unreachable or refuses; then nothing is owned.
pub async fn acquire(
    services: &Services,
    partition: i32,
    accounts: &[AccountConfig],
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Acquisition, KafkaError> {
    acquire_unless(&CancellationToken::new(), services, partition, accounts, progress).await
}

/// As [`acquire`]; `stop` ends it soon, with an error and without a producer.
///
/// # Errors
/// As [`acquire`].
pub async fn acquire_unless(
    stop: &CancellationToken,
    services: &Services,
    partition: i32,
    accounts: &[AccountConfig],
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Acquisition, KafkaError> {
    let accounts = accounts.iter().map(|config| config.account.clone()).collect();
    acquire_accounts(stop, services, partition, accounts, progress).await
}

/// As [`acquire_unless`], for accounts that need no directory.
async fn acquire_accounts(
    stop: &CancellationToken,
    services: &Services,
    partition: i32,
    accounts: Vec<Account>,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Acquisition, KafkaError> {
    let number = ACQUISITIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let kafka = services.kafka.clone();
    // The fence first: what is restored below is final only because of it.
    let stopped = stop.clone();
    let producer = blocking(move || TransactionalProducer::fence(&kafka, partition, &stopped)).await?;
    let kafka = services.kafka.clone();
    let decoder = Decoder::new(Some(services.codec.ids), services.registry.clone());
    let stopped = stop.clone();
    let restoring = move || restore::restore(&kafka, decoder, partition, number, accounts, progress, &stopped);
    // A restore that is called off gives the producer back first: whoever waits for the shard waits for that.
    failpoint::hit(Point::RestoreBefore);
    let ((known, ends), producer) = blocking(move || restoring().map(|restored| (restored, producer))).await?;
    failpoint::hit(Point::RestoreAfter);
    // A newer scimtail wrote here: whatever this one wrote would be without what it does not know.
    if let Some(Err(newer)) = known.values().find(|known| matches!(known, Err(stopped) if stopped.newer)) {
        return Err(KafkaError::Refused(newer.reason.clone()));
    }
    if stop.is_cancelled() {
        return Err(KafkaError::Unreachable("called off".to_owned()));
    }
    info!(partition, acquisition = number, accounts = known.len(), "shard acquired");
    producer.written.raise(&ends);
    let written = producer.written.clone();
    let (writer, writer_ended) = Writer::start(producer, number);
    Ok(Acquisition { number, partition, writer, writer_ended, written, known })
}

/// As [`blocking`], for work that goes on as long as the shard is owned: on a thread of its own, because those of the
/// runtime are bounded and the short calls of all shards share them.
pub async fn on_its_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    result.await.unwrap_or_else(|_| Err(KafkaError::Unreachable("a Kafka call was cut off".to_owned())))
}

/// librdkafka's calls block: they run where blocking is allowed.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|_| Err(KafkaError::Unreachable("a Kafka call was cut off".to_owned())))
}
