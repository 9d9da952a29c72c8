//! A tape of requests and answers, for a recording. It never holds a credential, a cookie or a host.

use std::collections::HashMap;
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
/// Bytes of all bodies on one tape.
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
pub struct Tape(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    exchanges: Vec<Exchange>,
    bytes: usize,
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
            Some(body) if body.len() > TAPED_BODY_BYTES_MAX || state.bytes + body.len() > TAPE_BYTES_MAX => {
                Taped::TooLarge
            }
            Some(body) => {
                state.bytes += body.len();
                // A slice of a large body would keep all of its room.
                Taped::Whole(Bytes::copy_from_slice(body))
            }
        };
        state.exchanges.push(Exchange { body, ..exchange });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
