//! Settings of `[account.profile]` that would fit a directory better than its present ones.

use std::collections::BTreeSet;

use crate::config::AccountConfig;
use crate::directory::{AttributeList, Id, Kind};
use crate::scim::attributes::is_of;
use crate::scim::profile::Memberships;
use crate::scim::{ScimDirectory, listing, probe, resource};
use crate::source::{Answer, Directory};

/// A setting that would fit this directory better.
pub(super) struct Setting {
    pub field: &'static str,
    pub value: String,
    pub because: String,
}

/// The setting that finds the members of groups if the present one does not: on request, by GET, on users, or by a filter.
pub(super) async fn for_members(directory: &ScimDirectory, user: Option<&Id>, group: &Id) -> Option<Setting> {
    let setting =
        |field, value: &str, because: &str| Setting { field, value: value.to_owned(), because: because.to_owned() };
    let client = &directory.client;
    if !client.profile().request_attributes && on_request(directory, group).await {
        let because = "groups show their members only if `attributes` names them";
        return Some(setting("request_attributes", "true", because));
    }
    if let Answer::Found(observed) = directory.get(Kind::Group, group).await
        && !observed.members.is_empty()
    {
        return Some(setting("memberships", "\"get\"", "groups show their members by GET, not in the list"));
    }
    let users = directory.first_page(Kind::User).await.ok()?;
    if probe::groups_on_users(&users, &directory.reading) {
        return Some(setting("memberships", "\"user\"", "users list their groups"));
    }
    match probe::filter_for_members(client, &directory.learnt, user?, group).await? {
        Memberships::MembersFilter => {
            Some(setting("memberships", "\"members_filter\"", "a filter for members finds groups"))
        }
        _ => Some(setting("memberships", "\"groups_filter\"", "a filter for groups finds users")),
    }
}

/// True if the group, or one on the first page of the list, shows members when `attributes` names them.
async fn on_request(directory: &ScimDirectory, group: &Id) -> bool {
    let shows = |body: &[u8]| {
        resource::read_resource(Kind::Group, body, &directory.reading).is_ok_and(|group| !group.members.is_empty())
    };
    let query = [("attributes", "id,members".to_owned())];
    let client = &directory.client;
    let by_get = client.get(client.urls().resource(Kind::Group, group, &query)).await;
    if by_get.is_ok_and(|reply| reply.status.as_u16() == 200 && shows(&reply.body)) {
        return true;
    }
    let list = listing::one_page(client, Kind::Group, &query).await;
    list.is_ok_and(|page| page.rows.iter().filter_map(|row| row.bytes.sent()).any(|bytes| shows(bytes)))
}

/// What of the users and groups may leave the process.
pub(super) fn published(account: &AccountConfig) -> String {
    let list = &account.account.attributes;
    let named = |paths: &[String]| paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
    let defaults = AttributeList::default();
    let (count, paths) = (defaults.paths().len(), list.paths());
    match paths.strip_prefix(defaults.paths()) {
        Some([]) => format!("the {count} default ones are published"),
        Some(added) => format!("the {count} default ones are published, and {}", named(added)),
        None => format!("only these are published: {}", named(paths)),
    }
}

/// Privileges whose changes are not seen, because a list of the account's own leaves them out.
pub(super) fn unpublished_privileges(account: &AccountConfig) -> Vec<String> {
    let hidden = account.account.privileges.iter().filter(|path| !account.account.attributes.covers(path));
    hidden
        .map(|path| format!("`{path}` decides about privileges, and is not published; → attributes_add = [\"{path}\"]"))
        .collect()
}

/// Configured attributes that none of these rows has. Most often they are misspelled. `what`: what the rows are.
pub(super) fn unknown_attributes<'r>(
    account: &AccountConfig,
    what: &str,
    rows: impl ExactSizeIterator<Item = &'r [u8]>,
) -> Vec<String> {
    let count = rows.len();
    let (list, defaults) = (&account.account.attributes, account.profile.default_attributes());
    if *list == defaults || count == 0 {
        return Vec::new();
    }
    let there: BTreeSet<String> = rows.flat_map(resource::paths_of).filter(|path| is_plain(path)).collect();
    let is_there = |path: &str| there.iter().any(|known| is_of(known, path) || is_of(path, known));
    let known = || there.iter().chain(defaults.paths()).map(String::as_str);
    let missing = list.paths().iter().filter(|path| !is_there(path) && !defaults.covers(path));
    missing
        .map(|path| {
            let near = |name: &str| strsim::jaro_winkler(name, path);
            let nearest = known().max_by(|one, other| near(one).total_cmp(&near(other)));
            let nearest = nearest.filter(|name| near(name) > 0.8);
            let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            format!("none of the {count} {what} has `{path}`{hint}")
        })
        .collect()
}

/// True for an attribute name of the server that is safe to print.
fn is_plain(name: &str) -> bool {
    const SHOWN_MAX: usize = 128;
    !name.is_empty()
        && name.len() <= SHOWN_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_attribute_is_misspelled_if_no_user_has_it_also_inside_of_another_one() {
        let text = r#"
            kafka.brokers = ["127.0.0.1:9092"]
            registry.url = "http://127.0.0.1:8081"
            [[account]]
            name = "acme"
            provider = "generic"
            base_url = "https://acme.example/scim/v2"
            token_file = "token"
            attributes_add = ["nickName", "address.city", "address.cty", "phoneNumbers.value", "urn:acme:User:Cost", "roless"]
        "#;
        let users = [r#"{"nickname": "x", "address": {"city": "Kiel"}, "phoneNumbers": [{"value": "1"}],
            "urn:acme:User": {"cost": 7}, "roles": []}"#];
        let config = Config::parse("scimtail.toml", text).expect("a configuration");
        let notes = unknown_attributes(&config.accounts[0], "users", users.iter().map(|user| user.as_bytes()));
        let expected = [
            "none of the 1 users has `address.cty`; did you mean `address.city`?",
            "none of the 1 users has `roless`; did you mean `roles`?",
        ];
        assert_eq!(notes, expected);
    }
}
