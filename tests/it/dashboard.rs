//! The dashboard fits the rest of the repository: each series that it names exists, and each metric is shown there or
//! watched by an alert. `deploy/grafana/check` lets promtool parse its expressions.

use std::collections::{BTreeMap, BTreeSet};

use scimtail::telemetry::{Kind, Metric};
use serde_json::Value;

use crate::alerts::{WORDS as WORDS_OF_ALERTS, known_series, rules, text, words};

/// Words of PromQL and names of labels that only the dashboard uses.
const WORDS: [&str; 16] = [
    "alertname",
    "alertstate",
    "bool",
    "commit",
    "count",
    "event_type",
    "histogram_quantile",
    "instance",
    "kind",
    "le",
    "librdkafka",
    "outcome",
    "rate",
    "topk",
    "vector",
    "version",
];
/// Columns of a dashboard of Grafana.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/grafana/scimtail.json")).expect("JSON")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no list `{name}` in {value}"))
}

fn string<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text `{name}` in {value}"))
}

/// Each expression with the title of its panel.
fn expressions(dashboard: &Value) -> Vec<(&str, &str)> {
    let shown = list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row");
    let all: Vec<(&str, &str)> = shown
        .flat_map(|panel| list(panel, "targets").iter().map(|target| (string(panel, "title"), string(target, "expr"))))
        .collect();
    assert!(all.len() > 30, "{all:?}");
    all
}

#[test]
fn every_series_of_the_dashboard_exists_and_no_expression_is_without_one() {
    // Prometheus has a series for each alert of its rules.
    let known = known_series().into_iter().chain(["ALERTS".to_owned()]).collect::<BTreeSet<_>>();
    for (title, expr) in expressions(&dashboard()) {
        let words = words(expr);
        let is_word = |word: &str| WORDS.contains(&word) || WORDS_OF_ALERTS.contains(&word);
        let foreign: Vec<&String> = words.iter().filter(|word| !known.contains(*word) && !is_word(word)).collect();
        assert!(foreign.is_empty(), "`{title}` names {foreign:?}, which docs/metrics.md does not have");
        assert!(words.iter().any(|word| known.contains(word)), "`{title}` names no metric: {expr}");
    }
}

/// The labels of each series: those that the text of its metric has in backticks, and those of Prometheus.
fn labels() -> BTreeMap<String, BTreeSet<String>> {
    let mut labels = BTreeMap::new();
    for metric in Metric::ALL {
        let (kind, name, help) = metric.describe();
        let own = help.split('`').skip(1).step_by(2).chain(["job", "instance"]).map(str::to_owned);
        let own: BTreeSet<String> = own.collect();
        let suffixes: &[&str] = match kind {
            Kind::Histogram(_) => &["_bucket", "_sum", "_count"],
            Kind::Counter | Kind::Gauge => &[""],
        };
        for suffix in suffixes {
            let bucket = (*suffix == "_bucket").then(|| "le".to_owned());
            labels.insert(format!("{name}{suffix}"), own.iter().cloned().chain(bucket).collect());
        }
    }
    let of_alerts = ["alertname", "alertstate"].map(str::to_owned);
    labels.insert("ALERTS".to_owned(), of_alerts.into_iter().collect());
    labels
}

/// Whether a letter may be part of a name.
fn in_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

#[test]
fn every_label_of_the_dashboard_is_one_of_its_series() {
    let labels = labels();
    let mut selectors = 0;
    for (title, expr) in expressions(&dashboard()) {
        let mut selected = BTreeSet::new();
        for (before, after) in expr.match_indices('{').map(|(at, _)| expr.split_at(at)) {
            let name = before.rsplit(|letter| !in_name(letter)).next().unwrap_or_default();
            let own = labels.get(name).unwrap_or_else(|| panic!("`{title}`: {name} is no series"));
            let (conditions, _) = after[1..].split_once('}').expect("the end of a selector");
            for condition in conditions.split(", ") {
                let label = condition.split(|letter| !in_name(letter)).next().unwrap_or_default();
                assert!(own.contains(label), "`{title}`: {name} has no label `{label}`");
            }
            selected.extend(own);
            selectors += 1;
        }
        for grouped in expr.split("by (").skip(1).chain(expr.split("on (").skip(1)) {
            let (names, _) = grouped.split_once(')').expect("the end of a list of labels");
            for label in names.split(", ") {
                assert!(selected.contains(&label.to_owned()), "`{title}`: no series has a label `{label}`");
            }
        }
    }
    assert!(selectors > 50, "{selectors}");
}

#[test]
fn every_metric_is_on_the_dashboard_or_in_an_alert() {
    let dashboard = dashboard();
    let mut used: BTreeSet<String> = expressions(&dashboard).iter().flat_map(|(_, expr)| words(expr)).collect();
    used.extend(rules().values().flat_map(|rule| words(&rule.expr)));
    for metric in Metric::ALL {
        let (_, name, _) = metric.describe();
        let suffixes = ["", "_bucket", "_sum", "_count"];
        assert!(suffixes.iter().any(|suffix| used.contains(&format!("{name}{suffix}"))), "{name} is used nowhere");
    }
}

#[test]
fn each_panel_has_a_title_a_description_and_a_place_of_its_own() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        let title = string(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "`{title}` has the id of another panel");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap_or_else(|| panic!("`{title}` has no {side}"));
        let (left, top) = (place("x"), place("y"));
        assert!(left + place("w") <= COLUMNS, "`{title}` is too wide");
        for (x, y) in (left..left + place("w")).flat_map(|x| (top..top + place("h")).map(move |y| (x, y))) {
            assert!(taken.insert((x, y)), "`{title}` covers another panel at {x}, {y}");
        }
        if panel["type"] != "row" {
            assert!(string(panel, "description").ends_with('.'), "`{title}` does not say what it shows");
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            assert!(unit.is_string() || panel["type"] == "heatmap", "`{title}` has no unit");
        }
    }
}

#[test]
fn the_dashboard_works_with_any_data_source() {
    let text = text("deploy/grafana/scimtail.json");
    let sources = text.matches("\"type\": \"prometheus\"").count();
    assert!(sources > 30);
    assert_eq!(text.matches("\"uid\": \"${datasource}\"").count(), sources, "a data source of one Grafana only");
    let dashboard = dashboard();
    let variables: Vec<&str> =
        list(&dashboard["templating"], "list").iter().map(|variable| string(variable, "name")).collect();
    assert_eq!(variables, ["datasource", "job", "account"]);
}
