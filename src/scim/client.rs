//! Requests to one SCIM endpoint: signed, paced, within limits, retried.

use crate::directory::ReasonCode;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH, LOCATION};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;
use xxhash_rust::xxh3::xxh3_128;

use super::advice::{Advice, PAUSE_MAX};
use super::auth::{Credential, Pass};
use super::budget::{Budget, Permit, Tries};
use super::error::ReadError;
use super::http::{self, Bodies, Body, Http, Reach, Timeouts, read_body, read_error_body};
use super::profile::{Operation, Profile};
use super::refusal::redirected;
use super::tape::Tape;
use super::urls::Urls;
use crate::account::MAX_PRINCIPALS;
use crate::failpoint::{self, Point};
use crate::retry::Waits;
use crate::telemetry::{Answer, Metric, Waited, requested};

/// Decompressed bytes of one body; a group of 250,000 members is about 40 MB.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Decompressed bytes of an answer that is neither a list nor a group: a user, a ServiceProviderConfig.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Pages of one walk: a million rows at ten a page, and an end to servers that invent rows for ever.
pub const PAGES_MAX: usize = 100_000;
/// Nonces that one request takes over (RFC 9449 §9). A directory may give a new one with each answer, also to the
/// requests beside it.
const NONCES_MAX: u32 = 3;
/// Waits that are asked for and shorter than this are not worth a line.
const WAIT_LOGGED: Duration = Duration::from_secs(5);
/// Media type of bodies (RFC 7644 §3.8).
const SCIM_JSON: &str = "application/scim+json";

/// How patient a client is. The default suits vendors; tests are in a hurry.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Of one try.
    pub timeouts: Timeouts,
    /// Tries of one request, the first included.
    pub tries: u32,
    /// Before the second try; later waits grow.
    pub first_wait: Duration,
    /// Longest wait between two tries.
    pub longest_wait: Duration,
    /// Tries of one request that are answered 429, the first included.
    pub throttled_tries: u32,
    /// After a 429 that does not say how long to wait; later waits grow, up to the longest.
    pub throttled_wait: Duration,
    /// Pages of one walk: an end to servers that invent rows for ever.
    pub pages: usize,
    /// Longest pause that a server gets by asking for it (Retry-After, RateLimit-Reset).
    pub longest_pause: Duration,
    /// Rows that one filter may find: as many principals as the directory may have.
    pub rows: usize,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            timeouts: Timeouts::default(),
            tries: 4,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            throttled_tries: 8,
            throttled_wait: Duration::from_secs(5),
            pages: PAGES_MAX,
            longest_pause: PAUSE_MAX,
            rows: MAX_PRINCIPALS,
        }
    }
}

/// One endpoint and how it is asked. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// The server's clock minus ours as last seen, milliseconds.
    skew: Arc<AtomicI64>,
    /// What the server last said of its own accord.
    last: Arc<Mutex<Option<LastAnswer>>>,
    /// The account whose requests these are, for metrics.
    account: Arc<str>,
    waited: Arc<Waited>,
    /// Requests that were sent, repeated ones included.
    sent: Arc<AtomicU64>,
    bodies: Bodies,
    /// Where requests and answers are written down, for a recording.
    tape: Option<Tape>,
    /// Of the secret under which all that is remembered of the directory was seen. A 401 may have brought a newer one.
    secret_number: u64,
}

/// The newest answer, shown to a person who waits in vain for the next one.
#[derive(Clone, Copy, Debug)]
pub struct LastAnswer {
    /// HTTP status.
    pub status: u16,
    /// How long it asked to wait, if it did.
    pub wait: Option<Duration>,
}

struct Shared {
    http: Http,
    urls: Urls,
    credential: Credential,
    /// Of the credential as it is now.
    budget: Mutex<Arc<Budget>>,
    profile: Arc<Profile>,
    patience: Patience,
    /// Milliseconds since 1970-01-01 UTC.
    now: fn() -> i64,
}

/// What came back: status, body and the server's clock.
pub struct Reply {
    pub status: StatusCode,
    pub body: Body,
    pub headers: HeaderMap,
    /// The server's `Date` minus our clock, milliseconds.
    pub skew: Option<i64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub received_at: i64,
}

impl Reply {
    /// RFC 9110 §8.8.3.
    pub fn etag(&self) -> Option<String> {
        self.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned)
    }
}

impl Client {
    /// # Errors
    /// A base URL that must not be asked, or a TLS set-up that fails.
    pub fn new(
        base_url: Url,
        credential: Credential,
        profile: impl Into<Arc<Profile>>,
        reach: &Reach,
        now: fn() -> i64,
    ) -> Result<Client, ReadError> {
        Client::with_patience(base_url, credential, profile, reach, now, Patience::default())
    }

    /// # Errors
    /// As [`Client::new`].
    pub fn with_patience(
        base_url: Url,
        credential: Credential,
        profile: impl Into<Arc<Profile>>,
        reach: &Reach,
        now: fn() -> i64,
        patience: Patience,
    ) -> Result<Client, ReadError> {
        let profile = profile.into();
        let http = Http::to(&base_url, reach, patience.timeouts)?;
        let budget =
            Mutex::new(Budget::shared(budget_key(&credential, &profile, &base_url), &profile.allowance(), None));
        let shared =
            Arc::new(Shared { http, urls: Urls::new(base_url, &profile), credential, budget, profile, patience, now });
        Ok(Client {
            shared,
            skew: Arc::default(),
            last: Arc::default(),
            account: Arc::default(),
            waited: Arc::default(),
            sent: Arc::default(),
            bodies: Bodies::new(),
            tape: None,
            secret_number: 0,
        })
    }

    /// Reads the secret again, so that a rotated one takes effect. True if it is another one: it may lead to another
    /// directory, so that nothing that was seen of this one counts.
    ///
    /// # Errors
    /// It cannot be read or used.
    pub fn reread_secret(&mut self) -> Result<bool, ReadError> {
        self.shared.credential.reread()?;
        let number = self.shared.credential.number();
        let changed = std::mem::replace(&mut self.secret_number, number) != number;
        if changed {
            self.follow_credential();
            self.skew = Arc::default();
        }
        Ok(changed)
    }

    /// Names the account whose requests these are in metrics.
    #[must_use]
    pub fn for_account(self, account: &str) -> Client {
        Client { account: account.into(), ..self }
    }

    /// Writes down what is asked and answered from here on.
    #[must_use]
    pub fn on_tape(self, tape: Tape) -> Client {
        Client { tape: Some(tape), ..self }
    }

    /// The same for the pages of a list, whose bodies take the memory of each other.
    #[must_use]
    pub(super) fn for_a_walk(&self) -> Client {
        Client { bodies: self.bodies.of_a_walk(), ..self.clone() }
    }

    fn budget(&self) -> Arc<Budget> {
        self.shared.budget.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A rotated secret may be in use elsewhere already.
    fn follow_credential(&self) {
        let Shared { credential, urls, profile, budget, .. } = &*self.shared;
        let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        *budget = Budget::shared(budget_key(credential, profile, urls.base()), &profile.allowance(), Some(&budget));
    }

    pub fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    pub fn urls(&self) -> &Urls {
        &self.shared.urls
    }

    pub fn patience(&self) -> &Patience {
        &self.shared.patience
    }

    /// The server's clock minus ours as last seen, milliseconds; 0 if it does not state its time.
    pub fn skew(&self) -> i64 {
        self.skew.load(Ordering::Relaxed)
    }

    /// Requests that were sent so far, repeated ones included.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The newest answer, whatever it was.
    pub fn last_answer(&self) -> Option<LastAnswer> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// GET, retried within bounds where another try may help (transport errors, 401, 429, 5xx).
    ///
    /// # Errors
    /// Transport errors, redirects, bodies beyond the limit, no access token; a status is a reply, not an error.
    pub async fn get(&self, url: Url) -> Result<Reply, ReadError> {
        self.send(Request { url, body: None, if_none_match: None }).await
    }

    /// GET of what may be unchanged (RFC 9110 §13.1.2): then the reply is 304 without a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_if_changed(&self, url: Url, etag: Option<String>) -> Result<Reply, ReadError> {
        self.send(Request { url, body: None, if_none_match: etag }).await
    }

    /// POST of a JSON body that only asks (`.search`), retried as [`Client::get`].
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, url: Url, body: Value) -> Result<Reply, ReadError> {
        self.send(Request { url, body: Some(body), if_none_match: None }).await
    }

    /// Sends a request that may be repeated, at the pace that its credential allows.
    async fn send(&self, request: Request) -> Result<Reply, ReadError> {
        let Shared { credential, patience, .. } = &*self.shared;
        let operation = self.urls().operation(&request.url);
        let mut turn = self.budget().turn();
        let mut tries = Tries::new(
            Waits::bounded(patience.throttled_tries, patience.throttled_wait, patience.longest_wait),
            Waits::bounded(patience.tries, patience.first_wait, patience.longest_wait),
        );
        let (mut renewed, mut nonces) = (false, 0);
        let mut waits_since = Instant::now();
        loop {
            let permit = turn.permit(operation).await;
            self.waited.add(&self.account, waits_since.elapsed());
            let permit = permit?;
            let answered = self.send_once(&request, permit).await;
            let advice = match &answered {
                // RFC 9449 §9: the proof was right, but for the nonce that this answer gives.
                Ok(Answered { reply, other_nonce: true, .. })
                    if reply.status == StatusCode::UNAUTHORIZED && nonces < NONCES_MAX =>
                {
                    nonces += 1;
                    waits_since = Instant::now();
                    continue;
                }
                Ok(Answered { reply, pass, .. }) if reply.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = credential.renew(pass).await;
                    if !renewed {
                        return answered.map(|answered| answered.reply);
                    }
                    self.follow_credential();
                    waits_since = Instant::now();
                    continue;
                }
                Ok(Answered { reply, advice, .. }) if worth_another_try(reply.status) => Some(advice),
                Err(error) if matches!(error.code, ReasonCode::Unreachable | ReasonCode::Unavailable) => None,
                _ => return answered.map(|answered| answered.reply),
            };
            waits_since = Instant::now();
            if !tries.another(&turn, advice).await {
                return answered.map(|answered| answered.reply);
            }
        }
    }

    async fn send_once(&self, request: &Request, permit: Permit) -> Result<Answered, ReadError> {
        let Shared { http, urls, credential, profile, patience, now, .. } = &*self.shared;
        let pass = credential.pass().await?;
        let sending = match &request.body {
            None => http.client.get(request.url.clone()),
            Some(body) => http.client.post(request.url.clone()).header(CONTENT_TYPE, SCIM_JSON).body(body.to_string()),
        };
        let sending = match &request.if_none_match {
            Some(etag) => sending.header(IF_NONE_MATCH, etag),
            None => sending,
        };
        let method = if request.body.is_some() { Method::POST } else { Method::GET };
        let sending = credential.sign(sending, &method, &request.url, &pass)?.header(ACCEPT, &profile.accept);
        failpoint::hit(Point::FetchBefore);
        self.sent.fetch_add(1, Ordering::Relaxed);
        let response = match sending.send().await {
            Ok(response) => response,
            Err(error) => {
                requested(&self.account, Answer::None);
                return Err(http.looked_into(&error, &request.url).await);
            }
        };
        let received_at = now();
        let status = response.status();
        let advice = Advice::read(status, response.headers(), received_at, profile.rate_share);
        let advice = advice.at_most(patience.longest_pause);
        permit.answered(&advice);
        self.note(status, &advice);
        let skew = http::date(&response).map(|at| at - received_at);
        let heard = self
            .tape
            .as_ref()
            .map(|tape| tape.heard(urls, (&request.url, request.body.as_ref()), (status, response.headers()), skew));
        let keep = |body: Option<&Body>| {
            if let (Some(tape), Some(heard)) = (&self.tape, heard) {
                tape.keep(heard, body.map(|body| &**body));
            }
        };
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            requested(&self.account, Answer::Status(status.as_u16()));
            keep(None);
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            return Err(redirected(urls, profile, &request.url, status, location));
        }
        self.skew.store(skew.unwrap_or(0), Ordering::Relaxed);
        let headers = response.headers().clone();
        let other_nonce = credential.follow_nonce(&pass, &headers);
        let body = match urls.operation(&request.url) {
            _ if !status.is_success() => Ok(read_error_body(response).await),
            Some(Operation::ListUsers | Operation::ListGroups | Operation::GetGroup | Operation::ListMembers) => {
                read_body(http, response, BODY_BYTES_MAX, Some(&self.bodies)).await
            }
            Some(Operation::GetUser) | None => read_body(http, response, ANSWER_BYTES_MAX, None).await,
        };
        requested(&self.account, if body.is_ok() { Answer::Status(status.as_u16()) } else { Answer::Broken });
        keep(body.as_ref().ok());
        let body = body?;
        failpoint::hit(Point::FetchAfter);
        Ok(Answered { reply: Reply { status, body, headers, skew, received_at }, advice, pass, other_nonce })
    }

    /// Counts and logs a vendor that throttles: it is not a failure, but it takes time, and a person has to see why.
    fn note(&self, status: StatusCode, advice: &Advice) {
        let answer = LastAnswer { status: status.as_u16(), wait: advice.wait };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        let account = &*self.account;
        if advice.throttled {
            Metric::Throttled.add(1, [("account", account)]);
        }
        if let Some(wait) = advice.wait.filter(|wait| *wait >= WAIT_LOGGED) {
            Metric::ThrottledSeconds.add(wait.as_secs(), [("account", account)]);
            let (status, wait_s) = (status.as_u16(), wait.as_secs());
            tracing::warn!(status, wait_s, "the directory asked to wait {wait_s} s, HTTP {status}");
        }
    }
}

/// GET, or POST if there is a body.
struct Request {
    url: Url,
    body: Option<Value>,
    if_none_match: Option<String>,
}

struct Answered {
    reply: Reply,
    advice: Advice,
    /// What the request was signed with.
    pass: Pass,
    /// The next proof has another nonce than that of this request.
    other_nonce: bool,
}

/// Which requests are counted together: those of one credential at one host, or all at one host.
fn budget_key(credential: &Credential, profile: &Profile, base_url: &Url) -> u128 {
    if profile.limits_per_host {
        xxh3_128(base_url.origin().ascii_serialization().as_bytes())
    } else {
        credential.key(base_url)
    }
}

fn worth_another_try(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Method, Response};
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
    use secrecy::SecretString;
    use tokio::task::JoinSet;

    use super::*;

    fn client(base_url: &str, groups_path: &str) -> Client {
        let mut profile = Profile::named("generic").unwrap();
        profile.groups_path = groups_path.to_owned();
        let credential = Credential::bearer(SecretString::from(base_url.to_owned())).unwrap();
        Client::new(Url::parse(base_url).unwrap(), credential, profile, &Reach::default(), || 0).unwrap()
    }

    #[test]
    fn requests_are_counted_for_each_credential_or_for_each_host_as_the_profile_says() {
        let url = |text: &str| Url::parse(text).unwrap();
        let credential = |token: &str| Credential::bearer(SecretString::from(token.to_owned())).unwrap();
        let (one, two) = (credential("one"), credential("two"));
        for (name, together) in [("generic", false), ("okta", true)] {
            let profile = Profile::named(name).unwrap();
            let key = |credential: &Credential, text: &str| budget_key(credential, &profile, &url(text));
            let (acme, other) = ("https://acme.example/a", "https://other.example/a");
            assert_eq!(key(&one, acme) == key(&two, acme), together, "{name}");
            assert!(key(&one, acme) == key(&one, "https://acme.example/b") && key(&one, acme) != key(&one, other));
        }
    }

    /// What the metrics say of the account `acme`.
    fn series(recorder: &PrometheusRecorder) -> impl Fn(&str, &str) -> u64 {
        let page = recorder.handle().render();
        move |metric, label| {
            let series = format!("scimtail_{metric}{{account=\"acme\"{label}}} ");
            page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
        }
    }

    #[tokio::test]
    async fn a_request_that_was_throttled_is_repeated_as_it_was_after_the_wait_asked_for() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _counting = metrics::set_default_local_recorder(&recorder);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let answer = move |method: Method, headers: reqwest::header::HeaderMap, body: String| async move {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(method == Method::POST && headers["content-type"] == "application/scim+json");
            let status = if first { 429 } else { 200 };
            Response::builder().status(status).header("retry-after", "1").body(Body::from(body)).unwrap()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/scim/v2", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        let client = client(&base_url, "Groups").for_account("acme");
        let started = Instant::now();
        let url = client.urls().of(&["Users", ".search"], &[]);
        let reply = client.post(url, serde_json::json!({ "count": 1 })).await.unwrap();
        assert_eq!((reply.status.as_u16(), &**reply.body), (200, b"{\"count\":1}".as_slice()));
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!(count.load(Ordering::Relaxed), 2);
        let value = series(&recorder);
        let requests = |outcome: &str| value("requests_total", &format!(",outcome=\"{outcome}\""));
        assert_eq!((requests("2xx"), requests("4xx"), value("throttled_total", "")), (1, 1, 1));
        assert_eq!(value("request_wait_seconds_total", ""), 1);
    }

    #[tokio::test]
    async fn a_request_without_an_answer_and_one_whose_answer_breaks_off_are_counted_apart() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let recorder = PrometheusBuilder::new().build_recorder();
        let _counting = metrics::set_default_local_recorder(&recorder);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = Url::parse(&format!("http://{}/scim/v2", listener.local_addr().unwrap())).unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let short = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort";
            let moved = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
            for answer in ["", short, moved] {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = [0; 4_096];
                assert!(connection.read(&mut request).await.unwrap() > 0);
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let credential = Credential::bearer(SecretString::from("counted apart")).unwrap();
        let profile = Profile::named("generic").unwrap();
        let patience = Patience { tries: 1, ..Patience::default() };
        let reach = Reach::default();
        let client = Client::with_patience(base_url, credential, profile, &reach, || 0, patience).unwrap();
        let client = client.for_account("acme");
        for _ in 0..3 {
            assert!(client.get(client.urls().of(&["Users"], &[])).await.is_err());
        }
        let value = series(&recorder);
        let requests = |outcome: &str| value("requests_total", &format!(",outcome=\"{outcome}\""));
        assert_eq!([requests("none"), requests("broken"), requests("3xx"), requests("2xx")], [1, 1, 1, 0]);
    }
}
