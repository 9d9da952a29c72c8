//! From a unit of changes to the events that consumers read: ids, causes, and what all events of one sync share.

use serde::Serialize;
use uuid::Uuid;

use super::schema;
use super::wire;
use crate::account::Account;
use crate::directory::changes::Event;
use crate::directory::status::SyncStatus;
use crate::directory::{
    Entitlement, EventType, GroupPattern, Id, KeyChange, Kind, Known, Member, Principal, StateKey, StateWrite,
};
use crate::log::Topic;

/// Namespace of every UUIDv5 that scimtail makes; part of the contract, never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1d_5c52_8f0e_5f4a_9c0e_73c1_6d74_6169);

/// The account and the sync that an event belongs to: what all events and state records of one sync share.
#[derive(Clone, Debug)]
pub struct EventContext {
    pub account: String,
    pub provider: String,
    pub removal_means: Option<String>,
    pub pattern: Option<GroupPattern>,
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
            base: known.base(),
            sync: attempt.sync,
            snapshot: known.is_first(),
            window_start: known.completed.as_ref().map(|completed| completed.started_at),
        }
    }

    /// The events of a unit as consumers will see them. `sequence` moves by one for each.
    pub fn change_events(&self, known: &Known, unit: &KeyChange, sequence: &mut i64) -> Vec<wire::ChangeEvent> {
        if unit.events.is_empty() {
            return Vec::new();
        }
        let (key, after) = (unit.write.key(), After::of(unit, known));
        let each = unit.events.iter().map(|event| {
            *sequence += 1;
            self.change_event(known, unit, event, &after, &key, *sequence)
        });
        each.collect()
    }

    fn change_event(
        &self,
        known: &Known,
        unit: &KeyChange,
        event: &Event,
        after: &After,
        key: &StateKey,
        sequence: i64,
    ) -> wire::ChangeEvent {
        let key_text = &key.text(&self.account);
        let event_id = self.event_id(event.event_type, key_text, known.newest_sequence(key), after, &unit.write);
        let correlation_id = event.cause.as_ref().map(|(cause, key)| {
            let text = key.text(&self.account);
            self.uuid(&[cause.as_str().as_bytes(), text.as_bytes()]).to_string()
        });
        let (kind, principal_id, group_id) = match key {
            StateKey::Principal(Kind::User, id) => (Kind::User, id, None),
            StateKey::Principal(Kind::Group, id) => (Kind::Group, id, Some(id)),
            StateKey::Membership { member, group } => (member.kind, &member.id, Some(group)),
        };
        let (user, group) = match (key, after.principal.clone()) {
            (StateKey::Principal(Kind::User, _), Some(user)) => (Some(user), None),
            (StateKey::Principal(Kind::Group, _), Some(group)) => (None, Some(group)),
            _ => (None, None),
        };
        let image = user.as_ref().or(group.as_ref());
        let group_name = event.group_name.clone().or_else(|| group.as_ref()?.display_name.clone());
        let (entitlement_domain, entitlement_kind, entitlement_name) =
            entitlement_fields(self.entitlement(group_name.as_deref()));
        let removed = event.removal_reason.is_some() && matches!(key, StateKey::Principal(Kind::User, _));
        wire::ChangeEvent {
            event_id: event_id.to_string(),
            event_type: event.event_type.as_str().to_owned(),
            account: self.account.clone(),
            provider: self.provider.clone(),
            sequence,
            sync: self.sync,
            snapshot: self.snapshot || unit.snapshot,
            principal_type: kind.principal_type().to_owned(),
            principal_id: principal_id.to_string(),
            principal_name: event.principal_name.clone().or_else(|| image?.name().map(str::to_owned)),
            group_id: group_id.map(ToString::to_string),
            group_name,
            entitlement_domain,
            entitlement_kind,
            entitlement_name,
            observed_at: unit.observed_at,
            window_start: self.window_start,
            occurred_at: event.occurred_at,
            removal_reason: event.removal_reason.map(|reason| reason.as_str().to_owned()),
            removal_means: self.removal_means.clone().filter(|_| removed),
            correlation_id,
            omitted_attributes: image.map(|image| image.omitted.clone()).unwrap_or_default(),
            changed_attributes: event.changes.iter().map(|change| change.attribute.clone()).collect(),
            changes: event
                .changes
                .iter()
                .map(|change| wire::AttributeChange {
                    attribute: change.attribute.clone(),
                    old_value: change.old.clone(),
                    new_value: change.new.clone(),
                })
                .collect(),
            user: user.map(Into::into),
            group: group.map(Into::into),
        }
    }

    pub fn entitlement(&self, group_name: Option<&str>) -> Option<Entitlement> {
        self.pattern.as_ref()?.decode(group_name?)
    }

    /// UUIDv5 over length-prefixed parts, so that no two lists of parts share a name.
    fn uuid(&self, parts: &[&[u8]]) -> Uuid {
        let base = self.base.to_be_bytes();
        let mut name = Vec::with_capacity(256);
        for part in [self.account.as_bytes(), &base].iter().chain(parts) {
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part);
        }
        Uuid::new_v5(&NAMESPACE, &name)
    }

    /// A user's state, without what scimtail adds to it: times, numbers, counts.
    pub(super) fn user_state(&self, user: Principal) -> wire::UserState {
        wire::UserState {
            account: self.account.clone(),
            provider: self.provider.clone(),
            id: user.id.to_string(),
            user_name: user.user_name,
            display_name: user.display_name,
            active: user.active,
            external_id: user.external_id,
            email: user.email,
            created: user.created,
            last_modified: user.last_modified,
            attributes: user.attributes,
            omitted_attributes: user.omitted,
            ..wire::UserState::default()
        }
    }

    /// As [`EventContext::user_state`]. `dangling`: listed members without a principal.
    pub(super) fn group_state(&self, group: Principal, dangling: &[Id]) -> wire::GroupState {
        let entitlement = self.entitlement(group.display_name.as_deref());
        let (entitlement_domain, entitlement_kind, entitlement_name) = entitlement_fields(entitlement);
        wire::GroupState {
            account: self.account.clone(),
            provider: self.provider.clone(),
            id: group.id.to_string(),
            display_name: group.display_name,
            external_id: group.external_id,
            created: group.created,
            last_modified: group.last_modified,
            attributes: group.attributes,
            omitted_attributes: group.omitted,
            entitlement_domain,
            entitlement_kind,
            entitlement_name,
            dangling: fitting(dangling),
            ..wire::GroupState::default()
        }
    }

    /// As [`EventContext::user_state`].
    pub(super) fn membership_state(&self, group: &Id, member: &Member, direct: Option<bool>) -> wire::MembershipState {
        wire::MembershipState {
            account: self.account.clone(),
            provider: self.provider.clone(),
            principal_type: member.kind.principal_type().to_owned(),
            principal_id: member.id.to_string(),
            group_id: group.to_string(),
            direct,
            ..wire::MembershipState::default()
        }
    }

    /// The same change has the same id, also if an aborted attempt is repeated. Nothing in it depends on the attempt:
    /// not its number, its times, or the sequence it was given. It covers the record that the change leads to, as Avro
    /// encodes it, without what scimtail and the server add to the state: times, numbers, counts, the provider's name.
    fn event_id(&self, event_type: EventType, key: &str, newest: i64, after: &After, write: &StateWrite) -> Uuid {
        let principal = || {
            let known = after.principal.clone().unwrap_or_else(|| Principal::new(""));
            Principal { created: None, last_modified: None, ..known }
        };
        let state = match write {
            StateWrite::Put { kind: Kind::User, .. } => {
                datum(Topic::Users, &wire::UserState { provider: String::new(), ..self.user_state(principal()) })
            }
            StateWrite::Put { kind: Kind::Group, .. } => {
                let state = self.group_state(principal(), &after.dangling);
                datum(Topic::Groups, &wire::GroupState { provider: String::new(), ..state })
            }
            StateWrite::PutMembership { group, member, direct, .. } => {
                let state = self.membership_state(group, member, *direct);
                datum(Topic::Memberships, &wire::MembershipState { provider: String::new(), ..state })
            }
            StateWrite::Remove { .. } | StateWrite::RemoveMembership { .. } => Vec::new(),
        };
        self.uuid(&[event_type.as_str().as_bytes(), key.as_bytes(), &newest.to_be_bytes(), &state])
    }
}

/// A record's Avro datum, without a schema id. A record that does not fit its schema has none; encoding the same state
/// for Kafka then fails, so that no event bears an id that was made without it.
fn datum(topic: Topic, state: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    match schema::writer(topic).write_ser(&mut bytes, state) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

/// What a unit leaves behind: for a removal the principal as last known.
pub(super) struct After {
    pub principal: Option<Principal>,
    pub dangling: Vec<Id>,
}

impl After {
    pub fn of(unit: &KeyChange, known: &Known) -> After {
        match &unit.write {
            StateWrite::Put { kind, id, packed, dangling, .. } => {
                let dangling = match dangling {
                    Some(dangling) => dangling.clone(),
                    None if *kind == Kind::Group => known.dangling(id).to_vec(),
                    None => Vec::new(),
                };
                After { principal: Some(packed.unpack(id.clone())), dangling }
            }
            StateWrite::Remove { kind, id } => {
                After { principal: known.table(*kind).principal(id), dangling: Vec::new() }
            }
            StateWrite::PutMembership { .. } | StateWrite::RemoveMembership { .. } => {
                After { principal: None, dangling: Vec::new() }
            }
        }
    }
}

pub(super) fn entitlement_fields(entitlement: Option<Entitlement>) -> (Option<String>, Option<String>, Option<String>) {
    let some = |text: String| (!text.is_empty()).then_some(text);
    match entitlement {
        Some(Entitlement { domain, kind, name }) => (some(domain), some(kind), some(name)),
        None => (None, None, None),
    }
}

/// Ids of dangling members that fit into a record beside the rest. Those that are cut are asked for again after a
/// restore.
fn fitting(dangling: &[Id]) -> Vec<String> {
    const DANGLING_BYTES_MAX: usize = 300_000;
    let mut left = DANGLING_BYTES_MAX;
    dangling
        .iter()
        .map_while(|id| {
            left = left.checked_sub(id.len() + 2)?;
            Some(id.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::PackedPrincipal;

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
        let put = |principal: &Principal, first_seen_at: i64| StateWrite::Put {
            kind: Kind::User,
            id: principal.id.clone(),
            packed: PackedPrincipal::pack(principal),
            dangling: None,
            first_seen_at,
            changed_at: first_seen_at,
            missing_since: None,
            missing_walks: 0,
            members_unread: false,
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
