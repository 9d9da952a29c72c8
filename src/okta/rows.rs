//! A page of Okta: a JSON array, split into rows without being parsed.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::directory::ReasonCode;
use crate::json::{Bounded, only_field, text};
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

/// True if no row of a list has the status that the list was asked for, and each states another one: the filter was
/// dropped on the way, and a list without it leaves people out.
pub fn are_unfiltered(rows: &[RawRow], wanted: &str) -> bool {
    let is_another = |row: &RawRow| {
        let row = row.bytes.sent().and_then(|bytes| std::str::from_utf8(bytes).ok());
        row.and_then(|row| text(only_field(row, "status")?)).is_some_and(|status| status != wanted)
    };
    !rows.is_empty() && rows.iter().all(is_another)
}
