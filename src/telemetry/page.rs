//! The page that Prometheus reads.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::metric::{self, Metric};
use super::process;

/// Between two turns of [`Page::upkeep`].
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Outcomes of a transaction. Their counters begin at 0, because Prometheus does not see the first increase of a counter
/// that did not exist before.
const OUTCOMES: [&str; 3] = ["committed", "aborted", "ended"];
/// The commit that the program was built from, or `unknown` (`build.rs`).
const COMMIT: &str = env!("SCIMTAIL_COMMIT");

/// The metrics that this process keeps.
#[derive(Clone)]
pub struct Page {
    handle: PrometheusHandle,
}

/// Starts to keep metrics. Before that, [`Metric`] does nothing.
///
/// # Errors
/// Metrics are kept already.
pub fn keep_metrics() -> Result<Page, String> {
    let handle = metric::install()?;
    Metric::Shards.set(0.0, []);
    for outcome in OUTCOMES {
        Metric::Transactions.add(0, [("outcome", outcome)]);
    }
    Metric::TransactionDuration.begin([]);
    Metric::RestoreDuration.begin([]);
    Ok(Page { handle })
}

impl Page {
    /// The page as of now.
    pub fn render(&self) -> String {
        process::measure();
        self.handle.render()
    }

    /// Sorts measured times into the buckets of their histograms until it is cancelled. They take memory until then,
    /// also while nothing reads the page.
    pub async fn upkeep(self) {
        let mut turns = interval(UPKEEP_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.handle.run_upkeep();
        }
    }
}

/// Says what this program was built from. `librdkafka`: its version.
pub fn built_from(librdkafka: &str) {
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT), ("librdkafka", librdkafka)];
    Metric::BuildInfo.set(1.0, labels);
}
