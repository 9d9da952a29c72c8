//! One JSON value of a resource as servers really write it: ids, texts, truth values, times, and what is nothing.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::directory::Id;
use crate::json::{Bounded, Fields, is_number, json_text, only_field, push_json_text, text, text_or_number};

/// Bytes of an id; SCIM ids are opaque but short, and keys hold them percent-encoded.
pub const ID_BYTES_MAX: usize = 1_024;
/// Values of one multi-valued attribute; one that has more is left out whole.
pub const ELEMENTS_MAX: usize = 50_000;
/// Objects inside objects of one attribute; RFC 7643 §2.3.8 knows one level. Each takes its share of the stack.
pub const NESTING_MAX: usize = 8;

/// An id: a text or a number. Numbers keep their digits, because two ids beyond 2^64 must not become one.
pub(super) fn id(raw: &RawValue) -> Option<Id> {
    usable_id(&text_or_number(raw)?)
}

pub(super) fn usable_id(id: &str) -> Option<Id> {
    // `.` and `..` cannot be a part of a URL's path, however they are encoded. An id that had half a character is not
    // the one that the server knows.
    let length = 1..=ID_BYTES_MAX;
    let usable = length.contains(&id.len()) && id != "." && id != ".." && !id.contains(char::REPLACEMENT_CHARACTER);
    usable.then(|| Id::from(id))
}

/// The `id` of a resource alone, e.g. to compare it with the id that was asked for.
pub fn id_of(bytes: &[u8]) -> Option<Id> {
    id(only_field(std::str::from_utf8(bytes).ok()?, "id")?)
}

/// A text; `None` if there is nothing.
///
/// # Errors
/// Something else, which is not nothing.
pub(super) fn read_text(raw: &RawValue) -> Result<Option<String>, ()> {
    let read = text_or_number(raw).map(Cow::into_owned);
    if read.is_some() || is_nothing(raw) { Ok(read) } else { Err(()) }
}

/// Boolean as servers really send it; anything else is unknown, never "inactive".
pub(super) fn read_active(raw: &RawValue) -> Option<bool> {
    let said = if is_number(raw) { Cow::Borrowed(raw.get()) } else { text(raw).unwrap_or(Cow::Borrowed(raw.get())) };
    match &*said {
        "1" if is_number(raw) => Some(true),
        "0" if is_number(raw) => Some(false),
        said if said.eq_ignore_ascii_case("true") => Some(true),
        said if said.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Milliseconds since 1970-01-01 UTC; `None` if the text is not a time with an offset.
pub(super) fn read_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// True for what servers write for an absent value: null, an empty text, list or object.
pub(super) fn is_nothing(raw: &RawValue) -> bool {
    let json = raw.get();
    json == "null"
        || json == "\"\""
        || json == "[]"
        || (json.starts_with('{') && json[1..].trim_start().starts_with('}'))
}

/// A sub-attribute as RFC 7643 §2.4 spells it.
pub(super) fn standard_name(name: &str) -> &str {
    const STANDARD: [&str; 5] = ["value", "display", "type", "primary", "displayName"];
    STANDARD.into_iter().find(|standard| standard.eq_ignore_ascii_case(name)).unwrap_or(name)
}

/// A value without nulls and empty lists, which are equal to absence (RFC 7643 §2.5), and with sorted names; `None`
/// if nothing is left. Numbers keep the digits that the server wrote.
pub(super) fn canonical(raw: &RawValue, nesting: usize) -> Result<Option<String>, ()> {
    let json = raw.get();
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'[' | b'{') if nesting == 0 => Err(()),
        Some(b'[') => {
            let Bounded(elements): Bounded<&RawValue, ELEMENTS_MAX> = serde_json::from_str(json).map_err(|_| ())?;
            let elements: Result<Vec<Option<String>>, ()> =
                elements.into_iter().map(|element| canonical(element, nesting - 1)).collect();
            let elements: Vec<String> = elements?.into_iter().flatten().collect();
            Ok((!elements.is_empty()).then(|| array(&elements)))
        }
        Some(b'{') => canonical_object(raw, nesting, &|_| true),
        // A text without an escape is its own canonical form.
        Some(b'"') if json.contains('\\') => Ok(text(raw).map(|text| json_text(&text))),
        _ => Ok(Some(json.to_owned())),
    }
}

/// An array of JSON values.
pub(super) fn array(values: &[String]) -> String {
    let mut json = String::with_capacity(2 + values.iter().map(|value| value.len() + 1).sum::<usize>());
    json.push('[');
    for (place, value) in values.iter().enumerate() {
        json.extend((place > 0).then_some(','));
        json.push_str(value);
    }
    json.push(']');
    json
}

/// As [`canonical`]; `keeps` says which of its attributes may be kept. `$ref` names a host and is never one of them.
pub(super) fn canonical_object(
    raw: &RawValue,
    nesting: usize,
    keeps: &dyn Fn(&str) -> bool,
) -> Result<Option<String>, ()> {
    let fields = Fields::of(raw).ok_or(())?;
    let mut pairs: Vec<(&str, String)> = Vec::with_capacity(fields.0.len());
    for (name, raw) in &fields.0 {
        let name = standard_name(name);
        if name != "$ref" && keeps(name) {
            let value = canonical(raw, nesting.checked_sub(1).ok_or(())?)?;
            pairs.extend(value.map(|value| (name, value)));
        }
    }
    pairs.sort_unstable();
    // Of two values of one name the smaller is kept, in every order.
    pairs.dedup_by(|later, first| later.0 == first.0);
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut json = String::with_capacity(raw.get().len() + 2);
    json.push('{');
    for (place, (name, value)) in pairs.iter().enumerate() {
        json.extend((place > 0).then_some(','));
        push_json_text(&mut json, name);
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
    Ok(Some(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_digits_and_unusable_ones_are_refused() {
        let read = |json: &str| id(serde_json::from_str(json).unwrap()).map(|id| id.to_string());
        assert_eq!(read("18391303205636094465001").as_deref(), Some("18391303205636094465001"));
        assert_eq!(read("\"a\\/b\"").as_deref(), Some("a/b"));
        assert_eq!(read("-7").as_deref(), Some("-7"));
        let long = format!("\"{}\"", "x".repeat(ID_BYTES_MAX + 1));
        for json in ["\"\"", "null", "true", "[]", "{}", "{\"\":0}", "\".\"", "\"..\"", "\"\\ud83d\"", long.as_str()] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
