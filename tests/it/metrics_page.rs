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
answers 200 while the process runs. `/readyz` answers 503 while Kafka does not answer. The pages are read-only and have
no authentication. So the service warns at the start if other machines can reach the address. Labels are names of the configuration, partition numbers and the
words below. They never say anything about a person.

Counters count from the start of the process. With several instances, an account moves between them. Sum the counters of
an account, and take the `max` of its gauges. `max` skips the gauges of an earlier owner, because they are NaN.

| metric | kind | what |
|---|---|---|
";

const ALERTS: &str = "
These alerts should wake a person:

```promql
# No completed sync of an account for an hour. Nothing is lost: the next sync publishes what changed meanwhile.
time() - max by (account) (scimtail_last_completed_sync_timestamp_seconds) > 3600

# An account needs a person. The log of that time says why.
max by (account, reason) (scimtail_account_needs_person) == 1

# Every sync of an account fails, also if it has never completed one.
sum by (account) (increase(scimtail_syncs_total{status=\"failed\"}[1h])) > 0
  unless sum by (account) (increase(scimtail_syncs_total{status=\"completed\"}[1h])) > 0
```

These alerts can wait until the morning:

```promql
# Removals that a directory shows but does not confirm.
max by (account) (scimtail_removals_suppressed) > 0

# Two services take shards from each other, or a broker refuses.
increase(scimtail_acquisitions_ended_total[1h]) > 3

# Records without attributes that are too large for Kafka; `omitted_attributes` names them.
increase(scimtail_principals_reduced_total[1d]) > 0
```
";

fn page() -> String {
    let row = |metric: &Metric| {
        let (kind, name, help) = metric.describe();
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        format!("| `{name}` | {kind} | {help} |\n")
    };
    format!("{INTRODUCTION}{}{ALERTS}", Metric::ALL.iter().map(row).collect::<String>())
}

#[test]
fn the_page_about_metrics_lists_what_is_declared() {
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")].assert_eq(&page());
}
