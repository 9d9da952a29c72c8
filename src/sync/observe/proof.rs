//! Missing principals are asked for. 404 says "gone" only if the same server, asked the same way, finds what it lists.

use crate::directory::{Id, Kind, Known, Losses, Problem, ReasonCode, RemovalReason, SyncStatus};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ask::ask;
use super::observation::{Control, Observation};
use super::refusal::{Refusal, failed};
use crate::source::{Answer, Directory};

/// Missing ids asked where the guard already holds: enough to see that a list is broken.
const SAMPLE: usize = 20;
/// Listed ids tried as control: one of them may be deleted between the list and the question.
const CONTROLS: usize = 2;
/// Every hidden principal and dangling member is asked for once in this time, milliseconds.
const RECHECK_MS: i64 = 24 * 3600 * 1000;

/// Asks for a listed id of the kind; where the list is empty, of the other kind.
pub(super) async fn control<D: Directory>(seen: &Observation<'_, '_, '_, D>, kind: Kind) -> Control {
    let diff = &*seen.diff;
    let kind = match (diff.listed(kind), kind) {
        (0, Kind::User) => Kind::Group,
        (0, Kind::Group) => Kind::User,
        _ => kind,
    };
    if seen.account.habits.absence_only {
        return Control::NotAvailable;
    }
    let mut control = Control::Unclear;
    for id in diff.some_listed_ids(kind, CONTROLS) {
        control = match seen.directory.get(kind, &id).await {
            Answer::Found(_) => return Control::Works,
            Answer::NotFound | Answer::NotOffered | Answer::Forbidden => Control::NotAvailable,
            Answer::Unproven(_) => return Control::Unclear,
        };
    }
    control
}

/// When the last completed sync began, milliseconds since 1970-01-01 UTC.
pub(super) fn last_completed(known: &Known) -> i64 {
    known.completed.as_ref().map_or(i64::MIN, |completed| completed.started_at)
}

/// Those of `ids` whose slot is between `since`, when such ids were last asked for, and the start of this sync. So each is
/// asked once in [`RECHECK_MS`] and nothing needs to be remembered; within the budget, which it takes from.
pub(super) fn due(ids: Vec<Id>, since: i64, attempt: &SyncStatus, budget: &mut usize) -> Vec<Id> {
    let now = attempt.started_at;
    let is_due = |id: &Id| {
        let slot = (xxh3_64_with_seed(id.as_bytes(), 0) % RECHECK_MS as u64) as i64;
        // The last moment up to now at which the slot came round.
        let last = now - (now - slot).rem_euclid(RECHECK_MS);
        last > since
    };
    let mut due: Vec<Id> = ids.into_iter().filter(is_due).collect();
    if due.len() > *budget {
        due.sort_by_key(|id| xxh3_64_with_seed(id.as_bytes(), attempt.sync as u64));
        due.truncate(*budget);
    }
    *budget -= due.len();
    due
}

/// The cause of a hold may be a broken list, so a sample of what is missing is asked for. If one of them answers that
/// ought to be listed, the list is wrong. Returns how many missing users there are if the sample shows that this
/// directory hides its inactive users.
pub(super) async fn sample<D: Directory>(seen: &Observation<'_, '_, '_, D>, at_stake: &Losses) -> Result<u64, Refusal> {
    let (diff, sync) = (&*seen.diff, seen.attempt.sync);
    let mut hidden = 0;
    for kind in Kind::BOTH {
        let losses = if kind == Kind::User { at_stake.users } else { at_stake.groups };
        // A row without an id may be the row of a missing principal: that GET finds one says nothing about the list
        // then.
        if losses == 0 || diff.without_id(kind) > 0 {
            continue;
        }
        let missing = diff.missing(kind);
        let count = missing.len() as u64;
        let mut sample = missing;
        sample.sort_by_key(|id| xxh3_64_with_seed(id.as_bytes(), sync as u64));
        sample.truncate(SAMPLE);
        for (_, answer) in ask(seen.directory, kind, sample).await {
            let Answer::Found(observed) = answer else { continue };
            if seen.account.habits.hides_inactive && kind == Kind::User && observed.principal.active == Some(false) {
                hidden = count;
                continue;
            }
            let what = "some that the list leaves out still answer one by one, so the list is incomplete";
            let remedy = match kind {
                Kind::User => "if this directory lists active users only: [account.profile] inactive = \"hidden\"",
                Kind::Group => "ask the vendor why the list leaves them out",
            };
            let problem = Problem::new(what).of(kind.endpoint()).with_remedy(remedy);
            return Err(failed(ReasonCode::ListIncomplete, problem));
        }
    }
    Ok(hidden)
}

/// Settles what the walk of one kind left out; `hidden`: those known as hidden that are due to be asked.
pub(super) async fn prove<D: Directory>(
    seen: &mut Observation<'_, '_, '_, D>,
    kind: Kind,
    control: Control,
    hidden: Vec<Id>,
) -> Result<(), Refusal> {
    let (directory, diff) = (seen.directory, &mut *seen.diff);
    let missing = diff.missing(kind);
    let list_is_empty = diff.listed(kind) == 0;
    if control == Control::NotAvailable && !list_is_empty {
        // GET proves nothing here: the walk that reaches the count is the proof. A hidden principal is never removed by
        // absence.
        for id in diff.losing(kind) {
            diff.record_removal(kind, id, RemovalReason::Absent);
        }
        return Ok(());
    }
    let answers = match control {
        Control::NotAvailable => missing.into_iter().map(|id| (id, Answer::NotOffered)).collect(),
        Control::Works | Control::Unclear => ask(directory, kind, missing).await,
    };
    if list_is_empty && answers.iter().any(|(_, answer)| matches!(answer, Answer::Found(_))) {
        let problem = Problem::new("the list is empty, but they answer one by one")
            .of(kind.endpoint())
            .with_remedy("ask the vendor why the list is empty");
        return Err(failed(ReasonCode::ListIncomplete, problem));
    }
    // An empty list was held before it came here; released and empty again, it is its own proof.
    let known = diff.known();
    let empty_before = !known.is_first()
        && known.latest.as_ref().is_some_and(|latest| {
            let read = if kind == Kind::User { latest.users_read } else { latest.groups_read };
            read == Some(0)
        });
    let mut unproven: Option<String> = None;
    for (id, answer) in answers {
        match answer {
            Answer::Found(observed) => diff.take_found(kind, *observed),
            Answer::Unproven(said) if !list_is_empty => unproven = Some(said),
            Answer::NotFound if control == Control::Works => diff.record_removal(kind, id, RemovalReason::NotFound),
            _ if list_is_empty && empty_before => diff.record_removal(kind, id, RemovalReason::Absent),
            // Kept, and shown in `removals_suppressed`.
            _ => {}
        }
    }
    if let Some(said) = unproven {
        seen.attempt.find(format!(
            "{}: {} that the list leaves out cannot be settled, because GET by id gives no answer that proves anything \
             ({said}): they stay; → if that does not pass: [account.profile] removal_proof = \"absence\"",
            kind.endpoint(),
            diff.missing(kind).len(),
        ));
    }
    for (id, answer) in ask(directory, kind, hidden).await {
        match answer {
            Answer::Found(observed) => diff.take_found(kind, *observed),
            Answer::NotFound if control == Control::Works => diff.record_removal(kind, id, RemovalReason::NotFound),
            _ => {}
        }
    }
    Ok(())
}
