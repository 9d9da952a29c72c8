//! One account whose directory speaks Okta's API: what a sync reads of it.

use super::by_id::check_get;
use super::report::Report;
use super::settings;
use crate::cli::failure::Exit;
use crate::config::AccountConfig;
use crate::directory::{Changes, Kind, SyncStatus};
use crate::okta::OktaDirectory;
use crate::okta::resource::{group_as_scim, user_as_scim};
use crate::scim::value::id_of;

/// `found`: what a sync would find, if the reading came to its end.
pub(super) async fn check(
    account: &AccountConfig,
    directory: &OktaDirectory,
    found: Option<(&SyncStatus, &Changes)>,
    report: &mut Report,
) {
    let (users, groups) = found.map_or((None, None), |(attempt, _)| (attempt.users_read, attempt.groups_read));
    let listed = match directory.first_rows(Kind::User).await {
        Ok(rows) => rows,
        Err(error) => return report.fail("users", &error.problem, Exit::from(&error.code)),
    };
    let of_users = format!("{}, deactivated ones among them", counted(users));
    if users == Some(0) {
        report.note("users", &of_users)
    } else {
        report.ok("users", &of_users)
    }
    let mut of_groups = Vec::new();
    if !account.profile.groups {
        report.note("groups", "not read: [account.profile] groups = false");
    } else {
        of_groups = match directory.first_rows(Kind::Group).await {
            Ok(rows) => rows,
            Err(error) => return report.fail("groups", &error.problem, Exit::from(&error.code)),
        };
        // A whole reading has shown the members of each group, or says which are missing.
        if let (None, Some(group)) = (found, of_groups.iter().find_map(|row| id_of(row)))
            && let Err(error) = directory.first_members(&group).await
        {
            return report.fail("members", &error.problem, Exit::from(&error.code));
        }
        say_groups(account, groups, report);
    }
    report.ok("attributes", &settings::published(account));
    for text in settings::unpublished_privileges(account) {
        report.note("attributes", &text);
    }
    for (kind, rows) in [(Kind::User, &listed), (Kind::Group, &of_groups)] {
        if let Some(id) = rows.iter().find_map(|row| id_of(row)) {
            check_get(directory, kind, &id, report).await;
        }
    }
    let as_scim = listed.iter().map(|row| user_as_scim(row)).chain(of_groups.iter().map(|row| group_as_scim(row)));
    let shown: Vec<Vec<u8>> = as_scim.flatten().collect();
    let what = "users and groups on the first pages";
    for text in settings::unknown_attributes(account, what, shown.iter().map(Vec::as_slice)) {
        report.note("attributes", &text);
    }
}

/// Reports how many groups are read; `groups`: how many a sync would find.
fn say_groups(account: &AccountConfig, groups: Option<i64>, report: &mut Report) {
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
}

fn counted(count: Option<i64>) -> String {
    count.map_or_else(|| "listed".to_owned(), |count| format!("{count} listed"))
}
