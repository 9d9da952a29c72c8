//! Known: the state of one account that Kafka holds, in memory.
//!
//! **Safety argument.** The state changes in two places only: while it is restored from committed records,
//! and in [`Known::apply`] after a commit returned Ok. It never leads the log. The raw-byte hashes by which
//! unchanged resources are recognised belong to it: a write voids them and only a completed sync sets
//! them, so that a held, failed or half-published change can never look "unchanged" later. A write voids those of every
//! resource whose bytes now mean something else: a user's may name a group that is gone, or that has another name.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry::Occupied;

use super::changes::{Bytes, KeyChange, StateWrite};
use super::entry::{AtRest, Entry};
use super::key::StateKey;
use super::maps::Map;
use super::members::{Members, Membership, Share};
use super::packed::Packed;
use super::principal::{Id, Kind, Member, Principal, RawHash};
use super::status::{KindsRead, SyncStatus};
use super::strategy::Strategy;

/// Replaces a `first_seen_at` that is no longer known, in a state that was computed back from events.
pub const UNKNOWN_TIME: i64 = 0;

/// The known principals of one kind.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Map<Id, Held>,
    /// Those that a completed sync has read with these bytes, if it published all that followed from them, and if they
    /// were not missing: of one that was, the record has to say that it is listed again.
    by_raw: Map<RawHash, Id>,
    /// Entries that are not disabled.
    enabled: usize,
}

#[derive(Clone, Debug)]
struct Held {
    at_rest: AtRest,
    /// As in `by_raw`.
    raw: Option<RawHash>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of them are not disabled.
    pub fn enabled(&self) -> usize {
        self.enabled
    }

    pub fn contains(&self, id: &str) -> bool {
        self.entries.contains_key(id)
    }

    pub fn get(&self, id: &str) -> Option<Entry<'_>> {
        self.entries.get(id).map(|held| held.at_rest.entry())
    }

    pub fn principal(&self, id: &str) -> Option<Principal> {
        self.entries.get_key_value(id).map(|(id, held)| held.at_rest.entry().packed.unpack(id.clone()))
    }

    /// The id as the table holds it.
    fn shared(&self, id: &str) -> Option<Id> {
        self.entries.get_key_value(id).map(|(id, _)| id.clone())
    }

    pub fn ids(&self) -> impl Iterator<Item = &Id> {
        self.entries.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Id, Entry<'_>)> {
        self.entries.iter().map(|(id, held)| (id, held.at_rest.entry()))
    }

    /// The principal whose bytes have this hash.
    pub fn recognise(&self, raw: RawHash) -> Option<&Id> {
        self.by_raw.get(&raw)
    }

    /// Returns the digest of the entry that it replaces. Its bytes are not recognised.
    fn insert(&mut self, id: &str, entry: &Entry<'_>) -> Option<u128> {
        // A copy: ids that are made between the many short-lived texts of a page would keep the memory of all of them.
        let id = self.shared(id).unwrap_or_else(|| Id::from(id));
        self.enabled += usize::from(entry.is_enabled());
        let old = self.entries.insert(id, Held { at_rest: AtRest::new(entry), raw: None });
        old.map(|old| self.forget(&old))
    }

    /// Returns the digest of the entry.
    fn remove(&mut self, id: &str) -> Option<u128> {
        let old = self.entries.remove(id);
        old.map(|old| self.forget(&old))
    }

    /// Forgets what is known of an entry that is no longer there, and returns its digest.
    fn forget(&mut self, held: &Held) -> u128 {
        let entry = held.at_rest.entry();
        self.enabled -= usize::from(entry.is_enabled());
        if let Some(raw) = held.raw {
            self.by_raw.remove(&raw);
        }
        entry.digest
    }

    /// The bytes of the principal are no longer what Kafka holds.
    fn void_raw(&mut self, id: &str) {
        // A first load and a restore set none, and write every membership.
        if self.by_raw.is_empty() {
            return;
        }
        if let Some(raw) = self.entries.get_mut(id).and_then(|held| held.raw.take()) {
            self.by_raw.remove(&raw);
        }
    }

    fn set_raw(&mut self, id: &Id, raw: RawHash) {
        // The id that the table holds, and not the one that is given.
        let Occupied(mut held) = self.entries.entry(id.clone()) else { return };
        if held.get().raw == Some(raw) || held.get().at_rest.entry().missing_since.is_some() {
            return;
        }
        if let Some(old) = held.get_mut().raw.replace(raw) {
            self.by_raw.remove(&old);
        }
        self.by_raw.insert(raw, held.key().clone());
    }
}

/// The highest numbers that any restored record bears, and the version that wrote the newest `syncs` record. If the
/// checkpoint is lost, the next numbers must be beyond them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub sync: i64,
    pub sequence: i64,
    /// Version of scimtail; empty where no record states it.
    pub version: String,
}

impl Seen {
    pub fn note(&mut self, sync: i64, sequence: i64) {
        self.sync = self.sync.max(sync);
        self.sequence = self.sequence.max(sequence);
    }
}

/// The state of one account that Kafka holds, bound to the acquisition that restored it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Number of the acquisition; the writer refuses changes computed under any other.
    pub acquisition: u64,
    users: Table,
    groups: Table,
    /// Group → its members.
    memberships: Map<Id, Members>,
    memberships_len: usize,
    /// Group → sorted ids that it lists but that are not published.
    dangling: Map<Id, Vec<Id>>,
    /// Sequences of tombstones written since the last completed sync: part of `event_id`.
    tombstones: Map<StateKey, i64>,
    digest: u128,
    orphans: BTreeSet<(Kind, Id)>,
    /// A membership was there at a time when one of its principals was not: they may not share their ids, and one of
    /// them may be an orphan.
    loose: bool,
    /// Set while it is restored.
    pub seen: Seen,
    /// Why what was restored is not what the newest `syncs` record says: until one sync completes, a principal that is
    /// missing here is written silently, and no user or group is removed.
    pub repair: Option<String>,
    /// When the last full walk that completed began, milliseconds since 1970-01-01 UTC; `None` after a restore.
    pub walked_at: Option<i64>,
    /// The newest completed sync's record, and the newest attempt's.
    pub completed: Option<SyncStatus>,
    pub latest: Option<SyncStatus>,
}

impl Known {
    pub fn new(acquisition: u64) -> Known {
        Known { acquisition, ..Known::default() }
    }

    pub fn table(&self, kind: Kind) -> &Table {
        match kind {
            Kind::User => &self.users,
            Kind::Group => &self.groups,
        }
    }

    fn table_mut(&mut self, kind: Kind) -> &mut Table {
        match kind {
            Kind::User => &mut self.users,
            Kind::Group => &mut self.groups,
        }
    }

    pub fn members(&self, group: &str) -> Option<&Members> {
        self.memberships.get(group)
    }

    pub fn memberships(&self) -> impl Iterator<Item = (&Id, &Member, &Membership)> {
        self.memberships
            .iter()
            .flat_map(|(group, members)| members.iter().map(move |(member, membership)| (group, member, membership)))
    }

    /// Principals that only their memberships tell of: their own records were lost.
    pub fn orphans(&self, kind: Kind) -> impl Iterator<Item = &Id> {
        self.orphans.iter().filter(move |(of, _)| *of == kind).map(|(_, id)| id)
    }

    /// Ends a restore: lets members share the ids of their principals, gives back their room to grow, and looks for
    /// orphans unless memberships may be `without_principals`. A restore reads users and groups first, so that there is
    /// mostly nothing to do.
    pub fn restored(&mut self, without_principals: bool) {
        let tables = [&self.users, &self.groups];
        for members in self.memberships.values_mut() {
            if self.loose {
                members.share_ids(|member| tables[member.kind as usize].shared(&member.id));
            }
            members.shrink();
        }
        if self.loose && !without_principals {
            self.find_orphans();
        }
    }

    /// Looks at every membership.
    fn find_orphans(&mut self) {
        let mut orphans = BTreeSet::new();
        for (group, member, _) in self.memberships() {
            for (kind, id) in [(Kind::Group, group), (member.kind, &member.id)] {
                if !self.table(kind).contains(id) {
                    orphans.insert((kind, id.clone()));
                }
            }
        }
        self.orphans = orphans;
    }

    pub fn memberships_len(&self) -> usize {
        self.memberships_len
    }

    /// Ids that the group lists but that are not published, sorted.
    pub fn dangling(&self, group: &str) -> &[Id] {
        self.dangling.get(group).map_or(&[], Vec::as_slice)
    }

    pub fn groups_with_dangling(&self) -> impl Iterator<Item = (&Id, &[Id])> {
        self.dangling.iter().map(|(group, ids)| (group, ids.as_slice()))
    }

    /// Live records in `users`, `groups` and `memberships`.
    pub fn state_records(&self) -> usize {
        self.users.len() + self.groups.len() + self.memberships_len
    }

    pub fn state_digest(&self) -> u128 {
        self.digest
    }

    /// `sequence` of the key's newest record, a tombstone since the last completed sync included, else 0.
    pub fn newest_sequence(&self, key: &StateKey) -> i64 {
        let live = match key {
            StateKey::Principal(kind, id) => self.table(*kind).get(id).map(|entry| entry.sequence),
            StateKey::Membership { member, group } => {
                self.members(group).and_then(|members| members.get(member)).map(|membership| membership.sequence)
            }
        };
        live.or_else(|| self.tombstones.get(key).copied()).unwrap_or(0)
    }

    /// The live record's share of the state digest; `None` where there is no live record.
    pub fn record_digest(&self, key: &StateKey) -> Option<u128> {
        match key {
            StateKey::Principal(kind, id) => self.table(*kind).get(id).map(|entry| entry.digest),
            StateKey::Membership { member, group } => {
                self.members(group).and_then(|members| members.get(member)).map(|membership| membership.digest.into())
            }
        }
    }

    /// Number of the last completed sync; 0 before the first.
    pub fn base(&self) -> i64 {
        self.completed.as_ref().map_or(0, |completed| completed.sync)
    }

    /// True until a sync completed. An account in repair is not new, even if its completed sync was lost: what is known
    /// of it was published, and its removals are news.
    pub fn is_first(&self) -> bool {
        self.completed.is_none() && self.repair.is_none()
    }

    /// What completed syncs have read, so that it is news when it changes.
    pub fn kinds_read(&self) -> KindsRead {
        match &self.completed {
            // An account in repair does not begin: what is known of it was published.
            None => KindsRead { users: !self.is_first(), groups: !self.is_first(), memberships: !self.is_first() },
            Some(completed) if completed.kinds_read == KindsRead::default() => KindsRead {
                // Written by a version that did not say so: by what is there.
                users: true,
                groups: completed.groups_read.is_some() || !self.groups.is_empty(),
                memberships: completed.memberships_as_of.is_some() || self.memberships_len > 0,
            },
            Some(completed) => completed.kinds_read,
        }
    }

    /// True if a completed sync has seen members by this strategy: what the server has shown once, it is known to show.
    pub fn has_shown_members_by(&self, strategy: Strategy) -> bool {
        match &self.completed {
            None => false,
            // Written by a version that did not say by which.
            Some(completed) if completed.kinds_read == KindsRead::default() => self.memberships_len > 0,
            Some(completed) => completed.memberships_by == Some(strategy),
        }
    }

    pub fn put_principal(&mut self, kind: Kind, id: &str, entry: &Entry<'_>, dangling: Option<Vec<Id>>) {
        self.digest = self.digest.wrapping_add(entry.digest);
        if let Some(dangling) = dangling {
            if dangling.is_empty() {
                self.dangling.remove(id);
            } else {
                self.dangling.insert(id.into(), dangling);
            }
        }
        if let Some(old) = self.table_mut(kind).insert(id, entry) {
            self.digest = self.digest.wrapping_sub(old);
        }
    }

    /// `tombstone` is its sequence where it was written after the last completed sync.
    pub fn remove_principal(&mut self, kind: Kind, id: &Id, tombstone: Option<i64>) {
        if let Some(old) = self.table_mut(kind).remove(id) {
            self.digest = self.digest.wrapping_sub(old);
        }
        if kind == Kind::Group {
            self.dangling.remove(id);
        }
        self.loose |= self.memberships_len > 0;
        self.remember_tombstone(StateKey::Principal(kind, id.clone()), tombstone);
    }

    pub fn put_membership(&mut self, group: &str, member: (Kind, &str), membership: Membership) {
        let digest = membership.digest;
        self.put_membership_after(group, member, digest, |_| membership);
    }

    /// As [`Known::put_membership`], of a membership that is made of the one that it replaces.
    fn put_membership_after(
        &mut self,
        group: &str,
        (kind, member): (Kind, &str),
        digest: Share,
        membership: impl FnOnce(Option<&Membership>) -> Membership,
    ) {
        self.void_both(group, (kind, member));
        self.digest = self.digest.wrapping_add(digest.into());
        // One id for all memberships of a principal, and for the principal.
        let (tables, loose) = ([&self.users, &self.groups], &mut self.loose);
        let mut shared = |kind: Kind, id: &str| {
            tables[kind as usize].shared(id).unwrap_or_else(|| {
                *loose = true;
                Id::from(id)
            })
        };
        let id = shared(kind, member);
        let members = match self.memberships.get_mut(group) {
            Some(members) => members,
            None => self.memberships.entry(shared(Kind::Group, group)).or_default(),
        };
        match members.insert_after(Member { kind, id }, membership) {
            Some(old) => self.digest = self.digest.wrapping_sub(old.digest.into()),
            None => self.memberships_len += 1,
        }
    }

    pub fn remove_membership(&mut self, group: &Id, member: &Member, tombstone: Option<i64>) {
        self.void_both(group, (member.kind, &member.id));
        if let Some(members) = self.memberships.get_mut(group) {
            if let Some(old) = members.remove(member) {
                self.digest = self.digest.wrapping_sub(old.digest.into());
                self.memberships_len -= 1;
            }
            if members.is_empty() {
                self.memberships.remove(group);
            }
        }
        self.remember_tombstone(StateKey::Membership { member: member.clone(), group: group.clone() }, tombstone);
    }

    /// Where groups show their members, the bytes of the group now say something else of this one than Kafka holds; where
    /// users show their groups, what those of the user say.
    fn void_both(&mut self, group: &str, (kind, member): (Kind, &str)) {
        self.groups.void_raw(group);
        if kind == Kind::User && self.users_may_show_groups() {
            self.users.void_raw(member);
        }
    }

    /// False if a completed sync has seen members in another way. Then the bytes of users say nothing of groups, and a page
    /// of users that has not changed need not be read again because of a membership.
    fn users_may_show_groups(&self) -> bool {
        let by = self.completed.as_ref().and_then(|completed| completed.memberships_by);
        by.is_none_or(|by| by == Strategy::User)
    }

    /// True if this is another name for the group than the known one.
    pub(super) fn is_renamed(&self, group: &str, now: Packed<'_>) -> bool {
        let known = self.groups.get(group);
        known.is_some_and(|known| known.packed.fields().display_name != now.fields().display_name)
    }

    /// The rows of these users now say something else than Kafka holds: where users show their groups, they may show them
    /// by name.
    fn void_users_in(&mut self, group: &str) {
        for member in self.memberships.get(group).into_iter().flat_map(Members::keys) {
            if member.kind == Kind::User {
                self.users.void_raw(&member.id);
            }
        }
    }

    /// Only tombstones written after the last completed sync count for `event_id`.
    pub fn forget_tombstones_until(&mut self, completed: i64) {
        self.tombstones.retain(|_, sequence| *sequence > completed);
    }

    fn remember_tombstone(&mut self, key: StateKey, sequence: Option<i64>) {
        if let Some(sequence) = sequence {
            self.tombstones.insert(key, sequence);
        }
    }

    /// Follows a committed write: call only after the commit returned Ok.
    /// `sequence` is that of the unit's last event, `None` for a silent one.
    pub fn apply(&mut self, unit: &KeyChange, sequence: Option<i64>, digest: u128) {
        match &unit.write {
            StateWrite::Put(put) => {
                let kept = self.table(put.kind).get(&put.id).map_or(0, |entry| entry.sequence);
                let entry = Entry {
                    packed: put.packed.borrowed(),
                    digest,
                    first_seen_at: put.first_seen_at,
                    changed_at: put.changed_at,
                    sequence: sequence.unwrap_or(kept),
                    missing_since: put.missing_since,
                    missing_walks: put.missing_walks,
                    members_unread: put.members_unread,
                };
                if put.kind == Kind::Group && self.users_may_show_groups() && self.is_renamed(&put.id, entry.packed) {
                    self.void_users_in(&put.id);
                }
                self.put_principal(put.kind, &put.id, &entry, put.dangling.clone());
            }
            StateWrite::Remove { kind, id } => self.remove_principal(*kind, id, Some(sequence.unwrap_or(0))),
            StateWrite::PutMembership { group, member, direct, first_seen_at } => {
                let digest = digest.into();
                self.put_membership_after(group, (member.kind, &member.id), digest, |old| Membership {
                    direct: *direct,
                    first_seen_at: *first_seen_at,
                    sequence: sequence.or_else(|| old.map(|old| old.sequence)).unwrap_or(0),
                    digest,
                });
            }
            StateWrite::RemoveMembership { group, member } => {
                self.remove_membership(group, member, Some(sequence.unwrap_or(0)));
            }
        }
    }

    /// Follows the commit of a sync's last transaction: everything read is now published, so its bytes
    /// may be recognised, and tombstones before it no longer count.
    pub fn complete(&mut self, status: SyncStatus, bytes: Bytes) {
        for (kind, id, raw) in bytes.recognised {
            self.table_mut(kind).set_raw(&id, raw);
        }
        for (kind, id) in bytes.unsettled {
            self.table_mut(kind).void_raw(&id);
        }
        if self.completed.is_none() {
            self.memberships.values_mut().for_each(Members::shrink);
        }
        self.tombstones.clear();
        self.repair = None;
        if !self.orphans.is_empty() {
            self.find_orphans();
        }
        self.completed = Some(status.clone());
        self.latest = Some(status);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::packed::PackedPrincipal;
    use super::*;

    fn put(known: &mut Known, kind: Kind, id: &str, active: Option<bool>, missing_since: Option<i64>) {
        let packed = PackedPrincipal::pack(&Principal { active, ..Principal::new(id) });
        let entry = Entry {
            packed: packed.borrowed(),
            digest: 0,
            first_seen_at: 0,
            changed_at: 0,
            sequence: 0,
            missing_since,
            missing_walks: 0,
            members_unread: false,
        };
        known.put_principal(kind, id, &entry, None);
    }

    #[test]
    fn a_principal_that_is_missing_is_not_recognised_by_its_bytes_so_that_its_record_says_when_it_is_back() {
        let recognised = |missing_since| {
            let mut known = Known::default();
            put(&mut known, Kind::User, "ann", None, missing_since);
            known.users.set_raw(&"ann".into(), RawHash::MIN);
            known.users.recognise(RawHash::MIN).is_some()
        };
        assert_eq!([None, Some(1)].map(recognised), [true, false]);
    }

    proptest! {
        #[test]
        fn in_whatever_order_records_came_ids_are_shared_orphans_known_and_enabled_principals_counted(
            steps in proptest::collection::vec((0..2_usize, 0..4_u8, 0..4_u8, 0..6_u8), 0..40),
        ) {
            let mut known = Known::default();
            for (kind, member, group, step) in steps {
                let (kind, member, group) = (Kind::BOTH[kind], format!("p{member}"), format!("p{group}"));
                let membership = Membership { direct: None, first_seen_at: 0, sequence: 0, digest: 0.into() };
                match step {
                    0 => put(&mut known, kind, &member, None, None),
                    1 => put(&mut known, kind, &member, Some(true), None),
                    2 => put(&mut known, kind, &member, Some(false), None),
                    3 => known.remove_principal(kind, &member.into(), None),
                    4 => known.put_membership(&group, (kind, &member), membership),
                    _ => known.remove_membership(&group.into(), &Member { kind, id: member.into() }, None),
                }
            }
            known.restored(false);
            for kind in Kind::BOTH {
                let table = known.table(kind);
                let enabled = table.iter().filter(|(_, entry)| entry.packed.active() != Some(false)).count();
                prop_assert_eq!(table.enabled(), enabled);
            }
            let mut looked = known.clone();
            looked.find_orphans();
            prop_assert_eq!(&known.orphans, &looked.orphans);
            for (_, member, _) in known.memberships() {
                let of_table = known.table(member.kind).shared(&member.id);
                prop_assert!(of_table.is_none_or(|id| Arc::ptr_eq(&id, &member.id)), "{member:?}");
            }
        }
    }
}
