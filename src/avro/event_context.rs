//! From a unit of changes to the events that consumers read: ids, causes, and what all events of one sync share.

use uuid::Uuid;

use super::wire;
use crate::account::Account;
use crate::directory::changes::Event;
use crate::directory::status::SyncStatus;
use crate::directory::{
    Entitlement, EventType, GroupPattern, Id, Kind, Known, Packed, Principal, StateKey, StateWrite, Unit,
};

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
    pub fn change_events(&self, known: &Known, unit: &Unit, sequence: &mut i64) -> Vec<wire::ChangeEvent> {
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
        unit: &Unit,
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

    /// The same change has the same id, also when an aborted attempt is repeated: nothing in it depends on
    /// the attempt (its number, its times, the sequence it was given).
    fn event_id(&self, event_type: EventType, key: &str, newest: i64, after: &After, write: &StateWrite) -> Uuid {
        let newest = newest.to_be_bytes();
        let mut state = Vec::new();
        match write {
            StateWrite::Put { .. } => {
                let mut principal = after.principal.clone().unwrap_or_else(|| Principal::new(""));
                (principal.created, principal.last_modified) = (None, None);
                let entitlement = self.entitlement(principal.display_name.as_deref()).unwrap_or_default();
                state.extend_from_slice(Packed::pack(&principal).bytes());
                for text in [entitlement.domain, entitlement.kind, entitlement.name]
                    .iter()
                    .map(String::as_str)
                    .chain(after.dangling.iter().map(AsRef::as_ref))
                {
                    state.push(0);
                    state.extend_from_slice(text.as_bytes());
                }
            }
            StateWrite::PutMembership { direct, .. } => state.extend_from_slice(format!("{direct:?}").as_bytes()),
            StateWrite::Remove { .. } | StateWrite::RemoveMembership { .. } => {}
        }
        self.uuid(&[event_type.as_str().as_bytes(), key.as_bytes(), &newest, &state])
    }
}

/// What a unit leaves behind: for a removal the principal as last known.
pub(super) struct After {
    pub principal: Option<Principal>,
    pub dangling: Vec<Id>,
}

impl After {
    pub fn of(unit: &Unit, known: &Known) -> After {
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
