//! Reading all pages of one kind into the diff.

use crate::directory::{Diff, Id, Kind, Problem, Readable, ReasonCode, Row, SyncStatus};
use std::collections::BTreeSet;
use std::pin::pin;

use futures::StreamExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::observation::{Observation, Walked};
use super::refusal::{Refusal, failed, unreadable};
use crate::account::Account;
use crate::memory::{OverBudget, Reserved};
use crate::source::{Directory, Page, Parsed, RawRow};
use crate::telemetry::Metric;

/// Pages in a row without a new id, while the server goes on offering cursors.
const BARREN_PAGES_MAX: usize = 100;
/// Rows parsed before the diff takes them: a bound on memory beside the page itself.
const ROWS_AT_ONCE: usize = 2_000;
/// Below this, moving to a thread for blocking work costs more than it saves.
const BLOCKING_MIN: usize = 200;
/// Rows that cannot be read and are named; the others are only counted.
const ROWS_NAMED: usize = 10;

/// Rows that cannot be read, or not in full: the first of them, and how many there are.
#[derive(Default)]
struct UnreadRows {
    /// Which one, and what of it.
    named: BTreeSet<(String, String)>,
    count: usize,
}

impl UnreadRows {
    fn take(&mut self, row: (String, String)) {
        self.count += 1;
        if self.named.len() < ROWS_NAMED {
            self.named.insert(row);
        }
    }
}

/// Reads all pages of one kind.
pub(super) async fn walk<D: Directory>(seen: &mut Observation<'_, '_, '_, D>, kind: Kind) -> Result<Walked, Refusal> {
    let begun = Instant::now();
    let mut unread = UnreadRows::default();
    let mut walked = match walk_once(seen, kind, &mut unread).await? {
        Some(walk) => walk,
        // The directory remembered pages whose rows are not recognised any more, and has forgotten them now.
        None => {
            let again = walk_once(seen, kind, &mut unread).await?;
            again.ok_or_else(|| {
                let problem = Problem::new("a page is not sent again").of(kind.endpoint()).with_remedy("try later");
                failed(ReasonCode::StalePage, problem)
            })?
        }
    };
    note_unread(kind, &unread, seen.diff, seen.attempt);
    walked.unread = unread.count;
    // A single row is not a list, and a delta may hold one that is bad.
    if seen.since.is_none() && walked.received > 1 && seen.diff.without_id(kind) == walked.received {
        let problem = Problem::new(format!("not one of {} rows can be read: no usable `id`", walked.received))
            .of(kind.endpoint())
            .with_remedy("ask the vendor whether this is SCIM 2.0");
        return Err(failed(ReasonCode::NotAResource, problem));
    }
    if seen.since.is_none() {
        let labels = [("account", seen.account.name.as_str()), ("kind", kind.principal_type())];
        Metric::WalkDuration.took(begun.elapsed(), labels);
    }
    Ok(walked)
}

/// `None`: a page has to be sent again, see [`Parsed::Stale`].
async fn walk_once<D: Directory>(
    seen: &mut Observation<'_, '_, '_, D>,
    kind: Kind,
    unread: &mut UnreadRows,
) -> Result<Option<Walked>, Refusal> {
    let (directory, diff) = (seen.directory, &mut *seen.diff);
    let mut stream = seen.stream.as_deref_mut().filter(|_| kind == Kind::User);
    let mut walk = Walked::default();
    let mut barren = 0;
    let mut pages = pin!(directory.list(kind, seen.since));
    diff.begin_walk(kind);
    *unread = UnreadRows::default();
    while let Some(page) = pages.next().await {
        let page = page.map_err(unreadable)?;
        if page.restarted {
            // What was read stays read; what is new is judged from here.
            diff.begin_walk(kind);
            *unread = UnreadRows::default();
            (walk, barren) = (Walked::default(), 0);
        }
        // The largest that any page states: a total that shrinks inside the walk means that rows slid.
        walk.total = walk.total.max(page.total.unwrap_or(0));
        let (received, mut fresh) = (page.rows.len(), 0);
        for (number, rows) in page.rows.chunks(ROWS_AT_ONCE).enumerate() {
            let first = walk.received + number * ROWS_AT_ONCE;
            let read = on_a_blocking_thread(rows.len(), || read(directory, diff, kind, &page, rows, first, unread));
            let Some(rows) = read else { return Ok(None) };
            if let Some(stream) = &mut stream {
                stream.settle(diff).await?;
            }
            fresh += diff.take_page(kind, rows);
        }
        walk.received += received + page.repeated + page.doubled;
        walk.repeated += page.repeated;
        // Rows with other bytes and the same id.
        walk.doubled += page.doubled + (received - fresh);
        walk.pages += 1;
        barren = if fresh == 0 { barren + 1 } else { 0 };
        bounded(seen.account, &mut seen.memory, diff, kind, &page)?;
        if let Some(stream) = &mut stream {
            stream.write(diff).await?;
        }
        if page.more {
            // The server says that there is more: only its word ends a walk by cursor, or our patience.
            if barren == BARREN_PAGES_MAX {
                let remedy = match seen.account.habits.paging_is_fixed {
                    true => "ask the vendor",
                    false => "[account.profile] paging = \"index\", or ask the vendor",
                };
                let problem =
                    Problem::new("cursor after cursor is offered without a new row, and the end is not in sight")
                        .of(kind.endpoint())
                        .with_remedy(remedy);
                return Err(failed(ReasonCode::PagingEndless, problem));
            }
        } else if fresh == 0 && received > 0 {
            // A page without a new id is the end: the walk went round, or the server repeats itself for ever.
            walk.repeats_itself = walk.pages == 2;
            break;
        }
    }
    Ok(Some(walk))
}

/// A directory without end must not take the memory of the others.
fn bounded(account: &Account, memory: &mut Reserved, diff: &Diff<'_>, kind: Kind, page: &Page) -> Result<(), Refusal> {
    let principals = Kind::BOTH.iter().map(|kind| diff.listed(*kind) + diff.unpublishable(*kind)).sum::<usize>();
    if principals > account.max_principals {
        let problem = Problem::new(format!("the directory has more than {} users and groups", account.max_principals))
            .of(kind.endpoint())
            .with_remedy("if it really has: [account.limits] max_principals");
        return Err(failed(ReasonCode::TooManyPrincipals, problem));
    }
    memory.set(diff.kept_bytes() + page.bytes).map_err(|OverBudget { mib }| {
        let problem =
            Problem::new(format!("reading this directory would take more than the memory budget of {mib} MiB"))
                .of(kind.endpoint())
                .with_remedy("[limits] memory, or [account.limits] max_principals if the directory should be smaller");
        failed(ReasonCode::MemoryBudget, problem)
    })
}

/// Parsing thousands of rows takes long enough to keep a thread of the runtime from other accounts.
fn on_a_blocking_thread<T>(rows: usize, work: impl FnOnce() -> T) -> T {
    let many = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if many && rows >= BLOCKING_MIN { tokio::task::block_in_place(work) } else { work() }
}

/// Parses the rows whose bytes are not recognised. `None`: one has to be sent again.
fn read<D: Directory>(
    directory: &D,
    diff: &Diff<'_>,
    kind: Kind,
    page: &Page,
    rows: &[RawRow],
    first: usize,
    unread: &mut UnreadRows,
) -> Option<Vec<Row>> {
    let each = rows.iter().map(|row| {
        if let Some(id) = diff.recognise(kind, row.hash) {
            return Some(Row::Same(row.hash, id.clone()));
        }
        match directory.read(kind, page, row) {
            Parsed::Resource(observed) => Some(Row::Read(observed)),
            Parsed::NoId => Some(Row::NoId),
            Parsed::Aside(id) => Some(Row::Aside(id)),
            Parsed::Stale => None,
        }
    });
    // All of them, so that the directory hears of each one that has to be sent again.
    let rows: Vec<Option<Row>> = each.collect();
    let rows: Vec<Row> = rows.into_iter().collect::<Option<_>>()?;
    for (number, row) in rows.iter().enumerate() {
        if let Some(row) = unread_row(row, first + number + 1) {
            unread.take(row);
        }
    }
    Some(rows)
}

/// Whose row it is and what of it cannot be read; `number`: of the row in its list, from 1.
fn unread_row(row: &Row, number: usize) -> Option<(String, String)> {
    match row {
        Row::Same(..) | Row::Aside(_) => None,
        Row::NoId => Some((format!("row {number}"), "no usable id".to_owned())),
        Row::Read(observed) => match &observed.readable {
            Readable::Whole => None,
            Readable::Without(names) => Some((observed.principal.id.to_string(), names.join(", "))),
            Readable::IdOnly => Some((observed.principal.id.to_string(), "all but its id".to_owned())),
        },
    }
}

/// Says which rows could not be read: the sync goes on without them.
fn note_unread(kind: Kind, unread: &UnreadRows, diff: &Diff<'_>, attempt: &mut SyncStatus) {
    if unread.count == 0 {
        return;
    }
    attempt.unreadable_rows += unread.count as i64;
    let named: Vec<String> = unread.named.iter().map(|(row, what)| format!("{} ({what})", printable(row))).collect();
    let more = unread.count.saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let blind = if diff.without_id(kind) > 0 {
        ", and no removal is taken from this list, because it is not known whose row has no id"
    } else {
        ""
    };
    attempt.find(format!(
        "{}: {} cannot be read in full: {}{more}; what is known of them stays{blind}",
        kind.endpoint(),
        if unread.count == 1 { "1 row".to_owned() } else { format!("{} rows", unread.count) },
        named.join(", ")
    ));
}

/// Names the first of some ids that come from the server.
pub(super) fn named(ids: &BTreeSet<Id>) -> String {
    let shown: Vec<String> = ids.iter().take(ROWS_NAMED).map(|id| printable(id)).collect();
    let more = ids.len().saturating_sub(ROWS_NAMED);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// Ids come from the server: nothing of them may steer a terminal or a log.
fn printable(id: &str) -> String {
    const SHOWN_MAX: usize = 64;
    let shown: String = id.chars().take(SHOWN_MAX).collect();
    shown.escape_debug().to_string()
}
