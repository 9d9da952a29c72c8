//! Events in the forms their readers know, one file a format. Pure: an event in, text or JSON out, and nothing in
//! the result that is not in the event or a word of the format.

pub mod text;
pub mod ocsf;
pub mod ecs;
pub mod cim;
pub mod asim;
pub mod set;
pub mod reduced;
mod change;

pub use change::{Action, Change, Subject};
