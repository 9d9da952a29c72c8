//! Requests to one SCIM endpoint: signed, paced, within limits, retried.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::Stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, ETAG, IF_NONE_MATCH, LOCATION};
use reqwest::{Response, StatusCode, redirect};
use rustls_platform_verifier::BuilderVerifierExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::address::{self, Allowed, CheckedResolver};
use super::advice::{Advice, PAUSE_MAX};
use super::auth::{Credential, Pass};
use super::budget::{Budget, Permit, Tries};
use super::envelope;
use super::error::{self, ReadError};
use super::listing::{self, PAGES_MAX, Query, Remembered};
use super::probe::{self, Advertised};
use super::profile::{Memberships, Operation, Profile};
use super::resource::{self, Reading, Resource, Unreadable};
use super::value;
use crate::account::MAX_PRINCIPALS;
use crate::directory::{AttributeList, Id, Kind, Observed, Principal, Readable};
use crate::failpoint::{self, Point};
use crate::retry::Waits;
use crate::source::{Answer, Directory, Page, Parsed, RawRow};
use crate::telemetry::Metric;

/// Decompressed bytes of one body; a group of 250,000 members is about 40 MB.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Decompressed bytes of an answer that is neither a list nor a group: a user, a ServiceProviderConfig.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer that is an error: its `scimType` is all that is read of it.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Media type of bodies (RFC 7644 §3.8).
const SCIM_JSON: &str = "application/scim+json";

/// How patient a client is. The default suits vendors; tests are in a hurry.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a connection stands.
    pub connect: Duration,
    /// Longest silence, before the first byte of an answer and inside its body.
    pub silence: Duration,
    /// One request, from connect to the last byte: also of a server that is slow but never silent.
    pub request: Duration,
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
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            request: Duration::from_secs(180),
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
    /// What the server turned out to do, as long as this client lives.
    pub(super) advertised: Arc<OnceLock<Option<Advertised>>>,
    /// The server's clock minus ours as last seen, milliseconds.
    skew: Arc<AtomicI64>,
    /// What the server last said of its own accord.
    last: Arc<Mutex<Option<LastAnswer>>>,
    /// Whose requests these are, for logs and metrics.
    account: Arc<str>,
    /// Bodies that may be large at once: several GETs are under way, each of which may bring a group of any size.
    large: Arc<Semaphore>,
    pub(super) remembered: Remembered,
}

/// The newest answer: what a person should be told who waits in vain for the next one.
#[derive(Clone, Copy, Debug)]
pub struct LastAnswer {
    /// HTTP status.
    pub status: u16,
    /// How long it asked to wait, if it did.
    pub wait: Option<Duration>,
}

struct Shared {
    http: reqwest::Client,
    base_url: Url,
    credential: Credential,
    /// Of the credential as it is now.
    budget: Mutex<Arc<Budget>>,
    profile: Profile,
    patience: Patience,
    /// Milliseconds since 1970-01-01 UTC.
    now: fn() -> i64,
}

/// Everything but the unreserved characters of RFC 3986 §2.3: ids hold slashes, percent signs and worse.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What came back: status, body and the server's clock.
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
    /// Held while the body is, if it is large.
    _large: Option<OwnedSemaphorePermit>,
    /// RFC 9110 §8.8.3.
    pub etag: Option<String>,
    /// The server's `Date` minus our clock, milliseconds.
    pub skew: Option<i64>,
    pub received_at: i64,
}

impl Client {
    /// # Errors
    /// A base URL that must not be asked, or a TLS set-up that fails.
    pub fn new(
        base_url: Url,
        credential: Credential,
        profile: Profile,
        allow_private: bool,
        now: fn() -> i64,
    ) -> Result<Client, ReadError> {
        Client::with_patience(base_url, credential, profile, allow_private, now, Patience::default())
    }

    /// # Errors
    /// As [`Client::new`].
    pub fn with_patience(
        base_url: Url,
        credential: Credential,
        profile: Profile,
        allow_private: bool,
        now: fn() -> i64,
        patience: Patience,
    ) -> Result<Client, ReadError> {
        let http = http_client(&base_url, allow_private, patience)?;
        let budget = Mutex::new(Budget::shared(credential.key(&base_url), &profile.rate_limits, None));
        let shared = Arc::new(Shared { http, base_url, credential, budget, profile, patience, now });
        Ok(Client {
            shared,
            advertised: Arc::default(),
            skew: Arc::default(),
            last: Arc::default(),
            account: Arc::default(),
            large: Arc::new(Semaphore::new(LARGE_BODIES_MAX)),
            remembered: Remembered::default(),
        })
    }

    /// Reads the secret anew, so that a rotated one takes effect.
    ///
    /// # Errors
    /// It cannot be read or used.
    pub fn reread_secret(&mut self) -> Result<(), ReadError> {
        if self.shared.credential.reread()? {
            self.follow_credential();
            // Another secret may lead to another directory: nothing that was seen of this one counts.
            (self.advertised, self.skew) = (Arc::default(), Arc::default());
            self.remembered = Remembered::default();
        }
        Ok(())
    }

    /// Says in logs and metrics whose requests these are.
    #[must_use]
    pub fn for_account(self, account: &str) -> Client {
        Client { account: account.into(), ..self }
    }

    fn budget(&self) -> Arc<Budget> {
        self.shared.budget.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A rotated secret may be in use elsewhere already.
    fn follow_credential(&self) {
        let Shared { credential, base_url, profile, budget, .. } = &*self.shared;
        let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        *budget = Budget::shared(credential.key(base_url), &profile.rate_limits, Some(&budget));
    }

    pub fn profile(&self) -> &Profile {
        &self.shared.profile
    }

    pub fn patience(&self) -> &Patience {
        &self.shared.patience
    }

    /// `base/Users/…`: URLs are only ever built from the configured base (never from bodies).
    pub fn url(&self, parts: &[&str], query: &[(&str, String)]) -> Url {
        let mut url = self.shared.base_url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let tail = parts.iter().map(|part| utf8_percent_encode(part, RESERVED).to_string());
        url.set_path(&format!("{base}/{}", tail.collect::<Vec<_>>().join("/")));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// `base/Users`, or `base/Users/` where the profile says so: some servers redirect from the one to the other.
    pub fn list_url(&self, kind: Kind, query: &[(&str, String)]) -> Url {
        let path = self.profile().path(kind);
        let mut parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        if path.ends_with('/') {
            parts.push("");
        }
        self.url(&parts, query)
    }

    /// `base/Users/ID`.
    pub fn resource_url(&self, kind: Kind, id: &str, query: &[(&str, String)]) -> Url {
        let path = self.profile().path(kind).trim_end_matches('/');
        let parts: Vec<&str> = path.split('/').chain([id]).collect();
        self.url(&parts, query)
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
        let operation = self.operation(&request.url);
        let mut turn = self.budget().turn();
        let mut tries = Tries::new(
            Waits::bounded(patience.throttled_tries, patience.throttled_wait, patience.longest_wait),
            Waits::bounded(patience.tries, patience.first_wait, patience.longest_wait),
        );
        let mut renewed = false;
        loop {
            let permit = turn.permit(operation).await?;
            let answered = self.send_once(&request, permit).await;
            let advice = match &answered {
                Ok(Answered { reply, pass, .. }) if reply.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = credential.renew(pass).await;
                    if !renewed {
                        return answered.map(|answered| answered.reply);
                    }
                    self.follow_credential();
                    continue;
                }
                Ok(Answered { reply, advice, .. }) if worth_another_try(reply.status) => Some(advice),
                Err(error) if matches!(error.code, error::UNREACHABLE | error::UNAVAILABLE) => None,
                _ => return answered.map(|answered| answered.reply),
            };
            if !tries.another(&turn, advice).await {
                return answered.map(|answered| answered.reply);
            }
        }
    }

    async fn send_once(&self, request: &Request, permit: Permit) -> Result<Answered, ReadError> {
        let Shared { http, credential, profile, patience, now, .. } = &*self.shared;
        let pass = credential.pass().await?;
        let sending = match &request.body {
            None => http.get(request.url.clone()),
            Some(body) => http.post(request.url.clone()).header(CONTENT_TYPE, SCIM_JSON).body(body.to_string()),
        };
        let sending = match &request.if_none_match {
            Some(etag) => sending.header(IF_NONE_MATCH, etag),
            None => sending,
        };
        let sending = credential.sign(sending, &pass).header(ACCEPT, &profile.accept);
        failpoint::hit(Point::FetchBefore);
        let response = sending.send().await.map_err(|error| transport(&error, false))?;
        let received_at = now();
        let status = response.status();
        let advice = Advice::read(status, response.headers(), received_at).at_most(patience.longest_pause);
        permit.answered(&advice);
        self.note(status, &advice);
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(self.redirected(&request.url, &response));
        }
        let skew = header_time(&response, DATE).map(|at| at - received_at);
        self.skew.store(skew.unwrap_or(0), Ordering::Relaxed);
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let (body, large) = match self.operation(&request.url) {
            _ if !status.is_success() => (read_error_body(response).await, None),
            Some(Operation::ListUsers | Operation::ListGroups | Operation::GetGroup) => {
                read_body(response, BODY_BYTES_MAX, Some(&self.large)).await?
            }
            Some(Operation::GetUser) | None => read_body(response, ANSWER_BYTES_MAX, None).await?,
        };
        failpoint::hit(Point::FetchAfter);
        Ok(Answered { reply: Reply { status, body, _large: large, etag, skew, received_at }, advice, pass })
    }

    /// A vendor that throttles is not a failure, and takes time: a person has to be able to see why.
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
            tracing::warn!(account, status, wait_s, "the directory asked to wait {wait_s} s, HTTP {status}");
        }
    }

    /// Redirects are never followed. One that only adds a slash can be cured by the profile.
    fn redirected(&self, url: &Url, response: &Response) -> ReadError {
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let target = location.and_then(|location| url.join(location).ok());
        let slashed = target.is_some_and(|target| target.path() == format!("{}/", url.path()));
        let list = Kind::BOTH.into_iter().find(|kind| self.list_url(*kind, &[]).path() == url.path());
        let text = match list.filter(|_| slashed) {
            Some(kind) => {
                let field = if kind == Kind::User { "users_path" } else { "groups_path" };
                format!(
                    "the server redirects to the same address with a slash (HTTP {status}); \
                     → [account.profile] {field} = \"{}/\"",
                    self.profile().path(kind)
                )
            }
            None => format!(
                "the server redirects (HTTP {status}), and scimtail never follows; → set base_url to the final address"
            ),
        };
        ReadError { status: Some(status), ..ReadError::new(error::REDIRECTED, text) }
    }

    /// What a URL of [`Client::url`] asks for, as rate limits tell requests apart.
    fn operation(&self, url: &Url) -> Option<Operation> {
        Kind::BOTH.into_iter().find_map(|kind| {
            let list = self.list_url(kind, &[]);
            let below = url.path().strip_prefix(list.path().trim_end_matches('/'))?;
            let (lists, gets) = match kind {
                Kind::User => (Operation::ListUsers, Operation::GetUser),
                Kind::Group => (Operation::ListGroups, Operation::GetGroup),
            };
            match below {
                // POST /.search (RFC 7644 §3.4.3).
                "" | "/" | "/.search" => Some(lists),
                _ => below.starts_with('/').then_some(gets),
            }
        })
    }
}

/// GET, or POST where there is a body.
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
}

/// Rows that are asked for at once to find out what a list does.
const ONE_PAGE_MAX: u64 = 10_000;

/// Waits that are asked for and shorter than this are not worth a line.
const WAIT_LOGGED: Duration = Duration::from_secs(5);

/// How long clients that are made share a TLS configuration. Each one of its own would be a quarter of a megabyte of
/// certificates that this machine trusts; one for ever would never know those that are installed later.
const TLS_SHARED: Duration = Duration::from_secs(60);

/// The TLS configuration of the clients that are made now.
///
/// # Errors
/// No certificate that this machine trusts can be read.
fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    static SHARED: Mutex<Option<(Instant, rustls::ClientConfig)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, config)) = shared.as_ref().filter(|(made, _)| made.elapsed() < TLS_SHARED) {
        return Ok(config.clone());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_platform_verifier()?.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    *shared = Some((Instant::now(), config.clone()));
    Ok(config)
}

/// An HTTP client that goes only where `url` may lead.
///
/// # Errors
/// A URL that must not be asked, or a TLS set-up that fails.
pub(super) fn http_client(url: &Url, allow_private: bool, patience: Patience) -> Result<reqwest::Client, ReadError> {
    let unusable = |text: String| ReadError::new(error::UNREACHABLE, text);
    let allowed = Allowed { private: allow_private, loopback: address::is_loopback(url) };
    if url.scheme() != "https" && !allowed.loopback {
        return Err(unusable("only https is used off this machine".to_owned()));
    }
    let literal = match url.host() {
        Some(url::Host::Ipv4(ip)) => Some(ip.into()),
        Some(url::Host::Ipv6(ip)) => Some(ip.into()),
        _ => None,
    };
    if let Some(Err(reason)) = literal.map(|ip| allowed.check(ip)) {
        return Err(unusable(format!("the URL leads to {reason}")));
    }
    let tls = tls().map_err(|error| unusable(format!("TLS cannot be set up on this machine: {error}")))?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("scimtail/", env!("CARGO_PKG_VERSION")))
        // A redirect could carry the token to another host (G11).
        .redirect(redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(CheckedResolver(allowed)))
        .connect_timeout(patience.connect)
        .read_timeout(patience.silence)
        .timeout(patience.request)
        .build()
        .map_err(|_| unusable("the HTTP client cannot be set up (TLS)".to_owned()))
}

fn worth_another_try(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// Up to here a body grows by doubling; a larger one gets all the room that it may need at once. Room that is not
/// written to is not memory, and doubling 32 MiB would hold them twice over.
const GROWN_BYTES_MAX: usize = 4 << 20;

/// Bodies of one account that may be larger than that at once.
const LARGE_BODIES_MAX: usize = 2;

/// Reads a body within its limit, counting decompressed bytes. `large`: where a large one waits for its turn.
pub(super) async fn read_body(
    mut response: Response,
    bytes_max: usize,
    large: Option<&Arc<Semaphore>>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ReadError> {
    let mut permit = None;
    // Growing a page of megabytes chunk by chunk would copy it several times over.
    let stated = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = Vec::with_capacity(stated.min(bytes_max).min(GROWN_BYTES_MAX));
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error, !body.is_empty()))? {
        if body.len() + chunk.len() > bytes_max {
            let text = format!("the body is larger than {} MiB", bytes_max >> 20);
            return Err(ReadError::new(error::TOO_LARGE, text));
        }
        if body.len() > GROWN_BYTES_MAX && permit.is_none() {
            permit = match large {
                Some(large) => large.clone().acquire_owned().await.ok(),
                None => None,
            };
        }
        if body.len() + chunk.len() > body.capacity() && body.len() > GROWN_BYTES_MAX {
            body.reserve_exact(bytes_max - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body.into(), permit))
}

/// The beginning of an error's body; what cannot be read of it says nothing.
async fn read_error_body(mut response: Response) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES_MAX - body.len())]);
        if body.len() == ERROR_BYTES_MAX {
            break;
        }
    }
    body.into()
}

/// Says what went wrong in our words: error texts of the library may hold the URL. `in_body`: an answer had begun.
pub(super) fn transport(error: &reqwest::Error, in_body: bool) -> ReadError {
    let causes = || std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let said = |words: &str| causes().any(|cause| cause.to_string().contains(words));
    let broke_off = || {
        let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        let by_kind = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|error| ended.contains(&error.kind()))
        };
        causes().any(by_kind) || said("connection closed") || said("end of file") || said("unexpected EOF")
    };
    let text = if error.is_timeout() {
        "the server did not answer in time"
    } else if said("the name leads to") {
        "the host name leads to an address that is not allowed (allow_private = true permits private ranges)"
    } else if said("dns error") || said("failed to lookup") {
        "the host name cannot be resolved"
    } else if said("certificate") || said("invalid peer") {
        "the server's TLS certificate is not trusted by this machine; \
         → install the CA that issued it (a private CA: SSL_CERT_FILE names a file that holds it)"
    } else if said("Connection refused") {
        "nothing listens at this address (connection refused)"
    } else if error.is_connect() {
        "no connection to the server"
    } else if (in_body || error.is_body() || error.is_decode()) && broke_off() {
        "the connection was closed in the middle of the body"
    } else if error.is_decode() {
        "the body cannot be decompressed"
    } else {
        "the connection broke"
    };
    ReadError::new(error::UNREACHABLE, text)
}

fn header_time(response: &Response, name: reqwest::header::HeaderName) -> Option<i64> {
    let text = response.headers().get(name)?.to_str().ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// What a status other than 200 means for a list, in words with a remedy. Nothing of the server's own text is said.
pub fn refusal(reply: &Reply, profile: &Profile, kind: Kind) -> ReadError {
    let code = reply.status.as_u16();
    let no_groups =
        (kind == Kind::Group).then_some("where this directory serves no groups: [account.profile] groups = false");
    let no_list = |otherwise: &str| match (no_groups, profile.no_list_hint.as_deref()) {
        (Some(hint), _) => hint.to_owned(),
        (None, hint) => hint.unwrap_or(otherwise).to_owned(),
    };
    let (error_code, text) = match code {
        400 | 403 | 413 if wants_a_filter(&reply.body) => (
            error::HTTP_STATUS,
            format!(
                "the server does not list without a filter (HTTP {code}, scimType tooMany or invalidFilter); \
                 → scimtail reads whole lists: ask the vendor for an endpoint that lists everybody"
            ),
        ),
        400 => {
            let remedy = no_groups.unwrap_or("ask the vendor which parameters its lists take");
            (error::HTTP_STATUS, format!("the server refuses the list (HTTP 400); → {remedy}"))
        }
        401 => (
            error::REFUSED,
            format!("401: {} refused the {}; → {}", profile.title, profile.auth.noun(), profile.token_hint),
        ),
        403 => {
            let groups = no_groups.map(|hint| format!("; {hint}")).unwrap_or_default();
            let text = format!("403: the credentials may not read this list; → {}{groups}", profile.token_hint);
            (error::REFUSED, text)
        }
        404 => {
            let remedy = no_list("check base_url: it usually ends in /scim/v2");
            (error::HTTP_STATUS, format!("404: there is no SCIM list at this address; → {remedy}"))
        }
        405 | 501 => {
            let remedy = no_list("this endpoint does not list, and scimtail cannot read it");
            (error::HTTP_STATUS, format!("{code}: listing is refused; → {remedy}"))
        }
        406 => (
            error::HTTP_STATUS,
            "406: the server does not answer in the form asked for; \
             → [account.profile] accept = \"application/json\", or accept = \"*/*\""
                .to_owned(),
        ),
        429 => (error::UNAVAILABLE, "429: the vendor's rate limit is used up; → a longer interval".to_owned()),
        500.. => (error::UNAVAILABLE, format!("the server answers HTTP {code}; → try later, or ask the vendor")),
        _ => (error::HTTP_STATUS, format!("the server answers HTTP {code}")),
    };
    ReadError { status: Some(code), ..ReadError::new(error_code, text) }
}

/// True for a SCIM error by which a server demands a filter (RFC 7644 §3.12).
fn wants_a_filter(body: &[u8]) -> bool {
    envelope::scim_type(body).is_some_and(|said| matches!(said.as_str(), "toomany" | "invalidfilter"))
}

/// A directory as the pipeline sees it.
#[derive(Clone)]
pub struct ScimDirectory {
    pub client: Client,
    pub reading: Reading,
}

impl ScimDirectory {
    pub fn new(client: Client, attributes: AttributeList) -> ScimDirectory {
        let Profile { absent_active, memberships, .. } = client.profile();
        let reading = Reading {
            attributes,
            absent_active: *absent_active,
            groups_on_user: *memberships == Memberships::User,
            paths: Kind::BOTH.map(|kind| client.profile().path(kind).to_owned()),
        };
        ScimDirectory { client, reading }
    }

    /// A filter in the server's own time, as far as its clock is known.
    fn modified_since(&self, since: i64) -> String {
        let at = jiff::Timestamp::from_millisecond(since.saturating_add(self.client.skew.load(Ordering::Relaxed)));
        format!("meta.lastModified ge \"{}\"", at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }

    /// The parameter that asks for the account's attributes only, where the profile wants that (RFC 7644 §3.9).
    pub(super) fn attributes_asked_for(&self, kind: Kind, by_get: bool) -> Option<(&'static str, String)> {
        self.client.profile().request_attributes.then(|| ("attributes", self.requested(kind, by_get)))
    }

    /// The attributes to ask for: what may leave the process, and what decides. A GET asks for what its list does, or
    /// what is served on request only would be missing from it; and for members wherever they decide.
    fn requested(&self, kind: Kind, by_get: bool) -> String {
        let decides: &[&str] = match (kind, self.client.profile().memberships) {
            (Kind::User, Memberships::User) => &["id", "active", "groups"],
            (Kind::User, _) => &["id", "active"],
            (Kind::Group, Memberships::List | Memberships::Auto) => &["id", "members"],
            (Kind::Group, Memberships::Get) if by_get => &["id", "members"],
            (Kind::Group, _) => &["id"],
        };
        let listed = self.reading.attributes.paths().iter().map(String::as_str);
        let listed = listed
            .filter(|path| kind == Kind::User || is_of_groups(path))
            .filter(|path| !decides.iter().any(|name| name.eq_ignore_ascii_case(path)));
        decides.iter().copied().chain(listed).collect::<Vec<_>>().join(",")
    }
}

/// Attributes that a group has as well (RFC 7643 §3.1, §4.2); a strict server refuses to be asked for others.
fn is_of_groups(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["displayname", "externalid"].contains(&path.as_str()) || path.starts_with("meta.")
}

impl Directory for ScimDirectory {
    type Error = ReadError;

    fn list(&self, kind: Kind, since: Option<i64>) -> impl Stream<Item = Result<Page, ReadError>> + Send {
        let attributes = self.attributes_asked_for(kind, false).map(|(_, attributes)| attributes);
        listing::pages(
            self.client.clone(),
            Query { kind, filter: since.map(|since| self.modified_since(since)), attributes },
        )
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        if row.bytes.is_empty() {
            self.client.remembered.forget();
            return Parsed::Stale;
        }
        parse_row(kind, page, row, &self.reading)
    }

    async fn get(&self, kind: Kind, id: &Id) -> Answer {
        let query: Vec<(&str, String)> = self.attributes_asked_for(kind, true).into_iter().collect();
        let reply = match self.client.get(self.client.resource_url(kind, id, &query)).await {
            Ok(reply) => reply,
            Err(error) => return Answer::Unproven(error.text),
        };
        match reply.status.as_u16() {
            200 => {
                let body = envelope::utf_8(&reply.body).unwrap_or_default();
                if value::id_of(&body).as_ref() != Some(id) {
                    return Answer::Unproven("HTTP 200 without the id that was asked for".to_owned());
                }
                let row = envelope::raw_row(body);
                let page = Page { skew: reply.skew, received_at: reply.received_at, ..Page::default() };
                match self.read(kind, &page, &row) {
                    Parsed::Resource(observed) => Answer::Found(observed),
                    Parsed::NoId | Parsed::Stale => Answer::Unproven("a body that cannot be read".to_owned()),
                }
            }
            404 | 410 => Answer::NotFound,
            403 => Answer::Forbidden,
            405 | 501 => Answer::NotOffered,
            status => Answer::Unproven(format!("HTTP {status}")),
        }
    }

    async fn in_one_page(&self, kind: Kind, count: u64) -> Option<Vec<RawRow>> {
        if count > ONE_PAGE_MAX {
            return None;
        }
        let mut query = vec![("startIndex", "1".to_owned()), ("count", count.to_string())];
        query.extend(self.attributes_asked_for(kind, false));
        let page = probe::list(&self.client, kind, &query).await.ok()?;
        Some(page.rows)
    }

    async fn matching(&self, kind: Kind, attribute: &'static str, id: &Id) -> Result<Vec<Id>, ReadError> {
        // A JSON text is a filter's text (RFC 7644 §3.4.2.2): quotes in ids are escaped the same way.
        let filter = format!("{attribute} eq {}", Value::String(id.to_string()));
        listing::matching(&self.client, kind, filter).await
    }
}

/// A row as read, or what is left of it.
pub fn parse_row(kind: Kind, page: &Page, row: &RawRow, reading: &Reading) -> Parsed {
    match resource::read_resource(kind, &row.bytes, reading) {
        Ok(resource) => Parsed::Resource(Box::new(observed(resource, page, row))),
        Err(Unreadable { id: Some(id) }) => Parsed::Resource(Box::new(only_id(id, page, row))),
        Err(Unreadable { id: None }) => Parsed::NoId,
    }
}

/// A resource as read, with when and how it was looked at.
fn observed(resource: Resource, page: &Page, row: &RawRow) -> Observed {
    let skew = page.skew.unwrap_or(0);
    let readable =
        if resource.unreadable.is_empty() { Readable::Whole } else { Readable::Without(resource.unreadable) };
    Observed {
        modified_at: resource.principal.last_modified.map(|modified| modified - skew),
        principal: resource.principal,
        raw: row.hash,
        members: resource.members,
        groups: resource.groups,
        observed_at: page.received_at,
        readable,
        composed_name: resource.composed_name,
        other_members: resource.other_members,
    }
}

/// A row of which nothing but its id can be read.
fn only_id(id: Id, page: &Page, row: &RawRow) -> Observed {
    Observed {
        principal: Principal::new(id),
        raw: row.hash,
        members: Vec::new(),
        groups: Vec::new(),
        observed_at: page.received_at,
        modified_at: None,
        readable: Readable::IdOnly,
        composed_name: false,
        other_members: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Method, Response};
    use secrecy::SecretString;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    fn client(base_url: &str, groups_path: &str) -> Client {
        let mut profile = Profile::named("generic").unwrap();
        profile.groups_path = groups_path.to_owned();
        let credential = Credential::bearer(SecretString::from(base_url.to_owned())).unwrap();
        Client::new(Url::parse(base_url).unwrap(), credential, profile, false, || 0).unwrap()
    }

    #[test]
    fn a_url_tells_which_rate_limit_counts_it() {
        let client = client("https://acme.example/scim/v2", "Roles");
        for (parts, expected) in [
            (["Users"].as_slice(), Some(Operation::ListUsers)),
            (&["Users", ".search"], Some(Operation::ListUsers)),
            (&["Users", "a/b c"], Some(Operation::GetUser)),
            (&["Roles"], Some(Operation::ListGroups)),
            (&["Roles", "1"], Some(Operation::GetGroup)),
            (&["Groups"], None),
            (&["UsersToo"], None),
            (&["ServiceProviderConfig"], None),
        ] {
            let url = client.url(parts, &[("filter", "userName eq \"Roles\"".to_owned())]);
            assert_eq!(client.operation(&url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn a_request_that_was_throttled_is_repeated_as_it_was_after_the_wait_asked_for() {
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
        let client = client(&base_url, "Groups");
        let started = Instant::now();
        let url = client.url(&["Users", ".search"], &[]);
        let reply = client.post(url, serde_json::json!({ "count": 1 })).await.unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.body), (200, b"{\"count\":1}".as_slice()));
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
