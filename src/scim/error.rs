//! Why a directory could not be read.

use std::fmt;

use crate::directory::{Kind, Problem, Reason, ReasonCode};

/// A failed read: a code for machines and metrics, words for people. Never holds text of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    pub code: ReasonCode,
    pub problem: Problem,
    /// HTTP status of an answer that is a refusal.
    pub status: Option<u16>,
}

impl ReadError {
    pub fn new(code: ReasonCode, problem: impl Into<Problem>) -> ReadError {
        ReadError { code, problem: problem.into(), status: None }
    }

    /// The same failure with what to do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> ReadError {
        ReadError { problem: self.problem.with_remedy(remedy), ..self }
    }

    /// The same failure of one list, with the name of the list in front.
    #[must_use]
    pub fn of(self, kind: Kind) -> ReadError {
        ReadError { problem: self.problem.of(kind.endpoint()), ..self }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for ReadError {}

impl From<ReadError> for Reason {
    fn from(error: ReadError) -> Reason {
        Reason { code: error.code, problem: error.problem }
    }
}
