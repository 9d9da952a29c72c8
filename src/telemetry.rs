//! Logs and metrics: ids and counts, never attributes of people.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use metrics::Label;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::{Event, Subscriber, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Names of log levels, from the fewest lines to the most.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// True for `info`, and for `scimtail=debug,rdkafka=trace`. [`EnvFilter`] takes any other word for a target, and then
/// logs everything of it and nothing else.
fn is_level(filter: &str) -> bool {
    filter.split(',').all(|directive| {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        !directive.starts_with('=') && LEVELS.iter().any(|name| name.eq_ignore_ascii_case(level))
    })
}

/// Starts logging to standard error. `level` is a level, or a level for each target: `scimtail=debug,rdkafka=trace`.
///
/// # Errors
/// A level that is not understood.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let refused = || {
        let names = LEVELS.join(", ");
        format!("log level {level:?} is not understood; → use one of {names}, or e.g. scimtail=debug,rdkafka=trace")
    };
    if !is_level(level) {
        return Err(refused());
    }
    // The request that failed reports once, with its account, why a certificate is not trusted.
    // AWS's crates print what their servers answer, unescaped.
    let filter = EnvFilter::try_new(format!("rustls_platform_verifier=off,aws=off,{level}")).map_err(|_| refused())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // As for every other line: NO_COLOR, and what else decides it.
    let ansi = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    match format {
        LogFormat::Text => drop(builder.with_ansi(ansi).try_init()),
        LogFormat::Json => drop(builder.json().event_format(JsonLine::new()).try_init()),
    }
    Ok(())
}

/// A line of JSON: the event's fields, and beside them those of the spans around it. Of two fields of one name the
/// inner one counts; the crates that flatten spans print such a field twice.
struct JsonLine {
    line: Format<Json>,
}

impl JsonLine {
    fn new() -> JsonLine {
        let line = fmt::format().json().flatten_event(true).with_current_span(false).with_span_list(false);
        JsonLine { line: line.with_target(false) }
    }
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::new();
        self.line.format_event(context, Writer::new(&mut line), event)?;
        let spans = context.lookup_current().into_iter().flat_map(|span| span.scope());
        let fields: Vec<String> = spans
            .filter_map(|span| {
                span.extensions().get::<FormattedFields<JsonFields>>().map(|fields| fields.fields.clone())
            })
            .collect();
        if fields.is_empty() {
            return writer.write_str(&line);
        }
        let object = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).unwrap_or_default();
        let mut names: Vec<String> = object(&line).into_iter().map(|(name, _)| name).collect();
        writer.write_str(line.trim_end().strip_suffix('}').unwrap_or_default())?;
        for (name, value) in fields.iter().flat_map(|fields| object(fields)) {
            if !names.contains(&name) {
                write!(writer, ",{}:{value}", serde_json::Value::from(name.as_str()))?;
                names.push(name);
            }
        }
        writeln!(writer, "}}")
    }
}

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
/// Why an account needs a person, as its owner knows it. [`Refusal`] has the reason that concerns the whole shard.
const REASONS: [&str; 4] = ["held", "stopped", "repair", "blind"];

/// Records which accounts are configured; `before`: which were.
pub fn configured<'a>(before: impl IntoIterator<Item = &'a str>, now: impl IntoIterator<Item = &'a str>) {
    for (accounts, value) in [(before.into_iter().collect::<Vec<_>>(), 0.0), (now.into_iter().collect(), 1.0)] {
        accounts.into_iter().for_each(|account| Metric::Configured.set(value, [("account", account)]));
    }
}

/// Records that the account needs a person for these of `REASONS`, and for no other of them.
pub fn needs_person(account: &str, holding: &[&str]) {
    for reason in REASONS {
        let value = if holding.contains(&reason) { 1.0 } else { 0.0 };
        Metric::NeedsPerson.set(value, [("account", account), ("reason", reason)]);
    }
}

/// Whether Kafka refuses a shard. A refusal stands until a transaction commits: Kafka may let an instance acquire the
/// shard again and again, and refuse each of its writes.
pub struct Refusal {
    accounts: Vec<String>,
    stands: AtomicBool,
}

impl Refusal {
    /// Records that Kafka refuses the shard: its accounts are not synced until a person acts.
    pub fn begin(&self) {
        self.stands.store(true, Ordering::Relaxed);
        self.set(1.0);
    }

    /// Records that a transaction committed.
    pub fn end(&self) {
        // A shard may have thousands of accounts, and each of their syncs comes here.
        if self.stands.swap(false, Ordering::Relaxed) {
            self.set(0.0);
        }
    }

    fn set(&self, value: f64) {
        for account in &self.accounts {
            Metric::NeedsPerson.set(value, [("account", account), ("reason", "refused")]);
        }
    }
}

/// The accounts of a shard while this instance keeps it. When it is dropped, their gauges are reset, because the next
/// owner reports them.
pub struct Kept {
    pub refusal: Arc<Refusal>,
}

impl Kept {
    pub fn new(partition: &str, accounts: Vec<String>) -> Kept {
        Metric::Acquisitions.add(0, [("partition", partition)]);
        for reason in ["fenced", "failed"] {
            Metric::AcquisitionsEnded.add(0, [("partition", partition), ("reason", reason)]);
        }
        let refusal = Refusal { accounts, stands: AtomicBool::new(false) };
        refusal.set(0.0);
        let kept = Kept { refusal: Arc::new(refusal) };
        kept.set_owned(0.0);
        kept
    }

    /// Records that this instance owns the shard, until the returned guard is dropped.
    pub fn own(&self) -> Owned<'_> {
        self.set_owned(1.0);
        Owned { kept: self, _shard: Metric::Shards.one_more() }
    }

    fn set_owned(&self, value: f64) {
        self.refusal.accounts.iter().for_each(|account| Metric::Owned.set(value, [("account", account)]));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.refusal.set(0.0);
        for account in &self.refusal.accounts {
            needs_person(account, &[]);
            for metric in [Metric::LastCompleted, Metric::RemovalsSuppressed, Metric::PausedSince, Metric::Interval] {
                metric.set(f64::NAN, [("account", account)]);
            }
        }
    }
}

/// A shard counts as owned until it is dropped.
#[must_use = "the shard counts as owned only until it is dropped"]
pub struct Owned<'kept> {
    kept: &'kept Kept,
    _shard: OneMore,
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        self.kept.set_owned(0.0);
    }
}

/// Starts the counters of an account at 0, so that Prometheus sees their first increase.
pub fn begin(account: &str) {
    for metric in [Metric::Events, Metric::PrincipalsReduced, Metric::CopiesReduced] {
        metric.add(0, [("account", account)]);
    }
    for status in ["completed", "held", "failed"] {
        Metric::Syncs.add(0, [("account", account), ("status", status)]);
    }
}

/// Records of one account in a transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    pub events: usize,
    /// Principals whose record omits attributes that are too large.
    pub reduced: usize,
    /// JSON copies of events, which `[outputs]` adds, that omit attributes.
    pub copies_reduced: usize,
}

/// Counts a committed transaction of a sync.
pub fn committed(account: &str, sync: i64, carried: Carried) {
    let Carried { events, reduced, copies_reduced } = carried;
    Metric::Events.add(events as u64, [("account", account)]);
    if reduced > 0 {
        warn!(sync, reduced, "principals truncated; see omitted_attributes of their records");
        Metric::PrincipalsReduced.add(reduced as u64, [("account", account)]);
    }
    if copies_reduced > 0 {
        let reduced = copies_reduced;
        warn!(sync, reduced, "JSON copies truncated; see omitted_attributes (the Avro events are complete)");
        Metric::CopiesReduced.add(reduced as u64, [("account", account)]);
    }
}

/// A writer that keeps log lines, for tests.
#[cfg(test)]
pub mod lines {
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    pub struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{error_span, subscriber, warn};

    use super::lines::Lines;
    use super::*;

    #[test]
    fn a_level_is_one_of_six_names_or_one_for_each_target() {
        for level in ["info", "OFF", "scimtail=debug,rdkafka=trace", "info,scimtail::sync=debug", "[account]=trace"] {
            assert!(is_level(level), "{level}");
            assert!(EnvFilter::try_new(level).is_ok(), "{level}");
        }
        for level in ["infoo", "", "scimtail", "scimtail=", "=debug", "info,", "scimtail=debgu", "5", "scimtail:debug"]
        {
            assert!(!is_level(level), "{level}");
            let said = start(LogFormat::Text, level).expect_err("it is refused");
            assert!(said.contains("use one of off, error, warn, info, debug, trace"), "{said}");
        }
    }

    #[test]
    fn a_line_of_json_has_the_fields_of_its_event_and_of_the_spans_around_it() {
        let lines = Lines::default();
        let written = lines.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || written.clone());
        subscriber::with_default(builder.json().event_format(JsonLine::new()).finish(), || {
            warn!(sync = 1, "outside");
            error_span!("shard", partition = 3).in_scope(|| {
                error_span!("account", account = "acme").in_scope(|| warn!(sync = 2, "{{inside}}"));
                warn!(partition = 4, "nearer");
            });
        });
        let text = lines.text();
        let read = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(read).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!((&lines[0]["sync"], &lines[0]["partition"]), (&1.into(), &serde_json::Value::Null));
        assert_eq!((&lines[1]["message"], &lines[1]["level"]), (&"{inside}".into(), &"WARN".into()));
        assert_eq!(
            (&lines[1]["sync"], &lines[1]["partition"], &lines[1]["account"]),
            (&2.into(), &3.into(), &"acme".into())
        );
        assert_eq!(text.matches("\"partition\":").count(), 2, "each name once a line: {text}");
        assert_eq!(lines[2]["partition"], 4);
    }

    #[test]
    fn a_refused_shard_needs_a_person_until_a_transaction_commits_however_often_it_is_acquired() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let value = |metric: &str| {
            let page = handle.render();
            let value = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("no {metric} in {page}"))
        };
        let refused = || value("scimtail_account_needs_person{account=\"acme\",reason=\"refused\"}");
        let held = || value("scimtail_account_needs_person{account=\"acme\",reason=\"held\"}");
        let owned = || value("scimtail_account_owned{account=\"acme\"}");
        metrics::with_local_recorder(&recorder, || {
            let kept = Kept::new("0", vec!["acme".to_owned()]);
            assert_eq!((refused(), owned()), (0.0, 0.0));
            kept.refusal.begin();
            for _ in 0..2 {
                let acquisition = kept.own();
                // What the owner measures as soon as it has the shard.
                needs_person("acme", &["held"]);
                assert_eq!((refused(), held(), owned()), (1.0, 1.0, 1.0));
                drop(acquisition);
                assert_eq!((refused(), owned()), (1.0, 0.0));
            }
            kept.refusal.end();
            assert_eq!((refused(), held()), (0.0, 1.0));
            kept.refusal.begin();
            drop(kept);
            assert_eq!((refused(), held(), owned()), (0.0, 0.0, 0.0), "the next owner reports it");
        });
    }
}
