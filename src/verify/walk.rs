//! Reading all pages of one kind into the diff.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::{Refusal, failed, unreadable};
use crate::directory::{Diff, Kind, Row};
use crate::pipeline::{Directory, Page, RawRow, STALE_PAGE};

/// Principals of one kind in one directory.
const ROWS_MAX: usize = 10_000_000;
/// Changed principals of one sync in memory: a first load of five million users takes about 3 GiB.
const KEPT_BYTES_MAX: usize = 8 << 30;
/// One walk, however slow the vendor: a million users at ten requests a minute take less.
const WALK_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Pages in a row without a new id, while the server goes on offering cursors.
const BARREN_PAGES_MAX: usize = 100;

/// Rows parsed before the diff takes them: a bound on memory beside the page itself.
const ROWS_AT_ONCE: usize = 2_000;
/// Below this, starting a thread costs more than it saves.
const TWO_THREADS_MIN: usize = 200;

/// Reads all pages of one kind; returns the largest total that any page stated.
pub(super) async fn walk<D: Directory>(
    directory: &D,
    diff: &mut Diff<'_>,
    kind: Kind,
    since: Option<i64>,
) -> Result<u64, Refusal> {
    match walk_once(directory, diff, kind, since).await {
        Err(Refusal::Failed(reason)) if reason.code == STALE_PAGE => walk_once(directory, diff, kind, since).await,
        walked => walked,
    }
}

async fn walk_once<D: Directory>(
    directory: &D,
    diff: &mut Diff<'_>,
    kind: Kind,
    since: Option<i64>,
) -> Result<u64, Refusal> {
    let mut total = 0;
    let mut barren = 0;
    let mut pages = pin!(directory.list(kind, since));
    let deadline = Instant::now() + WALK_WAIT;
    diff.begin_walk(kind);
    loop {
        let next = tokio::time::timeout_at(deadline, pages.next()).await;
        let Some(page) = next.map_err(|_| failed("walk_timeout", too_long(kind)))? else { break };
        let page = page.map_err(unreadable)?;
        if page.restarted {
            // What was read stays read; what is new is judged from here.
            diff.begin_walk(kind);
            barren = 0;
        }
        // The largest that any page states: a total that shrinks inside the walk means that rows slid.
        total = total.max(page.total.unwrap_or(0));
        let (received, mut fresh) = (page.rows.len(), 0);
        for rows in page.rows.chunks(ROWS_AT_ONCE) {
            let rows = read(directory, diff, kind, &page, rows).map_err(unreadable)?;
            fresh += diff.page(kind, rows);
        }
        barren = if fresh == 0 { barren + 1 } else { 0 };
        if page.more {
            // The server says that there is more: only its word ends a walk by cursor, or our patience.
            if barren == BARREN_PAGES_MAX {
                let text = format!(
                    "{} offers cursor after cursor without a new row: its end is not in sight",
                    kind.endpoint()
                );
                return Err(failed("paging_endless", text));
            }
        } else if fresh == 0 && received > 0 {
            // A page without a new id is the end: the walk went round, or the server repeats itself for ever.
            break;
        }
        if diff.listed(kind) > ROWS_MAX || diff.kept_bytes() > KEPT_BYTES_MAX {
            let text = format!(
                "{} is larger than {ROWS_MAX} rows or {} GiB of changes in one sync",
                kind.endpoint(),
                KEPT_BYTES_MAX >> 30
            );
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
