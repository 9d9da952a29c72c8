//! Requests to one SCIM endpoint: credentials, limits, retries.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::address::{self, Allowed, CheckedResolver};
use super::error::{self, ReadError};
use super::listing::{self, Query};
use super::probe::{self, Advertised};
use super::profile::{Memberships, Profile};
use super::wire::{self, Reading};
use crate::directory::{AttributeList, Id, Kind, Observed, Strategy};
use crate::pipeline::{Answer, Directory, Page, RawRow};
use crate::retry::Waits;

/// Decompressed bytes of one body; a group of 250,000 members is about 40 MB.
pub const BODY_BYTES_MAX: usize = 64 << 20;
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
    /// Longest wait between two tries, whatever Retry-After asks for.
    pub longest_wait: Duration,
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
        }
    }
}

/// Where a credential comes from; read anew for each sync, so that a rotated one takes effect.
#[derive(Clone, Debug)]
pub enum Token {
    Env(String),
    File(std::path::PathBuf),
    /// Of the simulated directories of `demo` and of tests.
    Given(SecretString),
}

/// One endpoint and how it is asked. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// What the server turned out to do, as long as this client lives.
    pub(super) advertised: Arc<OnceLock<Option<Advertised>>>,
    pub(super) strategy: Arc<OnceLock<Strategy>>,
    /// The server's clock minus ours as last seen, milliseconds.
    skew: Arc<AtomicI64>,
}

struct Shared {
    http: reqwest::Client,
    base_url: Url,
    token: SecretString,
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
    /// The server's `Date` minus our clock, milliseconds.
    pub skew: Option<i64>,
    pub received_at: i64,
}

impl Client {
    /// # Errors
    /// A base URL that must not be asked, or a TLS set-up that fails.
    pub fn new(
        base_url: Url,
        token: SecretString,
        profile: Profile,
        allow_private: bool,
        now: fn() -> i64,
    ) -> Result<Client, ReadError> {
        Client::with_patience(base_url, token, profile, allow_private, now, Patience::default())
    }

    /// # Errors
    /// As [`Client::new`].
    pub fn with_patience(
        base_url: Url,
        token: SecretString,
        profile: Profile,
        allow_private: bool,
        now: fn() -> i64,
        patience: Patience,
    ) -> Result<Client, ReadError> {
        let unusable = |text: String| ReadError::new(error::UNREACHABLE, text);
        let allowed = Allowed { private: allow_private, loopback: address::is_loopback(&base_url) };
        if base_url.scheme() != "https" && !allowed.loopback {
            return Err(unusable("only https is used off this machine".to_owned()));
        }
        let literal = match base_url.host() {
            Some(url::Host::Ipv4(ip)) => Some(ip.into()),
            Some(url::Host::Ipv6(ip)) => Some(ip.into()),
            _ => None,
        };
        if let Some(Err(reason)) = literal.map(|ip| allowed.check(ip)) {
            return Err(unusable(format!("the URL leads to {reason}")));
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("scimtail/", env!("CARGO_PKG_VERSION")))
            // A redirect could carry the token to another host (G11).
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(CheckedResolver(allowed)))
            .connect_timeout(patience.connect)
            .read_timeout(patience.silence)
            .timeout(patience.request)
            .build()
            .map_err(|_| unusable("the HTTP client cannot be set up (TLS)".to_owned()))?;
        let shared = Arc::new(Shared { http, base_url, token, profile, patience, now });
        Ok(Client { shared, advertised: Arc::default(), strategy: Arc::default(), skew: Arc::default() })
    }

    pub fn profile(&self) -> &Profile {
        &self.shared.profile
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

    /// GET, retried within bounds where another try may help (transport errors, 429, 5xx).
    ///
    /// # Errors
    /// Transport errors, redirects, bodies beyond the limit; a status is a reply, not an error.
    pub async fn get(&self, url: Url) -> Result<Reply, ReadError> {
        self.send(url, None).await
    }

    /// POST of a JSON body that only asks (`.search`), retried as [`Client::get`].
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, url: Url, body: Value) -> Result<Reply, ReadError> {
        self.send(url, Some(body)).await
    }

    async fn send(&self, url: Url, body: Option<Value>) -> Result<Reply, ReadError> {
        let Patience { tries, first_wait, longest_wait, .. } = self.shared.patience;
        let mut waits = Waits::bounded(tries, first_wait, longest_wait);
        loop {
            let result = self.send_once(url.clone(), body.as_ref()).await;
            let retry_after = match &result {
                Ok((reply, retry_after)) if worth_another_try(reply.status) => *retry_after,
                Err(error) if error.code == error::UNREACHABLE => None,
                _ => return result.map(|(reply, _)| reply),
            };
            let Some(wait) = waits.next_wait() else { return result.map(|(reply, _)| reply) };
            tokio::time::sleep(retry_after.unwrap_or_default().max(wait).min(longest_wait)).await;
        }
    }

    async fn send_once(&self, url: Url, body: Option<&Value>) -> Result<(Reply, Option<Duration>), ReadError> {
        let Shared { http, token, profile, now, .. } = &*self.shared;
        let request = match body {
            None => http.get(url),
            Some(body) => http.post(url).header(CONTENT_TYPE, SCIM_JSON).body(body.to_string()),
        };
        let request = request.bearer_auth(token.expose_secret()).header(ACCEPT, &profile.accept);
        let response = request.send().await.map_err(|error| transport(&error))?;
        let received_at = now();
        let status = response.status();
        if status.is_redirection() {
            let text = format!(
                "the server redirects (HTTP {}); scimtail never follows, set base_url to the final address",
                status.as_u16()
            );
            return Err(ReadError::new(error::REDIRECTED, text));
        }
        let date = header_time(&response, DATE).map(|at| at - received_at);
        self.skew.store(date.unwrap_or(0), Ordering::Relaxed);
        let retry_after = retry_after(&response, received_at);
        let body = read_body(response).await?;
        Ok((Reply { status, body, skew: date, received_at }, retry_after))
    }
}

fn worth_another_try(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// Reads a body within its limit, counting decompressed bytes.
async fn read_body(mut response: Response) -> Result<Bytes, ReadError> {
    // Growing a page of megabytes chunk by chunk would copy it several times over.
    let stated = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = BytesMut::with_capacity(stated.min(BODY_BYTES_MAX));
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            let text = format!("the body is larger than {} MiB", BODY_BYTES_MAX >> 20);
            return Err(ReadError::new(error::TOO_LARGE, text));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Says what went wrong in our words: error texts of the library may hold the URL.
fn transport(error: &reqwest::Error) -> ReadError {
    let causes = || std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let said = |words: &str| causes().any(|cause| cause.to_string().contains(words));
    let text = if error.is_timeout() {
        "the server did not answer in time"
    } else if said("the name leads to") {
        "the host name leads to an address that is not allowed (allow_private = true permits private ranges)"
    } else if said("dns error") || said("failed to lookup") {
        "the host name cannot be resolved"
    } else if said("certificate") || said("invalid peer") {
        "the server's TLS certificate is not trusted"
    } else if said("Connection refused") {
        "nothing listens at this address (connection refused)"
    } else if error.is_connect() {
        "no connection to the server"
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

/// Seconds or an HTTP-date (RFC 9110 §10.2.3), which is a time of the server's clock.
fn retry_after(response: &Response, now: i64) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than fit into a number are many, not none.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = header_time(response, RETRY_AFTER)?;
    let now = header_time(response, DATE).unwrap_or(now);
    u64::try_from(at - now).ok().map(Duration::from_millis)
}

/// What a status other than 200 means, in words with a remedy.
pub fn refusal(status: StatusCode, profile: &Profile) -> ReadError {
    let code = status.as_u16();
    match code {
        401 => {
            ReadError::new(error::REFUSED, format!("401: {} refused the token; {}", profile.title, profile.token_hint))
        }
        403 => ReadError::new(error::REFUSED, format!("403: the token may not read this; {}", profile.token_hint)),
        404 => {
            let hint = profile.no_list_hint.as_deref().unwrap_or("check base_url: it usually ends in /scim/v2");
            ReadError::new(error::HTTP_STATUS, format!("404: there is no SCIM list at this address; {hint}"))
        }
        405 | 501 => {
            let hint =
                profile.no_list_hint.as_deref().unwrap_or("this endpoint does not list; scimtail cannot read it");
            ReadError::new(error::HTTP_STATUS, format!("{code}: listing is refused; {hint}"))
        }
        429 => ReadError::new(error::UNAVAILABLE, "429: the vendor's rate limit is used up"),
        500.. => ReadError::new(error::UNAVAILABLE, format!("the server answers HTTP {code}")),
        _ => ReadError::new(error::HTTP_STATUS, format!("the server answers HTTP {code}")),
    }
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
        let (absent_active, groups_on_user) = (*absent_active, *memberships == Memberships::User);
        let reading = Reading { attributes, absent_active, groups_on_user };
        ScimDirectory { client, reading }
    }

    /// A filter in the server's own time, as far as its clock is known.
    fn modified_since(&self, since: i64) -> String {
        let at = jiff::Timestamp::from_millisecond(since.saturating_add(self.client.skew.load(Ordering::Relaxed)));
        format!("meta.lastModified ge \"{}\"", at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }

    /// The attributes to ask lists for: what may leave the process, and what decides.
    fn requested(&self, kind: Kind) -> String {
        let decides: &[&str] = match (kind, self.client.profile().memberships) {
            (Kind::User, Memberships::User) => &["id", "active", "groups"],
            (Kind::User, _) => &["id", "active"],
            (Kind::Group, Memberships::List | Memberships::Auto) => &["id", "members"],
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
        let attributes = self.client.profile().request_attributes.then(|| self.requested(kind));
        listing::pages(
            self.client.clone(),
            Query { kind, filter: since.map(|since| self.modified_since(since)), attributes },
        )
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Result<Observed, ReadError> {
        let resource = wire::read_resource(kind, &row.bytes, &self.reading)?;
        let skew = page.skew.unwrap_or(0);
        Ok(Observed {
            modified_at: resource.principal.last_modified.map(|modified| modified - skew),
            principal: resource.principal,
            raw: row.hash,
            members: resource.members,
            groups: resource.groups,
            observed_at: page.received_at,
        })
    }

    async fn get(&self, kind: Kind, id: &Id) -> Answer {
        let url = self.client.url(&[self.client.profile().path(kind), id], &[]);
        let Ok(reply) = self.client.get(url).await else { return Answer::Unproven };
        match reply.status.as_u16() {
            200 if wire::id_of(&reply.body).as_ref() == Some(id) => {
                let row = wire::raw_row(reply.body);
                let page = Page { skew: reply.skew, received_at: reply.received_at, ..Page::default() };
                match self.read(kind, &page, &row) {
                    Ok(observed) => Answer::Found(Box::new(observed)),
                    Err(_) => Answer::Unproven,
                }
            }
            404 | 410 => Answer::NotFound,
            403 | 405 | 501 => Answer::NotOffered,
            _ => Answer::Unproven,
        }
    }

    async fn strategy(&self) -> Result<Strategy, ReadError> {
        probe::strategy(&self.client, &self.reading).await
    }

    async fn matching(&self, kind: Kind, attribute: &'static str, id: &Id) -> Result<Vec<Id>, ReadError> {
        // A JSON text is a filter's text (RFC 7644 §3.4.2.2): quotes in ids are escaped the same way.
        let filter = format!("{attribute} eq {}", Value::String(id.to_string()));
        listing::matching(&self.client, kind, filter).await
    }
}
