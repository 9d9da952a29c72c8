//! What a directory says and shows of itself: what `generic` goes by, and what `check` prints.

use serde_json::Value;

use super::client::{Client, refusal};
use super::error::ReadError;
use super::listing;
use super::profile::{Memberships, Paging};
use super::wire::{self, ListPage, Reading};
use crate::directory::{Id, Kind, NOBODY, Strategy};
use crate::pipeline::RawRow;

/// Groups asked one by one whether they show members.
const GROUPS_ASKED: usize = 5;

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
            && let Ok(config) = serde_json::from_slice::<Value>(&reply.body)
        {
            found = read_config(path, &config);
        }
        if found.is_some() {
            break;
        }
    }
    *client.advertised.get_or_init(|| found)
}

fn read_config(path: &'static str, config: &Value) -> Option<Advertised> {
    // Some wrap it into a list of one.
    let config = config.get("Resources").and_then(|list| list.get(0)).unwrap_or(config);
    let config = config.as_object()?;
    let supported = |name: &str| config.get(name).and_then(|feature| feature.get("supported")).and_then(Value::as_bool);
    let pagination = |name: &str| config.get("pagination").and_then(|paging| paging.get(name));
    Some(Advertised {
        path,
        cursor: pagination("cursor").and_then(Value::as_bool) == Some(true),
        index: pagination("index").and_then(Value::as_bool),
        max_page_size: pagination("maxPageSize").and_then(Value::as_u64),
        filter: supported("filter"),
        etag: supported("etag"),
    })
}

/// How memberships are read: by the profile, or, where it leaves that open, by what the groups show. Groups that show
/// no member anywhere leave the question open for the next sync.
///
/// # Errors
/// The directory does not answer.
pub async fn strategy(client: &Client, reading: &Reading) -> Result<Strategy, ReadError> {
    Ok(match client.profile().memberships {
        Memberships::List => Strategy::List,
        Memberships::Get => Strategy::Get,
        Memberships::GroupsFilter => Strategy::GroupsFilter,
        Memberships::MembersFilter => Strategy::MembersFilter,
        Memberships::User => Strategy::User,
        Memberships::Never => Strategy::Never,
        Memberships::Auto if !client.profile().groups => Strategy::Never,
        Memberships::Auto => match client.strategy.get() {
            Some(strategy) => *strategy,
            None => match members_shown(client, reading).await? {
                MembersShown::InList => *client.strategy.get_or_init(|| Strategy::List),
                MembersShown::ByGet => *client.strategy.get_or_init(|| Strategy::Get),
                MembersShown::Nowhere | MembersShown::Unread => Strategy::List,
            },
        },
    })
}

/// Where the groups of the first page show their members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembersShown {
    InList,
    ByGet,
    Nowhere,
    /// The list of groups cannot be read; the walk says why.
    Unread,
}

/// # Errors
/// A row that is no resource.
pub async fn members_shown(client: &Client, reading: &Reading) -> Result<MembersShown, ReadError> {
    let Ok(page) = first_page(client, Kind::Group).await else { return Ok(MembersShown::Unread) };
    let mut groups: Vec<Id> = Vec::new();
    for row in &page.rows {
        let group = wire::read_resource(Kind::Group, &row.bytes, reading)?;
        if !group.members.is_empty() {
            return Ok(MembersShown::InList);
        }
        groups.push(group.principal.id);
    }
    for id in groups.iter().take(GROUPS_ASKED) {
        let url = client.url(&[client.profile().path(Kind::Group), id], &[]);
        let Ok(reply) = client.get(url).await else { continue };
        let shows =
            |body: &[u8]| wire::read_resource(Kind::Group, body, reading).is_ok_and(|group| !group.members.is_empty());
        if reply.status.as_u16() == 200 && shows(&reply.body) {
            return Ok(MembersShown::ByGet);
        }
    }
    Ok(MembersShown::Nowhere)
}

/// The first page, asked for as the profile pages.
///
/// # Errors
/// As a walk.
pub async fn first_page(client: &Client, kind: Kind) -> Result<ListPage, ReadError> {
    let count = ("count", client.profile().page_size.to_string());
    let query = match client.profile().paging {
        Paging::None => vec![],
        Paging::CursorForced => vec![("cursor", String::new()), count],
        Paging::Auto | Paging::Index | Paging::Cursor => vec![("startIndex", "1".to_owned()), count],
    };
    list(client, kind, &query).await
}

async fn list(client: &Client, kind: Kind, query: &[(&str, String)]) -> Result<ListPage, ReadError> {
    let reply = client.get(client.url(&[client.profile().path(kind)], query)).await?;
    match reply.status.as_u16() {
        200 => wire::split_list(&reply.body),
        _ => Err(refusal(reply.status, client.profile())),
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
    let shows =
        |row: &RawRow| wire::read_resource(Kind::User, &row.bytes, &reading).is_ok_and(|user| !user.groups.is_empty());
    page.rows.iter().any(shows)
}
