//! Why nothing of an attempt is published.

use crate::directory::{HoldId, Reason, ReasonCode};
use crate::source::ReadFailure;

/// Attempts in a row after which that is an alert: removals cannot be seen meanwhile.
pub const BLIND_SYNCS: i64 = 3;

pub enum Refusal {
    /// The directory cannot be read truthfully.
    Failed(Reason),
    /// A person has to look first.
    Held(Reason, HoldId),
}

pub(super) fn unreadable(error: impl std::fmt::Display + ReadFailure) -> Refusal {
    failed(error.code(), error.to_string())
}

pub(super) fn failed(code: ReasonCode, text: String) -> Refusal {
    Refusal::Failed(Reason::new(code, text))
}
