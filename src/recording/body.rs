//! A JSON body with its shape, without its data.

use bytes::Bytes;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::placeholders::{Placeholders, is_urn};
use super::words;
use crate::json::{Fields, VALUE_NESTING_MAX, text};
use crate::scim::envelope;

/// JSON as it is written: objects keep their order, and names that occur twice.
#[derive(Debug)]
pub(super) enum Shown {
    Null,
    Bool(bool),
    /// A JSON number.
    Number(Box<RawValue>),
    Text(String),
    Array(Vec<Shown>),
    Object(Vec<(String, Shown)>),
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shown::Null => serializer.serialize_unit(),
            Shown::Bool(value) => serializer.serialize_bool(*value),
            Shown::Number(number) => number.serialize(serializer),
            Shown::Text(text) => serializer.serialize_str(text),
            Shown::Array(elements) => {
                let mut array = serializer.serialize_seq(Some(elements.len()))?;
                elements.iter().try_for_each(|element| array.serialize_element(element))?;
                array.end()
            }
            Shown::Object(fields) => {
                let mut object = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| object.serialize_entry(name, value))?;
                object.end()
            }
        }
    }
}

/// The JSON of a body; `None`: it is not JSON in UTF-8.
pub(super) fn json(body: &Bytes) -> Option<Bytes> {
    let body = envelope::utf_8(body).ok()?;
    serde_json::from_slice::<&RawValue>(&body).ok()?;
    Some(body)
}

/// What is shown of a JSON text; `None`: it is not JSON, or has more names or nesting than is read.
pub(super) fn shown(json: &[u8], placeholders: &mut Placeholders) -> Option<Shown> {
    Around { parent: "", name: "" }.show(serde_json::from_slice(json).ok()?, VALUE_NESTING_MAX, placeholders)
}

/// Where a value is: the attribute that it is of, and the one around that.
#[derive(Clone, Copy)]
struct Around<'n> {
    parent: &'n str,
    name: &'n str,
}

impl Around<'_> {
    fn show(self, raw: &RawValue, nesting: usize, placeholders: &mut Placeholders) -> Option<Shown> {
        let json = raw.get();
        Some(match json.as_bytes().first()? {
            b'{' => {
                let nesting = nesting.checked_sub(1)?;
                let mut fields = Vec::new();
                for (name, value) in Fields::of(raw)?.0 {
                    let around = Around { parent: self.name, name: &name };
                    let shown = around.show(value, nesting, placeholders)?;
                    fields.push((placeholders.name(&name), shown));
                }
                Shown::Object(fields)
            }
            b'[' => {
                let nesting = nesting.checked_sub(1)?;
                let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
                let shown = elements.into_iter().map(|element| self.show(element, nesting, placeholders));
                Shown::Array(shown.collect::<Option<_>>()?)
            }
            b'"' => Shown::Text(self.text(&text(raw)?, placeholders)),
            b't' => Shown::Bool(true),
            b'f' => Shown::Bool(false),
            b'n' => Shown::Null,
            _ if words::is_count(self.parent, self.name, json) => Shown::Number(raw.to_owned()),
            _ => Shown::Number(RawValue::from_string(placeholders.number(json)).ok()?),
        })
    }

    fn text(self, text: &str, placeholders: &mut Placeholders) -> String {
        let Around { parent, name } = self;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let names_follow = ["attributes", "subAttributes", "excludedAttributes"];
        if words::is_word_of(parent, name, text) {
            text.to_owned()
        } else if is_urn(text) && (is("schemas") || is("schema") || is("id")) {
            placeholders.urn(text)
        } else if names_follow.iter().any(|of| is(of) || is("name") && parent.eq_ignore_ascii_case(of)) {
            // Of a request, or of a schema's own attributes.
            placeholders.name(text)
        } else if (is("$ref") || is("ref") || is("location") || is("endpoint")) && !text.contains("://") {
            placeholders.path(text)
        } else if is("filter") && parent.is_empty() {
            placeholders.parameter("filter", text).1
        } else if let Some(version) = text.strip_prefix("W/").filter(|_| is("version")) {
            format!("W/{}", placeholders.text(version))
        } else {
            placeholders.text(text)
        }
    }
}

/// Tells the placeholders what the bodies say of the company: the domains of addresses and hosts, and organisations.
pub(super) fn tell(json: &[u8], placeholders: &mut Placeholders) {
    if let Ok(raw) = serde_json::from_slice(json) {
        tell_raw(raw, "", VALUE_NESTING_MAX, placeholders);
    }
}

fn tell_raw(raw: &RawValue, name: &str, nesting: usize, placeholders: &mut Placeholders) {
    let Some(nesting) = nesting.checked_sub(1) else { return };
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            for (name, value) in Fields::of(raw).map(|fields| fields.0).unwrap_or_default() {
                tell_raw(value, &name, nesting, placeholders);
            }
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
            elements.into_iter().for_each(|element| tell_raw(element, name, nesting, placeholders));
        }
        Some(b'"') => {
            let text = text(raw).unwrap_or_default();
            if let Some((_, rest)) = text.split_once("://") {
                placeholders.tells(rest.split(['/', '?', '#']).next().unwrap_or_default());
            } else if let Some((_, domain)) = text.rsplit_once('@') {
                placeholders.tells(domain);
            } else if ["organization", "company", "division"].iter().any(|of| name.eq_ignore_ascii_case(of)) {
                placeholders.tells(&text);
            }
        }
        _ => {}
    }
}

/// Declares the names and schemas of an answer of `/Schemas`: `attributes[].name`, `subAttributes[].name` and `id`.
pub(super) fn declare(json: &[u8], placeholders: &mut Placeholders) {
    if let Ok(raw) = serde_json::from_slice(json) {
        declare_raw(raw, "", VALUE_NESTING_MAX, placeholders);
    }
}

fn declare_raw(raw: &RawValue, name: &str, nesting: usize, placeholders: &mut Placeholders) {
    let Some(nesting) = nesting.checked_sub(1) else { return };
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            let fields = Fields::of(raw).map(|fields| fields.0).unwrap_or_default();
            let of_a_schema = ["attributes", "subAttributes"].iter().any(|of| name.eq_ignore_ascii_case(of));
            for (field, value) in fields {
                let said = text(value).unwrap_or_default();
                if of_a_schema && field.eq_ignore_ascii_case("name")
                    || field.eq_ignore_ascii_case("id") && is_urn(&said)
                {
                    placeholders.declare(&said);
                } else {
                    declare_raw(value, &field, nesting, placeholders);
                }
            }
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
            elements.into_iter().for_each(|element| declare_raw(element, name, nesting, placeholders));
        }
        _ => {}
    }
}
