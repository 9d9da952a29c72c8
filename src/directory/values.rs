//! Values of attributes as JSON text, and when two of them are the same.
//!
//! A value that is larger or deeper than `Json::read` reads is compared by its text. Names of sub-attributes ignore
//! case (RFC 7643 §2.1).

use std::borrow::Cow;

use crate::json::{Field, Json, json_text};

/// The attributes of RFC 7643 §4.1.2, of which servers also send one value without its array.
const MULTI_VALUED: [&str; 9] =
    ["emails", "phoneNumbers", "ims", "photos", "addresses", "groups", "entitlements", "roles", "x509Certificates"];

/// True where the path (RFC 7644 §3.10) is this attribute, or something in it: `emails.value` belongs to `emails`.
pub fn belongs_to(path: &str, attribute: &str) -> bool {
    path.get(..attribute.len()).is_some_and(|head| head.eq_ignore_ascii_case(attribute))
        && matches!(path.as_bytes().get(attribute.len()), None | Some(b'.'))
}

/// The form in which two values of one attribute are compared. It leaves out what is published but is not a change:
///
/// - what is not there (RFC 7643 §2.5): null, and what is empty;
/// - `$ref`, which names a host, and beside a `value` what that one is called: `display`, `displayName`;
/// - the order of elements and of sub-attributes, the case of their names, and elements that are there twice;
/// - whether `primary` is a boolean or a text, and, of a multi-valued attribute, whether one value is in an array
///   and whether a bare value is in an object.
///
/// What cannot be read is its own form.
pub fn comparable<'v>(path: &str, value: &'v str) -> Cow<'v, str> {
    let is_multi_valued = MULTI_VALUED.iter().any(|name| name.eq_ignore_ascii_case(path));
    if is_multi_valued && matches!(value, "null" | "\"\"") {
        return Cow::Borrowed("[]");
    }
    if let Some(primary) = flattened_primary(path, value) {
        return Cow::Borrowed(primary);
    }
    // Without an escape a scalar is written in one way only.
    if !value.trim_start_matches(|c: char| c.is_ascii_whitespace()).starts_with(['[', '{']) && !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let Some(json) = Json::read(value) else { return Cow::Borrowed(value) };
    let is_object = matches!(json, Json::Object(_));
    let settled = match json.settled("", Twice::Once) {
        None if is_object && !is_multi_valued => Json::Object(Vec::new()),
        None => Json::Array(Vec::new()),
        Some(json) if is_multi_valued => json.into_list(),
        Some(json) => json,
    };
    let mut text = String::with_capacity(value.len());
    settled.write(&mut text);
    if text == value { Cow::Borrowed(value) } else { Cow::Owned(text) }
}

/// `primary` of one value that is not in an array, where that is a boolean written as a text.
fn flattened_primary(path: &str, value: &str) -> Option<&'static str> {
    let (_, name) = path.rsplit_once('.')?;
    let text = value.strip_prefix('"')?.strip_suffix('"').filter(|_| name.eq_ignore_ascii_case("primary"))?;
    match text {
        text if text.eq_ignore_ascii_case("true") => Some("true"),
        text if text.eq_ignore_ascii_case("false") => Some("false"),
        _ => None,
    }
}

/// What becomes of elements that are there twice.
#[derive(Clone, Copy)]
pub(super) enum Twice {
    Once,
    /// Two that show the same may differ in what they do not show.
    Kept,
}

impl<'t> Json<'t> {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The values under this name; of anything but an object none.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Json<'t>> {
        let members = match self {
            Json::Object(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Of one value that is not in an array, itself.
    pub(super) fn elements(self) -> Vec<Json<'t>> {
        match self {
            Json::Array(elements) => elements,
            one => vec![one],
        }
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Json::Array(_) | Json::Object(_))
    }

    /// What of the value of this sub-attribute is compared, in one order; `None` where that is nothing.
    pub(super) fn settled(self, name: &str, twice: Twice) -> Option<Json<'t>> {
        match self {
            Json::Null => None,
            Json::Text(text) if text.is_empty() => None,
            Json::Text(text) if name == "primary" => Some(boolean(text)),
            Json::Array(elements) => {
                let settle = |element: Json<'t>| element.settled("", twice);
                let mut elements: Vec<_> = elements.into_iter().filter_map(settle).collect();
                elements.sort_unstable();
                if let Twice::Once = twice {
                    elements.dedup();
                }
                (!elements.is_empty()).then_some(Json::Array(elements))
            }
            Json::Object(members) => {
                let members = settled_members(members, twice);
                (!members.is_empty()).then_some(Json::Object(members))
            }
            scalar => Some(scalar),
        }
    }

    /// A value of this kind that shows nothing.
    pub(super) fn empty(&self) -> Json<'t> {
        match self {
            Json::Array(_) => Json::Array(Vec::new()),
            Json::Object(_) => Json::Object(Vec::new()),
            _ => Json::Null,
        }
    }

    /// The values of a multi-valued attribute, in the shortest way to write them: one bare value without an array.
    fn into_list(self) -> Json<'t> {
        let mut elements: Vec<_> = self.elements().into_iter().map(Json::bare).collect();
        elements.sort_unstable();
        elements.dedup();
        match elements.pop() {
            Some(one) if elements.is_empty() && one.is_scalar() => one,
            last => {
                elements.extend(last);
                Json::Array(elements)
            }
        }
    }

    /// The value of an object that has nothing else.
    fn bare(self) -> Json<'t> {
        match self {
            Json::Object(mut members) if members.len() == 1 => match members.pop() {
                Some((name, value)) if name == "value" && value.is_scalar() => value,
                other => Json::Object(other.into_iter().collect()),
            },
            other => other,
        }
    }

    fn write(&self, into: &mut String) {
        match self {
            Json::Null => into.push_str("null"),
            Json::Bool(true) => into.push_str("true"),
            Json::Bool(false) => into.push_str("false"),
            Json::Number(digits) => into.push_str(digits),
            Json::Text(text) => into.push_str(&json_text(text)),
            Json::Array(elements) => {
                into.push('[');
                for (index, element) in elements.iter().enumerate() {
                    into.push_str(if index == 0 { "" } else { "," });
                    element.write(into);
                }
                into.push(']');
            }
            Json::Object(members) => {
                into.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    into.push_str(if index == 0 { "" } else { "," });
                    into.push_str(&json_text(name));
                    into.push(':');
                    value.write(into);
                }
                into.push('}');
            }
        }
    }
}

/// `primary` as some servers write it.
fn boolean(text: Cow<'_, str>) -> Json<'_> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Json::Bool(true),
        text if text.eq_ignore_ascii_case("false") => Json::Bool(false),
        text => Json::Text(text),
    }
}

fn settled_members<'t>(members: Vec<Field<'t>>, twice: Twice) -> Vec<Field<'t>> {
    let settle = |(name, value): Field<'t>| {
        let name = lower_case(name);
        let value = value.settled(&name, twice).filter(|_| name != "$ref")?;
        Some((name, value))
    };
    let mut members: Vec<_> = members.into_iter().filter_map(settle).collect();
    if members.iter().any(|(name, _)| name == "value") {
        members.retain(|(name, _)| name != "display" && name != "displayname");
    }
    members.sort_unstable();
    members.dedup();
    members
}

fn lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(name.to_ascii_lowercase()) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{compatible, main_email};
    use crate::json::{VALUE_BYTES_MAX, VALUE_NESTING_MAX};
    use proptest::prelude::*;

    #[test]
    fn what_is_not_json_or_beyond_the_bounds_is_unreadable() {
        for text in [
            "",
            " ",
            "a@x",
            "[",
            "[\"a@x\"",
            "[\"a@x\",]",
            "[\"a@x\"]]",
            "[\"a@x\" \"b@x\"]",
            "[\"a@x\",01]",
            "{\"value\" \"a@x\"}",
            "{value:\"a@x\"}",
            "\"a\n@x\"",
            "\"a@x\\u12\"",
            "\u{feff}\"a@x\"",
        ] {
            assert_eq!(main_email(text), None, "{text}");
            assert_eq!(comparable("emails", text), text);
        }
        let nested = |depth: usize| format!("{}\"a@x\"{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::read(&nested(VALUE_NESTING_MAX)).is_some());
        for depth in [VALUE_NESTING_MAX + 1, 100_000] {
            assert_eq!(Json::read(&nested(depth)), None);
            assert_eq!(Json::read(&"[".repeat(depth)), None);
            assert_eq!(Json::read(&"{\"a\":".repeat(depth)), None);
        }
        let long = |length: usize| format!("\"{}\"", "a".repeat(length - 2));
        assert!(main_email(&long(VALUE_BYTES_MAX)).is_some());
        assert_eq!(main_email(&long(VALUE_BYTES_MAX + 1)), None);
    }

    #[test]
    fn numbers_are_read_and_keep_their_digits() {
        for digits in ["0", "-0", "10", "1.0", "1.50", "-1e5", "1E+5", "0.1e-2", "123456789012345678901234567890"] {
            assert_eq!(Json::read(digits), Some(Json::Number(digits)));
            assert_eq!(comparable("a", &format!("[ {digits} ]")), format!("[{digits}]"));
        }
    }

    #[test]
    fn a_path_belongs_to_its_attribute() {
        for (path, belongs) in [
            ("emails", true),
            ("Emails.value", true),
            ("emails2", false),
            ("email", false),
            ("urn:x:emails", false),
            ("", false),
        ] {
            assert_eq!(belongs_to(path, "emails"), belongs, "{path}");
        }
    }

    #[test]
    fn what_is_no_change_is_not_compared() {
        for (path, one, other) in [
            // Not there, and empty.
            ("name", r#"{"a":1,"b":null,"c":[],"d":{},"e":"","f":[null,{"g":""}]}"#, r#"{"a":1}"#),
            ("x", r#"[null,"",{},[],1]"#, "[1]"),
            // Order, case of names, twice.
            ("x", r#"[{"b":1,"A":2},3,3]"#, r#"[3,{"a":2,"B":1}]"#),
            ("x", r#"[{"value":"a","type":"t"},{"Type":"t","VALUE":"a"}]"#, r#"[{"type":"t","value":"a"}]"#),
            // The name of the other end of a reference, and its URL.
            ("manager", r#"{"value":"1","displayName":"N","$ref":"http://a/1"}"#, r#"{"Value":"1","$REF":"b"}"#),
            ("x", r#"[{"value":"1","DISPLAY":"N","type":"t"}]"#, r#"[{"value":"1","display":"M","type":"t"}]"#),
            ("roles", r#"[{"value":"a","display":"A"},{"value":"a","display":"B"}]"#, r#""a""#),
            // `primary`.
            ("emails", r#"[{"value":"a","primary":"True"}]"#, r#"[{"value":"a","primary":true}]"#),
            ("x", r#"{"Primary":"FALSE"}"#, r#"{"primary":false}"#),
            ("emails.Primary", r#""True""#, "true"),
            // One and many, bare and in an object.
            ("EMAILS", r#""a""#, r#"[{"value":"a"}]"#),
            ("emails", r#"{"value":"a","type":"t"}"#, r#"[{"type":"t","value":"a"}]"#),
            ("roles", r#"["b",{"value":"a"}]"#, r#"["a","b"]"#),
            ("roles", r#"["a","a"]"#, r#"{"value":"a","display":"A"}"#),
            ("x509certificates", r#"[{"value":"a"}]"#, r#"["a"]"#),
            ("roles", "null", "[]"),
            ("roles", "{}", r#"[{"value":null}]"#),
            ("roles", r#""""#, "[]"),
            // Escapes.
            ("title", r#""\u0061\/""#, r#""a/""#),
            ("roles", r#""\u0061""#, r#"["a"]"#),
        ] {
            assert_eq!(comparable(path, one), comparable(path, other), "{path}: {one} {other}");
        }
    }

    #[test]
    fn what_is_a_change_is_compared() {
        for (path, one, other) in [
            ("x", r#"{"value":"a"}"#, r#"{"value":"A"}"#),
            ("x", r#"{"value":"a"}"#, r#"{"value":"a","type":"t"}"#),
            ("x", "[1]", "[1.0]"),
            ("x", "[1]", r#"["1"]"#),
            ("x", r#"{"a":true}"#, r#"{"a":"true"}"#),
            ("emails.type", "true", r#""true""#),
            ("primary", "true", r#""true""#),
            ("emails", r#"[{"value":"a","primary":true}]"#, r#"[{"value":"a","primary":false}]"#),
            // `display` without a `value` beside it.
            ("x", r#"[{"display":"A"}]"#, r#"[{"display":"B"}]"#),
            ("x", r#"[{"value":"","display":"A"}]"#, r#"[{"value":"","display":"B"}]"#),
            ("x", r#"{"display":"A","a":{"value":"1"}}"#, r#"{"display":"B","a":{"value":"1"}}"#),
            // One value is another thing than a list, unless the schema says that it is one.
            ("x", r#""a""#, r#"["a"]"#),
            ("x", r#"["a"]"#, r#"[{"value":"a"}]"#),
            ("roles", r#"["a","b"]"#, r#"["a"]"#),
            ("roles", r#"["a"]"#, r#"[["a"]]"#),
        ] {
            assert_ne!(comparable(path, one), comparable(path, other), "{path}: {one} {other}");
        }
    }

    #[test]
    fn what_is_comparable_already_is_not_copied() {
        for (path, value) in [
            ("title", r#""Analyst""#),
            ("emails", r#""a@x""#),
            ("x", "12"),
            ("x", "true"),
            ("x", r#"{"a":1,"b":[2,3]}"#),
            ("emails", r#"[{"type":"t","value":"a"}]"#),
            ("x", "[unreadable"),
            ("x", r#"\"#),
        ] {
            assert!(matches!(comparable(path, value), Cow::Borrowed(same) if same == value), "{value}");
        }
    }

    /// JSON of any shape, with names and texts that servers send.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::{Value, json};
        let texts = ["", "a", "b", "True", "false", "ä\u{1}\"\\", "\u{1f600}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            Just(json!(1.5)),
            proptest::sample::select(texts.to_vec()).prop_map(Value::from),
        ];
        let names = ["value", "Value", "type", "display", "displayName", "$ref", "primary", "Primary"];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn path() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec!["emails", "Roles", "manager", "urn:x:roles", "emails.primary"])
    }

    fn shuffled<T>(mut parts: Vec<T>, random: &mut fastrand::Rng) -> Vec<T> {
        random.shuffle(&mut parts);
        parts
    }

    /// The same value in another order, with other cases of names, with spaces.
    fn otherwise(value: &serde_json::Value, random: &mut fastrand::Rng) -> String {
        let space = [" ", "", "\n"][random.usize(..3)];
        match value {
            serde_json::Value::Array(elements) => {
                let elements = elements.iter().map(|element| otherwise(element, random)).collect();
                format!("[{space}{}]{space}", shuffled(elements, random).join(","))
            }
            serde_json::Value::Object(members) => {
                let members = members.iter().map(|(name, value)| {
                    let name = if random.bool() { name.to_ascii_uppercase() } else { name.clone() };
                    format!("{space}{}{space}:{}", json_text(&name), otherwise(value, random))
                });
                let members = members.collect();
                format!("{{{}}}", shuffled(members, random).join(","))
            }
            scalar => format!("{scalar}{space}"),
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_on_arbitrary_text(path in path(), text in any::<String>(), other in "[\\[{\"].{0,40}") {
            for text in [&text, &other] {
                main_email(text);
                let once = comparable(path, text).into_owned();
                prop_assert_eq!(comparable(path, &once).into_owned(), once);
                prop_assert!(compatible(text, text));
                compatible(&other, text);
            }
        }

        #[test]
        fn json_is_read_as_a_parser_of_json_reads_it(value in json()) {
            let text = value.to_string();
            let mut written = String::new();
            Json::read(&text).expect("it is JSON").write(&mut written);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&written).expect("it is JSON"), value);
        }

        #[test]
        fn the_comparable_form_is_its_own_and_knows_no_order(path in path(), value in json(), seed: u64) {
            let text = value.to_string();
            let once = comparable(path, &text).into_owned();
            prop_assert_eq!(comparable(path, &once).into_owned(), once.clone());
            let other = otherwise(&value, &mut fastrand::Rng::with_seed(seed));
            if value.is_array() || value.is_object() {
                prop_assert_eq!(comparable(path, &other).into_owned(), once);
            }
            prop_assert!(compatible(&text, &other), "{} {}", text, other);
        }

        #[test]
        fn what_compares_as_the_same_has_the_same_main_address(value in json()) {
            let text = value.to_string();
            prop_assert_eq!(main_email(&text), main_email(&comparable("emails", &text)));
        }

        #[test]
        fn one_value_is_a_list_of_one(value in json()) {
            if !value.is_array() {
                let (one, list) = (value.to_string(), format!("[{value}]"));
                prop_assert_eq!(comparable("emails", &one), comparable("emails", &list));
            }
        }

    }
}
