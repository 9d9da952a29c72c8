//! What a directory shows of itself when it is asked in small: what `check` prints, and which settings follow.

use bytes::Bytes;
use serde_json::Value;

use super::client::Client;
use super::envelope::ListPage;
use super::error::ReadError;
use super::learnt::Learnt;
use super::listing::{self, one_page};
use super::profile::{Memberships, Paging};
use super::resource::{self, Reading};
use crate::directory::{Id, Kind, NOBODY};

/// The first page, asked for as the profile pages. `attributes`: the parameter that asks for some only.
///
/// # Errors
/// As a walk.
pub async fn first_page(
    client: &Client,
    kind: Kind,
    attributes: Option<(&'static str, String)>,
) -> Result<ListPage, ReadError> {
    let count = ("count", client.profile().page_size.to_string());
    let mut query = match client.profile().paging {
        Paging::None | Paging::Link => vec![],
        Paging::CursorForced => vec![("cursor", String::new()), count],
        Paging::Auto | Paging::Index | Paging::Cursor => vec![("startIndex", "1".to_owned()), count],
    };
    query.extend(attributes);
    one_page(client, kind, &query).await
}

/// What a list does with the parameters of paging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// In the answer for one row, the total was the number of rows on the page, and not what it was before.
    pub totals_are_page_sizes: bool,
    /// The request for the second row was answered with the first one.
    pub ignores_start_index: bool,
    /// The server's own page size: it sent fewer rows than asked for, and has more behind them.
    pub cap: Option<usize>,
    /// A cursor was offered, asked for or not.
    pub cursor: bool,
}

/// Finds out with a few small requests; `first` is the page at the beginning. A habit stays false if its request fails.
pub async fn habits(client: &Client, kind: Kind, first: &ListPage) -> Habits {
    let mut habits = Habits { cursor: first.next_cursor.is_some(), ..Habits::default() };
    // A list of one row is the same with every parameter.
    let [one, two, ..] = &first.rows[..] else { return habits };
    let small = |parameter: &'static str, value: &str| [(parameter, value.to_owned()), ("count", "1".to_owned())];
    if client.profile().paging != Paging::None
        && !habits.cursor
        && let Ok(page) = one_page(client, kind, &small("cursor", "")).await
    {
        habits.cursor = page.next_cursor.is_some();
    }
    if matches!(client.profile().paging, Paging::None | Paging::CursorForced) || first.next_cursor.is_some() {
        return habits;
    }
    if let Ok(second) = one_page(client, kind, &small("startIndex", "2")).await
        && let Some(row) = second.rows.first()
    {
        habits.ignores_start_index = row.hash == one.hash && one.hash != two.hash;
        habits.totals_are_page_sizes = second.total == Some(second.rows.len() as u64) && second.total != first.total;
    }
    let asked = client.profile().page_size as usize;
    if first.rows.len() < asked && !habits.ignores_start_index {
        let next = [("startIndex", (first.rows.len() + 1).to_string()), ("count", "1".to_owned())];
        let more = one_page(client, kind, &next).await.is_ok_and(|page| {
            page.rows.first().is_some_and(|row| first.rows.iter().all(|known| known.hash != row.hash))
        });
        habits.cap = more.then_some(first.rows.len());
    }
    habits
}

/// The filter by which memberships could be read although no group shows a member, as far as one user and one group
/// tell. A server ignores filters if it finds a row by an id that does not exist.
pub async fn filter_for_members(client: &Client, learnt: &Learnt, user: &Id, group: &Id) -> Option<Memberships> {
    let found = |kind: Kind, attribute: &'static str, id: &str| {
        let filter = format!("{attribute} eq {}", Value::String(id.to_owned()));
        async move { listing::matching(client, learnt, kind, filter).await.is_ok_and(|ids| !ids.is_empty()) }
    };
    if found(Kind::Group, "members.value", user).await && !found(Kind::Group, "members.value", NOBODY).await {
        return Some(Memberships::MembersFilter);
    }
    if found(Kind::User, "groups.value", group).await && !found(Kind::User, "groups.value", NOBODY).await {
        return Some(Memberships::GroupsFilter);
    }
    None
}

/// True if users say which groups they are in.
pub fn groups_on_users(page: &ListPage, reading: &Reading) -> bool {
    let reading = Reading { groups_on_user: true, ..reading.clone() };
    let shows =
        |bytes: &Bytes| resource::read_resource(Kind::User, bytes, &reading).is_ok_and(|user| !user.groups.is_empty());
    page.rows.iter().filter_map(|row| row.bytes.sent()).any(shows)
}
