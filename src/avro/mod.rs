//! Changes ⇄ bytes: Avro by the schemas of `schemas/`, framed as Confluent's clients expect
//! (0x00, 4-byte big-endian schema id, datum).

pub mod codec;
mod datum;
pub mod decode;
pub mod event_context;
pub mod lint;
mod record;
pub mod registry;
pub mod schema;
pub mod stored;
pub mod wire;

pub use codec::{Codec, Encoded};
pub use decode::Decoder;
pub use event_context::EventContext;
pub use registry::Registry;
pub use schema::SchemaIds;
