//! How a command ends: its exit code, and the line that says why.

use std::io;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::directory::Problem;
use crate::service::ServiceError;

/// Exit codes, the graver ones last. 69, 75 and 78 have the meaning that sysexits.h gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// Kafka, the registry or a directory does not answer.
    Unreachable = 69,
    /// Held or partly failed: a later attempt may succeed.
    TryLater = 75,
    /// A person has to change something.
    Configuration = 78,
}

/// What each code means, as `--help` prints it.
const MEANINGS: [(Exit, &str); 6] = [
    (Exit::Done, "done"),
    (Exit::Failed, "failed"),
    (Exit::Usage, "usage"),
    (Exit::Unreachable, "a service is unreachable"),
    (Exit::TryLater, "held or partly failed"),
    (Exit::Configuration, "configuration"),
];

impl Exit {
    /// `Exit codes: 0 done, 1 failed, …`.
    pub fn table() -> String {
        format!("Exit codes: {}", MEANINGS.map(|(exit, meaning)| format!("{} {meaning}", exit as u8)).join(", "))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// `None` if there is nothing to say, because the reader of standard output has gone.
    pub problem: Option<Problem>,
}

impl Failure {
    pub fn new(exit: Exit, problem: impl Into<Problem>) -> Failure {
        Failure { exit, problem: Some(problem.into()) }
    }

    /// Prints what there is to say to standard error.
    pub fn say(&self) {
        if let Some(problem) = &self.problem {
            anstream::eprintln!("error: {problem}");
        }
    }

    /// Standard output cannot be written. A reader that has closed the pipe ends the command quietly; anything else
    /// is a failure, because lines are missing.
    pub fn unwritten(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { exit: Exit::Done, problem: None },
            _ => Failure::new(Exit::Failed, format!("standard output cannot be written: {error}")),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(Exit::Configuration, error.0)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Failure {
        let exit = if error.is_refused() { Exit::Configuration } else { Exit::Unreachable };
        Failure::new(exit, error.problem().clone())
    }
}
