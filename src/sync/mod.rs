//! The spine: one sync of one account, from the first page to the last commit.
//!
//! ```text
//! begin → observe (walk, diff, proof, guard) → batches: commit, then apply to known → the newest `syncs` record
//! ```
//!
//! A first sync commits batches of users while it observes (`stream`).

pub mod attempt;
pub mod batch;
mod copies;
pub mod observe;
pub mod owned;
mod stream;

use crate::directory::{Changes, HoldId, Kind, Known, Reason, ReasonCode, RemovalReason, SyncStatus};
use std::collections::BTreeSet;

use futures::join;

use crate::account::Account;
use crate::log::{CommitError, Ended, Log};
use crate::source::Directory;
use batch::Batches;
use observe::Refusal;
pub use owned::OwnedAccount;

/// Syncs one account: reads its directory, publishes what changed, returns the newest `syncs` record.
///
/// A directory that cannot be read, a hold and an aborted transaction are outcomes, recorded under `account/latest`.
///
/// # Errors
/// The end of the acquisition: `known` is void with it.
pub async fn sync<D: Directory, L: Log>(owned: &mut OwnedAccount<L>, directory: &D) -> Result<SyncStatus, Ended> {
    let mut attempt = attempt::begin(&owned.account, &owned.known, owned.now());
    let mut batches = Batches::new(&owned.account, &owned.known, &attempt);
    let (writing, known) = owned.parts();
    match observe::observe(writing, known, directory, &mut attempt, &mut batches).await {
        Ok(changes) => batches.take_rest(&attempt, changes),
        Err(refusal) => return attempt::refuse(owned, attempt, refusal).await,
    }
    let mut next = batches.next(writing, known);
    while let Some(encoded) = next {
        let mut batch = match encoded {
            Ok(batch) => batch,
            Err(reason) => return attempt::stop(owned, &attempt, reason).await,
        };
        let for_log = batch.for_log(writing, known, &attempt);
        // The next batch is encoded while this one is on its way: it looks at `known`, which moves only below.
        let (committed, following) = join!(writing.log.commit(for_log), async { batches.next(writing, known) });
        match committed {
            // Only now: memory follows the log, never leads it.
            Ok(positions) => batch.apply(writing.account, known, &positions),
            Err(CommitError::Aborted(text)) => {
                return attempt::stop(owned, &attempt, Reason::new(ReasonCode::CommitAborted, text)).await;
            }
            Err(CommitError::Ended(ended)) => return Err(ended),
        }
        next = following;
    }
    Ok(owned.known.latest.clone().unwrap_or(attempt))
}

/// What a sync would do, without a log.
pub enum Planned {
    Changes(SyncStatus, Changes),
    Held(SyncStatus, HoldId, Reason, Changes),
    Failed(Reason),
}

/// Reads the directory and computes what [`sync`] would publish; writes nothing. `clock`: milliseconds since 1970-01-01
/// UTC.
pub async fn plan<D: Directory>(account: &Account, directory: &D, known: &Known, clock: fn() -> i64) -> Planned {
    let now = || owned::not_before(known, clock);
    let mut attempt = attempt::begin(account, known, now());
    let mut diff = observe::diff(account, known, &attempt);
    match observe::look(account, directory, &mut diff, &mut attempt, None, now, None).await {
        Ok(vanishing) => {
            let changes = diff.finish(&vanishing, now());
            attempt.read(&changes);
            Planned::Changes(attempt, changes)
        }
        Err(Refusal::Held(reason, hold)) => {
            // A person who looks at a hold wants to see what it holds back. None of it is proven, and none is published.
            for kind in Kind::BOTH {
                for id in diff.missing(kind) {
                    diff.record_removal(kind, id, RemovalReason::Absent);
                }
            }
            let changes = diff.finish(&BTreeSet::new(), now());
            attempt.read(&changes);
            Planned::Held(attempt, *hold, reason, changes)
        }
        Err(Refusal::Failed(reason)) => Planned::Failed(reason),
        Err(Refusal::NotCommitted(error)) => unreachable!("nothing is committed without a log: {error}"),
    }
}
