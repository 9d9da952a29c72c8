//! What a directory says and shows of itself: what `generic` goes by, and what `check` prints.

use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, ScimDirectory, refusal};
use super::envelope::{self, ListPage};
use super::error::ReadError;
use super::listing;
use super::profile::{Memberships, Paging};
use super::resource::{self, Reading};
use crate::directory::{Id, Kind, NOBODY};
use crate::json::{Bounded, Fields};
use crate::source::RawRow;

/// ServiceProviderConfigs of one server: some wrap theirs into a list.
const CONFIGS_MAX: usize = 10;

/// ServiceProviderConfig (RFC 7643 §5, RFC 9865 §4). It lies both ways on some servers: only what costs nothing when
/// wrong is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// The path that answered: the plural is older.
    pub path: &'static str,
    pub cursor: bool,
    pub index: Option<bool>,
    pub max_page_size: Option<u64>,
    pub filter: Option<bool>,
    pub etag: Option<bool>,
}

/// What the server advertises, asked once; `None` where it advertises nothing readable.
pub async fn advertised(client: &Client) -> Option<Advertised> {
    if let Some(known) = client.advertised.get() {
        return *known;
    }
    let mut found = None;
    for path in ["ServiceProviderConfig", "ServiceProviderConfigs"] {
        // A server in trouble is asked again with the next walk.
        let reply = client.get(client.url(&[path], &[])).await.ok()?;
        if reply.status.as_u16() == 200
            && let Ok(body) = envelope::utf_8(&reply.body)
        {
            found = read_config(path, &body);
        }
        if found.is_some() {
            break;
        }
    }
    *client.advertised.get_or_init(|| found)
}

/// Typed and without building a value: the body may hold anything.
fn read_config(path: &'static str, body: &[u8]) -> Option<Advertised> {
    let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
    // Some wrap it into a list of one.
    let wrapped = fields.get("Resources").and_then(|list| {
        let list: Bounded<&RawValue, CONFIGS_MAX> = serde_json::from_str(list.get()).ok()?;
        Fields::of(list.0.first()?)
    });
    let config = wrapped.unwrap_or(fields);
    let below = |name: &str, field: &str| Fields::of(config.get(name)?)?.get(field).map(RawValue::get);
    let flag = |name: &str, field: &str| below(name, field).and_then(|said| said.parse::<bool>().ok());
    Some(Advertised {
        path,
        cursor: flag("pagination", "cursor") == Some(true),
        index: flag("pagination", "index"),
        max_page_size: below("pagination", "maxPageSize").and_then(|said| said.parse().ok()),
        filter: flag("filter", "supported"),
        etag: flag("etag", "supported"),
    })
}

/// The first page, asked for as the profile pages.
///
/// # Errors
/// As a walk.
pub async fn first_page(directory: &ScimDirectory, kind: Kind) -> Result<ListPage, ReadError> {
    let client = &directory.client;
    let count = ("count", client.profile().page_size.to_string());
    let mut query = match client.profile().paging {
        Paging::None => vec![],
        Paging::CursorForced => vec![("cursor", String::new()), count],
        Paging::Auto | Paging::Index | Paging::Cursor => vec![("startIndex", "1".to_owned()), count],
    };
    query.extend(directory.attributes_asked_for(kind, false));
    list(client, kind, &query).await
}

/// The first page that a query finds.
///
/// # Errors
/// As a walk.
pub async fn list(client: &Client, kind: Kind, query: &[(&str, String)]) -> Result<ListPage, ReadError> {
    let reply = client.get(client.list_url(kind, query)).await.map_err(|error| error.of(kind))?;
    match reply.status.as_u16() {
        200 => envelope::split_list(&reply.body).map_err(|error| error.of(kind)),
        _ => Err(refusal(&reply, client.profile(), kind).of(kind)),
    }
}

/// What a list does with the parameters of paging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Asked for one row, the total was the number of rows on the page, and not what it was before.
    pub totals_are_page_sizes: bool,
    /// Asked for the second row, the first one came.
    pub ignores_start_index: bool,
    /// Fewer rows than asked for, and more behind them: the server's own page size.
    pub cap: Option<usize>,
    /// A cursor was offered, asked for or not.
    pub cursor: bool,
}

/// Finds out with a few small requests; `first` is the page at the beginning. What cannot be asked stays unsaid.
pub async fn habits(client: &Client, kind: Kind, first: &ListPage) -> Habits {
    let mut habits = Habits { cursor: first.next_cursor.is_some(), ..Habits::default() };
    // One row looks the same whatever the server makes of the parameters.
    let [one, two, ..] = &first.rows[..] else { return habits };
    let small = |parameter: &'static str, value: &str| [(parameter, value.to_owned()), ("count", "1".to_owned())];
    if client.profile().paging != Paging::None
        && !habits.cursor
        && let Ok(page) = list(client, kind, &small("cursor", "")).await
    {
        habits.cursor = page.next_cursor.is_some();
    }
    if matches!(client.profile().paging, Paging::None | Paging::CursorForced) || first.next_cursor.is_some() {
        return habits;
    }
    if let Ok(second) = list(client, kind, &small("startIndex", "2")).await
        && let Some(row) = second.rows.first()
    {
        habits.ignores_start_index = row.hash == one.hash && one.hash != two.hash;
        habits.totals_are_page_sizes = second.total == Some(second.rows.len() as u64) && second.total != first.total;
    }
    let asked = client.profile().page_size as usize;
    if first.rows.len() < asked && !habits.ignores_start_index {
        let next = [("startIndex", (first.rows.len() + 1).to_string()), ("count", "1".to_owned())];
        let more = list(client, kind, &next).await.is_ok_and(|page| {
            page.rows.first().is_some_and(|row| first.rows.iter().all(|known| known.hash != row.hash))
        });
        habits.cap = more.then_some(first.rows.len());
    }
    habits
}

/// Where memberships could be read although no group shows a member: by a filter, as far as one user and one group
/// tell. A server that finds somebody by an id that nobody has ignores filters.
pub async fn filter_for_members(client: &Client, user: &Id, group: &Id) -> Option<Memberships> {
    let found = |kind: Kind, attribute: &'static str, id: &str| {
        let filter = format!("{attribute} eq {}", Value::String(id.to_owned()));
        async move { listing::matching(client, kind, filter).await.is_ok_and(|ids| !ids.is_empty()) }
    };
    if found(Kind::Group, "members.value", user).await && !found(Kind::Group, "members.value", NOBODY).await {
        return Some(Memberships::MembersFilter);
    }
    if found(Kind::User, "groups.value", group).await && !found(Kind::User, "groups.value", NOBODY).await {
        return Some(Memberships::GroupsFilter);
    }
    None
}

/// True where users say which groups they are in.
pub fn groups_on_users(page: &ListPage, reading: &Reading) -> bool {
    let reading = Reading { groups_on_user: true, ..reading.clone() };
    let shows = |row: &RawRow| {
        resource::read_resource(Kind::User, &row.bytes, &reading).is_ok_and(|user| !user.groups.is_empty())
    };
    page.rows.iter().any(shows)
}
