//! Every event in every format: golden files, checked against the formats' own schemas.
//!
//! `UPDATE_EXPECT=1 cargo test --test it mapping` writes the golden files and `docs/events.md` again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use expect_test::expect_file;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use scimtail::avro::schema;
use scimtail::avro::wire::ChangeEvent;
use scimtail::log::Topic;
use scimtail::mapping::{Change, asim, cim, ecs, ocsf, set};
use serde_json::{Map, Value, json};

use crate::memory::{MemoryDirectory, World, account};
use crate::samples::{Sample, samples};

fn tests() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

fn schema_of(file: &str) -> Value {
    let text = std::fs::read_to_string(tests().join("schemas").join(file)).expect("the extract is there");
    serde_json::from_str(&text).expect("it is JSON")
}

fn change(event: &ChangeEvent) -> Change<'_> {
    Change::of(event).expect("its type is known")
}

#[test]
fn every_sample_is_an_event_that_the_schema_takes() {
    let types: BTreeSet<String> = samples().into_iter().map(|sample| sample.event.event_type).collect();
    let text = schema::text(Topic::Events);
    let named = text.split("One of: ").nth(1).and_then(|rest| rest.split(".\"").next()).expect("the schema names them");
    let named: BTreeSet<String> = named.split(", ").map(str::to_owned).collect();
    assert_eq!(types, named, "a sample of every event type");
    for Sample { name, event } in samples() {
        let mut bytes = Vec::new();
        schema::writer(Topic::Events).write_ser(&mut bytes, &event).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn every_event_type_reads_in_every_format_as_its_golden_file_says() {
    for Sample { name, event } in samples() {
        let change = change(&event);
        let all = json!({
            "event": event,
            "ocsf": ocsf::value(&change),
            "ecs": ecs::value(&change),
            "cim": cim::value(&change),
            "asim": asim::values(&change),
            "set": set::value(&change),
        });
        let text = format!("{}\n", serde_json::to_string_pretty(&all).expect("it is JSON"));
        expect_file![tests().join("golden").join(format!("{name}.json"))].assert_eq(&text);
    }
}

#[test]
fn no_golden_file_is_left_over() {
    let expected: BTreeSet<String> = samples().iter().map(|sample| format!("{}.json", sample.name)).collect();
    let found = std::fs::read_dir(tests().join("golden")).expect("the golden files");
    let found: BTreeSet<String> =
        found.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    assert_eq!(found, expected);
}

/// Checks events against the extract of OCSF in `tests/schemas`.
struct Ocsf(Value);

impl Ocsf {
    fn check(&self, event: &Value) -> Result<(), String> {
        let uid = event["class_uid"].as_i64().ok_or("no class_uid")?;
        let classes = self.0["classes"].as_object().expect("classes");
        let class = classes.values().find(|class| class["uid"] == json!(uid)).ok_or(format!("no class {uid}"))?;
        let activity = event["activity_id"].as_i64().ok_or("no activity_id")?;
        if event["type_uid"] != json!(uid * 100 + activity) {
            return Err(format!("type_uid {} of class {uid}, activity {activity}", event["type_uid"]));
        }
        if event["metadata"]["version"] != self.0["version"] {
            return Err(format!("metadata.version {}", event["metadata"]["version"]));
        }
        for (id, name) in [
            ("activity_id", "activity_name"),
            ("category_uid", "category_name"),
            ("class_uid", "class_name"),
            ("type_uid", "type_name"),
            ("severity_id", "severity"),
            ("status_id", "status"),
        ] {
            let caption = &class["attributes"][id]["enum"][event[id].to_string()];
            if event[name] != *caption {
                return Err(format!("{name} is {}, of {id} {} it is {caption}", event[name], event[id]));
            }
        }
        self.check_fields(class, event, "")
    }

    fn check_fields(&self, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
        let fields = value.as_object().ok_or(format!("{path} is not an object"))?;
        let attributes = schema["attributes"].as_object().expect("attributes");
        for (name, attribute) in attributes {
            if attribute["requirement"] == "required" && !fields.contains_key(name) {
                return Err(format!("{path}.{name} is required"));
            }
        }
        if let Some(names) = schema["constraints"]["at_least_one"].as_array()
            && !names.iter().any(|name| fields.contains_key(name.as_str().expect("a name")))
        {
            return Err(format!("{path} needs one of {names:?}"));
        }
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            let attribute = attributes.get(name).ok_or(format!("{path} is not in OCSF"))?;
            if attribute["deprecated"] == json!(true) {
                return Err(format!("{path} is deprecated"));
            }
            if attribute["is_array"] == json!(true) {
                let elements = value.as_array().ok_or(format!("{path} is not an array"))?;
                elements.iter().try_for_each(|element| self.check_value(attribute, element, &path))?;
            } else {
                self.check_value(attribute, value, &path)?;
            }
        }
        Ok(())
    }

    fn check_value(&self, attribute: &Value, value: &Value, path: &str) -> Result<(), String> {
        let kind = attribute["type"].as_str().expect("a type");
        let fits = match kind {
            "string_t" | "username_t" => value.is_string(),
            "email_t" => value.as_str().is_some_and(|text| text.contains('@') && !text.contains(' ')),
            "integer_t" | "long_t" => value.is_i64(),
            // Milliseconds: a value in seconds would be a time in 1970.
            "timestamp_t" => value.as_i64().is_some_and(|millis| millis > 1_000_000_000_000),
            "boolean_t" => value.is_boolean(),
            "json_t" => true,
            "object" => value.is_object(),
            object => {
                let schema = self.0["objects"].get(object).ok_or(format!("{path}: {object} is not in the extract"))?;
                return self.check_fields(schema, value, path);
            }
        };
        if !fits {
            return Err(format!("{path} is not of type {kind}: {value}"));
        }
        match attribute["enum"].as_object() {
            Some(known) if !known.contains_key(&value.to_string()) => Err(format!("{path} has no value {value}")),
            _ => Ok(()),
        }
    }
}

#[test]
fn every_event_is_valid_ocsf() {
    let schema = Ocsf(schema_of("ocsf-1.8.0.json"));
    for Sample { name, event } in samples() {
        let value = ocsf::value(&change(&event));
        schema.check(&value).unwrap_or_else(|complaint| panic!("{name}: {complaint}\n{value:#}"));
    }
}

#[test]
fn a_broken_event_is_refused_by_the_check_of_ocsf() {
    let schema = Ocsf(schema_of("ocsf-1.8.0.json"));
    let samples = samples();
    let event = |name: &str| {
        let sample = samples.iter().find(|sample| sample.name == name).expect("the sample");
        ocsf::value(&change(&sample.event))
    };
    let break_it: [(&str, &str, Value, &str); 15] = [
        ("user.added", "/user", Value::Null, ".user is required"),
        ("user.added", "/metadata/product", Value::Null, ".metadata.product is required"),
        ("user.added", "/type_uid", json!(300_102), "type_uid 300102"),
        ("user.added", "/activity_id", json!(42), "type_uid 300101"),
        ("user.added", "/class_uid", json!(3007), "no class 3007"),
        ("user.added", "/activity_name", json!("Enable"), "activity_name is \"Enable\""),
        ("user.added", "/time", json!("2026-11-21T12:04:31Z"), ".time is not of type timestamp_t"),
        ("user.added", "/time", json!(1_795_262_671), ".time is not of type timestamp_t"),
        ("user.added", "/actor", json!({}), ".actor is not in OCSF"),
        ("user.added", "/severity_id", json!(7), "severity is"),
        (
            "user.added",
            "/user/account/is_disabled",
            json!("false"),
            ".user.account.is_disabled is not of type boolean_t",
        ),
        ("user.added", "/user/email_addr", json!("jane"), ".user.email_addr is not of type email_t"),
        ("user.added", "/metadata/version", json!("1.7.0"), "metadata.version"),
        ("membership.added", "/group", json!({ "desc": "a group" }), ".group needs one of"),
        ("group.updated", "/entity/type_id", json!(12), ".entity.type_id has no value 12"),
    ];
    for (name, path, value, complaint) in break_it {
        let mut event = event(name);
        let (parent, field) = path.rsplit_once('/').expect("a path");
        let fields = event.pointer_mut(parent).and_then(Value::as_object_mut).expect("its object");
        match value {
            Value::Null => drop(fields.remove(field)),
            value => drop(fields.insert(field.to_owned(), value)),
        }
        let refused = schema.check(&event).expect_err(path);
        assert!(refused.contains(complaint), "{path}: {refused}");
    }
}

/// `a.b` → value; arrays and values below `stop` stay whole.
fn flat<'v>(value: &'v Value, stop: &[&str], path: String, into: &mut BTreeMap<String, &'v Value>) {
    match value {
        Value::Object(fields) if !stop.contains(&path.as_str()) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flat(value, stop, path, into);
            }
        }
        value => drop(into.insert(path, value)),
    }
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok())
}

fn check_ecs(schema: &Value, value: &Value) -> Result<(), String> {
    let mut fields = BTreeMap::new();
    flat(value, &["labels"], String::new(), &mut fields);
    for (name, value) in &fields {
        let field = schema["fields"].get(name).ok_or(format!("{name} is not in ECS"))?;
        let one = |value: &Value| match field["type"].as_str().expect("a type") {
            "keyword" | "match_only_text" => value.is_string(),
            "long" => value.is_i64(),
            "date" => is_time(value),
            // Labels are keywords.
            "object" => value.as_object().is_some_and(|labels| {
                labels.values().all(|label| {
                    label.is_string() || label.as_array().is_some_and(|labels| labels.iter().all(Value::is_string))
                })
            }),
            _ => false,
        };
        let elements: Vec<&Value> = match value {
            Value::Array(elements) if field["array"] == json!(true) => elements.iter().collect(),
            value if field["array"] != json!(true) => vec![*value],
            _ => return Err(format!("{name} has to be an array")),
        };
        for element in elements {
            if !one(element) {
                return Err(format!("{name} is not of type {}: {element}", field["type"]));
            }
            if field["values"].as_array().is_some_and(|values| !values.contains(element)) {
                return Err(format!("{name} has no value {element}"));
            }
        }
    }
    let iam = schema["fields"]["event.category"]["types_of_iam"].as_array().expect("types");
    match fields["event.type"].as_array() {
        Some(types) if types.iter().all(|one| iam.contains(one)) => Ok(()),
        _ => Err("an event.type that iam does not have".to_owned()),
    }
}

#[test]
fn every_field_of_an_ecs_event_is_in_ecs_with_its_type() {
    let schema = schema_of("ecs-9.4.0.json");
    assert_eq!(schema["version"], ecs::VERSION);
    for Sample { name, event } in samples() {
        let value = ecs::value(&change(&event));
        assert_eq!(value["ecs"]["version"], schema["version"]);
        check_ecs(&schema, &value).unwrap_or_else(|complaint| panic!("{name}: {complaint}\n{value:#}"));
    }
    let good = ecs::value(&change(&samples()[0].event));
    for (path, value) in [
        ("/event/sequence", json!("1")),
        ("/event/type", json!(["user", "connection"])),
        ("/event/category", json!("iam")),
        ("/event/kind", json!("news")),
        ("/user/active", json!("true")),
        ("/@timestamp", json!(1_795_262_671)),
        ("/labels/sync", json!(118)),
    ] {
        let mut broken = good.clone();
        let (parent, field) = path.rsplit_once('/').expect("a path");
        let fields = broken.pointer_mut(parent).and_then(Value::as_object_mut).expect("its object");
        fields.insert(field.to_owned(), value);
        assert!(check_ecs(&schema, &broken).is_err(), "{path}");
    }
}

/// The sample of this name as ECS and as OCSF.
fn ecs_and_ocsf(name: &str) -> (Value, Value) {
    let samples = samples();
    let sample = samples.iter().find(|sample| sample.name == name).expect("the sample");
    (ecs::value(&change(&sample.event)), ocsf::value(&change(&sample.event)))
}

#[test]
fn an_update_says_what_was_there_before_it() {
    let now = json!("jane.roe@acme.example");
    let (ecs, ocsf) = ecs_and_ocsf("user.updated.reshaped");
    assert_eq!(ecs["user"]["target"]["email"], json!("jane.doe@acme.example"), "one address without a list");
    assert_eq!(ocsf["entity"]["user"]["email_addr"], json!("jane.doe@acme.example"));
    assert_eq!(ecs["user"]["target"]["roles"], json!(["viewer"]), "roles as texts");
    assert_eq!(ecs["user"]["changes"], json!({ "email": now, "roles": ["analyst", "viewer"] }));
    let (ecs, ocsf) = ecs_and_ocsf("user.updated.first_address");
    assert_eq!((&ecs["user"]["target"]["email"], &ocsf["entity"]["user"]["email_addr"]), (&Value::Null, &Value::Null));
    assert_eq!(ecs["user"]["changes"], json!({ "email": now }));
    let (ecs, ocsf) = ecs_and_ocsf("user.updated.promoted");
    assert_eq!((&ecs["user"]["target"]["email"], &ocsf["entity"]["user"]["email_addr"]), (&now, &now), "it stayed");
    assert_eq!(ecs["user"]["changes"], Value::Null, "ECS has no title");
    assert_eq!(ocsf["entity"]["user"]["account"], Value::Null, "a switch is a separate event");
}

/// One sync that finds both publishes both with the same image.
#[tokio::test]
async fn an_update_beside_a_switch_does_not_say_that_it_had_been_switched() {
    let mut world = World::new(account("acme"));
    for people in ["user u1 ann title=Analyst", "user u1 ann title=Manager inactive"] {
        world.sync(&MemoryDirectory::parse(people)).await;
    }
    let events = world.log.events();
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["user.updated", "user.disabled"]);
    let [updated, disabled] = [&events[0], &events[1]].map(|event| ocsf::value(&change(event)));
    assert_eq!(updated["entity"]["user"]["account"], Value::Null, "it was active");
    assert_eq!(updated["entity_result"]["user"]["account"]["is_disabled"], json!(true));
    assert_eq!(disabled["user"]["account"]["is_disabled"], json!(true));
}

#[test]
fn a_role_in_ecs_is_its_value_and_is_there_once() {
    for Sample { name, event } in samples().iter().filter(|sample| sample.event.user.is_some()) {
        let ecs = ecs::value(&change(event));
        let roles = if *name == "user.added.bare" { Value::Null } else { json!(["analyst", "viewer"]) };
        assert_eq!(ecs["user"]["roles"], roles, "{name}");
    }
}

/// Fields of CIM's data model Change (docs.splunk.com, CIM 4.17), fields that Splunk reads of every event, and our own.
const CIM_FIELDS: [&str; 15] = [
    "_time",
    "action",
    "change_type",
    "dest",
    "dvc",
    "object",
    "object_attrs",
    "object_category",
    "object_id",
    "result",
    "scimtail",
    "status",
    "tag",
    "user",
    "vendor_product",
];
/// The values that the data model prescribes for `action`.
const CIM_ACTIONS: [&str; 9] =
    ["acl_modified", "cleared", "created", "deleted", "modified", "read", "restarted", "started", "stopped"];

#[test]
fn every_event_keeps_to_the_fields_and_actions_of_cim() {
    for Sample { name, event } in samples() {
        let value = cim::value(&change(&event));
        for field in value.as_object().expect("an object").keys() {
            assert!(CIM_FIELDS.contains(&field.as_str()), "{name}: {field}");
        }
        let action = value["action"].as_str().expect("an action");
        assert!(CIM_ACTIONS.contains(&action), "{name}: {action}");
        assert!(["account", "group"].contains(&value["object_category"].as_str().expect("a category")), "{name}");
        assert!(is_time(&value["_time"]) && value["tag"] == json!(["account", "change"]), "{name}");
    }
}

#[test]
fn every_row_of_asim_has_only_its_columns_with_their_types() {
    let schema = schema_of("asim-user-management.json");
    for Sample { name, event } in samples() {
        let rows = asim::values(&change(&event));
        assert!(!rows.is_empty(), "{name}");
        for row in rows {
            for (column, value) in row.as_object().expect("a row") {
                let fits = match schema["columns"][column].as_str() {
                    Some("string") => value.is_string(),
                    Some("int") => value.is_i64(),
                    Some("datetime") => is_time(value),
                    Some("dynamic") => value.is_object(),
                    _ => false,
                };
                assert!(fits, "{name}: {column} {value}");
            }
            assert!(schema["event_types"].as_array().expect("types").contains(&row["EventType"]), "{name}");
            for column in ["TimeGenerated", "EventCount", "EventResult", "EventVendor", "EventProduct", "Dvc"] {
                assert!(!row[column].is_null(), "{name}: {column}");
            }
        }
    }
}

#[test]
fn an_update_is_one_row_of_asim_for_each_changed_attribute() {
    let samples = samples();
    let updated = samples.iter().find(|sample| sample.name == "user.updated").expect("the sample");
    let rows = asim::values(&change(&updated.event));
    let names: Vec<&Value> = rows.iter().map(|row| &row["UpdatedPropertyName"]).collect();
    assert_eq!(names, updated.event.changed_attributes.iter().collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row["EventOriginalUid"] == json!(updated.event.event_id)));
}

/// The event URIs of RFC 9967 §2.3 and §2.4 that a poller can send, with the fields of their payload.
const SET_EVENTS: [(&str, &[&str]); 7] = [
    ("feed:add", &[]),
    ("feed:remove", &[]),
    ("prov:create:full", &["data"]),
    ("prov:patch:full", &["data"]),
    ("prov:delete", &[]),
    ("prov:activate", &[]),
    ("prov:deactivate", &[]),
];

#[test]
fn every_event_is_one_security_event_token_of_rfc_9967() {
    let mut said = BTreeSet::new();
    for Sample { name, event } in samples() {
        let claims = set::value(&change(&event));
        let events = claims["events"].as_object().expect("events");
        assert_eq!(events.len(), 1, "{name}");
        let (uri, payload) = events.iter().next().expect("one");
        let short = uri.strip_prefix("urn:ietf:params:scim:event:").expect("a SCIM event");
        let (short, fields) = SET_EVENTS.iter().find(|(known, _)| *known == short).expect("a known one");
        said.insert(short);
        assert_eq!(payload.as_object().expect("a payload").keys().collect::<Vec<_>>(), *fields, "{name}");
        assert_eq!((&claims["jti"], &claims["sub_id"]["format"]), (&json!(event.event_id), &json!("scim")), "{name}");
        let baseline = if event.snapshot { json!(true) } else { Value::Null };
        assert_eq!(claims["scimtail_baseline"], baseline, "{name}");
        assert!(claims["iat"].is_i64() && claims["iss"] == json!("scimtail/acme-chargebee"), "{name}");
        let txn = event.correlation_id.as_ref().unwrap_or(&event.event_id);
        assert_eq!(claims["txn"], json!(txn), "{name}");
        let endpoint = if event.event_type.starts_with("user.") { "/Users/" } else { "/Groups/" };
        let uri = claims["sub_id"]["uri"].as_str().expect("a uri");
        assert!(uri.strip_prefix(endpoint).is_some_and(|id| !id.contains('/')), "{name}: {uri}");
    }
    assert_eq!(said.len(), SET_EVENTS.len(), "each is said by some sample");
}

/// The operations of a patch apply one after the other (RFC 7644 §3.5.2): if `emails.value` were removed after `emails`
/// is added, the added value would be empty.
#[test]
fn a_patch_removes_before_it_adds() {
    for Sample { name, event } in samples() {
        let claims = set::value(&change(&event));
        let payload = claims["events"].as_object().and_then(|events| events.values().next()).expect("one event");
        let operations = payload["data"]["Operations"].as_array().cloned().unwrap_or_default();
        let removes: Vec<bool> = operations.iter().map(|operation| operation["op"] == json!("remove")).collect();
        assert!(removes.is_sorted_by(|one, next| one >= next), "{name}: {operations:?}");
    }
}

#[test]
fn tokens_are_signed_with_the_key_that_is_given() {
    let key = |name: &str| std::fs::read(tests().join("keys").join(name)).expect("a test key");
    let claims = set::value(&change(&samples()[0].event));
    for (private, public, algorithm) in [
        ("p256.pem", DecodingKey::from_ec_pem(&key("p256.pub.pem")), Algorithm::ES256),
        ("rsa.pem", DecodingKey::from_rsa_pem(&key("rsa.pub.pem")), Algorithm::RS256),
    ] {
        let token = set::Signer::from_pem(&key(private)).expect("it signs").sign(&claims).expect("a token");
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let read = jsonwebtoken::decode::<Map<String, Value>>(&token, &public.expect("a key"), &validation);
        let read = read.expect("the signature holds");
        assert_eq!(Value::Object(read.claims), claims);
        assert_eq!(read.header.typ.as_deref(), Some("secevent+jwt"));
    }
    for pem in [key("p384.pem"), key("p256.pub.pem"), b"no key".to_vec(), Vec::new()] {
        let Err(complaint) = set::Signer::from_pem(&pem) else { panic!("it is not a key") };
        assert!(complaint.contains("→") && !complaint.contains("BEGIN"), "{complaint}");
    }
}
