//! The command line: arguments → configuration → one command → exit code.

use std::process::ExitCode;

use clap::Parser;
use scimtail::cli::{self, Arguments};
use scimtail::failpoint;

fn main() -> ExitCode {
    let _armed = failpoint::arm();
    // Clap ends with 2 for usage by itself.
    let arguments = Arguments::parse();
    match cli::run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) if failure.text.is_empty() => ExitCode::from(failure.code),
        Err(failure) => {
            anstream::eprintln!("error: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}
