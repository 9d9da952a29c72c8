//! A page of Okta: a JSON array, split into rows without being parsed.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::directory::ReasonCode;
use crate::json::Bounded;
use crate::scim::ReadError;
use crate::scim::envelope::{PAGE_ROWS_MAX, raw_row};
use crate::source::RawRow;

/// # Errors
/// The body is not a JSON array: HTML, an error with status 200, a page that was cut off.
pub fn split(body: &Bytes) -> Result<Vec<RawRow>, ReadError> {
    let not_a_list = || {
        ReadError::new(ReasonCode::NotAListResponse, "the answer is not a list of Okta's API")
            .with_remedy("base_url is the Okta domain alone, e.g. https://acme.okta.com")
    };
    let text = std::str::from_utf8(body).map_err(|_| not_a_list())?;
    let Bounded(rows) = serde_json::from_str::<Bounded<&RawValue, PAGE_ROWS_MAX>>(text).map_err(|_| not_a_list())?;
    Ok(rows.into_iter().map(|row| raw_row(body.slice_ref(row.get().as_bytes()))).collect())
}
