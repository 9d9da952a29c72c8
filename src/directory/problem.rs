//! What goes wrong, in words for a person.

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

    /// The same problem for a place that names `subject` already.
    pub fn without(self, subject: &str) -> Problem {
        let what = self.what.strip_prefix(subject).map(|what| what.trim_start_matches([':', ' ']).to_owned());
        Problem { what: what.unwrap_or(self.what), ..self }
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
        assert_eq!(problem.to_string(), text);
    }
}
