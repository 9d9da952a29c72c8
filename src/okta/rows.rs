//! A page of Okta: a JSON array, split into rows without being parsed.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::directory::ReasonCode;
use crate::json::Bounded;
use crate::scim::ReadError;
use crate::scim::envelope::{PAGE_ROWS_MAX, raw_row, utf_8};
use crate::source::RawRow;

/// # Errors
/// The body is not a JSON array: HTML, an error with status 200, a page that was cut off, UTF-16.
pub fn split(body: &Bytes) -> Result<Vec<RawRow>, ReadError> {
    const NOT_A_LIST: &str = "the answer is not a list of Okta's API";
    let body = utf_8(body).map_err(|what| {
        ReadError::new(ReasonCode::NotAListResponse, format!("{NOT_A_LIST}: {what}"))
            .with_remedy("look for a proxy or gateway in between that changes bodies")
    })?;
    let Bounded(rows) = serde_json::from_slice::<Bounded<&RawValue, PAGE_ROWS_MAX>>(&body).map_err(|_| {
        ReadError::new(ReasonCode::NotAListResponse, NOT_A_LIST)
            .with_remedy("base_url is the Okta domain alone, e.g. https://acme.okta.com")
    })?;
    Ok(rows.into_iter().map(|row| raw_row(body.slice_ref(row.get().as_bytes()))).collect())
}
