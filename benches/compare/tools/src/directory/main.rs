//! A SCIM directory for measurements that costs as little as possible: every page is rendered up front.
//!
//! The same parameters and seeds give the same directory. `/control` is for the harness: it changes the directory and
//! tells what the directory holds, and when which requests came.

mod content;
mod people;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use content::{Churn, Directory, Listing};
use serde::Deserialize;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BASE_PATH: &str = "/scim/v2";
const USAGE: &str = "usage: directory --token TOKEN --page N --users N --groups N --memberships N";

struct Shared {
    /// The only `Authorization` header accepted.
    authorization: String,
    page: usize,
    directory: RwLock<Directory>,
    latency_ms: AtomicU64,
    seen: Seen,
}

/// Of the requests since the last reset; times in nanoseconds since 1970, 0: none yet.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    bytes: AtomicU64,
    first_request: AtomicU64,
    /// When the first page of users was given to the socket.
    first_page: AtomicU64,
    last_answer: AtomicU64,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given: HashMap<&str, &str> =
        arguments.chunks_exact(2).map(|pair| (pair[0].trim_start_matches('-'), pair[1].as_str())).collect();
    let text = |name: &str| given.get(name).copied().unwrap_or_else(|| panic!("--{name} is missing; → {USAGE}"));
    let number = |name: &str| -> usize {
        text(name).parse().unwrap_or_else(|_| panic!("--{name} is not a whole number; → {USAGE}"))
    };
    let (users, groups, memberships, page) = (number("users"), number("groups"), number("memberships"), number("page"));
    assert!(page > 0, "a page has no rows; → --page 1 or more");
    assert!(
        memberships.div_ceil(groups.max(1)) <= users && (groups > 0 || memberships == 0),
        "a group would list a user twice; → fewer memberships, or more groups"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("a bound address"));
        let directory = Directory::new(format!("{origin}{BASE_PATH}"), users, groups, memberships, page);
        let shared = Arc::new(Shared {
            authorization: format!("Bearer {}", text("token")),
            page,
            directory: RwLock::new(directory),
            latency_ms: AtomicU64::new(0),
            seen: Seen::default(),
        });
        println!("{origin}");
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket"));
        axum::serve(listener, router(&shared)).await.expect("serving goes on");
    });
}

fn router(shared: &Arc<Shared>) -> Router {
    let resources = Router::new()
        .route("/ServiceProviderConfig", get(service_provider_config))
        .route("/Users", get(list_users))
        .route("/Users/{id}", get(one_user))
        .route("/Groups", get(list_groups))
        .route("/Groups/{id}", get(one_group))
        .fallback(async || scim_error(StatusCode::NOT_FOUND, "No such endpoint."))
        .layer(from_fn_with_state(Arc::clone(shared), answer));
    let control = Router::new()
        .route("/churn", post(churn))
        .route("/manifest", get(manifest))
        .route("/statistics", get(statistics))
        .route("/reset", post(reset))
        .route("/latency", post(latency));
    Router::new().nest(BASE_PATH, resources).nest("/control", control).with_state(Arc::clone(shared))
}

/// Counts a request, waits for the latency, and refuses a wrong token.
async fn answer(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let seen = &shared.seen;
    seen.requests.fetch_add(1, Relaxed);
    first(&seen.first_request);
    seen.in_flight_max.fetch_max(seen.in_flight.fetch_add(1, Relaxed) + 1, Relaxed);
    let is_page = request.uri().path().ends_with("/Users");
    let known = request.headers().get(AUTHORIZATION).is_some_and(|h| h.as_bytes() == shared.authorization.as_bytes());
    let latency = shared.latency_ms.load(Relaxed);
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    let response =
        if known { next.run(request).await } else { scim_error(StatusCode::UNAUTHORIZED, "The token is not valid.") };
    if is_page {
        first(&seen.first_page);
    }
    let length = axum::body::HttpBody::size_hint(response.body()).lower();
    seen.bytes.fetch_add(length, Relaxed);
    seen.in_flight.fetch_sub(1, Relaxed);
    seen.last_answer.store(now(), Relaxed);
    response
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_nanos()).expect("a clock before 2500")
}

fn first(time: &AtomicU64) {
    if time.load(Relaxed) == 0 {
        time.store(now(), Relaxed);
    }
}

async fn churn(State(shared): State<Arc<Shared>>, Query(churn): Query<Churn>) -> Response {
    Json(shared.directory.write().expect("no panic while changing").churn(&churn)).into_response()
}

async fn manifest(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.directory.read().expect("no panic while changing").manifest();
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

async fn statistics(State(shared): State<Arc<Shared>>) -> Response {
    let seen = &shared.seen;
    let of = |value: &AtomicU64| value.load(Relaxed);
    Json(json!({
        "requests": of(&seen.requests),
        "bytes": of(&seen.bytes),
        "first_request": of(&seen.first_request),
        "first_page": of(&seen.first_page),
        "last_answer": of(&seen.last_answer),
        "in_flight_max": of(&seen.in_flight_max),
    }))
    .into_response()
}

async fn reset(State(shared): State<Arc<Shared>>) {
    let Seen { requests, bytes, first_request, first_page, last_answer, in_flight_max, .. } = &shared.seen;
    for value in [requests, bytes, first_request, first_page, last_answer, in_flight_max] {
        value.store(0, Relaxed);
    }
}

#[derive(Deserialize)]
struct Latency {
    ms: u64,
}

async fn latency(State(shared): State<Arc<Shared>>, Query(latency): Query<Latency>) {
    shared.latency_ms.store(latency.ms, Relaxed);
}

async fn service_provider_config(State(shared): State<Arc<Shared>>) -> Response {
    let config = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": false},
        "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": false, "maxResults": shared.page},
        "changePassword": {"supported": false},
        "sort": {"supported": false},
        "etag": {"supported": false},
        "authenticationSchemes":
            [{"type": "oauthbearertoken", "name": "OAuth Bearer Token", "description": "A fixed token."}],
    });
    scim(StatusCode::OK, config.to_string().into())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    start_index: Option<i64>,
    count: Option<i64>,
}

impl ListQuery {
    fn body(&self, listing: &Listing, page: usize) -> Response {
        let start_index = usize::try_from(self.start_index.unwrap_or(1)).unwrap_or(1);
        let count = self.count.map(|count| usize::try_from(count).unwrap_or(0));
        let count = count.unwrap_or(page).min(page);
        scim(StatusCode::OK, listing.page(start_index.max(1), count, page))
    }
}

async fn list_users(State(shared): State<Arc<Shared>>, Query(query): Query<ListQuery>) -> Response {
    query.body(&shared.directory.read().expect("no panic while changing").users, shared.page)
}

async fn list_groups(State(shared): State<Arc<Shared>>, Query(query): Query<ListQuery>) -> Response {
    query.body(&shared.directory.read().expect("no panic while changing").teams, shared.page)
}

async fn one_user(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    one(&shared.directory.read().expect("no panic while changing").users, &id)
}

async fn one_group(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    one(&shared.directory.read().expect("no panic while changing").teams, &id)
}

fn one(listing: &Listing, id: &str) -> Response {
    let row = uuid::Uuid::parse_str(id).ok().and_then(|id| listing.index.get(&id));
    match row {
        Some(&row) => scim(StatusCode::OK, listing.rows[row].clone()),
        None => scim_error(StatusCode::NOT_FOUND, "No such resource."),
    }
}

fn scim_error(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
        "status": status.as_u16().to_string(),
        "detail": detail,
    });
    scim(status, body.to_string().into())
}

fn scim(status: StatusCode, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, "application/scim+json")], body).into_response()
}
