//! The difference between what Kafka holds and what a sync observes, computed page by page: memory holds
//! known plus changes, never two snapshots.
//!
//! A [`Diff`] takes rows as the walks bring them, says what it needs asked (missing principals, members
//! that no list shows, groups that lost members), takes the answers, and ends as [`Changes`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Map, Set};

use super::agreement::compatible;
use super::changes::{AttributeChange, Bytes, Changes, Event, EventType, RemovalReason, StateWrite, Unit};
use super::entitlement::GroupPattern;
use super::key::StateKey;
use super::known::{Known, Membership};
use super::member_reads::{GroupRead, ListedGroup, ListedMember, Strategy, UserGroups};
use super::memberships;
use super::packed::Packed;
use super::principal::{AttributeList, Id, Kind, Member, Principal, RawHash};
use super::status::Baseline;
use crate::json::json_text;

/// One row of a walk, or of a GET that found a principal the walk missed.
#[derive(Clone, Debug)]
pub enum Row {
    /// These bytes are recognised: nothing changed.
    Same(RawHash),
    Read(Box<Observed>),
    /// It has no usable id, so that it may be the row of any principal of its kind: none of them can be called missing.
    NoId,
}

/// How much of a resource could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readable {
    #[default]
    Whole,
    /// All but these attributes, spelled as the account's list does; `members` and `groups` may be among them.
    Without(Vec<String>),
    /// It has an id, and nothing else of it can be read.
    IdOnly,
}

/// A resource as read. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug)]
pub struct Observed {
    pub principal: Principal,
    pub raw: RawHash,
    /// Groups only; empty where the group shows none.
    pub members: Vec<ListedMember>,
    /// Users only, and only where memberships are read from them.
    pub groups: Vec<ListedGroup>,
    pub observed_at: i64,
    /// `meta.lastModified` corrected by the skew of the server's clock.
    pub modified_at: Option<i64>,
    pub readable: Readable,
    /// The server states no `displayName`: it was put together from `name`, and is not an attribute of its own.
    pub composed_name: bool,
    /// Members that are neither users nor groups: they are not principals, and not among `members`.
    pub other_members: usize,
}

impl Observed {
    fn is_unreadable(&self, attribute: &str) -> bool {
        match &self.readable {
            Readable::Whole => false,
            Readable::Without(names) => names.iter().any(|name| name == attribute),
            Readable::IdOnly => true,
        }
    }
}

/// What decides which differences are events.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a first read of something publishes.
    pub baseline: Baseline,
    /// No completed sync has read the kind: differences are its baseline, not news. [users, groups].
    pub first: [bool; 2],
    /// No completed sync has read memberships.
    pub first_memberships: bool,
    /// A completed sync saw members by the strategy of this one: none shown is none, not unknown.
    pub shown_before: bool,
    /// Known is not what Kafka should hold: who is missing in it was perhaps published long ago, so it is written
    /// silently; and nothing is removed before one sync completed.
    pub repair: bool,
    /// The list of the newest completed sync. Only attributes in both lists make events: a newly listed
    /// attribute is not a change of the person.
    pub previous_attributes: Option<AttributeList>,
    pub attributes: AttributeList,
    pub previous_pattern: Option<GroupPattern>,
    pub pattern: Option<GroupPattern>,
    /// The profile vouches that a group without members has none. Otherwise a directory that shows no
    /// member at all leaves memberships unknown.
    pub empty_members_are_none: bool,
    /// A member list this long may be cut off.
    pub member_cap: Option<usize>,
    /// Members that no list shows, where GET is impossible: published all the same.
    pub publish_unlisted: bool,
    /// `started_at` of the last completed sync, milliseconds since 1970-01-01 UTC.
    pub window_start: Option<i64>,
    /// `started_at` of this sync: nothing is observed earlier, whatever the clock says.
    pub not_before: i64,
}

impl Rules {
    /// `Some`: the kind is read for the first time, and this is what that publishes.
    pub(super) fn first_read(&self, kind: Kind) -> Option<Baseline> {
        of(&self.first, kind).then_some(self.baseline)
    }
}

/// A principal that is new or differs from known.
pub(super) struct Changed {
    pub packed: Packed,
    pub observed_at: i64,
    pub events: Vec<Event>,
    /// Attributes that it held and no longer holds.
    pub lost: Vec<String>,
    /// Since when no list shows it.
    pub missing_since: Option<i64>,
    /// Complete walks that left it out, where absence is the rule.
    pub missing_walks: u32,
}

impl Changed {
    pub fn silent(packed: Packed, observed_at: i64) -> Changed {
        Changed { packed, observed_at, events: Vec::new(), lost: Vec::new(), missing_since: None, missing_walks: 0 }
    }
}

/// About what a changed principal takes beside its attributes: its places in maps and sets, its counters.
const CHANGED_BYTES: usize = 256;

/// About what one member takes that was read and not yet published.
const MEMBER_BYTES: usize = 64;

/// When and how a principal was looked at.
struct Looked {
    observed_at: i64,
    modified_at: Option<i64>,
    composed_name: bool,
    otherwise: Otherwise,
}

/// Whether what is known was seen the same way. What GET shows is compared by [`Principal::as_shown_by_get`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    No,
    /// By lists until GET found it hidden: what GET did not show stayed as the list had shown it.
    Hidden,
    /// By GET alone.
    NeverListed,
}

pub struct Diff<'k> {
    pub(super) known: &'k Known,
    pub(super) rules: Rules,
    pub(super) strategy: Strategy,
    /// Ids that the lists showed, and ids that GET found: [users, groups].
    pub(super) listed: [Set<Id>; 2],
    /// How many of the listed ids are known.
    pub(super) known_listed: [usize; 2],
    /// Ids of the walk under way, where it is not the first of its kind.
    again: Option<Set<Id>>,
    pub(super) found: [Set<Id>; 2],
    pub(super) changed: [BTreeMap<Id, Changed>; 2],
    recognised: [Map<Id, RawHash>; 2],
    /// Bytes that the changed principals take.
    kept: usize,
    /// Kinds of which not everything is read: whoever is not listed stays as known.
    pub(super) unread: [bool; 2],
    /// Kinds for which absence is the rule, because GET is not available.
    pub(super) absence: [bool; 2],
    /// Rows of the walk under way without a usable id: while there are some, no principal of the kind can be missing.
    pub(super) no_id: [usize; 2],
    /// Rows with an id that is new, and nothing else that can be read: they are there, but cannot be published.
    pub(super) unread_rows: [Set<Id>; 2],
    /// Users who had `active` and are listed without it.
    pub(super) active_lost: Set<Id>,
    /// Users whose newest row states no `active`, where one was known.
    without_active: Set<Id>,
    /// Rows of one walk contradict each other on `active`: it is unknown.
    contradicted: Set<Id>,
    /// Several rows of one walk said different things: neither row's bytes may be recognised alone.
    doubled: BTreeSet<(Kind, Id)>,
    /// Members that are neither users nor groups.
    other_members: usize,
    /// Some user and some group have the same id.
    pub(super) ids_are_shared: bool,
    /// Groups whose members could not be read in this sync.
    pub(super) members_failed: Set<Id>,
    pub(super) groups_read: BTreeMap<Id, GroupRead>,
    pub(super) user_groups: BTreeMap<Id, UserGroups>,
    pub(super) gone: BTreeMap<(Kind, Id), RemovalReason>,
    /// Members without a principal: GET was asked and says so, or is not offered.
    pub(super) nobody: Set<Id>,
    /// Members that no list shows and nobody can ask for, published by the profile's word.
    pub(super) vouched: Set<Id>,
    pub(super) members_shown: bool,
    /// Memberships of some groups or users could not be read: those stay as they were.
    pub(super) partly_unread: bool,
    /// To be read again although their bytes are the same.
    pub(super) unsettled: BTreeSet<(Kind, Id)>,
}

pub(super) fn of<T>(pair: &[T; 2], kind: Kind) -> &T {
    &pair[kind as usize]
}

pub(super) fn of_mut<T>(pair: &mut [T; 2], kind: Kind) -> &mut T {
    &mut pair[kind as usize]
}

impl<'k> Diff<'k> {
    pub fn against(known: &'k Known, rules: Rules) -> Diff<'k> {
        Diff {
            known,
            rules,
            strategy: Strategy::List,
            listed: Default::default(),
            known_listed: [0; 2],
            again: None,
            found: Default::default(),
            changed: Default::default(),
            recognised: Default::default(),
            kept: 0,
            unread: [false; 2],
            absence: [false; 2],
            no_id: [0; 2],
            unread_rows: Default::default(),
            active_lost: Set::default(),
            without_active: Set::default(),
            contradicted: Set::default(),
            doubled: BTreeSet::new(),
            other_members: 0,
            ids_are_shared: known.table(Kind::Group).ids().any(|id| known.table(Kind::User).contains(id)),
            members_failed: Set::default(),
            groups_read: BTreeMap::new(),
            user_groups: BTreeMap::new(),
            gone: BTreeMap::new(),
            nobody: Set::default(),
            vouched: Set::default(),
            members_shown: false,
            partly_unread: false,
            unsettled: BTreeSet::new(),
        }
    }

    /// How this sync reads memberships; said before the first row, or after a list of groups that showed no member at
    /// all. `shown_before`: a completed sync saw members this way.
    pub fn read_memberships_by(&mut self, strategy: Strategy, shown_before: bool) {
        (self.strategy, self.rules.shown_before) = (strategy, shown_before);
        // What the list said of members, it said by another strategy.
        self.groups_read.clear();
        self.members_failed.clear();
        self.unsettled.clear();
        self.partly_unread = false;
        // Another way of reading may show others who have been there all along: a first read.
        let by = self.known.completed.as_ref().and_then(|completed| completed.memberships_by);
        self.rules.first_memberships |= by.is_some_and(|by| by != strategy);
    }

    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// True if any answer of this sync showed a member.
    pub fn shows_members(&self) -> bool {
        self.members_shown
    }

    /// Not everything of the kind is read: nothing of it is missing.
    pub fn mark_unread(&mut self, kind: Kind) {
        *of_mut(&mut self.unread, kind) = true;
    }

    /// Bytes that the changed principals take, to be bounded by whoever walks.
    pub fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// True where a row with these bytes needs no parsing. A group whose dangling member has appeared
    /// is read again although its bytes are the same.
    pub fn recognises(&self, kind: Kind, raw: RawHash) -> bool {
        self.recognise(kind, raw).is_some()
    }

    fn recognise(&self, kind: Kind, raw: RawHash) -> Option<&'k Id> {
        let table = self.known.table(kind);
        let id = table.recognise(raw)?;
        // One that was missing is listed again: its record has to say so.
        let listed_before = table.get(id).is_some_and(|entry| entry.missing_since.is_none());
        let settled = kind == Kind::User || self.strategy != Strategy::List || !self.dangling_appeared(id);
        (listed_before && settled).then_some(id)
    }

    pub(super) fn dangling_appeared(&self, group: &str) -> bool {
        self.known.dangling(group).iter().any(|id| Kind::BOTH.into_iter().any(|kind| self.appeared(kind, id)))
    }

    pub(super) fn appeared(&self, kind: Kind, id: &Id) -> bool {
        of(&self.listed, kind).contains(id) || of(&self.found, kind).contains(id)
    }

    /// A walk begins: what earlier walks listed stays listed.
    pub fn begin_walk(&mut self, kind: Kind) {
        self.again = (self.listed(kind) > 0).then(Set::default);
        *of_mut(&mut self.no_id, kind) = 0;
        if kind == Kind::User {
            self.contradicted.clear();
        }
    }

    /// Takes the rows of one page of a list; returns how many ids are new in this walk. An id counts once in a walk:
    /// what its rows say is merged. What a second walk says replaces what the first one said.
    pub fn page(&mut self, kind: Kind, rows: impl IntoIterator<Item = Row>) -> usize {
        let mut fresh = 0;
        for row in rows {
            let id = match &row {
                Row::Same(raw) => self.known.table(kind).recognise(*raw).cloned(),
                Row::Read(observed) => Some(observed.principal.id.clone()),
                Row::NoId => {
                    *of_mut(&mut self.no_id, kind) += 1;
                    // It may be the row of one who was taken for gone.
                    self.gone.retain(|(of, _), _| *of != kind);
                    fresh += 1;
                    None
                }
            };
            let Some(id) = id else { continue };
            if self.cannot_be_published(kind, &row) {
                fresh += usize::from(of_mut(&mut self.unread_rows, kind).insert(id));
                continue;
            }
            let first = of_mut(&mut self.listed, kind).insert(id.clone());
            let in_this_walk = match &mut self.again {
                Some(walked) => !walked.insert(id.clone()),
                None => !first,
            };
            if in_this_walk {
                self.another_row(kind, &id, row);
                continue;
            }
            fresh += 1;
            *of_mut(&mut self.known_listed, kind) += usize::from(first && self.known.table(kind).contains(&id));
            self.row(kind, &id, row);
        }
        fresh
    }

    /// A principal that is new, and of which nothing but its id can be read: it is there, but it has no record.
    fn cannot_be_published(&self, kind: Kind, row: &Row) -> bool {
        let Row::Read(observed) = row else { return false };
        observed.readable == Readable::IdOnly && !self.known.table(kind).contains(&observed.principal.id)
    }

    /// One more row of an id in one walk: a join that lists somebody twice, or pages that overlap. What the rows say is
    /// merged whatever their order; where they contradict each other on `active`, it is unknown.
    fn another_row(&mut self, kind: Kind, id: &Id, row: Row) {
        let key = (kind, id.clone());
        let first_raw = of(&self.recognised, kind).get(id).copied();
        // The first row was recognised: it says what is known, and nothing of it was kept.
        let first_is_known = first_raw.is_none() && !self.doubled.contains(&key);
        let mut other = match row {
            Row::NoId => return,
            Row::Same(_) if first_is_known => return,
            Row::Same(raw) => Observed { raw, ..self.as_known(kind, id) },
            Row::Read(observed) => *observed,
        };
        if first_raw == Some(other.raw) || other.readable == Readable::IdOnly {
            return;
        }
        let Some(mut first) = self.principal(kind, id) else { return };
        if self.without_active.contains(id) {
            first.active = None;
        }
        let active = match (first.active, other.principal.active) {
            _ if self.contradicted.contains(id) => None,
            (Some(one), Some(other)) if one != other => {
                self.contradicted.insert(id.clone());
                None
            }
            (one, other) => one.or(other),
        };
        other.principal = Principal { active, ..first.merged(other.principal) };
        // Whoever any of the rows shows is shown.
        let known = first_is_known.then(|| self.as_known(kind, id));
        other.members.extend(known.iter().flat_map(|known| known.members.iter().cloned()));
        other.groups.extend(known.iter().flat_map(|known| known.groups.iter().cloned()));
        if let Some(read) = self.groups_read.get(id).filter(|_| kind == Kind::Group) {
            other.members.extend(read.members.iter().cloned());
        }
        if let Some(read) = self.user_groups.get(id).filter(|_| kind == Kind::User) {
            other.groups.extend(read.groups.iter().cloned());
        }
        other.members.sort_unstable();
        other.members.dedup();
        other.groups.sort_unstable();
        other.groups.dedup();
        self.read(kind, other, false);
        of_mut(&mut self.recognised, kind).remove(id);
        self.doubled.insert(key);
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
            members: members.into_iter().flatten().map(member).collect(),
            groups: groups.map(group).collect(),
            observed_at: self.rules.not_before,
            modified_at: None,
            readable: Readable::Whole,
            composed_name: false,
            other_members: 0,
        }
    }

    /// Takes GET's word on a listed group whose dangling member appeared after the group was listed.
    pub fn reread(&mut self, observed: Observed) {
        if observed.members.is_empty() {
            return;
        }
        match self.strategy {
            Strategy::List => drop(self.read(Kind::Group, observed, false)),
            _ => self.group_members(&observed.principal.id, observed.members, observed.observed_at),
        }
    }

    /// Takes a principal that GET found although no list showed it. One that is new, and of which GET shows nothing but
    /// the id, cannot be published: it is asked for again.
    pub fn found(&mut self, kind: Kind, observed: Observed) {
        let id = observed.principal.id.clone();
        if self.read(kind, observed, true) {
            of_mut(&mut self.found, kind).insert(id);
        }
    }

    /// Users of whom rows of one walk say both that they are active and that they are not.
    pub fn contradictory(&self) -> usize {
        self.contradicted.len()
    }

    /// Rows of which nothing can be published: without a usable id, or new and with nothing but an id.
    pub fn unpublishable(&self, kind: Kind) -> usize {
        *of(&self.no_id, kind) + of(&self.unread_rows, kind).len()
    }

    /// Users who had `active` and are listed without it.
    pub fn without_known_active(&self) -> usize {
        self.active_lost.len()
    }

    /// Members that are neither users nor groups, of the groups that were parsed.
    pub fn other_members(&self) -> usize {
        self.other_members
    }

    /// The first row of an id in a walk.
    fn row(&mut self, kind: Kind, id: &Id, row: Row) {
        match row {
            Row::NoId => {}
            Row::Same(_) => {
                self.members_shown |= match self.strategy {
                    Strategy::List => kind == Kind::Group && self.known.members(id).is_some(),
                    Strategy::User => kind == Kind::User && self.known.memberships_len() > 0,
                    _ => false,
                };
                // An earlier row of this sync showed other bytes: the newest stands.
                of_mut(&mut self.changed, kind).remove(id);
                of_mut(&mut self.recognised, kind).remove(id);
                match kind {
                    Kind::Group => drop(self.groups_read.remove(id)),
                    Kind::User => drop(self.user_groups.remove(id)),
                }
                if kind == Kind::User {
                    self.active_lost.remove(id);
                    self.without_active.remove(id);
                }
                self.gone.remove(&(kind, id.clone()));
            }
            Row::Read(observed) => drop(self.read(kind, *observed, false)),
        }
    }

    /// Takes a resource as read; false where nothing of it can be published. `unlisted`: no list shows it, GET found it.
    fn read(&mut self, kind: Kind, observed: Observed, unlisted: bool) -> bool {
        // Our times never go backwards, whatever the clock did since the last sync.
        let observed_at = observed.observed_at.max(self.rules.not_before);
        let id = observed.principal.id.clone();
        let entry = self.known.table(kind).get(&id);
        let old = entry.map(|entry| entry.packed.unpack(id.clone()));
        if observed.readable == Readable::IdOnly && old.is_none() {
            return false;
        }
        let (members_unreadable, groups_unreadable) =
            (observed.is_unreadable("members"), observed.is_unreadable("groups"));
        let active_stated = observed.principal.active.is_some() || observed.is_unreadable("active");
        self.other_members += observed.other_members;
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
        // Unknown never replaces a known value.
        new.active = new.active.or_else(|| old.as_ref().and_then(|old| old.active));
        // Last seen by GET, and listed now.
        let hidden = entry.filter(|entry| entry.missing_since.is_some() && entry.missing_walks == 0);
        let otherwise = match hidden {
            // No list has ever shown it: what only one of the two shows has not changed.
            Some(entry) if entry.missing_since == Some(entry.first_seen_at) => Otherwise::NeverListed,
            Some(_) => Otherwise::Hidden,
            None => Otherwise::No,
        };
        let looked = Looked { observed_at, modified_at, composed_name, otherwise };
        let changed = self.compare(kind, old.as_ref(), &new, looked);
        let since = entry.and_then(|entry| entry.missing_since);
        let missing_since = unlisted.then(|| since.unwrap_or(observed_at));
        let rewrite = entry.is_some_and(|entry| entry.missing_since != missing_since || entry.missing_walks > 0);
        match changed {
            Some(changed) => self.keep(kind, &id, Changed { missing_since, ..changed }),
            None if rewrite => {
                let silent = Changed { missing_since, ..Changed::silent(Packed::pack(&new), observed_at) };
                self.keep(kind, &id, silent);
            }
            None => drop(of_mut(&mut self.changed, kind).remove(&id)),
        }
        // Whatever an earlier answer said: it is there now.
        self.gone.remove(&(kind, id.clone()));
        match (kind, self.strategy) {
            (Kind::Group, Strategy::List) if members_unreadable => self.members_unread(&id),
            (Kind::Group, Strategy::List) => self.list_members(&id, members, observed_at, unlisted),
            (Kind::User, Strategy::User) if groups_unreadable => {
                self.user_groups.remove(&id);
                self.partly_unread = true;
            }
            (Kind::User, Strategy::User) => self.groups_of_user(&id, groups, observed_at),
            _ => {}
        }
        if readable == Readable::Whole {
            of_mut(&mut self.recognised, kind).insert(id, raw);
        } else {
            // To be read again, however often it comes with the same bytes: somebody has to be told each time.
            of_mut(&mut self.recognised, kind).remove(&id);
            self.doubled.insert((kind, id));
        }
        true
    }

    /// Remembers who is listed without `active` although it was known: it counts against the guard.
    fn note_active(&mut self, id: &Id, old: Option<&Principal>, stated: bool, unlisted: bool) {
        let had = old.is_some_and(|old| old.active.is_some());
        if stated || !had {
            self.active_lost.remove(id);
            self.without_active.remove(id);
            return;
        }
        self.without_active.insert(id.clone());
        // That GET does not show it says nothing; nor do rows that contradict each other.
        if !unlisted && !self.contradicted.contains(id) {
            self.active_lost.insert(id.clone());
            self.doubled.insert((Kind::User, id.clone()));
        } else {
            self.active_lost.remove(id);
        }
    }

    /// Counts members that are kept until the sync is published.
    pub(super) fn keep_members(&mut self, count: usize) {
        self.kept += count * MEMBER_BYTES;
    }

    fn keep(&mut self, kind: Kind, id: &Id, changed: Changed) {
        self.kept += changed.packed.len() + id.len() + CHANGED_BYTES;
        of_mut(&mut self.changed, kind).insert(id.clone(), changed);
    }

    /// `None` where nothing that is compared differs; `last_modified` alone never does.
    fn compare(&self, kind: Kind, old: Option<&Principal>, new: &Principal, looked: Looked) -> Option<Changed> {
        let Looked { observed_at, modified_at, composed_name, otherwise } = looked;
        let mut changed = Changed::silent(Packed::pack(new), observed_at);
        // The server's own time counts only inside the window in which the change must lie.
        let occurred_at =
            modified_at.filter(|at| *at <= observed_at && self.rules.window_start.is_some_and(|start| *at >= start));
        let mut event = |event_type, changes| {
            changed.events.push(Event { changes, occurred_at, ..Event::new(event_type) });
        };
        let Some(old) = old else {
            // A silent baseline makes no events; a hundred thousand of them would only be dropped again.
            if self.rules.first_read(kind) != Some(Baseline::State) && !self.rules.repair {
                event(EventType::added(kind), Vec::new());
            }
            return Some(changed);
        };
        let mut same_time = new.clone();
        same_time.last_modified = old.last_modified;
        let pattern_only = kind == Kind::Group && self.pattern_decodes_differently(new);
        if same_time == *old && !pattern_only {
            return None;
        }
        let mut changes = Principal::differences(old, new);
        changes.retain(|change| self.makes_events(&change.attribute));
        changes.retain(|AttributeChange { attribute, old, new }| match (otherwise, old, new) {
            (Otherwise::No, ..) => true,
            _ if attribute == "active" => true,
            (_, Some(old), Some(new)) => !compatible(old, new),
            (Otherwise::NeverListed, ..) => false,
            (Otherwise::Hidden, ..) => true,
        });
        if composed_name {
            // It follows from `name`, which has a change of its own where it is listed. A stated name that is no longer
            // served is a change.
            let stated = old.display_name.is_some() && old.composed_name() != old.display_name;
            changes.retain(|change| change.attribute != "displayName" || stated);
        }
        let lost = changes.iter().filter(|change| change.new.is_none()).map(|change| change.attribute.clone());
        changed.lost = lost.collect();
        // Unknown → true is an update; only a known false can be enabled.
        let switch = changes
            .iter()
            .position(|change| change.attribute == "active" && (old.active.is_some() || new.active == Some(false)))
            .map(|index| changes.remove(index));
        if kind == Kind::Group {
            self.entitlement_changes(old, new, &mut changes);
        }
        if !changes.is_empty() {
            event(EventType::updated(kind), changes);
        }
        if let Some(switch) = switch {
            let enabled = new.active == Some(true);
            event(if enabled { EventType::UserEnabled } else { EventType::UserDisabled }, vec![switch]);
        }
        Some(changed)
    }

    fn makes_events(&self, path: &str) -> bool {
        let previous = self.rules.previous_attributes.as_ref();
        self.rules.attributes.covers(path) && previous.is_none_or(|previous| previous.covers(path))
    }

    /// Entitlements that differ only because the pattern changed are rewritten silently.
    fn pattern_decodes_differently(&self, group: &Principal) -> bool {
        let decode = |pattern: &Option<GroupPattern>| {
            pattern.as_ref().zip(group.display_name.as_deref()).and_then(|(pattern, name)| pattern.decode(name))
        };
        !self.known.is_first()
            && self.rules.previous_pattern != self.rules.pattern
            && decode(&self.rules.previous_pattern) != decode(&self.rules.pattern)
    }

    fn entitlement_changes(&self, old: &Principal, new: &Principal, changes: &mut Vec<AttributeChange>) {
        // They come from the name: where that is listed only now (or no longer), they are no news either.
        if !self.makes_events("displayName") {
            return;
        }
        let decode = |group: &Principal| {
            let name = group.display_name.as_deref()?;
            let entitlement = self.rules.pattern.as_ref()?.decode(name)?;
            Some([entitlement.domain, entitlement.kind, entitlement.name])
        };
        let (before, after) = (decode(old), decode(new));
        for (index, attribute) in ["entitlement_domain", "entitlement_kind", "entitlement_name"].into_iter().enumerate()
        {
            let value = |side: &Option<[String; 3]>| {
                side.as_ref().map(|parts| parts[index].as_str()).filter(|text| !text.is_empty()).map(json_text)
            };
            let (old, new) = (value(&before), value(&after));
            if old != new {
                changes.push(AttributeChange { attribute: attribute.to_owned(), old, new });
            }
        }
    }

    /// Takes the proof that a missing principal is gone. In repair it stays missing, to be asked for again.
    pub fn gone(&mut self, kind: Kind, id: Id, reason: RemovalReason) {
        if self.rules.repair || *of(&self.no_id, kind) > 0 || self.appeared(kind, &id) {
            return;
        }
        self.gone.insert((kind, id), reason);
    }

    /// True where the principal can be a member: seen in this sync, or known and not proven gone.
    pub(super) fn exists(&self, kind: Kind, id: &Id) -> bool {
        self.appeared(kind, id) || (self.known.table(kind).contains(id) && !self.gone.contains_key(&(kind, id.clone())))
    }

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
            memberships_read: (memberships_known && !self.partly_unread).then_some(plan.count as i64),
            removals_suppressed: Kind::BOTH.iter().map(|kind| self.missing(*kind).len() as i64).sum(),
            hidden: Kind::BOTH.iter().map(|kind| self.hidden_count(*kind)).sum(),
            dangling: plan.dangling_total as i64,
            memberships: plan.count as i64,
            strategy: self.strategy,
            others: self.other_members,
            memberships_are_known: self.memberships_are_shown(),
            members_seen_by: self.members_shown.then_some(self.strategy),
            bytes: Bytes {
                recognised: Vec::new(),
                unsettled: rereads
                    .into_iter()
                    .map(|id| (Kind::Group, id))
                    .chain(self.doubled.iter().cloned())
                    .collect(),
            },
            ..Changes::default()
        };
        let [users, groups] = std::mem::take(&mut self.changed);
        // Group records: added, then updated, silent rewrites of `dangling` among them.
        let mut dangling = plan.dangling;
        let written: BTreeSet<Id> = groups.keys().cloned().collect();
        let mut group_units: Vec<Unit> = groups
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
                let silent = Changed { missing_since, missing_walks, ..Changed::silent(entry.packed.clone(), now) };
                group_units.push(self.put(Kind::Group, id, silent, list, vanishing));
            }
        }
        group_units
            .sort_by_key(|unit| unit.events.first().is_none_or(|event| event.event_type != EventType::GroupAdded));
        changes.units.extend(group_units);
        for (id, changed) in users {
            changes.units.push(self.put(Kind::User, id, changed, None, vanishing));
        }
        changes.units.extend(plan.removed);
        changes.units.extend(plan.added);
        changes.units.extend(plan.rewritten);
        for kind in Kind::BOTH {
            let gone = self.gone.iter().filter(|((of, _), _)| *of == kind);
            changes.units.extend(gone.map(|((_, id), reason)| self.remove(kind, id.clone(), *reason, now)));
        }
        // Bytes may be recognised only once all that they say is published.
        let holds_members = |kind: Kind| match self.strategy {
            Strategy::List => kind == Kind::Group,
            Strategy::User => kind == Kind::User,
            _ => false,
        };
        // In repair memberships that went are kept: what says so must be read again.
        let memberships_settled = memberships_known && !self.rules.repair;
        let settled = |kind: Kind, id: &Id| {
            let unsettled =
                (kind == Kind::Group && plan.unsettled.contains(id)) || self.unsettled.contains(&(kind, id.clone()));
            !holds_members(kind) || (memberships_settled && !unsettled)
        };
        let mut recognised = Vec::new();
        let both = std::mem::take(&mut self.recognised);
        for (kind, read) in Kind::BOTH.into_iter().zip(both) {
            let read =
                read.into_iter().filter(|(id, _)| settled(kind, id) && !self.doubled.contains(&(kind, id.clone())));
            recognised.extend(read.map(|(id, raw)| (kind, id, raw)));
        }
        changes.bytes.recognised = recognised;
        changes
    }

    /// Everybody who is there: listed, found, or hidden and not due to be asked.
    fn read_count(&self, kind: Kind) -> Option<i64> {
        let all = !of(&self.unread, kind);
        all.then(|| of(&self.listed, kind).len() as i64 + self.hidden_count(kind))
    }

    fn put(
        &self,
        kind: Kind,
        id: Id,
        changed: Changed,
        dangling: Option<Vec<Id>>,
        vanishing: &BTreeSet<String>,
    ) -> Unit {
        let entry = self.known.table(kind).get(&id);
        let first = self.rules.first_read(kind);
        let events = if first == Some(Baseline::State) { Vec::new() } else { changed.events };
        let silent = events.is_empty();
        Unit {
            snapshot: first == Some(Baseline::Events),
            observed_at: changed.observed_at,
            loses_attribute: changed.lost.iter().any(|path| vanishing.contains(path)),
            write: StateWrite::Put {
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
            },
            events,
        }
    }

    /// Groups whose records say otherwise whether their members were ever read: this sync was the first to read them, or
    /// it read those of others only.
    fn members_read_otherwise(&self) -> Vec<Id> {
        let groups = self.known.table(Kind::Group).iter();
        let otherwise = groups.filter(|(id, entry)| entry.members_unread != self.members_stay_unread(id));
        otherwise.map(|(id, _)| id).filter(|id| self.exists(Kind::Group, id)).cloned().collect()
    }

    /// True for a group whose members no sync has read, this one included.
    fn members_stay_unread(&self, group: &Id) -> bool {
        let entry = self.known.table(Kind::Group).get(group);
        let before = entry.is_some_and(|entry| entry.members_unread);
        let read = self.memberships_are_shown() && !of(&self.unread, Kind::Group);
        if !read || !self.appeared(Kind::Group, group) {
            return before;
        }
        self.members_failed.contains(group) && (before || entry.is_none() || self.rules.first_memberships)
    }

    /// A person let the loss of `active` through: those who lost it have none now, so that it is not lost once more.
    fn let_active_go(&mut self, now: i64) {
        let lost: Vec<Id> = self.active_lost.iter().cloned().collect();
        for id in lost {
            let Some(mut user) = self.principal(Kind::User, &id) else { continue };
            user.active = None;
            let changed = of_mut(&mut self.changed, Kind::User).remove(&id);
            let mut changed = changed.unwrap_or_else(|| Changed::silent(Packed::pack(&user), now));
            changed.packed = Packed::pack(&user);
            changed.lost.push("active".to_owned());
            self.keep(Kind::User, &id, changed);
        }
    }

    fn remove(&self, kind: Kind, id: Id, reason: RemovalReason, observed_at: i64) -> Unit {
        let event_type = EventType::removed(kind);
        let event = Event {
            removal_reason: Some(reason),
            cause: Some((event_type, StateKey::Principal(kind, id.clone()))),
            ..Event::new(event_type)
        };
        let first = self.rules.first_read(kind);
        Unit {
            events: if first == Some(Baseline::State) { Vec::new() } else { vec![event] },
            write: StateWrite::Remove { kind, id },
            observed_at,
            loses_attribute: false,
            snapshot: first == Some(Baseline::Events),
        }
    }

    /// Name of a principal for an event: as just read, else as known.
    pub(super) fn principal(&self, kind: Kind, id: &Id) -> Option<Principal> {
        match of(&self.changed, kind).get(id) {
            Some(changed) => Some(changed.packed.unpack(id.clone())),
            None => self.known.table(kind).principal(id),
        }
    }

    /// Groups that exist after this sync.
    pub(super) fn groups(&self) -> BTreeSet<&Id> {
        let known = self.known.table(Kind::Group).ids();
        known.chain(of(&self.changed, Kind::Group).keys()).filter(|id| self.exists(Kind::Group, id)).collect()
    }
}
