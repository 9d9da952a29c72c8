//! An Okta organisation as a directory: a simulated Okta behind real HTTP, the real client and the real sync.

mod org;
mod server;
mod world;

mod changes;
mod chargebee;
mod credentials;
mod groups;
mod lists;
mod removals;
