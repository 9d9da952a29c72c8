//! Logs: ids and counts, never attributes of people.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging to standard error. `level` is a tracing filter, e.g. `info` or `scimtail=debug`.
///
/// # Errors
/// A filter that is not understood.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|_| format!("log level `{level}` is not understood; → error, warn, info, debug"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    match format {
        LogFormat::Text => drop(builder.with_ansi(ansi).try_init()),
        LogFormat::Json => drop(builder.json().flatten_event(true).try_init()),
    }
    Ok(())
}
