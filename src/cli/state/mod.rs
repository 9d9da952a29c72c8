//! `state`: users, groups, memberships or access, from the compacted topics. The `syncs` marker proves that they are
//! complete. With `--as-of`, the state at a past time.

use clap::Args;

use super::failure::{Exit, Failure};
use super::read::{read_states, unknown};
use super::table::room;
use super::time::parse_time;
use crate::config::{AccountConfig, Config};
use crate::connect;
use crate::directory::{Known, Status, SyncStatus};
use crate::mapping::text::{clean, clock};
use crate::schedule::now_millis;

mod as_of;
mod filter;
mod listing;
mod output;

use as_of::fold_back;
use filter::{Chosen, Filter};
use listing::{Listing, What};
use output::{Format, Output};

#[derive(Debug, Args)]
pub struct Options {
    /// What to list
    #[arg(value_enum)]
    what: What,
    /// Only these accounts [default: all]
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Form of the output [default: a table]
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Do not cut the table to the width of the terminal
    #[arg(long)]
    wide: bool,
    /// The state at a past time such as 2026-11-21T12:00:00Z, or a duration before now such as 2h; reaches back as far
    /// as Kafka keeps events
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<i64>,
}

pub async fn state(config: &Config, options: Options) -> Result<Exit, Failure> {
    if options.as_of.is_some_and(|time| time > now_millis()) {
        return Err(Failure::new(Exit::Usage, "--as-of is in the future; → use a past time"));
    }
    takes_filter(&options)?;
    let registry = connect::registry(&config.registry)?;
    let mut selected = config.select(&options.accounts)?;
    selected.sort_by(|one, other| one.account.name.cmp(&other.account.name));
    selected.dedup_by(|one, other| one.account.name == other.account.name);
    let accounts: Vec<_> = selected.iter().map(|config| config.account.clone()).collect();
    let mut states = read_states(&config.kafka, &registry, &accounts).await?;
    let mut complete = true;
    let mut read: Vec<(&AccountConfig, Known)> = Vec::new();
    // An account whose state is not known does not stop the listing of the others.
    let mut failures = Vec::new();
    for account in &selected {
        let known = match (states.remove(&account.account.name), options.as_of) {
            (Some(Ok(known)), Some(time)) => fold_back(config, &registry, account, known, time).await,
            (Some(known), _) => known.map_err(unknown),
            (None, _) => continue,
        };
        match known {
            Ok(known) => {
                let (whole, words) = completeness(&known);
                if options.as_of.is_none() {
                    // On standard error, so that standard output has nothing but the listing.
                    anstream::eprintln!("{}: {words}", account.account.name);
                    for finding in known.completed.iter().flat_map(|completed| &completed.findings) {
                        anstream::eprintln!("{}: note: {finding}", account.account.name);
                    }
                    complete &= whole;
                }
                if let Some(words) = not_included(&known, whole || options.as_of.is_some()) {
                    anstream::eprintln!("{}: {words}", account.account.name);
                }
                read.push((account, known));
            }
            // The state of the other accounts cannot be read either.
            Err(failure) if failure.exit == Exit::Unreachable => return Err(failure),
            Err(failure) => failures.push(failure),
        }
    }
    if !read.is_empty() {
        let chosen: Vec<Chosen> = read.iter().map(|(_, known)| options.filter.of(known)).collect();
        let accounts = read.iter().zip(&chosen);
        let listings: Vec<Listing<'_>> = accounts
            .map(|((account, known), chosen)| Listing::of(options.what, &account.account, known, chosen))
            .collect();
        Output::write(options.format, options.what, &listings, room(options.wide))
            .map_err(|error| Failure::unwritten(&error))?;
        failures.extend(options.filter.unmatched(&chosen));
    }
    for failure in &failures {
        failure.say();
    }
    let listed = if complete { Exit::Done } else { Exit::TryLater };
    Ok(failures.iter().fold(listed, |worst, failure| worst.or(failure.exit)))
}

/// # Errors
/// The listing has no column for a filter.
fn takes_filter(Options { what, filter, .. }: &Options) -> Result<(), Failure> {
    let (listing, option) = match what {
        What::Users if !filter.groups.is_empty() => ("users", "--group"),
        What::Groups if !filter.users.is_empty() => ("groups", "--user"),
        _ => return Ok(()),
    };
    let text = format!("`state {listing}` has no {option}; → `state access {option} …` lists who is in which group");
    Err(Failure::new(Exit::Usage, text))
}

/// What the state never has, because the vendor's SCIM does not show it.
/// `whole`: the state is that of one sync.
fn not_included(known: &Known, whole: bool) -> Option<String> {
    let what = &known.completed.as_ref()?.settings.not_read;
    let shown = if whole { "complete for what SCIM shows; " } else { "" };
    (!what.is_empty()).then(|| format!("{shown}not included: {}", clean(&what.join(", "))))
}

/// Whether the state is exactly that of one completed sync, and the words about it.
fn completeness(known: &Known) -> (bool, String) {
    let Some(completed) = known.completed.as_ref() else {
        return (false, "no sync has completed yet; the listing may be incomplete".to_owned());
    };
    if let Some(reason) = &known.repair {
        return (false, format!("incomplete: {reason}; the next sync that completes repairs it"));
    }
    let at = clock(completed.finished_at.unwrap_or(completed.started_at));
    let as_of = format!("complete as of sync {}, {at} UTC", completed.sync);
    // What the directory shows by now may be another state.
    let newer = known.latest.as_ref().filter(|latest| latest.sync > completed.sync);
    let as_of = match newer.map(|latest| (latest.status, latest.sync)) {
        Some((Status::Held, sync)) => format!("{as_of}; the newer sync {sync} is held; → scimtail status"),
        Some((Status::Failed, sync)) => format!("{as_of}; the newer sync {sync} failed; → scimtail status"),
        _ => as_of,
    };
    // An attempt that published a part may have failed afterwards.
    let content = |status: &SyncStatus| (status.state_records, status.state_digest);
    match known.latest.as_ref() {
        Some(latest) if latest.status == Status::Running || content(latest) != content(completed) => (
            false,
            format!("{as_of}, plus a part of a later sync; → use --as-of 0s, or retry after the next sync completes"),
        ),
        _ if completed.memberships_read.is_none() => {
            let since = completed.memberships_as_of.map(|sync| format!(" since sync {sync}")).unwrap_or_default();
            (true, format!("{as_of}; not all memberships could be read{since}"))
        }
        _ => (true, as_of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::status::Settings;

    #[test]
    fn a_state_says_what_scim_does_not_show() {
        let mut known = Known::new(1);
        assert_eq!(not_included(&known, false), None);
        let not_read = ["guests", "API keys"].map(str::to_owned).to_vec();
        let settings = Settings { not_read, ..Settings::default() };
        known.completed = Some(SyncStatus::initial(settings, 0));
        let words = "complete for what SCIM shows; not included: guests, API keys";
        assert_eq!(not_included(&known, true).as_deref(), Some(words));
        assert_eq!(not_included(&known, false).as_deref(), Some("not included: guests, API keys"));
    }

    #[test]
    fn a_state_is_complete_only_if_nothing_was_published_since() {
        let with = |completed: Option<(Status, u128)>, latest: Option<(Status, u128)>| {
            let status = |(status, state_digest)| SyncStatus {
                status,
                state_digest,
                sync: 7,
                memberships_read: Some(1),
                ..SyncStatus::initial(Settings::default(), 0)
            };
            let mut known = Known::new(1);
            (known.completed, known.latest) = (completed.map(status), latest.map(status));
            completeness(&known).0
        };
        let done = Some((Status::Completed, 1));
        assert!(with(done, done));
        assert!(with(done, Some((Status::Failed, 1))), "it published nothing");
        assert!(with(done, Some((Status::Held, 1))));
        assert!(!with(done, Some((Status::Running, 1))));
        assert!(!with(done, Some((Status::Failed, 2))), "it failed after a part was published");
        assert!(!with(None, Some((Status::Failed, 0))));
    }
}
