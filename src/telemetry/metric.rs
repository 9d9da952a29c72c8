//! Every metric, declared once.

use metrics::Label;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// The type of a metric in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// Declares each metric once: its variant, kind, name and meaning.
macro_rules! metrics {
    ($($kind:ident $metric:ident = $name:literal, $help:literal;)+) => {
        /// The metrics of `/metrics`. Labels are names of the configuration, partitions and words of this program.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric {
            $(#[doc = $help] $metric,)+
        }

        impl Metric {
            pub const ALL: &'static [Metric] = &[$(Metric::$metric,)+];

            /// Kind, name, meaning.
            pub fn describe(self) -> (Kind, &'static str, &'static str) {
                match self {
                    $(Metric::$metric => (Kind::$kind, $name, $help),)+
                }
            }
        }
    };
}

metrics! {
    Counter Syncs = "scimtail_syncs_total", "Syncs that ended, by `account` and `status`: completed, held or failed.";
    Gauge LastCompleted = "scimtail_last_completed_sync_timestamp_seconds",
        "When the newest completed sync of the `account` began, in seconds since 1970. An earlier owner may have completed it. NaN after the account has moved to another instance.";
    Gauge NeedsPerson = "scimtail_account_needs_person",
        "1 while the `account` needs a person, otherwise 0, by `reason`: held, stopped, repair, blind (removals cannot be seen) or refused (Kafka refuses the shard; until a transaction commits there).";
    Gauge PausedSince = "scimtail_account_paused_since_timestamp_seconds",
        "When the `account` was paused, in seconds since 1970. 0 while it is not paused. NaN after the account has moved to another instance.";
    Gauge Interval = "scimtail_account_interval_seconds",
        "`interval` of the `account`. NaN after the account has moved to another instance.";
    Counter Events = "scimtail_events_total", "Events committed, by `account`.";
    Gauge RemovalsSuppressed = "scimtail_removals_suppressed",
        "Principals that the newest completed sync of the `account` did not find but could not prove removed. NaN after the account has moved to another instance.";
    Counter PrincipalsReduced = "scimtail_principals_reduced_total",
        "Records of principals committed without their large attributes, because they would be too large, by `account`.";
    Counter CopiesReduced = "scimtail_copies_reduced_total",
        "JSON copies of events committed without their large attributes, by `account`.";
    Counter Throttled = "scimtail_throttled_total", "Requests that a directory answered with HTTP 429, by `account`.";
    Counter ThrottledSeconds = "scimtail_throttled_seconds_total",
        "Seconds that directories asked to wait (Retry-After and similar headers, from 5 s on), by `account`.";
    Gauge KafkaUp = "scimtail_kafka_up", "1 while Kafka answers this instance, otherwise 0.";
    Gauge RegistryUp = "scimtail_registry_up", "1 while the schema registry answers this instance, otherwise 0.";
    Gauge Configured = "scimtail_account_configured", "1 for each `account` in the configuration of this instance.";
    Gauge Owned = "scimtail_account_owned", "1 while this instance owns the shard of the `account`, otherwise 0.";
    Gauge Shards = "scimtail_shards_owned", "Shards that this instance owns.";
    Counter Acquisitions = "scimtail_acquisitions_total", "Shards fenced and restored, by `partition`.";
    Counter AcquisitionsEnded = "scimtail_acquisitions_ended_total",
        "Acquisitions that ended without a shutdown or rebalance, by `partition` and `reason`: fenced or failed.";
    Counter Transactions = "scimtail_transactions_total", "Transactions, by `outcome`: committed, aborted, or ended (the acquisition ended with it).";
}

impl Metric {
    /// Adds to a counter.
    pub fn add<const N: usize>(self, count: u64, labels: [(&'static str, &str); N]) {
        metrics::counter!(self.describe().1, owned(labels)).increment(count);
    }

    /// Increments a gauge by one until the returned guard is dropped.
    pub fn one_more(self) -> OneMore {
        metrics::gauge!(self.describe().1).increment(1.0);
        OneMore(self)
    }

    /// Sets a gauge.
    pub fn set<const N: usize>(self, value: f64, labels: [(&'static str, &str); N]) {
        metrics::gauge!(self.describe().1, owned(labels)).set(value);
    }
}

/// Counts one on a gauge until it is dropped.
#[must_use = "the gauge counts it only until it is dropped"]
pub struct OneMore(Metric);

impl Drop for OneMore {
    fn drop(&mut self) {
        metrics::gauge!(self.0.describe().1).decrement(1.0);
    }
}

fn owned<const N: usize>(labels: [(&'static str, &str); N]) -> Vec<Label> {
    labels.into_iter().map(|(name, value)| Label::new(name, value.to_owned())).collect()
}

/// Starts to keep metrics. Before that, [`Metric`] does nothing.
///
/// # Errors
/// Metrics are kept already.
pub fn keep_metrics() -> Result<PrometheusHandle, String> {
    let handle = PrometheusBuilder::new().install_recorder().map_err(|error| error.to_string())?;
    for metric in Metric::ALL {
        let (kind, name, help) = metric.describe();
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
        }
    }
    Metric::Shards.set(0.0, []);
    for outcome in OUTCOMES {
        Metric::Transactions.add(0, [("outcome", outcome)]);
    }
    Ok(handle)
}

/// Outcomes of a transaction. Their counters begin at 0, because Prometheus does not see the first increase of a counter
/// that did not exist before.
const OUTCOMES: [&str; 3] = ["committed", "aborted", "ended"];
