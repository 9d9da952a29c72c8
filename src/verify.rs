//! Before anything is published: read everything, ask about what is missing, let the guard judge.
//!
//! **A removal needs proof** (design §5): a complete walk, and for each id a GET that says 404 or 410 while
//! the same kind of GET finds an id that the walk listed. What is not proven stays as it was.

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::directory::status::Reason;
use crate::directory::{Diff, Evidence, HoldId, Id, Kind, Known, Losses, RemovalReason, Row, SyncStatus, guard};
use crate::pipeline::{Account, Answer, Directory, Page, RawRow, ReadFailure};

/// GETs under way at once.
const GETS_AT_ONCE: usize = 8;
/// Missing ids asked where the guard already holds: enough to see that a list is broken.
const SAMPLE: usize = 20;
/// Members that no list shows, asked in one sync.
const UNLISTED_MEMBERS_MAX: usize = 200;

/// Principals of one kind in one directory.
const ROWS_MAX: usize = 10_000_000;
/// One walk, however slow the vendor: a million users at ten requests a minute take less.
const WALK_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Rows parsed before the diff takes them: a bound on memory beside the page itself.
const ROWS_AT_ONCE: usize = 2_000;
/// Below this, starting a thread costs more than it saves.
const TWO_THREADS_MIN: usize = 200;

/// What became of the attempt to read the directory.
pub enum Verdict {
    /// Publish; the attributes whose loss counts against a release.
    Admitted(BTreeSet<String>),
    Failed(Reason),
    Held(Reason, HoldId),
}

/// Walks the directory into `diff` and decides. Fills in what the attempt's record says about it.
pub async fn observe<D: Directory>(
    account: &Account,
    directory: &D,
    diff: &mut Diff<'_>,
    known: &Known,
    attempt: &mut SyncStatus,
) -> Verdict {
    match try_observe(account, directory, diff, known, attempt).await {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

async fn try_observe<D: Directory>(
    account: &Account,
    directory: &D,
    diff: &mut Diff<'_>,
    known: &Known,
    attempt: &mut SyncStatus,
) -> Result<Verdict, Verdict> {
    let mut totals = [0; 2];
    for kind in Kind::BOTH {
        totals[kind as usize] = walk(directory, diff, kind).await?;
        let read = Some(diff.listed(kind) as i64);
        match kind {
            Kind::User => attempt.users_read = read,
            Kind::Group => attempt.groups_read = read,
        }
    }

    // The guard comes first because it is cheap: everything missing counts as lost until somebody asks.
    if judge(account, diff, known, attempt).held.is_some() {
        // Unless that is only what lists leave out of groups: GET knows better than a person would.
        confirm_groups(directory, diff).await;
        if let Some((reason, hold)) = judge(account, diff, known, attempt).held {
            sample(directory, diff, attempt.sync).await?;
            return Err(Verdict::Held(reason, hold));
        }
    }
    for kind in Kind::BOTH {
        prove(directory, diff, known, kind).await?;
        if account.trust_total && short(diff, kind, totals[kind as usize]) {
            // Rows slide between pages (scim.md §0.3): a second walk and the union of both decide.
            let total = walk(directory, diff, kind).await?;
            if short(diff, kind, total) {
                return Err(failed("walk_incomplete", incomplete(diff, kind, total)));
            }
        }
    }
    ask_members(directory, diff).await;
    reread_groups(directory, diff).await;
    confirm_groups(directory, diff).await;

    // And last, on what is now known to be true.
    match judge(account, diff, known, attempt) {
        Judgement { held: Some((reason, hold)), .. } => Err(Verdict::Held(reason, hold)),
        Judgement { vanishing, .. } => Ok(Verdict::Admitted(vanishing)),
    }
}

/// Reads all pages of one kind; returns the largest total that any page stated.
async fn walk<D: Directory>(directory: &D, diff: &mut Diff<'_>, kind: Kind) -> Result<u64, Verdict> {
    let mut total = 0;
    let mut pages = pin!(directory.list(kind));
    let deadline = Instant::now() + WALK_WAIT;
    diff.begin_walk(kind);
    loop {
        let next = tokio::time::timeout_at(deadline, pages.next()).await;
        let Some(page) = next.map_err(|_| failed("walk_timeout", too_long(kind)))? else { break };
        let page = page.map_err(unreadable)?;
        total = total.max(page.total.unwrap_or(0));
        let (received, mut fresh) = (page.rows.len(), 0);
        for rows in page.rows.chunks(ROWS_AT_ONCE) {
            let rows = read(directory, diff, kind, &page, rows).map_err(unreadable)?;
            fresh += diff.page(kind, rows);
        }
        // A page without a new id is the end: the walk went round, or the server repeats itself for ever.
        if fresh == 0 && received > 0 {
            break;
        }
        if diff.listed(kind) > ROWS_MAX {
            let text = format!("{} has more than {ROWS_MAX} rows", kind.endpoint());
            return Err(failed("too_many_rows", text));
        }
    }
    Ok(total)
}

/// Parses the rows whose bytes are not recognised. Where the first one is not, most are new (a first load, a
/// restart), and a second thread takes half of them.
fn read<D: Directory>(
    directory: &D,
    diff: &Diff<'_>,
    kind: Kind,
    page: &Page,
    rows: &[RawRow],
) -> Result<Vec<Row>, D::Error> {
    let read = |rows: &[RawRow]| -> Result<Vec<Row>, D::Error> {
        let each = rows.iter().map(|row| {
            if diff.recognises(kind, row.hash) {
                return Ok(Row::Same(row.hash));
            }
            directory.read(kind, page, row).map(|observed| Row::Read(Box::new(observed)))
        });
        each.collect()
    };
    let known = rows.first().is_none_or(|row| diff.recognises(kind, row.hash));
    if known || rows.len() < TWO_THREADS_MIN {
        return read(rows);
    }
    let (here, there) = rows.split_at(rows.len() / 2);
    std::thread::scope(|scope| {
        let there = scope.spawn(|| read(there));
        let here = read(here);
        let there = there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let mut rows = here?;
        rows.extend(there?);
        Ok(rows)
    })
}

fn too_long(kind: Kind) -> String {
    format!("the walk of {} took longer than {} h", kind.endpoint(), WALK_WAIT.as_secs() / 3600)
}

fn unreadable(error: impl std::fmt::Display + ReadFailure) -> Verdict {
    failed(error.code(), error.to_string())
}

fn failed(code: &'static str, text: String) -> Verdict {
    Verdict::Failed(Reason { code, text })
}

/// True where fewer principals were seen or settled than the server says there are.
fn short(diff: &Diff<'_>, kind: Kind, total: u64) -> bool {
    ((diff.listed(kind) + diff.answered(kind)) as u64) < total
}

fn incomplete(diff: &Diff<'_>, kind: Kind, total: u64) -> String {
    format!(
        "{} of {total} {} could be read, twice; nothing is published from half a list",
        diff.listed(kind) + diff.answered(kind),
        kind.endpoint(),
    )
}

struct Judgement {
    held: Option<(Reason, HoldId)>,
    vanishing: BTreeSet<String>,
}

/// Lets the guard look, and a release cover what the guard would hold. The guard does not apply to a
/// first sync: there is nothing that anybody relies on yet.
fn judge(account: &Account, diff: &Diff<'_>, known: &Known, attempt: &SyncStatus) -> Judgement {
    if known.is_first() {
        return Judgement { held: None, vanishing: BTreeSet::new() };
    }
    let limits = &account.limits;
    let mut evidence = diff.evidence();
    let vanishes = |losing: u64, holding: u64| losing as f64 > limits.max_ratio * holding as f64;
    let vanishing = diff.vanishing(limits.min_losses, vanishes, &mut evidence);
    let Some(losses) = guard::excess(&evidence, limits) else {
        return Judgement { held: None, vanishing };
    };
    let covered = attempt.release.as_ref().is_some_and(|release| {
        release.hold.base == known.base() && release.left.is_some_and(|left| losses.within(&left))
    });
    if covered {
        return Judgement { held: None, vanishing };
    }
    let reason = Reason { code: "mass_change", text: in_words(&losses, &evidence, account) };
    Judgement { held: Some((reason, HoldId { base: known.base(), losses })), vanishing }
}

/// A hold may only be a broken list: ask a sample of what is missing. One alive, and the list lies.
async fn sample<D: Directory>(directory: &D, diff: &Diff<'_>, sync: i64) -> Result<(), Verdict> {
    for kind in Kind::BOTH {
        let mut missing = diff.missing_unexpectedly(kind);
        missing.sort_by_key(|id| xxh3_64_with_seed(id.as_bytes(), sync as u64));
        missing.truncate(SAMPLE);
        let alive = ask(directory, kind, missing).await.iter().any(|(_, answer)| matches!(answer, Answer::Found(_)));
        if alive {
            let endpoint = kind.endpoint();
            let text = format!("{endpoint} that the list leaves out still answer one by one: the list is incomplete");
            return Err(failed("list_incomplete", text));
        }
    }
    Ok(())
}

fn in_words(losses: &Losses, evidence: &Evidence, account: &Account) -> String {
    let of = |count: u64, population: u64, what: &str| (count > 0).then(|| format!("{count} of {population} {what}"));
    let parts: Vec<String> = [
        of(losses.users, evidence.users, "users would go"),
        of(losses.groups, evidence.groups, "groups would go"),
        of(losses.memberships, evidence.memberships, "memberships would go"),
        of(losses.disabled, evidence.enabled_users, "users would be disabled"),
        (losses.attributes > 0).then(|| format!("{} principals would lose an attribute", losses.attributes)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let limits = &account.limits;
    format!(
        "{}; the limit is {} % (from {} losses) or {}",
        parts.join(", "),
        limits.max_ratio * 100.0,
        limits.min_losses,
        limits.max_absolute
    )
}

async fn ask<D: Directory>(directory: &D, kind: Kind, ids: Vec<Id>) -> Vec<(Id, Answer)> {
    let asked = ids.into_iter().map(|id| async move {
        let answer = directory.get(kind, &id).await;
        (id, answer)
    });
    futures::stream::iter(asked).buffered(GETS_AT_ONCE).collect().await
}

/// Settles what the walk of one kind left out.
async fn prove<D: Directory>(directory: &D, diff: &mut Diff<'_>, known: &Known, kind: Kind) -> Result<(), Verdict> {
    let missing = diff.missing(kind);
    if missing.is_empty() {
        return Ok(());
    }
    let list_is_empty = diff.listed(kind) == 0;
    let control_kind = match kind {
        _ if !list_is_empty => kind,
        Kind::User => Kind::Group,
        Kind::Group => Kind::User,
    };
    // 404 says "gone" only where the same server, asked the same way, finds what it lists.
    let control = match diff.a_listed_id(control_kind) {
        Some(id) => matches!(directory.get(control_kind, &id).await, Answer::Found(_)),
        None => false,
    };
    let answers = ask(directory, kind, missing).await;
    if list_is_empty && answers.iter().any(|(_, answer)| matches!(answer, Answer::Found(_))) {
        let text = format!("the list of {} is empty, but they answer one by one", kind.endpoint());
        return Err(failed("list_incomplete", text));
    }
    // An empty list was held before it came here; released and empty again, it is its own proof.
    let empty_before = known.latest.as_ref().is_some_and(|latest| {
        let read = if kind == Kind::User { latest.users_read } else { latest.groups_read };
        read == Some(0)
    });
    for (id, answer) in answers {
        match answer {
            Answer::Found(observed) => diff.found(kind, *observed),
            Answer::NotFound if control => diff.gone(kind, id, RemovalReason::NotFound),
            _ if list_is_empty && empty_before && !known.is_first() => diff.gone(kind, id, RemovalReason::Absent),
            // Kept, and shown in `removals_suppressed`.
            _ => {}
        }
    }
    Ok(())
}

/// Members that no list shows are published only if GET finds them. Who is not asked, or gets no answer, is
/// asked in the next sync.
async fn ask_members<D: Directory>(directory: &D, diff: &mut Diff<'_>) {
    let mut members = diff.unlisted_members();
    members.truncate(UNLISTED_MEMBERS_MAX);
    let untyped: HashSet<Id> =
        members.iter().filter(|member| member.kind.is_none()).map(|member| member.id.clone()).collect();
    let mut groups = Vec::new();
    for kind in Kind::BOTH {
        let of_kind = members.iter().filter(|member| member.kind.unwrap_or(Kind::User) == kind);
        let mut ids: Vec<Id> = of_kind.map(|member| member.id.clone()).collect();
        if kind == Kind::Group {
            ids.append(&mut groups);
        }
        for (id, answer) in ask(directory, kind, ids).await {
            match answer {
                Answer::Found(observed) => diff.found(kind, *observed),
                // Where the type is not stated, it may still be a group.
                Answer::NotFound | Answer::NotOffered if kind == Kind::User && untyped.contains(&id) => groups.push(id),
                Answer::NotFound | Answer::NotOffered => diff.nobody(id),
                Answer::Unproven => {}
            }
        }
    }
}

/// Groups whose dangling member appeared after they were listed are read again.
async fn reread_groups<D: Directory>(directory: &D, diff: &mut Diff<'_>) {
    for (_, answer) in ask(directory, Kind::Group, diff.rereads()).await {
        if let Answer::Found(observed) = answer {
            diff.reread(*observed);
        }
    }
}

/// GET of a group has to agree that it lost members.
async fn confirm_groups<D: Directory>(directory: &D, diff: &mut Diff<'_>) {
    let answers = ask(directory, Kind::Group, diff.groups_that_lost_members()).await;
    // Where no group can be asked, the completely read list is all there is. One that refuses while others answer
    // proves nothing.
    let offered = answers.iter().any(|(_, answer)| !matches!(answer, Answer::NotOffered));
    for (group, answer) in answers {
        match answer {
            Answer::Found(observed) => diff.confirm_group(&group, Some(observed.members)),
            Answer::NotOffered if !offered => {}
            Answer::NotFound | Answer::NotOffered | Answer::Unproven => diff.confirm_group(&group, None),
        }
    }
}
