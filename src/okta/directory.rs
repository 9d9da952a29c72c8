//! An Okta organisation as the directory that a sync reads.
//!
//! Users come in two lists, because the one without a filter leaves deactivated people out. They are read first: a
//! person who is deactivated between the two lists is in neither, and is asked for by id. The other way round, the two
//! rows of such a person would contradict each other. A group's row is joined with its members. `search` is eventually
//! consistent, and is not used.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_stream::try_stream;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use url::Url;

use super::groups::{MembersRead, Parts, aside, is_chosen, may_be_aside, only_id, parts, with_members};
use super::names::GroupNames;
use super::refusal::refusal;
use super::resource::{group_as_scim, user_as_scim};
use super::{link, rows};
use crate::directory::{AttributeList, Id, Kind, ListedMember, Readable, ReasonCode};
use crate::memory::{OverBudget, Reserved};
use crate::scim::ReadError;
use crate::scim::client::{Client, Reply};
use crate::scim::directory::parse_row;
use crate::scim::envelope::{raw_row, utf_8};
use crate::scim::members::MEMBERS_MAX;
use crate::scim::resource::Reading;
use crate::scim::value::id_of;
use crate::source::{Answer, Directory, Page, Parsed, RawRow, RowBytes};

/// The status of deactivated people.
const DEACTIVATED: &str = "DEPROVISIONED";
/// The filters by which users are listed: deactivated people, and all others.
const USER_LISTS: [Option<&str>; 2] = [Some("status eq \"DEPROVISIONED\""), None];
/// After an answer that Okta did not finish in time, pages this many times smaller are asked for.
const SMALLER: u32 = 4;
/// Smaller pages would take more requests than an organisation has.
const PAGE_SIZE_MIN: u32 = 10;
/// Walks of a list after which a larger page is tried again: an hour and a half at intervals of five minutes.
const WALKS_BEFORE_LARGER: u32 = 20;
/// Pages of a group's members in a row without a new one.
const BARREN_PAGES_MAX: usize = 100;
/// Groups whose members are read at the same time.
const GROUPS_AT_ONCE: usize = 8;
/// About what a member takes beside its id, while its group is read.
const MEMBER_BYTES: usize = 64;
/// Bytes of rows with members that become one page.
const PAGE_BYTES: usize = 4 << 20;
/// Groups in a row whose members cannot be read, before the walk fails.
const FAILURES_MAX: usize = 20;

/// An Okta organisation, with what is remembered of it. Cheap to clone.
#[derive(Clone)]
pub struct OktaDirectory {
    pub client: Client,
    pub reading: Reading,
    names: Option<GroupNames>,
    members_read: MembersRead,
    /// Of the lists of users and of groups.
    sizes: Arc<[Size; 2]>,
}

/// What is listed.
#[derive(Clone, Copy)]
enum List {
    Of(Kind),
    Members,
}

impl List {
    /// Whose list it is, in messages.
    fn kind(self) -> Kind {
        match self {
            List::Of(kind) => kind,
            List::Members => Kind::Group,
        }
    }
}

/// A page, and where the next one is.
struct Fetched {
    rows: Vec<RawRow>,
    next: Option<Url>,
    bytes: usize,
    skew: Option<i64>,
    received_at: i64,
}

/// The members of a group.
enum Members {
    /// With the memory that they take.
    Read(Vec<Id>, Reserved),
    /// The group is gone (404, 410).
    Gone,
    Failed(ReadError),
}

impl OktaDirectory {
    /// `names`: which groups are read; `None`: all but Everyone.
    pub fn new(client: Client, attributes: AttributeList, names: Option<GroupNames>) -> OktaDirectory {
        let sizes = Arc::new(Kind::BOTH.map(|_| Size::new(client.profile().page_size)));
        let reading = Reading { absent_active: client.profile().absent_active, ..Reading::plain(attributes) };
        OktaDirectory { client, reading, names, members_read: MembersRead::default(), sizes }
    }

    /// Reads the secret again, so that a rotated one takes effect.
    ///
    /// # Errors
    /// It cannot be read or used.
    pub fn reread_secret(&mut self) -> Result<(), ReadError> {
        if self.client.reread_secret()? {
            self.members_read = MembersRead::default();
        }
        Ok(())
    }

    /// The first page of a list of users or groups.
    fn first(&self, kind: Kind, filter: Option<&str>) -> Url {
        let limit = self.sizes[kind as usize].now();
        let mut query = vec![("limit", limit.to_string())];
        query.extend(filter.map(|filter| ("filter", filter.to_owned())));
        self.client.urls().list(kind, &query)
    }

    async fn fetch(&self, url: Url, list: List) -> Result<Fetched, ReadError> {
        let reply = self.client.get(url.clone()).await?;
        if reply.status.as_u16() != 200 {
            return Err(refusal(&reply, self.client.profile(), list.kind()));
        }
        let rows = rows::split(&reply.body)?;
        let next = link::next(&reply.headers, &url, rows.len())?;
        if next.is_none()
            && let Some(first_row) = link::first_row(&url, rows.len())
        {
            let again = self.client.get(first_row.clone()).await?;
            if again.status.as_u16() != 200 {
                return Err(refusal(&again, self.client.profile(), list.kind()));
            }
            if link::next(&again.headers, &first_row, 1)?.is_none() {
                return Err(link::lost("names no next page"));
            }
        }
        if next.as_ref() == Some(&url) {
            let text = "the link to the next page leads to the same page, so that the list does not end";
            return Err(ReadError::new(ReasonCode::PagingEndless, text).with_remedy("ask Okta's support"));
        }
        let Reply { skew, received_at, body, .. } = reply;
        Ok(Fetched { rows, next, bytes: body.len(), skew, received_at })
    }

    /// The users on the first page of each of their lists, or the groups that are read on that of theirs.
    ///
    /// # Errors
    /// A list cannot be read.
    pub async fn first_rows(&self, kind: Kind) -> Result<Vec<Bytes>, ReadError> {
        let mut rows = Vec::new();
        for filter in filters(kind).iter().rev() {
            let page = self.fetch(self.first(kind, *filter), List::Of(kind)).await;
            let page = page.and_then(|page| filtered(page, *filter)).map_err(|error| error.of(kind))?;
            let chosen = |bytes: &&Bytes| kind == Kind::User || is_chosen(bytes, self.names.as_ref());
            rows.extend(page.rows.iter().filter_map(|row| row.bytes.sent()).filter(chosen).cloned());
        }
        Ok(rows)
    }

    /// Reads the first page of a group's members.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn first_members(&self, group: &Id) -> Result<(), ReadError> {
        let url = self.client.urls().members(group, &[("limit", self.client.profile().page_size.to_string())]);
        let page = self.fetch(url, List::Members).await;
        page.map(drop).map_err(|error| of_group(error, group).of(Kind::Group))
    }

    /// All pages of the lists of one kind, one after the other; the last one says that there are no more.
    fn pages(&self, kind: Kind) -> impl Stream<Item = Result<Page, ReadError>> + Send + use<> {
        let directory = self.clone();
        try_stream! {
            let list = List::Of(kind);
            let filters = filters(kind);
            let (mut number, mut restarted) = (0, false);
            let size = &directory.sizes[kind as usize];
            size.begin_walk(directory.client.profile().page_size);
            'walk: loop {
                for (place, filter) in filters.iter().enumerate() {
                    let mut at = Some(directory.first(kind, *filter));
                    while let Some(url) = at {
                        number += 1;
                        bounded(number, directory.client.patience().pages)?;
                        let fetched = match directory.fetch(url, list).await {
                            Err(error) if timed_out(&error) && size.shrink() => {
                                restarted = true;
                                continue 'walk;
                            }
                            fetched => filtered(fetched?, *filter)?,
                        };
                        let Fetched { rows, next, bytes, skew, received_at } = fetched;
                        at = next;
                        let more = at.is_some() || place + 1 < filters.len();
                        yield Page {
                            rows,
                            restarted: std::mem::take(&mut restarted),
                            more,
                            bytes,
                            skew,
                            received_at,
                            ..Page::default()
                        };
                    }
                }
                break;
            }
        }
    }

    /// The groups that are read, each with its members.
    fn groups(&self) -> impl Stream<Item = Result<Page, ReadError>> + Send + use<> {
        let directory = self.clone();
        try_stream! {
            let every = directory.client.profile().full_members_every().ok().flatten();
            let every = every.and_then(|every| i64::try_from(every.as_millis()).ok()).unwrap_or(0);
            let (mut failures, mut began) = (0, None);
            // Whether the credential may read the members of any group, and the refusal if it may not.
            let (mut any, mut refused) = (false, None);
            let mut pages = std::pin::pin!(directory.pages(Kind::Group));
            while let Some(page) = pages.next().await {
                let mut page = page?;
                let listed = std::mem::take(&mut page.rows).into_iter();
                let (skew, received_at) = (page.skew.unwrap_or(0), page.received_at);
                // What this walk itself has read is not yet known to the sync, which would not recognise it.
                let before = *began.get_or_insert(received_at);
                let joined = listed.map(|row| directory.joined(row, received_at, skew, (before, every)));
                let mut joined = std::pin::pin!(futures::stream::iter(joined).buffered(GROUPS_AT_ONCE));
                while let Some(row) = joined.next().await {
                    let (row, failed) = match row? {
                        Joined::Aside(row) => (row, None),
                        Joined::Read(row) => {
                            (failures, any) = (0, true);
                            (Some(row), None)
                        }
                        Joined::Failed(row, error) => {
                            failures += 1;
                            (Some(row), Some(error))
                        }
                    };
                    match failed {
                        Some(error) if failures == FAILURES_MAX => Err(error)?,
                        Some(error) if error.code == ReasonCode::CredentialsRefused => refused = Some(error),
                        Some(_) => any = true,
                        None => {}
                    }
                    page.bytes += row.as_ref().and_then(|row| row.bytes.sent()).map_or(0, Bytes::len);
                    page.rows.extend(row);
                    if page.bytes >= PAGE_BYTES {
                        let rest = Page { restarted: false, rows: Vec::new(), bytes: 0, ..page.clone() };
                        yield Page { more: true, ..std::mem::replace(&mut page, rest) };
                    }
                }
                // Then it is not about one group, and a person has to act.
                if let Some(error) = refused.take_if(|_| !page.more && !any) {
                    Err(error)?;
                }
                // A page of which nothing is read says nothing, unless it is the last.
                if !page.rows.is_empty() || page.restarted || !page.more {
                    yield page;
                }
            }
        }
    }

    /// A group's row with its members. If the row is the one by which they were last read, they are not read again.
    async fn joined(&self, row: RawRow, now: i64, skew: i64, (before, every): (i64, i64)) -> Result<Joined, ReadError> {
        let Some(bytes) = row.bytes.sent() else { return Ok(Joined::Aside(None)) };
        let id = id_of(bytes);
        if !is_chosen(bytes, self.names.as_ref()) {
            // It is there, so that it is not missing if it is known.
            return Ok(Joined::Aside(id.map(|id| raw_row(aside(&id)))));
        }
        // The sync names a row without an id.
        let Some(id) = id else { return Ok(Joined::Read(raw_row(with_members(bytes, None)))) };
        if let Some(hash) = self.members_read.unchanged(&id, row.hash, before, now, every) {
            return Ok(Joined::Read(RawRow { hash, bytes: RowBytes::Unchanged }));
        }
        let without_members = || raw_row(with_members(bytes, None));
        match self.members(&id).await {
            Members::Read(members, _reserved) => {
                let joined = raw_row(with_members(bytes, Some(&members)));
                self.members_read.remember(id, bytes, row.hash, joined.hash, (now, skew), every);
                Ok(Joined::Read(joined))
            }
            // Deleted since it was listed, or hidden from the credential. This list shows it, so that the next one decides.
            Members::Gone if self.is_gone(&id).await => Ok(Joined::Read(raw_row(only_id(&id)))),
            Members::Gone => {
                let text = "404: the members of a group that is there are not shown";
                let error = ReadError::new(ReasonCode::NotAListResponse, text)
                    .with_remedy("look at the admin role of the credential, and for a gateway in between");
                Ok(Joined::Failed(without_members(), of_group(error, &id)))
            }
            Members::Failed(error) if self.is_of_one_group(&id, &error).await => {
                Ok(Joined::Failed(without_members(), of_group(error, &id)))
            }
            Members::Failed(error) => Err(of_group(error, &id)),
        }
    }

    /// True if the group itself is not found. Any other answer, or none, says that it may be there.
    async fn is_gone(&self, group: &Id) -> bool {
        matches!(self.status(group).await, Some(404 | 410))
    }

    /// True if members that cannot be read say nothing about other groups: Okta takes too long, a row has no id, or the
    /// role shows the group and not its members.
    async fn is_of_one_group(&self, group: &Id, error: &ReadError) -> bool {
        match error.status {
            Some(403) => self.status(group).await == Some(200),
            _ => timed_out(error) || error.code == ReasonCode::NotAResource,
        }
    }

    /// What GET of a group answers; `None`: nothing.
    async fn status(&self, group: &Id) -> Option<u16> {
        let reply = self.client.get(self.client.urls().resource(Kind::Group, group, &[])).await;
        reply.ok().map(|reply| reply.status.as_u16())
    }

    /// Reads the ids of all members of a group, sorted.
    async fn members(&self, group: &Id) -> Members {
        let (mut number, mut barren, pages_max) = (0, 0, self.client.patience().pages);
        // Of this group alone: one that takes Okta long must not make those of the others small.
        let mut limit = self.client.profile().page_size;
        'walk: loop {
            let mut at = Some(self.client.urls().members(group, &[("limit", limit.to_string())]));
            let mut members: BTreeSet<Id> = BTreeSet::new();
            let (mut reserved, mut bytes) = (Reserved::default(), 0);
            while let Some(url) = at {
                number += 1;
                let fetched = match bounded(number, pages_max) {
                    Ok(()) => self.fetch(url, List::Members).await,
                    Err(error) => Err(error),
                };
                let Fetched { rows, next, .. } = match fetched {
                    Ok(fetched) => fetched,
                    Err(error) if matches!(error.status, Some(404 | 410)) => return Members::Gone,
                    Err(error) if timed_out(&error) && limit > PAGE_SIZE_MIN => {
                        limit = smaller(limit);
                        continue 'walk;
                    }
                    Err(error) => return Members::Failed(error),
                };
                let before = members.len();
                for row in rows {
                    let Some(id) = row.bytes.sent().and_then(|bytes| id_of(bytes)) else {
                        let text = "a member of a group has no usable `id`";
                        return Members::Failed(ReadError::new(ReasonCode::NotAResource, text));
                    };
                    let length = id.len();
                    if members.insert(id) {
                        bytes += MEMBER_BYTES + 2 * length;
                    }
                }
                if let Err(OverBudget { mib }) = reserved.set(bytes) {
                    let text = format!("the members of a group would take more than the memory budget of {mib} MiB");
                    let error = ReadError::new(ReasonCode::MemoryBudget, text);
                    return Members::Failed(error.with_remedy("[limits] memory, or leave the group out of `groups`"));
                }
                barren = if members.len() == before { barren + 1 } else { 0 };
                if barren == BARREN_PAGES_MAX {
                    let text = "page after page of a group's members brings no new one, and the end is not in sight";
                    let endless = ReadError::new(ReasonCode::PagingEndless, text);
                    return Members::Failed(endless.with_remedy("ask Okta's support"));
                }
                if members.len() > MEMBERS_MAX {
                    let text = format!("a group has more than {MEMBERS_MAX} members");
                    let error = ReadError::new(ReasonCode::TooManyRows, text);
                    return Members::Failed(error.with_remedy("leave the group out of `groups`"));
                }
                at = next;
            }
            return Members::Read(members.into_iter().collect(), reserved);
        }
    }
}

/// The filters by which a kind is listed.
fn filters(kind: Kind) -> &'static [Option<&'static str>] {
    if kind == Kind::User { &USER_LISTS } else { &[None] }
}

/// The page, if the filter that it was asked for by had an effect.
fn filtered(page: Fetched, filter: Option<&str>) -> Result<Fetched, ReadError> {
    if filter.is_some() && rows::are_unfiltered(&page.rows, DEACTIVATED) {
        let text = "the filter for deactivated users has no effect, so that they would be missed";
        let ignored = ReadError::new(ReasonCode::FilterIgnored, text);
        return Err(ignored.with_remedy("look for a proxy or gateway in between that changes queries"));
    }
    Ok(page)
}

/// Rows that a list is asked for at once. Smaller after pages that Okta did not finish in time, and larger again later:
/// an outage must not make all reading slow for good.
struct Size(Mutex<(u32, u32)>);

impl Size {
    fn new(rows: u32) -> Size {
        Size(Mutex::new((rows, 0)))
    }

    fn now(&self) -> u32 {
        self.lock().0
    }

    /// A walk begins. After so many walks a larger size is tried, `max` at most.
    fn begin_walk(&self, max: u32) {
        let (rows, walks) = &mut *self.lock();
        *walks += 1;
        if *walks >= WALKS_BEFORE_LARGER {
            (*rows, *walks) = ((*rows * SMALLER).min(max), 0);
        }
    }

    /// False if pages cannot be smaller.
    fn shrink(&self) -> bool {
        let (rows, walks) = &mut *self.lock();
        let shrinks = *rows > PAGE_SIZE_MIN;
        (*rows, *walks) = (smaller(*rows), 0);
        shrinks
    }

    fn lock(&self) -> MutexGuard<'_, (u32, u32)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn smaller(rows: u32) -> u32 {
    (rows / SMALLER).max(PAGE_SIZE_MIN.min(rows))
}

/// What became of a group's row.
enum Joined {
    /// With its members, or with nothing but its id.
    Read(RawRow),
    /// Without its members, and why.
    Failed(RawRow, ReadError),
    /// Not one of those that are read; `None` if it has no id.
    Aside(Option<RawRow>),
}

/// The same failure with the group that it is about. Ids come from the server: nothing of them may steer a terminal.
fn of_group(error: ReadError, group: &Id) -> ReadError {
    const SHOWN_MAX: usize = 64;
    let shown: String = group.chars().take(SHOWN_MAX).collect();
    ReadError { problem: error.problem.of(&format!("group {}", shown.escape_debug())), ..error }
}

/// An end to lists that go on for ever.
fn bounded(number: usize, pages_max: usize) -> Result<(), ReadError> {
    if number > pages_max {
        let text = format!("the list has more than {pages_max} pages");
        return Err(ReadError::new(ReasonCode::TooManyPages, text));
    }
    Ok(())
}

/// Okta answers HTTP 500 if it does not finish a large page in time.
fn timed_out(error: &ReadError) -> bool {
    matches!(error.status, Some(500 | 504))
}

impl Directory for OktaDirectory {
    type Error = ReadError;

    /// Okta has no list of what was modified that shows everything, so that every walk is a full one.
    fn list(&self, kind: Kind, _since: Option<i64>) -> impl Stream<Item = Result<Page, ReadError>> + Send {
        let pages = match kind {
            Kind::User => self.pages(kind).left_stream(),
            Kind::Group => self.groups().right_stream(),
        };
        pages.map(move |page| page.map_err(|error| error.of(kind)))
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        let Some(bytes) = row.bytes.sent() else {
            self.members_read.not_recognised(row.hash, page.received_at);
            return Parsed::Stale;
        };
        let (own, members) = match kind {
            Kind::User => (&bytes[..], None),
            Kind::Group => match parts(bytes) {
                Some(Parts::Group(own, members)) => (own, members),
                Some(Parts::Aside(id)) => return Parsed::Aside(id),
                None => (&[][..], None),
            },
        };
        let scim = match kind {
            Kind::User => user_as_scim(own),
            Kind::Group => group_as_scim(own),
        };
        // A row without a profile has nothing but its id, if that.
        let aside = kind == Kind::Group && may_be_aside(own, self.names.as_ref());
        let readable = scim.is_some() && !aside;
        let scim = scim.unwrap_or_else(|| own.to_vec());
        let row = RawRow { hash: row.hash, bytes: RowBytes::Sent(scim.into()) };
        let mut parsed = parse_row(kind, page, &row, &self.reading);
        let Parsed::Resource(observed) = &mut parsed else { return parsed };
        if !readable {
            observed.readable = Readable::IdOnly;
        }
        if kind == Kind::Group {
            match (members, &mut observed.readable) {
                (Some(members), _) => {
                    let direct = |id| ListedMember { id, kind: Some(Kind::User), direct: Some(true) };
                    observed.members = members.into_iter().map(direct).collect();
                }
                (None, Readable::Without(names)) => names.push("members".to_owned()),
                (None, Readable::IdOnly) => {}
                (None, whole) => *whole = Readable::Without(vec!["members".to_owned()]),
            }
        }
        parsed
    }

    async fn get(&self, kind: Kind, id: &Id) -> Answer {
        let reply = match self.client.get(self.client.urls().resource(kind, id, &[])).await {
            Ok(reply) => reply,
            Err(error) => return Answer::Unproven(error.problem.what),
        };
        match reply.status.as_u16() {
            200 => {}
            404 | 410 => return Answer::NotFound,
            403 => return Answer::Forbidden,
            405 | 501 => return Answer::NotOffered,
            status => return Answer::Unproven(format!("HTTP {status}")),
        }
        let body = utf_8(&reply.body).unwrap_or_default();
        // Okta also finds users by their login.
        if id_of(&body).as_ref() != Some(id) {
            return Answer::Unproven("HTTP 200 without the id that was asked for".to_owned());
        }
        let row = match kind {
            Kind::User => raw_row(body),
            Kind::Group => match self.members(id).await {
                Members::Read(members, _reserved) => raw_row(with_members(&body, Some(&members))),
                Members::Gone => return Answer::Unproven("a group without a list of members".to_owned()),
                Members::Failed(_) => raw_row(with_members(&body, None)),
            },
        };
        let page = Page { skew: reply.skew, received_at: reply.received_at, ..Page::default() };
        match self.read(kind, &page, &row) {
            Parsed::Resource(observed) => Answer::Found(observed),
            Parsed::NoId | Parsed::Aside(_) | Parsed::Stale => {
                Answer::Unproven("a body that cannot be read".to_owned())
            }
        }
    }

    /// Memberships are read from the groups, so that no filter is asked.
    async fn matching(&self, kind: Kind, _attribute: &'static str, _id: &Id) -> Result<Vec<Id>, ReadError> {
        let text = "Okta's API does not filter by memberships";
        Err(ReadError::new(ReasonCode::FilterIgnored, text).of(kind))
    }
}
