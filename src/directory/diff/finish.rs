//! All that differs, as changes in publishable order.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::Changed;
use super::memberships;
use super::sightings::Diff;
use crate::directory::changes::{Bytes, Changes, Event, EventType, KeyChange, Put, RemovalReason, StateWrite, Units};
use crate::directory::key::StateKey;
use crate::directory::packed::PackedPrincipal;
use crate::directory::principal::{Id, Kind, Principal};
use crate::directory::status::Baseline;
use crate::directory::strategy::Strategy;

impl Diff<'_> {
    /// All that differs, in publishable order. `vanishing`: the attributes whose loss the guard counts.
    /// `now`: milliseconds since 1970-01-01 UTC, when the last answer came.
    pub fn finish(mut self, vanishing: &BTreeSet<String>, now: i64) -> Changes {
        if vanishing.contains("active") {
            self.let_active_go(now);
        }
        let memberships_known = self.memberships_are_known();
        self.count_absences(now);
        // A re-read that found no answer: the group is parsed again next time.
        let rereads = self.rereads();
        let plan = memberships::plan(&self, now);
        let mut changes = Changes {
            acquisition: self.known.acquisition,
            users_read: self.read_count(Kind::User),
            groups_read: self.read_count(Kind::Group),
            memberships_read: (memberships_known && !self.reads.partly_unread).then_some(plan.count as i64),
            removals_suppressed: Kind::BOTH.iter().map(|kind| self.missing(*kind).len() as i64).sum(),
            hidden: Kind::BOTH.iter().map(|kind| self.hidden_count(*kind)).sum(),
            dangling: plan.dangling_total as i64,
            memberships: plan.count as i64,
            strategy: self.reads.strategy,
            others: self.reads.others,
            memberships_are_known: self.memberships_are_shown(),
            members_seen_by: self.reads.shown.then_some(self.reads.strategy),
            bytes: Bytes {
                recognised: Vec::new(),
                unsettled: rereads.into_iter().map(|id| (Kind::Group, id)).collect(),
            },
            ..Changes::default()
        };
        let [users, groups] = Kind::BOTH.map(|kind| std::mem::take(&mut self[kind].changed));
        // Group records: added, then updated, silent rewrites of `dangling` among them.
        let mut dangling = plan.dangling;
        let written: BTreeSet<Id> = groups.keys().cloned().collect();
        let mut group_units: Vec<KeyChange> = groups
            .into_iter()
            .map(|(id, changed)| {
                let list = dangling.remove(&id);
                self.put(Kind::Group, id, changed, list, vanishing)
            })
            .collect();
        // Silent rewrites of groups of whose members is now known whether they were read, or that list others without a
        // principal.
        let mut rewritten: BTreeMap<Id, Option<Vec<Id>>> =
            dangling.into_iter().map(|(id, list)| (id, Some(list))).collect();
        for id in self.members_read_otherwise().into_iter().filter(|id| !written.contains(id)) {
            rewritten.entry(id).or_insert(None);
        }
        for (id, list) in rewritten {
            if let Some(entry) = self.known.table(Kind::Group).get(&id) {
                let (missing_since, missing_walks) = (entry.missing_since, entry.missing_walks);
                let silent = Changed { missing_since, missing_walks, ..Changed::silent(entry.packed.to_owned(), now) };
                group_units.push(self.put(Kind::Group, id, silent, list, vanishing));
            }
        }
        group_units
            .sort_by_key(|unit| unit.events.first().is_none_or(|event| event.event_type != EventType::GroupAdded));
        let user_units = users.into_iter().map(|(id, changed)| self.put(Kind::User, id, changed, None, vanishing));
        if self.rules.first_sync {
            // It may have written users before it read a group, and goes on in that order.
            changes.units.extend(user_units);
            changes.units.extend(group_units);
        } else {
            changes.units.extend(group_units);
            changes.units.extend(user_units);
        }
        for units in [plan.removed, plan.added, plan.rewritten] {
            changes.units.append(units);
        }
        for kind in Kind::BOTH {
            let gone = self[kind].gone.iter();
            changes.units.extend(gone.map(|(id, reason)| self.remove(kind, id.clone(), *reason, now)));
        }
        // In repair memberships that went are kept: what says so must be read again.
        let memberships_settled = memberships_known && !self.rules.repair;
        self.settle_bytes(&mut changes.bytes, memberships_settled, &plan.unsettled);
        changes
    }

    /// Takes out the users that were read so far, to be written while the walk goes on. They are committed, and known
    /// follows ([`Diff::follow`]), before another row is taken.
    pub fn drain_users(&mut self) -> Units {
        // They still count as kept: a directory without end must not fill the memory by being written.
        let users = std::mem::take(&mut self[Kind::User].changed);
        let nothing_vanishes = BTreeSet::new();
        users.into_iter().map(|(id, changed)| self.put(Kind::User, id, changed, None, &nothing_vanishes)).collect()
    }

    /// The next sync recognises the bytes of those of whom all that they say is published. Of the others that were read it
    /// recognises none, those of earlier syncs included: a row that is as it once was says something new after one that
    /// was published in part.
    fn settle_bytes(&mut self, bytes: &mut Bytes, memberships_settled: bool, unsettled_groups: &BTreeSet<Id>) {
        for kind in Kind::BOTH {
            let read = std::mem::take(&mut self[kind].recognised);
            let holds_members = match self.reads.strategy {
                Strategy::List => kind == Kind::Group,
                Strategy::User => kind == Kind::User,
                _ => false,
            };
            let is_unsettled = |id: &Id| {
                (kind == Kind::Group && unsettled_groups.contains(id))
                    || self.reads.unsettled.contains(&(kind, id.clone()))
            };
            let settled = |id: &Id| !holds_members || (memberships_settled && !is_unsettled(id));
            let (read, unsettled): (Vec<_>, Vec<_>) =
                read.into_iter().partition(|(id, _)| settled(id) && !self[kind].doubled.contains(id));
            let unsettled = unsettled.into_iter().map(|(id, _)| id).chain(self[kind].doubled.iter().cloned());
            bytes.unsettled.extend(unsettled.map(|id| (kind, id)));
            bytes.recognised.extend(read.into_iter().map(|(id, raw)| (kind, id, raw)));
        }
    }

    /// All principals that exist: listed, found, or hidden and not due to be asked.
    fn read_count(&self, kind: Kind) -> Option<i64> {
        let all = !self[kind].unread;
        all.then(|| self[kind].listed.len() as i64 + self.hidden_count(kind))
    }

    fn put(
        &self,
        kind: Kind,
        id: Id,
        changed: Changed,
        dangling: Option<Vec<Id>>,
        vanishing: &BTreeSet<String>,
    ) -> KeyChange {
        let entry = self.known.table(kind).get(&id);
        let first = self.rules.first_read(kind);
        let events = if first == Some(Baseline::State) { Vec::new() } else { changed.events };
        let silent = events.is_empty();
        KeyChange {
            snapshot: first == Some(Baseline::Events),
            observed_at: changed.observed_at,
            loses_attribute: changed.lost.iter().any(|path| vanishing.contains(path)),
            write: StateWrite::Put(Box::new(Put {
                members_unread: kind == Kind::Group && self.members_stay_unread(&id),
                kind,
                id,
                packed: changed.packed,
                dangling,
                first_seen_at: entry.map_or(changed.observed_at, |entry| entry.first_seen_at),
                changed_at: match entry {
                    Some(entry) if silent => entry.changed_at,
                    _ => changed.observed_at,
                },
                missing_since: changed.missing_since,
                missing_walks: changed.missing_walks,
            })),
            events,
        }
    }

    /// Groups whose records say otherwise whether their members were ever read: this sync was the first to read them,
    /// or it read those of others only.
    fn members_read_otherwise(&self) -> Vec<Id> {
        let groups = self.known.table(Kind::Group).iter();
        let otherwise = groups.filter(|(id, entry)| entry.members_unread != self.members_stay_unread(id));
        otherwise.map(|(id, _)| id).filter(|id| self.exists(Kind::Group, id)).cloned().collect()
    }

    /// True for a group whose members no sync has read, this one included.
    fn members_stay_unread(&self, group: &Id) -> bool {
        let entry = self.known.table(Kind::Group).get(group);
        let before = entry.is_some_and(|entry| entry.members_unread);
        let read = self.memberships_are_shown() && !self[Kind::Group].unread;
        if !read || !self.appeared(Kind::Group, group) {
            return before;
        }
        self.reads.failed.contains(group) && (before || entry.is_none() || self.rules.first_memberships)
    }

    /// A person let the loss of `active` through: those who lost it have none now, so that it is not lost once more.
    fn let_active_go(&mut self, now: i64) {
        let lost: Vec<Id> = self.active.lost.iter().cloned().collect();
        for id in lost {
            let Some(mut user) = self.principal(Kind::User, &id) else { continue };
            let had = Principal { active: user.active.take(), ..user.clone() };
            let changed = self[Kind::User].changed.remove(&id);
            let mut changed = changed.unwrap_or_else(|| Changed::silent(PackedPrincipal::pack(&user), now));
            changed.packed = PackedPrincipal::pack(&user);
            changed.lost.push("active".to_owned());
            let gone = Principal::differences(&had, &user);
            match changed.events.iter_mut().find(|event| event.event_type == EventType::UserUpdated) {
                Some(event) => event.changes.splice(..0, gone).for_each(drop),
                None => changed.events.push(Event { changes: gone, ..Event::new(EventType::UserUpdated) }),
            }
            self.keep(Kind::User, &id, changed);
        }
    }

    fn remove(&self, kind: Kind, id: Id, reason: RemovalReason, observed_at: i64) -> KeyChange {
        let event_type = EventType::removed(kind);
        let event = Event {
            removal_reason: Some(reason),
            cause: Some((event_type, StateKey::Principal(kind, id.clone()))),
            ..Event::new(event_type)
        };
        let first = self.rules.first_read(kind);
        KeyChange {
            events: if first == Some(Baseline::State) { Vec::new() } else { vec![event] },
            write: StateWrite::Remove { kind, id },
            observed_at,
            loses_attribute: false,
            snapshot: first == Some(Baseline::Events),
        }
    }
}
