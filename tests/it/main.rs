//! The whole suite is one binary. `cargo test` runs all of it; it starts Apache Kafka and Apicurio Registry
//! by itself where a test needs them.

mod crashes;
mod memory;
mod removals;
mod scenarios;
