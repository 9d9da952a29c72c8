//! The pure domain: what a directory holds, what Kafka holds, and the difference between the two.
//!
//! **Invariant:** nothing here performs I/O, reads a clock, logs or can fail on outside input.
//! Rows come in parsed, times come in as milliseconds since 1970-01-01 UTC.

pub mod maps;
pub mod principal;
pub mod reduction;
pub mod values;
pub mod emails;
pub mod agreement;
pub mod shortened;
pub mod packed;
pub mod entry;
pub mod key;
pub mod members;
pub mod strategy;
pub mod observed;
pub mod rules;
pub mod known;
pub mod diff;
pub mod changes;
pub mod guard;
pub mod entitlement;
pub mod privileges;
pub mod problem;
pub mod reason;
pub mod status;
pub mod access;

pub use access::{Above, Nesting, later};
pub use agreement::compatible;
pub use changes::{Changes, EventType, KeyChange, Put, RemovalReason, StateWrite, Units};
pub use diff::Diff;
pub use emails::{email_before, main_email};
pub use entitlement::{Entitlement, GroupPattern};
pub use entry::Entry;
pub use guard::{Evidence, HoldId, Limits, Losses};
pub use key::{KeyParts, StateKey};
pub use known::{Known, Seen, Table, UNKNOWN_TIME};
pub use maps::{Map, Set};
pub use members::{Members, Membership};
pub use observed::{ListedGroup, ListedMember, Observed, Readable, Row};
pub use packed::{Packed, PackedPrincipal};
pub use principal::{AttributeChange, AttributeList, Id, Kind, Member, NOBODY, Principal, RawHash};
pub use problem::Problem;
pub use reason::{Class, Reason, ReasonCode};
pub use rules::Rules;
pub use status::{Baseline, KindsRead, Position, Status, SyncStatus};
pub use strategy::Strategy;
pub use values::{belongs_to, comparable};
