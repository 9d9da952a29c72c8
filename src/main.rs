//! The program: runs one command and turns its result into the exit code.

use std::process::ExitCode;

use scimtail::cli;
use scimtail::failpoint;
use scimtail::memory;

fn main() -> ExitCode {
    memory::give_back_soon();
    let _armed = failpoint::arm();
    match cli::arguments().and_then(cli::run) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.say();
            failure.exit.into()
        }
    }
}
