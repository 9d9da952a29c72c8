//! Everything of RFC 7643/7644: a directory behind HTTP, read truthfully or not at all.
//!
//! **Invariant:** a walk ends complete or in an error; nothing here turns a missing page into a missing
//! user. Nothing here knows Kafka or Avro.

pub mod address;
pub mod advice;
mod attributes;
pub mod auth;
pub mod budget;
pub mod client;
pub mod envelope;
pub mod error;
pub mod layers;
pub mod listing;
pub mod members;
pub mod pace;
pub mod probe;
pub mod profile;
pub mod resource;
pub mod value;

pub use auth::{Credential, Scheme};
pub use client::{Client, Patience, ScimDirectory};
pub use error::ReadError;
pub use profile::Profile;
