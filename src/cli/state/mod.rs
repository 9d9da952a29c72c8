//! `state`: who has what now, from the compacted topics, proven complete by the `syncs` marker; or who had what, by
//! undoing events.

use clap::{Args, ValueEnum};

use super::{CONFIGURATION, DONE, FAILED, Failure, TRY_LATER, UNREACHABLE, USAGE, parse_time};
use crate::avro::decode::Undecodable;
use crate::avro::wire::ChangeEvent;
use crate::avro::{Decoder, Registry};
use crate::config::{AccountConfig, Config};
use crate::directory::{Known, Status, SyncStatus};
use crate::history::{AsOf, History, Refusal};
use crate::kafka::blocking::blocking;
use crate::kafka::read::{ReadRecord, read_to_end};
use crate::log::Topic;
use crate::mapping::text::clock;
use crate::schedule::now_millis;
use crate::service::ServiceError;

mod listing;
mod output;

use listing::Listing;
use output::{Format, Output};

#[derive(Debug, Args)]
pub struct Options {
    /// What to list
    #[arg(value_enum)]
    what: What,
    /// Only these accounts [default: all]
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Form of the output [default: a table]
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The state as it was at a time such as 2026-11-21T12:00:00Z, or so long ago, e.g. 2h: what was found later is
    /// undone, as far back as Kafka keeps events
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Users,
    Groups,
    Memberships,
    /// Principal by group and entitlement, with names, directly and through other groups
    Access,
}

pub async fn state(config: &Config, options: Options) -> Result<u8, Failure> {
    if options.as_of.is_some_and(|time| time > now_millis()) {
        return Err(Failure::new(USAGE, "--as-of lies ahead; → a time that has been"));
    }
    let registry = Registry::new(&config.registry_url)?;
    let mut selected = config.select(&options.accounts)?;
    selected.sort_by(|one, other| one.account.name.cmp(&other.account.name));
    selected.dedup_by(|one, other| one.account.name == other.account.name);
    let accounts: Vec<_> = selected.iter().map(|config| config.account.clone()).collect();
    let mut states = super::read_states(&config.kafka, &registry, &accounts).await?;
    let mut complete = true;
    let mut read: Vec<(&AccountConfig, Known)> = Vec::new();
    // One account that cannot be told keeps back no other.
    let mut failures = Vec::new();
    for account in &selected {
        let known = match (states.remove(&account.account.name), options.as_of) {
            (Some(Ok(known)), Some(time)) => fold_back(config, &registry, account, known, time).await,
            (Some(known), _) => known,
            (None, _) => continue,
        };
        match known {
            Ok(known) => {
                if options.as_of.is_none() {
                    let (whole, words) = completeness(&known);
                    // On standard error, so that the listing stays a listing.
                    anstream::eprintln!("{}: {words}", account.account.name);
                    for finding in known.completed.iter().flat_map(|completed| &completed.findings) {
                        anstream::eprintln!("{}: note: {finding}", account.account.name);
                    }
                    complete &= whole;
                }
                read.push((account, known));
            }
            // Then nothing else can be told either.
            Err(failure) if failure.code == UNREACHABLE => return Err(failure),
            Err(failure) => failures.push(failure),
        }
    }
    if !read.is_empty() {
        let listings: Vec<Listing<'_>> =
            read.iter().map(|(account, known)| Listing::of(options.what, &account.account, known)).collect();
        Output::write(options.format, options.what, &listings).map_err(|error| super::unwritten(&error))?;
    }
    for failure in &failures {
        anstream::eprintln!("error: {}", failure.text);
    }
    let codes = failures.iter().map(|failure| failure.code);
    // What a person has to act on counts most, then what no waiting changes.
    let gravest = codes.max_by_key(|code| [TRY_LATER, FAILED, CONFIGURATION].iter().position(|of| of == code));
    Ok(gravest.unwrap_or(if complete { DONE } else { TRY_LATER }))
}

/// Whether the state is what one completed sync left, and what to say of it.
fn completeness(known: &Known) -> (bool, String) {
    let Some(completed) = known.completed.as_ref() else {
        return (false, "no sync has completed yet; what is listed may be a part".to_owned());
    };
    if let Some(reason) = &known.repair {
        return (false, format!("not complete: {reason}; the next sync that completes repairs it"));
    }
    let at = clock(completed.finished_at.unwrap_or(completed.started_at));
    let as_of = format!("complete as of sync {}, {at} UTC", completed.sync);
    // The attempt that published a part may have failed since.
    let content = |status: &SyncStatus| (status.state_records, status.state_digest);
    match known.latest.as_ref() {
        Some(latest) if latest.status == Status::Running || content(latest) != content(completed) => (
            false,
            format!(
                "{as_of}, with a part of what was found since; → --as-of 0s, or again when the next sync has completed"
            ),
        ),
        _ if completed.memberships_read.is_none() => {
            let read = completed.memberships_as_of.unwrap_or(0);
            (true, format!("{as_of}; memberships were not readable and stand as of sync {read}"))
        }
        _ => (true, as_of),
    }
}

/// A time as `--as-of` takes it, and to the millisecond: none is lost.
fn exactly(millis: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(millis).unwrap_or_default())
}

/// The state as it was at `time`, milliseconds since 1970-01-01 UTC.
async fn fold_back(
    config: &Config,
    registry: &Registry,
    account: &AccountConfig,
    mut known: Known,
    time: i64,
) -> Result<Known, Failure> {
    let name = account.account.name.clone();
    if known.completed.is_none() {
        return Err(Failure::new(
            TRY_LATER,
            format!("{name}: no sync has completed yet: there is no state to go back from"),
        ));
    }
    let sequence = known.latest.as_ref().map_or(0, |latest| latest.sequence);
    let history = read_history(config, registry, account, sequence, time).await?;
    match history.undo(&mut known) {
        Ok(AsOf { undone, kept, earliest }) => {
            let kept = kept.map_or_else(
                || "nothing had changed since its first sync, or since the oldest event".to_owned(),
                |(sync, at)| format!("the last change before was read {} UTC (sync {sync})", clock(at)),
            );
            anstream::eprintln!(
                "{name}: as of {} UTC, {undone} later events undone; {kept}; events reach back to {}; \
                 silent rewrites (newly listed attributes) stand as now",
                clock(time),
                exactly(earliest)
            );
            Ok(known)
        }
        Err(Refusal::TooEarly(earliest)) => Err(Failure::new(
            FAILED,
            format!(
                "{name}: the state of {} cannot be told, events reach back to {earliest}; → --as-of {earliest}",
                exactly(time),
                earliest = exactly(earliest)
            ),
        )),
        Err(Refusal::Broken(complaint)) => Err(Failure::new(FAILED, format!("{name}: {complaint}"))),
    }
}

/// The account's events, as far as Kafka keeps them.
async fn read_history(
    config: &Config,
    registry: &Registry,
    account: &AccountConfig,
    sequence: i64,
    time: i64,
) -> Result<History, Failure> {
    let (kafka, partition) = (config.kafka.clone(), account.account.partition);
    let mut decoder = Decoder::of_reader(registry.clone());
    let mut progress = super::progress(&format!("{}, events", account.account.name));
    let owned = format!("{}/", account.account.name);
    let reading = move || {
        let mut history: Option<History> = None;
        let mut skipped = Skipped::default();
        let each = |record: ReadRecord<'_>| {
            let taking = history.get_or_insert_with(|| History::new(time, sequence, record.written_at()));
            let (Some(key), Some(value)) = (record.key, record.value) else { return Ok(()) };
            if !key.starts_with(owned.as_bytes()) {
                return Ok(());
            }
            let taken = match decoder.decode::<ChangeEvent>(Topic::Events, value) {
                Ok(event) => taking.take(&event),
                Err(Undecodable::Unreachable(problem)) => return Err(ServiceError::Unreachable(problem)),
                Err(complaint) => Err(complaint.to_string()),
            };
            if let Err(complaint) = taken {
                skipped.note(&record, complaint);
                // If it was an event, its number is missing, and that is found. Before all others it may be one that is
                // missing unnoticed: the log is then as if it began after it.
                if taking.is_empty() {
                    history = None;
                }
            }
            Ok(())
        };
        let progress = |read| {
            progress(read);
            Ok(())
        };
        read_to_end(&kafka, &[Topic::Events], &[partition], each, progress)?;
        Ok((history.unwrap_or_else(|| History::new(time, sequence, None)), skipped))
    };
    let (history, skipped) = blocking(reading).await?;
    skipped.tell();
    Ok(history)
}

/// What is no event of the account although its key says so.
#[derive(Default)]
struct Skipped {
    /// Where the first one lies, and what is wrong with it.
    first: Option<String>,
    more: u64,
}

impl Skipped {
    fn note(&mut self, record: &ReadRecord<'_>, complaint: String) {
        match self.first {
            None => self.first = Some(format!("{}: {complaint}", record.address())),
            Some(_) => self.more += 1,
        }
    }

    fn tell(&self) {
        match (&self.first, self.more) {
            (None, _) => {}
            (Some(first), 0) => anstream::eprintln!("{first}; skipped"),
            (Some(first), more) => anstream::eprintln!("{first}, and {more} more; skipped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::status::Settings;

    #[test]
    fn a_state_is_complete_only_where_nothing_was_published_since() {
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
