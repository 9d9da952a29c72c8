//! `docs/metrics.md`: made of the metrics as they are declared, so that it cannot go stale.

use expect_test::expect_file;
use scimtail::telemetry::{Kind, Metric};

const INTRODUCTION: &str = "\
# Metrics

```toml
[http]
listen = \"127.0.0.1:9464\"
```

gives the service (`scimtail run`) a page for Prometheus, `/metrics`, and `/healthz`, which answers 200 while the process
runs. Both can only be read, and ask nobody who they are: an address that other machines reach is warned about at the
start. Labels are names of the configuration, partition numbers and the words below, never anything of a person.

Counters count from the start of the process. With several instances an account moves between them: sum its counters,
and take the `max` of its gauges, which skips those of an earlier owner (NaN).

| metric | kind | what |
|---|---|---|
";

const ALERTS: &str = "
Worth waking somebody:

```promql
# No complete look at an account for an hour. Nothing is missed: what changed meanwhile comes with the next sync.
time() - max by (account) (scimtail_last_completed_sync_timestamp_seconds) > 3600

# Somebody has to look: the log of this moment says at what.
max by (account, reason) (scimtail_account_needs_person) == 1

# Every sync fails; also of an account that never completed one.
sum by (account) (increase(scimtail_syncs_total{status=\"failed\"}[1h])) > 0
  unless sum by (account) (increase(scimtail_syncs_total{status=\"completed\"}[1h])) > 0
```

Worth a look in the morning:

```promql
# Removals that a directory shows but does not confirm.
max by (account) (scimtail_removals_suppressed) > 0

# Two services that take each other's shards, or a broker that refuses.
increase(scimtail_acquisitions_ended_total[1h]) > 3

# Records that leave something out because they would be too large for Kafka; they name it in `omitted_attributes`.
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
