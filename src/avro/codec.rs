//! Changes → records: encoded, with their keys and headers.

use serde::Serialize;

use super::event_context::{After, EventContext};
use super::schema::{self, SchemaIds};
use super::wire;
use crate::account::Account;
use crate::directory::key::principal_key;
use crate::directory::status::SyncStatus;
use crate::directory::{Id, KeyChange, Kind, Known, Member, Principal, StateKey, StateWrite};
use crate::log::{Record, Topic, state_digest};

/// Encodes by the schemas under their registered ids.
#[derive(Clone, Debug)]
pub struct Codec {
    pub ids: SchemaIds,
}

/// A unit as records: its events, then the state they lead to.
#[derive(Debug)]
pub struct Encoded {
    pub records: Vec<Record>,
    /// The events that the first records hold.
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
    pub fn encode_change(
        &self,
        context: &EventContext,
        known: &Known,
        unit: &KeyChange,
        sequence: &mut i64,
    ) -> Result<Encoded, String> {
        let key = unit.write.key();
        let key_text = key.text(&context.account);
        let after = After::of(unit, known);
        let mut records = Vec::with_capacity(unit.events.len() + 1);
        let mut caused_by = Vec::new();
        let events = context.change_events(known, unit, sequence);
        for event in &events {
            let record = self.encode_event(context, unit.observed_at, event, event_key(context, &key))?;
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
                Some(self.encode_principal(context, unit, *kind, principal, &after, last.unwrap_or(kept))?)
            }
            StateWrite::PutMembership { group, member, direct, first_seen_at } => {
                let state = wire::MembershipState {
                    first_seen_at: *first_seen_at,
                    sequence: last.unwrap_or(kept),
                    sync: context.sync,
                    ..context.membership_state(group, member, *direct)
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

    fn encode_principal(
        &self,
        context: &EventContext,
        unit: &KeyChange,
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
                    first_seen_at: *first_seen_at,
                    changed_at: *changed_at,
                    sequence,
                    sync: context.sync,
                    missing_since: *missing_since,
                    missing_walks: i64::from(*missing_walks),
                    ..context.user_state(principal)
                };
                self.frame(Topic::Users, &state)
            }
            Kind::Group => {
                let state = wire::GroupState {
                    first_seen_at: *first_seen_at,
                    changed_at: *changed_at,
                    sequence,
                    sync: context.sync,
                    missing_since: *missing_since,
                    missing_walks: i64::from(*missing_walks),
                    members_unread: *members_unread,
                    ..context.group_state(principal, &after.dangling)
                };
                self.frame(Topic::Groups, &state)
            }
        }
    }

    fn encode_event(
        &self,
        context: &EventContext,
        observed_at: i64,
        value: &wire::ChangeEvent,
        key: String,
    ) -> Result<Record, String> {
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", value.event_id.clone()),
            ("ce_source", format!("scimtail/{}", context.account)),
            ("ce_type", format!("scimtail.{}", value.event_type)),
            ("ce_time", rfc3339(observed_at)),
            ("ce_sequence", format!("{:019}", value.sequence)),
            ("content-type", "application/avro".to_owned()),
        ];
        headers.extend(value.correlation_id.clone().map(|id| ("ce_correlationid", id)));
        Ok(Record { topic: Topic::Events, key, value: Some(self.frame(Topic::Events, value)?), headers })
    }

    /// The `syncs` record of a completed sync. Its key is the account's name.
    ///
    /// # Errors
    /// As [`Codec::encode_change`].
    pub fn encode_completed(&self, account: &Account, status: &SyncStatus) -> Result<Record, String> {
        self.encode_status(account, status, account.name.clone())
    }

    /// The `syncs` record of the newest attempt. Its key is `{account}/latest`.
    ///
    /// # Errors
    /// As [`Codec::encode_change`].
    pub fn encode_latest(&self, account: &Account, status: &SyncStatus) -> Result<Record, String> {
        self.encode_status(account, status, format!("{}/latest", account.name))
    }

    fn encode_status(&self, account: &Account, status: &SyncStatus, key: String) -> Result<Record, String> {
        let value = self.frame(Topic::Syncs, &wire::SyncStatus::new(account, status))?;
        Ok(Record { topic: Topic::Syncs, key, value: Some(value), headers: Vec::new() })
    }

    /// A person's request, as it goes to the `control` topic.
    ///
    /// # Errors
    /// As [`Codec::encode_change`].
    pub fn encode_control_request(&self, request: &wire::ControlRequest) -> Result<Record, String> {
        let value = self.frame(Topic::Control, request)?;
        Ok(Record { topic: Topic::Control, key: request.account.clone(), value: Some(value), headers: Vec::new() })
    }
}

/// Milliseconds since 1970-01-01 UTC as RFC 3339; the epoch for times beyond the year 9999.
pub fn rfc3339(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).unwrap_or_default().to_string()
}

/// The key of a membership's events is the member's: a person's events are one ordered stream.
fn event_key(context: &EventContext, key: &StateKey) -> String {
    match key {
        StateKey::Principal(kind, id) => principal_key(&context.account, *kind, id),
        StateKey::Membership { member, .. } => principal_key(&context.account, member.kind, &member.id),
    }
}

/// The compacted topic that a key belongs to.
pub fn state_topic(key: &StateKey) -> Topic {
    match key {
        StateKey::Principal(Kind::User, _) => Topic::Users,
        StateKey::Principal(Kind::Group, _) => Topic::Groups,
        StateKey::Membership { .. } => Topic::Memberships,
    }
}

/// A member and its group from a membership's key, e.g. `acme/Users/1/Groups/2`, without the account.
pub fn membership_of(state: &wire::MembershipState) -> Option<(Id, Member)> {
    let kind = Kind::parse_principal_type(&state.principal_type)?;
    Some((state.group_id.as_str().into(), Member { kind, id: state.principal_id.as_str().into() }))
}
