//! A resource as a sync reads it.

use super::principal::{Id, Kind, Principal, RawHash};

/// One row of a walk, or of a GET that found a principal the walk missed.
#[derive(Clone, Debug)]
pub enum Row {
    /// These bytes are recognised, as those of the principal: nothing changed.
    Same(RawHash, Id),
    Read(Box<Observed>),
    /// It has no usable id, so that it may be the row of any principal of its kind: none of them can be called missing.
    NoId,
    /// It is there, and is not one of those that the account reads.
    Aside(Id),
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
    pub(super) fn is_unreadable(&self, attribute: &str) -> bool {
        match &self.readable {
            Readable::Whole => false,
            Readable::Without(names) => names.iter().any(|name| name == attribute),
            Readable::IdOnly => true,
        }
    }
}

/// A member as a group lists it: the type is often not said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedMember {
    pub id: Id,
    pub kind: Option<Kind>,
    pub direct: Option<bool>,
}

/// A group as a user lists it: some servers say only its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedGroup {
    pub id: Option<Id>,
    pub name: Option<String>,
    pub direct: Option<bool>,
}

/// Of two statements on one membership: direct is direct whatever else is said; then what is not stated is not known.
pub(super) fn directer(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (None, _) | (_, None) => None,
        _ => Some(false),
    }
}
