//! JSON as servers send it, read piece by piece: an object is split into names and unparsed values, a text is unescaped
//! only if it is wanted. Nothing here grows beyond the bytes that it reads.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Attributes of one object; the schemas of RFC 7643 have about thirty.
pub const ATTRIBUTES_MAX: usize = 500;

/// Attributes of most objects inside a resource.
const OBJECT_CAPACITY: usize = 6;

/// Bytes of a value that is read.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Arrays and objects inside each other. Each takes its share of the stack.
pub const VALUE_NESTING_MAX: usize = 16;

/// A JSON object as (name, unparsed value) pairs, in the server's order.
pub(crate) struct Fields<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(OBJECT_CAPACITY);
                while let Some(Text(name)) = map.next_key()? {
                    if fields.len() == ATTRIBUTES_MAX {
                        return Err(A::Error::custom("too many attributes"));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'a> Fields<'a> {
    /// The fields of an object; `None` for anything else.
    pub(crate) fn of(raw: &'a RawValue) -> Option<Fields<'a>> {
        serde_json::from_str(raw.get()).ok()
    }

    /// Attribute names ignore case (RFC 7643 §2.1).
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// As [`Fields::get`]; an error if the object says two different things, because neither can be preferred.
    pub(crate) fn agreed(&self, name: &str) -> Result<Option<&'a RawValue>, ()> {
        let mut values = self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        let first = values.next();
        let differs = |value: &RawValue| first.is_some_and(|first| first.get() != value.get());
        if values.any(differs) { Err(()) } else { Ok(first) }
    }
}

/// A JSON array of at most `MAX` elements. A longer one ends the reading: a body of the permitted size could hold so
/// many that a list of them alone would fill the memory.
pub(crate) struct Bounded<T, const MAX: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    if elements.len() == MAX {
                        return Err(A::Error::custom("too many elements"));
                    }
                    elements.push(element);
                }
                Ok(Bounded(elements))
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// A JSON string that borrows unless it holds an escape. Half a surrogate pair, as a name cut inside an emoji leaves
/// it, becomes U+FFFD: `serde_json` gives bytes where it would refuse a `str`.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON string")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Text(without_surrogates(bytes)))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(without_surrogates(bytes).into_owned())))
            }

            // Names of fields come as `str`.
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// WTF-8 as text. Its only bytes that are not UTF-8 are surrogates, which are three bytes long and begin with 0xED.
fn without_surrogates(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if chunk.invalid().first() == Some(&0xED) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Cow::Owned(text)
}

/// The text of a JSON string; `None` for any other value.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    text_of(raw.get())
}

/// As [`text`], of what is known to be JSON.
pub(crate) fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(|Text(text)| text)
}

/// A string as JSON text (RFC 8259 §7).
pub(crate) fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_json_text(&mut json, text);
    json
}

/// As [`json_text`], behind what is there.
pub(crate) fn push_json_text(json: &mut String, text: &str) {
    json.push('"');
    let plain = !text.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\'));
    if plain {
        json.push_str(text);
        json.push('"');
        return;
    }
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            control if (control as u32) < 0x20 => json.push_str(&format!("\\u{:04x}", control as u32)),
            other => json.push(other),
        }
    }
    json.push('"');
}

pub(crate) fn is_number(raw: &RawValue) -> bool {
    matches!(raw.get().as_bytes().first(), Some(b'-' | b'0'..=b'9'))
}

/// A text, or a number with the digits as they were written; `None` if it is empty, and for any other value.
pub(crate) fn text_or_number(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = if is_number(raw) { Some(Cow::Borrowed(raw.get())) } else { text(raw) };
    text.filter(|text| !text.is_empty())
}

/// The value of one field of an object, whatever else the object holds: nothing else of it is kept.
/// `None`: there is no such field, or two that differ, or this is not an object.
pub(crate) fn only_field<'a>(json: &'a str, wanted: &str) -> Option<&'a RawValue> {
    struct Only<'w>(&'w str);
    impl<'de> Visitor<'de> for Only<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found: Option<&RawValue> = None;
            let mut contradicted = false;
            while let Some(Text(name)) = map.next_key()? {
                if !name.eq_ignore_ascii_case(self.0) {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                let value: &RawValue = map.next_value()?;
                contradicted |= found.is_some_and(|found| found.get() != value.get());
                found = Some(value);
            }
            Ok(found.filter(|_| !contradicted))
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(Only(wanted)).ok().flatten()
}

/// A value as written. Numbers keep their digits: what a server means by `1.0` is not known here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Json<'t> {
    Null,
    Bool(bool),
    Number(&'t str),
    Text(Cow<'t, str>),
    Array(Vec<Json<'t>>),
    /// In the order of the text, and with names that occur twice.
    Object(Vec<Field<'t>>),
}

pub(crate) type Field<'t> = (Cow<'t, str>, Json<'t>);

impl<'t> Json<'t> {
    /// `None` where the text is not JSON, or more than is read.
    pub(crate) fn read(text: &'t str) -> Option<Json<'t>> {
        if text.len() > VALUE_BYTES_MAX {
            return None;
        }
        Json::of(serde_json::from_str(text).ok()?, VALUE_NESTING_MAX)
    }

    /// `nesting`: arrays and objects that may still be inside each other.
    fn of(raw: &'t RawValue, nesting: usize) -> Option<Json<'t>> {
        let json = raw.get();
        Some(match json.as_bytes().first()? {
            b'{' => {
                let nesting = nesting.checked_sub(1)?;
                let member = |(name, value)| Some((name, Json::of(value, nesting)?));
                Json::Object(Fields::of(raw)?.0.into_iter().map(member).collect::<Option<_>>()?)
            }
            b'[' => {
                let nesting = nesting.checked_sub(1)?;
                let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
                Json::Array(elements.into_iter().map(|element| Json::of(element, nesting)).collect::<Option<_>>()?)
            }
            b'"' => Json::Text(text(raw)?),
            b't' => Json::Bool(true),
            b'f' => Json::Bool(false),
            b'n' => Json::Null,
            _ => Json::Number(json),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn half_a_character_becomes_a_replacement_character() {
        assert_eq!(text(raw(r#""Ann \ud83d""#)).unwrap(), "Ann \u{FFFD}");
        assert_eq!(text(raw(r#""\ude00\ud83d x \ud83d\ude00""#)).unwrap(), "\u{FFFD}\u{FFFD} x \u{1F600}");
        assert_eq!(text(raw(r#""plain""#)).unwrap(), "plain");
        assert_eq!(text(raw("7")), None);
    }

    #[test]
    fn one_field_is_found_among_any_number_of_others() {
        let many = format!("{{{}\"ID\":\"7\"}}", "\"\":0,".repeat(ATTRIBUTES_MAX * 10));
        assert_eq!(only_field(&many, "id").unwrap().get(), "\"7\"");
        assert!(only_field(r#"{"id":"1","ID":"2"}"#, "id").is_none());
        assert!(only_field(r#"{"id":"1","ID":"1"}"#, "id").is_some());
        assert!(only_field("[1]", "id").is_none() && only_field("{}", "id").is_none());
    }
}
