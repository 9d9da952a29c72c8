//! What a directory says and shows of itself: what `generic` goes by, and what `check` prints.

use serde_json::Value;

use super::client::Client;
use super::error::ReadError;
use super::profile::{Memberships, Paging};
use super::wire::{self, Reading};
use crate::directory::{Id, Kind, Strategy};

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
    let Some(rows) = first_rows(client, Kind::Group).await else { return Ok(MembersShown::Unread) };
    let mut groups: Vec<Id> = Vec::new();
    for row in &rows {
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

/// The rows of the first page, asked for as the profile pages.
pub async fn first_rows(client: &Client, kind: Kind) -> Option<Vec<crate::pipeline::RawRow>> {
    let count = ("count", client.profile().page_size.to_string());
    let query = match client.profile().paging {
        Paging::None => vec![],
        Paging::CursorForced => vec![("cursor", String::new()), count],
        Paging::Auto | Paging::Index | Paging::Cursor => vec![("startIndex", "1".to_owned()), count],
    };
    let reply = client.get(client.url(&[client.profile().path(kind)], &query)).await.ok()?;
    (reply.status.as_u16() == 200).then(|| wire::split_list(&reply.body).ok())?.map(|list| list.rows)
}
