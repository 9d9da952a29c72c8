//! `[http] listen`: read-only pages for monitoring and for people, within bounds.

mod access;
mod server;

use std::net::SocketAddr;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use access::Access;
pub use access::ReadToken;

use crate::telemetry;

/// The media type of the exposition format of Prometheus.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves `more`, `/metrics`, `/healthz` (200 while the process runs) and `/readyz` (503 while Kafka does not answer)
/// until the returned tasks are dropped. `ready`: whether Kafka answers. `token`: what a request has to show, except
/// for the last two.
///
/// # Errors
/// The process cannot listen on the address.
pub async fn listen(
    address: SocketAddr,
    token: Option<ReadToken>,
    ready: watch::Receiver<bool>,
    more: Router,
) -> Result<JoinSet<()>, String> {
    let cannot =
        |reason: &dyn std::fmt::Display| format!("[http] listen = \"{address}\": {reason}; → use another address");
    let listener = TcpListener::bind(address).await.map_err(|error| cannot(&error.kind()))?;
    let metrics = telemetry::keep_metrics().map_err(|reason| cannot(&reason))?;
    info!(%address, "status page at /, metrics at /metrics");
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
    let access = Access { loopback: address.ip().is_loopback(), token };
    let guarded = more.route("/metrics", get(exposed)).layer(middleware::from_fn_with_state(access, access::check));
    let pages = guarded.route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(readiness));
    tasks.spawn(server::serve(listener, pages));
    Ok(tasks)
}
