//! The record of an attempt: how it begins, and how it ends when nothing (more) of it is published.

use super::observe::Refusal;
use super::owned::OwnedAccount;
use crate::account::Account;
use crate::directory::{Known, Reason, ReasonCode, Status, SyncStatus};
use crate::log::{CommitError, Ended, Log};

/// A new attempt, numbered after the newest one that is recorded. `now`: milliseconds since 1970-01-01 UTC.
pub(super) fn begin(account: &Account, known: &Known, now: i64) -> SyncStatus {
    let attempt = match &known.latest {
        Some(latest) => latest.next_attempt(now, account.settings()),
        None => SyncStatus::initial(account.settings(), 0).next_attempt(now, account.settings()),
    };
    let attempt = SyncStatus {
        // Of completed syncs only: readers rely on nothing that a failed attempt has read.
        kinds_read: known.kinds_read(),
        // What Kafka holds, not what it should hold. The two are the same unless records were lost.
        state_records: known.state_records() as i64,
        state_digest: known.state_digest(),
        ..attempt
    };
    match &known.repair {
        None => attempt,
        // Any record may bear the highest number, because the newest `syncs` record may be lost.
        Some(reason) => SyncStatus {
            sync: attempt.sync.max(known.seen.sync + 1),
            sequence: attempt.sequence.max(known.seen.sequence),
            reason_code: Some(ReasonCode::Repair),
            reason: Some(reason.clone()),
            ..attempt
        },
    }
}

/// Records a sync that could not begin to read.
///
/// # Errors
/// The end of the acquisition.
pub async fn fail<L: Log>(owned: &mut OwnedAccount<L>, reason: Reason) -> Result<SyncStatus, Ended> {
    let attempt = begin(&owned.account, &owned.known, owned.now());
    conclude(owned, attempt, Status::Failed, reason).await
}

/// Records a sync that publishes nothing (more), because its directory cannot be read truthfully or a person has to look
/// first.
pub(super) async fn refuse<L: Log>(
    owned: &mut OwnedAccount<L>,
    attempt: SyncStatus,
    refusal: Refusal,
) -> Result<SyncStatus, Ended> {
    // A first sync may have written some of what it read.
    let written = owned.known.latest.as_ref().filter(|latest| latest.sync == attempt.sync);
    let attempt = match written {
        Some(written) => attempt.with_published_of(written),
        None => attempt,
    };
    match refusal {
        Refusal::NotCommitted(CommitError::Ended(ended)) => Err(ended),
        Refusal::NotCommitted(CommitError::Aborted(text)) => {
            conclude(owned, attempt, Status::Failed, Reason::new(ReasonCode::CommitAborted, text)).await
        }
        Refusal::Failed(reason) => {
            // Whatever failed, the next attempt reads everything.
            owned.known.walked_at = None;
            conclude(owned, attempt, Status::Failed, reason).await
        }
        Refusal::Held(reason, hold) => {
            // A new hold replaces a release that does not fit.
            let attempt = SyncStatus { hold: Some(*hold), release: None, ..attempt };
            conclude(owned, attempt, Status::Held, reason).await
        }
    }
}

/// Records a sync that publishes no more than its committed transactions.
pub(super) async fn stop<L: Log>(
    owned: &mut OwnedAccount<L>,
    attempt: &SyncStatus,
    reason: Reason,
) -> Result<SyncStatus, Ended> {
    let attempt = committed_so_far(&owned.known, attempt);
    conclude(owned, attempt, Status::Failed, reason).await
}

/// The attempt's record as far as it is committed: a later batch that failed left no trace.
pub(super) fn committed_so_far(known: &Known, attempt: &SyncStatus) -> SyncStatus {
    known.latest.clone().filter(|latest| latest.sync == attempt.sync).unwrap_or_else(|| attempt.clone())
}

/// An aborted rewrite ends the acquisition too: `known` must not go on without its record.
async fn conclude<L: Log>(
    owned: &mut OwnedAccount<L>,
    attempt: SyncStatus,
    outcome: Status,
    reason: Reason,
) -> Result<SyncStatus, Ended> {
    // While an account is in repair, every record says so, whatever became of the attempt: the next owner knows by it.
    let Reason { mut code, mut problem } = reason;
    if owned.known.repair.is_some() {
        code = ReasonCode::Repair;
        problem.what.push_str(" (the account is in repair)");
    }
    let status = SyncStatus {
        status: outcome,
        reason_code: Some(code),
        reason: Some(problem.to_string()),
        finished_at: Some(owned.now()),
        ..attempt
    };
    owned.record_latest(status).await.map_err(CommitError::into_ended)
}
