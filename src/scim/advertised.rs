//! What a server says of itself in its ServiceProviderConfig.

use serde_json::value::RawValue;

use super::client::Client;
use super::envelope;
use super::error::ReadError;
use crate::json::{Bounded, Fields};

/// ServiceProviderConfigs of one server: some wrap theirs into a list.
const CONFIGS_MAX: usize = 10;

/// ServiceProviderConfig (RFC 7643 §5, RFC 9865 §4). Some servers state too much or too little. Only what costs nothing
/// when it is wrong is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// The path that answered: the plural is older.
    pub path: &'static str,
    pub cursor: bool,
    pub index: Option<bool>,
    pub max_page_size: Option<u64>,
    pub filter: Option<bool>,
    pub etag: Option<bool>,
}

/// Asks for what the server advertises; `None` if it advertises nothing readable.
///
/// # Errors
/// As [`Client::get`]: the server is in trouble, and what it advertises stays open.
pub async fn ask(client: &Client) -> Result<Option<Advertised>, ReadError> {
    for path in ["ServiceProviderConfig", "ServiceProviderConfigs"] {
        let reply = client.get(client.urls().of(&[path], &[])).await?;
        if reply.status.as_u16() == 200
            && let Ok(body) = envelope::utf_8(&reply.body)
            && let Some(found) = read_config(path, &body)
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Typed and without building a value: the body may hold anything.
fn read_config(path: &'static str, body: &[u8]) -> Option<Advertised> {
    let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
    // Some wrap it into a list of one.
    let wrapped = fields.get("Resources").and_then(|list| {
        let list: Bounded<&RawValue, CONFIGS_MAX> = serde_json::from_str(list.get()).ok()?;
        Fields::of(list.0.first()?)
    });
    let config = wrapped.unwrap_or(fields);
    let below = |name: &str, field: &str| Fields::of(config.get(name)?)?.get(field).map(RawValue::get);
    let flag = |name: &str, field: &str| below(name, field).and_then(|said| said.parse::<bool>().ok());
    Some(Advertised {
        path,
        cursor: flag("pagination", "cursor") == Some(true),
        index: flag("pagination", "index"),
        max_page_size: below("pagination", "maxPageSize").and_then(|said| said.parse().ok()),
        filter: flag("filter", "supported"),
        etag: flag("etag", "supported"),
    })
}
