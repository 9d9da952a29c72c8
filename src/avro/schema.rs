//! The six schemas: the files are the one canonical text, because registries compare text.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use xxhash_rust::xxh3::xxh3_64;

use crate::log::Topic;

/// Text of a topic's schema, as registered.
pub fn text(topic: Topic) -> &'static str {
    match topic {
        Topic::Events => include_str!("../../schemas/ChangeEvent.avsc"),
        Topic::Users => include_str!("../../schemas/UserState.avsc"),
        Topic::Groups => include_str!("../../schemas/GroupState.avsc"),
        Topic::Memberships => include_str!("../../schemas/MembershipState.avsc"),
        Topic::Syncs => include_str!("../../schemas/SyncStatus.avsc"),
        Topic::Control => include_str!("../../schemas/ControlRequest.avsc"),
        Topic::EventsOcsf | Topic::EventsEcs => panic!("{topic:?} holds JSON: only `Topic::ALL` have a schema"),
    }
}

/// The name of a topic's schema.
pub fn name(topic: Topic) -> &'static str {
    match topic {
        Topic::Events => "ChangeEvent",
        Topic::Users => "UserState",
        Topic::Groups => "GroupState",
        Topic::Memberships => "MembershipState",
        Topic::Syncs => "SyncStatus",
        Topic::Control => "ControlRequest",
        Topic::EventsOcsf | Topic::EventsEcs => panic!("{topic:?} holds JSON: only `Topic::ALL` have a schema"),
    }
}

/// XXH3 of a topic's schema as registered, in 16 hexadecimal digits. `CHANGELOG.md` lists it for each version.
pub fn fingerprint(topic: Topic) -> String {
    format!("{:016x}", xxh3_64(text(topic).as_bytes()))
}

/// `<topic>-value`: TopicNameStrategy, which every reader understands.
pub fn subject(prefix: &str, topic: Topic) -> String {
    format!("{}-value", topic.name(prefix))
}

/// Schema ids under which the registry knows the schemas, by topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaIds(pub [u32; Topic::ALL.len()]);

impl SchemaIds {
    pub fn of(&self, topic: Topic) -> u32 {
        self.0[topic as usize]
    }
}

pub fn parsed(topic: Topic) -> &'static Schema {
    static SCHEMAS: LazyLock<[Schema; Topic::ALL.len()]> =
        LazyLock::new(|| Topic::ALL.map(|topic| Schema::parse_str(text(topic)).expect("a test parses every schema")));
    &SCHEMAS[topic as usize]
}

/// Schemas of the registry that a process keeps; there is a handful.
const KEPT_MAX: usize = 1_000;

/// A schema of the registry. A process parses and keeps each text once, however many readers ask for it.
///
/// # Errors
/// What the text is: for the end of a sentence.
pub fn kept(text: &str) -> Result<&'static Schema, &'static str> {
    static KEPT: Mutex<BTreeMap<String, &'static Schema>> = Mutex::new(BTreeMap::new());
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = all.get(text) {
        return Ok(schema);
    }
    if all.len() == KEPT_MAX {
        return Err("is one schema more than a process keeps");
    }
    let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(text).map_err(|_| "is not an Avro schema")?));
    all.insert(text.to_owned(), schema);
    Ok(schema)
}

/// Fields are only ever appended: a schema with a field that ours lacks is a newer one.
pub fn has_more_fields(schema: &Schema, than: &Schema) -> bool {
    let names = |schema: &Schema| match schema {
        Schema::Record(record) => record.fields.iter().map(|field| field.name.clone()).collect(),
        _ => Vec::new(),
    };
    let known = names(than);
    names(schema).iter().any(|name| !known.contains(name))
}

/// Kept writers: rebuilding one per record costs a quarter of the speed.
pub fn writer(topic: Topic) -> &'static GenericDatumWriter<'static> {
    static WRITERS: LazyLock<[GenericDatumWriter<'static>; Topic::ALL.len()]> = LazyLock::new(|| {
        Topic::ALL.map(|topic| {
            GenericDatumWriter::builder(parsed(topic))
                .human_readable(false)
                .build()
                .expect("a test builds every writer")
        })
    });
    &WRITERS[topic as usize]
}

pub fn reader(schema: &'static Schema) -> Result<GenericDatumReader<'static>, String> {
    GenericDatumReader::builder(schema).human_readable(false).build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_parsed_once_in_the_life_of_a_process() {
        let text = r#"{"type":"record","name":"Kept","fields":[]}"#;
        assert!(std::ptr::eq(kept(text).unwrap(), kept(text).unwrap()));
        assert_eq!(kept("{").unwrap_err(), "is not an Avro schema");
    }

    #[test]
    fn every_schema_parses_and_has_a_writer() {
        for topic in Topic::ALL {
            let Schema::Record(record) = parsed(topic) else { panic!("{topic:?}") };
            assert_eq!(record.name.name(), name(topic));
            writer(topic);
        }
    }
}
