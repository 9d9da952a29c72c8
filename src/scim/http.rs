//! One request over HTTP: where a client may connect, how much of a body is read, and what a failure is called.

use crate::directory::ReasonCode;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::DATE;
use reqwest::{Response, redirect};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::address::{self, Allowed, CheckedResolver, NotAllowed};
use super::error::ReadError;

/// Bytes of an answer that is an error: its `scimType` is all that is read of it.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Up to here a body grows by doubling; a larger one gets all the room that it may need at once. Room that is not
/// written to is not memory, and doubling 32 MiB would hold them twice over.
const GROWN_BYTES_MAX: usize = 4 << 20;
/// Bodies of one account that may be larger than that at once.
const LARGE_BODIES_MAX: usize = 2;
/// How long clients that are made share a TLS configuration. Each one of its own would be a quarter of a megabyte of
/// certificates that this machine trusts; one for ever would never know those that are installed later.
const TLS_SHARED: Duration = Duration::from_secs(60);

/// How long one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until there is a connection.
    pub connect: Duration,
    /// Longest silence, before the first byte of an answer and inside its body.
    pub silence: Duration,
    /// The whole request, from connect to the last byte: also of a server that is slow but never silent.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            request: Duration::from_secs(180),
        }
    }
}

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
pub(super) fn connecting_to(url: &Url, allow_private: bool, timeouts: Timeouts) -> Result<reqwest::Client, ReadError> {
    let unusable = |text: String| ReadError::new(ReasonCode::Unreachable, text);
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
        // A redirect could carry the token to another host.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(CheckedResolver(allowed)))
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.silence)
        .timeout(timeouts.request)
        .build()
        .map_err(|_| unusable("the HTTP client cannot be set up (TLS)".to_owned()))
}

/// The turns of large bodies: several requests are under way, and each may bring a group of any size. Clones share
/// the turns.
#[derive(Clone)]
pub(super) struct LargeBodies(Arc<Semaphore>);

impl LargeBodies {
    pub(super) fn new() -> LargeBodies {
        LargeBodies(Arc::new(Semaphore::new(LARGE_BODIES_MAX)))
    }
}

/// The decompressed bytes of a body. One that is large keeps its turn for as long as it is kept.
pub struct Body {
    bytes: Bytes,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Deref for Body {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Reads a body of at most `bytes_max` decompressed bytes. `large`: where a large one waits for its turn.
///
/// # Errors
/// The body is larger, or it does not arrive whole.
pub(super) async fn read_body(
    mut response: Response,
    bytes_max: usize,
    large: Option<&LargeBodies>,
) -> Result<Body, ReadError> {
    let mut turn = None;
    // Growing a page of megabytes chunk by chunk would copy it several times over.
    let stated = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = Vec::with_capacity(stated.min(bytes_max).min(GROWN_BYTES_MAX));
    loop {
        let received = if body.is_empty() { Received::Nothing } else { Received::PartOfBody };
        let Some(chunk) = response.chunk().await.map_err(|error| failure(&error, received))? else { break };
        if body.len() + chunk.len() > bytes_max {
            let text = format!("the body is larger than {} MiB", bytes_max >> 20);
            return Err(ReadError::new(ReasonCode::BodyTooLarge, text));
        }
        if body.len() > GROWN_BYTES_MAX && turn.is_none() {
            turn = match large {
                Some(LargeBodies(turns)) => turns.clone().acquire_owned().await.ok(),
                None => None,
            };
        }
        if body.len() + chunk.len() > body.capacity() && body.len() > GROWN_BYTES_MAX {
            body.reserve_exact(bytes_max - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body { bytes: body.into(), _turn: turn })
}

/// The beginning of an error's body; what cannot be read of it says nothing.
pub(super) async fn read_error_body(mut response: Response) -> Body {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES_MAX - body.len())]);
        if body.len() == ERROR_BYTES_MAX {
            break;
        }
    }
    Body { bytes: body.into(), _turn: None }
}

/// How much of an answer had arrived when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Nothing,
    PartOfBody,
}

/// Says what went wrong in our words: error texts of the library may hold the URL.
pub(super) fn failure(error: &reqwest::Error, received: Received) -> ReadError {
    let in_body = received == Received::PartOfBody || error.is_body() || error.is_decode();
    let what = if error.is_timeout() {
        "the server did not answer in time"
    } else if causes(error).any(|cause| cause.is::<NotAllowed>()) {
        "the host name leads to an address that is not allowed (allow_private = true permits private ranges)"
    } else if error.is_dns() {
        "the host name cannot be resolved"
    } else if causes(error).any(is_untrusted_certificate) {
        let what = "the server's TLS certificate is not trusted by this machine";
        return ReadError::new(ReasonCode::Unreachable, what)
            .with_remedy("install the CA that issued it (a private CA: SSL_CERT_FILE names a file that holds it)");
    } else if causes(error).any(|cause| is_io(cause, &[ErrorKind::ConnectionRefused])) {
        "nothing listens at this address (connection refused)"
    } else if error.is_connect() {
        "no connection to the server"
    } else if in_body && causes(error).any(is_end_of_connection) {
        "the connection was closed in the middle of the body"
    } else if error.is_decode() {
        "the body cannot be decompressed"
    } else {
        "the connection broke"
    };
    ReadError::new(ReasonCode::Unreachable, what)
}

/// Every error below `error`. The source of an `io::Error` is the source of what it wraps, so that what it wraps has to
/// be asked for.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| match cause.downcast_ref::<io::Error>().map(io::Error::get_ref) {
        Some(Some(wrapped)) => Some(wrapped),
        _ => cause.source(),
    })
}

fn is_io(cause: &(dyn Error + 'static), kinds: &[ErrorKind]) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

fn is_untrusted_certificate(cause: &(dyn Error + 'static)) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    matches!(cause.downcast_ref(), Some(InvalidCertificate(_) | NoCertificatesPresented))
}

fn is_end_of_connection(cause: &(dyn Error + 'static)) -> bool {
    let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    // The error of hyper, which reqwest does not export, has no type to ask for.
    is_io(cause, &ended) || cause.to_string().contains("connection closed")
}

/// The server's `Date` (RFC 9110 §6.6.1) in milliseconds since 1970-01-01 UTC.
pub(super) fn date(response: &Response) -> Option<i64> {
    let text = response.headers().get(DATE)?.to_str().ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}
