//! How a command ends: its exit code, and the line that says why.

use std::io;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::directory::{Class, Problem, ReasonCode};
use crate::log::{EndKind, Ended};
use crate::service::ServiceError;

/// Exit codes. One cause has one code, whichever command meets it: the `From` impls of this file say which. 69, 75 and 78
/// have the meaning that sysexits.h gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// `plan --detailed-exitcode` only: a sync would publish something.
    Changes = 3,
    /// Kafka, the registry or a directory does not answer, or cannot work now.
    Unreachable = 69,
    /// Held, paused or partly failed: a later attempt may succeed.
    TryLater = 75,
    /// Something answered and said no, or a person has to look.
    Configuration = 78,
}

/// What each code means, as `--help` prints it.
const MEANINGS: [(Exit, &str); 7] = [
    (Exit::Done, "done"),
    (Exit::Failed, "failed"),
    (Exit::Usage, "usage"),
    (Exit::Changes, "changes (plan --detailed-exitcode)"),
    (Exit::Unreachable, "a service or directory is unreachable"),
    (Exit::TryLater, "held, paused or partly failed"),
    (Exit::Configuration, "a person has to act (configuration, credential)"),
];

/// Which code counts if the accounts of one command end with several: the last. What needs a person counts before what
/// waiting does not change, and that before what waiting does change.
const GRAVEST_LAST: [Exit; 7] =
    [Exit::Done, Exit::Changes, Exit::Unreachable, Exit::TryLater, Exit::Failed, Exit::Usage, Exit::Configuration];

impl Exit {
    /// `Exit codes: 0 done, 1 failed, …`.
    pub fn table() -> String {
        format!("Exit codes: {}", MEANINGS.map(|(exit, meaning)| format!("{} {meaning}", exit as u8)).join(", "))
    }

    /// The graver one.
    #[must_use]
    pub fn or(self, other: Exit) -> Exit {
        let gravity = |exit: Exit| GRAVEST_LAST.iter().position(|of| *of == exit);
        if gravity(other) > gravity(self) { other } else { self }
    }

    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Why an account was not synced. A held one is told by [`Exit::TryLater`], whatever its reason.
impl From<&ReasonCode> for Exit {
    fn from(code: &ReasonCode) -> Exit {
        match (code, code.class()) {
            (ReasonCode::Unreachable | ReasonCode::Unavailable, _) => Exit::Unreachable,
            // Transactions are aborted for reasons that pass, too.
            (ReasonCode::MassChange | ReasonCode::CommitAborted, _) | (_, Class::Retry) => Exit::TryLater,
            (_, Class::Person | Class::Configuration) => Exit::Configuration,
        }
    }
}

impl From<&ServiceError> for Exit {
    fn from(error: &ServiceError) -> Exit {
        match error {
            ServiceError::Unreachable(_) | ServiceError::Cancelled(_) => Exit::Unreachable,
            ServiceError::Refused(_) => Exit::Configuration,
        }
    }
}

impl From<&Ended> for Exit {
    fn from(ended: &Ended) -> Exit {
        match ended.kind {
            EndKind::Refused => Exit::Configuration,
            EndKind::Fenced | EndKind::Failed => Exit::TryLater,
        }
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
        Failure::new(Exit::from(&error), error.problem().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_ends_is_78_and_what_ends_by_itself_is_not() {
        for code in ReasonCode::ALL {
            let exit = Exit::from(&code);
            match code.class() {
                Class::Retry => assert!(matches!(exit, Exit::Unreachable | Exit::TryLater), "{code}: {exit:?}"),
                // Brokers that come and go abort transactions as well.
                Class::Configuration if code == ReasonCode::CommitAborted => assert_eq!(exit, Exit::TryLater),
                Class::Configuration => assert_eq!(exit, Exit::Configuration, "{code}"),
                // A hold ends with a release, or when the directory recovers.
                Class::Person if code == ReasonCode::MassChange => assert_eq!(exit, Exit::TryLater),
                Class::Person => assert_eq!(exit, Exit::Configuration, "{code}"),
            }
        }
    }

    #[test]
    fn the_gravest_code_counts_in_any_order() {
        for (place, exit) in GRAVEST_LAST.into_iter().enumerate() {
            for milder in &GRAVEST_LAST[..=place] {
                assert_eq!((exit.or(*milder), milder.or(exit)), (exit, exit));
            }
        }
        let codes = MEANINGS.map(|(exit, _)| exit.code());
        assert!(codes.is_sorted() && GRAVEST_LAST.iter().all(|exit| codes.contains(&exit.code())), "{codes:?}");
    }
}
