//! One request over HTTP: where a client may connect, how much of a body is read, and what a failure is called.

use crate::directory::ReasonCode;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::DATE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::address::{self, Allowed, CheckedResolver, NotAllowed};
use super::error::ReadError;
use crate::directory::Problem;
pub use crate::transport::Timeouts;
use crate::transport::failure::Failed;
pub(super) use crate::transport::failure::Received;
use crate::transport::{Proxy, Transport, failure};

/// Bytes of an answer that is an error: its `scimType` is all that is read of it.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Up to here a body grows by doubling; a larger one gets all the room that it may need at once. Room that is not
/// written to is not memory, and doubling 32 MiB would hold them twice over.
const GROWN_BYTES_MAX: usize = 4 << 20;
/// Bodies of one account that may be larger than that at once.
const LARGE_BODIES_MAX: usize = 2;
/// Bodies of a walk whose memory is kept for the next ones: one that is read, one that is compared, one on its way.
const SPARE_BODIES_MAX: usize = 3;

/// Where the requests of an account may go, and by which way.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Private ranges are permitted.
    pub allow_private: bool,
    pub transport: Transport,
}

/// A client of one server.
#[derive(Clone)]
pub(super) struct Http {
    pub client: reqwest::Client,
    /// The proxy in between.
    through: Option<Proxy>,
}

impl Http {
    /// An HTTP client that goes only where `url` may lead.
    ///
    /// # Errors
    /// A URL that must not be asked, or a TLS set-up that fails.
    pub(super) fn to(url: &Url, reach: &Reach, timeouts: Timeouts) -> Result<Http, ReadError> {
        let unusable = |problem: Problem| ReadError::new(ReasonCode::NotConnectable, problem);
        let allowed = Allowed { private: reach.allow_private, loopback: address::is_loopback(url) };
        if url.scheme() != "https" && !allowed.loopback {
            return Err(unusable("only https is used off this machine".into()));
        }
        let literal = match url.host() {
            Some(url::Host::Ipv4(ip)) => Some(ip.into()),
            Some(url::Host::Ipv6(ip)) => Some(ip.into()),
            _ => None,
        };
        if let Some(Err(reason)) = literal.map(|ip| allowed.check(ip)) {
            return Err(unusable(format!("the URL leads to {reason}").into()));
        }
        let through = reach.transport.proxy_to(url).cloned();
        // Behind a proxy the only name that this machine resolves is that of the proxy, which may be anywhere.
        let resolved = if through.is_some() { Allowed { private: true, loopback: true } } else { allowed };
        let builder = reach.transport.builder(url).map_err(unusable)?;
        let client = timeouts.of(builder).dns_resolver(Arc::new(CheckedResolver(resolved))).build();
        let client = client.map_err(|_| unusable("the HTTP client cannot be set up (TLS)".into()))?;
        Ok(Http { client, through })
    }

    /// Says what went wrong in our words.
    pub(super) fn failure(&self, error: &reqwest::Error, received: Received) -> ReadError {
        let not_allowed = not_allowed(error);
        not_allowed.unwrap_or_else(|| of_connection(failure::failure(error, received, self.through.as_ref())))
    }

    /// As [`Http::failure`], for a request to `url` without an answer. If the proxy did not connect, it is asked why.
    pub(super) async fn looked_into(&self, error: &reqwest::Error, url: &Url) -> ReadError {
        match not_allowed(error) {
            Some(error) => error,
            None => of_connection(failure::looked_into(error, Received::Nothing, self.through.as_ref(), url).await),
        }
    }
}

fn of_connection(Failed { problem, needs_person }: Failed) -> ReadError {
    let code = if needs_person { ReasonCode::NotConnectable } else { ReasonCode::Unreachable };
    ReadError::new(code, problem)
}

/// The failure of a name that leads only where no request may go.
fn not_allowed(error: &reqwest::Error) -> Option<ReadError> {
    let reason = failure::causes(error).find_map(|cause| cause.downcast_ref::<NotAllowed>())?;
    Some(ReadError::new(ReasonCode::NotConnectable, reason.to_string()))
}

/// Room for the bodies of an account. Clones share it.
#[derive(Clone)]
pub(super) struct Bodies {
    /// The turns of large bodies: several requests are under way, and each may bring a group of any size.
    large: Arc<Semaphore>,
    /// The newest bodies of a walk. What nothing else holds any more is written over: memory that is fresh for each
    /// page of megabytes takes a tenth of the time of a walk that finds no change.
    spare: Option<Arc<Mutex<Vec<Bytes>>>>,
}

impl Bodies {
    pub(super) fn new() -> Bodies {
        Bodies { large: Arc::new(Semaphore::new(LARGE_BODIES_MAX)), spare: None }
    }

    /// The same for a walk. Its spare memory goes with it.
    #[must_use]
    pub(super) fn of_a_walk(&self) -> Bodies {
        Bodies { spare: Some(Arc::default()), ..self.clone() }
    }

    /// Empty, with the memory of an earlier body if there is one.
    fn begin(&self) -> Vec<u8> {
        let Some(spare) = &self.spare else { return Vec::new() };
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = spare.iter().position(Bytes::is_unique).map(|place| spare.swap_remove(place));
        let mut body = unused.and_then(|bytes| bytes.try_into_mut().ok()).unwrap_or_default();
        body.clear();
        body.into()
    }

    fn keep(&self, body: &Bytes) {
        let Some(spare) = self.spare.as_ref().filter(|_| body.len() <= GROWN_BYTES_MAX) else { return };
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BODIES_MAX {
            spare.push(body.clone());
        }
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

/// Reads a body of at most `bytes_max` decompressed bytes. `bodies`: where a large one waits for its turn.
///
/// # Errors
/// The body is larger, or it does not arrive whole.
pub(super) async fn read_body(
    http: &Http,
    mut response: Response,
    bytes_max: usize,
    bodies: Option<&Bodies>,
) -> Result<Body, ReadError> {
    let mut turn = None;
    // Growing a page of megabytes chunk by chunk would copy it several times over.
    let stated = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = bodies.map_or_else(Vec::new, Bodies::begin);
    body.reserve_exact(stated.min(bytes_max));
    loop {
        let received = if body.is_empty() { Received::Nothing } else { Received::PartOfBody };
        let Some(chunk) = response.chunk().await.map_err(|error| http.failure(&error, received))? else { break };
        if body.len() + chunk.len() > bytes_max {
            let text = format!("the body is larger than {} MiB", bytes_max >> 20);
            return Err(ReadError::new(ReasonCode::BodyTooLarge, text));
        }
        if body.len() > GROWN_BYTES_MAX && turn.is_none() {
            turn = match bodies {
                Some(Bodies { large, .. }) => large.clone().acquire_owned().await.ok(),
                None => None,
            };
        }
        if body.len() + chunk.len() > body.capacity() && body.len() > GROWN_BYTES_MAX {
            body.reserve_exact(bytes_max - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    let bytes = Bytes::from(body);
    bodies.into_iter().for_each(|bodies| bodies.keep(&bytes));
    Ok(Body { bytes, _turn: turn })
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

/// The server's `Date` (RFC 9110 §6.6.1) in milliseconds since 1970-01-01 UTC.
pub(super) fn date(response: &Response) -> Option<i64> {
    let text = response.headers().get(DATE)?.to_str().ok()?;
    let time = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_body_is_used_again_in_the_same_walk_once_nothing_holds_a_row_of_it() {
        let (bodies, other) = (Bodies::new().of_a_walk(), Bodies::new());
        let body = Bytes::from(vec![b'x'; 1_000]);
        let (row, memory) = (body.slice(10..20), body.as_ptr());
        bodies.keep(&body);
        other.keep(&body);
        drop(body);
        assert_eq!(bodies.begin().capacity(), 0, "the row is there");
        assert_eq!(row, [b'x'; 10].as_slice());
        drop(row);
        assert_eq!((other.begin().capacity(), bodies.of_a_walk().begin().capacity()), (0, 0), "of another walk");
        let again = bodies.begin();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (memory, 0, 1_000));
        assert_eq!(bodies.begin().capacity(), 0, "once");
    }
}
