//! The command line: arguments → configuration → one command → exit code.

use std::process::ExitCode;

use scimtail::cli;
use scimtail::failpoint;

fn main() -> ExitCode {
    let _armed = failpoint::arm();
    match cli::arguments().and_then(cli::run) {
        Ok(code) => ExitCode::from(code),
        Err(failure) if failure.text.is_empty() => ExitCode::from(failure.code),
        Err(failure) => {
            anstream::eprintln!("error: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}
