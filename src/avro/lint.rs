//! The rules of `schemas/README.md`, beyond what a registry checks: some readers decode by position with one
//! schema of their own, some know few types, and registries compare text.

use serde_json::{Map, Value};

const NAMESPACE: &str = "scimtail";
const PII: [&str; 3] = ["direct", "indirect", "none"];
/// In the order of the canonical text.
const RECORD_KEYS: [&str; 5] = ["type", "name", "namespace", "doc", "fields"];
const FIELD_KEYS: [&str; 5] = ["name", "type", "default", "doc", "pii"];
const TYPE_KEYS: [&str; 4] = ["type", "logicalType", "items", "values"];

/// Every rule that the schema breaks, as `path: what is wrong`; none for a schema that may be registered.
pub fn lint(text: &str) -> Vec<String> {
    let Ok(schema) = serde_json::from_str::<Value>(text) else {
        return vec!["not JSON".to_owned()];
    };
    let mut lint = Lint::default();
    let name = schema["name"].as_str().unwrap_or("unnamed").to_owned();
    if schema["type"] != "record" {
        return vec![format!("{name}: the top level is not a record")];
    }
    if schema["namespace"] != NAMESPACE {
        lint.complain(&name, "the namespace is not `scimtail`");
    }
    lint.record(&schema, &name);
    if lint.found.is_empty() && canonical(&schema) != text {
        lint.complain(&name, "not its canonical text");
    }
    lint.found
}

#[derive(Default)]
struct Lint {
    found: Vec<String>,
}

impl Lint {
    fn complain(&mut self, path: &str, what: &str) {
        self.found.push(format!("{path}: {what}"));
    }

    fn keys(&mut self, object: &Value, known: &[&str], path: &str) {
        for key in object.as_object().into_iter().flat_map(Map::keys) {
            if !known.contains(&key.as_str()) {
                self.complain(path, &format!("`{key}` is none of {}", known.join(", ")));
            }
        }
    }

    fn doc(&mut self, object: &Value, path: &str) {
        if object["doc"].as_str().is_none_or(str::is_empty) {
            self.complain(path, "no doc");
        }
    }

    fn record(&mut self, record: &Value, path: &str) {
        self.keys(record, &RECORD_KEYS, path);
        self.doc(record, path);
        let fields = record["fields"].as_array().map_or(&[][..], Vec::as_slice);
        if fields.is_empty() {
            self.complain(path, "no fields");
        }
        for (index, field) in fields.iter().enumerate() {
            let name = field["name"].as_str().unwrap_or_default();
            let path = format!("{path}.{name}");
            if fields[..index].iter().any(|earlier| earlier["name"] == name) {
                self.complain(&path, "two fields of this name");
            }
            self.keys(field, &FIELD_KEYS, &path);
            self.doc(field, &path);
            if !field["pii"].as_str().is_some_and(|pii| PII.contains(&pii)) {
                self.complain(&path, "pii is not one of direct, indirect, none");
            }
            self.field(field, name, &path);
        }
    }

    fn field(&mut self, field: &Value, name: &str, path: &str) {
        let default = field.get("default");
        let value = match field["type"].as_array().map(Vec::as_slice) {
            Some([null, value]) if null == "null" => {
                if default != Some(&Value::Null) {
                    self.complain(path, "a union without `default: null`");
                }
                value
            }
            Some(_) => return self.complain(path, "a union other than [\"null\", X]"),
            None => &field["type"],
        };
        let time = value["logicalType"] == "timestamp-millis";
        if is_time(name) && !time {
            self.complain(path, "a time that is not long/timestamp-millis");
        }
        match value {
            Value::String(plain) => match plain.as_str() {
                "string" | "boolean" | "long" => {}
                // As everywhere in Kafka.
                "int" if name == "partition" => {}
                "int" | "float" | "double" => self.complain(path, "a number that is not a long"),
                "bytes" | "null" => self.complain(path, "a type that not every reader knows"),
                _ => self.complain(path, "a named type used again: no references, no recursion"),
            },
            Value::Object(_) => self.complex(value, path),
            _ => self.complain(path, "no type"),
        }
    }

    fn complex(&mut self, value: &Value, path: &str) {
        match value["type"].as_str().unwrap_or_default() {
            "record" => {
                if value.get("namespace").is_some() {
                    self.complain(path, "a namespace of its own");
                }
                self.record(value, path);
            }
            "array" => {
                self.keys(value, &TYPE_KEYS, path);
                match &value["items"] {
                    items if items["type"] == "record" => self.record(items, &format!("{path}[]")),
                    items if items == "string" => {}
                    _ => self.complain(path, "an array of other than strings or records: counts are flat fields"),
                }
            }
            "map" => {
                self.keys(value, &TYPE_KEYS, path);
                if value["values"] != "string" {
                    self.complain(path, "a map to other than strings: counts are flat fields");
                }
            }
            "long" if value["logicalType"] == "timestamp-millis" => self.keys(value, &TYPE_KEYS, path),
            _ => match value["logicalType"].as_str() {
                Some(logical) => self.complain(path, &format!("the logical type {logical}")),
                None => self.complain(path, "a type that not every reader knows"),
            },
        }
    }
}

/// A field with such a name holds a time.
fn is_time(name: &str) -> bool {
    ["_at", "_start", "_since"].iter().any(|end| name.ends_with(end)) || matches!(name, "created" | "last_modified")
}

/// What about `new` breaks readers that read it by position with `old`, or read `old` with it. Empty if `new` is `old`
/// with fields appended. Both are schemas that [`lint`] passes.
pub fn evolution(old: &str, new: &str) -> Vec<String> {
    let (Ok(before), Ok(after)) = (serde_json::from_str::<Value>(old), serde_json::from_str::<Value>(new)) else {
        return vec!["not JSON".to_owned()];
    };
    let name = after["name"].as_str().unwrap_or("unnamed");
    if before == after {
        let same = old == new;
        return if same { vec![] } else { vec![format!("{name}: the same schema in another text")] };
    }
    if [&before["name"], &before["namespace"]] != [&after["name"], &after["namespace"]] {
        return vec![format!("{name}: another name")];
    }
    let fields = |schema: &Value| schema["fields"].as_array().cloned().unwrap_or_default();
    let (before, after) = (fields(&before), fields(&after));
    for (index, field) in before.iter().enumerate() {
        let text = field["name"].as_str().unwrap_or_default();
        let Some(now) = after.get(index).filter(|now| now["name"] == field["name"]) else {
            // Everything behind it has moved too: one complaint is enough.
            return vec![format!("{name}.{text}: removed, renamed or moved; fields are only appended at the end")];
        };
        if shape(&now["type"]) != shape(&field["type"]) {
            return vec![format!("{name}.{text}: another type; types stay, and nested records are frozen")];
        }
        if now.get("default") != field.get("default") {
            return vec![format!("{name}.{text}: another default")];
        }
    }
    let appended = after.iter().skip(before.len());
    appended
        .filter(|field| field.get("default").is_none())
        .map(|field| format!("{name}.{}: appended without a default", field["name"].as_str().unwrap_or_default()))
        .collect()
}

/// A type without what only people read.
fn shape(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => {
            let kept = object.iter().filter(|(key, _)| !matches!(key.as_str(), "doc" | "pii"));
            kept.map(|(key, value)| (key.clone(), shape(value))).collect()
        }
        Value::Array(items) => items.iter().map(shape).collect(),
        plain => plain.clone(),
    }
}

/// The one text of a schema: indented by one space, keys in a fixed order.
pub fn canonical(schema: &Value) -> String {
    let mut text = String::new();
    write(schema, 0, &mut text);
    text.push('\n');
    text
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', depth));
    };
    let comma = |text: &mut String, index: usize| {
        if index > 0 {
            text.push(',');
        }
    };
    match value {
        Value::Object(object) => {
            text.push('{');
            for (index, key) in ordered(object).into_iter().enumerate() {
                comma(text, index);
                line(text, depth + 1);
                text.push_str(&format!("{}: ", Value::from(key)));
                write(&object[key], depth + 1, text);
            }
            line(text, depth);
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                comma(text, index);
                line(text, depth + 1);
                write(item, depth + 1, text);
            }
            line(text, depth);
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

fn ordered(object: &Map<String, Value>) -> Vec<&str> {
    let order: &[&str] = if object.contains_key("fields") {
        &RECORD_KEYS
    } else if object.contains_key("name") {
        &FIELD_KEYS
    } else {
        &TYPE_KEYS
    };
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_by_key(|key| order.iter().position(|known| known == key).unwrap_or(order.len()));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::schema;
    use crate::log::Topic;
    use serde_json::json;

    #[test]
    fn every_schema_keeps_the_rules() {
        for topic in Topic::ALL {
            assert_eq!(lint(schema::text(topic)), [""; 0], "{topic:?}");
        }
    }

    fn field(name: &str, of: Value) -> Value {
        let mut field = json!({ "name": name, "type": of, "doc": "What it is.", "pii": "none" });
        if field["type"].is_array() {
            field["default"] = Value::Null;
        }
        field
    }

    fn record(fields: Vec<Value>) -> Value {
        json!({ "type": "record", "name": "Thing", "namespace": "scimtail", "doc": "A thing.", "fields": fields })
    }

    fn nested(fields: Vec<Value>) -> Value {
        json!({ "type": "record", "name": "Part", "doc": "A part.", "fields": fields })
    }

    /// One field of this name and type: what is complained of?
    fn of_type(name: &str, of: Value) -> Vec<String> {
        lint(&canonical(&record(vec![field(name, of)])))
    }

    #[test]
    fn types_that_every_reader_knows_pass() {
        let time = json!({ "type": "long", "logicalType": "timestamp-millis" });
        for (name, of) in [
            ("name", json!("string")),
            ("name", json!(["null", "string"])),
            ("active", json!(["null", "boolean"])),
            ("users_read", json!("long")),
            ("partition", json!("int")),
            ("observed_at", time.clone()),
            ("created", json!(["null", time])),
            ("attributes", json!({ "type": "array", "items": "string" })),
            ("attributes", json!({ "type": "map", "values": "string" })),
            ("user", json!(["null", nested(vec![field("id", json!("string"))])])),
            ("changes", json!({ "type": "array", "items": nested(vec![field("id", json!("string"))]) })),
        ] {
            assert_eq!(of_type(name, of.clone()), [""; 0], "{of}");
        }
    }

    #[test]
    fn each_rule_has_a_schema_that_breaks_it() {
        let decimal = json!({ "type": "bytes", "logicalType": "decimal", "precision": 4 });
        for (name, of, complaint) in [
            ("name", json!(["null", "string", "long"]), "a union other than"),
            ("name", json!(["string", "null"]), "a union other than"),
            ("name", json!(["null", ["null", "string"]]), "no type"),
            ("kind", json!({ "type": "enum", "name": "Kind", "symbols": ["user"] }), "a type that not every reader"),
            ("hash", json!({ "type": "fixed", "name": "Hash", "size": 16 }), "a type that not every reader knows"),
            ("id", json!({ "type": "string", "logicalType": "uuid" }), "the logical type uuid"),
            ("price", decimal, "the logical type decimal"),
            ("at", json!({ "type": "long", "logicalType": "timestamp-micros" }), "the logical type timestamp-micros"),
            ("observed_at", json!("long"), "a time that is not long/timestamp-millis"),
            ("created", json!(["null", "string"]), "a time that is not long/timestamp-millis"),
            ("parent", json!(["null", "scimtail.Thing"]), "no references, no recursion"),
            ("bytes", json!("bytes"), "a type that not every reader knows"),
            ("users_read", json!("int"), "a number that is not a long"),
            ("share", json!("double"), "a number that is not a long"),
            ("published", json!({ "type": "map", "values": "long" }), "counts are flat fields"),
            ("published", json!({ "type": "array", "items": "long" }), "counts are flat fields"),
            ("user", nested(vec![field("a", json!("int"))]), "Thing.user.a: a number that is not a long"),
            ("user", nested(vec![]), "Thing.user: no fields"),
        ] {
            let found = of_type(name, of.clone());
            assert!(found.iter().any(|found| found.contains(complaint)), "{of} gives {found:?}, not {complaint}");
        }
    }

    #[test]
    fn a_schema_is_a_record_of_our_namespace_whose_fields_say_what_they_are() {
        let good = record(vec![field("name", json!(["null", "string"]))]);
        let with = |path: &str, value: Value| {
            let mut schema = good.clone();
            *schema.pointer_mut(path).expect("a place in the schema") = value;
            lint(&canonical(&schema))
        };
        let without = |key: &str| {
            let mut schema = good.clone();
            schema["fields"][0].as_object_mut().expect("a field").remove(key);
            lint(&canonical(&schema))
        };
        assert_eq!(lint("\"string\""), ["unnamed: the top level is not a record"]);
        assert_eq!(lint("{"), ["not JSON"]);
        assert_eq!(with("/namespace", json!("acme")), ["Thing: the namespace is not `scimtail`"]);
        assert_eq!(with("/doc", json!("")), ["Thing: no doc"]);
        assert_eq!(with("/fields/0/pii", json!("maybe")), ["Thing.name: pii is not one of direct, indirect, none"]);
        assert_eq!(with("/fields/0/default", json!("")), ["Thing.name: a union without `default: null`"]);
        assert_eq!(without("default"), ["Thing.name: a union without `default: null`"]);
        assert_eq!(without("pii"), ["Thing.name: pii is not one of direct, indirect, none"]);
        assert_eq!(without("doc"), ["Thing.name: no doc"]);
        let twice = record(vec![field("name", json!("string")), field("name", json!("string"))]);
        assert_eq!(lint(&canonical(&twice)), ["Thing.name: two fields of this name"]);
        let mut renamed = good.clone();
        renamed["fields"][0]["aliases"] = json!(["title"]);
        assert_eq!(lint(&canonical(&renamed)), ["Thing.name: `aliases` is none of name, type, default, doc, pii"]);
        assert_eq!(lint(&good.to_string()), ["Thing: not its canonical text"]);
        assert_eq!(lint(&canonical(&good)), [""; 0]);
    }

    #[test]
    fn fields_are_only_appended_and_nested_records_are_frozen() {
        let fields = || {
            vec![
                field("id", json!("string")),
                field("user", json!(["null", nested(vec![field("id", json!("string"))])])),
            ]
        };
        let (appended, required) = (field("title", json!(["null", "string"])), field("title", json!("string")));
        let check = |change: &dyn Fn(&mut Vec<Value>)| {
            let mut after = fields();
            change(&mut after);
            evolution(&canonical(&record(fields())), &canonical(&record(after)))
        };
        assert_eq!(check(&|_| {}), [""; 0]);
        assert_eq!(check(&|fields| fields.push(appended.clone())), [""; 0]);
        assert_eq!(check(&|fields| fields[0]["doc"] = json!("Said better.")), [""; 0]);
        let moved = "removed, renamed or moved; fields are only appended at the end";
        assert_eq!(check(&|fields| fields.insert(1, appended.clone())), [format!("Thing.user: {moved}")]);
        assert_eq!(check(&|fields| drop(fields.pop())), [format!("Thing.user: {moved}")]);
        assert_eq!(check(&|fields| fields[0]["name"] = json!("key")), [format!("Thing.id: {moved}")]);
        assert_eq!(check(&|fields| fields.push(required.clone())), ["Thing.title: appended without a default"]);
        let retyped = "another type; types stay, and nested records are frozen";
        assert_eq!(check(&|fields| fields[0]["type"] = json!("long")), [format!("Thing.id: {retyped}")]);
        let grown = nested(vec![field("id", json!("string")), appended.clone()]);
        assert_eq!(check(&|fields| fields[1]["type"][1] = grown.clone()), [format!("Thing.user: {retyped}")]);
        assert_eq!(check(&|fields| fields[0]["default"] = json!("")), ["Thing.id: another default"]);
        let once = record(fields());
        let indented = serde_json::to_string_pretty(&once).expect("JSON");
        assert_eq!(evolution(&canonical(&once), &indented), ["Thing: the same schema in another text"]);
    }
}
