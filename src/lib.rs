//! Change data capture for SCIM directories: polls SCIM 2.0 endpoints, works out what changed, and publishes it
//! as Avro to Kafka, exactly once.
//!
//! ```text
//!  SCIM directory                                                          Kafka (one partition an account)
//!  ┌────────────┐  pages   ┌──────────────────────────────────────────┐    ┌──────────────────────────────┐
//!  │ /Users     │ ───────► │ diff(known, observed) → admit → batches  │ ─► │ events  users groups         │
//!  │ /Groups    │  GET id  │               sync::sync                 │    │ memberships  syncs           │
//!  └────────────┘ ◄─────── └──────────────────▲───────────────────────┘    └──────────────┬───────────────┘
//!                                             │ known: restored after the fence ◄─────────┘
//! ```
//!
//! The compacted topics are the only memory. Modules in reading order:

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod sync;
pub mod account;
pub mod source;
pub mod log;
pub mod service;
pub mod directory;
pub(crate) mod json;
pub mod duration;
pub mod retry;
pub mod failpoint;
pub mod avro;
pub mod kafka;
pub mod scim;
pub mod schedule;
pub mod control;
pub mod config;
pub mod connect;
pub mod shards;
pub mod mapping;
pub mod memory;
pub mod history;
pub mod telemetry;
pub mod http;
pub mod cli;
pub mod demo;
