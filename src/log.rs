//! The log that an account's records are written to: topics, records, and transactions of them.
//!
//! [`Log`] is a trait because it has two implementations: Kafka (`shards::writer`), and one in memory in the tests.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::future::Future;

use xxhash_rust::xxh3::xxh3_128;

/// The topics of one prefix (`README.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    Events,
    Users,
    Groups,
    Memberships,
    Syncs,
    Control,
    /// Copies of `Events` as JSON, for readers that cannot decode Avro; only if they are configured.
    EventsOcsf,
    EventsEcs,
}

impl Topic {
    /// Those that are always there, all of them Avro.
    pub const ALL: [Topic; 6] =
        [Topic::Events, Topic::Users, Topic::Groups, Topic::Memberships, Topic::Syncs, Topic::Control];
    /// Those that `[outputs]` adds.
    pub const OUTPUTS: [Topic; 2] = [Topic::EventsOcsf, Topic::EventsEcs];
    /// Every topic, by its place in this enum.
    pub const EVERY: [Topic; 8] = [
        Topic::Events,
        Topic::Users,
        Topic::Groups,
        Topic::Memberships,
        Topic::Syncs,
        Topic::Control,
        Topic::EventsOcsf,
        Topic::EventsEcs,
    ];
    /// Those that together hold the state, in the order in which they are restored.
    pub const STATE: [Topic; 4] = [Topic::Users, Topic::Groups, Topic::Memberships, Topic::Syncs];
    /// Those whose positions every `syncs` record holds.
    pub const POSITIONED: [Topic; 4] = [Topic::Events, Topic::Users, Topic::Groups, Topic::Memberships];

    pub fn suffix(self) -> &'static str {
        match self {
            Topic::Events => "events",
            Topic::Users => "users",
            Topic::Groups => "groups",
            Topic::Memberships => "memberships",
            Topic::Syncs => "syncs",
            Topic::Control => "control",
            Topic::EventsOcsf => "events.ocsf",
            Topic::EventsEcs => "events.ecs",
        }
    }

    pub fn name(self, prefix: &str) -> String {
        format!("{prefix}.{}", self.suffix())
    }

    /// Inverse of [`Topic::name`].
    pub fn of(prefix: &str, name: &str) -> Option<Topic> {
        Topic::EVERY.into_iter().find(|topic| topic.name(prefix) == name)
    }

    pub fn is_compacted(self) -> bool {
        Topic::STATE.contains(&self)
    }
}

/// The headers of one record, their texts in one piece of memory: a first load makes a million records with several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    texts: String,
    /// The name of each header, and where its text ends in `texts`.
    ends: Vec<(&'static str, usize)>,
}

impl Headers {
    /// None yet, with room for so many, and for all of their texts.
    pub fn with_capacity(headers: usize, bytes: usize) -> Headers {
        Headers { texts: String::with_capacity(bytes), ends: Vec::with_capacity(headers) }
    }

    #[must_use]
    pub fn and(mut self, name: &'static str, text: impl Display) -> Headers {
        write!(self.texts, "{text}").expect("a string takes any length");
        self.ends.push((name, self.texts.len()));
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let begins = [0].into_iter().chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(begins).map(|((name, end), begin)| (*name, &self.texts[begin..*end]))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(of, _)| *of == name).map(|(_, text)| text)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of names and texts.
    fn bytes(&self) -> usize {
        self.texts.len() + self.ends.iter().map(|(name, _)| name.len()).sum::<usize>()
    }
}

/// One record to write; the partition is the account's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub topic: Topic,
    pub key: String,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Record {
    /// Bytes that count against a transaction's bound.
    pub fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + self.headers.bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A record's share of `state_digest` (`schemas/SyncStatus.avsc`): xxh3-128 over 4-byte big-endian key length, key and
/// value, as they are in Kafka.
pub fn state_digest(key: &str, value: &[u8]) -> u128 {
    let mut bytes = Vec::with_capacity(4 + key.len() + value.len());
    bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(value);
    xxh3_128(&bytes)
}

/// A transactional log with one writer.
pub trait Log: Sync {
    /// Writes the records and then what `closing` makes of the positions reached, in one transaction.
    /// Returns only when the outcome is known.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Positions, CommitError>> + Send;
}

/// The records of one account for one transaction, bound to the acquisition under which they were computed: a diff
/// against yesterday's known on today's producer would double events.
pub struct Batch {
    pub acquisition: u64,
    pub records: Vec<Record>,
    pub closing: ClosingRecords,
}

/// Topic → offset after the last acknowledged record of the batch.
pub type Positions = BTreeMap<Topic, i64>;

/// Makes the `syncs` records, written last, once the positions are known.
pub type ClosingRecords = Box<dyn Fn(&Positions) -> Result<Vec<Record>, String> + Send>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The transaction was aborted; nothing of it is visible, the account's sync failed.
    #[error("{0}")]
    Aborted(String),
    /// The acquisition ended: fenced, fatal, or the outcome is unknown. Everything computed under it is void.
    #[error("{0}")]
    Ended(Ended),
}

impl CommitError {
    /// For a caller that cannot go on without the commit: either way the acquisition is over.
    pub fn into_ended(self) -> Ended {
        match self {
            CommitError::Aborted(reason) => Ended { kind: EndKind::Failed, reason },
            CommitError::Ended(ended) => ended,
        }
    }
}

/// Why an acquisition ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Ended {
    pub kind: EndKind,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// Another producer took the shard over.
    Fenced,
    /// Kafka refuses what is written (ACL): a person has to act.
    Refused,
    Failed,
}

impl Ended {
    pub fn is_fenced(&self) -> bool {
        self.kind == EndKind::Fenced
    }
}
