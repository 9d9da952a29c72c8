//! Bodies lose all their data and keep their shape.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::body;
use super::placeholders::Placeholders;

fn placeholders() -> Placeholders {
    Placeholders::new(0x5EED_5EED_5EED_5EED)
}

fn shown(body: &Value, placeholders: &mut Placeholders) -> Value {
    let shown = body::shown(body.to_string().as_bytes(), placeholders).expect("it is read");
    serde_json::to_value(shown).expect("JSON")
}

#[test]
fn a_text_keeps_its_form_and_a_value_is_the_same_everywhere() {
    let mut placeholders = placeholders();
    let mut text = |text: &str| placeholders.text(text);
    assert_eq!(text("7f1e2d3c-5b4a-4968-8776-000000000001"), "aaaaaaaa-0000-4000-8000-000000000001");
    assert_eq!(text("ada@acme.test"), "u1@example.com");
    assert_eq!(text("Ada Alder"), "Word1 Word2");
    assert_eq!(text("Alder, Ada"), "Word2, Word1");
    assert_eq!(text("EU, GmbH/Legal (2024)"), "WORD3, Word4/Word5 (1000)");
    assert_eq!(text("Björn"), "wörd6");
    assert_eq!(text("cbu_0042"), "word7_1001");
    assert_eq!(text("0042"), "1001", "digits are the same alone and in a text");
    assert_eq!(
        text("https://acme.test:8443/acme/scim/v2/Users/cbu_0042"),
        "https://example.com/wordi/scim/v2/Users/word7_1001"
    );
    assert_eq!(text("HTTP://ada:secret@acme.test"), "http://example.com");
    assert_eq!(text(""), "");
    assert_eq!(text("ada@acme.test"), "u1@example.com");
    assert_eq!(text("Ada said that Ben said that Cid said that Ada said no more of it"), "text9");
    assert_eq!(placeholders.number("42"), "10");
    assert_eq!(placeholders.number("-42"), "-10");
    assert_eq!(placeholders.number("42.75e3"), "11.5");
    assert_eq!(placeholders.path("../Groups/cbu_0042"), "../Groups/word7_1001");
    assert_eq!(
        placeholders.parameter("filter", "members.value eq \"cbu_0042\""),
        ("filter".to_owned(), "members.value eq \"word7_1001\"".to_owned())
    );
}

#[test]
fn digits_that_are_used_up_become_longer_and_stay_different() {
    let mut placeholders = placeholders();
    let texts: Vec<String> = (0..10).map(|digit: u8| digit.to_string()).collect();
    let mut made: Vec<String> = texts.iter().map(|text| placeholders.text(text)).collect();
    assert!(made.iter().zip(&texts).all(|(made, text)| made != text), "{made:?}");
    made.sort();
    made.dedup();
    assert_eq!(made.len(), texts.len());
    let many = "7".repeat(2_000);
    assert!(placeholders.number(&many).len() <= 64);
}

#[test]
fn times_move_by_the_same_span_and_keep_format_and_precision() {
    let mut placeholders = placeholders();
    let times = ["2025-03-04T05:06:07Z", "2025-03-04T05:06:07.000Z", "2025-03-04 05:06:07.123456+02:00", "2025-03-04"];
    let moved = times.map(|time| placeholders.text(time));
    for (time, moved) in times.iter().zip(&moved) {
        assert_eq!(moved.len(), time.len(), "{moved}");
        assert!(!moved.contains("2025-03-04") && !moved.contains("05:06:07"), "{moved}");
    }
    assert!(moved[1].ends_with(".000Z") && moved[2].ends_with("+00:00"), "{moved:?}");
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let later = placeholders.text("2025-03-04T06:06:07Z");
    assert_eq!((at(&later) - at(&moved[0])).get_seconds(), 3_600);
    assert_ne!(Placeholders::new(1).text(times[0]), Placeholders::new(1 << 50).text(times[0]));
    // They are the same everywhere, so that a moved one would tell the span.
    for none in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z", "9999-12-31", "1900-01-01 00:00:00"] {
        assert_eq!(placeholders.text(none), none);
    }
    assert_ne!(placeholders.text("1970-01-01T05:06:07Z"), "1970-01-01T05:06:07Z");
    for other in ["2025-13-04T05:06:07Z", "2025-03-04T05:06:07Z Ada", "2025-03-04T05:06:07."] {
        assert!(!placeholders.text(other).contains("05:06"), "{other}");
    }
}

#[test]
fn words_of_standards_and_profiles_stay_where_they_are_words_of_standards() {
    let user = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", "urn:acme:params:scim:schemas:extension:badge:2.0:User"],
        "id": "work", "userName": "Owner", "active": "True", "name": {"familyName": "User", "givenName": "N/A"},
        "emails": [{"type": "work", "value": "owner@work.test", "primary": true}],
        "roles": [{"value": "admin"}, {"value": "Duke of York"}],
        "meta": {"resourceType": "User", "location": "Users/work", "version": "W/\"ada\""},
        "urn:ietf:params:scim:schemas:extension:notion:2.0:User": {"role": "membership_admin"},
        "ada@acme.test": {"Ada": 1}, "sentryOrgRole": "owner", "title": "owner",
    });
    let shown = shown(&user, &mut placeholders());
    assert_eq!(shown["schemas"][0], "urn:ietf:params:scim:schemas:core:2.0:User");
    let schema = shown["schemas"][1].as_str().unwrap();
    assert!(schema.starts_with("urn:word") && schema.contains(":params:scim:schemas:extension:word"), "{schema}");
    assert!(schema.ends_with(":2.0:User"), "{schema}");
    assert_eq!((&shown["active"], &shown["emails"][0]["type"]), (&json!("True"), &json!("work")));
    assert_eq!((&shown["roles"][0]["value"], &shown["sentryOrgRole"]), (&json!("admin"), &json!("owner")));
    assert_eq!(shown["urn:ietf:params:scim:schemas:extension:notion:2.0:User"]["role"], "membership_admin");
    assert_eq!(shown["meta"]["resourceType"], "User");
    assert_eq!(shown["meta"]["location"].as_str().unwrap(), format!("Users/{}", shown["id"].as_str().unwrap()));
    assert_eq!(shown["name"]["givenName"], "N/A");
    let text = shown.to_string();
    for name in ["York", "Duke", "\"Owner\"", "\"User\"}", "acme", "ada", "Ada", "badge", "\"id\":\"work\""] {
        assert!(!text.contains(name), "{name}: {text}");
    }
}

#[test]
fn each_kind_of_active_stays() {
    for active in [json!(true), json!(null), json!(0), json!(1), json!("True"), json!("FALSE"), json!("0"), json!([])] {
        let user = json!({"id": "1", "active": active});
        assert_eq!(shown(&user, &mut placeholders())["active"], active);
    }
    for other in [json!("Ada"), json!(7)] {
        let user = json!({"id": "Ada", "active": other});
        assert_ne!(shown(&user, &mut placeholders())["active"], other);
    }
}

#[test]
fn the_fixed_parts_of_group_names_are_those_of_the_profile() {
    let mut placeholders = placeholders();
    placeholders.next_account(Some("CB/{domain}/{kind:ROLE=role|BE=business_entity}/{name}"));
    assert_eq!(placeholders.text("CB/acme.test/ROLE/Finance Lead"), "CB/word1.word2/ROLE/Word3 Word4");
    assert_eq!(placeholders.text("CB/acme.test/ADA/Finance"), "WORD5/word1.word2/WORD6/Word3");
}

#[test]
fn names_of_the_servers_schemas_stay_unless_they_tell_the_company() {
    let schemas = json!({"Resources": [{
        "id": "urn:vendor:scim:seats:User", "name": "Seats",
        "attributes": [{"name": "seatKind", "subAttributes": [{"name": "sold"}]}, {"name": "acmeBadge"}, {"name": "p 1"}],
    }, {"id": "urn:acme:badge:User", "attributes": []}]});
    let mut placeholders = placeholders();
    placeholders.tells("ada.acme.test");
    body::declare(schemas.to_string().as_bytes(), &mut placeholders);
    let shown = shown(&schemas, &mut placeholders);
    let text = shown.to_string();
    for kept in ["urn:vendor:scim:seats:User", "seatKind", "sold"] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    for lost in ["acme", "Badge", "badge", "p 1"] {
        assert!(!text.contains(lost), "{lost}: {text}");
    }
    assert_eq!(placeholders.name("seatKind.sold"), "seatKind.sold");
    assert_eq!(placeholders.urn("urn:vendor:scim:seats:User:seatKind"), "urn:vendor:scim:seats:User:seatKind");
}

#[test]
fn what_is_not_read_is_not_shown() {
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    assert!(body::shown(deep.as_bytes(), &mut placeholders()).is_none());
    for other in ["<html>Ada</html>", "{\"id\":", "Ada"] {
        assert!(body::json(&Bytes::from_static(other.as_bytes())).is_none());
    }
    let doubled = body::shown(br#"{"id":1,"id":1,"ID":2}"#, &mut placeholders()).unwrap();
    assert_eq!(serde_json::to_string(&doubled).unwrap(), r#"{"id":2,"id":2,"ID":3}"#, "and what is twice stays so");
}

/// What may be anywhere: a canary in one of the forms that values have.
fn canary() -> impl Strategy<Value = (String, String)> {
    (0u32.., 0usize..17).prop_map(|(number, form)| {
        let core = format!("qzx{number:08x}j");
        let text = match form {
            0 => format!("{core}@{core}.test"),
            1 => format!("https://{core}.test/{core}/Users/{core}?cursor={core}#{core}"),
            2 => format!("urn:{core}:scim:{core}:2.0:User:{core}"),
            3 => format!("CB/{core}/ROLE/{core}"),
            4 => format!("{core}, {core} ({core})"),
            5 => core.to_uppercase(),
            6 => STANDARD.encode(&core),
            7 => utf8_percent_encode(&format!("é{core}"), NON_ALPHANUMERIC).to_string(),
            8 => format!("2025-03-04T05:06:07{core}"),
            9 => format!("W/\"{core}\""),
            10 => format!("../Groups/{core}"),
            11 => format!("{core}\n\t\u{200b}\"\\{core}😀"),
            12 => format!("members.value eq \"{core}\""),
            13 => format!("Bearer {core}.{core}.{core}"),
            14 => format!("{core} ").repeat(20),
            15 => format!("work {core} User"),
            _ => format!("userName.{core}"),
        };
        (core, text)
    })
}

const KNOWN_NAMES: [&str; 14] = [
    "schemas",
    "id",
    "type",
    "name",
    "attributes",
    "$ref",
    "location",
    "filter",
    "version",
    "roles",
    "active",
    "members",
    "resourceType",
    "status",
];

/// JSON with canaries as texts and as names, and the canaries.
fn bodies() -> impl Strategy<Value = (Value, Vec<String>)> {
    let leaf = prop_oneof![
        canary().prop_map(|(core, text)| (Value::String(text.clone()), vec![core, text])),
        any::<bool>().prop_map(|value| (json!(value), vec![])),
        Just((Value::Null, vec![])),
        (7_000_000_000_000u64..7_999_999_999_999).prop_map(|number| (json!(number), vec![number.to_string()])),
        (7_000_000_000_000u64..7_999_999_999_999)
            .prop_map(|number| (json!(-(number as f64) - 0.25), vec![number.to_string()])),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let name = prop_oneof![
            proptest::sample::select(&KNOWN_NAMES[..]).prop_map(|name| (name.to_owned(), vec![])),
            canary().prop_map(|(core, text)| (text.clone(), vec![core, text])),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|elements| {
                let (elements, canaries): (Vec<Value>, Vec<Vec<String>>) = elements.into_iter().unzip();
                (Value::Array(elements), canaries.concat())
            }),
            proptest::collection::vec((name, inner), 0..5).prop_map(|fields| {
                let (mut object, mut all) = (serde_json::Map::new(), Vec::new());
                for ((name, of_name), (value, of_value)) in fields {
                    object.insert(name, value);
                    all.extend(of_name.into_iter().chain(of_value));
                }
                (Value::Object(object), all)
            }),
        ]
    })
}

/// The shape of a value: everything but its texts, numbers and names.
fn shape(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) => value.to_string(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "text".to_owned(),
        Value::Array(elements) => format!("[{}]", elements.iter().map(shape).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let mut shapes: Vec<String> = fields.values().map(shape).collect();
            shapes.sort();
            format!("{{{}}}", shapes.join(","))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_body_leaks_a_text_a_name_or_a_number_and_each_keeps_its_shape((body, canaries) in bodies()) {
        let mut placeholders = placeholders();
        let first = shown(&body, &mut placeholders);
        let text = first.to_string().to_lowercase();
        for canary in canaries {
            for form in [
                canary.to_lowercase(),
                STANDARD.encode(&canary).to_lowercase(),
                utf8_percent_encode(&canary, NON_ALPHANUMERIC).to_string().to_lowercase(),
                Value::String(canary.clone()).to_string().to_lowercase(),
            ] {
                prop_assert!(!text.contains(&form), "{form} in {text}");
            }
        }
        prop_assert_eq!(shape(&first), shape(&body));
        prop_assert_eq!(&shown(&body, &mut placeholders), &first, "the same again");
    }

    #[test]
    fn two_texts_are_the_same_if_and_only_if_their_placeholders_are(one in ".{0,24}", other in ".{0,24}") {
        let mut placeholders = placeholders();
        let (first, second) = (placeholders.text(&one), placeholders.text(&other));
        prop_assert_eq!(one == other, first == second);
        prop_assert_eq!(placeholders.text(&one), first);
    }
}
