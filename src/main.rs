//! The program: runs one command and turns its result into the exit code.

use std::process::ExitCode;

use scimtail::cli;
use scimtail::failpoint;

fn main() -> ExitCode {
    let _armed = failpoint::arm();
    match cli::arguments().and_then(cli::run) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.say();
            failure.exit.into()
        }
    }
}
