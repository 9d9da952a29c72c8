//! Okta's Users and Groups APIs as a directory: Okta does not serve its own people by SCIM.
//!
//! Requests, credentials and the pace are those of `scim`, and a row is read as the SCIM resource that says the same.
//!
//! **Invariant:** as for SCIM, a walk ends complete or in an error. Only Okta's word that there is no next page ends it.

pub mod address;
mod link;
mod rows;
mod refusal;
pub mod names;
pub mod resource;
mod groups;
mod directory;

pub use directory::OktaDirectory;
pub use names::GroupNames;
