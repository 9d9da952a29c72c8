//! Taking rows of lists, and principals that GET found.

use super::compare::{Changed, Looked, Otherwise, compare};
use super::sightings::{Diff, GroupRead};
use crate::directory::maps::Set;
use crate::directory::members::{Members, Membership};
use crate::directory::observed::{ListedGroup, ListedMember, Observed, Readable, Row};
use crate::directory::packed::PackedPrincipal;
use crate::directory::principal::{Id, Kind, Member, Principal, RawHash};
use crate::directory::strategy::Strategy;

/// What a principal's record says of its absence from lists.
#[derive(Clone, Copy)]
struct Absence {
    since: Option<i64>,
    walks: u32,
    first_seen_at: i64,
}

impl Diff<'_> {
    /// A walk begins: what earlier walks listed stays listed.
    pub fn begin_walk(&mut self, kind: Kind) {
        self[kind].again = (self.listed(kind) > 0).then(Set::default);
        // About as many as the last time, where everything is read: sets that grow are written several times over.
        if !self[kind].unread {
            let more = self.known.table(kind).len().saturating_sub(self.listed(kind));
            self[kind].listed.reserve(more);
        }
        self[kind].no_id = 0;
        self[kind].aside.clear();
        if kind == Kind::User {
            self.active.contradicted.clear();
        }
    }

    /// Takes the rows of one page of a list; returns how many ids are new in this walk. An id counts once in a walk:
    /// what its rows say is merged. What a second walk says replaces what the first one said.
    pub fn take_page(&mut self, kind: Kind, rows: impl IntoIterator<Item = Row>) -> usize {
        let mut fresh = 0;
        for row in rows {
            let id = match &row {
                Row::Same(_, id) => Some(id.clone()),
                Row::Read(observed) => Some(observed.principal.id.clone()),
                Row::NoId => {
                    self[kind].no_id += 1;
                    // It may be the row of a principal that was taken for gone.
                    self[kind].gone.clear();
                    fresh += 1;
                    None
                }
                Row::Aside(id) => {
                    self[kind].gone.remove(id);
                    fresh += usize::from(self[kind].aside.insert(id.clone()));
                    None
                }
            };
            let Some(id) = id else { continue };
            if self.cannot_be_published(kind, &row) {
                fresh += usize::from(self[kind].unread_rows.insert(id));
                continue;
            }
            let first = self[kind].listed.insert(id.clone());
            if first {
                self[kind].known_unlisted.take();
            }
            let in_this_walk = match &mut self[kind].again {
                Some(walked) => !walked.insert(id.clone()),
                None => !first,
            };
            if in_this_walk {
                self.merge_row(kind, &id, row);
                continue;
            }
            fresh += 1;
            let is_known = matches!(row, Row::Same(..)) || self.known.table(kind).contains(&id);
            self[kind].known_listed += usize::from(first && is_known);
            self.take_row(kind, &id, row);
        }
        fresh
    }

    /// A principal that is new, and of which nothing but its id can be read: it is there, but it has no record.
    fn cannot_be_published(&self, kind: Kind, row: &Row) -> bool {
        let Row::Read(observed) = row else { return false };
        observed.readable == Readable::IdOnly && !self.known.table(kind).contains(&observed.principal.id)
    }

    /// One more row of an id in one walk: a join that lists a principal twice, or pages that overlap. What the rows say
    /// is merged whatever their order; where they contradict each other on `active`, it is unknown.
    fn merge_row(&mut self, kind: Kind, id: &Id, row: Row) {
        let first_raw = self[kind].recognised.get(id).copied();
        // The first row was recognised: it says what is known, and nothing of it was kept.
        let first_is_known = first_raw.is_none() && !self[kind].doubled.contains(id);
        let mut other = match row {
            Row::NoId | Row::Aside(_) => return,
            Row::Same(..) if first_is_known => return,
            Row::Same(raw, _) => Observed { raw, ..self.as_known(kind, id) },
            Row::Read(observed) => *observed,
        };
        if first_raw == Some(other.raw) || other.readable == Readable::IdOnly {
            return;
        }
        let Some(mut first) = self.principal(kind, id) else { return };
        if self.active.unstated.contains(id) {
            first.active = None;
        }
        let active = match (first.active, other.principal.active) {
            _ if self.active.contradicted.contains(id) => None,
            (Some(one), Some(other)) if one != other => {
                self.active.contradicted.insert(id.clone());
                None
            }
            (one, other) => one.or(other),
        };
        other.principal = Principal { active, ..first.merged(other.principal) };
        // A member that any of the rows shows is shown.
        let known = first_is_known.then(|| self.as_known(kind, id));
        other.members.extend(known.iter().flat_map(|known| known.members.iter().cloned()));
        other.groups.extend(known.iter().flat_map(|known| known.groups.iter().cloned()));
        if let Some(read) = self.reads.of_groups.get(id).filter(|_| kind == Kind::Group) {
            other.members.extend(read.members.iter().cloned());
        }
        if let Some(read) = self.reads.of_users.get(id).filter(|_| kind == Kind::User) {
            other.groups.extend(read.groups.iter().cloned());
        }
        other.members.sort_unstable();
        other.members.dedup();
        other.groups.sort_unstable();
        other.groups.dedup();
        self.take_read(kind, other, false);
        self[kind].recognised.remove(id);
        self[kind].doubled.insert(id.clone());
    }

    /// What is known of a principal, as a row that says the same would be read.
    fn as_known(&self, kind: Kind, id: &Id) -> Observed {
        let member = |(member, membership): (&Member, &Membership)| ListedMember {
            id: member.id.clone(),
            kind: Some(member.kind),
            direct: membership.direct,
        };
        let groups = self.known.memberships().filter(|(_, member, _)| kind == Kind::User && member.id == *id);
        let group = |(group, _, membership): (&Id, &Member, &Membership)| ListedGroup {
            id: Some(group.clone()),
            name: None,
            direct: membership.direct,
        };
        let members = self.known.members(id).filter(|_| kind == Kind::Group);
        Observed {
            principal: self.known.table(kind).principal(id).unwrap_or_else(|| Principal::new(id.clone())),
            raw: RawHash::MIN,
            members: members.into_iter().flat_map(Members::iter).map(member).collect(),
            groups: groups.map(group).collect(),
            observed_at: self.rules.not_before,
            modified_at: None,
            readable: Readable::Whole,
            composed_name: false,
            other_members: 0,
        }
    }

    /// Takes GET's word on a listed group whose dangling member appeared after the group was listed. Where the list shows
    /// members, GET only tells of that member: the list has said the rest, and what GET shows otherwise does not count.
    pub fn take_reread(&mut self, observed: Observed) {
        let Observed { principal, mut members, observed_at, .. } = observed;
        if self.reads.strategy != Strategy::List {
            if !members.is_empty() {
                self.take_members(&principal.id, members, observed_at);
            }
            return;
        }
        let dangling = self.known.dangling(&principal.id);
        members.retain(|member| dangling.binary_search(&member.id).is_ok());
        if !members.is_empty() {
            let observed_at = observed_at.max(self.rules.not_before);
            self.keep_members(members.len());
            let read = GroupRead { members, ..GroupRead::partial(observed_at) };
            self.reads.of_groups.insert(principal.id, read);
        }
    }

    /// Takes a principal that GET found although no list showed it. One that is new, and of which GET shows nothing but
    /// the id, cannot be published: it is asked for again.
    pub fn take_found(&mut self, kind: Kind, observed: Observed) {
        let id = observed.principal.id.clone();
        if self.take_read(kind, observed, true) {
            self[kind].found.insert(id);
        }
    }

    /// The first row of an id in a walk.
    fn take_row(&mut self, kind: Kind, id: &Id, row: Row) {
        match row {
            Row::NoId | Row::Aside(_) => {}
            Row::Same(..) => {
                self.reads.shown |= match self.reads.strategy {
                    Strategy::List => kind == Kind::Group && self.known.members(id).is_some(),
                    Strategy::User => kind == Kind::User && self.known.memberships_len() > 0,
                    _ => false,
                };
                // An earlier row of this sync showed other bytes: the newest counts.
                self[kind].changed.remove(id);
                match kind {
                    Kind::Group => drop(self.reads.of_groups.remove(id)),
                    Kind::User => drop(self.reads.of_users.remove(id)),
                }
                // Almost always empty, and an empty hash map computes the hash all the same.
                if !self[kind].recognised.is_empty() {
                    self[kind].recognised.remove(id);
                }
                for users in [&mut self.active.lost, &mut self.active.unstated] {
                    if kind == Kind::User && !users.is_empty() {
                        users.remove(id);
                    }
                }
                self[kind].gone.remove(id);
            }
            Row::Read(observed) => drop(self.take_read(kind, *observed, false)),
        }
    }

    /// Takes a resource as read; false where nothing of it can be published. `unlisted`: no list shows it, GET found
    /// it.
    fn take_read(&mut self, kind: Kind, observed: Observed, unlisted: bool) -> bool {
        // Our times never go backwards, whatever the clock did since the last sync.
        let observed_at = observed.observed_at.max(self.rules.not_before);
        let id = observed.principal.id.clone();
        let entry = self.known.table(kind).get(&id);
        let old = entry.map(|entry| entry.packed.unpack(id.clone()));
        let before = entry.map(|entry| Absence {
            since: entry.missing_since,
            walks: entry.missing_walks,
            first_seen_at: entry.first_seen_at,
        });
        if observed.readable == Readable::IdOnly && old.is_none() {
            return false;
        }
        let (members_unreadable, groups_unreadable) =
            (observed.is_unreadable("members"), observed.is_unreadable("groups"));
        let active_stated = observed.principal.active.is_some() || observed.is_unreadable("active");
        self.reads.others += observed.other_members;
        let Observed { principal: mut new, raw, members, groups, modified_at, readable, composed_name, .. } = observed;
        if let Some(old) = &old {
            match &readable {
                Readable::Whole => {}
                Readable::Without(names) => new.keep_unreadable(old, names),
                Readable::IdOnly => new = old.clone(),
            }
            if unlisted {
                new.display_name = new.display_name.filter(|_| !composed_name);
                new = old.as_shown_by_get(new);
            }
        }
        if kind == Kind::User {
            self.note_active(&id, old.as_ref(), active_stated, unlisted);
        }
        // A first sync has written what the first row of the walk said, and another row contradicts it.
        let taken_back = self.rules.first_sync && self.active.contradicted.contains(&id);
        // Unknown never replaces a known value.
        new.active = new.active.or_else(|| old.as_ref().and_then(|old| old.active).filter(|_| !taken_back));
        // Last seen by GET, and listed now.
        let hidden = before.filter(|before| before.since.is_some() && before.walks == 0);
        let otherwise = match hidden {
            // No list has ever shown it: what only one of the two shows has not changed.
            Some(before) if before.since == Some(before.first_seen_at) => Otherwise::NeverListed,
            Some(_) => Otherwise::Hidden,
            None => Otherwise::No,
        };
        let looked = Looked { observed_at, modified_at, composed_name, otherwise };
        let mut changed = compare(&self.rules, kind, old.as_ref(), &new, looked);
        if let Some(changed) = changed.as_mut().filter(|_| taken_back && old.is_some()) {
            changed.events.clear();
        }
        let since = before.and_then(|before| before.since);
        let missing_since = unlisted.then(|| since.unwrap_or(observed_at));
        let rewrite = before.is_some_and(|before| before.since != missing_since || before.walks > 0);
        match changed {
            Some(changed) => self.keep(kind, &id, Changed { missing_since, ..changed }),
            None if rewrite => {
                let silent = Changed { missing_since, ..Changed::silent(PackedPrincipal::pack(&new), observed_at) };
                self.keep(kind, &id, silent);
            }
            None => drop(self[kind].changed.remove(&id)),
        }
        // Whatever an earlier answer said: it is there now.
        self[kind].gone.remove(&id);
        match (kind, self.reads.strategy) {
            (Kind::Group, Strategy::List) if members_unreadable => self.mark_members_unread(&id),
            (Kind::Group, Strategy::List) => self.take_listed_members(&id, members, observed_at, unlisted),
            (Kind::User, Strategy::User) if groups_unreadable => {
                self.reads.of_users.remove(&id);
                self.reads.partly_unread = true;
            }
            (Kind::User, Strategy::User) => self.take_groups_of(&id, groups, observed_at),
            _ => {}
        }
        if readable == Readable::Whole {
            self[kind].recognised.insert(id, raw);
        } else {
            // To be read again, however often it comes with the same bytes: each sync says it.
            self[kind].recognised.remove(&id);
            self[kind].doubled.insert(id);
        }
        true
    }

    /// Remembers a user that is listed without `active` although it was known: it counts against the guard.
    fn note_active(&mut self, id: &Id, old: Option<&Principal>, stated: bool, unlisted: bool) {
        let had = old.is_some_and(|old| old.active.is_some());
        if stated || !had {
            self.active.lost.remove(id);
            self.active.unstated.remove(id);
            return;
        }
        self.active.unstated.insert(id.clone());
        // That GET does not show it says nothing; nor do rows that contradict each other.
        if !unlisted && !self.active.contradicted.contains(id) {
            self.active.lost.insert(id.clone());
            self[Kind::User].doubled.insert(id.clone());
        } else {
            self.active.lost.remove(id);
        }
    }
}
