//! What people ask of an account through the `control` topic: release, pause, resume, poll.
//!
//! A request takes effect in the transaction that stores its offset, so nothing is applied twice and nothing
//! expires (contract.md, ControlRequest).

use tracing::{info, warn};

use crate::avro::wire::ControlRequest;
use crate::directory::status::{Pause, Release};
use crate::directory::{HoldId, Known, SyncStatus};

/// A request and where it stands.
#[derive(Clone, Debug)]
pub struct Request {
    pub offset: i64,
    pub content: ControlRequest,
}

/// The actions there are.
pub const ACTIONS: [&str; 4] = ["release", "pause", "resume", "poll"];

/// The record that `request` leads to, and whether a sync is due at once. `None`: it already took effect.
pub fn apply(known: &Known, request: &Request) -> Option<(SyncStatus, bool)> {
    let latest = known.latest.as_ref()?;
    if request.offset < latest.control_offset {
        return None;
    }
    let mut status = SyncStatus { control_offset: request.offset + 1, ..latest.clone() };
    let content = &request.content;
    let account = &content.account;
    let mut due = false;
    match content.action.as_str() {
        "release" => match content.hold_id.as_deref().and_then(HoldId::parse) {
            // Nothing is released in advance: there has to be a hold that somebody looked at.
            Some(hold) if hold.base == known.base() && latest.hold.is_some() => {
                info!(account, hold = %hold, "released");
                let left = Some(hold.losses);
                status.hold = Some(hold.clone());
                status.release = Some(Release { by: content.requested_by.clone(), hold, left });
                due = true;
            }
            _ => warn!(account, "a release was ignored: nothing is held on the last completed sync"),
        },
        "pause" => {
            let (by, reason) = (content.requested_by.clone(), content.reason.clone());
            status.pause = Some(Pause { by, at: content.requested_at, reason });
            info!(account, "paused");
        }
        "resume" => {
            status.pause = None;
            due = true;
            info!(account, "resumed");
        }
        "poll" => due = true,
        // Carried out by whoever asked, before this is read; the record is the trace.
        "reseed" | "retire" => {}
        _ => warn!(account, "a control request with an unknown action was ignored"),
    }
    Some((status, due))
}
