//! The contract with readers: a reader with any version of a schema can read records of every other version. It does so
//! by resolution, or by position if it has one schema only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri};
use scimtail::avro::lint::{canonical, evolution, lint};
use scimtail::avro::wire::{ChangeEvent, ControlRequest, GroupState, MembershipState, SyncStatus, UserState};
use scimtail::avro::{Registry, registry, schema};
use scimtail::log::Topic;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64;

use crate::memory::{MemoryDirectory, World, account};
use crate::program::Program;
use crate::samples::samples;
use crate::services::{Services, services, unique_prefix};

/// Generated records of each schema, beside the real ones.
const GENERATED: usize = 200;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Name of a topic's schema, which is that of its file.
fn name(topic: Topic) -> String {
    let schema: Json = serde_json::from_str(schema::text(topic)).expect("JSON");
    schema["name"].as_str().expect("a name").to_owned()
}

/// The copies of `schemas/released`: (version, topic, text).
fn released() -> Vec<(String, Topic, String)> {
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(root().join("schemas/released")).expect("the released copies") {
        let version = entry.unwrap().file_name().into_string().expect("UTF-8");
        for topic in Topic::ALL {
            let file = format!("schemas/released/{version}/{}.avsc", name(topic));
            // A topic may be younger than a version.
            if root().join(&file).exists() {
                copies.push((version.clone(), topic, text(&file)));
            }
        }
    }
    copies.sort();
    copies
}

fn parse(text: &str) -> Schema {
    Schema::parse_str(text).expect("an Avro schema")
}

fn encode(schema: &Schema, value: &Value) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let writer = GenericDatumWriter::builder(schema).build().map_err(|error| error.to_string())?;
    writer.write_value(&mut bytes, value.clone()).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Decodes all of it, by resolution where the reader's schema is another.
fn decode(bytes: &[u8], writer: &Schema, reader: Option<&Schema>) -> Result<Value, String> {
    let decoder = GenericDatumReader::builder(writer).maybe_reader_schema(reader).build();
    decoder.and_then(|decoder| decoder.read_value(&mut &*bytes)).map_err(|error| error.to_string())
}

fn fields(value: &Value) -> &[(String, Value)] {
    let Value::Record(fields) = value else { panic!("a record") };
    fields
}

/// The record as a reader with a shorter schema should find it.
fn cut(value: &Value, schema: &Schema) -> Value {
    let Schema::Record(record) = schema else { panic!("a record") };
    Value::Record(fields(value)[..record.fields.len().min(fields(value).len())].to_vec())
}

/// Reads records of each schema with the other one. `records` are of the newer schema. A record of the older version is
/// the same without the fields that came later.
fn readers_agree(old: &Schema, new: &Schema, records: &[Value]) -> Result<(), String> {
    for record in records {
        let bytes = encode(new, record)?;
        let expected = cut(record, old);
        let resolved =
            decode(&bytes, new, Some(old)).map_err(|error| format!("the old reader cannot resolve: {error}"))?;
        if resolved != expected {
            return Err(format!("the old reader resolves {resolved:?} instead of {expected:?}"));
        }
        let placed =
            decode(&bytes, old, None).map_err(|error| format!("the old reader cannot read by position: {error}"))?;
        if placed != expected {
            return Err(format!("the old reader reads {placed:?} by position instead of {expected:?}"));
        }
        let bytes = encode(old, &expected)?;
        let resolved =
            decode(&bytes, old, Some(new)).map_err(|error| format!("the new reader cannot resolve: {error}"))?;
        if cut(&resolved, old) != expected {
            return Err(format!("the new reader resolves {resolved:?} instead of {expected:?} and defaults"));
        }
    }
    Ok(())
}

/// Any value of a schema.
fn random(schema: &Schema, rng: &mut fastrand::Rng) -> Value {
    match schema {
        Schema::Boolean => Value::Boolean(rng.bool()),
        Schema::Int => Value::Int(rng.i32(..)),
        // Long and short encodings alike.
        Schema::Long => Value::Long(rng.i64(..) >> rng.u32(..64)),
        Schema::TimestampMillis => Value::TimestampMillis(rng.i64(..) >> rng.u32(..64)),
        Schema::String => Value::String((0..rng.usize(..12)).map(|_| rng.char('\u{20}'..'\u{2000}')).collect()),
        Schema::Array(array) => Value::Array((0..rng.usize(..4)).map(|_| random(&array.items, rng)).collect()),
        Schema::Map(map) => {
            let entries = (0..rng.usize(..4)).map(|_| (rng.alphabetic().to_string(), random(&map.types, rng)));
            Value::Map(entries.collect())
        }
        Schema::Union(union) => {
            let branch = rng.usize(..union.variants().len());
            Value::Union(branch as u32, Box::new(random(&union.variants()[branch], rng)))
        }
        Schema::Record(record) => {
            Value::Record(record.fields.iter().map(|field| (field.name.clone(), random(&field.schema, rng))).collect())
        }
        Schema::Null => Value::Null,
        other => panic!("no schema of ours has {other:?}"),
    }
}

fn generated(schema: &Schema, seed: u64) -> Vec<Value> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..GENERATED).map(|_| random(schema, &mut rng)).collect()
}

fn seed() -> u64 {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    seed
}

/// Records of every topic as the program writes them: every sample event, and the records of a directory whose
/// resources are renamed, disabled, removed, nested, held and released.
async fn real_records() -> Vec<(Topic, Vec<u8>)> {
    let mut records = Vec::new();
    let mut push = |topic: Topic, value: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        value(&mut bytes);
        records.push((topic, bytes));
    };
    for sample in samples() {
        push(Topic::Events, &|bytes| {
            schema::writer(Topic::Events).write_ser(bytes, &sample.event).expect("an event encodes");
        });
    }
    let request = ControlRequest {
        account: "acme".to_owned(),
        action: "release".to_owned(),
        hold_id: Some("118-u31-g0-m77-d0-a0".to_owned()),
        requested_by: "tester".to_owned(),
        requested_at: 1_795_262_671_204,
        reason: None,
    };
    push(Topic::Control, &|bytes| {
        schema::writer(Topic::Control).write_ser(bytes, &request).expect("a request encodes");
    });
    let mut world = World::new(account("acme"));
    let nested = "group g1 CB/acme.com/ROLE/Admin: u1 u2 group=g2\ngroup g2 Leads: u1 ghost";
    for people in [
        "user u1 ann title=Analyst\nuser u2 bob\nuser u3 cid inactive\nuser u4 dan\nuser u5 eve\nuser u6 fay",
        "user u1 ann title=Manager\nuser u2 bob inactive\nuser u3 cid\nuser u4 dan\nuser u5 eve\nuser u6 fay",
        "user u1 ann title=Manager\nuser u3 cid\nuser u4 dan\nuser u5 eve\nuser u6 fay",
        // All users are gone, so the sync is held.
        "",
    ] {
        world.sync(&MemoryDirectory::parse(&format!("{people}\n{nested}"))).await;
    }
    for record in world.log.records.lock().unwrap().iter() {
        if let Some(value) = &record.value {
            records.push((record.topic, value[5..].to_vec()));
        }
    }
    for topic in Topic::ALL {
        assert!(records.iter().any(|(of, _)| *of == topic), "{topic:?} has a real record");
    }
    records
}

#[tokio::test]
async fn g10_readers_of_every_released_schema_read_what_this_version_writes_and_the_other_way() {
    let (seed, real) = (seed(), real_records().await);
    let copies = released();
    assert!(!copies.is_empty(), "a version has been kept");
    for (version, topic, old) in &copies {
        let (old, new) = (parse(old), schema::parsed(*topic));
        let mut records: Vec<Value> = real
            .iter()
            .filter(|(of, _)| of == topic)
            .map(|(_, bytes)| decode(bytes, new, None).expect("our own record"))
            .collect();
        records.extend(generated(new, seed));
        readers_agree(&old, new, &records).unwrap_or_else(|error| panic!("{topic:?} of {version}: {error}"));
    }
}

/// `readers_agree` on a small schema and what `change` makes of it.
fn after(change: &dyn Fn(&mut Vec<Json>)) -> Result<(), String> {
    let before = json!([
        { "name": "id", "type": "string" },
        { "name": "count", "type": "long" },
        { "name": "user", "type": ["null", { "type": "record", "name": "User", "fields": [{ "name": "id", "type": "string" }] }], "default": null },
        { "name": "tags", "type": { "type": "array", "items": "string" } },
    ]);
    let schema = |fields: &[Json]| {
        parse(&json!({ "type": "record", "name": "Thing", "namespace": "scimtail", "fields": fields }).to_string())
    };
    let old = before.as_array().expect("fields").clone();
    let mut new = old.clone();
    change(&mut new);
    let (old, new) = (schema(&old), schema(&new));
    readers_agree(&old, &new, &generated(&new, 7))
}

#[test]
fn the_reading_of_old_and_new_notices_every_change_but_an_appended_field() {
    let field = |default: bool| {
        let mut field = json!({ "name": "title", "type": ["null", "string"] });
        if default {
            field["default"] = Json::Null;
        }
        field
    };
    after(&|_| {}).expect("the same schema");
    after(&|fields| fields.push(field(true))).expect("an appended nullable field");
    after(&|fields| fields.extend([field(true), json!({ "name": "more", "type": "long", "default": 0 })]))
        .expect("two of them");
    type Change<'a> = &'a dyn Fn(&mut Vec<Json>);
    let changes: [(&str, Change<'_>, &str); 8] = [
        ("inserted in the middle", &|fields| fields.insert(1, field(true)), "old reader"),
        ("inserted at the beginning", &|fields| fields.insert(0, field(true)), "old reader"),
        ("appended without a default", &|fields| fields.push(json!({ "name": "n", "type": "long" })), "new reader"),
        ("the last one removed", &|fields| drop(fields.pop()), "old reader"),
        ("one removed", &|fields| drop(fields.remove(1)), "old reader"),
        ("renamed", &|fields| fields[0]["name"] = json!("key"), "old reader"),
        ("retyped", &|fields| fields[1]["type"] = json!("string"), "old reader"),
        (
            "a field appended to a nested record",
            &|fields| fields[2]["type"][1]["fields"].as_array_mut().expect("fields").push(field(true)),
            "old reader",
        ),
    ];
    for (what, change, who) in changes {
        let error = after(change).expect_err(what);
        assert!(error.contains(who), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_restore_reads_records_that_every_released_version_wrote() {
    let seed = seed();
    for (version, topic, old) in released() {
        let writer: &'static Schema = Box::leak(Box::new(parse(&old)));
        for value in generated(writer, seed) {
            let bytes = encode(writer, &value).expect("it was generated from this schema");
            let reader = schema::reader(writer).expect("a reader");
            let read = match topic {
                Topic::Events => reader.read_deser::<ChangeEvent>(&mut &*bytes).map(drop),
                Topic::Users => reader.read_deser::<UserState>(&mut &*bytes).map(drop),
                Topic::Groups => reader.read_deser::<GroupState>(&mut &*bytes).map(drop),
                Topic::Memberships => reader.read_deser::<MembershipState>(&mut &*bytes).map(drop),
                Topic::Syncs => reader.read_deser::<SyncStatus>(&mut &*bytes).map(drop),
                Topic::Control => reader.read_deser::<ControlRequest>(&mut &*bytes).map(drop),
                Topic::EventsOcsf | Topic::EventsEcs => panic!("no schema of it is released"),
            };
            read.unwrap_or_else(|error| panic!("{topic:?} of {version}: {error}"));
        }
    }
}

#[test]
fn released_schemas_keep_the_rules_and_only_grew_at_the_end() {
    for (version, topic, text) in released() {
        assert_eq!(lint(&text), [""; 0], "{topic:?} of {version}");
        assert_eq!(evolution(&text, schema::text(topic)), [""; 0], "{topic:?} since {version}");
    }
}

fn fingerprint(text: &str) -> String {
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

/// Fingerprints of the schemas by name, as a section of the changelog states them.
fn stated(section: &str) -> BTreeMap<String, String> {
    let lines = section.lines().filter_map(|line| line.strip_prefix("- `"));
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once("` `")?;
            let (fingerprint, words) = rest.split_once("`: ")?;
            assert!(!words.trim().is_empty(), "{name}: the changelog says what changed");
            Some((name.to_owned(), fingerprint.to_owned()))
        })
        .collect()
}

/// Sections of the changelog, newest first: (title, text).
fn sections() -> Vec<(String, String)> {
    let changelog = text("CHANGELOG.md");
    let sections = changelog.split("\n## ").skip(1);
    sections.map(|section| section.split_once('\n').map(|(a, b)| (a.into(), b.into())).expect("a title")).collect()
}

#[test]
fn a_schema_does_not_change_without_an_entry_in_the_changelog() {
    let sections = sections();
    let newest = sections.iter().map(|(_, text)| stated(text)).find(|stated| !stated.is_empty());
    let newest = newest.expect("the changelog states fingerprints of the schemas");
    let current = Topic::ALL.map(|topic| (name(topic), fingerprint(schema::text(topic))));
    let changed: Vec<String> = current
        .iter()
        .filter(|(name, fingerprint)| newest.get(name) != Some(fingerprint))
        .map(|(name, fingerprint)| format!("- `{name}` `{fingerprint}`: what that means for readers\n"))
        .collect();
    assert!(
        changed.is_empty(),
        "to be said under `### Schemas` of CHANGELOG.md's newest section:\n{}",
        changed.concat()
    );
    // A field that came since the newest kept version is named, not only counted.
    let last = released().last().expect("a kept version").0.clone();
    for (_, topic, old) in released().into_iter().filter(|(version, _, _)| *version == last) {
        let Schema::Record(old) = parse(&old) else { panic!("a record") };
        let Schema::Record(new) = schema::parsed(topic) else { panic!("a record") };
        for field in new.fields.iter().skip(old.fields.len()) {
            let named = sections[0].1.contains(&format!("`{}`", field.name));
            assert!(named, "CHANGELOG.md does not name the new field `{}` of {}", field.name, name(topic));
        }
    }
}

/// Where a changelog's versions and the kept copies differ; `copy` gives the text of a file that is there.
fn misfits(sections: &[(String, String)], copy: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut misfits = Vec::new();
    for (title, section) in sections.iter().filter(|(title, _)| title != "Unreleased") {
        let version = title.trim_start_matches('[').split([']', ' ']).next().expect("a version");
        // Every version keeps all of its schemas; its section has the fingerprints of those that it changed.
        let stated = stated(section);
        for topic in Topic::ALL {
            let name = name(topic);
            let file = format!("schemas/released/{version}/{name}.avsc");
            match copy(&file) {
                None => misfits.push(format!("{file} is missing")),
                Some(text) if stated.get(&name).is_some_and(|stated| *stated != fingerprint(&text)) => {
                    misfits.push(format!("{file} is not what {version} registered"));
                }
                Some(_) => {}
            }
        }
    }
    misfits
}

#[test]
fn every_version_in_the_changelog_has_its_schemas_kept_as_they_were() {
    let there = |file: &str| std::fs::read_to_string(root().join(file)).ok();
    assert_eq!(misfits(&sections(), &there), [""; 0]);
    // No version is tagged yet, so this is a changelog as it will be.
    let users = fingerprint(schema::text(Topic::Users));
    let changelog = |fingerprint: &str| {
        let section = format!("### Schemas\n\n- `UserState` `{fingerprint}`: first form\n");
        [("Unreleased".to_owned(), String::new()), ("[1.0.0] - 2027-01-01".to_owned(), section)]
    };
    let whole = |file: &str| {
        let topic =
            Topic::ALL.into_iter().find(|topic| file == format!("schemas/released/1.0.0/{}.avsc", name(*topic)));
        topic.map(|topic| schema::text(topic).to_owned())
    };
    assert_eq!(misfits(&changelog(&users), &whole), [""; 0]);
    let altered = |file: &str| whole(file).map(|text| text.replace("SCIM displayName.", "A name."));
    let expected = ["schemas/released/1.0.0/UserState.avsc is not what 1.0.0 registered"];
    assert_eq!(misfits(&changelog(&users), &altered), expected);
    let removed = |file: &str| whole(file).filter(|_| !file.contains("GroupState"));
    assert_eq!(misfits(&changelog(&users), &removed), ["schemas/released/1.0.0/GroupState.avsc is missing"]);
}

/// A schema as JSON with one more field, at the end or as the second.
fn with_field(topic: Topic, field: Json, at_the_end: bool) -> String {
    let mut schema: Json = serde_json::from_str(schema::text(topic)).expect("JSON");
    let fields = schema["fields"].as_array_mut().expect("fields");
    fields.insert(if at_the_end { fields.len() } else { 1 }, field);
    canonical(&schema)
}

fn nullable(name: &str) -> Json {
    json!({ "name": name, "type": ["null", "string"], "default": null, "doc": "Came later.", "pii": "none" })
}

async fn post(url: String, schema: &str) -> (bool, Json) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.post(url).json(&json!({ "schema": schema })).send().await.expect("the registry answers");
    (answer.status().is_success(), answer.json().await.unwrap_or(Json::Null))
}

#[tokio::test]
async fn g10_the_registry_takes_an_appended_field_and_refuses_a_required_one() {
    let (prefix, base) = (unique_prefix("contract"), &services().registry);
    let registry = Registry::new(base).expect("a URL");
    let ids = registry.ids(&prefix, true).await.expect("registered");
    for topic in Topic::ALL {
        let subject = schema::subject(&prefix, topic);
        assert_eq!(registry.compatibility(&subject).await.expect("a level").as_deref(), Some(registry::COMPATIBILITY));
        let versions = format!("{base}/subjects/{subject}/versions");
        let required = json!({ "name": "later", "type": "string", "doc": "Came later.", "pii": "none" });
        let required = with_field(topic, required, true);
        assert!(!registry.accepts(&subject, &required).await.expect("an answer"), "{topic:?}");
        assert!(!post(versions.clone(), &required).await.0, "{topic:?}");
        let appended = with_field(topic, nullable("later"), true);
        assert!(registry.accepts(&subject, &appended).await.expect("an answer"), "{topic:?}");
        let (taken, answer) = post(versions, &appended).await;
        assert!(taken && answer["id"] != ids.of(topic), "{topic:?}: {answer}");
        // Both versions are registered, and an instance of the earlier version still finds its own.
        assert_eq!(registry.versions(&subject).await.expect("versions").len(), 2);
        assert_eq!(registry.look_up(&subject, schema::text(topic)).await, Ok(Some(ids.of(topic))));
        // No registry notices what breaks only readers by position. The linter is for that.
        let inserted = with_field(topic, nullable("between"), false);
        assert!(registry.accepts(&subject, &inserted).await.expect("an answer"), "{topic:?}");
        assert_eq!(evolution(schema::text(topic), &inserted).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_set_the_compatibility_of_the_same_subjects_at_once_all_succeed() {
    const INSTANCES: usize = 6;
    const ROUNDS: usize = 4;
    let url = &services().registry;
    for _ in 0..ROUNDS {
        // Registered by other means, without a level.
        let prefix = unique_prefix("level");
        for topic in Topic::ALL {
            let subject = schema::subject(&prefix, topic);
            assert!(post(format!("{url}/subjects/{subject}/versions"), schema::text(topic)).await.0);
        }
        let all = (0..INSTANCES).map(|_| async {
            let registry = Registry::new(url).expect("a URL");
            registry.ids(&prefix, true).await
        });
        let ids = futures::future::join_all(all).await;
        assert!(ids.iter().all(Result::is_ok), "{ids:?}");
        for topic in Topic::ALL {
            let level = Registry::new(url).expect("a URL").compatibility(&schema::subject(&prefix, topic)).await;
            assert_eq!(level, Ok(Some("FULL_TRANSITIVE".to_owned())));
        }
    }
}

/// A registry in front of the real one that answers a comparison with all versions of a subject like this.
async fn registry_without_comparison(status: StatusCode, body: &'static str) -> (Registry, JoinSet<()>) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let forward = async move |method: Method, uri: Uri, sent: Bytes| {
        if uri.path().starts_with("/compatibility/subjects/") && uri.path().ends_with("/versions") {
            return (status, Bytes::from_static(body.as_bytes()));
        }
        let request = client.request(method, format!("{}{uri}", services().registry)).body(sent);
        let answered = request.header("content-type", "application/json").send().await.expect("the registry answers");
        (answered.status(), answered.bytes().await.expect("a body"))
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let mut task = JoinSet::new();
    task.spawn(async { axum::serve(listener, Router::new().fallback(forward)).await.expect("it serves") });
    (Registry::new(&url).expect("a URL"), task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_compares_with_one_version_at_a_time_says_the_same_of_a_schema() {
    let real = Registry::new(&services().registry).expect("a URL");
    let prefix = unique_prefix("compared");
    real.ids(&prefix, true).await.expect("they are registered");
    let subject = schema::subject(&prefix, Topic::Events);
    // Two versions. What fits the second one fits the first one, unless `later` comes back as something else.
    let later = with_field(Topic::Events, nullable("later"), true);
    assert!(post(format!("{}/subjects/{subject}/versions", services().registry), &later).await.0);
    let required = json!({ "name": "more", "type": "string", "doc": "Came later.", "pii": "none" });
    let mut other = nullable("later");
    other["type"] = json!(["null", "long"]);
    let schemas = [
        (with_field(Topic::Events, required, true), false),
        (with_field(Topic::Events, nullable("more"), true), true),
        (with_field(Topic::Events, other, true), false),
    ];
    for (status, body) in [
        // Confluent's way, Redpanda's, a web server's.
        (StatusCode::NOT_FOUND, r#"{"error_code": 404, "message": "HTTP 404 Not Found"}"#),
        (StatusCode::NOT_FOUND, r#"{"message": "Not found", "code": 404}"#),
        (StatusCode::METHOD_NOT_ALLOWED, ""),
    ] {
        let (registry, _task) = registry_without_comparison(status, body).await;
        for (text, fits) in &schemas {
            assert_eq!(real.accepts(&subject, text).await, Ok(*fits), "{text}");
            assert_eq!(registry.accepts(&subject, text).await, Ok(*fits), "{status} {body}: {text}");
        }
        let absent = schema::subject(&unique_prefix("absent"), Topic::Events);
        assert_eq!(registry.accepts(&absent, &schemas[0].0).await, Ok(true), "there is nothing that it could break");
    }
    // The path is there, and the answer is about the subject.
    let unknown = r#"{"error_code": 40401, "message": "Subject not found"}"#;
    let (registry, _task) = registry_without_comparison(StatusCode::NOT_FOUND, unknown).await;
    let refused = registry.accepts(&subject, &schemas[1].0).await.expect_err("it is no answer");
    assert!(refused.is_refused() && refused.to_string().contains("is refused (HTTP 404)"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_checked_one_line_each_and_nothing_is_written() {
    let program = |services: &Services, prefix: &str, register: bool| {
        let text = format!(
            "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{prefix}\"\n[registry]\nurl = \"{}\"\nregister = {register}\n\
             [[account]]\nname = \"acme\"\nprovider = \"stripe\"\ntoken_env = \"SCIMTAIL_TEST_TOKEN\"\n",
            services.bootstrap, services.registry
        );
        Program::with_text(prefix, "token", &text)
    };
    let (prefix, base) = (unique_prefix("schemas"), &services().registry);
    let (service, strict) = (program(services(), &prefix, true), program(services(), &prefix, false));

    let fresh = service.run(&["schemas", "--check"]).await;
    assert_eq!((fresh.code, fresh.out.lines().count()), (0, 6), "{fresh:?}");
    assert!(fresh.out.lines().all(|line| line.starts_with("note  ") && line.contains("→ `run` does it")), "{fresh:?}");
    let missing = strict.run(&["schemas", "--check"]).await;
    assert_eq!(missing.code, 78, "{missing:?}");
    assert!(missing.out.lines().all(|line| line.starts_with("FAIL  ") && line.contains("--print")), "{missing:?}");
    let registry = Registry::new(base).expect("a URL");
    let events = schema::subject(&prefix, Topic::Events);
    assert_eq!(registry.versions(&events).await, Ok(vec![]), "checking writes nothing");

    assert_eq!(service.run(&["schemas", "--register"]).await.code, 0);
    let whole = strict.run(&["schemas", "--check"]).await;
    assert_eq!((whole.code, whole.out.lines().count()), (0, 6), "{whole:?}");
    assert!(
        whole.out.lines().all(|line| line.starts_with("ok    ") && line.ends_with("version 1 of 1, FULL_TRANSITIVE"))
    );

    // First a later version was here, then an owner that knows only the registry's rules; and one subject lost its
    // level.
    let versions = format!("{base}/subjects/{events}/versions");
    assert!(post(versions.clone(), &with_field(Topic::Events, nullable("later"), true)).await.0);
    let later = service.run(&["schemas", "--check"]).await;
    assert!(later.code == 0 && later.out.contains("version 2 (id "), "{later:?}");
    assert!(later.out.contains("is newer and appends fields"), "{later:?}");
    let mut between: Json = serde_json::from_str(&with_field(Topic::Events, nullable("later"), true)).expect("JSON");
    between["fields"].as_array_mut().expect("fields").insert(1, nullable("between"));
    assert!(post(versions, &canonical(&between)).await.0);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let users = schema::subject(&prefix, Topic::Users);
    let level = json!({ "compatibility": "NONE" });
    client.put(format!("{base}/config/{users}")).json(&level).send().await.expect("the registry answers");
    let broken = service.run(&["schemas", "--check"]).await;
    assert_eq!(broken.code, 78, "{broken:?}");
    let fails: Vec<&str> = broken.out.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert_eq!(fails.len(), 2, "{broken:?}");
    assert!(fails[0].contains(&events) && fails[0].contains("misleads readers that decode by position"), "{fails:?}");
    assert!(fails[1].contains(&users) && fails[1].contains("compatibility NONE"), "{fails:?}");

    let nowhere = Services { registry: "http://127.0.0.1:9".to_owned(), ..services().clone() };
    let unreachable = program(&nowhere, &prefix, true);
    unreachable.run(&["schemas", "--check"]).await.refused(69, &["cannot be reached", "→"]);
}
