//! Events in other formats, one file each. Pure: an event becomes text or JSON. The result has nothing but values of the
//! event and words of the format.

pub mod text;
pub mod ocsf;
pub mod ecs;
pub mod cim;
pub mod asim;
pub mod set;
pub mod reduced;
mod change;

pub use change::{Action, Change, Subject};
