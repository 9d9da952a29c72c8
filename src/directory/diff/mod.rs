//! The difference between what Kafka holds and what a sync observes, computed page by page: memory holds known plus
//! changes, never two snapshots.
//!
//! A [`Diff`] takes rows as the walks bring them, says what it needs asked (missing principals, members that no list
//! shows, groups that lost members), takes the answers, and ends as [`Changes`](super::Changes).
//!
//! Each file uses only those above it: what was seen, then what is made of it.

mod compare;
mod sightings;
mod members;
mod member_reads;
mod rows;
mod missing;
mod losses;
mod memberships;
mod finish;

pub use missing::ABSENCE_WALKS;
pub use sightings::Diff;
