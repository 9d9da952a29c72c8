//! Records: what the encoding and Kafka share. Bytes with an address, nothing else.

use xxhash_rust::xxh3::xxh3_128;

/// The topics of one prefix (contract.md, Topics).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    Events,
    Users,
    Groups,
    Memberships,
    Syncs,
    Control,
    /// Copies of `Events` as JSON, for readers that cannot decode Avro; only where they are configured.
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
    /// Those whose positions stand in every `syncs` record.
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

/// One record to write; the partition is the account's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub topic: Topic,
    pub key: String,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, String)>,
}

impl Record {
    /// Bytes that count against a transaction's bound.
    pub fn len(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + headers
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A record's share of `state_digest` (contract.md): xxh3-128 over 4-byte big-endian key length, key and
/// value, as they lie in Kafka.
pub fn state_digest(key: &str, value: &[u8]) -> u128 {
    let mut bytes = Vec::with_capacity(4 + key.len() + value.len());
    bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(value);
    xxh3_128(&bytes)
}
