//! Why nothing (more) of an attempt is published.

use crate::directory::{HoldId, Problem, Reason, ReasonCode};
use crate::log::CommitError;

/// Attempts in a row after which that is an alert: removals cannot be seen meanwhile.
pub const BLIND_SYNCS: i64 = 3;

pub enum Refusal {
    /// The directory cannot be read truthfully.
    Failed(Reason),
    /// A person has to look first.
    Held(Reason, Box<HoldId>),
    /// What a first sync wrote while it read is not committed.
    NotCommitted(CommitError),
}

pub(super) fn unreadable(error: impl Into<Reason>) -> Refusal {
    Refusal::Failed(error.into())
}

pub(super) fn failed(code: ReasonCode, problem: impl Into<Problem>) -> Refusal {
    Refusal::Failed(Reason::new(code, problem))
}
