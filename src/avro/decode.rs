//! Bytes → records, by the schema they were written with.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde::de::DeserializeOwned;

use super::registry::Registry;
use super::schema::{self, SchemaIds};
use super::stored::{StoredMembership, StoredPrincipal};
use super::wire::{GroupState, MembershipState, UserState};
use crate::directory::{Kind, Problem};
use crate::log::Topic;
use crate::service::ServiceError;

/// Why a value is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problem())]
pub enum Undecodable {
    /// The registry does not answer: nothing is wrong with the value.
    Unreachable(Problem),
    /// A newer scimtail wrote the value, with the schema of this id.
    Newer(u32),
    /// The registry answers, and has no such schema: the value is not one of ours, or the registry is the wrong one.
    UnknownSchema(Problem),
    /// The bytes are not a value of their schema.
    Garbage(String),
}

impl Undecodable {
    /// What is wrong, and what to do about it.
    pub fn problem(&self) -> Problem {
        match self {
            Undecodable::Unreachable(problem) | Undecodable::UnknownSchema(problem) => problem.clone(),
            Undecodable::Newer(id) => {
                Problem::new(format!("written with a newer schema than this scimtail knows (id {id})"))
                    .with_remedy("run the version that wrote it, or a newer one")
            }
            Undecodable::Garbage(text) => Problem::new(text),
        }
    }
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
pub struct Decoder {
    /// Ids of the schemas in this binary, which need no fetching; `None` for a decoder of a reader.
    own: Option<SchemaIds>,
    registry: Registry,
    runtime: tokio::runtime::Handle,
    readers: HashMap<u32, Reader>,
    /// Of a writer, the schemas of state that it asked for in vain: a restore of a million records must not ask for each.
    refused: HashMap<(Topic, u32), Undecodable>,
}

/// Of one schema id.
struct Reader {
    reader: GenericDatumReader<'static>,
    /// The topic whose schema in this binary has the same binary form.
    own: Option<Topic>,
}

impl Decoder {
    /// For a process that writes records again that it has read. It refuses state whose schema has fields that this
    /// binary does not know: it would write the record without them.
    ///
    /// Must be made inside a runtime; decoding itself belongs on a blocking thread.
    pub fn of_writer(own: SchemaIds, registry: Registry) -> Decoder {
        Decoder::new(Some(own), registry)
    }

    /// For a process that only reads. It leaves out fields that this binary does not know.
    ///
    /// As for [`Decoder::of_writer`], it must be made inside a runtime.
    pub fn of_reader(registry: Registry) -> Decoder {
        Decoder::new(None, registry)
    }

    fn new(own: Option<SchemaIds>, registry: Registry) -> Decoder {
        Decoder {
            own,
            registry,
            runtime: tokio::runtime::Handle::current(),
            readers: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    /// Decodes a value of the topic: 0x00, four bytes of schema id (big-endian), datum.
    ///
    /// # Errors
    /// Says what is wrong with the bytes: no framing, an unknown schema, a datum that does not fit.
    pub fn decode<T: DeserializeOwned>(&mut self, topic: Topic, value: &[u8]) -> Result<T, Undecodable> {
        let (id, mut datum) = framing(value)?;
        let reader = &self.reader(topic, id)?.reader;
        reader.read_deser(&mut datum).map_err(|_| format!("the value does not fit its schema (id {id})").into())
    }

    /// As [`Decoder::decode`], for a record of `users` or `groups`.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn principal<'v>(&mut self, kind: Kind, value: &'v [u8]) -> Result<StoredPrincipal<'v>, Undecodable> {
        let topic = match kind {
            Kind::User => Topic::Users,
            Kind::Group => Topic::Groups,
        };
        let read = self.own_datum(topic, value)?.and_then(|datum| StoredPrincipal::read(kind, datum));
        match (read, kind) {
            (Some(read), _) => Ok(read),
            (None, Kind::User) => self.decode::<UserState>(topic, value).map(Into::into),
            (None, Kind::Group) => self.decode::<GroupState>(topic, value).map(Into::into),
        }
    }

    /// As [`Decoder::decode`], for a record of `memberships`.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn membership<'v>(&mut self, value: &'v [u8]) -> Result<StoredMembership<'v>, Undecodable> {
        match self.own_datum(Topic::Memberships, value)?.and_then(StoredMembership::read) {
            Some(read) => Ok(read),
            None => self.decode::<MembershipState>(Topic::Memberships, value).map(Into::into),
        }
    }

    /// The datum, if its schema is that of this binary.
    fn own_datum<'v>(&mut self, topic: Topic, value: &'v [u8]) -> Result<Option<&'v [u8]>, Undecodable> {
        let (id, datum) = framing(value)?;
        Ok((self.reader(topic, id)?.own == Some(topic)).then_some(datum))
    }

    fn reader(&mut self, topic: Topic, id: u32) -> Result<&Reader, Undecodable> {
        if !self.readers.contains_key(&id) {
            if let Some(refused) = self.refused.get(&(topic, id)) {
                return Err(refused.clone());
            }
            let reader = self.new_reader(topic, id);
            // What reads no state may live long, and the registry may get the schema meanwhile.
            if let Err(refused) = &reader
                && self.own.is_some()
                && Topic::STATE.contains(&topic)
                && !matches!(refused, Undecodable::Unreachable(_))
            {
                self.refused.insert((topic, id), refused.clone());
            }
            self.readers.insert(id, reader?);
        }
        Ok(&self.readers[&id])
    }

    fn new_reader(&self, topic: Topic, id: u32) -> Result<Reader, Undecodable> {
        let writer = match self.own.filter(|own| own.of(topic) == id) {
            Some(_) => schema::parsed(topic),
            None => self.fetch(topic, id)?,
        };
        let form = writer.canonical_form();
        let own = Topic::STATE.into_iter().find(|topic| schema::parsed(*topic).canonical_form() == form);
        Ok(Reader { reader: schema::reader(writer)?, own })
    }

    fn fetch(&self, topic: Topic, id: u32) -> Result<&'static Schema, Undecodable> {
        let text = self.runtime.block_on(self.registry.schema_text(id)).map_err(|error| match error {
            ServiceError::Unreachable(problem) | ServiceError::Cancelled(problem) => Undecodable::Unreachable(problem),
            ServiceError::Refused(problem) => Undecodable::UnknownSchema(problem),
        })?;
        let schema = schema::kept(&text).map_err(|what| format!("schema {id} {what}"))?;
        if self.own.is_some() && Topic::STATE.contains(&topic) && schema::has_more_fields(schema, schema::parsed(topic))
        {
            return Err(Undecodable::Newer(id));
        }
        Ok(schema)
    }
}

/// The schema id of a value, and its datum.
fn framing(value: &[u8]) -> Result<(u32, &[u8]), Undecodable> {
    match value.split_first_chunk::<5>() {
        Some((&[0, a, b, c, d], datum)) => Ok((u32::from_be_bytes([a, b, c, d]), datum)),
        _ => Err("the value has no Confluent framing (0x00 and a schema id)".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_restore_asks_once_for_a_schema_that_the_registry_does_not_know_and_a_reader_asks_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let answer = move || {
            count.fetch_add(1, Ordering::Relaxed);
            async { (StatusCode::NOT_FOUND, r#"{"error_code":40403,"message":"Schema not found"}"#) }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Registry::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let decoders =
            [Decoder::of_writer(SchemaIds([1, 2, 3, 4, 5, 6]), registry.clone()), Decoder::of_reader(registry)];
        for (mut decoder, expected) in decoders.into_iter().zip([2, 6]) {
            asked.store(0, Ordering::Relaxed);
            let decoding = tokio::task::spawn_blocking(move || {
                for topic in [Topic::Users, Topic::Groups].repeat(3) {
                    let decoded = decoder.decode::<UserState>(topic, &[0, 0, 0, 0, 77, 0]);
                    assert!(matches!(decoded, Err(Undecodable::UnknownSchema(_))), "{:?}", decoded.err());
                }
            });
            decoding.await.unwrap();
            assert_eq!(asked.load(Ordering::Relaxed), expected);
        }
    }
}
