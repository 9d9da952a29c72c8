//! What a sync has seen so far, beside what is known: of each kind, of memberships, and of `active`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Index, IndexMut};
use std::sync::OnceLock;

use super::compare::Changed;
use crate::directory::changes::RemovalReason;
use crate::directory::known::Known;
use crate::directory::maps::{Map, Set};
use crate::directory::observed::{ListedGroup, ListedMember};
use crate::directory::packed::Packed;
use crate::directory::principal::{Id, Kind, Principal, RawHash};
use crate::directory::rules::Rules;
use crate::directory::strategy::Strategy;

/// About what a changed principal takes beside its attributes: its places in maps and sets, its counters.
const CHANGED_BYTES: usize = 256;

/// About what one member takes that was read and not yet published.
const MEMBER_BYTES: usize = 64;

/// What a difference is taken to.
pub(super) enum Base<'k> {
    Fixed(&'k Known),
    /// A first sync writes the users that it has read while it reads on, and known follows.
    Growing(&'k mut Known),
}

impl Deref for Base<'_> {
    type Target = Known;

    fn deref(&self) -> &Known {
        match self {
            Base::Fixed(known) => known,
            Base::Growing(known) => known,
        }
    }
}

/// The difference between what is known and what a sync sees. `diff[kind]` is what it has seen of one kind.
pub struct Diff<'k> {
    pub(super) known: Base<'k>,
    pub(super) rules: Rules,
    kinds: [Sightings; 2],
    pub(super) reads: MembershipReads,
    pub(super) active: ActiveReads,
    /// Bytes that the changed principals and the members read take.
    kept: usize,
    /// Some user and some group have the same id.
    pub(super) ids_are_shared: bool,
}

/// What a sync has seen of users, or of groups.
#[derive(Default)]
pub struct Sightings {
    /// Ids that the lists showed.
    pub(super) listed: Set<Id>,
    /// How many of the listed ids are known.
    pub(super) known_listed: usize,
    /// Known ids that are not listed, once they are asked for. Void with every row and every commit.
    pub(super) known_unlisted: OnceLock<Vec<Id>>,
    /// Ids of the walk under way, where it is not the first of its kind.
    pub(super) again: Option<Set<Id>>,
    /// Ids that GET found.
    pub(super) found: Set<Id>,
    pub(super) changed: BTreeMap<Id, Changed>,
    /// The bytes of the newest row of each id, where all of it was read.
    pub(super) recognised: Map<Id, RawHash>,
    /// Not everything of the kind is read: a principal that is not listed stays as known.
    pub(super) unread: bool,
    /// GET is not available for this kind, so that absence is the rule.
    pub(super) absence: bool,
    /// Rows of the walk under way without a usable id: while there are some, no principal of the kind can be missing.
    pub(super) no_id: usize,
    /// Rows with an id that is new, and nothing else that can be read: they are there, but cannot be published.
    pub(super) unread_rows: Set<Id>,
    /// Ids of the walk under way that the account does not read: they are there.
    pub(super) aside: Set<Id>,
    /// Several rows of one walk said different things, or a row was not read in full: its bytes must not be recognised.
    pub(super) doubled: BTreeSet<Id>,
    /// Proven gone.
    pub(super) gone: BTreeMap<Id, RemovalReason>,
}

/// What a sync has read about memberships, by whichever strategy the directory allows.
///
/// Groups tell their members (in the list, by GET, by a filter), or users their groups (on the user, by a filter).
/// Both end as a [`GroupRead`]: a whole one speaks of all members of its group, a partial one only of the users whose
/// groups were read.
#[derive(Default)]
pub(super) struct MembershipReads {
    pub strategy: Strategy,
    /// Some answer showed a member.
    pub shown: bool,
    pub of_groups: BTreeMap<Id, GroupRead>,
    pub of_users: BTreeMap<Id, UserGroups>,
    /// Groups whose members could not be read in this sync.
    pub failed: Set<Id>,
    /// Memberships of some groups or users could not be read: those stay as they were.
    pub partly_unread: bool,
    /// To be read again although their bytes are the same.
    pub unsettled: BTreeSet<(Kind, Id)>,
    /// Members without a principal: GET was asked and says so, or is not offered.
    pub without_principal: Set<Id>,
    /// Members that no list shows and no GET can find, published because the profile says that lists are not complete.
    pub accepted: Set<Id>,
    /// How many members are neither users nor groups.
    pub others: usize,
}

/// A group whose members this sync read.
pub(super) struct GroupRead {
    pub members: Vec<ListedMember>,
    pub observed_at: i64,
    pub confirmation: Confirmation,
    /// Speaks only of the users in [`MembershipReads::of_users`].
    pub partial: bool,
}

/// What GET of a group says about members that a list no longer shows.
pub(super) enum Confirmation {
    NotAsked,
    /// No answer that proves anything.
    Unproven,
    /// Those of the lost members that GET still shows.
    Shows(Vec<ListedMember>),
}

/// A user whose groups this sync read completely.
pub(super) struct UserGroups {
    pub groups: Vec<ListedGroup>,
    pub observed_at: i64,
}

/// Users and their `active`.
#[derive(Default)]
pub(super) struct ActiveReads {
    /// Had `active`, and are listed without it.
    pub lost: Set<Id>,
    /// Their newest row states no `active`, where one was known.
    pub unstated: Set<Id>,
    /// Rows of one walk contradict each other: it is unknown.
    pub contradicted: Set<Id>,
}

impl Index<Kind> for Diff<'_> {
    type Output = Sightings;

    fn index(&self, kind: Kind) -> &Sightings {
        &self.kinds[kind as usize]
    }
}

impl IndexMut<Kind> for Diff<'_> {
    fn index_mut(&mut self, kind: Kind) -> &mut Sightings {
        &mut self.kinds[kind as usize]
    }
}

impl<'k> Diff<'k> {
    pub fn against(known: &'k Known, rules: Rules) -> Diff<'k> {
        Diff::to(Base::Fixed(known), rules)
    }

    /// As [`Diff::against`], for a first sync that writes what [`Diff::drain_users`] returns. No principal may be known.
    pub fn growing(known: &'k mut Known, rules: Rules) -> Diff<'k> {
        Diff::to(Base::Growing(known), rules)
    }

    fn to(known: Base<'k>, rules: Rules) -> Diff<'k> {
        let ids_are_shared = known.table(Kind::Group).ids().any(|id| known.table(Kind::User).contains(id));
        Diff {
            ids_are_shared,
            known,
            rules,
            kinds: Default::default(),
            reads: MembershipReads::default(),
            active: ActiveReads::default(),
            kept: 0,
        }
    }

    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Lets known follow a commit of what [`Diff::drain_users`] returned, before the next row is taken: a row that comes
    /// again is compared with what was written.
    pub fn follow(&mut self, apply: impl FnOnce(&mut Known)) {
        let Base::Growing(known) = &mut self.known else { return };
        apply(known);
        // Whatever of it is known was listed first.
        self[Kind::User].known_listed = self.known.table(Kind::User).len();
        self[Kind::User].known_unlisted.take();
    }

    /// How many users [`Diff::drain_users`] would return.
    pub fn changed_users(&self) -> usize {
        self[Kind::User].changed.len()
    }

    pub fn strategy(&self) -> Strategy {
        self.reads.strategy
    }

    /// True if any answer of this sync showed a member.
    pub fn shows_members(&self) -> bool {
        self.reads.shown
    }

    /// Not everything of the kind is read: nothing of it is missing.
    pub fn mark_unread(&mut self, kind: Kind) {
        self[kind].unread = true;
    }

    /// Bytes that the changed principals take, those that were drained included, for the walk to bound.
    pub fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Whose row it is if its bytes need no parsing. A group whose dangling member has appeared
    /// is read again although its bytes are the same.
    pub fn recognise(&self, kind: Kind, raw: RawHash) -> Option<&Id> {
        let table = self.known.table(kind);
        let id = table.recognise(raw)?;
        let settled = kind == Kind::User || self.reads.strategy != Strategy::List || !self.dangling_appeared(id);
        settled.then_some(id)
    }

    pub(super) fn dangling_appeared(&self, group: &str) -> bool {
        self.known.dangling(group).iter().any(|id| Kind::BOTH.into_iter().any(|kind| self.appeared(kind, id)))
    }

    pub(super) fn appeared(&self, kind: Kind, id: &Id) -> bool {
        self[kind].listed.contains(id) || self[kind].found.contains(id)
    }

    /// Users of whom rows of one walk say both that they are active and that they are not.
    pub fn contradictory(&self) -> usize {
        self.active.contradicted.len()
    }

    /// Rows of which nothing can be published: without a usable id, new and with nothing but an id, or not read.
    pub fn unpublishable(&self, kind: Kind) -> usize {
        self[kind].no_id + self[kind].unread_rows.len() + self[kind].aside.len()
    }

    /// Users who had `active` and are listed without it.
    pub fn without_known_active(&self) -> usize {
        self.active.lost.len()
    }

    /// Members that are neither users nor groups, of the groups that were parsed.
    pub fn other_members(&self) -> usize {
        self.reads.others
    }

    /// True where the principal can be a member: seen in this sync, or known and not proven gone.
    pub(super) fn exists(&self, kind: Kind, id: &Id) -> bool {
        self.appeared(kind, id) || (self.known.table(kind).contains(id) && !self[kind].gone.contains_key(id))
    }

    /// A principal as just read, else as known.
    pub(super) fn packed(&self, kind: Kind, id: &Id) -> Option<Packed<'_>> {
        let read = self[kind].changed.get(id).map(|changed| changed.packed.borrowed());
        read.or_else(|| self.known.table(kind).get(id).map(|entry| entry.packed))
    }

    /// As [`Diff::packed`], unpacked.
    pub(super) fn principal(&self, kind: Kind, id: &Id) -> Option<Principal> {
        self.packed(kind, id).map(|packed| packed.unpack(id.clone()))
    }

    /// Groups that exist after this sync.
    pub(super) fn groups(&self) -> BTreeSet<&Id> {
        let known = self.known.table(Kind::Group).ids();
        known.chain(self[Kind::Group].changed.keys()).filter(|id| self.exists(Kind::Group, id)).collect()
    }

    /// Principals that this sync saw, sorted.
    pub fn seen(&self, kind: Kind) -> Vec<Id> {
        let mut seen: Vec<Id> = self[kind].listed.union(&self[kind].found).cloned().collect();
        seen.sort_unstable();
        seen
    }

    /// An empty `members` of a server not known to return them is unknown, not none. Where there are no groups there
    /// are no members either.
    pub fn memberships_are_known(&self) -> bool {
        let no_groups = self[Kind::Group].listed.is_empty() && self.known.table(Kind::Group).is_empty();
        self.memberships_are_shown() || (self.reads.strategy != Strategy::Never && no_groups)
    }

    /// This directory shows members: in this sync, in an earlier one by the same strategy, or by the profile's word.
    pub(super) fn memberships_are_shown(&self) -> bool {
        let shown = self.rules.empty_members_are_none || self.reads.shown || self.rules.shown_before;
        self.reads.strategy != Strategy::Never && shown
    }

    /// Counts members that are kept until the sync is published.
    pub(super) fn keep_members(&mut self, count: usize) {
        self.kept += count * MEMBER_BYTES;
    }

    pub(super) fn keep(&mut self, kind: Kind, id: &Id, changed: Changed) {
        self.kept += changed.packed.borrowed().bytes().len() + id.len() + CHANGED_BYTES;
        self[kind].changed.insert(id.clone(), changed);
    }
}

impl GroupRead {
    pub fn partial(observed_at: i64) -> GroupRead {
        GroupRead { members: Vec::new(), observed_at, confirmation: Confirmation::NotAsked, partial: true }
    }
}
