//! The state of accounts, read from the compacted topics.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::failure::{Exit, Failure};
use super::output::progress;
use super::services::readable;
use crate::account::Account;
use crate::avro::{Decoder, Registry};
use crate::directory::{Known, Problem};
use crate::kafka::KafkaClient;
use crate::kafka::blocking::blocking;
use crate::shards::restore::{self, Purpose};
use crate::shards::spans;

/// Attempts to read an account whose topics disagree, because a commit may have come between the reads of two topics.
const READ_TRIES: usize = 3;

/// The state of each account, by name, as any reader finds it. It is proven by the digest in the newest `syncs` record
/// of the account; [`Known::repair`] says if it disagrees. If the state of an account is not known, the problem says
/// why. Each partition is read once, unless a commit came between the reads of two topics.
///
/// # Errors
/// Kafka or the registry cannot be read.
pub async fn read_states(
    kafka: &KafkaClient,
    registry: &Registry,
    accounts: &[Arc<Account>],
) -> Result<HashMap<String, Result<Known, Problem>>, Failure> {
    readable(kafka, registry).await?;
    let mut states = HashMap::new();
    let partitions: BTreeSet<i32> = accounts.iter().map(|account| account.partition).collect();
    for partition in partitions {
        let mut left: Vec<Arc<Account>> =
            accounts.iter().filter(|account| account.partition == partition).cloned().collect();
        // As last read.
        let mut in_doubt = HashMap::new();
        for _ in 0..READ_TRIES {
            if left.is_empty() {
                break;
            }
            let decoder = Decoder::of_reader(registry.clone());
            let what = match &left[..] {
                [one] => one.name.clone(),
                several => format!("{} accounts", several.len()),
            };
            let (kafka, asked, progress) = (kafka.clone(), left.clone(), progress(&what));
            let stop = CancellationToken::new();
            let reading = move || restore::restore(&kafka, decoder, partition, Purpose::Read, asked, progress, &stop);
            let (restored, _) = blocking(reading).instrument(spans::shard(partition)).await?;
            for (name, restored) in restored {
                match restored {
                    // A commit between the reads of two topics looks like a loss, so the partition is read again.
                    Ok(known) if known.repair.is_some() => drop(in_doubt.insert(name, Ok(known))),
                    Ok(known) => {
                        left.retain(|account| account.name != name);
                        in_doubt.remove(&name);
                        states.insert(name, Ok(known));
                    }
                    Err(stopped) => {
                        in_doubt.insert(name, Err(stopped.reason));
                    }
                }
            }
        }
        states.extend(in_doubt);
    }
    Ok(states)
}

/// As [`read_states`], for one account.
///
/// # Errors
/// As [`read_states`].
pub async fn read_state(kafka: &KafkaClient, registry: &Registry, account: &Arc<Account>) -> Result<Known, Failure> {
    let states = read_states(kafka, registry, std::slice::from_ref(account)).await?;
    let nothing = || Problem::new(format!("{}: nothing was read", account.name));
    states.into_values().next().unwrap_or_else(|| Err(nothing())).map_err(unknown)
}

/// The failure of a command that needs a state that is not known.
pub fn unknown(problem: Problem) -> Failure {
    Failure::new(Exit::Configuration, problem)
}
