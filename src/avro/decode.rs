//! Bytes → records, by the schema they were written with.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde::de::DeserializeOwned;

use super::registry::{Registry, RegistryError};
use super::schema::{self, SchemaIds};
use crate::log::Topic;

/// Why a value is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The registry does not answer: nothing is wrong with the value.
    #[error("{0}")]
    Unreachable(String),
    /// A newer scimtail wrote it.
    #[error(
        "written with a newer schema than this scimtail knows (id {0}); → run the version that wrote it, or a newer one"
    )]
    Newer(u32),
    /// The registry answers, and has no such schema: a value that is none, or the wrong registry.
    #[error("{0}")]
    UnknownSchema(String),
    #[error("{0}")]
    Garbage(String),
}

impl From<&str> for Undecodable {
    fn from(text: &str) -> Undecodable {
        Undecodable::Garbage(text.to_owned())
    }
}

impl From<String> for Undecodable {
    fn from(text: String) -> Undecodable {
        Undecodable::Garbage(text)
    }
}

/// Decodes framed values. Schemas other than our own are fetched from the registry once.
///
/// Whoever writes (`own` is given) refuses state of schemas with fields that it does not know: it would write the records
/// anew without them. Readers leave such fields out.
pub struct Decoder {
    own: Option<SchemaIds>,
    registry: Registry,
    runtime: tokio::runtime::Handle,
    readers: HashMap<u32, GenericDatumReader<'static>>,
}

impl Decoder {
    /// `own`: ids of the schemas in this binary, which then need no fetching.
    /// Must be made inside a runtime; decoding itself belongs on a blocking thread.
    pub fn new(own: Option<SchemaIds>, registry: Registry) -> Decoder {
        Decoder { own, registry, runtime: tokio::runtime::Handle::current(), readers: HashMap::new() }
    }

    /// # Errors
    /// Says what is wrong with the bytes: no framing, a schema nobody knows, a datum that does not fit.
    pub fn decode<T: DeserializeOwned>(&mut self, topic: Topic, value: &[u8]) -> Result<T, Undecodable> {
        let Some((&[0, a, b, c, d], mut datum)) = value.split_first_chunk::<5>() else {
            return Err("the value has no Confluent framing (0x00 and a schema id)".into());
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        if !self.readers.contains_key(&id) {
            let writer = match self.own.filter(|own| own.of(topic) == id) {
                Some(_) => schema::parsed(topic),
                None => self.fetch(topic, id)?,
            };
            self.readers.insert(id, schema::reader(writer)?);
        }
        self.readers[&id]
            .read_deser(&mut datum)
            .map_err(|_| format!("the value does not fit its schema (id {id})").into())
    }

    fn fetch(&self, topic: Topic, id: u32) -> Result<&'static Schema, Undecodable> {
        let text = self.runtime.block_on(self.registry.schema_text(id)).map_err(|error| match error {
            RegistryError::Unreachable(text) => Undecodable::Unreachable(text),
            RegistryError::Refused(text) => Undecodable::UnknownSchema(text),
        })?;
        let schema = Schema::parse_str(&text).map_err(|_| format!("schema {id} is no Avro schema"))?;
        if self.own.is_some()
            && Topic::STATE.contains(&topic)
            && schema::has_more_fields(&schema, schema::parsed(topic))
        {
            return Err(Undecodable::Newer(id));
        }
        // A handful of schema versions in the life of a process.
        Ok(Box::leak(Box::new(schema)))
    }
}
