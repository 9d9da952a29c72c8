//! Before anything is published: read everything, ask about what is missing, let the guard judge.
//!
//! **A removal needs proof**: a complete walk, and for each id a GET that says 404 or 410 while the same kind of GET
//! finds an id that the walk listed. What is not proven stays as it was.

mod ask;
mod guard;
mod members;
mod observation;
mod proof;
pub mod refusal;
mod short;
mod walk;

use crate::directory::{Changes, Diff, GroupPattern, Id, Kind, Known, Problem, ReasonCode, Rules, SyncStatus};
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batches;
use super::owned::Writing;
use super::stream::{Stream, can_stream};
use crate::account::Account;
use crate::failpoint::{self, Point};
use crate::log::Log;
use crate::memory::Reserved;
use crate::source::Directory;
use guard::{Judgement, judge};
use observation::{BUDGET, Control, Observation};
pub use refusal::Refusal;
use refusal::failed;
use walk::walk;

/// One sync, however slow the vendor: a million users at ten requests a minute take less.
const SYNC_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Modified that long before the last completed sync began is read once more: clocks differ, and servers state when a
/// change was made, not when it became visible. Milliseconds.
const OVERLAP_MS: i64 = 600_000;

/// Reads the directory and computes what is to be published. Fills in what the attempt's record says about it.
///
/// # Errors
/// The directory cannot be read truthfully, or a person has to look first.
pub(super) async fn observe<D: Directory, L: Log>(
    writing: Writing<'_, L>,
    known: &mut Known,
    directory: &D,
    attempt: &mut SyncStatus,
    batches: &mut Batches,
) -> Result<Changes, Refusal> {
    let Writing { account, clock, .. } = writing;
    let since = modified_since(account, known, attempt.started_at);
    let rules = rules(account, known, attempt);
    // No time of a sync is before its beginning, which is not before any time that was recorded.
    let not_before = attempt.started_at;
    let now = || clock().max(not_before);
    let (mut diff, mut stream) = if can_stream(known) {
        (Diff::growing(known, rules), Some(Stream::new(writing, batches, attempt)))
    } else {
        (Diff::against(known, rules), None)
    };
    let looked = look(account, directory, &mut diff, attempt, since, now, stream.as_mut()).await;
    if let Some(stream) = &mut stream {
        stream.settle(&mut diff).await?;
    }
    let vanishing = looked?;
    failpoint::hit(Point::DiffBefore);
    Ok(diff.finish(&vanishing, now()))
}

/// The difference that an attempt computes, before it has read anything.
pub(super) fn diff<'k>(account: &Account, known: &'k Known, attempt: &SyncStatus) -> Diff<'k> {
    Diff::against(known, rules(account, known, attempt))
}

fn rules(account: &Account, known: &Known, attempt: &SyncStatus) -> Rules {
    // The lists of the newest *completed* sync: an attempt that failed has completed nothing under its own.
    let previous = known.completed.as_ref().map(|completed| &completed.settings);
    let read = known.kinds_read();
    Rules {
        baseline: account.baseline,
        first: [!read.users, !read.groups],
        first_sync: known.is_first(),
        first_memberships: !read.memberships,
        shown_before: false,
        repair: known.repair.is_some(),
        previous_attributes: previous.map(|settings| settings.attributes.clone()),
        attributes: account.attributes.clone(),
        previous_pattern: previous
            .and_then(|settings| settings.group_pattern.as_deref())
            .and_then(|text| GroupPattern::parse(text).ok()),
        pattern: account.pattern.clone(),
        empty_members_are_none: account.habits.empty_members_are_none,
        get_shows_members: account.habits.get_shows_members,
        member_cap: account.habits.member_cap,
        publish_unlisted: account.habits.publish_unlisted,
        window_start: known.completed.as_ref().map(|completed| completed.started_at),
        not_before: attempt.started_at,
    }
}

/// Between two full walks, where the profile allows that: from when on modifications are read. Never after a restart,
/// because only this process remembers its last full walk.
fn modified_since(account: &Account, known: &Known, now: i64) -> Option<i64> {
    let (every, walked_at) = (account.habits.full_walk_every?, known.walked_at?);
    let last = known.completed.as_ref()?.started_at;
    (now - walked_at < every).then_some(last - OVERLAP_MS)
}

/// When the last full walk that completed began, at the latest: only a full walk asks for the hidden ones. Milliseconds
/// since 1970-01-01 UTC.
fn last_full_walk(account: &Account, known: &Known) -> i64 {
    let completed = proof::last_completed(known);
    match account.habits.full_walk_every {
        None => completed,
        Some(every) => known.walked_at.unwrap_or(completed.saturating_sub(every)),
    }
}

/// Walks the directory into `diff` and decides. Fills in what the attempt's record says about it. Returns the
/// attributes whose loss counts against a release. `since`: only what was modified since then is read, and no principal
/// is missing. Times are milliseconds since 1970-01-01 UTC. `stream` writes what a first sync has read.
///
/// # Errors
/// The directory cannot be read truthfully, or a person has to look first.
pub(super) async fn look<D: Directory>(
    account: &Account,
    directory: &D,
    diff: &mut Diff<'_>,
    attempt: &mut SyncStatus,
    since: Option<i64>,
    now: impl Fn() -> i64,
    stream: Option<&mut Stream<'_>>,
) -> Result<BTreeSet<String>, Refusal> {
    let seen = Observation {
        account,
        directory,
        diff,
        stream,
        attempt,
        since,
        memory: Reserved::default(),
        walks: Default::default(),
        controls: [None; 2],
    };
    // On the heap, because what it holds over its waits is large.
    let looking = Box::pin(read_and_judge(seen, now));
    tokio::time::timeout_at(Instant::now() + SYNC_WAIT, looking).await.unwrap_or_else(|_| {
        let problem = Problem::new(format!("the sync took longer than {} h", SYNC_WAIT.as_secs() / 3600))
            .with_remedy("ask the vendor for higher limits");
        Err(failed(ReasonCode::SyncTimeout, problem))
    })
}

async fn read_and_judge<D: Directory>(
    mut seen: Observation<'_, '_, '_, D>,
    now: impl Fn() -> i64,
) -> Result<BTreeSet<String>, Refusal> {
    let seen = &mut seen;
    read_lists(seen).await?;
    let hidden = weigh_gets(seen).await;
    hold_early(seen).await?;
    settle_missing(seen, hidden).await?;
    read_members(seen, now).await?;
    note_active(seen);
    // And last, on what is now known to be true.
    match judge(seen) {
        Judgement { held: Some((reason, hold)), .. } => Err(Refusal::Held(reason, Box::new(hold))),
        Judgement { vanishing, .. } => Ok(vanishing),
    }
}

/// Walks every list that the directory serves. What is known of a kind that it does not serve stays as it is.
async fn read_lists<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) -> Result<(), Refusal> {
    let strategy = seen.account.habits.memberships.unwrap_or_else(|| members::remembered(seen.diff.known()));
    let shown_before = seen.diff.known().has_shown_members_by(strategy);
    seen.diff.read_memberships_by(strategy, shown_before);
    if !seen.served().contains(&Kind::Group) {
        seen.diff.mark_unread(Kind::Group);
    }
    for kind in seen.served() {
        if seen.since.is_some() {
            // A principal that was not modified is not listed, and nothing follows from that.
            seen.diff.mark_unread(*kind);
        }
        seen.walks[*kind as usize] = walk(seen, *kind).await?;
        let read = seen.since.is_none().then(|| seen.diff.listed(*kind) as i64);
        match kind {
            Kind::User => {
                seen.attempt.users_read = read;
                note_empty(seen, read);
            }
            Kind::Group => seen.attempt.groups_read = read,
        }
    }
    if seen.account.habits.memberships.is_none() && seen.since.is_none() {
        members::find_out(seen).await;
    }
    Ok(())
}

/// Finds out what a GET is worth here, because that decides what "missing" means. A GET is tried only if a principal is
/// to be asked for. Returns the hidden principals that are due to be asked for, by kind.
async fn weigh_gets<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) -> [Vec<Id>; 2] {
    let mut hidden: [Vec<Id>; 2] = Default::default();
    let since = last_full_walk(seen.account, seen.diff.known());
    for kind in Kind::BOTH {
        let mut budget = BUDGET;
        let mut due = proof::due(seen.diff.hidden(kind), since, seen.attempt, &mut budget);
        let mut renamed = seen.diff.newly_aside(kind);
        renamed.retain(|id| !due.contains(id));
        renamed.truncate(budget);
        due.append(&mut renamed);
        if !seen.diff.missing(kind).is_empty() || !due.is_empty() {
            let control = proof::control(seen, kind).await;
            seen.controls[kind as usize] = Some(control);
            if control == Control::NotAvailable && seen.diff.listed(kind) > 0 {
                seen.diff.rely_on_absence(kind);
            }
        }
        hidden[kind as usize] = due;
    }
    hidden
}

/// Lets the guard judge before anything is asked for, because it is cheap: every missing principal counts as lost.
///
/// # Errors
/// The guard holds, and the lists are not to blame.
async fn hold_early<D: Directory>(seen: &mut Observation<'_, '_, '_, D>) -> Result<(), Refusal> {
    if judge(seen).held.is_none() {
        return Ok(());
    }
    // Unless that is only what lists leave out of groups: GET knows better than a person would.
    members::confirm_groups(seen).await;
    if judge(seen).held.is_some() && seen.lists_are_whole() {
        // A list that says itself that it is short is not a reason to ask a person for a release.
        for kind in seen.served() {
            short::complete(seen, *kind).await?;
        }
    }
    let Some((mut reason, mut hold)) = judge(seen).held else { return Ok(()) };
    let hidden = proof::sample(seen, &hold.losses).await?;
    if hidden > 0 {
        // A principal that turns out to be hidden was disabled, not removed: the hold covers both.
        hold.losses.disabled += hidden;
        reason.problem.what.push_str("; some of those missing still answer, inactive: they would be disabled");
    }
    Err(Refusal::Held(reason, Box::new(hold)))
}

/// Asks for every missing principal, and for the hidden ones that are due.
async fn settle_missing<D: Directory>(
    seen: &mut Observation<'_, '_, '_, D>,
    mut hidden: [Vec<Id>; 2],
) -> Result<(), Refusal> {
    for kind in seen.served() {
        if let Some(control) = seen.controls[*kind as usize] {
            let due = std::mem::take(&mut hidden[*kind as usize]);
            proof::prove(seen, *kind, control, due).await?;
        }
        if seen.lists_are_whole() {
            // Rows slide between pages: a second walk and the union of both decide.
            short::complete(seen, *kind).await?;
        }
    }
    Ok(())
}

/// Reads memberships, and asks about members that no list shows and about groups that lost some.
async fn read_members<D: Directory>(
    seen: &mut Observation<'_, '_, '_, D>,
    now: impl Fn() -> i64,
) -> Result<(), Refusal> {
    members::recheck_dangling(seen).await;
    if seen.since.is_none() {
        members::read_memberships(seen, now).await?;
    } else {
        // Those of the rows that came are read; all the others stay as they were.
        members::settle_rows(seen.diff);
    }
    members::ask_members(seen).await;
    members::reread_groups(seen).await;
    members::confirm_groups(seen).await;
    Ok(())
}

/// Some endpoints take what is pushed to them and list no user, by policy. That is not a directory without users.
fn note_empty<D>(seen: &mut Observation<'_, '_, '_, D>, read: Option<i64>) {
    if read != Some(0) {
        return;
    }
    let hint = seen.account.habits.no_list_hint.as_deref().unwrap_or(
        "check for the wrong directory, a token that may not see users, or an endpoint that only accepts pushes",
    );
    seen.attempt.find(format!("Users: no user is listed; → {hint}"));
}

/// Unknown never replaces a known value, but a person has to hear of it.
fn note_active<D>(seen: &mut Observation<'_, '_, '_, D>) {
    let contradictory = seen.diff.contradictory();
    if contradictory > 0 {
        seen.attempt.find(format!(
            "Users: rows of {contradictory} users contradict each other on `active`, which counts as unknown; \
             → ask the vendor why they are listed twice"
        ));
    }
    let lost = seen.diff.without_known_active();
    if lost > 0 {
        seen.attempt.find(format!(
            "Users: `active` is no longer stated for {lost} of the users who had it, and stays as last seen; \
             → if that means deactivated: [account.profile] absent_active = \"false\""
        ));
    }
}
