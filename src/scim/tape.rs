//! A tape of requests and answers, for a recording. It never holds a credential, a cookie or a host.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use url::Url;

use super::urls::Urls;

/// Exchanges of one form on each part of a tape. So of a walk the tape has its first pages.
pub const OF_A_FORM_MAX: usize = 3;
/// Exchanges on one tape.
pub const EXCHANGES_MAX: usize = 200;
/// Bytes of one body on a tape.
pub const TAPED_BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of all bodies of one recording, on all of its tapes.
pub const TAPE_BYTES_MAX: usize = 16 << 20;

/// Headers that go on a tape, besides those that begin with one of [`RATE_LIMITS`].
const HEADERS: [&str; 4] = ["content-type", "retry-after", "etag", "link"];
const RATE_LIMITS: [&str; 3] = ["ratelimit", "x-ratelimit", "x-rate-limit"];

/// One request and its answer, as they were. [`crate::recording`] replaces what identifies someone or something.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub method: &'static str,
    /// Parts of the path below the base URL, decoded; `None`: the path is not below it.
    pub path: Option<Vec<String>>,
    pub query: Vec<(String, String)>,
    /// Body of the request.
    pub sent: Option<String>,
    pub status: u16,
    pub headers: HeaderMap,
    /// The server's `Date` minus our clock, milliseconds.
    pub skew: Option<i64>,
    pub body: Taped,
    part: usize,
    number: usize,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taped {
    Whole(Bytes),
    /// This body, or the tape with it, is beyond the bounds.
    TooLarge,
    /// It did not arrive whole, or was not asked for.
    Missing,
}

/// Where a client writes down what it asks and hears. Clones share the tape.
#[derive(Clone, Default)]
pub struct Tape {
    state: Arc<Mutex<State>>,
    /// Of the bodies on this tape and those beside it.
    bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    exchanges: Vec<Exchange>,
    /// How many exchanges of each form there were.
    forms: HashMap<Form, usize>,
    left_out: usize,
    part: usize,
    number: usize,
}

/// Exchanges of one form differ in their values only.
#[derive(PartialEq, Eq, Hash)]
struct Form {
    part: usize,
    method: &'static str,
    /// The first part of the path, and whether there are more.
    path: Option<(String, bool)>,
    parameters: Vec<String>,
    /// A single row was asked for.
    single: bool,
    status: u16,
}

impl Tape {
    /// An empty tape for another account of the same recording.
    #[must_use]
    pub fn beside(&self) -> Tape {
        Tape { state: Arc::default(), bytes: self.bytes.clone() }
    }

    /// The exchanges in the order of their requests, and how many more there were.
    pub fn exchanges(&self) -> (Vec<Exchange>, usize) {
        let state = self.state();
        let mut exchanges = state.exchanges.clone();
        exchanges.sort_by_key(|exchange| exchange.number);
        (exchanges, state.left_out)
    }

    /// Begins another part: exchanges before it do not count for the bound of a form.
    pub fn next_part(&self) {
        self.state().part += 1;
    }

    /// An answer whose body has not been read yet.
    pub(super) fn heard(
        &self,
        urls: &Urls,
        (url, sent): (&Url, Option<&Value>),
        (status, headers): (StatusCode, &HeaderMap),
        skew: Option<i64>,
    ) -> Exchange {
        let below = url.path().strip_prefix(urls.base().path().trim_end_matches('/'));
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let path = below.map(|below| below.trim_start_matches('/').split('/').map(decoded).collect());
        let goes_on_tape =
            |name: &str| HEADERS.contains(&name) || RATE_LIMITS.iter().any(|family| name.starts_with(family));
        let mut taped = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| goes_on_tape(name.as_str())) {
            taped.append(name, value.clone());
        }
        let mut state = self.state();
        state.number += 1;
        Exchange {
            method: if sent.is_some() { "POST" } else { "GET" },
            path,
            query: url.query_pairs().into_owned().collect(),
            sent: sent.map(Value::to_string),
            status: status.as_u16(),
            headers: taped,
            skew,
            body: Taped::Missing,
            part: state.part,
            number: state.number,
        }
    }

    /// Puts an exchange on the tape, within the bounds.
    pub(super) fn keep(&self, exchange: Exchange, body: Option<&Bytes>) {
        let mut state = self.state();
        let of_this_form = state.forms.entry(form(&exchange)).or_default();
        *of_this_form += 1;
        if *of_this_form > OF_A_FORM_MAX || state.exchanges.len() == EXCHANGES_MAX {
            state.left_out += 1;
            return;
        }
        let body = match body {
            None => Taped::Missing,
            // A slice of a large body would keep all of its room.
            Some(body) if self.has_room(body.len()) => Taped::Whole(Bytes::copy_from_slice(body)),
            Some(_) => Taped::TooLarge,
        };
        state.exchanges.push(Exchange { body, ..exchange });
    }

    fn has_room(&self, bytes: usize) -> bool {
        let room = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= TAPE_BYTES_MAX);
        bytes <= TAPED_BODY_BYTES_MAX && self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn form(exchange: &Exchange) -> Form {
    let mut parameters: Vec<String> = exchange.query.iter().map(|(name, _)| name.clone()).collect();
    parameters.sort();
    Form {
        part: exchange.part,
        method: exchange.method,
        path: exchange.path.as_ref().and_then(|parts| Some((parts.first()?.clone(), parts.len() > 1))),
        parameters,
        single: exchange.query.iter().any(|(name, value)| name == "count" && value == "1"),
        status: exchange.status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scim::Profile;

    fn exchange(tape: &Tape, path: &str) -> Exchange {
        let base = Url::parse("https://acme.example/scim/v2").unwrap();
        let urls = Urls::new(base.clone(), &Profile::named("generic").unwrap());
        let url = Url::parse(&format!("{base}/{path}")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("set-cookie", "secret".parse().unwrap());
        headers.insert("x-rate-limit-limit", "9".parse().unwrap());
        tape.heard(&urls, (&url, None), (StatusCode::OK, &headers), None)
    }

    #[test]
    fn a_tape_holds_the_first_exchanges_of_each_form_and_no_cookie() {
        let tape = Tape::default();
        for id in 0..5 {
            let exchange = exchange(&tape, &format!("Users/a%2F{id}"));
            assert_eq!(exchange.headers.len(), 1);
            tape.keep(exchange, Some(&Bytes::from_static(b"{}")));
        }
        tape.keep(exchange(&tape, "Users?startIndex=1"), None);
        tape.next_part();
        tape.keep(exchange(&tape, "Users/x"), None);
        let (exchanges, left_out) = tape.exchanges();
        let paths: Vec<String> = exchanges.iter().map(|one| one.path.clone().unwrap().join(" ")).collect();
        assert_eq!(
            (paths.as_slice(), left_out),
            (["Users a/0", "Users a/1", "Users a/2", "Users", "Users x"].map(str::to_owned).as_slice(), 2)
        );
    }

    #[test]
    fn all_tapes_of_a_recording_share_its_bytes() {
        let (one, body) = (Tape::default(), Bytes::from(vec![b' '; TAPED_BODY_BYTES_MAX]));
        let other = one.beside();
        let tapes = [&one, &other].into_iter().cycle();
        let mut bytes = 0;
        for (number, tape) in tapes.take(TAPE_BYTES_MAX / TAPED_BODY_BYTES_MAX + 2).enumerate() {
            tape.keep(exchange(tape, &format!("Path{number}")), Some(&body));
        }
        for exchange in [one.exchanges().0, other.exchanges().0].concat() {
            bytes += if let Taped::Whole(body) = exchange.body { body.len() } else { 0 };
        }
        assert_eq!(bytes, TAPE_BYTES_MAX);
        let fresh = Tape::default();
        fresh.keep(exchange(&fresh, "Users"), Some(&Bytes::from(vec![b' '; TAPED_BODY_BYTES_MAX + 1])));
        assert_eq!(fresh.exchanges().0[0].body, Taped::TooLarge);
    }
}
