//! `[http] listen`: what monitoring reads. Counts and names of accounts, nothing of people, nothing to change.

use std::net::SocketAddr;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::telemetry;

/// What the exposition format of Prometheus calls itself.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Listens, and answers `/metrics` and `/healthz` (this process runs) for as long as the tasks are kept.
///
/// # Errors
/// The address cannot be listened on.
pub async fn listen(address: SocketAddr) -> Result<JoinSet<()>, String> {
    let cannot = |reason: &dyn std::fmt::Display| format!("[http] listen = \"{address}\": {reason}; → another address");
    let listener = TcpListener::bind(address).await.map_err(|error| cannot(&error.kind()))?;
    let metrics = telemetry::keep_metrics().map_err(|reason| cannot(&reason))?;
    if !address.ip().is_loopback() {
        warn!(%address, "[http] is open to other machines, and asks nobody who they are");
    }
    info!(%address, "metrics at /metrics");
    let mut tasks = JoinSet::new();
    // Descriptions only: what would grow while nobody reads are histograms, of which there are none.
    metrics.run_upkeep();
    let exposed = move || async move { ([(CONTENT_TYPE, EXPOSITION)], metrics.render()) };
    let pages = Router::new().route("/metrics", get(exposed)).route("/healthz", get(|| async { "ok\n" }));
    tasks.spawn(async move { drop(axum::serve(listener, pages).await) });
    Ok(tasks)
}
