//! The state records of principals and memberships as a restore takes them: read from their bytes, or by apache-avro.

use std::borrow::Cow;

use super::datum::Datum;
use super::wire::{GroupState, MembershipState, UserState};
use crate::directory::packed::Fields;
use crate::directory::{Id, Kind, PackedPrincipal, Principal};

/// A record of `users` or `groups`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPrincipal<'a> {
    pub id: Cow<'a, str>,
    pub packed: PackedPrincipal,
    pub first_seen_at: i64,
    pub changed_at: i64,
    pub sequence: i64,
    pub sync: i64,
    pub missing_since: Option<i64>,
    pub missing_walks: i64,
    /// Groups only, as the next field.
    pub dangling: Vec<Id>,
    pub members_unread: bool,
}

/// A record of `memberships`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMembership<'a> {
    /// `None`: the record names neither.
    pub kind: Option<Kind>,
    pub principal_id: Cow<'a, str>,
    pub group_id: Cow<'a, str>,
    pub direct: Option<bool>,
    pub first_seen_at: i64,
    pub sequence: i64,
    pub sync: i64,
}

impl<'a> StoredPrincipal<'a> {
    /// `None`: the bytes have another form than scimtail gives them.
    pub(super) fn read(kind: Kind, datum: &'a [u8]) -> Option<StoredPrincipal<'a>> {
        let mut datum = Datum(datum);
        let (_account, _provider, id) = (datum.text()?, datum.text()?, datum.text()?);
        let mut fields = Fields::default();
        if kind == Kind::User {
            fields.user_name = datum.optional(Datum::text)?;
        }
        fields.display_name = datum.optional(Datum::text)?;
        if kind == Kind::User {
            fields.active = datum.optional(Datum::boolean)?;
        }
        fields.external_id = datum.optional(Datum::text)?;
        if kind == Kind::User {
            fields.email = datum.optional(Datum::text)?;
        }
        fields.created = datum.optional(Datum::long)?;
        fields.last_modified = datum.optional(Datum::long)?;
        let attributes = datum.block(|datum| Some((datum.text()?, datum.text()?)))?;
        let (first_seen_at, changed_at) = (datum.long()?, datum.long()?);
        let (sequence, sync) = (datum.long()?, datum.long()?);
        let (missing_since, missing_walks) = (datum.optional(Datum::long)?, datum.long()?);
        let omitted = datum.block(Datum::text)?;
        let (mut dangling, mut members_unread) = (Vec::new(), false);
        if kind == Kind::Group {
            for _entitlement in 0..3 {
                datum.optional(Datum::text)?;
            }
            dangling = datum.block(Datum::text)?.into_iter().map(Id::from).collect();
            members_unread = datum.boolean()?;
        }
        // As the map that they were: in order, and each path once.
        if !attributes.is_sorted_by(|(one, _), (other, _)| one < other) {
            return None;
        }
        Some(StoredPrincipal {
            id: Cow::Borrowed(id),
            packed: fields.pack(attributes.into_iter(), omitted.into_iter()),
            first_seen_at,
            changed_at,
            sequence,
            sync,
            missing_since,
            missing_walks,
            dangling,
            members_unread,
        })
    }
}

impl<'a> StoredMembership<'a> {
    /// As [`StoredPrincipal::read`].
    pub(super) fn read(datum: &'a [u8]) -> Option<StoredMembership<'a>> {
        let mut datum = Datum(datum);
        let (_account, _provider) = (datum.text()?, datum.text()?);
        Some(StoredMembership {
            kind: Kind::parse_principal_type(datum.text()?),
            principal_id: Cow::Borrowed(datum.text()?),
            group_id: Cow::Borrowed(datum.text()?),
            direct: datum.optional(Datum::boolean)?,
            first_seen_at: datum.long()?,
            sequence: datum.long()?,
            sync: datum.long()?,
        })
    }
}

fn stored(principal: &Principal) -> (Cow<'static, str>, PackedPrincipal) {
    (Cow::Owned(principal.id.to_string()), PackedPrincipal::pack(principal))
}

impl From<UserState> for StoredPrincipal<'static> {
    fn from(state: UserState) -> StoredPrincipal<'static> {
        let UserState { first_seen_at, changed_at, sequence, sync, missing_since, missing_walks, .. } = state;
        let (id, packed) = stored(&state.into_principal());
        StoredPrincipal {
            id,
            packed,
            first_seen_at,
            changed_at,
            sequence,
            sync,
            missing_since,
            missing_walks,
            dangling: Vec::new(),
            members_unread: false,
        }
    }
}

impl From<GroupState> for StoredPrincipal<'static> {
    fn from(mut state: GroupState) -> StoredPrincipal<'static> {
        let dangling = std::mem::take(&mut state.dangling).into_iter().map(Into::into).collect();
        let GroupState { first_seen_at, changed_at, sequence, sync, missing_since, missing_walks, .. } = state;
        let members_unread = state.members_unread;
        let (id, packed) = stored(&state.into_principal());
        StoredPrincipal {
            id,
            packed,
            first_seen_at,
            changed_at,
            sequence,
            sync,
            missing_since,
            missing_walks,
            dangling,
            members_unread,
        }
    }
}

impl From<MembershipState> for StoredMembership<'static> {
    fn from(state: MembershipState) -> StoredMembership<'static> {
        let MembershipState { direct, first_seen_at, sequence, sync, .. } = state;
        StoredMembership {
            kind: Kind::parse_principal_type(&state.principal_type),
            principal_id: Cow::Owned(state.principal_id),
            group_id: Cow::Owned(state.group_id),
            direct,
            first_seen_at,
            sequence,
            sync,
        }
    }
}
