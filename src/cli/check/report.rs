//! What a check finds of one subject: an account, Kafka or the registry.

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::cli::failure::Exit;
use crate::directory::Problem;

/// What a finding means for `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Note,
    /// A sync would publish nothing until a release.
    Held,
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub result: Verdict,
    pub topic: String,
    pub text: String,
    pub remedy: Option<String>,
}

/// The findings about one subject, in the order of the check. They are kept and not printed, because other accounts are
/// checked at the same time.
#[derive(Debug)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// The gravest one's.
    pub exit: Exit,
}

impl Default for Report {
    fn default() -> Report {
        Report { findings: Vec::new(), exit: Exit::Done }
    }
}

impl Report {
    pub fn ok(&mut self, topic: &str, text: &str) {
        self.add(Verdict::Ok, topic, Problem::new(text), Exit::Done);
    }

    pub fn note(&mut self, topic: &str, text: &str) {
        self.add(Verdict::Note, topic, Problem::new(text), Exit::Done);
    }

    pub fn held(&mut self, topic: &str, problem: Problem) {
        self.add(Verdict::Held, topic, problem, Exit::TryLater);
    }

    /// `exit`: the code of this problem alone.
    pub fn fail(&mut self, topic: &str, problem: &Problem, exit: Exit) {
        self.add(Verdict::Fail, topic, problem.clone(), exit);
    }

    fn add(&mut self, result: Verdict, topic: &str, problem: Problem, exit: Exit) {
        let Problem { what: text, remedy } = problem;
        self.findings.push(Finding { result, topic: topic.to_owned(), text, remedy });
        self.exit = self.exit.or(exit);
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.result == verdict).count()
    }

    /// A line for each finding; a remedy has a line of its own.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Finding { result, topic, text, remedy } in &self.findings {
            let (color, label) = match result {
                Verdict::Ok => (AnsiColor::Green, "ok"),
                Verdict::Note => (AnsiColor::Cyan, "note"),
                Verdict::Held => (AnsiColor::Yellow, "HELD"),
                Verdict::Fail => (AnsiColor::Red, "FAIL"),
            };
            let style = Style::new().fg_color(Some(color.into()));
            lines.push(format!("  {style}{label:4}{style:#}  {topic:10}  {text}"));
            lines.extend(remedy.iter().map(|remedy| format!("{:20}→ {remedy}", "")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_finding_decides_the_code() {
        let problem = Problem::new("refused").with_remedy("renew it");
        let mut report = Report::default();
        report.ok("reach", "answers");
        report.note("users", "none");
        assert_eq!(report.exit, Exit::Done);
        report.held("sync", problem.clone());
        assert_eq!(report.exit, Exit::TryLater);
        report.fail("token", &problem, Exit::Configuration);
        report.fail("reach", &problem, Exit::Unreachable);
        assert_eq!(
            (report.exit, report.count(Verdict::Fail), report.count(Verdict::Held)),
            (Exit::Configuration, 2, 1)
        );
        let lines: Vec<String> =
            report.lines().iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(lines[2..4], ["  HELD  sync        refused", "                    → renew it"]);
    }
}
