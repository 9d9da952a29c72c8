//! Every metric, declared once.

use std::time::Duration;

use metrics::Label;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The type of a metric in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Of times in seconds, with the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// From the poll of a small directory that has not changed to the first read of a large one whose vendor throttles.
const WORK: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0];
/// From a commit that finds its broker idle to the life of a transaction.
const COMMIT: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Declares each metric once: its variant, kind, name and meaning.
macro_rules! metrics {
    ($($kind:ident $(($buckets:ident))? $metric:ident = $name:literal, $help:literal;)+) => {
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
                    $(Metric::$metric => (Kind::$kind$(($buckets))?, $name, $help),)+
                }
            }
        }
    };
}

metrics! {
    Counter Syncs = "scimtail_syncs_total", "Syncs that ended, by `account` and `status`: completed, held or failed.";
    Histogram(WORK) SyncDuration = "scimtail_sync_duration_seconds",
        "How long syncs took that ended, by `account` and `status`: completed, held or failed.";
    Histogram(WORK) WalkDuration = "scimtail_walk_duration_seconds",
        "How long it took to read a whole list of the `account`, by `kind`: user or group.";
    Gauge LastCompleted = "scimtail_last_completed_sync_timestamp_seconds",
        "When the newest completed sync of the `account` began, in seconds since 1970. An earlier owner may have completed it. NaN after the account has moved to another instance.";
    Gauge NeedsPerson = "scimtail_account_needs_person",
        "1 while the `account` needs a person, otherwise 0, by `reason`: held, stopped, repair, blind (removals cannot be seen) or refused (Kafka refuses the shard; until a transaction commits there).";
    Gauge PausedSince = "scimtail_account_paused_since_timestamp_seconds",
        "When the `account` was paused, in seconds since 1970. 0 while it is not paused. NaN after the account has moved to another instance.";
    Gauge Interval = "scimtail_account_interval_seconds",
        "`interval` of the `account`. NaN after the account has moved to another instance.";
    Gauge Principals = "scimtail_principals",
        "Users and groups of the `account` that Kafka holds, by `kind`: user or group. NaN while the account is stopped, and while this instance does not own its shard.";
    Gauge Memberships = "scimtail_memberships",
        "Memberships of the `account` that Kafka holds. NaN while the account is stopped, and while this instance does not own its shard.";
    Counter Events = "scimtail_events_total", "Events committed, by `account` and `event_type`.";
    Gauge RemovalsSuppressed = "scimtail_removals_suppressed",
        "Principals that the newest completed sync of the `account` did not find but could not prove removed. NaN after the account has moved to another instance.";
    Counter PrincipalsReduced = "scimtail_principals_reduced_total",
        "Records of principals committed without their large attributes, because they would be too large, by `account`.";
    Counter CopiesReduced = "scimtail_copies_reduced_total",
        "JSON copies of events committed without their large attributes, by `account`.";
    Counter Requests = "scimtail_requests_total",
        "Requests to the directory of the `account`, by `outcome`. It is 2xx, 3xx, 4xx or 5xx by the status of the answer, broken (the answer breaks off or is too large) or none (no answer). Each try counts.";
    Counter WaitedSeconds = "scimtail_request_wait_seconds_total",
        "Seconds that requests of the `account` waited for a rate limit, a pause that the vendor asked for, or their next try. Requests that wait at the same time all count.";
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
    Histogram(COMMIT) TransactionDuration = "scimtail_transaction_duration_seconds",
        "How long transactions were open, whatever their outcome.";
    Histogram(WORK) RestoreDuration = "scimtail_restore_duration_seconds",
        "How long it took to read the state of a shard back from Kafka.";
    Gauge BuildInfo = "scimtail_build_info",
        "1, with the `version` of scimtail, the `commit` that it was built from (unknown if the build did not state it) and the version of `librdkafka`.";
    Gauge ResidentMemory = "process_resident_memory_bytes", "Memory of the process in bytes. Linux only, as all that follow.";
    Counter CpuSeconds = "process_cpu_seconds_total", "Whole seconds of CPU time, user and system.";
    Gauge OpenFds = "process_open_fds", "Open file descriptors.";
    Gauge MaxFds = "process_max_fds", "File descriptors that the process may open.";
    Gauge StartTime = "process_start_time_seconds", "When the process started, in seconds since 1970.";
}

impl Metric {
    /// Adds to a counter.
    pub fn add<const N: usize>(self, count: u64, labels: [(&'static str, &str); N]) {
        metrics::counter!(self.describe().1, owned(labels)).increment(count);
    }

    /// Sets a counter that something else counts.
    pub fn total(self, total: u64) {
        metrics::counter!(self.describe().1).absolute(total);
    }

    /// Starts a histogram without a time, because Prometheus does not see the first increase of a series that did not
    /// exist before.
    pub(super) fn begin<const N: usize>(self, labels: [(&'static str, &str); N]) {
        drop(metrics::histogram!(self.describe().1, owned(labels)));
    }

    /// Adds a time to a histogram.
    pub fn took<const N: usize>(self, time: Duration, labels: [(&'static str, &str); N]) {
        metrics::histogram!(self.describe().1, owned(labels)).record(time);
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

/// The builder of a recorder that knows the buckets of each histogram.
///
/// # Errors
/// A histogram without buckets.
pub(super) fn recorder() -> Result<PrometheusBuilder, String> {
    let mut builder = PrometheusBuilder::new();
    for metric in Metric::ALL {
        if let (Kind::Histogram(buckets), name, _) = metric.describe() {
            let only = Matcher::Full(name.to_owned());
            builder = builder.set_buckets_for_metric(only, buckets).map_err(|error| error.to_string())?;
        }
    }
    Ok(builder)
}

/// Starts to keep metrics. Before that, [`Metric`] does nothing.
///
/// # Errors
/// Metrics are kept already.
pub(super) fn install() -> Result<PrometheusHandle, String> {
    let handle = recorder()?.install_recorder().map_err(|error| error.to_string())?;
    for metric in Metric::ALL {
        let (kind, name, help) = metric.describe();
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram(_) => metrics::describe_histogram!(name, help),
        }
    }
    Ok(handle)
}
