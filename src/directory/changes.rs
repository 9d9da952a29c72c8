//! Changes: what a sync publishes, as units that are never split over transactions.

use std::borrow::Cow;

use super::guard::Losses;
use super::key::StateKey;
use super::packed::PackedPrincipal;
use super::principal::{AttributeChange, Id, Kind, Member, RawHash};
use super::strategy::Strategy;

/// The ten event types (`schemas/README.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    UserAdded,
    UserUpdated,
    UserDisabled,
    UserEnabled,
    UserRemoved,
    GroupAdded,
    GroupUpdated,
    GroupRemoved,
    MembershipAdded,
    MembershipRemoved,
}

impl EventType {
    pub const ALL: [EventType; 10] = [
        EventType::UserAdded,
        EventType::UserUpdated,
        EventType::UserDisabled,
        EventType::UserEnabled,
        EventType::UserRemoved,
        EventType::GroupAdded,
        EventType::GroupUpdated,
        EventType::GroupRemoved,
        EventType::MembershipAdded,
        EventType::MembershipRemoved,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EventType::UserAdded => "user.added",
            EventType::UserUpdated => "user.updated",
            EventType::UserDisabled => "user.disabled",
            EventType::UserEnabled => "user.enabled",
            EventType::UserRemoved => "user.removed",
            EventType::GroupAdded => "group.added",
            EventType::GroupUpdated => "group.updated",
            EventType::GroupRemoved => "group.removed",
            EventType::MembershipAdded => "membership.added",
            EventType::MembershipRemoved => "membership.removed",
        }
    }

    /// True if a principal or a membership is there that was not.
    pub fn is_added(self) -> bool {
        matches!(self, EventType::UserAdded | EventType::GroupAdded | EventType::MembershipAdded)
    }

    pub fn added(kind: Kind) -> EventType {
        match kind {
            Kind::User => EventType::UserAdded,
            Kind::Group => EventType::GroupAdded,
        }
    }

    pub fn updated(kind: Kind) -> EventType {
        match kind {
            Kind::User => EventType::UserUpdated,
            Kind::Group => EventType::GroupUpdated,
        }
    }

    pub fn removed(kind: Kind) -> EventType {
        match kind {
            Kind::User => EventType::UserRemoved,
            Kind::Group => EventType::GroupRemoved,
        }
    }
}

/// How a removal is known: the published field `removal_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// GET said 404 or 410.
    NotFound,
    /// Missing from as many complete walks as the rule asks for.
    Absent,
    /// A membership that its completely read group no longer shows.
    NotListed,
}

impl RemovalReason {
    pub fn as_str(self) -> &'static str {
        match self {
            RemovalReason::NotFound => "not_found",
            RemovalReason::Absent => "absent",
            RemovalReason::NotListed => "not_listed",
        }
    }
}

/// One event to publish. Its numbers, ids and images are added when it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub event_type: EventType,
    pub changes: Vec<AttributeChange>,
    pub removal_reason: Option<RemovalReason>,
    /// The removal that this event belongs to, itself included.
    pub cause: Option<(EventType, StateKey)>,
    /// Names of the member and group of a membership event.
    pub principal_name: Option<String>,
    pub group_name: Option<String>,
    /// Milliseconds since 1970-01-01 UTC; only where the server says so.
    pub occurred_at: Option<i64>,
}

impl Event {
    pub fn new(event_type: EventType) -> Event {
        Event {
            event_type,
            changes: Vec::new(),
            removal_reason: None,
            cause: None,
            principal_name: None,
            group_name: None,
            occurred_at: None,
        }
    }
}

/// One write to a compacted topic. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateWrite {
    /// Boxed, because it is three times as large as the others, and there are many more of those.
    Put(Box<Put>),
    Remove {
        kind: Kind,
        id: Id,
    },
    PutMembership {
        group: Id,
        member: Member,
        direct: Option<bool>,
        first_seen_at: i64,
    },
    RemoveMembership {
        group: Id,
        member: Member,
    },
}

/// The new record of a principal. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub kind: Kind,
    pub id: Id,
    pub packed: PackedPrincipal,
    /// Groups only: the new list; `None` leaves it as it is.
    pub dangling: Option<Vec<Id>>,
    pub first_seen_at: i64,
    pub changed_at: i64,
    pub missing_since: Option<i64>,
    pub missing_walks: u32,
    /// Groups only: no completed sync has read its members.
    pub members_unread: bool,
}

impl StateWrite {
    pub fn key(&self) -> StateKey {
        match self {
            StateWrite::Put(put) => StateKey::Principal(put.kind, put.id.clone()),
            StateWrite::Remove { kind, id } => StateKey::Principal(*kind, id.clone()),
            StateWrite::PutMembership { group, member, .. } | StateWrite::RemoveMembership { group, member } => {
                StateKey::Membership { member: member.clone(), group: group.clone() }
            }
        }
    }
}

/// What becomes of one state key: events, and the state they lead to. It is published in one transaction, never split.
/// Without events it is a silent rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    pub events: Vec<Event>,
    pub write: StateWrite,
    /// When the sync read it, milliseconds since 1970-01-01 UTC.
    pub observed_at: i64,
    /// True where this unit takes a value of a vanishing attribute away.
    pub loses_attribute: bool,
    /// Its events are part of a first read: known, not new.
    pub snapshot: bool,
}

impl KeyChange {
    /// What the unit takes away, in the guard's counts.
    pub fn losses(&self) -> Losses {
        let mut losses = Losses { attributes: u64::from(self.loses_attribute), ..Losses::default() };
        for event in &self.events {
            match event.event_type {
                EventType::UserRemoved => losses.users += 1,
                EventType::GroupRemoved => losses.groups += 1,
                EventType::MembershipRemoved if event.cause.is_none() => losses.memberships += 1,
                EventType::UserDisabled => losses.disabled += 1,
                added if added.is_added() && !self.snapshot => losses.added += 1,
                _ => {}
            }
        }
        losses
    }
}

/// Memberships that one group gains, before each of them is a unit: of those a first load has three times as many as
/// principals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gained {
    pub group: Id,
    /// With `direct`, as the group says it.
    pub members: Vec<(Member, Option<bool>)>,
    /// `None`: no events are published of them.
    pub names: Option<GainedNames>,
    /// When the sync read the group, milliseconds since 1970-01-01 UTC.
    pub observed_at: i64,
    pub snapshot: bool,
}

/// The names that the events of [`Gained`] state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GainedNames {
    pub group: Option<String>,
    /// One for each member.
    pub members: Vec<Option<String>>,
}

impl Gained {
    fn into_units(self) -> impl ExactSizeIterator<Item = KeyChange> {
        let Gained { group, members, names, observed_at, snapshot } = self;
        let (group_name, mut names) =
            names.map_or((None, None), |names| (names.group, Some(names.members.into_iter())));
        members.into_iter().map(move |(member, direct)| {
            let event = names.as_mut().map(|names| Event {
                principal_name: names.next().flatten(),
                group_name: group_name.clone(),
                ..Event::new(EventType::MembershipAdded)
            });
            KeyChange {
                events: event.into_iter().collect(),
                write: StateWrite::PutMembership { group: group.clone(), member, direct, first_seen_at: observed_at },
                observed_at,
                loses_attribute: false,
                snapshot,
            }
        })
    }
}

/// Units in publishable order, in pieces: a first load has millions of them, and a vector that grows copies them all,
/// again and again. A piece is freed when its last unit was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Units(Vec<KeyChange>),
    Gained(Gained),
}

/// Units of one piece.
const PIECE: usize = 4_096;

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Units(units) => units.len(),
            Piece::Gained(gained) => gained.members.len(),
        }
    }

    fn into_units(self) -> Box<dyn ExactSizeIterator<Item = KeyChange> + Send + Sync> {
        match self {
            Piece::Units(units) => Box::new(units.into_iter()),
            Piece::Gained(gained) => Box::new(gained.into_units()),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Cow<'_, KeyChange>> + '_> {
        match self {
            Piece::Units(units) => Box::new(units.iter().map(Cow::Borrowed)),
            Piece::Gained(gained) => Box::new(gained.clone().into_units().map(Cow::Owned)),
        }
    }
}

impl Units {
    pub fn push(&mut self, unit: KeyChange) {
        match self.0.last_mut() {
            Some(Piece::Units(piece)) if piece.len() < piece.capacity() => piece.push(unit),
            _ => {
                // A sync with few changes needs no room for many.
                let mut piece = Vec::with_capacity(if self.0.is_empty() { PIECE / 64 } else { PIECE });
                piece.push(unit);
                self.0.push(Piece::Units(piece));
            }
        }
    }

    pub fn gain(&mut self, gained: Gained) {
        if !gained.members.is_empty() {
            self.0.push(Piece::Gained(gained));
        }
    }

    /// Puts all of `others` behind these.
    pub fn append(&mut self, others: Units) {
        self.0.extend(others.0);
    }

    pub fn iter(&self) -> impl Iterator<Item = Cow<'_, KeyChange>> {
        self.0.iter().flat_map(Piece::iter)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(Piece::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Extend<KeyChange> for Units {
    fn extend<T: IntoIterator<Item = KeyChange>>(&mut self, units: T) {
        units.into_iter().for_each(|unit| self.push(unit));
    }
}

impl FromIterator<KeyChange> for Units {
    fn from_iter<T: IntoIterator<Item = KeyChange>>(units: T) -> Units {
        let mut all = Units::default();
        all.extend(units);
        all
    }
}

impl IntoIterator for Units {
    type Item = KeyChange;
    type IntoIter = IntoUnits;

    fn into_iter(self) -> IntoUnits {
        IntoUnits { pieces: self.0.into_iter(), piece: Box::new(std::iter::empty()) }
    }
}

/// Takes [`Units`] one by one.
pub struct IntoUnits {
    pieces: std::vec::IntoIter<Piece>,
    /// What is left of the piece under way.
    piece: Box<dyn ExactSizeIterator<Item = KeyChange> + Send + Sync>,
}

impl Iterator for IntoUnits {
    type Item = KeyChange;

    fn next(&mut self) -> Option<KeyChange> {
        loop {
            if let Some(unit) = self.piece.next() {
                return Some(unit);
            }
            self.piece = self.pieces.next()?.into_units();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.piece.len() + self.pieces.as_slice().iter().map(Piece::len).sum::<usize>();
        (left, Some(left))
    }
}

/// What a completed sync learns about the bytes of resources, once all its units are committed.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    /// These may be recognised from now on.
    pub recognised: Vec<(Kind, Id, RawHash)>,
    /// To be read again although their bytes are the same.
    pub unsettled: Vec<(Kind, Id)>,
}

/// All that a sync found, in publishable order.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Acquisition of the known state they were computed against.
    pub acquisition: u64,
    pub units: Units,
    pub bytes: Bytes,
    /// `None`: only modifications were read.
    pub users_read: Option<i64>,
    /// `None`: likewise, or this directory serves no groups.
    pub groups_read: Option<i64>,
    /// `None`: memberships were not read.
    pub memberships_read: Option<i64>,
    pub dangling: i64,
    pub removals_suppressed: i64,
    /// Principals that no list showed but GET found.
    pub hidden: i64,
    /// Memberships that exist after this sync, whether or not all of them were read.
    pub memberships: i64,
    /// By which strategy this sync saw a member; `None`: it saw none.
    pub members_seen_by: Option<Strategy>,
    /// How this sync read memberships.
    pub strategy: Strategy,
    /// Members that are neither users nor groups.
    pub others: usize,
    /// Memberships were read, though perhaps not those of every group.
    pub memberships_are_known: bool,
}
