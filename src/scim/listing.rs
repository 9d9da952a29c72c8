//! Walks as a stream of pages that is complete or ends in an error: by index (RFC 7644 §3.4.2.4), by cursor (RFC
//! 9865), by `.search` (RFC 7644 §3.4.3), or in one answer.
//!
//! **How a walk ends.** It advances by rows received, never by `itemsPerPage`. It ends at a page without rows, of any
//! form, or at one that brings no new row. It never ends at a short page, because a silent cap looks like the end. Some
//! servers refuse the page behind the last row (400, 404): that is the end too, if their own total says that nothing is
//! missing. A cursor is used only if it is advertised or offered, and then only the server's word that there is no next
//! one ends the walk. Totals decide afterwards whether everything was listed.

use crate::directory::{Id, Kind, RawHash, ReasonCode, Set};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use async_stream::try_stream;
use futures::{Stream, StreamExt};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use url::Url;

use super::client::{Client, Reply};
use super::envelope::{self, ListPage};
use super::error::ReadError;
use super::http::Body;
use super::learnt::{Learnt, RememberedPage};
use super::places::{Places, split_expected};
use super::profile::Paging;
use super::refusal::refusal;
use super::value;
use crate::source::{Page, RawRow, RowBytes};

/// Times that a walk begins again because its cursor was no longer accepted.
pub const CURSOR_RESTARTS_MAX: usize = 3;
/// After a page that is too large, pages this many times smaller are asked for.
const SMALLER: u32 = 10;
/// Page sizes that are tried after a server refused the one it was asked for, to name one that it takes.
const SIZES_TRIED: [u32; 4] = [50, 25, 10, 1];
/// Bytes of a body that is split on a thread of its own.
const LARGE_BODY: usize = 1 << 20;
/// Bytes of bodies that are under way for an account. If one page has more, the page behind it is asked for when that
/// page is done with.
const ALONE_BODY: usize = 4 << 20;

/// Where in a walk a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Index(usize),
    /// `None`: the first page.
    Cursor(Option<String>),
    Search(usize),
    Everything,
}

/// A page and what the server says comes after it.
#[derive(Default)]
struct Fetched {
    page: Page,
    next_cursor: Option<String>,
    /// False if a first page of this form is not a list, rather than an empty one.
    is_an_answer: bool,
    /// How many rows of the last walk lie before the page that comes next, if the order is the same.
    place: usize,
}

/// Ids of all rows that a filter matches.
///
/// # Errors
/// As a walk, and more rows than a directory may have.
pub async fn matching(client: &Client, learnt: &Learnt, kind: Kind, filter: String) -> Result<Vec<Id>, ReadError> {
    let attributes = client.profile().request_attributes.then(|| "id".to_owned());
    let mut pages = pin!(pages(client.clone(), learnt.clone(), Query { kind, filter: Some(filter), attributes }));
    let mut ids: Set<Id> = Set::default();
    while let Some(page) = pages.next().await {
        for row in page?.rows {
            let broken =
                || ReadError::new(ReasonCode::NotAResource, "a row that a filter found has no usable `id`").of(kind);
            ids.insert(row.bytes.sent().and_then(|bytes| value::id_of(bytes)).ok_or_else(broken)?);
        }
        if ids.len() > client.patience().rows {
            let text = format!("a filter finds more than {} rows", client.patience().rows);
            Err(ReadError::new(ReasonCode::TooManyRows, text).of(kind))?;
        }
    }
    let mut ids: Vec<Id> = ids.into_iter().collect();
    ids.sort_unstable();
    Ok(ids)
}

/// What a walk asks for, the same on every page.
#[derive(Clone, Debug)]
pub struct Query {
    pub kind: Kind,
    /// RFC 7644 §3.4.2.2; `None`: all rows.
    pub filter: Option<String>,
    /// RFC 7644 §3.9, separated by commas; `None`: what the server returns by itself.
    pub attributes: Option<String>,
}

/// The first page that a query finds.
///
/// # Errors
/// As a walk.
pub async fn one_page(client: &Client, kind: Kind, query: &[(&str, String)]) -> Result<ListPage, ReadError> {
    let reply = client.get(client.urls().list(kind, query)).await.map_err(|error| error.of(kind))?;
    match reply.status.as_u16() {
        200 => envelope::split_list(&reply.body).map_err(|error| error.of(kind)),
        _ => Err(refusal(reply.status, &reply.body, client.profile(), kind).of(kind)),
    }
}

/// The pages of one walk. Dropping the stream aborts the request under way.
pub fn pages(client: Client, learnt: Learnt, query: Query) -> impl Stream<Item = Result<Page, ReadError>> + Send {
    let kind = query.kind;
    walk(client, learnt, query).map(move |page| page.map_err(|error| error.of(kind)))
}

/// What a walk had seen when `startIndex` turned out to be ignored.
#[derive(Clone, Copy)]
struct Ignored {
    rows: usize,
    total: Option<u64>,
}

/// What a walk has seen since its first page.
#[derive(Default)]
struct Walked {
    rows: Set<RawHash>,
    /// Of the first page.
    first_row: Option<RawHash>,
    first_received: usize,
    /// The largest total that any page stated.
    total: Option<u64>,
    /// All rows in their order, for the next walk.
    places: Places,
}

impl Walked {
    /// Takes out the rows that an earlier page showed, and those that this page shows twice.
    fn take(&mut self, page: &mut Page) {
        page.rows.iter().for_each(|row| self.places.push(row));
        let mut here: Set<RawHash> = Set::default();
        let (mut doubled, mut repeated) = (0, 0);
        page.rows.retain(|row| {
            let new_here = here.insert(row.hash);
            let new = new_here && self.rows.insert(row.hash);
            doubled += usize::from(!new_here);
            repeated += usize::from(new_here && !new);
            new
        });
        (page.doubled, page.repeated) = (doubled, repeated);
        self.first_row = self.first_row.or_else(|| page.rows.first().map(|row| row.hash));
        self.total = self.total.max(page.total);
    }

    fn so_far(&self) -> Ignored {
        Ignored { rows: self.rows.len(), total: self.total }
    }

    /// By the server's own total nothing is missing.
    fn is_whole(&self) -> bool {
        self.total.is_some_and(|total| self.rows.len() as u64 >= total)
    }
}

fn walk(client: Client, learnt: Learnt, query: Query) -> impl Stream<Item = Result<Page, ReadError>> + Send {
    try_stream! {
        let mut begin = first(&client, &learnt).await;
        let list = List { client: client.for_a_walk(), learnt, query };
        let forced = client.profile().paging == Paging::CursorForced;
        let trust_total = client.profile().trust_total;
        let kind = list.query.kind;
        let serial = list.query.filter.is_some() || list.learnt.reads_serially(kind);
        let pages_in_flight = if serial { 1 } else { client.profile().pages_in_flight as usize };
        // What the walk by `startIndex` had seen when it turned out to be ignored.
        let mut ignored: Option<Ignored> = None;
        let (mut count, mut restarts, mut number, mut restarted) = (client.profile().page_size, 0, 0, false);
        'walk: loop {
            let mut walked = Walked::default();
            // About as many as the last time: a set that grows is written several times over.
            if list.expects_places() {
                walked.rows.reserve(list.learnt.places(kind).len());
            }
            let mut at = begin.clone();
            let (mut ahead, mut expected) = (Ahead::default(), 0);
            for number_here in 0.. {
                number += 1;
                let pages_max = client.patience().pages;
                if number > pages_max {
                    let text = format!("the list has more than {pages_max} pages");
                    Err(ReadError::new(ReasonCode::TooManyPages, text))?;
                }
                let request = ahead.take(&at).unwrap_or_else(|| list.fetch(&at, count, expected));
                let fetched = match page(request).await {
                    // Behind the last row: the end, if the server's own total says so.
                    Err(error) if trust_total && number_here > 0 && walked.is_whole() && refuses_the_end(&error, &at, &walked) => {
                        Fetched::default()
                    }
                    Err(error) if error.status == Some(400) && number_here == 0 => {
                        Err(list.size_refused(&at, count, error).await)?
                    }
                    Err(error) if error.code == ReasonCode::PagingIgnored => {
                        Err(paging_ignored(ignored.unwrap_or(walked.so_far()), count))?
                    }
                    Err(error) if error.code == ReasonCode::CursorRefused && restarts < CURSOR_RESTARTS_MAX => {
                        restarts += 1;
                        restarted = true;
                        continue 'walk;
                    }
                    // Large groups make large pages; fewer rows may fit.
                    Err(error) if error.code == ReasonCode::BodyTooLarge && count > 1 && at != At::Everything => {
                        count = (count / SMALLER).max(1);
                        restarted = true;
                        continue 'walk;
                    }
                    fetched => fetched?,
                };
                let Fetched { mut page, next_cursor, is_an_answer, place } = fetched;
                if number_here == 0 && !is_an_answer {
                    Err(envelope::no_rows())?;
                }
                let received = page.rows.len();
                walked.take(&mut page);
                if number_here == 0 {
                    walked.first_received = received;
                }
                let repeats = page.rows.is_empty();
                // A page of repeats after the first: the list has no second page, the walk went round (harmless), or
                // startIndex is ignored and there may be more than is ever shown. A first page that held as many rows
                // as its total states, and fewer than were asked for, is the whole list.
                let one_page = trust_total && walked.is_whole() && walked.first_received < count as usize;
                if repeats && received > 0 && number_here == 1 && next_cursor.is_none() && !one_page
                    && list.ignores_start_index(&at, walked.first_row).await?
                {
                    if matches!(at, At::Index(_)) {
                        begin = At::Search(1);
                        restarted = true;
                        ignored = Some(walked.so_far());
                        continue 'walk;
                    }
                    Err(paging_ignored(ignored.unwrap_or(walked.so_far()), count))?;
                }
                let next = following(&at, next_cursor, received, repeats, forced && number_here == 0)?;
                page.restarted = std::mem::take(&mut restarted);
                page.more = matches!(next, Some(At::Cursor(_)));
                let Some(next) = next else {
                    list.remember(std::mem::take(&mut walked.places));
                    list.learnt.read_serially(kind, ahead.guessed && !walked.is_whole());
                    yield page;
                    return;
                };
                // What comes next is on its way while this page is compared.
                let in_flight = (ALONE_BODY / page.bytes.max(1)).min(pages_in_flight);
                let last_row = walked.total.filter(|_| trust_total).map_or(0, |total| total as usize);
                ahead.fill(&next, in_flight, walked.first_received, last_row, |at, rows_on| {
                    list.fetch(at, count, place + rows_on)
                });
                (at, expected) = (next, place);
                yield page;
            }
        }
    }
}

/// Requests under way for pages that come next, the first of them for the very next one.
///
/// **Safety argument.** A guess is that each page holds as many rows as the first one did, and that the last one ends at
/// the server's total. It counts only if it is exactly where the walk leads next; otherwise it is thrown away, and the
/// rest of the walk is read page by page. So the rows of a walk are those that it would have asked for one after the
/// other. What differs is the order in which the server answers. If rows are added meanwhile, one may slide from a page
/// that is read late to one that was read early, and is missed. Then fewer rows are read than the server states, which is
/// why only a walk with a stated total guesses, and the walk after it does not. Cursors cannot be guessed.
#[derive(Default)]
struct Ahead {
    requests: VecDeque<(At, Request)>,
    /// Some page was asked for before it was known to come next.
    guessed: bool,
    /// A guess was wrong.
    refuted: bool,
}

impl Ahead {
    /// The request for this page, if it is under way.
    fn take(&mut self, at: &At) -> Option<Request> {
        let (_, request) = self.requests.pop_front().filter(|(there, _)| there == at)?;
        Some(request)
    }

    /// Asks for the page at `next`, and guesses which pages follow it until so many are `in_flight`, the page behind the
    /// last row included. `stride`: the rows of the first page. `last_row`: the server's own total; 0 if it is not to be
    /// trusted. `fetch` gets the page, and how many rows lie between it and `next`.
    fn fill(
        &mut self,
        next: &At,
        in_flight: usize,
        stride: usize,
        last_row: usize,
        fetch: impl Fn(&At, usize) -> Request,
    ) {
        if self.requests.front().is_some_and(|(at, _)| at != next) {
            self.requests.clear();
            self.refuted = true;
        }
        if self.requests.is_empty() && in_flight > 0 {
            self.requests.push_back((next.clone(), fetch(next, 0)));
        }
        let At::Index(begin) = next else { return };
        while !self.refuted && stride > 0 && self.requests.len() < in_flight {
            let Some((At::Index(last), _)) = self.requests.back() else { return };
            // One page begins behind the last row: the one that ends the walk.
            if *last > last_row {
                return;
            }
            let guess = (last + stride).min(last_row + 1);
            self.guessed = true;
            self.requests.push_back((At::Index(guess), fetch(&At::Index(guess), guess - begin)));
        }
    }
}

async fn first(client: &Client, learnt: &Learnt) -> At {
    match client.profile().paging {
        Paging::Index => At::Index(1),
        Paging::None | Paging::Link => At::Everything,
        Paging::CursorForced | Paging::Cursor => At::Cursor(None),
        // Cursors are chosen only if they are advertised; one that is offered unasked is followed as well.
        Paging::Auto => match learnt.advertised(client).await {
            Some(advertised) if advertised.cursor => At::Cursor(None),
            _ => At::Index(1),
        },
    }
}

/// Where the walk goes on; `None` at its end.
fn following(
    at: &At,
    next_cursor: Option<String>,
    received: usize,
    repeats: bool,
    forced_first: bool,
) -> Result<Option<At>, ReadError> {
    if let (Some(cursor), At::Index(_) | At::Cursor(_)) = (next_cursor, at) {
        if *at == At::Cursor(Some(cursor.clone())) {
            let text = "the server answers a cursor with the same cursor, so that its list does not end";
            return Err(ReadError::new(ReasonCode::PagingEndless, text));
        }
        return Ok(Some(At::Cursor(Some(cursor))));
    }
    Ok(match at {
        At::Everything => None,
        _ if repeats => None,
        At::Index(start) => Some(At::Index(start + received)),
        At::Search(start) => Some(At::Search(start + received)),
        // A server that does not know cursors ignores the parameter and sends its first page by index (RFC 7644 §3.4.2):
        // a first page without a next cursor does not say yet that this is all.
        At::Cursor(None) if !forced_first => Some(At::Index(1 + received)),
        At::Cursor(_) => None,
    })
}

type Request = AbortOnDropHandle<Result<Fetched, ReadError>>;

#[derive(Clone)]
struct List {
    client: Client,
    learnt: Learnt,
    query: Query,
}

impl List {
    /// Asks for a page, splits it into rows and hashes them, on a task of its own. `place`: that of its first row in
    /// the last walk.
    fn fetch(&self, at: &At, count: u32, place: usize) -> Request {
        let (list, at) = (self.clone(), at.clone());
        #[expect(clippy::disallowed_methods, reason = "the handle aborts the request when the walk is dropped")]
        AbortOnDropHandle::new(tokio::spawn(async move { list.ask(at, count, place).await }.in_current_span()))
    }

    /// Rows of a filter are others with every walk, and a page that comes without its bytes has none to compare.
    fn expects_places(&self) -> bool {
        self.query.filter.is_none() && !self.client.profile().list_etags
    }

    fn remember(&self, places: Places) {
        if self.expects_places() {
            self.learnt.remember_places(self.query.kind, places);
        }
    }

    async fn ask(&self, at: At, count: u32, place: usize) -> Result<Fetched, ReadError> {
        let Query { kind, filter, attributes } = &self.query;
        let client = &self.client;
        let reply = if let At::Search(start) = at {
            let schema = "urn:ietf:params:scim:api:messages:2.0:SearchRequest";
            let mut body = json!({ "schemas": [schema], "startIndex": start, "count": count });
            if let Some(filter) = filter {
                body["filter"] = json!(filter);
            }
            if let Some(attributes) = attributes {
                body["attributes"] = json!(attributes.split(',').collect::<Vec<_>>());
            }
            client.post(client.urls().resource(*kind, ".search", &[]), body).await?
        } else {
            let mut query = match &at {
                At::Index(start) => vec![("startIndex", start.to_string()), ("count", count.to_string())],
                At::Cursor(cursor) => {
                    vec![("cursor", cursor.clone().unwrap_or_default()), ("count", count.to_string())]
                }
                At::Search(_) | At::Everything => vec![],
            };
            query.extend(filter.clone().map(|filter| ("filter", filter)));
            query.extend(attributes.clone().map(|attributes| ("attributes", attributes)));
            let url = client.urls().list(*kind, &query);
            if client.profile().list_etags && filter.is_none() {
                return self.ask_if_changed(url).await;
            }
            client.get(url).await?
        };
        self.read(reply, matches!(at, At::Search(_)), place).await
    }

    async fn read(&self, reply: Reply, is_search: bool, place: usize) -> Result<Fetched, ReadError> {
        match reply.status.as_u16() {
            200 => {}
            400 if envelope::refuses_cursor(&reply.body) => {
                let text = "the cursor was refused as expired or invalid, again and again";
                return Err(ReadError::new(ReasonCode::CursorRefused, text));
            }
            // The walk says what that means.
            400 | 404 | 405 | 501 if is_search => return Err(ReadError::new(ReasonCode::PagingIgnored, String::new())),
            _ => return Err(refusal(reply.status, &reply.body, self.client.profile(), self.query.kind)),
        }
        let Reply { skew, received_at, body, .. } = reply;
        let bytes = body.len();
        let places = if self.expects_places() { self.learnt.places(self.query.kind) } else { Arc::default() };
        let (list, place) = split(body, places, place).await?;
        let is_an_answer = list.is_an_answer();
        let ListPage { rows, total, next_cursor, .. } = list;
        let page = Page { rows, total, bytes, skew, received_at, ..Page::default() };
        Ok(Fetched { page, next_cursor, is_an_answer, place })
    }

    /// A page whose ETag still matches holds the rows it held: they come without their bytes.
    async fn ask_if_changed(&self, url: Url) -> Result<Fetched, ReadError> {
        let remembered = self.learnt.page(&url);
        let etag = remembered.as_ref().map(|page| page.etag.clone());
        let reply = self.client.get_if_changed(url.clone(), etag).await?;
        let (skew, received_at) = (reply.skew, reply.received_at);
        if let (304, Some(RememberedPage { rows, total, next_cursor, .. })) = (reply.status.as_u16(), remembered) {
            let rows = rows.into_iter().map(|hash| RawRow { hash, bytes: RowBytes::Unchanged }).collect();
            let page = Page { rows, total, skew, received_at, ..Page::default() };
            return Ok(Fetched { page, next_cursor, is_an_answer: true, place: 0 });
        }
        let etag = reply.etag();
        let fetched = self.read(reply, false, 0).await?;
        let (rows, total) = (fetched.page.rows.iter().map(|row| row.hash).collect(), fetched.page.total);
        let next_cursor = fetched.next_cursor.clone();
        self.learnt.remember(url, etag.map(|etag| RememberedPage { etag, rows, total, next_cursor }));
        Ok(fetched)
    }

    /// A first page that is refused may be too large: then this names a size that the server takes.
    async fn size_refused(&self, at: &At, count: u32, refusal: ReadError) -> ReadError {
        if matches!(at, At::Everything) {
            return refusal;
        }
        let advertised = self.learnt.advertised(&self.client).await.and_then(|advertised| advertised.max_page_size);
        let advertised = advertised.and_then(|size| u32::try_from(size).ok()).filter(|size| *size > 0);
        for size in advertised.into_iter().chain(SIZES_TRIED).filter(|size| *size < count) {
            if self.ask(at.clone(), size, 0).await.is_ok() {
                let what = format!("the server refuses {count} rows a page (HTTP 400) and serves {size}");
                return ReadError::new(ReasonCode::PageSizeRefused, what)
                    .with_remedy(format!("[account.profile] page_size = {size}"));
            }
        }
        refusal
    }

    /// A server that ignores `startIndex` answers a request for the second row with the first.
    async fn ignores_start_index(&self, at: &At, first: Option<RawHash>) -> Result<bool, ReadError> {
        let second = match at {
            At::Index(_) => At::Index(2),
            At::Search(_) => At::Search(2),
            At::Cursor(_) | At::Everything => return Ok(false),
        };
        let fetched = self.ask(second, self.client.profile().page_size, 1).await?;
        Ok(first.is_some() && fetched.page.rows.first().map(|row| row.hash) == first)
    }
}

async fn page(request: Request) -> Result<Fetched, ReadError> {
    request.await.unwrap_or_else(|_| Err(ReadError::new(ReasonCode::Unreachable, "the request was cut off")))
}

/// A body large enough to hold up others is split on a thread that may block. Returns the page, and the place in the
/// last walk behind it.
async fn split(body: Body, places: Arc<Places>, place: usize) -> Result<(ListPage, usize), ReadError> {
    let large = body.len() > LARGE_BODY;
    let split = move || match split_expected(&body, &places, place) {
        Some(split) => Ok(split),
        None => {
            let page = envelope::split_list(&body)?;
            let next = place + page.rows.len();
            Ok((page, next))
        }
    };
    if !large {
        return split();
    }
    let split = tokio::task::spawn_blocking(split).await;
    split.unwrap_or_else(|_| Err(ReadError::new(ReasonCode::Unreachable, "the request was cut off")))
}

/// True for a page that begins behind the stated total and is refused.
fn refuses_the_end(error: &ReadError, at: &At, walked: &Walked) -> bool {
    let (At::Index(start) | At::Search(start)) = at else { return false };
    matches!(error.status, Some(400 | 404)) && walked.total.is_some_and(|total| *start as u64 > total)
}

fn paging_ignored(walked: Ignored, count: u32) -> ReadError {
    let seen = walked.rows;
    let (what, remedy) = match walked.total.filter(|total| *total > seen as u64) {
        // One answer does not hold every row, so reading one answer alone would not help.
        Some(total) => (
            format!("{seen} of {total} rows can be read"),
            format!(
                "if the server sends {total} rows at once: [account.profile] page_size = {total}, \
                 else ask the vendor how its list is paged"
            ),
        ),
        None => (
            format!("every page is the first one, of {seen} rows"),
            format!(
                "if one answer holds every row: [account.profile] paging = \"none\", else a page_size above {count}"
            ),
        ),
    };
    let what = format!("startIndex is ignored, and .search does not help: {what}");
    ReadError::new(ReasonCode::PagingIgnored, what).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Request {
        #[expect(clippy::disallowed_methods, reason = "aborted when it is dropped")]
        AbortOnDropHandle::new(tokio::spawn(std::future::pending()))
    }

    fn places(ahead: &Ahead) -> Vec<usize> {
        let place = |(at, _): &(At, Request)| match at {
            At::Index(begin) => *begin,
            _ => 0,
        };
        ahead.requests.iter().map(place).collect()
    }

    #[tokio::test]
    async fn pages_are_guessed_up_to_the_total_and_thrown_away_once_one_is_wrong() {
        let mut ahead = Ahead::default();
        ahead.fill(&At::Index(101), 3, 100, 350, |_, _| never());
        assert_eq!((places(&ahead), ahead.guessed), (vec![101, 201, 301], true));
        assert!(ahead.take(&At::Index(101)).is_some());
        ahead.fill(&At::Index(201), 4, 100, 350, |_, _| never());
        assert_eq!(places(&ahead), [201, 301, 351], "one begins behind the total, and no other");
        assert!(ahead.take(&At::Index(201)).is_some());
        ahead.fill(&At::Index(290), 3, 100, 350, |_, _| never());
        assert_eq!(places(&ahead), [290], "a short page ends the guessing");
        assert!(ahead.take(&At::Index(290)).is_some());
        ahead.fill(&At::Index(300), 3, 10, 350, |_, _| never());
        assert_eq!(places(&ahead), [300], "for the rest of the walk");
    }

    #[tokio::test]
    async fn one_page_at_a_time_no_total_and_cursors_leave_nothing_to_guess() {
        for (next, in_flight, total) in [
            (At::Index(101), 1, 900),
            (At::Index(101), 4, 0),
            (At::Cursor(Some("c".into())), 4, 900),
            (At::Search(101), 4, 900),
        ] {
            let mut ahead = Ahead::default();
            ahead.fill(&next, in_flight, 100, total, |_, _| never());
            assert_eq!((ahead.requests.len(), ahead.guessed), (1, false), "{next:?}");
        }
        let mut large = Ahead::default();
        large.fill(&At::Index(101), 0, 100, 900, |_, _| never());
        assert!(large.requests.is_empty(), "a large page has the memory for itself");
    }
}
