//! What the metrics say of shards and their accounts, from the beginning of an ownership to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use super::metric::{Metric, OneMore};
use super::requests::OUTCOMES;

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
        // Another instance may own the shard now, and change it.
        self.kept.refusal.accounts.iter().for_each(|account| holds(account, None));
    }
}

/// Starts the counters and histograms of an account at 0, so that Prometheus sees their first increase.
pub fn begin(account: &str, event_types: impl IntoIterator<Item = &'static str>) {
    let plain = [
        Metric::PrincipalsReduced,
        Metric::CopiesReduced,
        Metric::Throttled,
        Metric::ThrottledSeconds,
        Metric::WaitedSeconds,
    ];
    for metric in plain {
        metric.add(0, [("account", account)]);
    }
    for event_type in event_types {
        Metric::Events.add(0, [("account", account), ("event_type", event_type)]);
    }
    for status in ["completed", "held", "failed"] {
        Metric::Syncs.add(0, [("account", account), ("status", status)]);
    }
    for outcome in OUTCOMES {
        Metric::Requests.add(0, [("account", account), ("outcome", outcome)]);
    }
    Metric::SyncDuration.begin([("account", account), ("status", "completed")]);
    for kind in ["user", "group"] {
        Metric::WalkDuration.begin([("account", account), ("kind", kind)]);
    }
}

/// Records of one account that Kafka holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub users: usize,
    pub groups: usize,
    pub memberships: usize,
}

/// Records what Kafka holds of the account; `None`: it is not known.
pub fn holds(account: &str, held: Option<Held>) {
    let value = |count: fn(Held) -> usize| held.map_or(f64::NAN, |held| count(held) as f64);
    Metric::Principals.set(value(|held| held.users), [("account", account), ("kind", "user")]);
    Metric::Principals.set(value(|held| held.groups), [("account", account), ("kind", "group")]);
    Metric::Memberships.set(value(|held| held.memberships), [("account", account)]);
}

/// Records of one account in a transaction.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// How many events of each type.
    pub events: Vec<(&'static str, u64)>,
    /// Principals whose record omits attributes that are too large.
    pub reduced: usize,
    /// JSON copies of events, which `[outputs]` adds, that omit attributes.
    pub copies_reduced: usize,
}

/// Counts a committed transaction of a sync.
pub fn committed(account: &str, sync: i64, carried: Carried) {
    let Carried { events, reduced, copies_reduced } = carried;
    for (event_type, count) in events {
        Metric::Events.add(count, [("account", account), ("event_type", event_type)]);
    }
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

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn counts_of_an_account_end_with_the_ownership_of_its_shard() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let has = |line: &str| recorder.handle().render().contains(&format!("{line}\n"));
        metrics::with_local_recorder(&recorder, || {
            let kept = Kept::new("0", vec!["acme".to_owned()]);
            let owned = kept.own();
            holds("acme", Some(Held { users: 3, groups: 2, memberships: 4 }));
            assert!(has("scimtail_principals{account=\"acme\",kind=\"user\"} 3"));
            assert!(has("scimtail_principals{account=\"acme\",kind=\"group\"} 2"));
            assert!(has("scimtail_memberships{account=\"acme\"} 4"));
            drop(owned);
            assert!(has("scimtail_principals{account=\"acme\",kind=\"user\"} NaN"));
            assert!(has("scimtail_principals{account=\"acme\",kind=\"group\"} NaN"));
            assert!(has("scimtail_memberships{account=\"acme\"} NaN"));
        });
    }

    #[test]
    fn what_prometheus_is_to_see_increase_begins_at_0() {
        let recorder = super::super::metric::recorder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || begin("acme", ["user.added"]));
        let page = recorder.handle().render();
        for series in [
            "scimtail_events_total{account=\"acme\",event_type=\"user.added\"}",
            "scimtail_requests_total{account=\"acme\",outcome=\"none\"}",
            "scimtail_sync_duration_seconds_count{account=\"acme\",status=\"completed\"}",
            "scimtail_walk_duration_seconds_bucket{account=\"acme\",kind=\"group\",le=\"0.1\"}",
            "scimtail_request_wait_seconds_total{account=\"acme\"}",
        ] {
            assert!(page.contains(&format!("{series} 0\n")), "{series}: {page}");
        }
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
