//! The Kafka edge. Knows bytes, keys and offsets; never names a user.

pub mod client;
pub mod consumer_group;
pub mod partition;
pub mod producer;
pub mod read;
pub mod topics;

pub use client::{KafkaClient, KafkaError};
pub use partition::partition_of;
pub use producer::TransactionalProducer;
