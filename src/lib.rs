//! scimtail

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod pipeline;
pub mod verify;
pub mod batch;
pub mod directory;
pub mod record;
pub mod retry;
pub mod avro;
pub mod kafka;
pub mod scim;
pub mod schedule;
pub mod control;
pub mod config;
pub mod connect;
pub mod shards;
pub mod mapping;
pub mod telemetry;
pub mod cli;
pub mod demo;
