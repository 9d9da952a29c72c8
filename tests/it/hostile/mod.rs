//! Everything that a SCIM server may do to us, row by row: a scripted server behind real HTTP, the real client and the
//! real sync; only Kafka is in memory. After each of its tricks nothing false is published, and a calm sync finds the
//! truth.

mod script;
mod server;
mod truth;
mod checks;
mod world;

mod transport;
mod bodies;
mod limits;
mod paging;
mod cursors;
mod rows;
mod memberships;
mod moving;
mod absence;
mod credentials;
mod soak;
mod corpus;
mod accidents;
mod ahead;
pub mod flood;

pub use script::Target;
pub use server::TOKEN;
pub use truth::{Question, error};
pub use world::patient;
