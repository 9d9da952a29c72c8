//! Why a directory could not be read.

use std::fmt;

use crate::directory::{Kind, ReasonCode};

/// A failed read: a code for machines and metrics, words for people. Never holds text of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    pub code: ReasonCode,
    pub text: String,
    /// HTTP status of an answer that is a refusal.
    pub status: Option<u16>,
}

impl ReadError {
    pub fn new(code: ReasonCode, text: impl Into<String>) -> ReadError {
        ReadError { code, text: text.into(), status: None }
    }

    /// The same failure of one list, with the name of the list in front.
    #[must_use]
    pub fn of(self, kind: Kind) -> ReadError {
        ReadError { text: format!("{}: {}", kind.endpoint(), self.text), ..self }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ReadError {}

impl crate::source::ReadFailure for ReadError {
    fn code(&self) -> ReasonCode {
        self.code.clone()
    }
}
