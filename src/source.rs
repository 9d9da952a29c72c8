//! A directory as a sync sees it: lists of rows, and answers about single ids.
//!
//! [`Directory`] is a trait because it has several implementations: SCIM (`scim`), Okta's own API (`okta`), and one in
//! memory in the tests.

use std::future::Future;

use bytes::Bytes;
use futures::Stream;

use crate::directory::{Id, Kind, Observed, RawHash, Reason};

/// A directory that can be walked.
pub trait Directory: Sync {
    type Error: std::fmt::Display + Into<Reason> + Send;

    /// All pages of one kind; ends complete or in an error. `since`, milliseconds since 1970-01-01 UTC: only what was
    /// modified since then, which says nothing about the others.
    fn list(&self, kind: Kind, since: Option<i64>) -> impl Stream<Item = Result<Page, Self::Error>> + Send;

    /// Parses a row whose bytes are not recognised.
    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed;

    /// Asks for one principal by its id.
    fn get(&self, kind: Kind, id: &Id) -> impl Future<Output = Answer> + Send;

    /// The first page of a list, asked for with room for `count` rows: whether pages overlap, or rows repeat, shows
    /// where there is one page only. `None`: it cannot be told.
    fn in_one_page(&self, kind: Kind, count: u64) -> impl Future<Output = Option<Vec<RawRow>>> + Send {
        let _ = (kind, count);
        async { None }
    }

    /// Ids of `kind` whose `attribute` is `id` (RFC 7644 §3.4.2.2). A filter is never proof of absence.
    ///
    /// # Errors
    /// The filter is refused, or the answer is not a list.
    fn matching(
        &self,
        kind: Kind,
        attribute: &'static str,
        id: &Id,
    ) -> impl Future<Output = Result<Vec<Id>, Self::Error>> + Send;
}

/// What a row turned out to be.
#[derive(Clone, Debug)]
pub enum Parsed {
    Resource(Box<Observed>),
    /// It has no usable id, so that it is not known whose row it is.
    NoId,
    /// The directory lists it, and the account does not read it. If it is known, it stays, and GET tells its changes.
    Aside(Id),
    /// The server did not send its bytes again (HTTP 304), although they are not recognised any more. The directory has
    /// forgotten what it remembered of its pages: the walk begins again, once.
    Stale,
}

/// A row as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRow {
    pub hash: RawHash,
    pub bytes: RowBytes,
}

/// The bytes of a row, as far as they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowBytes {
    Sent(Bytes),
    /// The server did not send them again (HTTP 304, RFC 9110 §15.4.5): they are what they were.
    Unchanged,
}

impl RowBytes {
    /// The bytes; `None` if they were not sent.
    pub fn sent(&self) -> Option<&Bytes> {
        match self {
            RowBytes::Sent(bytes) => Some(bytes),
            RowBytes::Unchanged => None,
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub rows: Vec<RawRow>,
    /// The walk began again with this page (its cursor had expired, its paging was ignored).
    pub restarted: bool,
    /// The server offers more (RFC 9865 `nextCursor`), whatever this page brings.
    pub more: bool,
    /// Rows that an earlier page of the walk held with the same bytes; they are not among `rows`.
    pub repeated: usize,
    /// Rows that this page holds twice with the same bytes; once among `rows`.
    pub doubled: usize,
    /// `totalResults`, where readable.
    pub total: Option<u64>,
    /// Of its body, decompressed.
    pub bytes: usize,
    /// The server's clock minus ours, milliseconds.
    pub skew: Option<i64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub received_at: i64,
}

/// What a GET of one id says.
#[derive(Clone, Debug)]
pub enum Answer {
    Found(Box<Observed>),
    /// 404 or 410: gone, if a control GET of a listed id answers.
    NotFound,
    /// 405 or 501: this directory does not offer GET.
    NotOffered,
    /// 403: it may offer GET to others.
    Forbidden,
    /// Anything else proves nothing; says what it was, e.g. `HTTP 500`.
    Unproven(String),
}
