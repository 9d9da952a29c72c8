//! The Kafka edge. It knows bytes, keys and offsets, and never names a user.

pub mod blocking;
pub mod cause;
pub mod certificate;
pub mod client;
pub mod consumer_group;
pub mod contact;
pub mod credentials;
pub mod error;
pub mod group;
pub mod oauth;
pub mod offsets;
pub mod partition;
pub mod producer;
pub mod read;
pub mod rights;
pub mod sender;
pub mod topics;
pub mod written;

pub use client::KafkaClient;
pub use partition::partition_of;
pub use producer::TransactionalProducer;

/// The version of librdkafka in this program, as it names itself.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
