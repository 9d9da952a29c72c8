//! `docs/records.md` is generated from the schemas, so that it has each field with its own words.

use std::fmt::Write as _;

use expect_test::expect_file;
use scimtail::avro::schema;
use scimtail::log::Topic;
use serde_json::Value;

const INTRODUCTION: &str = "\
<!-- Made by `UPDATE_EXPECT=1 cargo test --test it records_page`; do not edit. -->

# Records

The fields of each record, in the order of its schema (`schemas/`). [Topics](topics.md) has the keys and the settings.
A field with `?` may be null. A *time* is milliseconds since 1970-01-01 UTC (`timestamp-millis`). `pii` says what a
field reveals about a person: `direct` names the person, `indirect` points to the person, `none` does neither.
";

/// A type in one or two words; a nested record by its name.
fn word(of: &Value) -> String {
    match of {
        Value::String(name) => name.rsplit('.').next().unwrap().to_owned(),
        Value::Array(union) => {
            let [Value::String(null), of] = union.as_slice() else { panic!("a union that is not [null, X]: {of}") };
            assert_eq!(null, "null");
            format!("{}?", word(of))
        }
        Value::Object(object) if object.contains_key("logicalType") => "time".to_owned(),
        Value::Object(object) => match object["type"].as_str().unwrap() {
            "array" => format!("list of {}", word(&object["items"])),
            "map" => format!("map of {}", word(&object["values"])),
            "record" => object["name"].as_str().unwrap().to_owned(),
            plain => plain.to_owned(),
        },
        _ => panic!("no type: {of}"),
    }
}

/// The records inside a type, which are declared where they are first used.
fn inner<'a>(of: &'a Value, found: &mut Vec<&'a Value>) {
    match of {
        Value::Array(union) => union.iter().for_each(|of| inner(of, found)),
        Value::Object(object) if object["type"] == "record" => {
            found.push(of);
            for field in object["fields"].as_array().unwrap() {
                inner(&field["type"], found);
            }
        }
        Value::Object(object) => {
            ["type", "items", "values"].iter().filter_map(|key| object.get(*key)).for_each(|of| inner(of, found));
        }
        _ => {}
    }
}

fn record(page: &mut String, heading: &str, record: &Value, about: &str) {
    let doc = record["doc"].as_str().unwrap_or_default();
    write!(page, "\n{heading}\n\n{about}{doc}\n\n| field | type | pii | meaning |\n|---|---|---|---|\n").unwrap();
    for field in record["fields"].as_array().unwrap() {
        let text = |key: &str| field[key].as_str().unwrap_or_default().replace('|', "\\|").replace('<', "&lt;");
        writeln!(page, "| `{}` | {} | {} | {} |", text("name"), word(&field["type"]), text("pii"), text("doc"))
            .unwrap();
    }
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for topic in Topic::ALL {
        let schema: Value = serde_json::from_str(schema::text(topic)).expect("a schema");
        let name = schema["name"].as_str().unwrap();
        record(&mut page, &format!("## {name}"), &schema, &format!("Topic `{}`. ", topic.name("scim")));
        let mut records = Vec::new();
        for field in schema["fields"].as_array().unwrap() {
            inner(&field["type"], &mut records);
        }
        for of in records {
            record(&mut page, &format!("### {}", of["name"].as_str().unwrap()), of, "");
        }
    }
    page
}

#[test]
fn the_page_of_the_records_has_each_field_of_each_schema() {
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/records.md")].assert_eq(&page());
}
