//! What SCIM wraps resources in: lists (RFC 7644 §3.4.2) and errors (§3.12), split without being parsed.

use crate::directory::{RawHash, ReasonCode};
use bytes::Bytes;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use super::error::ReadError;
use crate::json::{Bounded, Fields, Text, only_field, text, text_or_number};
use crate::source::{RawRow, RowBytes};

/// Rows of one page.
pub const PAGE_ROWS_MAX: usize = 100_000;

/// Bytes of a cursor; it becomes a part of a URL.
pub const CURSOR_BYTES_MAX: usize = 4_096;

/// Schemas that one answer names.
const SCHEMAS_MAX: usize = 500;

/// UTF-8 as the first three bytes of a body (RFC 8259 §8.1: a reader may ignore it).
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One page as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub struct ListPage {
    pub rows: Vec<RawRow>,
    /// False if `Resources` is absent or null: on a first page that is an empty list only if the numbers say so.
    pub has_resources: bool,
    /// `totalResults`, if it is a readable number ≥ 0.
    pub total: Option<u64>,
    /// `itemsPerPage`, likewise. Never believed for anything but an empty page.
    pub items_per_page: Option<u64>,
    /// `nextCursor` (RFC 9865 §2), if there is one.
    pub next_cursor: Option<String>,
}

impl ListPage {
    /// True for a first page that is an empty list. A total of 3 without rows is a list that fails to show them, and
    /// must not be taken for an empty directory.
    pub fn is_an_answer(&self) -> bool {
        self.has_resources || self.next_cursor.is_some() || self.total == Some(0) || self.items_per_page == Some(0)
    }
}

fn not_a_list(what: &str) -> ReadError {
    ReadError::new(ReasonCode::NotAListResponse, format!("the answer is not a SCIM list: {what}"))
}

/// The error of a first page that has neither rows nor the numbers of an empty list.
pub fn no_rows() -> ReadError {
    not_a_list("it has neither `Resources` nor a total of 0")
}

/// Splits a ListResponse (RFC 7644 §3.4.2) into rows without parsing them.
///
/// # Errors
/// `not_a_list_response` for anything else: HTML, an error body with status 200, truncated JSON, UTF-16.
pub fn split_list(body: &Bytes) -> Result<ListPage, ReadError> {
    let body = utf_8(body).map_err(|what| not_a_list(&what).with_remedy("ask the vendor for JSON in UTF-8"))?;
    let fields: Fields<'_> = serde_json::from_slice(&body).map_err(|error| not_a_list(kind_of(&error)))?;
    let page = beside_rows(&fields)?;
    let resources = field(&fields, "Resources")?.map(RawValue::get).filter(|text| *text != "null");
    let rows = match resources {
        None => Vec::new(),
        Some(text) => {
            let rows: Bounded<&RawValue, PAGE_ROWS_MAX> = serde_json::from_str(text)
                .map_err(|_| not_a_list("`Resources` is not a list, or longer than any page"))?;
            rows.0.into_iter().map(|row| raw_row(body.slice_ref(row.get().as_bytes()))).collect()
        }
    };
    Ok(ListPage { rows, has_resources: resources.is_some(), ..page })
}

/// What a page says beside its rows.
///
/// # Errors
/// The object is an error, or says two things of one attribute.
pub(super) fn beside_rows(fields: &Fields<'_>) -> Result<ListPage, ReadError> {
    if field(fields, "schemas")?.is_some_and(names_an_error) {
        return Err(not_a_list("it is a SCIM error with status 200"));
    }
    let number =
        |name| Ok::<_, ReadError>(field(fields, name)?.and_then(|raw| raw.get().trim_matches('"').parse::<u64>().ok()));
    let (total, items_per_page) = (number("totalResults")?, number("itemsPerPage")?);
    let next_cursor = field(fields, "nextCursor")?.and_then(text).map(std::borrow::Cow::into_owned);
    let next_cursor = next_cursor.filter(|cursor| !cursor.is_empty() && cursor.len() <= CURSOR_BYTES_MAX);
    Ok(ListPage { rows: Vec::new(), has_resources: false, total, items_per_page, next_cursor })
}

fn field<'f>(fields: &Fields<'f>, name: &str) -> Result<Option<&'f RawValue>, ReadError> {
    fields.agreed(name).map_err(|()| not_a_list(&format!("it has two `{name}`")))
}

/// A resource with the hash it is recognised by.
pub fn raw_row(bytes: Bytes) -> RawRow {
    // Zero is not a hash: one resource in 2^128 shares its hash with another, which is as good as none.
    let hash = RawHash::new(xxh3_128(&bytes)).unwrap_or(RawHash::MIN);
    RawRow { hash, bytes: RowBytes::Sent(bytes) }
}

/// The body without a byte order mark.
///
/// # Errors
/// Names the encoding if it is not UTF-8, which JSON has to be (RFC 8259 §8.1).
pub fn utf_8(body: &Bytes) -> Result<Bytes, String> {
    let not_utf_8 = |what: &str| format!("it is {what}, not UTF-8 (RFC 8259 §8.1)");
    match &body[..] {
        [0xEF, 0xBB, 0xBF, ..] => return utf_8(&body.slice(BYTE_ORDER_MARK.len()..)),
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] | [0, 0, 0, _, ..] | [_, 0, 0, 0, ..] => {
            return Err(not_utf_8("UTF-32"));
        }
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [0, _, ..] | [_, 0, ..] => return Err(not_utf_8("UTF-16")),
        _ => {}
    }
    match std::str::from_utf8(body) {
        Ok(_) => Ok(body.clone()),
        Err(_) => Err(not_utf_8("not text, or text in another encoding")),
    }
}

/// True if one of the schemas is that of an error. One text counts as a list of one; other values are ignored.
fn names_an_error(schemas: &RawValue) -> bool {
    let is_error = |schema: &str| schema.to_ascii_lowercase().ends_with(":error");
    if let Some(schema) = text(schemas) {
        return is_error(&schema);
    }
    let list: Option<Bounded<Text<'_>, SCHEMAS_MAX>> = serde_json::from_str(schemas.get()).ok();
    list.is_some_and(|Bounded(schemas)| schemas.iter().any(|Text(schema)| is_error(schema)))
}

/// What a SCIM error says to programs: its `scimType` (RFC 7644 §3.12), in small letters. Its `detail` is text of the
/// server, which never leaves this process.
pub fn scim_type(body: &[u8]) -> Option<String> {
    /// The longest that RFC 7644 and RFC 9865 name has 13.
    const SCIM_TYPE_BYTES_MAX: usize = 64;
    let body = std::str::from_utf8(body).ok()?;
    let said = text_or_number(only_field(body, "scimType")?)?;
    (said.len() <= SCIM_TYPE_BYTES_MAX).then(|| said.to_ascii_lowercase())
}

/// True for a SCIM error that refuses a cursor (RFC 9865 §2.1), in any spelling.
pub fn refuses_cursor(body: &[u8]) -> bool {
    scim_type(body).is_some_and(|said| matches!(said.as_str(), "expiredcursor" | "invalidcursor"))
}

fn kind_of(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => "it is not a JSON object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<ListPage, ReadError> {
        split_list(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_list_is_split_whatever_its_spelling_and_anything_else_is_refused() {
        let page = split(r#"{"resources":[{"id":"1"}, {"id":"2"}],"TotalResults":"2"}"#).unwrap();
        assert_eq!((page.rows.len(), page.total), (2, Some(2)));
        assert_eq!(page.rows[1].bytes, RowBytes::Sent(Bytes::from_static(br#"{"id":"2"}"#)));
        assert_eq!(split(r#"{"totalResults":0}"#).unwrap().rows.len(), 0);
        assert_eq!(split(r#"{"totalResults":-3,"Resources":[]}"#).unwrap().total, None);
        for text in [
            "<html>",
            "[]",
            "",
            r#"{"totalResults":5,"Resources":{}}"#,
            r#"{"Resources":[{"id":"1"}"#,
            r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"totalResults":0}"#,
            r#"{"schemas":"urn:ietf:params:scim:api:messages:2.0:Error","totalResults":0}"#,
        ] {
            assert_eq!(split(text).unwrap_err().code, ReasonCode::NotAListResponse, "{text}");
        }
    }

    #[test]
    fn a_page_without_rows_is_an_answer_if_its_numbers_say_that_there_are_none() {
        for (text, expected) in [
            (r#"{}"#, false),
            (r#"{"totalResults":5}"#, false),
            (r#"{"totalResults":5,"Resources":null}"#, false),
            (r#"{"totalResults":5,"Resources":[]}"#, true),
            (r#"{"totalResults":0}"#, true),
            (r#"{"totalResults":5,"itemsPerPage":0}"#, true),
            (r#"{"nextCursor":"x"}"#, true),
            (r#"{"totalResults":0,"Resources":null}"#, true),
        ] {
            assert_eq!(split(text).unwrap().is_an_answer(), expected, "{text}");
        }
    }

    #[test]
    fn schemas_of_a_list_may_be_a_text_null_or_nonsense() {
        for schemas in ["\"urn:x:ListResponse\"", "null", "7", "{}", "[null]", "[1,2]"] {
            let page = split(&format!(r#"{{"schemas":{schemas},"totalResults":1,"Resources":[{{"id":"1"}}]}}"#));
            assert_eq!(page.unwrap().rows.len(), 1, "{schemas}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_ignored_and_other_encodings_are_named() {
        let text = r#"{"totalResults":0,"Resources":[]}"#;
        assert!(split(&format!("\u{FEFF}{text}")).is_ok());
        let utf_16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let (little, big) = (utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes));
        let marked = [vec![0xFF, 0xFE], little.clone()].concat();
        for bytes in [little, big, marked] {
            let error = split_list(&bytes.into()).unwrap_err();
            assert!(error.problem.what.contains("UTF-16, not UTF-8"), "{error}");
        }
        let latin_1 = [b"{\"a\":\"Zo", &[0xEB][..], b"\"}"].concat();
        assert!(split_list(&latin_1.into()).unwrap_err().problem.what.contains("not UTF-8"));
    }

    #[test]
    fn a_scim_type_is_read_whatever_is_beside_it() {
        assert_eq!(scim_type(br#"{"detail":"x","scimtype":"tooMany"}"#).as_deref(), Some("toomany"));
        assert!(refuses_cursor(br#"{"scimType":"ExpiredCursor"}"#));
        for body in [&b"<html>"[..], b"{}", b"[]", b"{\"scimType\":{\"\":0}}", b"\xFF"] {
            assert_eq!(scim_type(body), None);
        }
    }
}
