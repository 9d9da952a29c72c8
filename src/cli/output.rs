//! Standard output: lines for people and for programs, and progress bars on standard error.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::failure::{Exit, Failure};
use crate::config::Config;
use crate::kafka::read::Progress;
use crate::mapping::text::clean_json;

/// Form of the output of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people
    #[default]
    Text,
    /// One JSON document; its fields are in docs/json.md
    Json,
}

/// Prints a line for people: with colours on a terminal, as plain text in a pipe.
///
/// # Errors
/// As [`Failure::unwritten`].
pub fn print(line: &str) -> Result<(), Failure> {
    writeln!(anstream::stdout().lock(), "{line}").map_err(|error| Failure::unwritten(&error))
}

/// Prints JSON, or a token that is made of it. In a pipe it is written byte for byte; [`print()`] would take escape
/// sequences out of it. On a terminal, characters that act on it are written as escapes of JSON.
///
/// # Errors
/// As [`Failure::unwritten`].
pub fn print_json(json: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let json = if out.is_terminal() { clean_json(json) } else { Cow::Borrowed(json) };
    writeln!(out, "{json}").map_err(|error| Failure::unwritten(&error))
}

/// Prints one JSON document: a line in a pipe, indented on a terminal.
///
/// # Errors
/// As [`Failure::unwritten`].
pub fn print_document(document: &impl Serialize) -> Result<(), Failure> {
    let made = match io::stdout().is_terminal() {
        true => serde_json::to_string_pretty(document),
        false => serde_json::to_string(document),
    };
    let json = made.map_err(|error| Failure::new(Exit::Failed, format!("the output cannot be made: {error}")))?;
    print_json(&json)
}

/// True if the reader of standard output has closed it. While there is no line to write, only polling shows that.
pub fn reader_is_gone() -> bool {
    let out = io::stdout();
    let mut asked = [PollFd::new(&out, PollFlags::empty())];
    poll(&mut asked, Some(&Timespec::default())).is_ok()
        && asked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Width of the account column.
pub fn account_width(config: &Config) -> usize {
    config.accounts.iter().map(|config| config.account.name.len()).max().unwrap_or(0)
}

/// From this many offsets on, reading takes long enough to show its progress.
const LONG_READ: i64 = 50_000;

/// A progress bar on the terminal while Kafka is read; nothing in a pipe, nothing for short reads.
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
