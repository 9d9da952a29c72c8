//! A recording of a directory that its user can send: what was asked and answered, without data.
//!
//! **Invariant:** what is written is either a word of a standard, of a shipped profile or of the server's own schemas, or
//! a placeholder. What is not known to be harmless is replaced. Pure: the tape and the random bits are arguments.

mod words;
mod placeholders;
mod body;
mod headers;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use url::Url;

use crate::scim::Profile;
use crate::scim::layers::EMBEDDED;
use crate::scim::tape::{Exchange, Taped};
use body::Shown;
use placeholders::Placeholders;

/// Of the form of a recording. It rises when a reader has to know.
pub const FORM: u32 = 1;

/// What was taped of one account.
pub struct Account<'a> {
    /// Its name, which is not written.
    pub name: &'a str,
    /// The name of its profile.
    pub provider: &'a str,
    pub base_url: &'a Url,
    pub exchanges: Vec<Exchange>,
    /// Exchanges that the tape had no room for.
    pub left_out: usize,
}

/// A recording; docs/recordings.md describes the fields.
#[derive(Debug, Serialize)]
struct Recording {
    scimtail_recording: u32,
    scimtail_version: &'static str,
    accounts: Vec<Recorded>,
}

#[derive(Debug, Serialize)]
struct Recorded {
    /// `null`: a profile that does not ship.
    provider: Option<&'static str>,
    requests: Vec<Request>,
    requests_left_out: usize,
}

#[derive(Debug, Serialize)]
struct Request {
    method: &'static str,
    path: Option<String>,
    query: Pairs,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<Shown>,
    status: u16,
    headers: BTreeMap<&'static str, String>,
    clock_skew_s: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_left_out: Option<&'static str>,
}

/// A JSON object in the order of its entries.
#[derive(Debug)]
struct Pairs(Vec<(String, String)>);

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| object.serialize_entry(name, value))?;
        object.end()
    }
}

/// The text of a recording: one JSON document. `random`: 64 random bits that are not kept; they decide by how much times
/// are moved.
///
/// # Errors
/// The JSON cannot be made.
pub fn text(accounts: Vec<Account<'_>>, random: u64) -> Result<String, serde_json::Error> {
    let mut placeholders = Placeholders::new(random);
    for account in &accounts {
        placeholders.tells(account.name);
        placeholders.tells(account.base_url.host_str().unwrap_or_default());
        placeholders.tells(account.base_url.path());
        whole(&account.exchanges).for_each(|(_, json)| body::tell(&json, &mut placeholders));
    }
    let accounts = accounts.into_iter().map(|account| recorded(account, &mut placeholders)).collect();
    let version = env!("CARGO_PKG_VERSION");
    let recording = Recording { scimtail_recording: FORM, scimtail_version: version, accounts };
    serde_json::to_string_pretty(&recording).map(|text| text + "\n")
}

/// The exchanges whose bodies are JSON.
fn whole(exchanges: &[Exchange]) -> impl Iterator<Item = (&Exchange, Bytes)> {
    exchanges.iter().filter_map(|exchange| match &exchange.body {
        Taped::Whole(bytes) => Some((exchange, body::json(bytes)?)),
        Taped::TooLarge | Taped::Missing => None,
    })
}

fn recorded(account: Account<'_>, placeholders: &mut Placeholders) -> Recorded {
    let provider = EMBEDDED.iter().map(|(name, _)| *name).find(|name| *name == account.provider);
    let shipped = provider.and_then(|name| Profile::named(name).ok());
    placeholders.next_account(shipped.as_ref().and_then(|profile| profile.group_pattern.as_deref()));
    for (exchange, json) in whole(&account.exchanges) {
        let of_schemas =
            exchange.path.as_ref().is_some_and(|parts| parts.first().is_some_and(|part| part == "Schemas"));
        if of_schemas && exchange.status == 200 {
            body::declare(&json, placeholders);
        }
    }
    let requests = account.exchanges.iter().map(|exchange| request(exchange, placeholders)).collect();
    Recorded { provider, requests, requests_left_out: account.left_out }
}

fn request(exchange: &Exchange, placeholders: &mut Placeholders) -> Request {
    let (body, body_left_out) = match &exchange.body {
        Taped::Missing => (None, Some("none arrived whole")),
        Taped::TooLarge => (None, Some("too large")),
        Taped::Whole(bytes) if bytes.is_empty() => (None, None),
        Taped::Whole(bytes) => match body::json(bytes) {
            None => (None, Some("not JSON")),
            Some(json) => match body::shown(&json, placeholders) {
                None => (None, Some("more names or nesting than is read")),
                shown => (shown, None),
            },
        },
    };
    let mut path =
        |parts: &Vec<String>| parts.iter().map(|part| placeholders.part_of_path(part)).collect::<Vec<_>>().join("/");
    let path = exchange.path.as_ref().map(&mut path);
    let query = exchange.query.iter().map(|(name, value)| placeholders.parameter(name, value)).collect();
    Request {
        method: exchange.method,
        path,
        query: Pairs(query),
        sent: exchange.sent.as_ref().and_then(|sent| body::shown(sent.as_bytes(), placeholders)),
        status: exchange.status,
        headers: headers::shown(&exchange.headers),
        clock_skew_s: exchange.skew.map(|skew| skew / 1_000),
        body,
        body_left_out,
    }
}

#[cfg(test)]
mod tests;
