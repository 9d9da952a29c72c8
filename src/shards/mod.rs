//! Shards: which instance owns which partition, and what that takes.

pub mod acquisition;
pub mod assignment;
pub mod once;
pub mod outage;
pub mod reseed;
pub mod restore;
pub mod serve;
pub mod services;
pub mod shown;
pub mod spans;
pub mod writer;

pub use acquisition::{Acquisition, acquire, acquire_unless, by_partition};
pub use services::Services;
