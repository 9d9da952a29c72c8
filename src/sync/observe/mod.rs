//! Before anything is published: read everything, ask about what is missing, let the guard judge.
//!
//! **A removal needs proof**: a complete walk, and for each id a GET that says 404 or 410 while the same kind of GET
//! finds an id that the walk listed. What is not proven stays as it was.

mod ask;
mod guard;
mod members;
mod proof;
pub mod refusal;
mod walk;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::owned::OwnedAccount;
use crate::account::Account;
use crate::directory::{AttributeList, Changes, Diff, GroupPattern, Id, Kind, Known, Rules, SyncStatus};
use crate::failpoint::{self, Point};
use crate::log::Log;
use crate::memory::Reserved;
use crate::source::Directory;
use guard::{Judgement, judge};
use proof::Control;
pub use refusal::Refusal;
use refusal::failed;
use walk::{Bounds, Walk, walk};

/// GETs of one sync for principals known as hidden, members known as dangling and members that no list shows. What is
/// missing unexpectedly is asked beside that, within the guard's limits or a person's release.
const BUDGET: usize = 200;
/// One sync, however slow the vendor: a million users at ten requests a minute take less.
const SYNC_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Modified that long before the last completed sync began is read once more: clocks differ, and servers state when a
/// change was made, not when it became visible. Milliseconds.
const OVERLAP_MS: i64 = 600_000;

/// Reads the directory and computes what is to be published. Fills in what the attempt's record says about it.
///
/// # Errors
/// The directory cannot be read truthfully, or a person has to look first.
pub async fn observe<D: Directory, L: Log>(
    owned: &OwnedAccount<L>,
    directory: &D,
    attempt: &mut SyncStatus,
) -> Result<Changes, Refusal> {
    let OwnedAccount { account, known, .. } = owned;
    let since = modified_since(account, known, attempt.started_at);
    let mut diff = diff(account, known, attempt);
    let vanishing = look(account, known, directory, &mut diff, attempt, since, || owned.now()).await?;
    failpoint::hit(Point::DiffBefore);
    Ok(diff.finish(&vanishing, owned.now()))
}

/// The difference that an attempt computes, before it has read anything.
pub(super) fn diff<'k>(account: &Account, known: &'k Known, attempt: &SyncStatus) -> Diff<'k> {
    // The lists of the newest *completed* sync: an attempt that failed has published nothing under its own.
    let previous = known.completed.as_ref().map(|completed| &completed.settings);
    let read = known.kinds_read();
    let rules = Rules {
        baseline: account.baseline,
        first: [!read.users, !read.groups],
        first_sync: known.is_first(),
        first_memberships: !read.memberships,
        shown_before: false,
        repair: known.repair.is_some(),
        previous_attributes: previous.map(|settings| AttributeList::new(settings.attributes.clone())),
        attributes: account.attributes.clone(),
        previous_pattern: previous
            .and_then(|settings| settings.group_pattern.as_deref())
            .and_then(|text| GroupPattern::parse(text).ok()),
        pattern: account.pattern.clone(),
        empty_members_are_none: account.habits.empty_members_are_none,
        member_cap: account.habits.member_cap,
        publish_unlisted: account.habits.publish_unlisted,
        window_start: known.completed.as_ref().map(|completed| completed.started_at),
        not_before: attempt.started_at,
    };
    Diff::against(known, rules)
}

/// Between two full walks, where the profile allows that: from when on modifications are read. Never after a restart,
/// because only this process remembers its last full walk.
fn modified_since(account: &Account, known: &Known, now: i64) -> Option<i64> {
    let (every, walked_at) = (account.habits.full_walk_every?, known.walked_at?);
    let last = known.completed.as_ref()?.started_at;
    (now - walked_at < every).then_some(last - OVERLAP_MS)
}

/// Walks the directory into `diff` and decides. Fills in what the attempt's record says about it. Returns the
/// attributes whose loss counts against a release. `since`: only what was modified since then is read, and no principal
/// is missing. Times are milliseconds since 1970-01-01 UTC.
///
/// # Errors
/// The directory cannot be read truthfully, or a person has to look first.
pub(super) async fn look<D: Directory>(
    account: &Account,
    known: &Known,
    directory: &D,
    diff: &mut Diff<'_>,
    attempt: &mut SyncStatus,
    since: Option<i64>,
    now: impl Fn() -> i64,
) -> Result<BTreeSet<String>, Refusal> {
    // On the heap, because what it holds over its waits is large.
    let looking = Box::pin(read_and_judge(account, known, directory, diff, attempt, since, now));
    tokio::time::timeout_at(Instant::now() + SYNC_WAIT, looking).await.unwrap_or_else(|_| {
        let text =
            format!("the sync took longer than {} h; → ask the vendor for higher limits", SYNC_WAIT.as_secs() / 3600);
        Err(failed("sync_timeout", text))
    })
}

async fn read_and_judge<D: Directory>(
    account: &Account,
    known: &Known,
    directory: &D,
    diff: &mut Diff<'_>,
    attempt: &mut SyncStatus,
    since: Option<i64>,
    now: impl Fn() -> i64,
) -> Result<BTreeSet<String>, Refusal> {
    let by_profile = account.habits.memberships;
    let strategy = by_profile.unwrap_or_else(|| members::remembered(known));
    diff.read_memberships_by(strategy, known.has_shown_members_by(strategy));
    let mut bounds = Bounds { account, known, memory: Reserved::default() };
    let mut walks: [Walk; 2] = Default::default();
    for kind in served(account, diff) {
        if since.is_some() {
            // A principal that was not modified is not listed, and nothing follows from that.
            diff.mark_unread(kind);
        }
        walks[kind as usize] = walk(&mut bounds, directory, diff, kind, since, attempt).await?;
        let read = since.is_none().then(|| diff.listed(kind) as i64);
        match kind {
            Kind::User => attempt.users_read = read,
            Kind::Group => attempt.groups_read = read,
        }
    }
    if by_profile.is_none() && since.is_none() {
        members::find_out(directory, diff, known, attempt).await;
    }

    // What a GET is worth here decides what "missing" means. It is tried only if a principal is to be asked for.
    let mut budget = BUDGET;
    let mut controls = [None; 2];
    let mut hidden: [Vec<Id>; 2] = Default::default();
    for kind in Kind::BOTH {
        hidden[kind as usize] = proof::due(diff.hidden(kind), known, attempt, &mut budget);
        if !diff.missing(kind).is_empty() || !hidden[kind as usize].is_empty() {
            let control = proof::control(account, directory, diff, kind).await;
            controls[kind as usize] = Some(control);
            if control == Control::NotAvailable && diff.listed(kind) > 0 {
                diff.rely_on_absence(kind);
            }
        }
    }
    // The guard comes first because it is cheap: every missing principal counts as lost until it is asked for.
    if judge(account, diff, known, attempt).held.is_some() {
        // Unless that is only what lists leave out of groups: GET knows better than a person would.
        members::confirm_groups(directory, diff, attempt).await;
        if judge(account, diff, known, attempt).held.is_some() {
            // A list that says itself that it is short is not a reason to ask a person for a release.
            for kind in complete_lists(account, diff, since) {
                walks[kind as usize].again(&mut bounds, directory, diff, kind, attempt).await?;
            }
        }
        if let Some((mut reason, mut hold)) = judge(account, diff, known, attempt).held {
            let hidden = proof::sample(account, directory, diff, &hold.losses, attempt.sync).await?;
            if hidden > 0 {
                // A principal that turns out to be hidden was disabled, not removed: the hold covers both.
                hold.losses.disabled += hidden;
                reason.text.push_str("; some of those missing still answer, inactive: they would be disabled");
            }
            return Err(Refusal::Held(reason, hold));
        }
    }
    for kind in served(account, diff) {
        if let Some(control) = controls[kind as usize] {
            let due = std::mem::take(&mut hidden[kind as usize]);
            proof::prove(directory, diff, known, kind, control, due, attempt).await?;
        }
        if complete_lists(account, diff, since).contains(&kind) {
            // Rows slide between pages: a second walk and the union of both decide.
            walks[kind as usize].again(&mut bounds, directory, diff, kind, attempt).await?;
        }
    }
    members::recheck_dangling(directory, diff, known, attempt, &mut budget).await;
    if since.is_none() {
        members::read_memberships(account, directory, diff, attempt, &now).await?;
    } else {
        // Those of the rows that came are read; all the others stay as they were.
        members::settle_rows(diff);
    }
    members::ask_members(account, directory, diff, &mut controls[Kind::User as usize], &mut budget).await;
    members::reread_groups(directory, diff).await;
    members::confirm_groups(directory, diff, attempt).await;
    note_active(diff, attempt);

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
    diff.mark_unread(Kind::Group);
    vec![Kind::User]
}

/// The kinds whose lists have to reach their totals.
fn complete_lists(account: &Account, diff: &mut Diff<'_>, since: Option<i64>) -> Vec<Kind> {
    if since.is_some() || !account.habits.trust_total { Vec::new() } else { served(account, diff) }
}

/// Unknown never replaces a known value, but a person has to hear of it.
fn note_active(diff: &Diff<'_>, attempt: &mut SyncStatus) {
    let contradictory = diff.contradictory();
    if contradictory > 0 {
        attempt.find(format!(
            "Users: rows of {contradictory} users contradict each other on `active`, which counts as unknown; \
             → ask the vendor why they are listed twice"
        ));
    }
    let lost = diff.without_known_active();
    if lost > 0 {
        attempt.find(format!(
            "Users: `active` is no longer stated for {lost} of the users who had it, and stays as last seen; \
             → if that means deactivated: [account.profile] absent_active = \"false\""
        ));
    }
}
