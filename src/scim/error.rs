//! Why a directory could not be read.

use std::fmt;

use crate::directory::Kind;

/// A failed read: a code for machines and metrics, words for people. Never holds text of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// One of the constants below.
    pub code: &'static str,
    pub text: String,
    /// HTTP status of an answer that is a refusal.
    pub status: Option<u16>,
}

pub const UNREACHABLE: &str = "unreachable";
pub const REFUSED: &str = "credentials_refused";
/// The secret cannot be read from its place.
pub const NO_CREDENTIAL: &str = "credential_unreadable";
pub const NOT_A_TOKEN: &str = "not_a_token_response";
pub const NOT_A_LIST: &str = "not_a_list_response";
pub const NOT_A_RESOURCE: &str = "not_a_resource";
/// `count` is larger than the server permits.
pub const PAGE_SIZE: &str = "page_size_refused";
pub const HTTP_STATUS: &str = "http_status";
/// 429 or 5xx after all tries: the vendor, not the configuration.
pub const UNAVAILABLE: &str = "unavailable";
pub const TOO_LARGE: &str = "body_too_large";
pub const PAGING_IGNORED: &str = "paging_ignored";
pub const PAGING_ENDLESS: &str = "paging_endless";
/// RFC 9865 §2.1: `expiredCursor` or `invalidCursor`.
pub const CURSOR_REFUSED: &str = "cursor_refused";
pub const TOO_MANY_ROWS: &str = "too_many_rows";
pub const TOO_MANY_PAGES: &str = "too_many_pages";
pub const REDIRECTED: &str = "redirected";

impl ReadError {
    pub fn new(code: &'static str, text: impl Into<String>) -> ReadError {
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
    fn code(&self) -> &'static str {
        self.code
    }
}
