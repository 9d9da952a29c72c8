//! The difference between what Kafka holds and what a sync observes, computed page by page: memory holds
//! known plus changes, never two snapshots.
//!
//! A [`Diff`] takes rows as the walks bring them, says what it needs asked (missing principals, members
//! that no list shows, groups that lost members), takes the answers, and ends as [`Changes`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Map, Set};

use super::changes::{AttributeChange, Bytes, Changes, Event, EventType, RemovalReason, StateWrite, Unit};
use super::entitlement::GroupPattern;
use super::guard::{Evidence, Losses};
use super::key::StateKey;
use super::known::Known;
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
    pub observed_at: i64,
    /// `meta.lastModified` corrected by the skew of the server's clock.
    pub modified_at: Option<i64>,
}

/// A member as a group lists it: the type is often not said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedMember {
    pub id: Id,
    pub kind: Option<Kind>,
    pub direct: Option<bool>,
}

/// What decides which differences are events.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The account has no completed sync yet: differences are its baseline, not news.
    pub first: Option<Baseline>,
    /// The list of the newest completed sync. Only attributes in both lists make events: a newly listed
    /// attribute is not a change of the person.
    pub previous_attributes: Option<AttributeList>,
    pub attributes: AttributeList,
    pub previous_pattern: Option<GroupPattern>,
    pub pattern: Option<GroupPattern>,
    /// The profile vouches that a group without members has none. Otherwise a directory that shows no
    /// member at all leaves memberships unknown.
    pub empty_members_are_none: bool,
    /// `started_at` of the last completed sync, milliseconds since 1970-01-01 UTC.
    pub window_start: Option<i64>,
    /// `started_at` of this sync: nothing is observed earlier, whatever the clock says.
    pub not_before: i64,
}

/// A principal that is new or differs from known.
struct Changed {
    packed: Packed,
    observed_at: i64,
    events: Vec<Event>,
    /// Attributes that it held and no longer holds.
    lost: Vec<String>,
    /// Since when no list shows it although GET finds it.
    missing_since: Option<i64>,
}

impl Changed {
    fn silent(packed: Packed, observed_at: i64) -> Changed {
        Changed { packed, observed_at, events: Vec::new(), lost: Vec::new(), missing_since: None }
    }
}

/// A group whose members this sync read.
pub(super) struct GroupRead {
    pub members: Vec<ListedMember>,
    pub observed_at: i64,
    /// What GET of the same group says: `None` not asked, `Some(None)` no answer that proves anything.
    pub confirmed: Option<Option<Vec<ListedMember>>>,
}

pub struct Diff<'k> {
    pub(super) known: &'k Known,
    pub(super) rules: Rules,
    /// Ids that the lists showed, and ids that GET found: [users, groups].
    listed: [Set<Id>; 2],
    /// Ids of the walk under way, where it is not the first of its kind.
    again: Option<Set<Id>>,
    found: [Set<Id>; 2],
    changed: [BTreeMap<Id, Changed>; 2],
    recognised: [Map<Id, RawHash>; 2],
    pub(super) groups_read: BTreeMap<Id, GroupRead>,
    pub(super) gone: BTreeMap<(Kind, Id), RemovalReason>,
    /// Members without a principal: GET was asked and says so, or is not offered.
    pub(super) nobody: Set<Id>,
    members_shown: bool,
}

fn of<T>(pair: &[T; 2], kind: Kind) -> &T {
    &pair[kind as usize]
}

fn of_mut<T>(pair: &mut [T; 2], kind: Kind) -> &mut T {
    &mut pair[kind as usize]
}

impl<'k> Diff<'k> {
    pub fn against(known: &'k Known, rules: Rules) -> Diff<'k> {
        Diff {
            known,
            rules,
            listed: Default::default(),
            again: None,
            found: Default::default(),
            changed: Default::default(),
            recognised: Default::default(),
            groups_read: BTreeMap::new(),
            gone: BTreeMap::new(),
            nobody: Set::default(),
            members_shown: false,
        }
    }

    /// True where a row with these bytes needs no parsing. A group whose dangling member has appeared
    /// is read again although its bytes are the same.
    pub fn recognises(&self, kind: Kind, raw: RawHash) -> bool {
        self.known.table(kind).recognise(raw).is_some_and(|id| kind == Kind::User || !self.dangling_appeared(id))
    }

    fn dangling_appeared(&self, group: &str) -> bool {
        self.known.dangling(group).iter().any(|id| Kind::BOTH.into_iter().any(|kind| self.appeared(kind, id)))
    }

    fn appeared(&self, kind: Kind, id: &Id) -> bool {
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
            if let Some(id) = self.row(kind, row) {
                let again = self.again.as_mut().map(|walked| walked.insert(id.clone()));
                let first = of_mut(&mut self.listed, kind).insert(id);
                fresh += usize::from(again.unwrap_or(first));
            }
        }
        fresh
    }

    /// Takes GET's word on a listed group whose dangling member appeared after the group was listed.
    pub fn reread(&mut self, observed: Observed) {
        if !observed.members.is_empty() {
            self.read(Kind::Group, observed, false);
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
                self.members_shown |= kind == Kind::Group && self.known.members(&id).is_some();
                // An earlier row of this sync showed other bytes: the newest stands.
                of_mut(&mut self.changed, kind).remove(&id);
                of_mut(&mut self.recognised, kind).remove(&id);
                if kind == Kind::Group {
                    self.groups_read.remove(&id);
                }
                self.gone.remove(&(kind, id.clone()));
                Some(id)
            }
            Row::Read(observed) => Some(self.read(kind, *observed, false)),
        }
    }

    /// `unlisted`: no list shows it, GET found it.
    fn read(&mut self, kind: Kind, observed: Observed, unlisted: bool) -> Id {
        let Observed { principal: mut new, raw, members, observed_at, modified_at } = observed;
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
            Some(changed) => {
                let changed = Changed { missing_since, ..changed };
                of_mut(&mut self.changed, kind).insert(id.clone(), changed);
            }
            None if rewrite => {
                let silent = Changed { missing_since, ..Changed::silent(Packed::pack(&new), observed_at) };
                of_mut(&mut self.changed, kind).insert(id.clone(), silent);
            }
            None => drop(of_mut(&mut self.changed, kind).remove(&id)),
        }
        // Whatever an earlier answer said: it is there now.
        self.gone.remove(&(kind, id.clone()));
        if kind == Kind::Group {
            self.members_shown |= !members.is_empty();
            // Some servers show members in lists but none in a GET: an empty GET alone ends no membership.
            let confirmed = (unlisted && members.is_empty()).then_some(None);
            self.groups_read.insert(id.clone(), GroupRead { members, observed_at, confirmed });
        }
        of_mut(&mut self.recognised, kind).insert(id.clone(), raw);
        id
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
            if self.rules.first != Some(Baseline::State) {
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

    /// Distinct ids that the lists showed.
    pub fn listed(&self, kind: Kind) -> usize {
        of(&self.listed, kind).len()
    }

    /// An id that the list showed: the control of a proof. Deterministic.
    pub fn a_listed_id(&self, kind: Kind) -> Option<Id> {
        of(&self.listed, kind).iter().min().cloned()
    }

    /// Known ids that GET answered in this sync, alive or gone, though no list showed them.
    pub fn answered(&self, kind: Kind) -> usize {
        let listed = of(&self.listed, kind);
        let alive = of(&self.found, kind)
            .iter()
            .filter(|id| !listed.contains(*id) && self.known.table(kind).contains(id))
            .count();
        let gone =
            self.gone.iter().filter(|((of, _), reason)| *of == kind && **reason == RemovalReason::NotFound).count();
        alive + gone
    }

    /// Known principals that neither a list showed nor an answer settled, sorted.
    pub fn missing(&self, kind: Kind) -> Vec<Id> {
        let mut missing: Vec<Id> = self
            .known
            .table(kind)
            .ids()
            .filter(|id| !self.appeared(kind, id) && !self.gone.contains_key(&(kind, (*id).clone())))
            .cloned()
            .collect();
        missing.sort_unstable();
        missing
    }

    /// As [`Diff::missing`], without those known as hidden: they count as seen until a GET says otherwise.
    pub fn missing_unexpectedly(&self, kind: Kind) -> Vec<Id> {
        let hidden = |id: &Id| self.known.table(kind).get(id).is_some_and(|entry| entry.missing_since.is_some());
        self.missing(kind).into_iter().filter(|id| !hidden(id)).collect()
    }

    /// Members that no list shows and nobody knows: published only if GET finds them. Members already
    /// known as dangling are not asked again here.
    pub fn unlisted_members(&self) -> Vec<ListedMember> {
        let unknown = |group: &Id, member: &ListedMember| {
            memberships::resolve(self, member).is_none()
                && self.known.dangling(group).binary_search(&member.id).is_err()
                && Kind::BOTH.into_iter().all(|kind| !self.gone.contains_key(&(kind, member.id.clone())))
        };
        let unlisted: BTreeSet<&ListedMember> = self
            .groups_read
            .iter()
            .flat_map(|(group, read)| read.members.iter().filter(move |member| unknown(group, member)))
            .collect();
        unlisted.into_iter().cloned().collect()
    }

    /// Groups not read in this sync one of whose dangling members has appeared since: to be read by GET.
    pub fn rereads(&self) -> Vec<Id> {
        let unread = |group: &Id| {
            self.appeared(Kind::Group, group) && !self.groups_read.contains_key(group) && self.dangling_appeared(group)
        };
        let mut groups: Vec<Id> =
            self.known.groups_with_dangling().map(|(group, _)| group).filter(|group| unread(group)).cloned().collect();
        groups.sort_unstable();
        groups
    }

    /// Groups that lost members by the list alone: GET of the group has to agree.
    pub fn groups_that_lost_members(&self) -> Vec<Id> {
        if !self.memberships_are_known() {
            return Vec::new();
        }
        self.groups_read
            .iter()
            .filter(|(group, read)| read.confirmed.is_none() && !memberships::lost(self, group, read).is_empty())
            .map(|(group, _)| group.clone())
            .collect()
    }

    /// Takes the answer that no principal has this id, so that its members dangle.
    pub fn nobody(&mut self, id: Id) {
        self.nobody.insert(id);
    }

    /// Takes GET's word on a group that lost members; `None`: no answer that proves anything.
    pub fn confirm_group(&mut self, group: &Id, members: Option<Vec<ListedMember>>) {
        if let Some(read) = self.groups_read.get_mut(group) {
            read.confirmed = Some(members);
        }
    }

    /// Takes the proof that a missing principal is gone.
    pub fn gone(&mut self, kind: Kind, id: Id, reason: RemovalReason) {
        self.gone.insert((kind, id), reason);
    }

    /// True where the principal can be a member: seen in this sync, or known and not proven gone.
    pub(super) fn exists(&self, kind: Kind, id: &Id) -> bool {
        self.appeared(kind, id) || (self.known.table(kind).contains(id) && !self.gone.contains_key(&(kind, id.clone())))
    }

    /// An empty `members` of a server not known to return them is unknown, not none.
    pub fn memberships_are_known(&self) -> bool {
        let no_groups = of(&self.listed, Kind::Group).is_empty() && self.known.table(Kind::Group).is_empty();
        self.rules.empty_members_are_none || self.members_shown || no_groups
    }

    /// What the guard looks at, with everything missing taken for lost.
    pub fn evidence(&self) -> Evidence {
        let known = self.known;
        let [missing_users, missing_groups] = Kind::BOTH.map(|kind| self.missing_unexpectedly(kind));
        let gone = |kind| self.gone.keys().filter(|(of, _)| *of == kind).count();
        let lost = |kind, missing: &[Id]| (missing.len() + gone(kind)) as u64;
        let missing: HashSet<(Kind, &Id)> = missing_users
            .iter()
            .map(|id| (Kind::User, id))
            .chain(missing_groups.iter().map(|id| (Kind::Group, id)))
            .collect();
        let memberships = if self.memberships_are_known() {
            self.groups_read
                .iter()
                .map(|(group, read)| {
                    let lost = memberships::lost(self, group, read).into_iter();
                    let lost = lost.filter(|member| memberships::agreed(self, read, member));
                    lost.filter(|member| !missing.contains(&(member.kind, &member.id))).count()
                })
                .sum::<usize>() as u64
        } else {
            0
        };
        let disabled = of(&self.changed, Kind::User)
            .values()
            .flat_map(|changed| &changed.events)
            .filter(|event| event.event_type == EventType::UserDisabled)
            .count() as u64;
        let losses = Losses {
            users: lost(Kind::User, &missing_users),
            groups: lost(Kind::Group, &missing_groups),
            memberships,
            disabled,
            attributes: 0,
        };
        let none_again =
            |kind: Kind, lost: u64| !known.table(kind).is_empty() && lost == known.table(kind).len() as u64;
        Evidence {
            losses,
            users: known.table(Kind::User).len() as u64,
            groups: known.table(Kind::Group).len() as u64,
            memberships: known.memberships_len() as u64,
            enabled_users: self.enabled_users(disabled),
            no_user_again: none_again(Kind::User, losses.users),
            no_group_again: none_again(Kind::Group, losses.groups),
            ..Evidence::default()
        }
    }

    /// Known users that are not disabled; counted only where a disable makes it matter.
    fn enabled_users(&self, disabled: u64) -> u64 {
        let users = self.known.table(Kind::User);
        if disabled == 0 {
            return users.len() as u64;
        }
        users.iter().filter(|(id, entry)| entry.packed.unpack((*id).clone()).active != Some(false)).count() as u64
    }

    /// Adds to `evidence` which attributes vanish, given that fewer than `min_losses` losers never matter.
    /// Returns the paths for which `vanishes(losing, holding)` holds.
    pub fn vanishing(
        &self,
        min_losses: u64,
        vanishes: impl Fn(u64, u64) -> bool,
        evidence: &mut Evidence,
    ) -> BTreeSet<String> {
        let mut losers: HashMap<(Kind, &str), u64> = HashMap::new();
        for kind in Kind::BOTH {
            for path in of(&self.changed, kind).values().flat_map(|changed| &changed.lost) {
                *losers.entry((kind, path)).or_default() += 1;
            }
        }
        let mut vanishing = BTreeSet::new();
        for ((kind, path), losing) in losers.into_iter().filter(|(_, losing)| *losing >= min_losses.max(1)) {
            let holds = |(id, entry): &(&Id, &super::known::Entry)| {
                entry.packed.unpack((*id).clone()).compared().contains_key(path)
            };
            let holding = self.known.table(kind).iter().filter(holds).count() as u64;
            evidence.vanishing.push((losing, holding));
            if vanishes(losing, holding) {
                vanishing.insert(path.to_owned());
            }
        }
        let loses = |changed: &&Changed| changed.lost.iter().any(|path| vanishing.contains(path));
        evidence.attribute_losers =
            Kind::BOTH.iter().map(|kind| of(&self.changed, *kind).values().filter(loses).count() as u64).sum();
        vanishing
    }

    /// All that differs, in publishable order. `vanishing`: the attributes whose loss the guard counts.
    /// `now`: milliseconds since 1970-01-01 UTC, when the last answer came.
    pub fn finish(mut self, vanishing: &BTreeSet<String>, now: i64) -> Changes {
        let memberships_known = self.memberships_are_known();
        // A re-read that found no answer: the group is parsed again next time.
        let unsettled = self.rereads();
        let plan = memberships::plan(&self, now);
        let mut changes = Changes {
            acquisition: self.known.acquisition,
            users_read: self.read_count(Kind::User),
            groups_read: self.read_count(Kind::Group),
            memberships_read: memberships_known.then_some(plan.count as i64),
            removals_suppressed: Kind::BOTH.iter().map(|kind| self.missing(*kind).len() as i64).sum(),
            hidden: Kind::BOTH.iter().map(|kind| self.hidden(*kind)).sum(),
            dangling: plan.dangling_total as i64,
            bytes: Bytes { recognised: Vec::new(), unsettled },
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
                let missing_since = entry.missing_since;
                let silent = Changed { missing_since, ..Changed::silent(entry.packed.clone(), now) };
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
        for kind in Kind::BOTH {
            let gone = self.gone.iter().filter(|((of, _), _)| *of == kind);
            changes.units.extend(gone.map(|((_, id), reason)| remove(kind, id.clone(), *reason, now)));
        }
        if self.rules.first == Some(Baseline::State) {
            for unit in &mut changes.units {
                unit.events.clear();
            }
        }
        let settled = |kind: Kind, id: &Id| kind == Kind::User || (memberships_known && !plan.unsettled.contains(id));
        for kind in Kind::BOTH {
            let read = std::mem::take(of_mut(&mut self.recognised, kind));
            changes
                .bytes
                .recognised
                .extend(read.into_iter().filter(|(id, _)| settled(kind, id)).map(|(id, raw)| (kind, id, raw)));
        }
        changes
    }

    fn read_count(&self, kind: Kind) -> i64 {
        of(&self.listed, kind).union(of(&self.found, kind)).count() as i64
    }

    fn hidden(&self, kind: Kind) -> i64 {
        of(&self.found, kind).difference(of(&self.listed, kind)).count() as i64
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
                missing_walks: 0,
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
        known.chain(self.groups_read.keys()).filter(|id| self.exists(Kind::Group, id)).collect()
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
