//! From a unit of changes to the events that consumers read: ids, causes, and what all events of one sync share.

use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

use super::datum::encoded;
use super::record::{self, Image};
use super::wire;
use crate::account::Account;
use crate::directory::changes::Event;
use crate::directory::packed::Fields;
use crate::directory::privileges;
use crate::directory::status::SyncStatus;
use crate::directory::{Entitlement, EventType, GroupPattern, Id, KeyChange, Kind, Known, Member, StateWrite};

/// Namespace of every UUIDv5 that scimtail makes; part of the contract, never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1d_5c52_8f0e_5f4a_9c0e_73c1_6d74_6169);

/// The account and the sync that an event belongs to: what all events and state records of one sync share.
#[derive(Clone, Debug)]
pub struct EventContext {
    pub account: String,
    pub provider: String,
    pub removal_means: Option<String>,
    pub pattern: Option<GroupPattern>,
    pub privileges: Vec<String>,
    /// Number of the last completed sync.
    pub base: i64,
    pub sync: i64,
    pub snapshot: bool,
    pub window_start: Option<i64>,
}

impl EventContext {
    pub fn new(account: &Account, known: &Known, attempt: &SyncStatus) -> EventContext {
        EventContext {
            account: account.name.clone(),
            provider: account.provider.clone(),
            removal_means: account.habits.removal_means.clone(),
            pattern: account.pattern.clone(),
            privileges: account.privileges.clone(),
            base: known.base(),
            sync: attempt.sync,
            snapshot: known.is_first(),
            window_start: known.completed.as_ref().map(|completed| completed.started_at),
        }
    }

    /// The events of a unit as consumers will see them. `sequence` moves by one for each.
    pub fn change_events(&self, known: &Known, unit: &KeyChange, sequence: &mut i64) -> Vec<wire::ChangeEvent> {
        let key = unit.write.key();
        let text = key.text(&self.account);
        let (newest, after) = (known.newest_sequence(&key), After::of(&unit.write, known));
        let each = unit.events.iter().map(|event| {
            *sequence += 1;
            self.event(unit, event, &after, (&text, newest), *sequence).to_wire()
        });
        each.collect()
    }

    /// One event of a unit. `key`: of the unit's state record, as text, and the sequence of the newest record under it.
    pub(super) fn event<'a>(
        &'a self,
        unit: &'a KeyChange,
        event: &'a Event,
        after: &After<'a>,
        key: (&str, i64),
        sequence: i64,
    ) -> record::Event<'a> {
        let (kind, principal_id, group_id) = match &unit.write {
            StateWrite::Put(put) => (put.kind, &put.id, (put.kind == Kind::Group).then_some(&put.id)),
            StateWrite::Remove { kind, id } => (*kind, id, (*kind == Kind::Group).then_some(id)),
            StateWrite::PutMembership { group, member, .. } | StateWrite::RemoveMembership { group, member } => {
                (member.kind, &member.id, Some(group))
            }
        };
        let image = after.fields.map(|fields| Image { kind, id: principal_id, fields });
        let group_name = || image.filter(|image| image.kind == Kind::Group)?.fields.display_name;
        let group_name = event.group_name.as_deref().or_else(group_name);
        let is_user_removed = event.event_type == EventType::UserRemoved;
        record::Event {
            id: self.event_id(event.event_type, key, after, &unit.write),
            event_type: event.event_type,
            account: &self.account,
            provider: &self.provider,
            sequence,
            sync: self.sync,
            snapshot: self.snapshot || unit.snapshot,
            kind,
            principal_id,
            principal_name: event.principal_name.as_deref().or_else(|| image?.name()),
            group_id: group_id.map(AsRef::as_ref),
            group_name,
            entitlement: self.entitlement(group_name).unwrap_or_default(),
            observed_at: unit.observed_at,
            window_start: self.window_start,
            occurred_at: event.occurred_at,
            removal_reason: event.removal_reason,
            removal_means: self.removal_means.as_deref().filter(|_| is_user_removed),
            correlation_id: event.cause.as_ref().map(|(cause, key)| {
                let text = key.text(&self.account);
                self.uuid(&[cause.as_str().as_bytes(), text.as_bytes()])
            }),
            changes: &event.changes,
            image,
            privileges: match (event.event_type, image) {
                (EventType::UserUpdated, _) => privileges::changed(&self.privileges, &event.changes),
                (EventType::UserAdded, Some(image)) => privileges::held(&self.privileges, &image.fields),
                _ => Vec::new(),
            },
        }
    }

    pub fn entitlement(&self, group_name: Option<&str>) -> Option<Entitlement> {
        self.pattern.as_ref()?.decode(group_name?)
    }

    /// UUIDv5 over length-prefixed parts, so that no two lists of parts share a name.
    fn uuid(&self, parts: &[&[u8]]) -> Uuid {
        let base = self.base.to_be_bytes();
        let mut hash = Sha1::new_with_prefix(NAMESPACE.as_bytes());
        for part in [self.account.as_bytes(), &base].iter().chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        // RFC 9562 §5.5: the first 16 bytes of the hash, with the version and the variant.
        let hash: [u8; 20] = hash.finalize().into();
        Builder::from_sha1_bytes(std::array::from_fn(|place| hash[place])).into_uuid()
    }

    /// A principal's state, without what scimtail adds to it: times, numbers, counts. `dangling`: listed members without
    /// a principal.
    pub(super) fn state<'a>(&'a self, image: Image<'a>, dangling: &'a [Id]) -> record::State<'a> {
        let entitlement = match image.kind {
            Kind::Group => self.entitlement(image.fields.display_name).unwrap_or_default(),
            Kind::User => Entitlement::default(),
        };
        record::State {
            account: &self.account,
            provider: &self.provider,
            image,
            first_seen_at: 0,
            changed_at: 0,
            sequence: 0,
            sync: 0,
            missing_since: None,
            missing_walks: 0,
            entitlement,
            dangling,
            members_unread: false,
        }
    }

    /// As [`EventContext::state`].
    pub(super) fn membership<'a>(
        &'a self,
        group: &'a str,
        member: &'a Member,
        direct: Option<bool>,
    ) -> record::Membership<'a> {
        record::Membership {
            account: &self.account,
            provider: &self.provider,
            member,
            group,
            direct,
            first_seen_at: 0,
            sequence: 0,
            sync: 0,
        }
    }

    /// The same change has the same id, also if an aborted attempt is repeated. Nothing in it depends on the attempt:
    /// not its number, its times, or the sequence it was given. It covers the record that the change leads to, as Avro
    /// encodes it, without what scimtail and the server add to the state: times, numbers, counts, the provider's name.
    fn event_id(&self, event_type: EventType, key: (&str, i64), after: &After<'_>, write: &StateWrite) -> Uuid {
        let state = |bytes: &mut Vec<u8>| match (write, after.fields) {
            (StateWrite::Put(put), Some(fields)) => {
                let image = Image { kind: put.kind, id: &put.id, fields: fields.without_times() };
                let state_of = self.state(image, after.dangling);
                record::State { provider: "", ..state_of }.encode(bytes);
            }
            (StateWrite::PutMembership { group, member, direct, .. }, _) => {
                let membership = self.membership(group, member, *direct);
                record::Membership { provider: "", ..membership }.encode(bytes);
            }
            _ => {}
        };
        let (key, newest) = key;
        let event_type = event_type.as_str().as_bytes();
        encoded(state, |state| self.uuid(&[event_type, key.as_bytes(), &newest.to_be_bytes(), state]))
    }
}

/// What a unit leaves behind: for a removal the principal as last known.
pub(super) struct After<'a> {
    pub fields: Option<Fields<'a>>,
    /// Of a group: listed members without a principal.
    pub dangling: &'a [Id],
}

impl<'a> After<'a> {
    pub fn of(write: &'a StateWrite, known: &'a Known) -> After<'a> {
        match write {
            StateWrite::Put(put) => {
                let dangling = match &put.dangling {
                    Some(dangling) => dangling,
                    None if put.kind == Kind::Group => known.dangling(&put.id),
                    None => &[],
                };
                After { fields: Some(put.packed.fields()), dangling }
            }
            StateWrite::Remove { kind, id } => {
                After { fields: known.table(*kind).get(id).map(|entry| entry.packed.fields()), dangling: &[] }
            }
            StateWrite::PutMembership { .. } | StateWrite::RemoveMembership { .. } => {
                After { fields: None, dangling: &[] }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{PackedPrincipal, Principal, Put};

    /// Readers remove doubles by these ids: they never change without a word in the changelog.
    #[test]
    fn the_ids_of_three_events_are_what_they_always_were() {
        let account = Account::unconfigured("acme", "scimtail", 0);
        let known = Known::new(1);
        let context = EventContext::new(&account, &known, &SyncStatus::initial(account.settings(), 0));
        let user = Principal {
            user_name: Some("ann".to_owned()),
            active: Some(true),
            created: Some(1),
            attributes: [("title".to_owned(), "\"Engineer\"".to_owned())].into(),
            ..Principal::new("u1")
        };
        let put = |principal: &Principal, first_seen_at: i64| {
            StateWrite::Put(Box::new(Put {
                kind: Kind::User,
                id: principal.id.clone(),
                packed: PackedPrincipal::pack(principal),
                dangling: None,
                first_seen_at,
                changed_at: first_seen_at,
                missing_since: None,
                missing_walks: 0,
                members_unread: false,
            }))
        };
        let member = Member { kind: Kind::User, id: "u1".into() };
        let membership = StateWrite::PutMembership { group: "g1".into(), member, direct: Some(true), first_seen_at: 7 };
        let id = |event_type: EventType, write: StateWrite| {
            let event = Event::new(event_type);
            let unit =
                KeyChange { events: vec![event], write, observed_at: 0, loses_attribute: false, snapshot: false };
            context.change_events(&known, &unit, &mut 0).remove(0).event_id
        };
        let added = id(EventType::UserAdded, put(&user, 1));
        assert_eq!(
            [
                added.as_str(),
                &id(EventType::MembershipAdded, membership),
                &id(EventType::UserRemoved, StateWrite::Remove { kind: Kind::User, id: "u1".into() }),
            ],
            [
                "9e8ff939-f508-5184-bf90-d94cd3934748",
                "03c65b1e-2ab4-5468-8d38-27bea3295fa0",
                "9a0ec1c5-a5c9-5bd4-b429-511dca3abfab",
            ]
        );
        let later = Principal { created: Some(2), last_modified: Some(3), ..user.clone() };
        assert_eq!(id(EventType::UserAdded, put(&later, 9)), added, "times are not a part of the change");
        let other = Principal { active: Some(false), ..user };
        assert_ne!(id(EventType::UserAdded, put(&other, 1)), added);
    }
}
