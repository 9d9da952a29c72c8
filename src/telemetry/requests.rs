//! What the metrics say of requests to directories.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::metric::Metric;

/// What may become of a request.
pub(super) const OUTCOMES: [&str; 6] = ["2xx", "3xx", "4xx", "5xx", "broken", "none"];

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With this HTTP status.
    Status(u16),
    /// It breaks off, or is too large.
    Broken,
    None,
}

/// Counts a request to the directory of the account.
pub fn requested(account: &str, answer: Answer) {
    let [success, other, refused, failed, broken, none] = OUTCOMES;
    let outcome = match answer {
        Answer::Status(..300) => success,
        Answer::Status(300..400) => other,
        Answer::Status(400..500) => refused,
        Answer::Status(500..) => failed,
        Answer::Broken => broken,
        Answer::None => none,
    };
    Metric::Requests.add(1, [("account", account), ("outcome", outcome)]);
}

/// Adds up how long the requests of an account waited. A counter has whole seconds only, so what is left of one counts
/// with the next wait.
#[derive(Debug, Default)]
pub struct Waited {
    micros: AtomicU64,
}

impl Waited {
    const SECOND: u64 = 1_000_000;

    pub fn add(&self, account: &str, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let before = self.micros.fetch_add(micros, Ordering::Relaxed);
        let seconds = before.saturating_add(micros) / Waited::SECOND - before / Waited::SECOND;
        if seconds > 0 {
            Metric::WaitedSeconds.add(seconds, [("account", account)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn many_short_waits_add_up_to_seconds() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let waited = Waited::default();
            for _ in 0..7 {
                waited.add("acme", Duration::from_millis(400));
            }
            waited.add("acme", Duration::from_millis(3_150));
        });
        let page = recorder.handle().render();
        assert!(page.contains("scimtail_request_wait_seconds_total{account=\"acme\"} 5\n"), "5.95 s: {page}");
    }
}
