//! Before anything is published: read everything, ask about what is missing, let the guard judge.
//!
//! **A removal needs proof** (design §5): a complete walk, and for each id a GET that says 404 or 410 while
//! the same kind of GET finds an id that the walk listed. What is not proven stays as it was.

mod judge;
mod members;
mod proof;
mod walk;

use std::collections::BTreeSet;

use crate::directory::status::Reason;
use crate::directory::{Diff, HoldId, Id, Kind, Known, SyncStatus};
use crate::pipeline::{Account, Directory, ReadFailure};
use judge::{Judgement, judge};
use proof::Control;
use walk::walk;

/// GETs under way at once.
const GETS_AT_ONCE: usize = 8;
/// GETs of one sync for principals known as hidden, members known as dangling and members that no list shows. What is
/// missing unexpectedly is asked beside that, within the guard's limits or a person's release.
const BUDGET: usize = 200;

/// Code of a sync whose lists stayed short of their own totals.
pub const WALK_INCOMPLETE: &str = "walk_incomplete";
/// Attempts in a row after which that is an alert: removals cannot be seen meanwhile.
pub const BLIND_SYNCS: i64 = 3;

/// Why nothing of an attempt is published.
pub enum Refusal {
    Failed(Reason),
    Held(Reason, HoldId),
}

/// Walks the directory into `diff` and decides. Fills in what the attempt's record says about it. Returns the
/// attributes whose loss counts against a release.
/// `since`: only what was modified since then is read, nobody is missing. Times are milliseconds since 1970-01-01 UTC.
///
/// # Errors
/// The directory cannot be read truthfully, or a person has to look first.
pub async fn observe<D: Directory>(
    account: &Account,
    directory: &D,
    diff: &mut Diff<'_>,
    known: &Known,
    attempt: &mut SyncStatus,
    since: Option<i64>,
    now: impl Fn() -> i64,
) -> Result<BTreeSet<String>, Refusal> {
    let strategy = directory.strategy().await.map_err(unreadable)?;
    diff.read_memberships_by(strategy);
    let mut totals = [0; 2];
    for kind in served(account, diff) {
        if since.is_some() {
            // Whoever was not modified is not listed, and nothing follows from that.
            diff.unread(kind);
        }
        totals[kind as usize] = walk(directory, diff, kind, since).await?;
        let read = since.is_none().then(|| diff.listed(kind) as i64);
        match kind {
            Kind::User => attempt.users_read = read,
            Kind::Group => attempt.groups_read = read,
        }
    }

    // What a GET is worth here decides what "missing" means; asked only where somebody is to be asked for.
    let mut budget = BUDGET;
    let mut controls = [None; 2];
    let mut hidden: [Vec<Id>; 2] = Default::default();
    for kind in Kind::BOTH {
        hidden[kind as usize] = proof::due(diff.hidden(kind), known, attempt, &mut budget);
        if !diff.missing(kind).is_empty() || !hidden[kind as usize].is_empty() {
            let control = proof::control(account, directory, diff, kind).await;
            controls[kind as usize] = Some(control);
            if control == Control::NotAvailable && diff.listed(kind) > 0 {
                diff.absence_is_the_rule(kind);
            }
        }
    }
    // The guard comes first because it is cheap: everything missing counts as lost until somebody asks.
    if judge(account, diff, known, attempt).held.is_some() {
        // Unless that is only what lists leave out of groups: GET knows better than a person would.
        members::confirm_groups(directory, diff).await;
        if let Some((mut reason, mut hold)) = judge(account, diff, known, attempt).held {
            let hidden = proof::sample(account, directory, diff, attempt.sync).await?;
            if hidden > 0 {
                // Whoever turns out hidden was disabled, not removed: the hold covers either.
                hold.losses.disabled += hidden;
                reason.text.push_str("; some of those missing still answer, inactive: they would be disabled");
            }
            return Err(Refusal::Held(reason, hold));
        }
    }
    for kind in served(account, diff) {
        if let Some(control) = controls[kind as usize] {
            proof::prove(directory, diff, known, kind, control, std::mem::take(&mut hidden[kind as usize])).await?;
        }
        if since.is_none() && account.habits.trust_total && short(diff, kind, totals[kind as usize]) {
            // Rows slide between pages (scim.md §0.3): a second walk and the union of both decide.
            let total = walk(directory, diff, kind, None).await?;
            if short(diff, kind, total) {
                return Err(failed(WALK_INCOMPLETE, incomplete(diff, kind, total, known, attempt)));
            }
        }
    }
    members::recheck_dangling(directory, diff, known, attempt, &mut budget).await;
    if since.is_none() {
        members::read_memberships(account, directory, diff, strategy, now).await?;
    } else {
        // Those of the rows that came are read; all the others stay as they were.
        members::settle_rows(diff, strategy);
    }
    members::ask_members(account, directory, diff, &mut controls[Kind::User as usize], &mut budget).await;
    members::reread_groups(directory, diff).await;
    members::confirm_groups(directory, diff).await;

    // And last, on what is now known to be true.
    match judge(account, diff, known, attempt) {
        Judgement { held: Some((reason, hold)), .. } => Err(Refusal::Held(reason, hold)),
        Judgement { vanishing, .. } => Ok(vanishing),
    }
}

/// The kinds this directory serves. What is known of the others stays as it is.
fn served(account: &Account, diff: &mut Diff<'_>) -> Vec<Kind> {
    if account.habits.groups {
        return Kind::BOTH.to_vec();
    }
    diff.unread(Kind::Group);
    vec![Kind::User]
}

fn unreadable(error: impl std::fmt::Display + ReadFailure) -> Refusal {
    failed(error.code(), error.to_string())
}

fn failed(code: &'static str, text: String) -> Refusal {
    Refusal::Failed(Reason { code, text })
}

/// True where fewer principals were seen or settled than the server says there are.
fn short(diff: &Diff<'_>, kind: Kind, total: u64) -> bool {
    (diff.accounted_for(kind) as u64) < total
}

fn incomplete(diff: &Diff<'_>, kind: Kind, total: u64, known: &Known, attempt: &SyncStatus) -> String {
    let text = format!(
        "{} of {total} {} could be read, twice; nothing is published from half a list",
        diff.accounted_for(kind),
        kind.endpoint(),
    );
    let again = known.latest.as_ref().is_some_and(|latest| latest.reason_code.as_deref() == Some(WALK_INCOMPLETE));
    if !again || attempt.sync - known.base() < BLIND_SYNCS {
        return text;
    }
    format!(
        "removals cannot be seen: {text}; → if totalResults of this directory means something else, \
         [account.profile] trust_total = false"
    )
}
