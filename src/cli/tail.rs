//! `tail`: events from Kafka as lines.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;
use tracing::warn;

use super::failure::{Exit, Failure};
use super::output::{account_width, print, print_json, reader_is_gone};
use super::services::readable;
use super::time::parse_time;
use crate::avro::Decoder;
use crate::avro::decode::Undecodable;
use crate::avro::wire::ChangeEvent;
use crate::config::{AccountConfig, Config};
use crate::connect;
use crate::kafka::blocking::blocking;
use crate::kafka::offsets::{offsets_at, watermarks};
use crate::kafka::read::{ReadRecord, follow, read_from};
use crate::log::Topic;
use crate::mapping::{Change, asim, cim, ecs, ocsf, set, text};
use crate::service::ServiceError;
use crate::transport::file::{Content, NamedFile};

/// Lines that wait for the reader of standard output.
const LINES: usize = 1_024;
/// Accounts that the first line on standard error names.
const NAMES_SHOWN: usize = 8;
/// Bytes of the file of a private key.
const SET_KEY_BYTES_MAX: usize = 64 << 10;
/// Between two requests to a registry that does not answer.
const REGISTRY_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct Options {
    /// Only these accounts [default: all configured]
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Start at `beginning` (the oldest event that Kafka keeps), `end` (the next one), a time such as
    /// 2026-11-21T12:00:00Z, or a duration before now such as 2h [default: end]
    #[arg(long, value_name = "WHERE", value_parser = parse_from)]
    from: Option<Start>,
    /// Short for --from beginning
    #[arg(long, conflicts_with = "from")]
    from_beginning: bool,
    /// Start at the event of one account with this sequence number
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "from_beginning"])]
    #[arg(value_parser = parse_sequence, allow_negative_numbers = true)]
    from_sequence: Option<i64>,
    /// End after the newest event that exists now
    #[arg(long)]
    exit: bool,
    /// Form of the lines
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// With --format set: sign each token with this private key, PEM, elliptic curve P-256 or RSA
    #[arg(long, value_name = "FILE")]
    set_key: Option<PathBuf>,
}

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Beginning,
    End,
    /// Records that Kafka received at this time or later, milliseconds since 1970-01-01 UTC.
    At(i64),
}

fn parse_from(text: &str) -> Result<Start, String> {
    match text {
        "beginning" => return Ok(Start::Beginning),
        "end" => return Ok(Start::End),
        _ => {}
    }
    parse_time(text).map(Start::At).map_err(|complaint| format!("neither `beginning` nor `end`, and {complaint}"))
}

fn parse_sequence(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(sequence @ 1..) => Ok(sequence),
        Ok(_) => Err("the first event has number 1".to_owned()),
        Err(_) => Err("not a number".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line for people
    Text,
    /// All fields of the event
    Json,
    /// Open Cybersecurity Schema Framework 1.8.0
    Ocsf,
    /// Elastic Common Schema
    Ecs,
    /// Splunk Common Information Model
    Cim,
    /// Microsoft Sentinel's Advanced Security Information Model
    Asim,
    /// Security event tokens, RFC 9967
    Set,
}

/// Turns events into lines.
struct Lines {
    format: Format,
    account_width: usize,
    signer: Option<set::Signer>,
}

impl Lines {
    fn new(config: &Config, options: &Options) -> Result<Lines, Failure> {
        let signer = match &options.set_key {
            None => None,
            Some(_) if options.format != Format::Set => {
                return Err(Failure::new(Exit::Usage, "--set-key needs security event tokens; → add --format set"));
            }
            Some(path) => {
                let file = NamedFile::new("--set-key", path, Content::PrivateKey);
                let pem = file.read(SET_KEY_BYTES_MAX).map_err(|problem| Failure::new(Exit::Configuration, problem))?;
                let signer = set::Signer::from_pem(&pem);
                Some(signer.map_err(|text| Failure::new(Exit::Configuration, format!("{file} {text}")))?)
            }
        };
        Ok(Lines { format: options.format, account_width: account_width(config), signer })
    }

    /// # Errors
    /// Why this event has no line.
    fn of(&self, event: &ChangeEvent) -> Result<Vec<String>, String> {
        let change = || {
            let event_type = text::clean(&event.event_type);
            let unknown =
                || format!("scimtail {} does not know the event type `{event_type}`", env!("CARGO_PKG_VERSION"));
            Change::of(event).ok_or_else(unknown)
        };
        Ok(match self.format {
            Format::Text => vec![text::line(event, self.account_width)],
            Format::Json => vec![serde_json::to_string(event).map_err(|error| error.to_string())?],
            Format::Ocsf => vec![ocsf::value(&change()?).to_string()],
            Format::Ecs => vec![ecs::value(&change()?).to_string()],
            Format::Cim => vec![cim::value(&change()?).to_string()],
            Format::Asim => asim::values(&change()?).iter().map(ToString::to_string).collect(),
            Format::Set => {
                let claims = set::value(&change()?);
                match &self.signer {
                    Some(signer) => vec![signer.sign(&claims)?],
                    None => vec![claims.to_string()],
                }
            }
        })
    }
}

/// Selects the events to print.
struct Wanted {
    accounts: HashSet<String>,
    sequence: Option<i64>,
    /// True until the first event of the account was read.
    unseen: bool,
}

impl Wanted {
    fn takes(&mut self, event: &ChangeEvent) -> bool {
        if !self.accounts.contains(&event.account) {
            return false;
        }
        let Some(sequence) = self.sequence else { return true };
        if std::mem::take(&mut self.unseen) && event.sequence > sequence {
            anstream::eprintln!(
                "{}: the events before sequence {} are no longer in Kafka",
                event.account,
                event.sequence
            );
        }
        event.sequence >= sequence
    }
}

pub async fn tail(config: &Config, options: Options) -> Result<Exit, Failure> {
    let accounts = config.select(&options.accounts)?;
    let names: HashSet<String> = accounts.iter().map(|config| config.account.name.clone()).collect();
    if options.from_sequence.is_some() && names.len() != 1 {
        return Err(Failure::new(Exit::Usage, "--from-sequence needs one account; → add --account ACCOUNT"));
    }
    let mut partitions: Vec<i32> = accounts.iter().map(|config| config.account.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();

    let from = match (options.from, options.from_beginning || options.from_sequence.is_some()) {
        (Some(from), _) => from,
        (None, true) => Start::Beginning,
        (None, false) => Start::End,
    };
    let reads = reads(config, &accounts, from, options.from_sequence);
    let lines = Lines::new(config, &options)?;
    let mut wanted = Wanted { accounts: names, sequence: options.from_sequence, unseen: true };
    let registry = connect::registry(&config.registry)?;
    readable(&config.kafka, &registry).await?;
    anstream::eprintln!("{reads}");
    let mut decoder = Decoder::of_reader(registry);
    let (printer, mut printed) = mpsc::channel::<String>(LINES);
    // False if the printer has ended.
    let mut take = move |record: &ReadRecord<'_>| -> Result<bool, Undecodable> {
        let Some(value) = record.value else { return Ok(true) };
        let made = match decoder.decode::<ChangeEvent>(Topic::Events, value) {
            Ok(event) if wanted.takes(&event) => lines.of(&event),
            Ok(_) => return Ok(true),
            // The event may be in order. If it were skipped, the reader of the lines would miss it.
            Err(unreachable @ Undecodable::Unreachable(_)) => return Err(unreachable),
            Err(complaint) => Err(complaint.to_string()),
        };
        Ok(match made {
            Ok(lines) => lines.into_iter().all(|line| printer.blocking_send(line).is_ok()),
            Err(complaint) => {
                anstream::eprintln!("{}: {complaint}; skipped", record.address());
                true
            }
        })
    };
    let (kafka, exit, format) = (config.kafka.clone(), options.exit, options.format);
    // Its error comes as a value, so that lines read before it are still printed.
    let reading = async {
        let read = blocking(move || {
            let all = |offset: Offset| partitions.iter().map(|partition| (*partition, offset)).collect();
            let from: Vec<(i32, Offset)> = match from {
                Start::Beginning => all(Offset::Beginning),
                Start::End => all(Offset::End),
                Start::At(millis) => offsets_at(&kafka, Topic::Events, &partitions, millis)?,
            };
            if exit {
                return read_from(&kafka, Topic::Events, &from, |record| match take(&record) {
                    Ok(true) => Ok(()),
                    // Ends the read. The printer has failed, and its error is the one that is reported.
                    Ok(false) => Err(ServiceError::cancelled("nothing prints any more")),
                    Err(unreachable) => Err(ServiceError::Unreachable(unreachable.problem())),
                });
            }
            // Following waits for a missing broker or topic. At the start, both are errors.
            for (partition, _) in &from {
                watermarks(&kafka, Topic::Events, *partition)?;
            }
            let each = |record: Option<ReadRecord<'_>>| {
                let open = record.is_none_or(|record| take_or_wait(&record, &mut take)) && !reader_is_gone();
                Ok(if open { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            };
            let answered = |answered| match answered {
                false => warn!("kafka {}: no broker answers; tail waits", kafka.brokers),
                true => warn!("kafka {}: a broker answers again", kafka.brokers),
            };
            follow(&kafka, Topic::Events, &from, answered, each)
        });
        Ok(read.await)
    };
    let printing = async {
        let print = if format == Format::Text { print } else { print_json };
        while let Some(line) = printed.recv().await {
            print(&line)?;
        }
        Ok::<(), Failure>(())
    };
    // A line that cannot be printed ends both at once.
    let (read, ()) = tokio::try_join!(reading, printing)?;
    read?;
    Ok(Exit::Done)
}

/// What is read, for standard error: a reader that gets no line sees that it asks for the right events.
fn reads(config: &Config, accounts: &[Arc<AccountConfig>], from: Start, sequence: Option<i64>) -> String {
    let names: Vec<&str> = accounts.iter().map(|config| config.account.name.as_str()).collect();
    let more = match names.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let from = match (from, sequence) {
        (_, Some(sequence)) => format!("sequence {sequence}"),
        (Start::Beginning, None) => "the oldest event".to_owned(),
        (Start::End, None) => "the next event".to_owned(),
        (Start::At(millis), None) => format!("{} UTC", text::clock(millis)),
    };
    let (topic, shown) = (config.kafka.topic(Topic::Events), &names[..names.len().min(NAMES_SHOWN)]);
    format!("reading {topic} of {}{more}, from {from} on; times are UTC", shown.join(", "))
}

/// Takes a record, and retries until the registry has delivered its schema. False if the printer has ended.
fn take_or_wait(record: &ReadRecord<'_>, take: &mut impl FnMut(&ReadRecord<'_>) -> Result<bool, Undecodable>) -> bool {
    let mut said = false;
    loop {
        match take(record) {
            Ok(open) => return open,
            Err(_) if reader_is_gone() => return false,
            Err(reason) => {
                if !std::mem::replace(&mut said, true) {
                    warn!(record = record.address(), %reason, "tail waits for the registry");
                }
                std::thread::sleep(REGISTRY_WAIT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::now_millis;

    #[test]
    fn a_start_is_a_word_a_time_or_a_duration() {
        assert_eq!(parse_from("beginning"), Ok(Start::Beginning));
        assert_eq!(parse_from("end"), Ok(Start::End));
        assert_eq!(parse_from("2026-11-21T13:00:00+01:00"), Ok(Start::At(1_795_262_400_000)));
        for text in ["2h", "2h ago", "1h 30m", "90s"] {
            assert!(matches!(parse_from(text), Ok(Start::At(_))), "{text}");
        }
        let Ok(Start::At(millis)) = parse_from("1h") else { panic!("a time") };
        assert!((now_millis() - 3_600_000 - millis).abs() < 60_000);
        for text in ["", "start", "2026-11-21", "2026-11-21T12:00:00", "5", "-2h", "yesterday"] {
            assert!(parse_from(text).is_err(), "{text}");
        }
    }
}
