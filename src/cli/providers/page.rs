//! The page docs/providers.md, generated from the shipped profiles.

use super::evidence;
use super::provider::Provider;
use crate::cli::failure::Failure;
use crate::config::ProviderTexts;
use crate::scim::layers::names;
use crate::scim::profile::{
    AbsentActive, Api, Auth, EmptyMembers, Inactive, Memberships, Operation, Paging, Profile, RemovalProof,
};

use crate::scim::token::{CLIENT_CREDENTIALS, GRANT_TYPE, grant_type};

/// The command that writes the page of [`markdown`].
pub const REGENERATE: &str = "cargo run -- providers --markdown > docs/providers.md";

/// The text of `docs/providers.md`: for each shipped profile what is read, what cannot be read, and the sources.
///
/// # Errors
/// A shipped profile that does not parse.
pub fn markdown() -> Result<String, Failure> {
    let texts = ProviderTexts::new();
    let providers =
        names(&texts).into_iter().map(|name| Provider::read(name, &texts)).collect::<Result<Vec<_>, _>>()?;
    let mut page = format!(
        "<!-- Generated from src/scim/providers/*.toml by `{REGENERATE}`; do not edit. -->\n\n{INTRODUCTION}\n"
    );
    for provider in &providers {
        let Provider { profile, facts } = provider;
        let value = |field: &str| {
            let default = facts.iter().any(|fact| fact.field == field && fact.default);
            if default { format!("*{}*", provider.value(field)) } else { provider.value(field).to_owned() }
        };
        let memberships = if profile.groups { value("memberships") } else { "no groups".to_owned() };
        if profile.unreadable.is_some() {
            let (name, title) = (&profile.name, &profile.title);
            page.push_str(&format!("| [{name}](#{name}) | {title} | | | | cannot be read | |\n"));
            continue;
        }
        page.push_str(&format!(
            "| [{name}](#{name}) | {} | {} | {} | {} | {memberships} | {} |\n",
            profile.title,
            value("auth"),
            value("paging"),
            value("inactive"),
            profile.removal_means.as_deref().unwrap_or("*removed*"),
            name = profile.name,
        ));
    }
    page.push_str(&evidence::table(&providers));
    for provider in &providers {
        page.push_str(&section(provider));
    }
    Ok(page)
}

const INTRODUCTION: &str = "\
# Providers

This page says what scimtail reads from each vendor's directory, what it cannot read, and the source of each fact.
*Safe default*, or italics alone, means that the vendor does not document the fact. Then the value is that of `generic`.
**unverified** means general knowledge or a second-hand source. The sources of the notes in a table are below the table.

`scimtail check` shows how an endpoint behaves. `scimtail providers NAME` shows every field and an example of an account.
`[account.profile]` overrides single fields for an account. `[providers]` adds and replaces whole profiles.

**Okta** does not serve its own people by SCIM. scimtail reads them by Okta's own API. **OneLogin, JumpCloud and Auth0**
do not serve theirs by SCIM either, as far as is known. They push people to other vendors by SCIM. Auth0's SCIM address
belongs to one enterprise connection, and takes pushes for it. Read the vendors to which they push: their directories
show who has access there in fact. Google Workspace and Genesys Cloud have a SCIM API, but it lists people only with a
filter. Their profiles say what to read instead.

| provider | vendor | credential | paging | inactive users | memberships | a vanished user is |
|---|---|---|---|---|---|---|";

fn section(provider: &Provider) -> String {
    let Provider { profile, .. } = provider;
    if let Some(unreadable) = &profile.unreadable {
        let source = marked(profile.sources.get("unreadable").map_or("no source", String::as_str));
        return format!(
            "\n## {}\n\n{}. It cannot be read: {unreadable}.\n\nSource: {source}.\n",
            profile.name, profile.title
        );
    }
    let mut text = format!(
        "\n## {}\n\n{}. The credential: {}.\n\n| what | how | source |\n|---|---|---|\n",
        profile.name, profile.title, profile.token_hint
    );
    let rows = rows(profile);
    for Row { topic, how, fields } in &rows {
        let notes = profile.notes.iter().filter(|note| note.topic == *topic || noted_as(topic).contains(&&*note.topic));
        let notes: Vec<&str> = notes.map(|note| note.text.as_str()).collect();
        let mut sources = cited(provider, fields);
        sources.extend((!notes.is_empty()).then(|| "note".to_owned()));
        let how: Vec<&str> = [how.as_str()].into_iter().chain(notes).collect();
        text.push_str(&line(topic, &how.join("; "), &sources.join("; ")));
    }
    let told = |note: &str| rows.iter().any(|row| row.topic == note || noted_as(row.topic).contains(&note));
    for note in profile.notes.iter().filter(|note| !told(&note.topic)) {
        text.push_str(&line(&note.topic, &note.text, "note"));
    }
    let source = |field: &str| marked(profile.sources.get(field).map_or("no source", String::as_str));
    if !profile.not_read.is_empty() {
        text.push_str(&line("**not read**", &profile.not_read.join(", "), &source("not_read")));
    }
    text.push_str(&format!("\nSource of the credential: {}.", source("token_hint")));
    if !profile.notes.is_empty() {
        text.push_str(&format!(" Sources of the notes: {}.", source("notes")));
    }
    text.push('\n');
    text
}

fn line(topic: &str, how: &str, source: &str) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    format!("| {} | {} | {} |\n", cell(topic), cell(how), cell(source))
}

/// Topics of notes that belong in the row of this topic.
fn noted_as(topic: &str) -> &'static [&'static str] {
    match topic {
        "address" => &["base_url"],
        "credential" => &["token_url", "token"],
        _ => &[],
    }
}

/// The sources of the fields that the vendor's profile sets itself. If it sets none, whether a default applies.
fn cited(provider: &Provider, fields: &[&str]) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    let facts = || provider.facts.iter().filter(|fact| fields.contains(&fact.field));
    for source in facts().filter(|fact| !fact.default).filter_map(|fact| fact.source.as_deref()) {
        if !sources.iter().any(|known| known == source) {
            sources.push(marked(source));
        }
    }
    if sources.is_empty() && facts().any(|fact| fact.default) {
        sources.push("*safe default*".to_owned());
    }
    sources
}

fn marked(source: &str) -> String {
    source.replace("unverified", "**unverified**")
}

/// One row of a vendor's table: what is read, and the fields of the profile that say so.
struct Row {
    topic: &'static str,
    how: String,
    fields: Vec<&'static str>,
}

fn rows(profile: &Profile) -> Vec<Row> {
    let row = |topic, fields: &[&'static str], how: String| Row { topic, how, fields: fields.to_vec() };
    let mut rows = vec![
        row(
            "address",
            &["base_url"],
            profile.base_url.as_ref().map_or_else(|| "`base_url` of the account".to_owned(), |url| format!("`{url}`")),
        ),
        row(
            "credential",
            &["auth", "oauth2_too", "auth_header", "auth_prefix", "token_url", "scope", "token_params"],
            credential(profile),
        ),
        row("users", &["users_path"], format!("all that `{}` lists", profile.users_path)),
        row("inactive", &["inactive", "absent_active"], inactive(profile)),
    ];
    if profile.groups {
        rows.extend([
            row("groups", &["groups_path", "groups"], format!("all that `{}` lists", profile.groups_path)),
            row("members", &["memberships", "empty_members", "member_cap"], members(profile)),
            row("nested", &["filter_is_direct"], nested(profile)),
        ]);
    } else {
        rows.push(row("groups", &["groups"], "none are read".to_owned()));
    }
    rows.extend([
        row("removal", &["removal_proof", "removal_means"], removal(profile)),
        row("paging", &["paging", "page_size", "pages_in_flight", "trust_total"], paging(profile)),
        row("limits", &["rate_limits", "rate_share", "concurrent_requests"], limits(profile)),
    ]);
    if let Some(interval) = &profile.interval {
        rows.push(row("interval", &["interval"], format!("{interval}, unless the account or `[defaults]` sets one")));
    }
    if let Some(price) = profile.price_per_request {
        rows.push(row("price", &["price_per_request"], format!("USD {price} a request")));
    }
    if !profile.attributes.is_empty() {
        let paths: Vec<String> = profile.attributes.iter().map(|path| format!("`{path}`")).collect();
        rows.push(row("attributes", &["attributes"], format!("the default ones, and {}", paths.join(", "))));
    }
    if let Some(pattern) = &profile.group_pattern {
        rows.push(row("entitlement", &["group_pattern"], format!("group names `{pattern}`")));
    }
    rows
}

fn credential(profile: &Profile) -> String {
    let own = match profile.auth {
        Auth::Bearer => "bearer token".to_owned(),
        Auth::Basic => "username and password".to_owned(),
        Auth::ApiKey if profile.auth_prefix.is_empty() => format!("API key alone in `{}`", profile.auth_header),
        Auth::ApiKey => format!("API key behind `{}` in `{}`", profile.auth_prefix, profile.auth_header),
        Auth::Oauth2 => {
            let from = profile.token_url.as_ref().map_or("`token_url` of the account".to_owned(), |u| format!("`{u}`"));
            let scope = profile.scope.as_ref().map_or_else(String::new, |scope| format!(", scope `{scope}`"));
            let grant = match grant_type(&profile.token_params) {
                CLIENT_CREDENTIALS => "OAuth2 client credentials".to_owned(),
                grant => format!("OAuth2, grant `{grant}`"),
            };
            let params = profile.token_params.keys().filter(|name| *name != GRANT_TYPE);
            let params: String = params.map(|name| format!(", with `{name}`")).collect();
            format!("{grant}{params}, tokens from {from}{scope}")
        }
    };
    if !profile.oauth2_too {
        return own;
    }
    let scope = profile.scope.as_ref().map_or_else(String::new, |scope| format!(", scope `{scope}`"));
    format!("{own}; or OAuth2 client credentials, if the account states `client_id`{scope}")
}

fn inactive(profile: &Profile) -> String {
    let stay = match profile.inactive {
        Inactive::Listed => "read if they are listed, with `active` false",
        Inactive::Hidden => "lists leave them out, GET by id finds them",
        Inactive::Removed => "not read: they are gone from lists",
    };
    match profile.absent_active {
        AbsentActive::Unknown => stay.to_owned(),
        AbsentActive::True => format!("{stay}; a user without `active` is active"),
        AbsentActive::False => format!("{stay}; a user without `active` is disabled"),
    }
}

fn members(profile: &Profile) -> String {
    let how = match profile.memberships {
        Memberships::Auto => "`members` in the list of groups, else in GET of each group",
        Memberships::List if profile.api == Api::Okta => "the list of each group's users",
        Memberships::List => "`members` in the list of groups",
        Memberships::Get => "`members` in GET of each group",
        Memberships::GroupsFilter => "a list of users filtered by `groups.value`, for each group",
        Memberships::MembersFilter => "a list of groups filtered by `members.value`, for each user",
        Memberships::User => "`groups` of each user",
        Memberships::Never => "not read",
    };
    let in_group = matches!(profile.memberships, Memberships::Auto | Memberships::List | Memberships::Get);
    let empty = match profile.empty_members {
        EmptyMembers::None if in_group => "; a group without `members` has none",
        EmptyMembers::Unknown if in_group => "; if no group shows any, memberships are unknown",
        _ => "",
    };
    let cap =
        profile.member_cap.map(|cap| format!("; a list of exactly {cap} members may be cut off and counts as unknown"));
    format!("{how}{empty}{}", cap.unwrap_or_default())
}

fn nested(profile: &Profile) -> String {
    let text = match (profile.memberships, profile.filter_is_direct) {
        (Memberships::Auto | Memberships::List | Memberships::Get, _) => {
            "direct members; a group among them is read as a member of its own type"
        }
        (Memberships::GroupsFilter | Memberships::MembersFilter, true) => {
            "direct members; a group inside a group is not shown"
        }
        (Memberships::GroupsFilter | Memberships::MembersFilter, false) => {
            "direct and indirect members are not told apart; a group inside a group is not shown"
        }
        (Memberships::User, _) => "direct or indirect as the user's `groups` say; a group inside a group is not shown",
        (Memberships::Never, _) => "not read",
    };
    text.to_owned()
}

fn removal(profile: &Profile) -> String {
    let proof = match profile.removal_proof {
        RemovalProof::Get => "proven by GET by id, if that works",
        RemovalProof::Absence => "proven by absence from several complete walks",
    };
    let means = profile.removal_means.as_ref().map(|means| format!("; a vanished user is {means}"));
    format!("{proof}{}", means.unwrap_or_default())
}

fn paging(profile: &Profile) -> String {
    let how = match profile.paging {
        Paging::Auto => "`startIndex`, or cursors if the server offers them",
        Paging::Index => "`startIndex`",
        Paging::Cursor => "cursors, or `startIndex` if the server offers none",
        Paging::CursorForced => "cursors only",
        Paging::Link => return format!("`Link: rel=\"next\"`, {} rows a page", profile.page_size),
        Paging::None => return "none: one answer has all rows".to_owned(),
    };
    let total = if profile.trust_total { "" } else { "; `totalResults` is not relied on" };
    format!("{how}; {} rows a page{total}", profile.page_size)
}

fn limits(profile: &Profile) -> String {
    if profile.rate_limits.is_empty() {
        return "no documented limit; 429 and `Retry-After` are obeyed".to_owned();
    }
    let texts = profile.rate_limits.iter().map(|limit| {
        let of = match limit.of {
            None => "all requests",
            Some(Operation::ListUsers) => "list of users",
            Some(Operation::ListGroups) => "list of groups",
            Some(Operation::GetUser) => "GET of a user",
            Some(Operation::GetGroup) => "GET of a group",
            Some(Operation::ListMembers) => "list of a group's members",
        };
        format!("{of}: {} in {} s", limit.requests, limit.per.as_secs())
    });
    let at_once = profile.concurrent_requests.map(|requests| format!("{requests} requests at the same time"));
    let texts: Vec<String> = texts.chain(at_once).collect();
    let share = if profile.rate_share < 1.0 {
        format!("; scimtail uses {} % of that", (profile.rate_share * 100.0).round())
    } else {
        String::new()
    };
    format!("{}{share}", texts.join("; "))
}
