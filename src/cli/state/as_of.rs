//! `--as-of`: the state at a past time, from the present state and the events since.

use crate::avro::decode::Undecodable;
use crate::avro::wire::ChangeEvent;
use crate::avro::{Decoder, Registry};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::progress;
use crate::cli::time::exactly;
use crate::config::{AccountConfig, Config};
use crate::directory::Known;
use crate::history::{AsOf, History, Refusal};
use crate::kafka::blocking::blocking;
use crate::kafka::read::{ReadRecord, read_to_end};
use crate::log::Topic;
use crate::mapping::text::clock;
use crate::service::ServiceError;

/// The state of an account at `time`, milliseconds since 1970-01-01 UTC. `known` is the present state.
///
/// # Errors
/// 75 before the first completed sync; 1 if the events do not reach back to `time`, or do not lead to the state.
pub async fn fold_back(
    config: &Config,
    registry: &Registry,
    account: &AccountConfig,
    mut known: Known,
    time: i64,
) -> Result<Known, Failure> {
    let name = account.account.name.clone();
    if known.completed.is_none() {
        return Err(Failure::new(
            Exit::TryLater,
            format!(
                "{name}: no sync has completed yet, so there is no state to go back from; → retry after the first sync"
            ),
        ));
    }
    let sequence = known.latest.as_ref().map_or(0, |latest| latest.sequence);
    let history = read_history(config, registry, account, sequence, time).await?;
    match history.undo(&mut known) {
        Ok(AsOf { undone, kept, earliest }) => {
            let kept = kept.map_or_else(
                || "no change before it since the first sync, or since the oldest event".to_owned(),
                |(sync, at)| format!("the last change before it was read {} UTC (sync {sync})", clock(at)),
            );
            anstream::eprintln!(
                "{name}: as of {} UTC, {undone} later events undone; {kept}; events reach back to {}; \
                 silent rewrites (newly listed attributes) are not undone",
                clock(time),
                exactly(earliest)
            );
            Ok(known)
        }
        Err(Refusal::TooEarly(earliest)) => Err(Failure::new(
            Exit::Failed,
            format!(
                "{name}: the state of {} is not known: events reach back to {earliest}; → --as-of {earliest}",
                exactly(time),
                earliest = exactly(earliest)
            ),
        )),
        Err(Refusal::Broken(complaint)) => Err(Failure::new(Exit::Failed, format!("{name}: {complaint}"))),
    }
}

/// The account's events that Kafka still keeps. `sequence`: of the state on which they are undone.
async fn read_history(
    config: &Config,
    registry: &Registry,
    account: &AccountConfig,
    sequence: i64,
    time: i64,
) -> Result<History, Failure> {
    let (kafka, partition) = (config.kafka.clone(), account.account.partition);
    let mut decoder = Decoder::of_reader(registry.clone());
    let mut progress = progress(&format!("{}, events", account.account.name));
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
                // A record that was an event leaves a gap in the sequence, which `History` finds. Before the first event it
                // leaves no gap, so the log counts from the next record on.
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
        read_to_end(&kafka, &[&[Topic::Events]], &[partition], each, progress)?;
        Ok((history.unwrap_or_else(|| History::new(time, sequence, None)), skipped))
    };
    let (history, skipped) = blocking(reading).await?;
    skipped.print();
    Ok(history)
}

/// Records that are not events of the account, although their keys say so.
#[derive(Default)]
struct Skipped {
    /// The address of the first one, and what is wrong with it.
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

    fn print(&self) {
        match (&self.first, self.more) {
            (None, _) => {}
            (Some(first), 0) => anstream::eprintln!("{first}; skipped"),
            (Some(first), more) => anstream::eprintln!("{first}, and {more} more; skipped"),
        }
    }
}
