//! Restore: what the compacted topics of one partition say of each account becomes its `Known`.

use crate::directory::{Entry, Id, KeyParts, Kind, Known, Membership, ReasonCode, StateKey, Status, SyncStatus};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::account::Account;
use crate::avro::Decoder;
use crate::avro::decode::Undecodable;
use crate::avro::stored::{StoredMembership, StoredPrincipal};
use crate::avro::wire::SyncStatus as SyncRecord;
use crate::directory::Problem;
use crate::failpoint::{self, Point};
use crate::kafka::KafkaClient;
use crate::kafka::offsets::ends_of;
use crate::kafka::read::{Progress, ReadRecord, read_to_end};
use crate::log::{Positions, Topic, state_digest};
use crate::service::ServiceError;

/// What the state is restored for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To own the accounts and to write: the shard is fenced under this acquisition.
    Own { acquisition: u64 },
    /// To show the state, or to plan a sync: nothing is written. Records of newer versions may be read too.
    Read,
}

impl Purpose {
    /// Known of an account before its first record.
    fn empty(self) -> Known {
        match self {
            Purpose::Own { acquisition } => Known::new(acquisition),
            Purpose::Read => Known::default(),
        }
    }
}

/// Why an account cannot go on. Nothing of it is written until a person acts.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// What is wrong and what to do.
    pub reason: Problem,
    /// A newer scimtail wrote here, so this one must not write at all.
    pub newer: bool,
    /// The part that could be restored, for `reseed` and `retire`.
    pub known: Box<Known>,
    /// Keys whose newest record cannot be understood.
    pub unreadable: Vec<(Topic, String)>,
}

/// Known of each account, or why the account cannot go on.
pub type Restored = HashMap<String, Result<Known, Stopped>>;

/// The end offsets of the partition's topics, uncommitted records included.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    pub topics: Positions,
    pub control: i64,
}

/// What has been read of one account.
struct Restoring {
    known: Known,
    /// Keys whose newest record cannot be understood, and why.
    unreadable: Unreadable,
}

/// Keys whose newest record cannot be understood; the record's address, and why.
pub type Unreadable = BTreeMap<(Topic, String), (String, Undecodable)>;

/// Users and groups come first, so that their memberships find them.
const TURNS: &[&[Topic]] = &[&[Topic::Users, Topic::Groups], &[Topic::Memberships, Topic::Syncs]];

/// Restores all `accounts` of a partition. For [`Purpose::Own`] the shard must be fenced before. Blocks.
///
/// A record that cannot be understood stops its account, not the others, unless a later record of its key can be
/// understood. `stop` calls the restore off soon, also while it waits for the end of a foreign transaction. Returns the
/// accounts, and where the topics end.
///
/// # Errors
/// Kafka cannot be read to its end, the registry does not answer, or the restore was called off.
pub fn restore(
    kafka: &KafkaClient,
    mut decoder: Decoder,
    partition: i32,
    purpose: Purpose,
    accounts: Vec<Arc<Account>>,
    mut progress: impl FnMut(Progress),
    stop: &CancellationToken,
) -> Result<(Restored, Positions), ServiceError> {
    let restoring = || Restoring { known: purpose.empty(), unreadable: BTreeMap::new() };
    let mut all: HashMap<String, Restoring> =
        accounts.iter().map(|account| (account.name.clone(), restoring())).collect();
    let mut foreign = Foreign::default();
    let each = |record: ReadRecord<'_>| {
        let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
            foreign.report(&record, "a record without a text key belongs to no account");
            return Ok(());
        };
        let account = key.split('/').next().unwrap_or_default();
        // Accounts of this partition that are no longer configured keep their records and need no memory.
        let Some(Restoring { known, unreadable }) = all.get_mut(account) else {
            if !is_ours(record.topic, key, record.value) {
                foreign.report(&record, "a record of no known form, of no account here");
            }
            return Ok(());
        };
        match take(known, &mut decoder, record.topic, key, record.value, record.header("ce_sequence")) {
            // Only the newest record of a key counts: compaction would have left nothing else.
            Ok(()) if unreadable.is_empty() => {}
            Ok(()) => drop(unreadable.remove(&(record.topic, key.to_owned()))),
            // Nothing is wrong with the record: the restore as a whole is tried again.
            Err(Undecodable::Unreachable(problem)) => return Err(ServiceError::Unreachable(problem)),
            Err(complaint) => {
                unreadable.insert((record.topic, key.to_owned()), (record.address(), complaint));
            }
        }
        failpoint::hit(Point::RestoreMiddle);
        Ok(())
    };
    let progress = |read| {
        progress(read);
        if stop.is_cancelled() { Err(ServiceError::cancelled("called off")) } else { Ok(()) }
    };
    read_to_end(kafka, TURNS, &[partition], each, progress)?;
    foreign.sum_up();
    let ends = ends(kafka, partition)?;
    let mut restored = Restored::new();
    for account in &accounts {
        if let Some(Restoring { known, unreadable }) = all.remove(&account.name) {
            restored.insert(account.name.clone(), complete(account, purpose, known, unreadable, &ends));
        }
    }
    Ok((restored, ends.topics))
}

/// Whether a record that is not looked into may be of an account that was configured once.
fn is_ours(topic: Topic, key: &str, value: Option<&[u8]>) -> bool {
    let key_is = match topic {
        Topic::Syncs => key.split_once('/').is_none_or(|(_, rest)| rest == "latest"),
        _ => StateKey::parse(key).is_some(),
    };
    // Confluent framing: a zero, and the schema's id in four bytes.
    key_is && value.is_none_or(|value| value.len() > 5 && value[0] == 0)
}

/// Records in the topics that belong to no account.
#[derive(Default)]
struct Foreign {
    records: u64,
}

impl Foreign {
    /// Records whose addresses are logged: a topic that another program fills must not fill the log too.
    const NAMED: u64 = 10;

    fn report(&mut self, record: &ReadRecord<'_>, what: &str) {
        self.records += 1;
        if self.records <= Self::NAMED {
            warn!(record = record.address(), "skipped: {what}");
        }
    }

    fn sum_up(&self) {
        if self.records > Self::NAMED {
            warn!(records = self.records, "skipped in all: records that belong to no account");
        }
    }
}

fn ends(kafka: &KafkaClient, partition: i32) -> Result<Ends, ServiceError> {
    let ends: Positions = Topic::ALL.into_iter().zip(ends_of(kafka, &Topic::ALL, partition)?).collect();
    Ok(Ends { control: ends[&Topic::Control], topics: ends })
}

/// The writer of the record encodes keys in another way. Going on would leave a second, stale record of every
/// principal.
const KEY_DIFFERS: &str = "key and value name different principals: keys were encoded in another way";

/// Takes one committed record into `known`; `sequence` is its `ce_sequence` header.
///
/// # Errors
/// Says what about the record is not understood.
pub fn take(
    known: &mut Known,
    decoder: &mut Decoder,
    topic: Topic,
    key: &str,
    value: Option<&[u8]>,
    sequence: Option<&str>,
) -> Result<(), Undecodable> {
    let Some(value) = value else {
        let sequence = sequence.and_then(|text| text.parse().ok());
        known.seen.note(0, sequence.unwrap_or(0));
        match StateKey::parse(key) {
            Some(StateKey::Principal(kind, id)) => known.remove_principal(kind, &id, sequence),
            Some(StateKey::Membership { member, group }) => known.remove_membership(&group, &member, sequence),
            None if topic == Topic::Syncs && !key.contains('/') => known.completed = None,
            None if topic == Topic::Syncs && key.split_once('/').is_some_and(|(_, rest)| rest == "latest") => {
                known.latest = None;
            }
            // A tombstone of a key of no known form: nothing is left of it.
            None => {}
        }
        return Ok(());
    };
    let digest = state_digest(key, value);
    match topic {
        Topic::Users => put_principal(known, key, decoder.principal(Kind::User, value)?, None, digest),
        Topic::Groups => {
            let mut stored = decoder.principal(Kind::Group, value)?;
            let dangling = Some(std::mem::take(&mut stored.dangling));
            put_principal(known, key, stored, dangling, digest)
        }
        Topic::Memberships => {
            let stored = decoder.membership(value)?;
            known.seen.note(stored.sync, stored.sequence);
            let kind = stored.kind.ok_or("principal_type is neither user nor group")?;
            let StoredMembership { principal_id, group_id, direct, first_seen_at, sequence, .. } = stored;
            match KeyParts::parse(key) {
                Some(KeyParts { kind: of_key, id, group: Some(group) })
                    if of_key == kind && id == principal_id && group == group_id =>
                {
                    let digest = digest.into();
                    let membership = Membership { direct, first_seen_at, sequence, digest };
                    known.put_membership(&group, (kind, &id), membership);
                    Ok(())
                }
                _ => Err(KEY_DIFFERS.into()),
            }
        }
        Topic::Syncs => {
            let record = decoder.decode::<SyncRecord>(topic, value)?;
            known.seen.note(record.sync, record.sequence);
            // Of the newest record of either kind: they are written together.
            known.seen.version.clone_from(&record.scimtail_version);
            let status = record.into_status()?;
            match key.split_once('/') {
                None => known.completed = Some(status),
                Some((_, "latest")) => known.latest = Some(status),
                Some(_) => return Err("a key of no known form".into()),
            }
            Ok(())
        }
        Topic::Events | Topic::Control | Topic::EventsOcsf | Topic::EventsEcs => Ok(()),
    }
}

/// Takes a user or a group into `known`. `dangling`: members of a group that are not known; `None` for a user.
fn put_principal(
    known: &mut Known,
    key: &str,
    stored: StoredPrincipal<'_>,
    dangling: Option<Vec<Id>>,
    digest: u128,
) -> Result<(), Undecodable> {
    known.seen.note(stored.sync, stored.sequence);
    let Some(KeyParts { kind, id, group: None }) = KeyParts::parse(key) else {
        return Err("a key of no known form".into());
    };
    if id != stored.id {
        return Err(KEY_DIFFERS.into());
    }
    let entry = Entry {
        packed: stored.packed.borrowed(),
        digest,
        first_seen_at: stored.first_seen_at,
        changed_at: stored.changed_at,
        sequence: stored.sequence,
        missing_since: stored.missing_since,
        missing_walks: u32::try_from(stored.missing_walks).unwrap_or(0),
        members_unread: stored.members_unread,
    };
    known.put_principal(kind, &id, &entry, dangling);
    Ok(())
}

/// Checks what was read against what the newest `syncs` record says should be there.
///
/// Two things can differ. If the record itself is gone, or a topic ends before what the account wrote to it, the topics
/// are not those that were written. Then the account stops, because going on would publish everything again. If only
/// some records are lost or altered, the account goes on in repair. Requests and records of other accounts that came
/// later make no difference.
///
/// # Errors
/// The account must not go on; says why, and what to do.
pub fn complete(
    account: &Account,
    purpose: Purpose,
    mut known: Known,
    unreadable: Unreadable,
    ends: &Ends,
) -> Result<Known, Stopped> {
    if let Some((reason, newer)) = stops(account, purpose, &known, &unreadable, ends) {
        let unreadable = unreadable.into_keys().collect();
        return Err(Stopped { reason, newer, known: Box::new(known), unreadable });
    }
    let (records, digest) = (known.state_records() as i64, known.state_digest());
    let Some(latest) = &mut known.latest else {
        // Requests from before an account existed do not concern it.
        known.latest = Some(SyncStatus::initial(account.settings(), ends.control));
        return Ok(known);
    };
    if latest.control_offset > ends.control {
        // The topic was recreated: its requests are new ones.
        latest.control_offset = 0;
    }
    let unfinished = latest.status != Status::Completed && latest.reason_code == Some(ReasonCode::Repair);
    let differs = (records, digest) != (latest.state_records, latest.state_digest);
    if differs || unfinished {
        // What is known may come from records behind the positions of the newest `syncs` record, if a newer one is lost:
        // the next marker has to be behind all of them.
        let ends = Topic::POSITIONED.into_iter().filter_map(|topic| Some((topic, *ends.topics.get(&topic)?)));
        latest.positions = account.positions(&latest.positions, &ends.collect());
    }
    if differs {
        // A first sync that was cut off writes what is missing silently anyway.
        if known.completed.is_some() || unfinished {
            known.repair = Some(format!(
                "the compacted topics hold {records} records of {}, its newest syncs record says {}{}",
                account.name,
                latest.state_records,
                if records == latest.state_records { " with another digest" } else { "" },
            ));
        }
    } else if unfinished {
        known.repair = Some("what was lost before is not yet read again".to_owned());
    }
    // Members that the profile vouches for have no records of their own.
    known.restored(account.habits.publish_unlisted);
    let completed = known.completed.as_ref().map_or(0, |completed| completed.sequence);
    known.forget_tombstones_until(completed);
    share(account, &mut known);
    Ok(known)
}

/// Why the account must not go on, if so, and whether a newer scimtail is the reason.
fn stops(
    account: &Account,
    purpose: Purpose,
    known: &Known,
    unreadable: &Unreadable,
    ends: &Ends,
) -> Option<(Problem, bool)> {
    let name = &account.name;
    let own = env!("CARGO_PKG_VERSION");
    // A reader may read what any version wrote.
    if purpose != Purpose::Read && is_newer(&known.seen.version, own) {
        let what = format!("scimtail {} wrote the records of {name}, this is {own}", known.seen.version);
        return Some((Problem::new(what).with_remedy("run that version or a newer one"), true));
    }
    let newer = unreadable.values().find(|(_, complaint)| matches!(complaint, Undecodable::Newer(_)));
    if let Some((address, complaint)) = newer {
        return Some((complaint.problem().of(address).of(name), true));
    }
    // A reader publishes nothing anyway, and has no right to reseed the account.
    let (consequence, remedy) = match purpose {
        Purpose::Read => (
            format!("the state of {name} cannot be told"),
            format!("ask the operator of the service: `run` stops {name} too, and says what to do"),
        ),
        Purpose::Own { .. } => ("nothing is published".to_owned(), format!("scimtail reseed {name}")),
    };
    let stopped = |what: String, remedy: String| {
        Some((Problem::new(format!("{what}; {consequence}")).with_remedy(remedy), false))
    };
    if let Some((address, complaint)) = unreadable.values().next() {
        let remedy = match (complaint, purpose) {
            (Undecodable::UnknownSchema(_), Purpose::Read) => {
                "check that registry.url is that of the service that wrote it".to_owned()
            }
            // Another registry is the likelier mistake, and after a reseed every reader would depend on it.
            (Undecodable::UnknownSchema(_), Purpose::Own { .. }) => {
                format!("check registry.url; if the schema is lost, scimtail reseed {name}")
            }
            _ => remedy,
        };
        return stopped(format!("{address}: {complaint}"), remedy);
    }
    let lost = match (&known.latest, &known.completed) {
        (None, None) => known.state_records() > 0,
        (None, Some(_)) => true,
        // The newest attempt tells of a completed sync whose record is not there. A hold in a repair does not tell
        // of one: a reseed goes on without it.
        (Some(latest), None) => {
            let in_repair = latest.reason_code == Some(ReasonCode::Repair);
            latest.status == Status::Completed || (latest.hold.is_some() && !in_repair)
        }
        (Some(_), Some(_)) => false,
    };
    if lost {
        let what = format!("{} state records, but the checkpoint of {name} is lost", known.state_records());
        return stopped(what, remedy);
    }
    let topic = cut_off(account, known.latest.as_ref()?, ends)?;
    stopped(format!("{topic} ends before what {name} wrote to it: it was deleted or recreated"), remedy)
}

/// What the account's two records have in common with its configuration is in memory once, as after a sync. What has
/// changed since they were written is not: the next sync replaces it.
fn share(account: &Account, known: &mut Known) {
    let settings = Arc::new(account.settings());
    let positions = known.latest.as_ref().map(|latest| latest.positions.clone()).unwrap_or_default();
    for status in [&mut known.latest, &mut known.completed].into_iter().flatten() {
        if status.settings == settings {
            status.settings = settings.clone();
        }
        if status.positions == positions {
            status.positions = positions.clone();
        }
    }
}

/// The first topic that ends before what the account wrote to it.
fn cut_off(account: &Account, latest: &SyncStatus, ends: &Ends) -> Option<String> {
    let cut = latest.positions.iter().find(|position| {
        let topic = Topic::of(&account.topic_prefix, &position.topic);
        topic.and_then(|topic| ends.topics.get(&topic)).is_some_and(|end| *end < position.next_offset)
    });
    cut.map(|position| position.topic.clone())
}

/// Versions as `major.minor.patch`. A text of another form is not newer.
fn is_newer(version: &str, than: &str) -> bool {
    let parts = |text: &str| -> Option<Vec<u64>> { text.split('.').map(|part| part.parse().ok()).collect() };
    parts(version).zip(parts(than)).is_some_and(|(version, than)| version > than)
}

#[cfg(test)]
mod tests {
    use super::{TURNS, is_newer};
    use crate::log::Topic;

    #[test]
    fn each_topic_of_the_state_is_read_once() {
        assert_eq!(TURNS.concat(), Topic::STATE);
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_newer("0.10.0", "0.9.9"));
        assert!(!is_newer("0.9.9", "0.10.0"));
        assert!(!is_newer("0.1.0", "0.1.0"));
        assert!(!is_newer("", "0.1.0"));
    }
}
