//! Changes → records.

use serde::Serialize;
use uuid::Uuid;

use super::schema::{self, SchemaIds};
use super::wire;
use crate::account::Account;
use crate::directory::changes::Event;
use crate::directory::key::principal_key;
use crate::directory::status::SyncStatus;
use crate::directory::{
    Entitlement, EventType, GroupPattern, Id, Kind, Known, Member, Packed, Principal, StateKey, StateWrite, Unit,
};
use crate::log::{Record, Topic, state_digest};

/// Namespace of every UUIDv5 that scimtail makes; part of the contract, never changes.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1d_5c52_8f0e_5f4a_9c0e_73c1_6d74_6169);

/// Encodes by the schemas under their registered ids.
#[derive(Clone, Debug)]
pub struct Codec {
    pub ids: SchemaIds,
}

/// What all records of one sync share.
#[derive(Clone, Debug)]
pub struct Stamp {
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

impl Stamp {
    pub fn new(account: &Account, known: &Known, attempt: &SyncStatus) -> Stamp {
        Stamp {
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
}

/// A unit as records: its events, then the state they lead to.
#[derive(Debug)]
pub struct Encoded {
    pub records: Vec<Record>,
    /// What the first records say.
    pub events: Vec<wire::ChangeEvent>,
    /// `sequence` of the last event; `None` for a silent write.
    pub sequence: Option<i64>,
    /// The new record's share of the state digest; 0 for a removal.
    pub digest: u128,
    /// The principal's record names attributes that it leaves out because it would be too large.
    pub reduced: bool,
}

impl Codec {
    /// Confluent framing: magic byte, schema id, datum.
    fn frame(&self, topic: Topic, value: &impl Serialize) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(512);
        bytes.push(0);
        bytes.extend_from_slice(&self.ids.of(topic).to_be_bytes());
        schema::writer(topic).write_ser(&mut bytes, value).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    /// Encodes a unit. `sequence` is the account's last one and moves by one for each event.
    ///
    /// # Errors
    /// A value that does not fit its schema: a defect of scimtail, never of the directory.
    pub fn unit(&self, stamp: &Stamp, known: &Known, unit: &Unit, sequence: &mut i64) -> Result<Encoded, String> {
        let key = unit.write.key();
        let key_text = key.text(&stamp.account);
        let after = After::of(unit, known);
        let mut records = Vec::with_capacity(unit.events.len() + 1);
        let mut caused_by = Vec::new();
        let events = stamp.change_events(known, unit, sequence);
        for event in &events {
            let record = self.event(stamp, unit.observed_at, event, event_key(stamp, &key))?;
            caused_by =
                record.headers.iter().filter(|(name, _)| matches!(*name, "ce_id" | "ce_sequence")).cloned().collect();
            records.push(record);
        }
        let last = (!unit.events.is_empty()).then_some(*sequence);
        // A silent rewrite keeps the sequence of the record it replaces.
        let kept = if known.record_digest(&key).is_some() { known.newest_sequence(&key) } else { 0 };
        let value = match &unit.write {
            StateWrite::Put { kind, .. } => {
                let principal = after.principal.clone().ok_or("a put without its principal")?;
                Some(self.principal_state(stamp, unit, *kind, principal, &after, last.unwrap_or(kept))?)
            }
            StateWrite::PutMembership { group, member, direct, first_seen_at } => {
                let state = wire::MembershipState {
                    account: stamp.account.clone(),
                    provider: stamp.provider.clone(),
                    principal_type: member.kind.principal_type().to_owned(),
                    principal_id: member.id.to_string(),
                    group_id: group.to_string(),
                    direct: *direct,
                    first_seen_at: *first_seen_at,
                    sequence: last.unwrap_or(kept),
                    sync: stamp.sync,
                };
                Some(self.frame(Topic::Memberships, &state)?)
            }
            StateWrite::Remove { .. } | StateWrite::RemoveMembership { .. } => None,
        };
        let digest = value.as_deref().map_or(0, |value| state_digest(&key_text, value));
        let is_put = matches!(unit.write, StateWrite::Put { .. });
        let reduced = is_put && after.principal.is_some_and(|principal| !principal.omitted.is_empty());
        records.push(Record { topic: state_topic(&key), key: key_text, value, headers: caused_by });
        Ok(Encoded { records, events, sequence: last, digest, reduced })
    }

    fn principal_state(
        &self,
        stamp: &Stamp,
        unit: &Unit,
        kind: Kind,
        principal: Principal,
        after: &After,
        sequence: i64,
    ) -> Result<Vec<u8>, String> {
        let StateWrite::Put { first_seen_at, changed_at, missing_since, missing_walks, members_unread, .. } =
            &unit.write
        else {
            return Err("a state record of something that is not put".to_owned());
        };
        match kind {
            Kind::User => {
                let state = wire::UserState {
                    account: stamp.account.clone(),
                    provider: stamp.provider.clone(),
                    id: principal.id.to_string(),
                    user_name: principal.user_name,
                    display_name: principal.display_name,
                    active: principal.active,
                    external_id: principal.external_id,
                    email: principal.email,
                    created: principal.created,
                    last_modified: principal.last_modified,
                    attributes: principal.attributes,
                    first_seen_at: *first_seen_at,
                    changed_at: *changed_at,
                    sequence,
                    sync: stamp.sync,
                    missing_since: *missing_since,
                    missing_walks: i64::from(*missing_walks),
                    omitted_attributes: principal.omitted,
                };
                self.frame(Topic::Users, &state)
            }
            Kind::Group => {
                let entitlement = stamp.entitlement(principal.display_name.as_deref());
                let (domain, kind, name) = entitlement_fields(entitlement);
                let state = wire::GroupState {
                    account: stamp.account.clone(),
                    provider: stamp.provider.clone(),
                    id: principal.id.to_string(),
                    display_name: principal.display_name,
                    external_id: principal.external_id,
                    created: principal.created,
                    last_modified: principal.last_modified,
                    attributes: principal.attributes,
                    first_seen_at: *first_seen_at,
                    changed_at: *changed_at,
                    sequence,
                    sync: stamp.sync,
                    missing_since: *missing_since,
                    missing_walks: i64::from(*missing_walks),
                    omitted_attributes: principal.omitted,
                    entitlement_domain: domain,
                    entitlement_kind: kind,
                    entitlement_name: name,
                    dangling: fitting(&after.dangling),
                    members_unread: *members_unread,
                };
                self.frame(Topic::Groups, &state)
            }
        }
    }

    fn event(&self, stamp: &Stamp, observed_at: i64, value: &wire::ChangeEvent, key: String) -> Result<Record, String> {
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", value.event_id.clone()),
            ("ce_source", format!("scimtail/{}", stamp.account)),
            ("ce_type", format!("scimtail.{}", value.event_type)),
            ("ce_time", rfc3339(observed_at)),
            ("ce_sequence", format!("{:019}", value.sequence)),
            ("content-type", "application/avro".to_owned()),
        ];
        headers.extend(value.correlation_id.clone().map(|id| ("ce_correlationid", id)));
        Ok(Record { topic: Topic::Events, key, value: Some(self.frame(Topic::Events, value)?), headers })
    }

    /// A `syncs` record: under `account` for a completed sync, under `account/latest` for the newest attempt.
    ///
    /// # Errors
    /// As [`Codec::unit`].
    pub fn status(&self, account: &Account, status: &SyncStatus, completed: bool) -> Result<Record, String> {
        let key = if completed { account.name.clone() } else { format!("{}/latest", account.name) };
        let value = self.frame(Topic::Syncs, &wire::SyncStatus::new(account, status))?;
        Ok(Record { topic: Topic::Syncs, key, value: Some(value), headers: Vec::new() })
    }

    /// # Errors
    /// As [`Codec::unit`].
    pub fn control(&self, request: &wire::ControlRequest) -> Result<Record, String> {
        let value = self.frame(Topic::Control, request)?;
        Ok(Record { topic: Topic::Control, key: request.account.clone(), value: Some(value), headers: Vec::new() })
    }
}

impl Stamp {
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
        let stamp = self;
        let key_text = &key.text(&stamp.account);
        let event_id = stamp.event_id(event.event_type, key_text, known.newest_sequence(key), after, &unit.write);
        let correlation_id = event.cause.as_ref().map(|(cause, key)| {
            let text = key.text(&stamp.account);
            stamp.uuid(&[cause.as_str().as_bytes(), text.as_bytes()]).to_string()
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
            entitlement_fields(stamp.entitlement(group_name.as_deref()));
        let removed = event.removal_reason.is_some() && matches!(key, StateKey::Principal(Kind::User, _));
        wire::ChangeEvent {
            event_id: event_id.to_string(),
            event_type: event.event_type.as_str().to_owned(),
            account: stamp.account.clone(),
            provider: stamp.provider.clone(),
            sequence,
            sync: stamp.sync,
            snapshot: stamp.snapshot || unit.snapshot,
            principal_type: kind.principal_type().to_owned(),
            principal_id: principal_id.to_string(),
            principal_name: event.principal_name.clone().or_else(|| image?.name().map(str::to_owned)),
            group_id: group_id.map(ToString::to_string),
            group_name,
            entitlement_domain,
            entitlement_kind,
            entitlement_name,
            observed_at: unit.observed_at,
            window_start: stamp.window_start,
            occurred_at: event.occurred_at,
            removal_reason: event.removal_reason.map(|reason| reason.as_str().to_owned()),
            removal_means: stamp.removal_means.clone().filter(|_| removed),
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
}

/// Milliseconds since 1970-01-01 UTC as RFC 3339; the epoch for times beyond the year 9999.
pub fn rfc3339(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).unwrap_or_default().to_string()
}

/// Events of a membership stand under the member's key: a person's events are one ordered stream.
fn event_key(stamp: &Stamp, key: &StateKey) -> String {
    match key {
        StateKey::Principal(kind, id) => principal_key(&stamp.account, *kind, id),
        StateKey::Membership { member, .. } => principal_key(&stamp.account, member.kind, &member.id),
    }
}

/// The compacted topic in which a key stands.
pub fn state_topic(key: &StateKey) -> Topic {
    match key {
        StateKey::Principal(Kind::User, _) => Topic::Users,
        StateKey::Principal(Kind::Group, _) => Topic::Groups,
        StateKey::Membership { .. } => Topic::Memberships,
    }
}

fn entitlement_fields(entitlement: Option<Entitlement>) -> (Option<String>, Option<String>, Option<String>) {
    let some = |text: String| (!text.is_empty()).then_some(text);
    match entitlement {
        Some(Entitlement { domain, kind, name }) => (some(domain), some(kind), some(name)),
        None => (None, None, None),
    }
}

/// Ids of dangling members that fit into a record beside the rest; what is cut is asked anew after a restore.
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

/// What a unit leaves behind: for a removal the principal as last known.
struct After {
    principal: Option<Principal>,
    dangling: Vec<Id>,
}

impl After {
    fn of(unit: &Unit, known: &Known) -> After {
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

impl Stamp {
    fn entitlement(&self, group_name: Option<&str>) -> Option<Entitlement> {
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

/// A member and its group from a membership's key, e.g. `acme/Users/1/Groups/2`, without the account.
pub fn membership_of(state: &wire::MembershipState) -> Option<(Id, Member)> {
    let kind = Kind::parse_principal_type(&state.principal_type)?;
    Some((state.group_id.as_str().into(), Member { kind, id: state.principal_id.as_str().into() }))
}
