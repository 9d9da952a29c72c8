//! A list that is short of its own total: walked once more, and then one of four kinds of list.

use super::observation::{Observation, Walked};
use super::refusal::{BLIND_SYNCS, Refusal, failed};
use super::walk::walk;
use crate::directory::{Kind, Problem, RawHash, ReasonCode, Set};
use crate::source::{Directory, RawRow};

/// Where the list is short of its own total: walks it once more, and judges the union of both walks.
///
/// # Errors
/// It is still short. Says what the list does, with the remedy for that.
pub(super) async fn complete<D: Directory>(seen: &mut Observation<'_, '_, '_, D>, kind: Kind) -> Result<(), Refusal> {
    if !is_short(seen, kind) {
        return Ok(());
    }
    if !seen.walks[kind as usize].twice {
        // The second walk counts them again.
        seen.attempt.unreadable_rows -= seen.walks[kind as usize].unread as i64;
        let second = walk(seen, kind).await?;
        seen.walks[kind as usize] = Walked { twice: true, ..second };
    }
    if is_short(seen, kind) {
        let problem = shortage(seen, kind).await.of(kind.endpoint());
        let (known, attempt) = (seen.diff.known(), &seen.attempt);
        let again = known.latest.as_ref().is_some_and(|latest| latest.reason_code == Some(ReasonCode::WalkIncomplete));
        let blind = again && attempt.sync - known.base() >= BLIND_SYNCS;
        let problem = if blind { problem.of("removals cannot be seen") } else { problem };
        return Err(failed(ReasonCode::WalkIncomplete, problem));
    }
    Ok(())
}

/// True where fewer principals were seen or settled than the server says there are.
fn is_short<D>(seen: &Observation<'_, '_, '_, D>, kind: Kind) -> bool {
    (seen.diff.accounted_for(kind) as u64) < seen.walks[kind as usize].total
}

/// Which of four lists this is: one that is counted and not shown, one whose pages overlap always alike, one whose total
/// counts rows of which several are the same principal, or one whose total counts what is never listed.
async fn shortage<D: Directory>(seen: &Observation<'_, '_, '_, D>, kind: Kind) -> Problem {
    let walked = &seen.walks[kind as usize];
    let (total, read) = (walked.total, seen.diff.accounted_for(kind));
    let short = |what: String| {
        let half = "could be read, twice, and a sync does not complete on half a list";
        Problem::new(format!("{read} of {total} {half}. {what}"))
    };
    if walked.received == 0 {
        // So does Keycloak answer credentials that may only query (keycloak issue 50800).
        return short("The total counts them, and none is shown".to_owned()).with_remedy(
            "if that does not pass, give the credentials the right to read them, and not only to count them",
        );
    }
    if walked.repeats_itself {
        return short("Its second page holds only rows of the first one, so startIndex is ignored".to_owned())
            .with_remedy(format!("[account.profile] page_size = {total}, if the server sends so many at once"));
    }
    // A row that is on two pages may be either: a list on one page shows which.
    let doubled = walked.doubled > 0
        || walked.repeated > 0
            && seen.directory.in_one_page(kind, total).await.is_some_and(|rows| has_doubles(&rows, total));
    if !doubled && walked.repeated > 0 {
        return short(format!(
            "Its pages overlap: {} of {} rows were shown before, and as many are never shown",
            walked.repeated, walked.received
        ))
        .with_remedy(format!("[account.profile] page_size large enough for one page, e.g. page_size = {total}"));
    }
    if doubled {
        return short(format!(
            "It lists the same id more than once ({} of {} rows), and its total counts rows",
            walked.doubled + walked.repeated,
            walked.received
        ))
        .with_remedy("[account.profile] trust_total = false");
    }
    short(format!("The total is {} higher than what is listed", total.saturating_sub(read as u64))).with_remedy(
        "if that does not pass, the total means something else here: [account.profile] trust_total = false, \
         or inactive = \"hidden\" where only active users are listed",
    )
}

/// A page that holds the whole list, with fewer different rows than its total.
fn has_doubles(rows: &[RawRow], total: u64) -> bool {
    let different: Set<RawHash> = rows.iter().map(|row| row.hash).collect();
    rows.len() as u64 >= total && (different.len() as u64) < total
}
