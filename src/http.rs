//! `[http] listen`: read-only pages for monitoring. They have counts and names of accounts, nothing about people.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::telemetry;

/// The media type of the exposition format of Prometheus.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves `/metrics`, `/healthz` (200 while the process runs) and `/readyz` (503 while Kafka does not answer) until the
/// returned tasks are dropped. `ready`: whether Kafka answers.
///
/// # Errors
/// The process cannot listen on the address.
pub async fn listen(address: SocketAddr, ready: watch::Receiver<bool>) -> Result<JoinSet<()>, String> {
    let cannot =
        |reason: &dyn std::fmt::Display| format!("[http] listen = \"{address}\": {reason}; → use another address");
    let listener = TcpListener::bind(address).await.map_err(|error| cannot(&error.kind()))?;
    let metrics = telemetry::keep_metrics().map_err(|reason| cannot(&reason))?;
    if !address.ip().is_loopback() {
        warn!(%address, "[http] listens beyond loopback without authentication");
    }
    info!(%address, "metrics at /metrics");
    let mut tasks = JoinSet::new();
    tasks.spawn(metrics.clone().upkeep());
    let exposed = move || async move { ([(CONTENT_TYPE, EXPOSITION)], metrics.render()) };
    let readiness = move || async move {
        if *ready.borrow() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "Kafka does not answer\n")
        }
    };
    let pages = Router::new()
        .route("/metrics", get(exposed))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness));
    tasks.spawn(async move { drop(axum::serve(listener, pages).await) });
    Ok(tasks)
}
