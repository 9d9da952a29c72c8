//! The command line: the commands, one file each, and what they share. Data goes to standard output, everything else to
//! standard error.

pub mod asyncapi;
mod check;
mod control;
mod demo;
mod failure;
mod manual;
mod outcome;
mod output;
mod plan;
pub mod providers;
mod read;
mod request;
mod reseed;
mod run;
mod schemas;
mod services;
mod state;
mod status;
mod table;
mod tail;
mod time;
mod topics;
mod version;

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Config;
use crate::telemetry::{self, LogFormat};

pub use failure::{Exit, Failure};

/// The default of `--config`.
const CONFIG_FILE: &str = "scimtail.toml";

/// Change data capture for SCIM directories: publishes every change of access as Avro to Kafka, exactly once
#[derive(Debug, Parser)]
#[command(name = "scimtail", version, long_version = version::long(), max_term_width = 100)]
#[command(after_help = Exit::table())]
pub struct Arguments {
    /// Configuration file
    #[arg(long, global = true, default_value = CONFIG_FILE, env = "SCIMTAIL_CONFIG")]
    config: PathBuf,
    /// Format of the logs on standard error
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Log level: off, error, warn, info, debug, trace, or one for each target, such as scimtail=debug,rdkafka=trace
    /// [default: info for `run`, else warn]
    #[arg(long, global = true, env = "SCIMTAIL_LOG")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run with an embedded Kafka and two simulated directories, and prove the result by a replay
    Demo(demo::Options),
    /// Test credentials, directories, Kafka and registry; publishes nothing
    Check(check::Options),
    /// Print what a sync would publish; writes nothing
    Plan(plan::Options),
    /// Show how each vendor's directory is read, with the source of every fact; needs no configuration
    Providers(providers::Options),
    /// Sync all accounts continuously, or each once
    Run(run::Options),
    /// Show how each account stands, and what needs a person; reads the topics only
    Status(status::Options),
    /// Print events from Kafka
    Tail(tail::Options),
    /// Print the current state from the compacted topics
    State(state::Options),
    /// Release a held sync; without --hold, show the current hold
    Release(control::Release),
    /// Stop syncing an account until `resume`
    Pause(control::Pause),
    /// Continue to sync a paused account
    Resume(control::Resume),
    /// Sync an account now
    Poll(control::Poll),
    /// Continue a stopped account from its records in the topics
    Reseed(reseed::Reseed),
    /// Remove the records of an account that is no longer configured from the compacted topics
    Retire(reseed::Retire),
    /// Verify, create or print the topics
    Topics(topics::Options),
    /// Verify, register or print the schemas
    Schemas(schemas::Options),
    /// Print the completions of a shell
    Completions(manual::Completions),
    /// Write the manual pages of all commands
    Man(manual::Pages),
}

/// Parses the command line. For help, and for errors of several lines, clap prints the text and ends the process.
///
/// # Errors
/// An argument does not accept its value; one line names the values that it accepts.
pub fn arguments() -> Result<Arguments, Failure> {
    Arguments::try_parse().map_err(|error| match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let text = error.render().to_string();
            // The last line refers to --help.
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let said = lines[..lines.len().saturating_sub(1)].join(" ");
            Failure::new(Exit::Usage, said.trim_start_matches("error: "))
        }
        _ => error.exit(),
    })
}

/// Runs one command to its end.
///
/// # Errors
/// The command ended early.
pub fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let service = matches!(&arguments.command, Command::Run(options) if !options.once);
    let level = arguments.log_level.as_deref().unwrap_or(if service { "info" } else { "warn" });
    telemetry::start(arguments.log_format, level).map_err(|text| Failure::new(Exit::Usage, text))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(crate::memory::give_back_at_rest)
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("the runtime does not start: {error}")))?;
    let result = runtime.block_on(dispatch(arguments));
    // Blocking calls may still wait for a broker that has gone. Their results do not matter any more, so the process
    // ends without them. Until then they may use the runtime: one that asks the registry panics on one that is shut down.
    std::mem::forget(runtime);
    result
}

async fn dispatch(arguments: Arguments) -> Result<Exit, Failure> {
    let config = || Config::load(&arguments.config);
    match arguments.command {
        Command::Demo(options) => {
            demo::demo(options, |name| Arguments::command().find_subcommand(name).is_some()).await
        }
        Command::Check(options) => check::check(&config()?, options).await,
        Command::Plan(options) => plan::plan(&config()?, options).await,
        Command::Providers(options) => providers::providers(configured(&arguments.config), &options),
        Command::Run(options) => run::run(&arguments.config, options).await,
        Command::Tail(options) => tail::tail(&config()?, options).await,
        Command::Status(options) => status::status(&config()?, options).await,
        Command::State(options) => state::state(&config()?, options).await,
        Command::Release(options) => control::release(&config()?, options).await,
        Command::Pause(options) => control::pause(&config()?, options).await,
        Command::Resume(options) => control::resume(&config()?, options).await,
        Command::Poll(options) => control::poll(&config()?, options).await,
        Command::Reseed(options) => reseed::reseed(&config()?, options).await,
        Command::Retire(options) => reseed::retire(&config()?, options).await,
        Command::Topics(options) => topics::topics(&config()?, options).await,
        Command::Schemas(options) => schemas::schemas(&config()?, options).await,
        Command::Completions(options) => manual::completions(Arguments::command(), &options),
        Command::Man(options) => manual::pages(Arguments::command(), &options),
    }
}

/// The configuration file for a command that can do without one. `None` if it is the default file and does not exist.
fn configured(file: &Path) -> Option<&Path> {
    (file.exists() || file != Path::new(CONFIG_FILE)).then_some(file)
}
