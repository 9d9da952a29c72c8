//! One account: whether its directory can be read, what it turned out to do, and which settings follow.

use tokio::time::Instant;

use super::Report;
use crate::cli::Failure;
use crate::config::AccountConfig;
use crate::connect::Connection;
use crate::directory::{Id, Kind, NOBODY, Strategy};
use crate::pipeline::{Answer, Directory};
use crate::scim::probe::{self, Habits, MembersShown};
use crate::scim::profile::{Memberships, Paging, Profile};
use crate::scim::wire::ListPage;
use crate::scim::{ReadError, ScimDirectory, error, wire};

/// A setting of `[account.profile]` that would fit this directory better.
struct Setting {
    field: &'static str,
    value: String,
    because: String,
}

pub(super) async fn check(account: &AccountConfig, report: &mut Report) -> Result<(), Failure> {
    let directory = match Connection::new(account, crate::schedule::now_millis).directory() {
        Ok(directory) => directory,
        Err(error) => return report.fail("token", &error.text, true),
    };
    let (client, profile) = (&directory.client, directory.client.profile());
    let started = Instant::now();
    let users = match probe::first_page(client, Kind::User).await {
        Ok(page) => page,
        Err(error) => return unreadable(&error, started, report),
    };
    let scheme = account.base_url.scheme().to_uppercase();
    report.ok("reach", &format!("{scheme}, answers in {} ms", started.elapsed().as_millis()))?;
    let selects = if profile.base_url.is_some() { "; the token selects the account" } else { "" };
    report.ok("token", &format!("accepted{selects}"))?;

    let mut settings = Vec::new();
    let advertised = probe::advertised(client).await;
    match advertised {
        Some(advertised) => {
            let paging = if advertised.cursor { "pages by cursor" } else { "no cursors" };
            let text = format!("/{}: {paging}{}", advertised.path, features(advertised));
            report.ok("advertised", &text)?;
        }
        None => report.note("advertised", "nothing: no readable ServiceProviderConfig at either path")?,
    }
    let Some(first_user) = check_users(&directory, &users, &mut settings, report).await? else {
        return notes(profile, report);
    };
    // `auto` follows cursors that are advertised by itself.
    let by_itself = profile.paging == Paging::Auto && advertised.is_some_and(|advertised| advertised.cursor);
    settings.retain(|setting: &Setting| setting.field != "paging" || !by_itself);
    if profile.groups {
        check_groups(&directory, &users, &first_user, &mut settings, report).await?;
    } else {
        report.note("groups", "not served by this vendor")?;
    }
    check_get(&directory, &first_user, report).await?;
    for Setting { field, value, because } in settings {
        report.note("settings", &format!("[account.profile] {field} = {value}: {because}"))?;
    }
    notes(profile, report)
}

fn notes(profile: &Profile, report: &Report) -> Result<(), Failure> {
    // An account that is configured needs no templates of its URLs any more.
    let templates = ["base_url", "token_url"];
    for note in profile.notes.iter().filter(|note| !templates.contains(&note.topic.as_str())) {
        report.note(&note.topic, &note.text)?;
    }
    Ok(())
}

fn unreadable(error: &ReadError, started: Instant, report: &mut Report) -> Result<(), Failure> {
    let topic = match error.code {
        error::UNREACHABLE | error::REDIRECTED => "reach",
        error::REFUSED => "token",
        _ => "users",
    };
    if topic != "reach" {
        report.ok("reach", &format!("answers in {} ms", started.elapsed().as_millis()))?;
    }
    let hint = if error.code == error::NOT_A_LIST { "; → check base_url: it usually ends in /scim/v2" } else { "" };
    report.fail(topic, &format!("{}{hint}", error.text), is_refusal(error))
}

/// True where a person has to act; false where trying later may help.
fn is_refusal(error: &ReadError) -> bool {
    !matches!(error.code, error::UNREACHABLE | error::UNAVAILABLE)
}

fn features(advertised: probe::Advertised) -> String {
    let named = [("filters", advertised.filter), ("ETags", advertised.etag)];
    let said = named.into_iter().filter_map(|(name, said)| Some(format!("{}{name}", if said? { "" } else { "no " })));
    let cap = advertised.max_page_size.map(|cap| format!("at most {cap} rows a page"));
    said.chain(cap).map(|text| format!(", {text}")).collect()
}

/// Returns an id that the list shows; `None` where there is no user.
async fn check_users(
    directory: &ScimDirectory,
    page: &ListPage,
    settings: &mut Vec<Setting>,
    report: &mut Report,
) -> Result<Option<Id>, Failure> {
    let habits = probe::habits(&directory.client, Kind::User, page).await;
    let mut users = Vec::new();
    for row in &page.rows {
        match wire::read_resource(Kind::User, &row.bytes, &directory.reading) {
            Ok(user) => users.push(user.principal),
            Err(error) => {
                report.fail("users", &error.text, true)?;
                return Ok(None);
            }
        }
    }
    report.ok("users", &listed(page, &directory.client.profile().paging, habits))?;
    let unknown = users.iter().filter(|user| user.active.is_none()).count();
    let inactive = users.iter().filter(|user| user.active == Some(false)).count();
    if unknown > 0 {
        let text = format!(
            "active is not stated for {unknown} of {} users on the first page: their state stays unknown",
            users.len()
        );
        report.note("users", &text)?;
    } else if inactive > 0 {
        report
            .ok("inactive", &format!("{inactive} of {} users on the first page: listed, as disabled", users.len()))?;
    }
    paging_settings(directory.client.profile(), habits, page, settings);
    Ok(users.into_iter().next().map(|user| user.id))
}

fn listed(page: &ListPage, paging: &Paging, habits: Habits) -> String {
    let count = match page.total {
        Some(total) => format!("{total} listed"),
        None => format!("{} on the first page, no total stated", page.rows.len()),
    };
    let how = match paging {
        Paging::None => "all at once",
        _ if habits.cursor => "pages by cursor",
        _ if habits.ignores_start_index => "startIndex is ignored",
        _ => "index paging",
    };
    let cap = habits.cap.map(|cap| format!(", {cap} rows a page at most")).unwrap_or_default();
    format!("{count}, {how}{cap}")
}

fn paging_settings(profile: &Profile, habits: Habits, page: &ListPage, settings: &mut Vec<Setting>) {
    let mut follows = |field, value: &str, because: &str| {
        settings.push(Setting { field, value: value.to_owned(), because: because.to_owned() });
    };
    // Cursors that are offered unasked are followed anyway.
    let unasked = page.next_cursor.is_some();
    if habits.cursor && !unasked && matches!(profile.paging, Paging::Index | Paging::Auto) {
        follows("paging", "\"cursor\"", "cursors are answered, and rows cannot slide between their pages");
    }
    if habits.totals_are_page_sizes && profile.trust_total {
        follows("trust_total", "false", "totalResults is the number of rows on the page");
    }
    if let Some(cap) = habits.cap {
        follows("page_size", &cap.to_string(), "the server sends no more at once");
    }
}

async fn check_groups(
    directory: &ScimDirectory,
    users: &ListPage,
    first_user: &Id,
    settings: &mut Vec<Setting>,
    report: &mut Report,
) -> Result<(), Failure> {
    let (client, profile) = (&directory.client, directory.client.profile());
    let page = match probe::first_page(client, Kind::Group).await {
        Ok(page) => page,
        Err(error) => {
            let hint = "; → where this directory serves no groups: [account.profile] groups = false";
            let hint = if error.code == error::HTTP_STATUS { hint } else { "" };
            return report.fail("groups", &format!("{}{hint}", error.text), is_refusal(&error));
        }
    };
    let shown = match probe::members_shown(client, &directory.reading).await {
        Ok(shown) => shown,
        Err(error) => return report.fail("groups", &error.text, true),
    };
    report.ok("groups", &listed(&page, &profile.paging, probe::habits(client, Kind::Group, &page).await))?;
    let Some(first_group) = page.rows.first().and_then(|row| wire::id_of(&row.bytes)) else {
        return report.note("members", "no groups yet: how members are shown will be found out when there are some");
    };
    let strategy = match directory.strategy().await {
        Ok(strategy) => strategy,
        Err(error) => return report.fail("members", &error.text, true),
    };
    let text = match (strategy, shown) {
        (Strategy::List, MembersShown::InList) => "in the list of groups",
        (Strategy::Get, MembersShown::ByGet | MembersShown::InList) => "by GET of each group",
        (Strategy::GroupsFilter, _) => "by a filter on users, one request for each group",
        (Strategy::MembersFilter, _) => "by a filter on groups, one request for each user",
        (Strategy::User, _) if probe::groups_on_users(users, &directory.reading) => "on the users",
        (Strategy::Never, _) => "not shown by this vendor: memberships stay unknown",
        _ => {
            let other = match shown {
                MembersShown::InList => Some(("list", "groups show their members in the list")),
                MembersShown::ByGet => Some(("get", "groups show their members by GET, not in the list")),
                _ if probe::groups_on_users(users, &directory.reading) => Some(("user", "users say their groups")),
                _ => match probe::filter_for_members(client, first_user, &first_group).await {
                    Some(Memberships::MembersFilter) => Some(("members_filter", "a filter for members finds groups")),
                    Some(_) => Some(("groups_filter", "a filter for groups finds users")),
                    None => None,
                },
            };
            if let Some((value, because)) = other {
                let (value, because) = (format!("\"{value}\""), because.to_owned());
                settings.push(Setting { field: "memberships", value, because });
            }
            return report.note("members", "none shown this way: memberships stay unknown until one is");
        }
    };
    report.ok("members", text)
}

async fn check_get(directory: &ScimDirectory, first_user: &Id, report: &mut Report) -> Result<(), Failure> {
    match directory.get(Kind::User, first_user).await {
        Answer::Found(_) => {}
        Answer::NotFound | Answer::NotOffered => {
            let text = "users are not found by id: a removal takes absence from 3 complete walks";
            return report.note("get", text);
        }
        Answer::Unproven => {
            let text = "GET by id gives no usable answer: what is missing stays, shown in removals_suppressed";
            return report.note("get", text);
        }
    }
    match directory.get(Kind::User, &NOBODY.into()).await {
        Answer::NotFound => report.ok("get", "users are found by id, others are not: removals can be proven"),
        _ => report.note("get", "an id that nobody has gets no 404: what is missing stays, in removals_suppressed"),
    }
}
