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
//! The compacted topics are the only memory. The modules are in order from the top down: each uses only modules below
//! it. A reader begins with `sync`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod cli;
pub mod demo;
pub mod page;
pub mod http;
pub mod overview;
pub mod shards;
pub mod progress;
pub mod connect;
pub mod config;
pub mod control;
pub mod sync;
pub mod recording;
pub mod okta;
pub mod scim;
pub mod kafka;
pub mod history;
pub mod mapping;
pub mod avro;
pub mod account;
pub mod source;
pub mod log;
pub mod service;
pub mod transport;
pub mod directory;
pub(crate) mod json;
pub(crate) mod jwt;
pub mod telemetry;
pub mod schedule;
pub mod memory;
pub mod duration;
pub mod retry;
pub mod failpoint;
