//! The alert rules fit the rest of the repository: the metrics that they name exist, each has an entry in the runbook
//! and a test. What the rules do is tested by promtool (`deploy/prometheus/check`), on recordings of the real program
//! (`tests/alerts/record.py`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Words of PromQL in the rules, and names of labels. Every other word in a rule has to be a metric.
pub const WORDS: [&str; 18] = [
    "absent",
    "account",
    "and",
    "by",
    "increase",
    "job",
    "max",
    "max_over_time",
    "min",
    "offset",
    "on",
    "or",
    "partition",
    "reason",
    "status",
    "sum",
    "time",
    "unless",
];
const SEVERITIES: [&str; 2] = ["page", "ticket"];
/// Where each entry of the runbook says what it has to say.
const PARTS: [&str; 4] = ["**Means.**", "**Look.**", "**Do.**", "**Data.**"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A rule of `alerts.yaml`.
#[derive(Debug, Default)]
pub struct Rule {
    pub expr: String,
    severity: String,
    runbook: String,
}

/// The rules by the name of the alert. The file has one form, which this reads line by line.
pub fn rules() -> BTreeMap<String, Rule> {
    let text = text("deploy/prometheus/alerts.yaml");
    let mut rules = BTreeMap::new();
    for block in text.split("- alert: ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("lines after the name");
        let mut rule = Rule::default();
        let mut in_expr = false;
        for line in rest.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let trimmed = line.trim();
            match trimmed.split_once(": ").unwrap_or((trimmed.trim_end_matches(':'), "")) {
                ("expr", "|") => in_expr = true,
                ("expr", expr) => rule.expr = expr.to_owned(),
                ("for" | "labels" | "annotations", _) => in_expr = false,
                ("severity", severity) => rule.severity = severity.to_owned(),
                ("runbook_url", url) => rule.runbook = url.to_owned(),
                _ if in_expr => rule.expr = format!("{}{trimmed}\n", rule.expr),
                _ => {}
            }
        }
        assert!(!rule.expr.is_empty(), "{name} has no expression");
        assert!(rules.insert(name.to_owned(), rule).is_none(), "{name} is there twice");
    }
    assert!(rules.len() > 10, "{rules:?}");
    rules
}

/// The words of an expression outside its quotes.
pub fn words(expr: &str) -> BTreeSet<String> {
    let bare: String = expr.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    bare.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()))
        .map(str::to_owned)
        .collect()
}

/// The names of all series of the table of metrics. A histogram has three.
pub fn known_series() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for row in text("docs/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let mut columns = row.split(" | ");
        let name = columns.next().unwrap_or_default().trim_start_matches("| ").trim_matches('`');
        let suffixes: &[&str] = match columns.next() {
            Some("histogram") => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        known.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    assert!(known.len() > 10, "{known:?}");
    known
}

/// Sections of a page, by their heading.
fn sections(page: &str) -> BTreeMap<String, String> {
    page.split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').expect("a text below the heading"))
        .map(|(heading, text)| (heading.to_owned(), text.to_owned()))
        .collect()
}

#[test]
fn every_metric_of_an_alert_is_in_the_table_of_metrics() {
    let mut known = known_series();
    known.insert("up".to_owned());
    for (name, rule) in rules() {
        let words = words(&rule.expr);
        let foreign: Vec<&String> =
            words.iter().filter(|word| !known.contains(*word) && !WORDS.contains(&word.as_str())).collect();
        assert!(foreign.is_empty(), "{name} names {foreign:?}, which docs/metrics.md does not have");
        assert!(words.iter().any(|word| known.contains(word)), "{name} names no metric: {}", rule.expr);
    }
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_that_says_all_four_things() {
    let sections = sections(&text("docs/runbook.md"));
    let rules = rules();
    for (name, rule) in &rules {
        assert!(SEVERITIES.contains(&rule.severity.as_str()), "{name} has the severity `{}`", rule.severity);
        let (page, anchor) = rule.runbook.split_once('#').unwrap_or_else(|| panic!("{name} has no runbook_url"));
        assert_eq!(page, "docs/runbook.md", "{name}");
        let entry = sections.iter().find(|(heading, _)| heading.to_lowercase() == anchor);
        let (heading, entry) = entry.unwrap_or_else(|| panic!("docs/runbook.md has no heading for #{anchor}"));
        assert_eq!(heading, name, "the entry of another alert");
        for part in PARTS {
            assert!(entry.contains(part), "the entry of {name} lacks {part}");
        }
    }
    let stale: Vec<&String> =
        sections.keys().filter(|heading| heading.starts_with("Scimtail") && !rules.contains_key(*heading)).collect();
    assert!(stale.is_empty(), "entries of no alert: {stale:?}");
}

#[test]
fn every_alert_fires_in_a_test_and_every_test_has_its_recording() {
    let folder = root().join("deploy/prometheus/alerts_test");
    let mut fired = BTreeSet::new();
    let mut quiet = 0;
    for entry in std::fs::read_dir(folder).expect("the folder of the tests") {
        let path = entry.expect("a file").path();
        let test = std::fs::read_to_string(&path).expect("a text");
        for block in test.split("alertname: ").skip(1) {
            let (name, rest) = block.split_once('\n').expect("lines after the name");
            let expected = rest.split("- eval_time").next().unwrap_or_default();
            if expected.contains("- exp_labels:") {
                fired.insert(name.to_owned());
            }
        }
        quiet += usize::from(test.contains("expr: count_over_time(ALERTS{alertstate=\"firing\"}["));
        // Without any target nothing can be recorded.
        if path.file_stem().is_none_or(|name| name != "no_target") {
            let recording = test.split_once("# Recorded by").and_then(|(_, rest)| rest.split_once("# End of"));
            let (recording, _) = recording.unwrap_or_else(|| panic!("{} has no recording", path.display()));
            for series in ["'up{", "'scimtail_account_configured{", "'scimtail_kafka_up{"] {
                assert!(recording.contains(series), "the recording of {} has no {series}", path.display());
            }
        }
    }
    let alerts: BTreeSet<String> = rules().into_keys().collect();
    assert_eq!(fired, alerts, "alerts that fire in a test, and alerts there are");
    assert!(quiet >= 3, "normal operation, a rolling restart and a rebalance fire nothing");
}
