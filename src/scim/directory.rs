//! A SCIM endpoint as the directory that a sync reads.

use futures::Stream;
use serde_json::Value;

use super::advertised::Advertised;
use super::client::Client;
use super::envelope::{self, ListPage};
use super::error::ReadError;
use super::learnt::Learnt;
use super::listing::{self, Query, one_page};
use super::probe;
use super::profile::{Memberships, Profile};
use super::resource::{self, Reading, Resource, Unreadable};
use super::value;
use crate::directory::{AttributeList, Id, Kind, Observed, Principal, Readable};
use crate::source::{Answer, Directory, Page, Parsed, RawRow};

/// Rows that are asked for at once to find out what a list does.
const ONE_PAGE_MAX: u64 = 10_000;

/// An account's directory behind SCIM. Cheap to clone.
#[derive(Clone)]
pub struct ScimDirectory {
    pub client: Client,
    pub learnt: Learnt,
    pub reading: Reading,
}

/// How a resource is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    List,
    /// By its id.
    Get,
}

impl ScimDirectory {
    pub fn new(client: Client, attributes: AttributeList) -> ScimDirectory {
        let Profile { absent_active, email, memberships, .. } = client.profile();
        let reading = Reading {
            attributes,
            absent_active: *absent_active,
            email: *email,
            groups_on_user: *memberships == Memberships::User,
            paths: Kind::BOTH.map(|kind| client.profile().path(kind).to_owned()),
        };
        ScimDirectory { client, learnt: Learnt::default(), reading }
    }

    /// Reads the secret again, so that a rotated one takes effect.
    ///
    /// # Errors
    /// It cannot be read or used.
    pub fn reread_secret(&mut self) -> Result<(), ReadError> {
        if self.client.reread_secret()? {
            self.learnt = Learnt::default();
        }
        Ok(())
    }

    /// What the server advertises; `None` if it advertises nothing readable.
    pub async fn advertised(&self) -> Option<Advertised> {
        self.learnt.advertised(&self.client).await
    }

    /// The first page of a list, asked for as the profile pages.
    ///
    /// # Errors
    /// As a walk.
    pub async fn first_page(&self, kind: Kind) -> Result<ListPage, ReadError> {
        probe::first_page(&self.client, kind, self.attributes_asked_for(kind, Request::List)).await
    }

    /// A filter in the server's own time, as far as its clock is known.
    fn modified_since(&self, since: i64) -> String {
        let at = jiff::Timestamp::from_millisecond(since.saturating_add(self.client.skew()));
        format!("meta.lastModified ge \"{}\"", at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }

    /// The parameter that asks for the account's attributes only, if the profile wants that (RFC 7644 §3.9).
    fn attributes_asked_for(&self, kind: Kind, request: Request) -> Option<(&'static str, String)> {
        self.client.profile().request_attributes.then(|| ("attributes", self.requested(kind, request)))
    }

    /// The attributes to ask for: those that may leave the process, and those that decide. A GET asks for what its list
    /// asks for, because attributes that are served on request only would be missing from it. It asks for members too
    /// if they decide.
    fn requested(&self, kind: Kind, request: Request) -> String {
        let decides: &[&str] = match (kind, self.client.profile().memberships) {
            (Kind::User, Memberships::User) => &["id", "active", "groups"],
            (Kind::User, _) => &["id", "active"],
            (Kind::Group, Memberships::List | Memberships::Auto) => &["id", "members"],
            (Kind::Group, Memberships::Get) if request == Request::Get => &["id", "members"],
            (Kind::Group, _) => &["id"],
        };
        let listed = self.reading.attributes.paths().iter().map(String::as_str);
        let listed = listed
            .filter(|path| kind == Kind::User || is_of_groups(path))
            .filter(|path| !decides.iter().any(|name| name.eq_ignore_ascii_case(path)));
        decides.iter().copied().chain(listed).collect::<Vec<_>>().join(",")
    }
}

/// Attributes that a group has as well (RFC 7643 §3.1, §4.2); a strict server refuses to be asked for others.
fn is_of_groups(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["displayname", "externalid"].contains(&path.as_str()) || path.starts_with("meta.")
}

impl Directory for ScimDirectory {
    type Error = ReadError;

    fn list(&self, kind: Kind, since: Option<i64>) -> impl Stream<Item = Result<Page, ReadError>> + Send {
        let attributes = self.attributes_asked_for(kind, Request::List).map(|(_, attributes)| attributes);
        listing::pages(
            self.client.clone(),
            self.learnt.clone(),
            Query { kind, filter: since.map(|since| self.modified_since(since)), attributes },
        )
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        let parsed = parse_row(kind, page, row, &self.reading);
        if matches!(parsed, Parsed::Stale) {
            self.learnt.forget_pages();
        }
        parsed
    }

    async fn get(&self, kind: Kind, id: &Id) -> Answer {
        let query: Vec<(&str, String)> = self.attributes_asked_for(kind, Request::Get).into_iter().collect();
        let reply = match self.client.get(self.client.urls().resource(kind, id, &query)).await {
            Ok(reply) => reply,
            Err(error) => return Answer::Unproven(error.problem.what),
        };
        match reply.status.as_u16() {
            200 => {
                let body = envelope::utf_8(&reply.body).unwrap_or_default();
                if value::id_of(&body).as_ref() != Some(id) {
                    return Answer::Unproven("HTTP 200 without the id that was asked for".to_owned());
                }
                let row = envelope::raw_row(body);
                let page = Page { skew: reply.skew, received_at: reply.received_at, ..Page::default() };
                match self.read(kind, &page, &row) {
                    Parsed::Resource(observed) => Answer::Found(observed),
                    Parsed::NoId | Parsed::Aside(_) | Parsed::Stale => {
                        Answer::Unproven("a body that cannot be read".to_owned())
                    }
                }
            }
            404 | 410 => Answer::NotFound,
            403 => Answer::Forbidden,
            405 | 501 => Answer::NotOffered,
            status => Answer::Unproven(format!("HTTP {status}")),
        }
    }

    async fn in_one_page(&self, kind: Kind, count: u64) -> Option<Vec<RawRow>> {
        if count > ONE_PAGE_MAX {
            return None;
        }
        let mut query = vec![("startIndex", "1".to_owned()), ("count", count.to_string())];
        query.extend(self.attributes_asked_for(kind, Request::List));
        let page = one_page(&self.client, kind, &query).await.ok()?;
        Some(page.rows)
    }

    async fn matching(&self, kind: Kind, attribute: &'static str, id: &Id) -> Result<Vec<Id>, ReadError> {
        // A filter writes a text as JSON does (RFC 7644 §3.4.2.2), quotes in ids included.
        let filter = format!("{attribute} eq {}", Value::String(id.to_string()));
        listing::matching(&self.client, &self.learnt, kind, filter).await
    }
}

/// A row as read, or what is left of it.
pub fn parse_row(kind: Kind, page: &Page, row: &RawRow, reading: &Reading) -> Parsed {
    let Some(bytes) = row.bytes.sent() else { return Parsed::Stale };
    match resource::read_resource(kind, bytes, reading) {
        Ok(resource) => Parsed::Resource(Box::new(observed(resource, page, row))),
        Err(Unreadable { id: Some(id) }) => Parsed::Resource(Box::new(only_id(id, page, row))),
        Err(Unreadable { id: None }) => Parsed::NoId,
    }
}

/// A resource as read, with when and how it was looked at.
fn observed(resource: Resource, page: &Page, row: &RawRow) -> Observed {
    let skew = page.skew.unwrap_or(0);
    let readable =
        if resource.unreadable.is_empty() { Readable::Whole } else { Readable::Without(resource.unreadable) };
    Observed {
        modified_at: resource.principal.last_modified.map(|modified| modified - skew),
        principal: resource.principal,
        raw: row.hash,
        members: resource.members,
        groups: resource.groups,
        observed_at: page.received_at,
        readable,
        composed_name: resource.composed_name,
        other_members: resource.other_members,
    }
}

/// A row of which nothing but its id can be read.
fn only_id(id: Id, page: &Page, row: &RawRow) -> Observed {
    Observed {
        principal: Principal::new(id),
        raw: row.hash,
        members: Vec::new(),
        groups: Vec::new(),
        observed_at: page.received_at,
        modified_at: None,
        readable: Readable::IdOnly,
        composed_name: false,
        other_members: 0,
    }
}
