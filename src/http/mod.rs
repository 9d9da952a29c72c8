//! `[http] listen`: read-only pages for monitoring and for people, within bounds.

mod access;
mod server;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;
use url::Url;

use access::Access;
pub use access::{ReadToken, no_token};

use crate::directory::Problem;
use crate::telemetry;
use crate::transport::Transport;

/// The media type of the exposition format of Prometheus.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// In the header `Server` of each answer, so that a check tells this listener from another program.
const NAME: HeaderValue = HeaderValue::from_static("scimtail");
/// For the program that has the address already.
const ASK_WAIT: Duration = Duration::from_secs(2);

/// Whether the address is free. `false`: a running scimtail listens there, perhaps the one that is being checked.
///
/// # Errors
/// The process cannot listen on the address, in the words of [`listen`].
pub async fn try_address(address: SocketAddr) -> Result<bool, Problem> {
    match bind(address).await {
        Ok(_) => Ok(true),
        Err(_) if is_scimtail(address).await => Ok(false),
        Err(problem) => Err(problem),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Problem> {
    TcpListener::bind(address).await.map_err(|error| refused(address, &error.kind()))
}

fn refused(address: SocketAddr, reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(format!("[http] listen = \"{address}\": {reason}")).with_remedy("use another address")
}

async fn is_scimtail(mut address: SocketAddr) -> bool {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    let Ok(url) = Url::parse(&format!("http://{address}/healthz")) else { return false };
    let client = Transport::default().builder(&url).map(|builder| builder.timeout(ASK_WAIT).build());
    let Ok(Ok(client)) = client else { return false };
    client.get(url).send().await.is_ok_and(|answer| answer.headers().get(SERVER) == Some(&NAME))
}

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
) -> Result<JoinSet<()>, Problem> {
    let listener = bind(address).await?;
    let metrics = telemetry::keep_metrics().map_err(|reason| refused(address, &reason))?;
    info!(%address, "status page at /, metrics at /metrics");
    let mut tasks = JoinSet::new();
    tasks.spawn(metrics.clone().upkeep());
    // A thousand accounts have megabytes of metrics. Shards sync on the threads that serve requests.
    let exposed = move || async move {
        let rendered = tokio::task::spawn_blocking(move || metrics.render()).await;
        rendered.map_or_else(
            |_| StatusCode::SERVICE_UNAVAILABLE.into_response(),
            |text| ([(CONTENT_TYPE, EXPOSITION)], text).into_response(),
        )
    };
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
    let pages = pages.layer(middleware::map_response(|mut answer: Response| async {
        answer.headers_mut().insert(SERVER, NAME);
        answer
    }));
    tasks.spawn(server::serve(listener, pages));
    Ok(tasks)
}
