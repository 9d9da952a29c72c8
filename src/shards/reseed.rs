//! Commands for an account's state as a whole: `reseed` goes on from what the topics hold, `retire` removes all of it.
//!
//! **Safety argument.** Only the owner of a shard writes state, so both begin as every owner does, with the fence and
//! the restore; a service that owned the shard is fenced and takes it back later (`schedule::FenceWait`). Neither
//! publishes an event, because no access changed. Each transaction ends with the account's `syncs` record and leaves a
//! state that the next owner can go on from, so a crash in between is only a reason to ask again.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::acquisition::{Acquisition, acquire_accounts};
use super::services::Services;
use super::spans;
use crate::account::Account;
use crate::avro::codec::state_topic;
use crate::directory::Problem;
use crate::directory::{Kind, Known, Position, ReasonCode, StateKey, Status, SyncStatus};
use crate::kafka::blocking::blocking;
use crate::kafka::offsets::ends_of;
use crate::kafka::read::{ReadRecord, read_to_end};
use crate::log::{Batch, ClosingRecords, CommitError, Headers, Log, Record, Topic};
use crate::service::ServiceError;

/// Tombstones of one transaction.
const TOMBSTONES_MAX: usize = 5_000;

/// The outcome of [`reseed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reseeded {
    /// The account is not stopped; nothing was written.
    NotNeeded,
    /// The account goes on with this many state records.
    GoesOn(usize),
}

/// Makes what the topics hold of a stopped account its new beginning: the next sync writes silently what is missing,
/// publishes what changed, and publishes no removal. `asked` is awaited once it is clear that there is something to do.
///
/// # Errors
/// The shard cannot be taken, or is taken away again.
pub async fn reseed(
    services: &Services,
    account: &Arc<Account>,
    reason: String,
    asked: impl Future<Output = Result<(), ServiceError>>,
) -> Result<Reseeded, ServiceError> {
    let acquisition = take(services, account).await?;
    let stopped = match acquisition.known.get(&account.name) {
        Some(Err(stopped)) => stopped.clone(),
        _ => return Ok(Reseeded::NotNeeded),
    };
    asked.await?;
    let ends = ends(services, account).await?;
    let known = *stopped.known;
    let checkpoint_unreadable = stopped.unreadable.iter().any(|(topic, _)| *topic == Topic::Syncs);
    let status = match &known.latest {
        Some(latest) if known.completed.is_some() && !checkpoint_unreadable => {
            SyncStatus { positions: within(account, &latest.positions, &ends), ..latest.clone() }
        }
        _ => lost(services, account, &known, &ends).await?,
    };
    // The next owner repairs the account because of this reason code, no matter what it finds.
    let status = SyncStatus {
        status: Status::Failed,
        reason_code: Some(ReasonCode::Repair),
        reason: Some(reason),
        state_records: known.state_records() as i64,
        state_digest: known.state_digest(),
        // What was held is weighed again, against what is left.
        hold: None,
        release: None,
        ..status
    };
    // A record that cannot be understood goes with its key; the next sync writes the key again.
    let records = stopped.unreadable.iter().map(|(topic, key)| tombstone(*topic, key.clone())).collect();
    let latest = services.codec.encode_latest(account, &status).map_err(ServiceError::refused)?;
    commit(&acquisition, records, vec![latest]).await?;
    Ok(Reseeded::GoesOn(known.state_records()))
}

/// Takes everything of an account out of the compacted topics: tombstones, and no event. Returns how many state records
/// there were, or `None` if the topics hold nothing of it. `asked` as for [`reseed`].
///
/// # Errors
/// As [`reseed`].
pub async fn retire(
    services: &Services,
    account: &Arc<Account>,
    asked: impl Future<Output = Result<(), ServiceError>>,
) -> Result<Option<usize>, ServiceError> {
    let mut acquisition = take(services, account).await?;
    let (known, unreadable) = match acquisition.known.remove(&account.name) {
        Some(Ok(known)) => (known, Vec::new()),
        Some(Err(stopped)) => (*stopped.known, stopped.unreadable),
        None => (Known::default(), Vec::new()),
    };
    let keys = keys(&known);
    // An account without any record has a first `syncs` record too, in memory only.
    let invented = |latest: &SyncStatus| *latest == SyncStatus::initial(account.settings(), latest.control_offset);
    let recorded = known.completed.is_some() || known.latest.as_ref().is_some_and(|latest| !invented(latest));
    if keys.is_empty() && unreadable.is_empty() && !recorded {
        return Ok(None);
    }
    asked.await?;
    let mut tombstones: Vec<(Option<StateKey>, Record)> = keys
        .into_iter()
        .map(|key| (Some(key.clone()), tombstone(state_topic(&key), key.text(&account.name))))
        .collect();
    tombstones.extend(unreadable.into_iter().map(|(topic, key)| (None, tombstone(topic, key))));
    let count = tombstones.len();
    let latest = known.latest.clone();
    let mut status = SyncStatus {
        status: Status::Running,
        // If the account is configured again before this has ended, it is repaired.
        reason_code: Some(ReasonCode::Repair),
        reason: Some("the account is being retired".to_owned()),
        state_records: known.state_records() as i64,
        state_digest: known.state_digest(),
        ..latest.unwrap_or_else(|| SyncStatus::initial(account.settings(), 0))
    };
    let mut left = tombstones.into_iter().peekable();
    loop {
        let mut records = Vec::new();
        for (key, record) in left.by_ref().take(TOMBSTONES_MAX) {
            if let Some(digest) = key.and_then(|key| known.record_digest(&key)) {
                status.state_records -= 1;
                status.state_digest = status.state_digest.wrapping_sub(digest);
            }
            records.push(record);
        }
        if left.peek().is_none() {
            let markers = [account.name.clone(), format!("{}/latest", account.name)];
            commit(&acquisition, records, markers.map(|key| tombstone(Topic::Syncs, key)).to_vec()).await?;
            return Ok(Some(count));
        }
        let latest = services.codec.encode_latest(account, &status).map_err(ServiceError::refused)?;
        commit(&acquisition, records, vec![latest]).await?;
    }
}

async fn take(services: &Services, account: &Arc<Account>) -> Result<Acquisition, ServiceError> {
    let never = CancellationToken::new();
    let acquiring = acquire_accounts(&never, services, account.partition, vec![account.clone()], |_| {});
    acquiring.instrument(spans::shard(account.partition)).await
}

/// Keys of all live state records: memberships before the principals they name.
fn keys(known: &Known) -> Vec<StateKey> {
    let memberships = known
        .memberships()
        .map(|(group, member, _)| StateKey::Membership { member: member.clone(), group: group.clone() });
    let principals = Kind::BOTH.into_iter().flat_map(|kind| {
        let ids = known.table(kind).ids();
        ids.map(move |id| StateKey::Principal(kind, id.clone()))
    });
    let mut keys: Vec<StateKey> = memberships.collect();
    keys.sort_unstable();
    let mut principals: Vec<StateKey> = principals.collect();
    principals.sort_unstable();
    keys.extend(principals);
    keys
}

fn tombstone(topic: Topic, key: String) -> Record {
    Record { topic, key, value: None, headers: Headers::default() }
}

async fn ends(services: &Services, account: &Account) -> Result<Vec<(Topic, i64)>, ServiceError> {
    let (kafka, partition) = (services.kafka.clone(), account.partition);
    let ends = blocking(move || ends_of(&kafka, &Topic::ALL, partition)).await?;
    Ok(Topic::ALL.into_iter().zip(ends).collect())
}

/// Positions that a reader can reach: a position beyond the end of its topic becomes 0.
fn within(account: &Account, positions: &[Position], ends: &[(Topic, i64)]) -> Arc<[Position]> {
    let end = |name: &str| ends.iter().find(|(topic, _)| topic.name(&account.topic_prefix) == name);
    let each = positions.iter().cloned().map(|position| {
        let end = end(&position.topic).map_or(0, |(_, end)| *end);
        Position { next_offset: if position.next_offset > end { 0 } else { position.next_offset }, ..position }
    });
    each.collect()
}

/// A checkpoint in place of one that is lost: numbers go on beyond those of all records, and what is left of the old
/// checkpoint stays.
async fn lost(
    services: &Services,
    account: &Account,
    known: &Known,
    ends: &[(Topic, i64)],
) -> Result<SyncStatus, ServiceError> {
    let published = last_sequence(services, account).await?;
    let end = |topic: Topic| ends.iter().find(|(of, _)| *of == topic).map_or(0, |(_, end)| *end);
    let left = known.latest.clone().or_else(|| known.completed.clone());
    let left = left.unwrap_or_else(|| SyncStatus::initial(account.settings(), end(Topic::Control)));
    let reached = Topic::POSITIONED.into_iter().map(|topic| (topic, end(topic))).collect();
    Ok(SyncStatus {
        sync: left.sync.max(known.seen.sync),
        sequence: left.sequence.max(known.seen.sequence).max(published),
        positions: account.positions(&[], &reached),
        ..left
    })
}

/// The sequence of the account's newest event that is still there: compaction takes tombstones earlier than retention
/// takes events of the same time.
async fn last_sequence(services: &Services, account: &Account) -> Result<i64, ServiceError> {
    let (kafka, partition) = (services.kafka.clone(), account.partition);
    let prefix = format!("{}/", account.name);
    blocking(move || {
        let mut last = 0;
        let each = |record: ReadRecord<'_>| {
            if record.key.is_some_and(|key| key.starts_with(prefix.as_bytes())) {
                let sequence = record.header("ce_sequence").and_then(|text| text.parse().ok());
                last = last.max(sequence.unwrap_or(0));
            }
            Ok(())
        };
        read_to_end(&kafka, &[&[Topic::Events]], &[partition], each, |_| Ok(()))?;
        Ok(last)
    })
    .await
}

async fn commit(acquisition: &Acquisition, records: Vec<Record>, last: Vec<Record>) -> Result<(), ServiceError> {
    let closing: ClosingRecords = Box::new(move |_| Ok(last.clone()));
    let batch = Batch { acquisition: acquisition.number, records, closing };
    match acquisition.writer.commit(batch).await {
        Ok(_) => Ok(()),
        Err(CommitError::Aborted(text)) => Err(ServiceError::refused(text)),
        Err(CommitError::Ended(ended)) => {
            Err(ServiceError::unreachable(Problem::new(ended.reason).with_remedy("try again")))
        }
    }
}
