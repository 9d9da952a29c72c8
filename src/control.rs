//! What people ask of an account through the `control` topic: release, pause, resume, poll.
//!
//! A request takes effect in the transaction that stores its offset. So no request is applied twice, and none expires
//! (`schemas/ControlRequest.avsc`).

use tracing::{info, warn};

use crate::avro::wire::ControlRequest;
use crate::directory::status::{Pause, Release};
use crate::directory::{HoldId, Known, SyncStatus};
use crate::failpoint::{self, Point};
use crate::log::{CommitError, Ended, Log};
use crate::sync::OwnedAccount;

/// Bytes of `requested_by` and `reason` that are kept. A request may hold a million bytes of each, and the account's
/// record has to hold them beside everything else in one message.
pub const TEXT_BYTES_MAX: usize = 1 << 10;

/// A request and its offset in the `control` partition.
#[derive(Clone, Debug)]
pub struct Request {
    pub offset: i64,
    pub content: ControlRequest,
}

impl Request {
    /// A request as it was read, with its texts cut to [`TEXT_BYTES_MAX`]: many may wait for one account.
    pub fn read(offset: i64, mut content: ControlRequest) -> Request {
        cut(&mut content.requested_by);
        content.reason.iter_mut().for_each(cut);
        // Actions and holds are never that long.
        cut(&mut content.action);
        content.hold_id = content.hold_id.filter(|hold| hold.len() <= TEXT_BYTES_MAX);
        Request { offset, content }
    }
}

/// Cuts a text to [`TEXT_BYTES_MAX`], between two characters, and gives back the memory of the rest.
fn cut(text: &mut String) {
    let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text.shrink_to_fit();
}

/// The record that `request` leads to, and whether a sync is due at once. `None`: it already took effect.
pub fn apply(known: &Known, request: &Request) -> Option<(SyncStatus, bool)> {
    let latest = known.latest.as_ref()?;
    if request.offset < latest.control_offset {
        return None;
    }
    let mut status = SyncStatus { control_offset: request.offset + 1, ..latest.clone() };
    let content = &request.content;
    let mut due = false;
    match content.action.as_str() {
        "release" => match content.hold_id.as_deref().and_then(HoldId::parse) {
            // Nothing is released in advance: the request names a hold that a person looked at.
            Some(hold) if hold.base == known.base() && latest.hold.is_some() => {
                let left = Some(hold.losses);
                status.hold = Some(hold.clone());
                status.release = Some(Release { by: content.requested_by.clone(), hold, left });
                due = true;
            }
            _ => warn!("a release was ignored: nothing is held on the last completed sync"),
        },
        "pause" => {
            let (by, reason) = (content.requested_by.clone(), content.reason.clone());
            status.pause = Some(Pause { by, at: content.requested_at, reason });
        }
        "resume" => {
            status.pause = None;
            due = true;
        }
        "poll" => due = true,
        // The command carried these out before this record is read; the record is the trace.
        "reseed" | "retire" => {}
        _ => warn!("a control request with an unknown action was ignored"),
    }
    Some((status, due))
}

/// Records what `request` leads to, once; true: a sync is due at once.
///
/// A request whose record cannot be written is passed over, and only its offset is recorded. Read again and again, the
/// request would end one acquisition after the other, with all accounts of the shard.
///
/// # Errors
/// The end of the acquisition, also if not even the offset can be recorded.
pub async fn carry_out<L: Log>(owned: &mut OwnedAccount<L>, request: &Request) -> Result<bool, Ended> {
    let Some((status, mut due)) = apply(&owned.known, request) else { return Ok(false) };
    let before = owned.known.latest.clone();
    failpoint::hit(Point::ControlBefore);
    match owned.record_latest(status).await {
        Ok(_) => tell(before.as_ref(), owned.known.latest.as_ref()),
        // Only the next owner can tell whether it is recorded.
        Err(CommitError::Ended(ended)) => return Err(ended),
        Err(CommitError::Aborted(reason)) => {
            let offset = request.offset;
            warn!(offset, reason, "a control request is skipped: it cannot be recorded");
            if let Some(latest) = before {
                let passed = SyncStatus { control_offset: offset + 1, ..latest };
                owned.record_latest(passed).await.map_err(CommitError::into_ended)?;
            }
            due = false;
        }
    }
    failpoint::hit(Point::ControlAfter);
    Ok(due)
}

/// Logs what a request changed, once the change is recorded.
fn tell(before: Option<&SyncStatus>, after: Option<&SyncStatus>) {
    let (Some(before), Some(after)) = (before, after) else { return };
    if let Some(release) = after.release.as_ref().filter(|_| after.release != before.release) {
        info!(hold = %release.hold, "released");
    }
    match (&before.pause, &after.pause) {
        (before, Some(pause)) if before.as_ref() != Some(pause) => info!("paused"),
        (Some(_), None) => info!("resumed"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ControlRequest {
        let reason = Some(text.to_owned());
        let content = ControlRequest { requested_by: text.to_owned(), reason, ..ControlRequest::default() };
        Request::read(0, content).content
    }

    #[test]
    fn texts_of_a_request_are_cut_between_two_characters_where_they_are_long() {
        for (text, kept) in [
            (String::new(), 0),
            ("x".repeat(TEXT_BYTES_MAX), TEXT_BYTES_MAX),
            ("x".repeat(1_000_000), TEXT_BYTES_MAX),
            ("ü".repeat(1_000), TEXT_BYTES_MAX),
            (format!("x{}", "ü".repeat(1_000)), TEXT_BYTES_MAX - 1),
            (format!("x{}", "🦀".repeat(1_000)), TEXT_BYTES_MAX - 3),
        ] {
            let request = read(&text);
            assert_eq!(request.requested_by, text[..kept]);
            assert_eq!(request.reason.as_deref(), Some(&text[..kept]));
            assert!(request.requested_by.capacity() <= TEXT_BYTES_MAX, "the rest takes no memory");
        }
    }
}
