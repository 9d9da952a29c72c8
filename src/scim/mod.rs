//! Everything of RFC 7643/7644: a directory behind HTTP, read truthfully or not at all.
//!
//! **Invariant:** a walk ends complete or in an error; nothing here turns a missing page into a missing
//! user. Nothing here knows Kafka or Avro.

pub mod error;
pub mod address;
mod http;
mod secret;
mod assertion;
mod dpop;
pub mod token;
pub mod auth;
pub mod layers;
pub mod profile;
pub mod urls;
pub mod envelope;
pub mod places;
pub mod refusal;
pub mod advice;
pub mod pace;
pub mod budget;
pub mod tape;
pub mod client;
pub mod advertised;
pub mod learnt;
pub mod value;
pub mod attributes;
pub mod members;
mod usual;
pub mod resource;
pub mod listing;
pub mod probe;
pub mod directory;

pub use auth::{ClientProof, Credential, Scheme, Sources, TokenParams};
pub use client::{Client, Patience};
pub use directory::ScimDirectory;
pub use error::ReadError;
pub use http::{Reach, Timeouts};
pub use profile::Profile;
