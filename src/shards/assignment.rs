//! The assignment of shards: this instance keeps those that the consumer group assigns to it and that have accounts.
//!
//! **Safety argument.** A shard has at most one task here, because the next one waits for the one before; and at most
//! one that can commit anywhere, because every task begins with the fence. Giving a shard away is ordered: cancel
//! walks, let the commit under way end, drop the producer, and only then let the rebalance go on. Each step is bounded,
//! and a bound that passes costs a fence, never an event.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::acquisition::by_partition;
use super::serve;
use super::services::Services;
use crate::config::AccountConfig;
use crate::failpoint::{self, Point};
use crate::kafka::consumer_group::{self, MOVES, Move, REVOKE_WAIT};
use crate::service::ServiceError;
use crate::telemetry;

/// Keeps this instance's share of the shards until `shutdown`; `accounts` are those there are now and after each
/// change.
///
/// # Errors
/// The group cannot be joined, or is over for this instance; or a shard is refused to it.
pub async fn run(
    services: Services,
    mut accounts: watch::Receiver<Vec<Arc<AccountConfig>>>,
    shutdown: CancellationToken,
    random: fastrand::Rng,
) -> Result<(), ServiceError> {
    let (moves, mut moved) = mpsc::channel(MOVES);
    // The end of this function ends the membership too, also if it is cancelled.
    let leave = shutdown.child_token();
    let _leaves = leave.clone().drop_guard();
    let mut left = consumer_group::join(&services.kafka, moves, leave)?;
    let by_shard = by_partition(accounts.borrow_and_update().clone());
    telemetry::configured([], names(&by_shard));
    let mut shards = Shards {
        services,
        shutdown,
        random,
        accounts: by_shard,
        assigned: BTreeSet::new(),
        last: HashMap::new(),
        owned_before: Arc::default(),
        tasks: JoinSet::new(),
    };
    let result = loop {
        // Nothing in here waits for a shard: a move is followed at once, whatever other shards are doing.
        tokio::select! {
            Some(next) = moved.recv() => match next {
                Move::Assigned(partitions) => shards.assigned(partitions),
                Move::Revoked(partitions, pending) => {
                    for ended in shards.revoked(&partitions) {
                        let pending = pending.clone();
                        shards.tasks.spawn(async move {
                            ended.cancelled().await;
                            drop(pending);
                            Ok(())
                        });
                    }
                }
                Move::Lost(partitions) => {
                    drop(shards.revoked(&partitions));
                    failpoint::hit(Point::LostAfter);
                }
            },
            over = &mut left => break match over {
                Ok(error) => Err(error),
                // It ends without an error if it was told to leave.
                Err(_) if shards.shutdown.is_cancelled() => Ok(()),
                Err(_) => Err(ServiceError::unreachable("the consumer group is no longer followed")),
            },
            Ok(()) = accounts.changed() => {
                let accounts = accounts.borrow_and_update().clone();
                shards.reconfigured(accounts);
            }
            Some(ended) = shards.tasks.join_next() => match ended {
                Ok(Err(refused)) => break Err(refused),
                Ok(Ok(())) | Err(_) => shards.revive(),
            },
        }
    };
    // The group is left. A shard that did not stop within the revocation's bound may still do so within the caller's.
    for task in shards.last.values() {
        task.stop.cancel();
    }
    while shards.tasks.join_next().await.is_some() {}
    result
}

struct Shards {
    services: Services,
    shutdown: CancellationToken,
    random: fastrand::Rng,
    /// By partition.
    accounts: HashMap<i32, Vec<Arc<AccountConfig>>>,
    assigned: BTreeSet<i32>,
    /// The newest task of each partition, running, stopping or ended.
    last: HashMap<i32, Task>,
    /// Whether any shard was ever acquired.
    owned_before: Arc<AtomicBool>,
    tasks: JoinSet<Result<(), ServiceError>>,
}

struct Task {
    stop: CancellationToken,
    /// Cancelled when the task is over and its producer gone.
    ended: CancellationToken,
}

impl Shards {
    fn assigned(&mut self, partitions: Vec<i32>) {
        for partition in partitions {
            self.assigned.insert(partition);
            self.start(partition);
        }
        failpoint::hit(Point::AssignedAfter);
    }

    /// What resolves when each of them that ran has stopped.
    fn revoked(&mut self, partitions: &[i32]) -> Vec<CancellationToken> {
        for partition in partitions {
            self.assigned.remove(partition);
        }
        partitions.iter().filter_map(|partition| self.stop(*partition)).collect()
    }

    /// Restarts the shards whose accounts are no longer the same. The others are left alone.
    fn reconfigured(&mut self, accounts: Vec<Arc<AccountConfig>>) {
        let accounts = by_partition(accounts);
        telemetry::configured(names(&self.accounts), names(&accounts));
        let before = std::mem::replace(&mut self.accounts, accounts);
        let affected: Vec<i32> = self
            .assigned
            .iter()
            .copied()
            .filter(|partition| !same(before.get(partition), self.accounts.get(partition)))
            .collect();
        info!(shards = ?affected, "the configuration was read again; shards whose accounts changed start again");
        for partition in affected {
            self.stop(partition);
            self.start(partition);
        }
    }

    /// Starts the shards again whose task broke down: it ended, but was not told to. It was the shard's only task here.
    fn revive(&mut self) {
        let broken = |task: &Task| task.ended.is_cancelled() && !task.stop.is_cancelled();
        let broken: Vec<i32> =
            self.last.iter().filter(|(_, task)| broken(task)).map(|(partition, _)| *partition).collect();
        for partition in broken {
            error!(partition, "the task of a shard broke down; starting it again");
            self.start(partition);
        }
    }

    fn start(&mut self, partition: i32) {
        // Without an account there is nothing to own.
        let Some(accounts) = self.accounts.get(&partition).cloned() else { return };
        let task = Task { stop: self.shutdown.child_token(), ended: CancellationToken::new() };
        let (stop, ended) = (task.stop.clone(), task.ended.clone().drop_guard());
        let (services, random, owned_before) = (self.services.clone(), self.random.fork(), self.owned_before.clone());
        let previous = self.last.insert(partition, task).map(|previous| {
            previous.stop.cancel();
            previous.ended
        });
        self.tasks.spawn(async move {
            let _ended = ended;
            if let Some(previous) = previous {
                // One that hangs is fenced by this one's acquisition.
                drop(tokio::time::timeout(REVOKE_WAIT, previous.cancelled()).await);
            }
            serve::shard(services, partition, accounts, stop, random, owned_before).await
        });
    }

    fn stop(&mut self, partition: i32) -> Option<CancellationToken> {
        let task = self.last.get(&partition)?;
        task.stop.cancel();
        Some(task.ended.clone())
    }
}

fn names(accounts: &HashMap<i32, Vec<Arc<AccountConfig>>>) -> impl Iterator<Item = &str> {
    accounts.values().flatten().map(|config| config.account.name.as_str())
}

/// Whether the accounts of a shard are the same, in any order.
fn same(before: Option<&Vec<Arc<AccountConfig>>>, after: Option<&Vec<Arc<AccountConfig>>>) -> bool {
    let (before, after) = (before.map_or(&[][..], Vec::as_slice), after.map_or(&[][..], Vec::as_slice));
    before.len() == after.len() && before.iter().all(|one| after.iter().any(|other| one == other))
}
