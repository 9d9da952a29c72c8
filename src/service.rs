//! Errors of the services that scimtail depends on: Kafka and the schema registry.

use std::fmt;

/// What failed, and what a person can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The service, what was asked of it, and what came of that.
    pub what: String,
    /// What to do, without the arrow that introduces it; `None` if the text says nothing about it.
    pub remedy: Option<String>,
}

impl Problem {
    pub fn new(what: impl Into<String>) -> Problem {
        Problem { what: what.into(), remedy: None }
    }

    /// The same problem with what to do about it.
    pub fn with_remedy(self, remedy: impl Into<String>) -> Problem {
        Problem { remedy: Some(remedy.into()), ..self }
    }

    /// The same problem; `subject` names what it concerns.
    pub fn of(self, subject: &str) -> Problem {
        Problem { what: format!("{subject}: {}", self.what), ..self }
    }
}

/// `what; → remedy`.
impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)?;
        match &self.remedy {
            Some(remedy) => write!(out, "; → {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<&str> for Problem {
    fn from(what: &str) -> Problem {
        Problem::new(what)
    }
}

impl From<String> for Problem {
    fn from(what: String) -> Problem {
        Problem::new(what)
    }
}

/// Why Kafka or the schema registry did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The service does not answer, or answers that it cannot work now: try later.
    #[error("{0}")]
    Unreachable(Problem),
    /// The service answers and refuses: a person has to act.
    #[error("{0}")]
    Refused(Problem),
    /// The call was called off before its outcome was known.
    #[error("{0}")]
    Cancelled(Problem),
}

impl ServiceError {
    pub fn unreachable(problem: impl Into<Problem>) -> ServiceError {
        ServiceError::Unreachable(problem.into())
    }

    pub fn refused(problem: impl Into<Problem>) -> ServiceError {
        ServiceError::Refused(problem.into())
    }

    pub fn cancelled(problem: impl Into<Problem>) -> ServiceError {
        ServiceError::Cancelled(problem.into())
    }

    pub fn problem(&self) -> &Problem {
        match self {
            ServiceError::Unreachable(problem) | ServiceError::Refused(problem) | ServiceError::Cancelled(problem) => {
                problem
            }
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, ServiceError::Refused(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_what_to_do_at_its_end() {
        let problem = Problem::new("topic users does not exist");
        assert_eq!(problem.to_string(), "topic users does not exist");
        let problem = problem.with_remedy("scimtail topics --create").of("kafka localhost:9092");
        assert_eq!(problem.remedy.as_deref(), Some("scimtail topics --create"));
        let text = "kafka localhost:9092: topic users does not exist; → scimtail topics --create";
        assert_eq!(ServiceError::refused(problem).to_string(), text);
    }
}
