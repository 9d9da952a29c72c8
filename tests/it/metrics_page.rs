//! `docs/metrics.md` is generated from the declarations of the metrics, so that it cannot go stale.

use expect_test::expect_file;
use scimtail::telemetry::{Kind, Metric};

const INTRODUCTION: &str = "\
# Metrics

```toml
[http]
listen = \"127.0.0.1:9464\"
```

With this setting the service (`scimtail run`) has a page for Prometheus, `/metrics`, and two for probes. `/healthz`
answers 200 while the process runs. `/readyz` answers 503 while Kafka does not answer. If other machines can reach the
address, `token_file` is required ([security](security.md)), and Prometheus sends its content as a bearer token
(`authorization.credentials_file`). Labels are names of the configuration, partition numbers, versions and the words
below. They never say anything about a person.

Counters count from the start of the process. With several instances, an account moves between them. Sum the counters of
an account, and take the `max` of its gauges. `max` skips the gauges of an earlier owner, because they are NaN.

| metric | kind | what |
|---|---|---|
";

const ALERTS: &str = "
A histogram has the series `_bucket`, `_sum` and `_count`. An account has about 80 series, and 13 more if its syncs have
been held or have failed. A thousand accounts make 77,000 series, a page of 6 MB, and take 30 to 60 MB of memory.
Metrics are written once a sync, list, request or transaction, never by row.

## Dashboard

`deploy/grafana/scimtail.json` is a dashboard for Grafana 10 or newer. Import it, and choose the data source above. The
chart brings it as a ConfigMap for Grafana's sidecar, with `dashboard.enabled`. `Fleet`
shows what needs a person, and how old the state of each account is. `Accounts` has durations, events, counts, requests and
waiting of the accounts that are chosen above. `Kafka` and `Process` are by instance. `deploy/grafana/check` lets promtool
parse its expressions.

## Alerts

`deploy/prometheus/alerts.yaml` has the rules for Prometheus. Name the job of the instances `scimtail`, or let its name
begin so. The instances of one topic prefix are one job. The [runbook](runbook.md) says for each alert what it means, what
to look at and what to do. `deploy/prometheus/check` tests the rules with promtool, on recordings of the real program
(`tests/alerts/record.py`).
";

fn page() -> String {
    let row = |metric: &Metric| {
        let (kind, name, help) = metric.describe();
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        format!("| `{name}` | {kind} | {help} |\n")
    };
    format!("{INTRODUCTION}{}{ALERTS}", Metric::ALL.iter().map(row).collect::<String>())
}

#[test]
fn the_page_about_metrics_lists_what_is_declared() {
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")].assert_eq(&page());
}
