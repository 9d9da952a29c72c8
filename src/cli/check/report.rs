//! The lines of a check, and its exit code.

use anstyle::{AnsiColor, Style};

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::print;
use crate::directory::Problem;
use crate::service::ServiceError;

/// What a problem needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// No usable answer: a later attempt may succeed. Exit code 69.
    Unreachable,
    /// An answer that says no, or a wrong setting. Exit code 78.
    Refused,
}

impl Gravity {
    pub fn of(error: &ServiceError) -> Gravity {
        if error.is_refused() { Gravity::Refused } else { Gravity::Unreachable }
    }
}

/// Prints the lines of a check and counts its problems.
#[derive(Default)]
pub struct Report {
    problems: usize,
    gravest: Option<Gravity>,
}

impl Report {
    pub fn ok(&self, topic: &str, text: &str) -> Result<(), Failure> {
        line(AnsiColor::Green, "ok", topic, text)
    }

    pub fn note(&self, topic: &str, text: &str) -> Result<(), Failure> {
        line(AnsiColor::Cyan, "note", topic, text)
    }

    /// Counts a problem. Its remedy is printed on a line of its own.
    pub fn fail(&mut self, topic: &str, problem: &Problem, gravity: Gravity) -> Result<(), Failure> {
        self.problems += 1;
        self.gravest = self.gravest.max(Some(gravity));
        line(AnsiColor::Red, "FAIL", topic, &problem.what)?;
        match &problem.remedy {
            Some(remedy) => print(&format!("{:20}→ {remedy}", "")),
            None => Ok(()),
        }
    }

    /// Prints the number of problems, and turns the gravest into the exit code.
    pub fn end(self) -> Result<Exit, Failure> {
        let exit = match self.gravest {
            None => return Ok(Exit::Done),
            Some(Gravity::Unreachable) => Exit::Unreachable,
            Some(Gravity::Refused) => Exit::Configuration,
        };
        let noun = if self.problems == 1 { "problem" } else { "problems" };
        print(&format!("{} {noun}", self.problems))?;
        Ok(exit)
    }
}

fn line(color: AnsiColor, label: &str, topic: &str, text: &str) -> Result<(), Failure> {
    let style = Style::new().fg_color(Some(color.into()));
    print(&format!("  {style}{label:4}{style:#}  {topic:10}  {text}"))
}
