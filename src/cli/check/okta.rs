//! One account whose directory speaks Okta's API: what a sync reads of it.

use super::by_id::check_get;
use super::report::Report;
use super::settings;
use crate::config::AccountConfig;
use crate::directory::{Changes, Kind, SyncStatus};
use crate::okta::OktaDirectory;

/// `found`: what a sync would find, if the reading came to its end.
pub(super) async fn check(
    account: &AccountConfig,
    directory: &OktaDirectory,
    found: Option<(&SyncStatus, &Changes)>,
    report: &mut Report,
) {
    let counted = |count: Option<i64>| match count {
        Some(count) => format!("{count} listed"),
        None => "listed".to_owned(),
    };
    let (users, groups) = found.map_or((None, None), |(attempt, _)| (attempt.users_read, attempt.groups_read));
    let of_users = format!("{}, deactivated ones among them", counted(users));
    if users == Some(0) {
        report.note("users", &of_users)
    } else {
        report.ok("users", &of_users)
    }
    let chosen = match &account.groups {
        Some(_) => "those that `groups` names",
        None => "all but Everyone",
    };
    let of_groups = format!("{}, {chosen}", counted(groups));
    match (groups, &account.groups) {
        (Some(0), Some(_)) => {
            report.note("groups", &format!("{of_groups}; → no group has such a name: check `groups`"))
        }
        _ => report.ok("groups", &of_groups),
    }
    report.ok("members", "the list of each group's users");
    report.ok("attributes", &settings::published(account));
    for text in settings::unpublished_privileges(account) {
        report.note("attributes", &text);
    }
    for kind in Kind::BOTH {
        if let Some(id) = directory.first_id(kind).await {
            check_get(directory, kind, &id, report).await;
        }
    }
}
