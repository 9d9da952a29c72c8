//! One account: whether its directory can be read, how the directory behaves, and which settings follow from that.
//!
//! The check reads with the code of a sync and compares with the state in Kafka. If `run` would fail, hold or not see
//! removals, the check reports that in the same words. Its additional requests only find settings that would fit better.

use crate::directory::{Changes, Id, Kind, Known, Principal, Problem, Reason, ReasonCode, Strategy, SyncStatus};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::by_id::check_get;
use super::okta;
use super::record;
use super::report::Report;
use super::settings::{self, Setting};
use crate::cli::failure::Exit;
use crate::config::{AccountConfig, Secret};
use crate::connect::{AnyDirectory, Connection};
use crate::schedule::now_millis;
use crate::scim::advertised::Advertised;
use crate::scim::envelope::ListPage;
use crate::scim::probe::{self, Habits};
use crate::scim::profile::{Paging, Profile};
use crate::scim::tape::Tape;
use crate::scim::{Client, ReadError, Scheme, ScimDirectory};
use crate::source::{Answer, Directory, Parsed};
use crate::sync::{self, Planned};
use crate::transport::file::NamedFile;

/// From the first request to a directory to the end of its reading. A check answers a person, so it ends soon.
const DIRECTORY_WAIT: Duration = Duration::from_secs(30);
/// Groups whose row in the list is compared with GET of the group.
const GROUPS_COMPARED: usize = 40;

/// Reads the directory as a sync would; `known`: what Kafka holds of the account. `tape`: where requests and answers are
/// written down, for a recording.
pub(super) async fn check(account: &Arc<AccountConfig>, known: &Known, tape: Option<&Tape>, report: &mut Report) {
    say_way(account, report);
    if let Err(problem) = account.network.read() {
        return report.fail("network", &problem, Exit::Configuration);
    }
    let directory = match Connection::new(account, now_millis).directory() {
        Ok(directory) => match tape {
            Some(tape) => directory.on_tape(tape),
            None => directory,
        },
        Err(error) => {
            let topic = if error.code == ReasonCode::CredentialUnreadable { "token" } else { "reach" };
            return report.fail(topic, &error.problem, Exit::from(&error.code));
        }
    };
    ask(account, known, &directory, report).await;
    if let (Some(tape), AnyDirectory::Scim(directory)) = (tape, &directory) {
        record::ask_more(directory, tape).await;
    }
}

async fn ask(account: &AccountConfig, known: &Known, directory: &AnyDirectory, report: &mut Report) {
    let client = directory.client();
    let started = Instant::now();
    let advertised = match directory {
        AnyDirectory::Scim(directory) => directory.advertised().await,
        AnyDirectory::Okta(directory) => {
            // Only for the time that it takes: the reading says what is wrong.
            directory.first_rows(Kind::User).await.map(drop).ok();
            None
        }
    };
    let millis = started.elapsed().as_millis();
    let sent = client.sent();
    let reading = sync::plan(&account.account, directory, known, now_millis);
    let read = match tokio::time::timeout(DIRECTORY_WAIT, reading).await {
        Ok(Planned::Failed(reason)) => return unreadable(&reason, millis, report),
        Ok(planned) => Some(planned),
        Err(_) => match waiting(client) {
            Some(problem) => return report.fail("reach", &problem, Exit::Unreachable),
            None => None,
        },
    };
    let sent = client.sent() - sent;
    report.ok("reach", &format!("{}, answers in {millis} ms", account.base_url.scheme().to_uppercase()));
    let selects = if client.profile().base_url.is_some() { "; the token selects the account" } else { "" };
    report.ok("token", &format!("accepted{selects}"));
    if let Some(price) = account.profile.price_per_request {
        report.note("price", &cost(price, account.interval, sent, read.is_some()));
    }
    let directory = match directory {
        AnyDirectory::Scim(directory) => directory,
        AnyDirectory::Okta(directory) => {
            report.ok("requests", &requests(sent, account.profile.rate_share, read.is_some()));
            okta::check(account, directory, read.as_ref().and_then(found), report).await;
            return say_rest(account, read.as_ref(), Vec::new(), report);
        }
    };
    say_advertised(advertised, report);
    let mut settings = Vec::new();
    let Some(first_user) = check_users(account, directory, read.as_ref(), &mut settings, report).await else {
        return notes(client.profile(), report);
    };
    // Paging `auto` follows advertised cursors without a setting.
    let by_itself = client.profile().paging == Paging::Auto && advertised.is_some_and(|advertised| advertised.cursor);
    settings.retain(|setting: &Setting| setting.field != "paging" || !by_itself);
    if client.profile().groups {
        check_groups(directory, read.as_ref(), first_user.as_ref(), &mut settings, report).await;
    } else {
        report.note("groups", "not served by this vendor");
    }
    if let Some(first_user) = &first_user {
        check_get(directory, Kind::User, first_user, report).await;
    }
    say_rest(account, read.as_ref(), settings, report);
}

/// Reports what a sync finds, which settings would fit better, and what is known of the vendor.
fn say_rest(account: &AccountConfig, read: Option<&Planned>, settings: Vec<Setting>, report: &mut Report) {
    match read {
        None => {
            let text = format!(
                "only a part was read within {} s; → scimtail plan {} reads everything",
                DIRECTORY_WAIT.as_secs(),
                account.account.name
            );
            report.note("sync", &text);
        }
        Some(read) => say_findings(account, read, report),
    }
    for Setting { field, value, because } in settings {
        report.note("settings", &format!("[account.profile] {field} = {value}: {because}"));
    }
    notes(&account.profile, report)
}

/// How many requests a sync takes, by those that this reading took. `is_whole`: it came to its end.
fn requests(requests: u64, share: f64, is_whole: bool) -> String {
    let counted = match is_whole {
        true => format!("a first sync takes {requests}, as this reading did"),
        false => format!("a first sync takes more than the {requests} after which this reading was cut off"),
    };
    match share {
        1.0 => counted,
        share => format!("{counted}; at most {} % of the vendor's limits are used", (share * 100.0).round()),
    }
}

/// Names the proxy on the way to the directory, and files that too many users of this machine may read or write.
fn say_way(account: &AccountConfig, report: &mut Report) {
    if let Some(proxy) = account.network.proxy_to(&account.base_url) {
        report.ok("proxy", &format!("through {proxy}"));
    }
    if let Scheme::Oauth2 { token_url, .. } = &account.scheme
        && let Some(proxy) = account.network.proxy_to(token_url)
    {
        report.ok("proxy", &format!("token_url through {proxy}"));
    }
    let secrets = [Some(&account.secret), account.refresh_token.as_ref()].into_iter().flatten();
    let files = secrets.filter_map(Secret::named_file).chain(account.network.files());
    for exposure in files.filter_map(NamedFile::exposure) {
        report.note("files", &exposure);
    }
}

/// What a month of syncs costs at this price of a request in USD, by the requests that this reading took. `is_whole`: it
/// came to its end, so that a sync takes as many.
fn cost(price: f64, interval: Duration, requests: u64, is_whole: bool) -> String {
    const MONTH: Duration = Duration::from_secs(30 * 86_400);
    let of_a_month = requests as f64 * price * (MONTH.as_secs_f64() / interval.as_secs_f64());
    let usd = if of_a_month < 100.0 { format!("{of_a_month:.2}") } else { format!("{of_a_month:.0}") };
    let interval = jiff::SignedDuration::try_from(interval).unwrap_or(jiff::SignedDuration::MAX);
    let month = format!("USD {usd} a month at an interval of {interval:#} and USD {price} a request");
    if is_whole {
        format!("a sync takes {requests} requests, as this reading did: about {month}")
    } else {
        format!(
            "a sync takes more than the {requests} requests after which this reading was cut off: more than {month}"
        )
    }
}

/// What a sync would find; `None` for one that fails.
fn found(read: &Planned) -> Option<(&SyncStatus, &Changes)> {
    match read {
        Planned::Changes(attempt, changes) | Planned::Held(attempt, _, _, changes) => Some((attempt, changes)),
        Planned::Failed(_) => None,
    }
}

/// Why the reading did not end in time: the directory asked to wait, or does not answer. `None` if it is only large.
fn waiting(client: &Client) -> Option<Problem> {
    let seconds = DIRECTORY_WAIT.as_secs();
    match client.last_answer() {
        None => Some(Problem::new(format!("no answer within {seconds} s")).with_remedy("try again, or ask the vendor")),
        // A refusal would have ended the reading: it is of one resource.
        Some(last) if last.status < 500 && last.status != 429 && last.wait.is_none() => None,
        Some(last) => {
            let wait = last.wait.map(|wait| format!(", asked to wait {} s", wait.as_secs())).unwrap_or_default();
            let status = last.status;
            let what = format!("no complete answer within {seconds} s; the last one was HTTP {status}{wait}");
            Some(Problem::new(what).with_remedy("try later"))
        }
    }
}

fn notes(profile: &Profile, report: &mut Report) {
    // Notes about templates of URLs are of no use to a configured account.
    let templates = ["base_url", "token_url"];
    for note in profile.notes.iter().filter(|note| !templates.contains(&note.topic.as_str())) {
        report.note(&note.topic, &note.text);
    }
    if !profile.not_read.is_empty() {
        report.note("not read", &profile.not_read.join(", "));
    }
}

/// Reports why a sync would fail, in the words of the sync.
fn unreadable(reason: &Reason, millis: u128, report: &mut Report) {
    let topic = match reason.code {
        ReasonCode::Unreachable | ReasonCode::NotConnectable | ReasonCode::Redirected => "reach",
        ReasonCode::CredentialsRefused | ReasonCode::CredentialUnreadable | ReasonCode::NotATokenResponse => "token",
        _ if reason.problem.what.starts_with("Groups") => "groups",
        _ => "users",
    };
    if topic != "reach" {
        report.ok("reach", &format!("answers in {millis} ms"));
    }
    let mut problem = reason.problem.clone();
    if reason.code == ReasonCode::NotAListResponse && problem.remedy.is_none() {
        problem = problem.with_remedy("check base_url: it usually ends in /scim/v2");
    }
    report.fail(topic, &problem, Exit::from(&reason.code))
}

fn say_advertised(advertised: Option<Advertised>, report: &mut Report) {
    match advertised {
        Some(advertised) => {
            let paging = if advertised.cursor { "pages by cursor" } else { "no cursors" };
            report.ok("advertised", &format!("/{}: {paging}{}", advertised.path, features(advertised)))
        }
        None => report.note("advertised", "nothing: neither path has a readable ServiceProviderConfig"),
    }
}

/// Reports the findings of a sync, and whether it would be held.
fn say_findings(account: &AccountConfig, read: &Planned, report: &mut Report) {
    if let Planned::Held(_, hold, reason, _) = read {
        let release = format!("scimtail release {} --hold {hold}", account.account.name);
        let what = format!("a sync would publish nothing: {}", reason.problem);
        report.held("sync", Problem::new(what).with_remedy(release));
    }
    for finding in found(read).into_iter().flat_map(|(attempt, _)| &attempt.findings) {
        let topic = match finding {
            of_members if of_members.contains("members") => "members",
            of_groups if of_groups.starts_with("Groups") => "groups",
            _ => "users",
        };
        report.note(topic, finding);
    }
}

fn features(advertised: Advertised) -> String {
    let named = [("filters", advertised.filter), ("ETags", advertised.etag)];
    let said = named.into_iter().filter_map(|(name, said)| Some(format!("{}{name}", if said? { "" } else { "no " })));
    let cap = advertised.max_page_size.map(|cap| format!("at most {cap} rows a page"));
    said.chain(cap).map(|text| format!(", {text}")).collect()
}

/// Returns an id from the list, if the list has one. `None` if the list cannot be read.
async fn check_users(
    account: &AccountConfig,
    directory: &ScimDirectory,
    read: Option<&Planned>,
    settings: &mut Vec<Setting>,
    report: &mut Report,
) -> Option<Option<Id>> {
    let page = match directory.first_page(Kind::User).await {
        Ok(page) => page,
        Err(error) => {
            report.fail("users", &error.problem, Exit::from(&error.code));
            return None;
        }
    };
    let habits = probe::habits(&directory.client, Kind::User, &page).await;
    say_listed("users", read, &page, directory, habits, report);
    let users = principals(directory, Kind::User, &page);
    let unknown = users.iter().filter(|user| user.active.is_none()).count();
    let inactive = users.iter().filter(|user| user.active == Some(false)).count();
    if unknown > 0 {
        let text =
            format!("{unknown} of {} users on the first page have no `active`: their state stays unknown", users.len());
        report.note("users", &text);
    } else if inactive > 0 {
        report.ok("inactive", &format!("{inactive} of {} users on the first page are listed as disabled", users.len()));
    }
    report.ok("attributes", &settings::published(account));
    let rows: Vec<&[u8]> = page.rows.iter().filter_map(|row| row.bytes.sent()).map(|bytes| &bytes[..]).collect();
    let unknown = settings::unknown_attributes(account, "users on the first page", rows.into_iter());
    for text in unknown.into_iter().chain(settings::unpublished_privileges(account)) {
        report.note("attributes", &text);
    }
    paging_settings(directory.client.profile(), habits, &page, settings);
    Some(users.into_iter().next().map(|user| user.id))
}

/// Reports how many resources a list has and how it is paged. That no user is listed is a finding of the sync.
fn say_listed(
    topic: &str,
    read: Option<&Planned>,
    page: &ListPage,
    directory: &ScimDirectory,
    habits: Habits,
    report: &mut Report,
) {
    let counted = read.and_then(found).and_then(|(attempt, _)| match topic {
        "users" => attempt.users_read,
        _ => attempt.groups_read,
    });
    let text = listed(counted, page, directory.client.profile().paging, habits);
    if topic == "users" && counted == Some(0) { report.note(topic, &text) } else { report.ok(topic, &text) }
}

fn principals(directory: &ScimDirectory, kind: Kind, page: &ListPage) -> Vec<Principal> {
    let read = |row| match directory.read(kind, &Default::default(), row) {
        Parsed::Resource(observed) => Some(observed.principal),
        Parsed::NoId | Parsed::Aside(_) | Parsed::Stale => None,
    };
    page.rows.iter().filter_map(read).collect()
}

fn listed(counted: Option<i64>, page: &ListPage, paging: Paging, habits: Habits) -> String {
    let count = match (counted, page.total) {
        (Some(counted), _) => format!("{counted} listed"),
        (None, Some(total)) => format!("totalResults {total}"),
        (None, None) => format!("{} on the first page, no totalResults", page.rows.len()),
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
    // Cursors that the server offers by itself are followed without a setting.
    let unasked = page.next_cursor.is_some();
    if habits.cursor && !unasked && matches!(profile.paging, Paging::Index | Paging::Auto) {
        follows("paging", "\"cursor\"", "the server supports cursors, and rows cannot slide between their pages");
    }
    if habits.totals_are_page_sizes && profile.trust_total {
        follows("trust_total", "false", "totalResults is the number of rows on the page");
    }
    if let Some(cap) = habits.cap {
        follows("page_size", &cap.to_string(), "the server sends at most this many rows a page");
    }
}

async fn check_groups(
    directory: &ScimDirectory,
    read: Option<&Planned>,
    first_user: Option<&Id>,
    settings: &mut Vec<Setting>,
    report: &mut Report,
) {
    let client = &directory.client;
    let page = match directory.first_page(Kind::Group).await {
        Ok(page) => page,
        Err(ReadError { problem, code, .. }) => return report.fail("groups", &problem, Exit::from(&code)),
    };
    let habits = probe::habits(client, Kind::Group, &page).await;
    say_listed("groups", read, &page, directory, habits, report);
    let Some(first_group) = principals(directory, Kind::Group, &page).into_iter().next() else {
        return report.note("members", "no groups yet: a later check finds out how members are shown");
    };
    check_get(directory, Kind::Group, &first_group.id, report).await;
    let Some((_, changes)) = read.and_then(found) else {
        return report.note("members", "only a complete sync finds out how they are shown");
    };
    match changes.strategy {
        Strategy::Never => report.ok("members", "not shown by this vendor: memberships stay unknown"),
        _ if !changes.memberships_are_known => {
            settings.extend(settings::for_members(directory, first_user, &first_group.id).await);
            report.note("members", "no group shows any: memberships stay unknown until one does")
        }
        Strategy::List => match hidden_in_list(directory, &page).await {
            0 => report.ok("members", "in the list of groups"),
            groups => {
                settings.push(Setting {
                    field: "memberships",
                    value: "\"get\"".to_owned(),
                    because: "GET of a group shows members that the list omits".to_owned(),
                });
                let text = format!("the list omits members of {groups} groups that GET shows");
                report.note("members", &text)
            }
        },
        Strategy::Get => report.ok("members", "by GET of each group"),
        Strategy::GroupsFilter => report.ok("members", "by a filter on users, one request for each group"),
        Strategy::MembersFilter => report.ok("members", "by a filter on groups, one request for each user"),
        Strategy::User => report.ok("members", "on the users"),
    }
}

/// Counts groups of the first page whose GET shows members that their row omits. Looks at the largest groups, because
/// a list may cut them off, and at a sample of the others.
async fn hidden_in_list(directory: &ScimDirectory, page: &ListPage) -> usize {
    let mut groups: Vec<(Id, BTreeSet<Id>)> = Vec::new();
    for row in &page.rows {
        if let Parsed::Resource(observed) = directory.read(Kind::Group, &Default::default(), row) {
            let members = observed.members.into_iter().map(|member| member.id).collect();
            groups.push((observed.principal.id, members));
        }
    }
    groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    let half = GROUPS_COMPARED / 2;
    let spread = groups.len().saturating_sub(half).div_ceil(half).max(1);
    let chosen = groups.iter().take(half).chain(groups.iter().skip(half).step_by(spread));
    let mut hidden = 0;
    for (id, listed) in chosen {
        if let Answer::Found(observed) = directory.get(Kind::Group, id).await {
            hidden += usize::from(observed.members.iter().any(|member| !listed.contains(&member.id)));
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_of_syncs_has_a_price_and_a_reading_that_was_cut_off_says_that_it_is_more() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        assert_eq!(
            cost(0.002, hours(24), 325, true),
            "a sync takes 325 requests, as this reading did: about USD 19.50 a month at an interval of 24h \
             and USD 0.002 a request"
        );
        assert_eq!(
            cost(0.002, Duration::from_secs(300), 325, false),
            "a sync takes more than the 325 requests after which this reading was cut off: more than USD 5616 a month \
             at an interval of 5m and USD 0.002 a request"
        );
    }
}
