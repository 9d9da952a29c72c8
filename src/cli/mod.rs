//! One file a command. Data goes to standard output, everything else to standard error.

pub mod asyncapi;
pub mod check;
pub mod control;
pub mod demo;
pub mod plan;
pub mod providers;
pub mod reseed;
pub mod run;
pub mod schemas;
pub mod state;
pub mod tail;
pub mod topics;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::account::Account;
use crate::avro::{Codec, Decoder, Registry};
use crate::config::{Config, ConfigError};
use crate::directory::Known;
use crate::duration::parse_duration;
use crate::kafka::blocking::blocking;
use crate::kafka::read::Progress;
use crate::kafka::{KafkaClient, topics as kafka_topics};
use crate::memory;
use crate::schedule::now_millis;
use crate::service::ServiceError;
use crate::shards::restore::{self, Purpose};
use crate::shards::{Services, spans};
use crate::telemetry::{self, LogFormat};

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const UNREACHABLE: u8 = 69;
pub const TRY_LATER: u8 = 75;
pub const CONFIGURATION: u8 = 78;

/// The configuration file where none is given.
const CONFIG_FILE: &str = "scimtail.toml";

/// A command that cannot go on: one line for people, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: u8,
    pub text: String,
}

impl Failure {
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(CONFIGURATION, error.0)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Failure {
        let code = if error.is_refused() { CONFIGURATION } else { UNREACHABLE };
        Failure::new(code, error.to_string())
    }
}

/// Change data capture for SCIM directories: what changed in who-has-access, as Avro in Kafka, exactly once.
#[derive(Debug, Parser)]
#[command(name = "scimtail", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 69 a service is unreachable, 75 held or partly failed, 78 configuration"
)]
pub struct Arguments {
    /// Configuration file
    #[arg(long, global = true, default_value = CONFIG_FILE, env = "SCIMTAIL_CONFIG")]
    config: PathBuf,
    /// Logs on standard error
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Log level: error, warn, info, debug [default: info for `run`, else warn]
    #[arg(long, global = true, env = "SCIMTAIL_LOG")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work: an embedded Kafka, two simulated directories, and a replay that proves itself
    Demo(demo::Options),
    /// Test credentials, directories, Kafka and registry; writes nothing
    Check(check::Options),
    /// Print what a sync would publish; writes nothing
    Plan(plan::Options),
    /// Show how each vendor's directory is read, with the source of every fact; needs no configuration
    Providers(providers::Options),
    /// Keep all accounts syncing, or sync each once
    Run(run::Options),
    /// Print events from Kafka
    Tail(tail::Options),
    /// Print the current state from the compacted topics
    State(state::Options),
    /// Let a held sync through; without --hold, show what is held
    Release(control::Release),
    /// Stop syncing an account until `resume`
    Pause(control::Pause),
    /// Go on syncing a paused account
    Resume(control::Resume),
    /// Sync an account now
    Poll(control::Poll),
    /// Let a stopped account go on from what the topics hold of it
    Reseed(reseed::Reseed),
    /// Take everything of an account that is no longer configured out of the compacted topics
    Retire(reseed::Retire),
    /// Verify, create or print the topics
    Topics(topics::Options),
    /// Verify, register or print the schemas
    Schemas(schemas::Options),
}

/// What stands on the command line. Help, and whatever clap needs several lines for, clap prints and ends with itself.
///
/// # Errors
/// A value that an argument does not take, in one line with those it does.
pub fn arguments() -> Result<Arguments, Failure> {
    Arguments::try_parse().map_err(|error| match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let text = error.render().to_string();
            // The last line points to --help.
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let said = lines[..lines.len().saturating_sub(1)].join(" ");
            Failure::new(USAGE, said.trim_start_matches("error: "))
        }
        _ => error.exit(),
    })
}

/// Runs one command to its exit code.
///
/// # Errors
/// What the person should read, and the exit code.
pub fn run(arguments: Arguments) -> Result<u8, Failure> {
    let service = matches!(&arguments.command, Command::Run(options) if !options.once);
    let level = arguments.log_level.as_deref().unwrap_or(if service { "info" } else { "warn" });
    telemetry::start(arguments.log_format, level).map_err(|text| Failure::new(2, text))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FAILED, format!("the runtime does not start: {error}")))?;
    let result = runtime.block_on(dispatch(arguments));
    // Blocking Kafka calls may still wait for a broker that is gone; nothing they do matters any more.
    runtime.shutdown_background();
    result
}

async fn dispatch(arguments: Arguments) -> Result<u8, Failure> {
    let config = || Config::load(&arguments.config);
    match arguments.command {
        Command::Demo(options) => demo::demo(options).await,
        Command::Check(options) => check::check(&config()?, options).await,
        Command::Plan(options) => plan::plan(&config()?, options).await,
        Command::Providers(options) => providers::providers(&arguments.config, &options),
        Command::Run(options) => run::run(&arguments.config, options).await,
        Command::Tail(options) => tail::tail(&config()?, options).await,
        Command::State(options) => state::state(&config()?, options).await,
        Command::Release(options) => control::release(&config()?, options).await,
        Command::Pause(options) => control::pause(&config()?, options).await,
        Command::Resume(options) => control::resume(&config()?, options).await,
        Command::Poll(options) => control::poll(&config()?, options).await,
        Command::Reseed(options) => reseed::reseed(&config()?, options).await,
        Command::Retire(options) => reseed::retire(&config()?, options).await,
        Command::Topics(options) => topics::topics(&config()?, options).await,
        Command::Schemas(options) => schemas::schemas(&config()?, options).await,
    }
}

/// Everything a sync needs beside its directory: topics verified, schemas registered or looked up.
///
/// # Errors
/// 69 for what is unreachable, 78 for what is refused.
pub async fn services(config: &Config) -> Result<Services, Failure> {
    memory::set_budget(config.memory);
    let registry = Registry::new(&config.registry_url)?;
    let ids = registry.ids(&config.kafka.topic_prefix, config.register).await?;
    if config.create_topics {
        kafka_topics::create(&config.kafka, config.replication).await?;
    }
    for difference in kafka_topics::verify(&config.kafka).await? {
        let kafka_topics::Difference { topic, setting, found, expected } = difference;
        tracing::warn!(topic, setting, found, expected, "topic differs from what readers are promised");
    }
    Ok(Services { kafka: config.kafka.clone(), registry, codec: Codec { ids }, clock: now_millis })
}

/// Prints a line of data for people: colours on a terminal, plain text in a pipe.
///
/// # Errors
/// As [`unwritten`].
pub fn print(line: &str) -> Result<(), Failure> {
    writeln!(anstream::stdout().lock(), "{line}").map_err(|error| unwritten(&error))
}

/// Prints a line of data for programs, as it is: what makes plain text of it would take characters out.
///
/// # Errors
/// As [`unwritten`].
pub fn print_exactly(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{line}").map_err(|error| unwritten(&error))
}

/// A reader that went away ends the command quietly; anything else is a failure, as lines are missing.
pub fn unwritten(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(DONE, ""),
        _ => Failure::new(FAILED, format!("standard output cannot be written: {error}")),
    }
}

/// Nobody reads standard output any more; without a line to write, only asking shows it.
pub fn reader_is_gone() -> bool {
    let out = io::stdout();
    let mut asked = [PollFd::new(&out, PollFlags::empty())];
    poll(&mut asked, Some(&Timespec::default())).is_ok()
        && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Whether what a reader finds means anything: a registry answers, and accounts live in the partitions where they are
/// looked for.
///
/// # Errors
/// 69 for what is unreachable, 78 for another service or another partition count.
pub async fn readable(kafka: &KafkaClient, registry: &Registry) -> Result<(), Failure> {
    registry.probe().await?;
    Ok(kafka_topics::verify_counts(kafka).await?)
}

/// Reading again where a commit came between two topics.
const READ_TRIES: usize = 3;

/// The state of accounts as any reader finds it, proven by the digest of each one's newest `syncs` record; what does not
/// agree with that says so in `repair`. For an account whose state cannot be told: why. Each partition is read once.
///
/// # Errors
/// Kafka or the registry cannot be read.
pub async fn read_states(
    kafka: &KafkaClient,
    registry: &Registry,
    accounts: &[Account],
) -> Result<HashMap<String, Result<Known, Failure>>, Failure> {
    readable(kafka, registry).await?;
    let mut states = HashMap::new();
    let partitions: BTreeSet<i32> = accounts.iter().map(|account| account.partition).collect();
    for partition in partitions {
        let mut left: Vec<Account> =
            accounts.iter().filter(|account| account.partition == partition).cloned().collect();
        // As last read.
        let mut in_doubt = HashMap::new();
        for _ in 0..READ_TRIES {
            if left.is_empty() {
                break;
            }
            let decoder = Decoder::of_reader(registry.clone());
            let what = match &left[..] {
                [one] => one.name.clone(),
                several => format!("{} accounts", several.len()),
            };
            let (kafka, asked, progress) = (kafka.clone(), left.clone(), progress(&what));
            let stop = CancellationToken::new();
            let reading = move || restore::restore(&kafka, decoder, partition, Purpose::Read, asked, progress, &stop);
            let (restored, _) = blocking(reading).instrument(spans::shard(partition)).await?;
            for (name, restored) in restored {
                match restored {
                    // A commit between the reading of two topics looks like a loss: it is read again.
                    Ok(known) if known.repair.is_some() => drop(in_doubt.insert(name, Ok(known))),
                    Ok(known) => {
                        left.retain(|account| account.name != name);
                        in_doubt.remove(&name);
                        states.insert(name, Ok(known));
                    }
                    Err(stopped) => {
                        in_doubt.insert(name, Err(Failure::new(CONFIGURATION, stopped.reason.to_string())));
                    }
                }
            }
        }
        states.extend(in_doubt);
    }
    Ok(states)
}

/// As [`read_states`], of one account.
///
/// # Errors
/// As [`read_states`].
pub async fn read_state(kafka: &KafkaClient, registry: &Registry, account: &Account) -> Result<Known, Failure> {
    let states = read_states(kafka, registry, std::slice::from_ref(account)).await?;
    let nothing = || Failure::new(CONFIGURATION, format!("{}: nothing was read", account.name));
    states.into_values().next().ok_or_else(nothing)?
}

/// A time with its offset (2026-11-21T12:00:00Z), or so long ago (2h, 7d), in milliseconds since 1970-01-01 UTC.
///
/// # Errors
/// Says what it should look like.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let ago = parse_duration(text.strip_suffix(" ago").unwrap_or(text))
        .map_err(|_| "neither a time with its offset (2026-11-21T12:00:00Z) nor a duration (2h, 7d)".to_owned())?;
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    Ok(now_millis().saturating_sub(ago).max(0))
}

/// Reading this many offsets takes long enough to show how far it is.
const LONG_READ: i64 = 50_000;

/// A bar on the terminal while Kafka is read; nothing in a pipe, nothing for short reads.
pub fn progress(what: &str) -> impl FnMut(Progress) + Send + use<> {
    let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    let style = style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    let what = what.to_owned();
    let mut bar = None;
    move |progress: Progress| {
        if progress.total < LONG_READ {
            return;
        }
        let bar = bar.get_or_insert_with(|| {
            indicatif::ProgressBar::new(progress.total.unsigned_abs())
                .with_style(style.clone())
                .with_message(what.clone())
        });
        bar.set_position(progress.read.unsigned_abs());
        if progress.read == progress.total {
            bar.finish_and_clear();
        }
    }
}

/// Width of the account column.
pub fn account_width(config: &Config) -> usize {
    config.accounts.iter().map(|config| config.account.name.len()).max().unwrap_or(0)
}
