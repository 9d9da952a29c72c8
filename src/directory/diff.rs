//! The difference between what Kafka holds and what a sync observes, computed page by page: memory holds
//! known plus changes, never two snapshots.
//!
//! A [`Diff`] takes rows as the walks bring them, says what it needs asked (missing principals, members
//! that no list shows, groups that lost members), takes the answers, and ends as [`Changes`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Map, Set};

use super::changes::{AttributeChange, Bytes, Changes, Event, EventType, RemovalReason, StateWrite, Unit};
use super::entitlement::GroupPattern;
use super::key::StateKey;
use super::known::Known;
use super::member_reads::{GroupRead, ListedGroup, ListedMember, Strategy, UserGroups};
use super::memberships;
use super::packed::Packed;
use super::principal::{AttributeList, Id, Kind, Principal, RawHash, json_text};
use super::status::Baseline;

/// One row of a walk, or of a GET that found a principal the walk missed.
#[derive(Clone, Debug)]
pub enum Row {
    /// These bytes are recognised: nothing changed.
    Same(RawHash),
    Read(Box<Observed>),
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
}

/// What decides which differences are events.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The account has no completed sync yet: differences are its baseline, not news.
    pub first: Option<Baseline>,
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

    /// How this sync reads memberships; said before the first row.
    pub fn read_memberships_by(&mut self, strategy: Strategy) {
        self.strategy = strategy;
    }

    /// Not everything of the kind is read: nothing of it is missing.
    pub fn unread(&mut self, kind: Kind) {
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
    }

    /// Takes the rows of one page of a list; returns how many ids are new in this walk. A repeated id counts
    /// once; its newest row stands.
    pub fn page(&mut self, kind: Kind, rows: impl IntoIterator<Item = Row>) -> usize {
        let mut fresh = 0;
        for row in rows {
            let recognised = matches!(row, Row::Same(_));
            if let Some(id) = self.row(kind, row) {
                let again = self.again.as_mut().map(|walked| walked.insert(id.clone()));
                let known = recognised || self.known.table(kind).contains(&id);
                let first = of_mut(&mut self.listed, kind).insert(id);
                *of_mut(&mut self.known_listed, kind) += usize::from(first && known);
                fresh += usize::from(again.unwrap_or(first));
            }
        }
        fresh
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

    /// Takes a principal that GET found although no list showed it.
    pub fn found(&mut self, kind: Kind, observed: Observed) {
        let id = self.read(kind, observed, true);
        of_mut(&mut self.found, kind).insert(id);
    }

    fn row(&mut self, kind: Kind, row: Row) -> Option<Id> {
        match row {
            Row::Same(raw) => {
                let id = self.known.table(kind).recognise(raw)?.clone();
                self.members_shown |= match self.strategy {
                    Strategy::List => kind == Kind::Group && self.known.members(&id).is_some(),
                    Strategy::User => kind == Kind::User && self.known.memberships_len() > 0,
                    _ => false,
                };
                // An earlier row of this sync showed other bytes: the newest stands.
                of_mut(&mut self.changed, kind).remove(&id);
                of_mut(&mut self.recognised, kind).remove(&id);
                match kind {
                    Kind::Group => drop(self.groups_read.remove(&id)),
                    Kind::User => drop(self.user_groups.remove(&id)),
                }
                self.gone.remove(&(kind, id.clone()));
                Some(id)
            }
            Row::Read(observed) => Some(self.read(kind, *observed, false)),
        }
    }

    /// `unlisted`: no list shows it, GET found it.
    fn read(&mut self, kind: Kind, observed: Observed, unlisted: bool) -> Id {
        let Observed { principal: mut new, raw, members, groups, observed_at, modified_at } = observed;
        // Our times never go backwards, whatever the clock did since the last sync.
        let observed_at = observed_at.max(self.rules.not_before);
        let id = new.id.clone();
        let entry = self.known.table(kind).get(&id);
        let old = entry.map(|entry| entry.packed.unpack(id.clone()));
        // Unknown never replaces a known value (design §4).
        new.active = new.active.or_else(|| old.as_ref().and_then(|old| old.active));
        let changed = self.compare(kind, old.as_ref(), &new, observed_at, modified_at);
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
            (Kind::Group, Strategy::List) => self.list_members(&id, members, observed_at, unlisted),
            (Kind::User, Strategy::User) => self.groups_of_user(&id, groups, observed_at),
            _ => {}
        }
        of_mut(&mut self.recognised, kind).insert(id.clone(), raw);
        id
    }

    fn keep(&mut self, kind: Kind, id: &Id, changed: Changed) {
        self.kept += changed.packed.len() + id.len();
        of_mut(&mut self.changed, kind).insert(id.clone(), changed);
    }

    /// `None` where nothing that is compared differs; `last_modified` alone never does.
    fn compare(
        &self,
        kind: Kind,
        old: Option<&Principal>,
        new: &Principal,
        observed_at: i64,
        modified_at: Option<i64>,
    ) -> Option<Changed> {
        let mut changed = Changed::silent(Packed::pack(new), observed_at);
        // The server's own time counts only inside the window in which the change must lie.
        let occurred_at =
            modified_at.filter(|at| *at <= observed_at && self.rules.window_start.is_some_and(|start| *at >= start));
        let mut event = |event_type, changes| {
            changed.events.push(Event { changes, occurred_at, ..Event::new(event_type) });
        };
        let Some(old) = old else {
            // A silent baseline makes no events; a hundred thousand of them would only be dropped again.
            if self.rules.first != Some(Baseline::State) && !self.rules.repair {
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
        let (before, after) = (old.compared(), new.compared());
        let paths: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        let mut changes: Vec<AttributeChange> = paths
            .into_iter()
            .filter(|path| before.get(path) != after.get(path) && self.makes_events(path))
            .map(|path| AttributeChange {
                attribute: path.to_owned(),
                old: before.get(path).cloned(),
                new: after.get(path).cloned(),
            })
            .collect();
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
        if self.rules.repair {
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
            bytes: Bytes {
                recognised: Vec::new(),
                unsettled: rereads.into_iter().map(|id| (Kind::Group, id)).collect(),
            },
            ..Changes::default()
        };
        let [users, groups] = std::mem::take(&mut self.changed);
        // Group records: added, then updated, silent rewrites of `dangling` among them.
        let mut dangling = plan.dangling;
        let mut group_units: Vec<Unit> = groups
            .into_iter()
            .map(|(id, changed)| {
                let list = dangling.remove(&id);
                self.put(Kind::Group, id, changed, list, vanishing)
            })
            .collect();
        for (id, list) in dangling {
            if let Some(entry) = self.known.table(Kind::Group).get(&id) {
                let (missing_since, missing_walks) = (entry.missing_since, entry.missing_walks);
                let silent = Changed { missing_since, missing_walks, ..Changed::silent(entry.packed.clone(), now) };
                group_units.push(self.put(Kind::Group, id, silent, Some(list), vanishing));
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
            changes.units.extend(gone.map(|((_, id), reason)| remove(kind, id.clone(), *reason, now)));
        }
        if self.rules.first == Some(Baseline::State) {
            for unit in &mut changes.units {
                unit.events.clear();
            }
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
            recognised.extend(read.into_iter().filter(|(id, _)| settled(kind, id)).map(|(id, raw)| (kind, id, raw)));
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
        let silent = changed.events.is_empty();
        Unit {
            observed_at: changed.observed_at,
            loses_attribute: changed.lost.iter().any(|path| vanishing.contains(path)),
            write: StateWrite::Put {
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
            events: changed.events,
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

fn remove(kind: Kind, id: Id, reason: RemovalReason, observed_at: i64) -> Unit {
    let event_type = EventType::removed(kind);
    let event = Event {
        removal_reason: Some(reason),
        cause: Some((event_type, StateKey::Principal(kind, id.clone()))),
        ..Event::new(event_type)
    };
    Unit { events: vec![event], write: StateWrite::Remove { kind, id }, observed_at, loses_attribute: false }
}
