//! Standard output: lines for people and for programs, and progress bars on standard error.

use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::failure::Failure;
use crate::config::Config;
use crate::kafka::read::Progress;

/// Prints a line for people: with colours on a terminal, as plain text in a pipe.
///
/// # Errors
/// As [`Failure::unwritten`].
pub fn print(line: &str) -> Result<(), Failure> {
    writeln!(anstream::stdout().lock(), "{line}").map_err(|error| Failure::unwritten(&error))
}

/// Prints a line for programs byte for byte. [`print()`] would take escape sequences out of it.
///
/// # Errors
/// As [`Failure::unwritten`].
pub fn print_exactly(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{line}").map_err(|error| Failure::unwritten(&error))
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
