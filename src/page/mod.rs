//! The status page of the HTTP listener: the facts of `status`, rendered on the server. Read-only.

mod html;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::avro::Registry;
use crate::config::AccountConfig;
use crate::kafka::KafkaClient;
use crate::overview::{self, Facts, Following, Standing, overview};
use crate::progress::Board;
use html::{ICON, SCRIPT, STYLE, View};

/// For the first answer after a while without one.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The topics are read for so long after the last look.
const LOOKED_AT: Duration = Duration::from_secs(600);
/// Between two looks whether a page is still asked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Pages that are kept live at once. The listener takes more connections than that, so that others have room.
const STREAMS_MAX: usize = 32;
/// Between two renderings for one page while changes come in.
const RENDER_EVERY: Duration = Duration::from_secs(1);
/// A page without changes is rendered again after this time, because it says how long ago things were.
const RENDER_AFTER: Duration = Duration::from_secs(15);

/// Only what this listener serves, in no frame, and nothing that is written into the page itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page is made of.
pub struct Sources {
    pub kafka: KafkaClient,
    pub registry: Registry,
    /// As the configuration has them now.
    pub accounts: watch::Receiver<Vec<Arc<AccountConfig>>>,
    pub progress: Board,
    /// Milliseconds since 1970-01-01 UTC.
    pub clock: fn() -> i64,
}

struct Page {
    sources: Sources,
    /// What is read while people look, and when they last did.
    following: Mutex<Option<(Arc<Following>, Instant)>>,
    streams: Semaphore,
}

/// `/`, `/status`, and what the page needs. The future stops reading while no page is asked for; the caller runs it as
/// long as it serves the routes.
pub fn routes(sources: Sources) -> (Router, impl Future<Output = ()> + Send + 'static) {
    let page = Arc::new(Page { sources, following: Mutex::default(), streams: Semaphore::new(STREAMS_MAX) });
    let forgetting = forget(Arc::downgrade(&page));
    let file = |media_type, text: &'static str| get(move || async move { answer(StatusCode::OK, media_type, text) });
    let routes = Router::new()
        .route("/", get(document))
        .route("/live", get(live))
        .route("/status", get(status))
        .route("/icon.svg", file("image/svg+xml", ICON))
        .route("/page.css", file("text/css; charset=utf-8", STYLE))
        .route("/page.js", file("text/javascript; charset=utf-8", SCRIPT))
        .with_state(page);
    (routes, forgetting)
}

impl Page {
    /// What is read now; begins to read if nothing is, or if the accounts are no longer the same.
    fn following(&self) -> Arc<Following> {
        let accounts = self.sources.accounts.borrow().clone();
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *following {
            Some((present, looked)) if present.accounts == accounts => {
                *looked = Instant::now();
                present.clone()
            }
            _ => {
                let Sources { kafka, registry, clock, .. } = &self.sources;
                let new = Arc::new(Following::start(kafka, registry, accounts, clock()));
                *following = Some((new.clone(), Instant::now()));
                new
            }
        }
    }

    /// How the accounts stand. The topics do not say that the records of an account cannot be understood; the instance
    /// that owns the account knows.
    fn standings(&self, following: &Following, facts: &Facts, now: i64) -> Vec<Standing> {
        let mut seen = facts.seen.clone().unwrap_or_default();
        for (account, problem) in self.sources.progress.stopped() {
            seen.entry(account).or_default().stop(problem);
        }
        overview(&following.accounts, &seen, facts.group.as_ref(), now)
    }

    fn render(&self, following: &Following, whole: bool) -> String {
        let (facts, now) = (following.now(), (self.sources.clock)());
        let standings = self.standings(following, &facts, now);
        let progress = self.sources.progress.now();
        let view = View { standings: &standings, facts: &facts, progress: &progress, now };
        if whole { html::document(&view) } else { html::fragment(&view) }.into_string()
    }
}

/// Stops reading if no page was asked for in a while.
async fn forget(page: std::sync::Weak<Page>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(page) = page.upgrade() else { return };
        let mut following = page.following.lock().unwrap_or_else(PoisonError::into_inner);
        // A page that is live holds a clone.
        if following
            .as_ref()
            .is_some_and(|(present, looked)| Arc::strong_count(present) == 1 && looked.elapsed() > LOOKED_AT)
        {
            *following = None;
        }
    }
}

fn answer(status: StatusCode, media_type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let mut response = (status, body.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn document(State(page): State<Arc<Page>>) -> Response {
    let following = page.following();
    following.first(FIRST_WAIT).await;
    answer(StatusCode::OK, "text/html; charset=utf-8", page.render(&following, true))
}

async fn status(State(page): State<Arc<Page>>) -> Response {
    let following = page.following();
    following.first(FIRST_WAIT).await;
    let facts = following.now();
    if facts.seen.is_none() {
        let why = facts.problem.as_deref().unwrap_or("the topics are still being read");
        let body = json!({ "problem": why }).to_string();
        return answer(StatusCode::SERVICE_UNAVAILABLE, "application/json", body);
    }
    let standings = page.standings(&following, &facts, (page.sources.clock)());
    let accounts: Vec<Value> = standings.iter().map(overview::json).collect();
    let body = json!({ "accounts": accounts, "problem": facts.problem }).to_string();
    answer(StatusCode::OK, "application/json", body)
}

async fn live(State(page): State<Arc<Page>>) -> Response {
    if page.streams.available_permits() == 0 {
        let text = "too many pages are open; close one, or load this one again later\n";
        return answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", text);
    }
    let mut response = Sse::new(renderings(page)).keep_alive(KeepAlive::default()).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The page each time that it has changed.
fn renderings(page: Arc<Page>) -> impl Stream<Item = Result<Event, Infallible>> {
    async_stream::stream! {
        let Ok(_permit) = page.streams.try_acquire() else { return };
        let mut sent = String::new();
        loop {
            let following = page.following();
            let mut changes = following.changes();
            following.first(FIRST_WAIT).await;
            let rendered = page.render(&following, false);
            if rendered != sent {
                sent.clone_from(&rendered);
                yield Ok(Event::default().event("page").data(rendered));
            }
            tokio::time::sleep(RENDER_EVERY).await;
            drop(tokio::time::timeout(RENDER_AFTER, changes.changed()).await);
        }
    }
}
