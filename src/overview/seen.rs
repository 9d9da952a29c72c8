//! What the `syncs` topic says of each account.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::avro::Decoder;
use crate::avro::decode::Undecodable;
use crate::avro::wire::SyncStatus as SyncRecord;
use crate::config::AccountConfig;
use crate::directory::{Problem, SyncStatus};
use crate::kafka::KafkaClient;
use crate::kafka::read::{ReadRecord, read_to_end};
use crate::log::Topic;
use crate::service::ServiceError;

/// The newest records of one account in `syncs`.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub completed: Option<SyncStatus>,
    pub latest: Option<SyncStatus>,
    /// Why the newest record of either kind cannot be understood: of `completed`, of `latest`.
    unreadable: [Option<Problem>; 2],
}

impl Seen {
    /// Records that another topic holds of the account cannot be understood.
    pub fn stop(&mut self, problem: Problem) {
        self.unreadable[0] = Some(problem);
    }

    /// Why a record cannot be understood.
    pub fn unreadable(&self) -> Option<&Problem> {
        self.unreadable.iter().flatten().next()
    }
}

/// By account.
pub type AllSeen = HashMap<String, Seen>;

/// Reads `syncs` to its present end, for these accounts. Blocks.
///
/// # Errors
/// Kafka cannot be read to its end, or the registry does not answer.
pub fn read_all(
    kafka: &KafkaClient,
    decoder: &mut Decoder,
    accounts: &[Arc<AccountConfig>],
) -> Result<AllSeen, ServiceError> {
    let mut all = AllSeen::new();
    let names: BTreeSet<String> = accounts.iter().map(|config| config.account.name.clone()).collect();
    let partitions: Vec<i32> =
        accounts.iter().map(|config| config.account.partition).collect::<BTreeSet<_>>().into_iter().collect();
    let each = |record: ReadRecord<'_>| take(&mut all, decoder, &names, &record).map(drop);
    read_to_end(kafka, &[&[Topic::Syncs]], &partitions, each, |_| Ok(()))?;
    Ok(all)
}

/// Takes one record of `syncs`, if it is of one of the accounts `names`. Returns that account.
///
/// # Errors
/// The registry does not answer.
pub fn take(
    all: &mut AllSeen,
    decoder: &mut Decoder,
    names: &BTreeSet<String>,
    record: &ReadRecord<'_>,
) -> Result<Option<String>, ServiceError> {
    let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else { return Ok(None) };
    let (account, is_latest) = match key.split_once('/') {
        None => (key, false),
        Some((account, "latest")) => (account, true),
        Some(_) => return Ok(None),
    };
    if !names.contains(account) {
        return Ok(None);
    }
    let seen = all.entry(account.to_owned()).or_default();
    let decoded = match record.value {
        None => Ok(None),
        Some(value) => match decoder.decode::<SyncRecord>(Topic::Syncs, value) {
            Ok(content) => content.into_status().map(Some).map_err(Problem::new),
            Err(Undecodable::Unreachable(problem)) => return Err(ServiceError::Unreachable(problem)),
            Err(complaint) => Err(complaint.problem()),
        },
    };
    let (status, problem) = match decoded {
        Ok(status) => (status, None),
        Err(problem) => (None, Some(problem.of(&record.address()))),
    };
    *(if is_latest { &mut seen.latest } else { &mut seen.completed }) = status;
    seen.unreadable[usize::from(is_latest)] = problem;
    Ok(Some(account.to_owned()))
}
