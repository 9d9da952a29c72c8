//! Connections within bounds: a client that sends nothing, or half a request, takes neither descriptors nor memory from
//! the service for long.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// Connections at once. Further ones wait in the kernel, whose queue is bounded too.
const CONNECTIONS_MAX: usize = 128;
/// For the head of a request, also of the next one of a connection that is kept.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A connection is closed after this time, whatever it does: a client that does not read its answer holds it no longer.
/// A page that is live connects again by itself.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// After an error of the listener, e.g. when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers requests until it is dropped.
pub async fn serve(listener: TcpListener, pages: Router) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = free.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "no connection was accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(pages.clone());
        connections.spawn(async move {
            let _place = place;
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT).max_buf_size(HEAD_BYTES_MAX);
            drop(timeout(CONNECTION_LIFE, http.serve_connection(TokioIo::new(stream), service)).await);
        });
    }
}
