//! `run --once`: every account syncs once, each shard is taken at most once.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{Instrument, warn};

use super::acquisition::{Acquisition, acquire, by_partition};
use super::serve::sync_once;
use super::services::Services;
use super::spans;
use super::writer::Writer;
use crate::avro::Decoder;
use crate::avro::decode::Undecodable;
use crate::avro::wire::ControlRequest;
use crate::config::AccountConfig;
use crate::connect::Connection;
use crate::control::{self, Request};
use crate::directory::Problem;
use crate::directory::SyncStatus;
use crate::kafka::blocking::blocking;
use crate::kafka::read::{Progress, ReadRecord, read_to_end};
use crate::log::{Ended, Topic};
use crate::service::ServiceError;
use crate::sync::OwnedAccount;

/// How one account ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Synced {
        status: Box<SyncStatus>,
        seconds: f64,
        /// No sync of the account had completed before.
        is_first: bool,
    },
    Paused {
        by: String,
    },
    /// Its records cannot be understood or were lost: a person has to act.
    Stopped(Problem),
    /// The shard was lost before the sync ended; another producer goes on.
    Ended(Ended),
    Unavailable(ServiceError),
}

/// Syncs every account once; outcomes by account name. `progress` shows how far the restore of a partition has come.
pub async fn run<P: FnMut(Progress) + Send + 'static>(
    services: &Services,
    accounts: Vec<Arc<AccountConfig>>,
    progress: fn(i32) -> P,
) -> HashMap<String, Outcome> {
    let mut shards = JoinSet::new();
    for (partition, accounts) in by_partition(accounts) {
        let syncing = shard(services.clone(), partition, accounts, progress(partition));
        shards.spawn(syncing.instrument(spans::shard(partition)));
    }
    let mut outcomes = HashMap::new();
    while let Some(shard) = shards.join_next().await {
        outcomes.extend(shard.unwrap_or_default());
    }
    outcomes
}

async fn shard(
    services: Services,
    partition: i32,
    accounts: Vec<Arc<AccountConfig>>,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Vec<(String, Outcome)> {
    let everyone =
        |outcome: Outcome| accounts.iter().map(|config| (config.account.name.clone(), outcome.clone())).collect();
    let Acquisition { writer, known: mut all, .. } = match acquire(&services, partition, &accounts, progress).await {
        Ok(acquisition) => acquisition,
        Err(error) => return everyone(Outcome::Unavailable(error)),
    };
    let mut requests = match pending(&services, partition).await {
        Ok(requests) => requests,
        Err(error) => return everyone(Outcome::Unavailable(error)),
    };
    let mut tasks = JoinSet::new();
    let mut outcomes = Vec::new();
    for config in accounts {
        let name = config.account.name.clone();
        match all.remove(&name) {
            Some(Ok(known)) => {
                let requests = requests.remove(&name).unwrap_or_default();
                let owned = services.owned(&config.account, known, &writer);
                let span = spans::account(&name);
                // On the heap, because a whole sync is in it.
                let syncing = async move { (name, Box::pin(account(owned, &config, requests)).await) };
                tasks.spawn(syncing.instrument(span));
            }
            Some(Err(stopped)) => outcomes.push((name, Outcome::Stopped(stopped.reason))),
            None => {}
        }
    }
    while let Some(ended) = tasks.join_next().await {
        outcomes.extend(ended);
    }
    outcomes
}

async fn account(mut owned: OwnedAccount<Writer>, config: &Arc<AccountConfig>, requests: Vec<Request>) -> Outcome {
    for request in requests {
        // The sync follows, no matter what was asked for.
        if let Err(ended) = control::carry_out(&mut owned, &request).await {
            return Outcome::Ended(ended);
        }
    }
    if let Some(pause) = owned.known.latest.as_ref().and_then(|latest| latest.pause.as_ref()) {
        return Outcome::Paused { by: pause.by.clone() };
    }
    let is_first = owned.known.is_first();
    let started = tokio::time::Instant::now();
    let mut connection = Connection::new(config, owned.clock);
    match sync_once(&mut owned, &mut connection).await {
        Ok(status) => Outcome::Synced { status: Box::new(status), seconds: started.elapsed().as_secs_f64(), is_first },
        Err(ended) => Outcome::Ended(ended),
    }
}

/// Every control request in the partition, by account; those that took effect are skipped by their offset.
async fn pending(services: &Services, partition: i32) -> Result<HashMap<String, Vec<Request>>, ServiceError> {
    let kafka = services.kafka.clone();
    let mut decoder = Decoder::of_writer(services.codec.ids, services.registry.clone());
    blocking(move || {
        let mut requests: HashMap<String, Vec<Request>> = HashMap::new();
        let each = |record: ReadRecord<'_>| {
            let Some(value) = record.value else { return Ok(()) };
            match decoder.decode::<ControlRequest>(Topic::Control, value) {
                Ok(content) => {
                    let account = content.account.clone();
                    requests.entry(account).or_default().push(Request::read(record.offset, content));
                }
                // Nothing is wrong with the request. Passed over, it would be lost for good.
                Err(Undecodable::Unreachable(problem)) => return Err(ServiceError::Unreachable(problem)),
                Err(complaint) => warn!(record = record.address(), %complaint, "control record skipped"),
            }
            Ok(())
        };
        read_to_end(&kafka, &[&[Topic::Control]], &[partition], each, |_| Ok(()))?;
        Ok(requests)
    })
    .await
}
