//! An acquisition: one ownership of a shard by one producer.
//!
//! **Safety argument.** An acquisition is fence → restore → write, in this order. Only when `init_transactions` has
//! returned is what we read back final: the fence resolved the predecessor's open transaction, and no other producer
//! can commit under this shard's id any more. Everything that is computed later carries the acquisition's number, and
//! the one writer refuses any other. An unknown outcome, a fence or a fatal error ends the acquisition: producer, known
//! and walks are dropped, and the next acquisition starts from the fence. There is no partial re-read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::restore::{self, Purpose, Restored};
use super::services::Services;
use super::writer::Writer;
use crate::account::Account;
use crate::avro::Decoder;
use crate::config::AccountConfig;
use crate::failpoint::{self, Point};
use crate::kafka::TransactionalProducer;
use crate::kafka::blocking::blocking;
use crate::kafka::read::Progress;
use crate::kafka::written::Written;
use crate::service::ServiceError;
use crate::telemetry::Metric;

/// One ownership of a shard by one producer, from its fence to its end.
pub struct Acquisition {
    /// Everything that is computed under the acquisition bears this number, and the writer asks for it.
    pub number: u64,
    pub partition: i32,
    pub writer: Writer,
    /// Resolves when the writer has ended.
    pub writer_ended: oneshot::Receiver<()>,
    /// Up to where the shard's topics are written.
    pub written: Written,
    pub known: Restored,
}

/// Numbers the acquisitions of this process.
static ACQUISITIONS: AtomicU64 = AtomicU64::new(0);

/// Accounts by the partition they live in.
pub fn by_partition(accounts: Vec<Arc<AccountConfig>>) -> HashMap<i32, Vec<Arc<AccountConfig>>> {
    let mut shards: HashMap<i32, Vec<Arc<AccountConfig>>> = HashMap::new();
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
    accounts: &[Arc<AccountConfig>],
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Acquisition, ServiceError> {
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
    accounts: &[Arc<AccountConfig>],
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Acquisition, ServiceError> {
    let accounts = accounts.iter().map(|config| config.account.clone()).collect();
    acquire_accounts(stop, services, partition, accounts, progress).await
}

/// As [`acquire_unless`], for accounts that need no directory.
pub(super) async fn acquire_accounts(
    stop: &CancellationToken,
    services: &Services,
    partition: i32,
    accounts: Vec<Arc<Account>>,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Acquisition, ServiceError> {
    let number = ACQUISITIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let kafka = services.kafka.clone();
    // The fence first: what is restored below is final only because of it.
    let stopped = stop.clone();
    let producer = blocking(move || TransactionalProducer::connect(&kafka, partition)?.fence(&stopped)).await?;
    let kafka = services.kafka.clone();
    let decoder = Decoder::of_writer(services.codec.ids, services.registry.clone());
    let stopped = stop.clone();
    let purpose = Purpose::Own { acquisition: number };
    let restoring = move || restore::restore(&kafka, decoder, partition, purpose, accounts, progress, &stopped);
    // A restore that is called off gives the producer back first, because the next owner of the shard waits for that.
    failpoint::hit(Point::RestoreBefore);
    let begun = Instant::now();
    let ((known, ends), producer) = blocking(move || restoring().map(|restored| (restored, producer))).await?;
    Metric::RestoreDuration.took(begun.elapsed(), []);
    failpoint::hit(Point::RestoreAfter);
    // A newer scimtail wrote here: the records of this one would lack what it does not know.
    if let Some(Err(newer)) = known.values().find(|known| matches!(known, Err(stopped) if stopped.newer)) {
        return Err(ServiceError::Refused(newer.reason.clone()));
    }
    if stop.is_cancelled() {
        return Err(ServiceError::cancelled("called off"));
    }
    info!(acquisition = number, accounts = known.len(), "shard acquired");
    producer.written.raise(&ends);
    let written = producer.written.clone();
    let (writer, writer_ended) = Writer::start(producer, number);
    Ok(Acquisition { number, partition, writer, writer_ended, written, known })
}
