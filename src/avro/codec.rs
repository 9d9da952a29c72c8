//! Changes → records: encoded, with their keys and headers.

use serde::Serialize;

use super::datum::encoded;
use super::event_context::{After, EventContext};
use super::record::{self, Image};
use super::schema::{self, SchemaIds};
use super::wire;
use crate::account::Account;
use crate::directory::key::principal_key;
use crate::directory::status::SyncStatus;
use crate::directory::{Id, KeyChange, Kind, Known, Member, StateKey, StateWrite};
use crate::log::{Headers, Record, Topic, state_digest};

/// Headers of most events, and about what their texts take.
const HEADERS: usize = 8;
const HEADER_BYTES: usize = 192;
/// A UUID, and a number of 19 digits.
const CAUSE_BYTES: usize = 36 + 19;

/// Encodes by the schemas under their registered ids.
#[derive(Clone, Debug)]
pub struct Codec {
    pub ids: SchemaIds,
}

/// A unit as records: its events, then the state they lead to.
#[derive(Debug)]
pub struct Encoded {
    pub records: Vec<Record>,
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
        let mut bytes = Vec::new();
        self.header(topic, &mut bytes);
        schema::writer(topic).write_ser(&mut bytes, value).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    /// As [`Codec::frame`], for a datum that is encoded without apache-avro.
    fn framed(&self, topic: Topic, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let write = |bytes: &mut Vec<u8>| {
            self.header(topic, bytes);
            encode(bytes);
        };
        encoded(write, <[u8]>::to_vec)
    }

    fn header(&self, topic: Topic, bytes: &mut Vec<u8>) {
        bytes.push(0);
        bytes.extend_from_slice(&self.ids.of(topic).to_be_bytes());
    }

    /// Encodes a unit. `sequence` is the account's last one and moves by one for each event.
    pub fn encode_change(
        &self,
        context: &EventContext,
        known: &Known,
        unit: &KeyChange,
        sequence: &mut i64,
    ) -> Encoded {
        let key = unit.write.key();
        let key_text = key.text(&context.account);
        let after = After::of(&unit.write, known);
        let newest = known.newest_sequence(&key);
        let mut records = Vec::with_capacity(unit.events.len() + 1);
        let mut state_headers = Headers::default();
        for event in &unit.events {
            *sequence += 1;
            let event = context.event(unit, event, &after, (&key_text, newest), *sequence);
            state_headers = caused_by(&event);
            let value = self.framed(Topic::Events, |bytes| event.encode(bytes));
            let key = event_key(context, &key);
            records.push(Record { topic: Topic::Events, key, value: Some(value), headers: headers(&event) });
        }
        let last = (!unit.events.is_empty()).then_some(*sequence);
        // A silent rewrite keeps the sequence of the record it replaces.
        let kept = if known.record_digest(&key).is_some() { newest } else { 0 };
        let sequence = last.unwrap_or(kept);
        let topic = state_topic(&key);
        let value = match &unit.write {
            StateWrite::Put(put) => {
                let image = Image { kind: put.kind, id: &put.id, fields: put.packed.fields() };
                let state = record::State {
                    first_seen_at: put.first_seen_at,
                    changed_at: put.changed_at,
                    sequence,
                    sync: context.sync,
                    missing_since: put.missing_since,
                    missing_walks: put.missing_walks,
                    members_unread: put.members_unread,
                    ..context.state(image, after.dangling)
                };
                Some(self.framed(topic, |bytes| state.encode(bytes)))
            }
            StateWrite::PutMembership { group, member, direct, first_seen_at } => {
                let state = record::Membership {
                    first_seen_at: *first_seen_at,
                    sequence,
                    sync: context.sync,
                    ..context.membership(group, member, *direct)
                };
                Some(self.framed(topic, |bytes| state.encode(bytes)))
            }
            StateWrite::Remove { .. } | StateWrite::RemoveMembership { .. } => None,
        };
        let digest = value.as_deref().map_or(0, |value| state_digest(&key_text, value));
        let reduced = match &unit.write {
            StateWrite::Put(put) => put.packed.fields().omitted().len() > 0,
            _ => false,
        };
        records.push(Record { topic, key: key_text, value, headers: state_headers });
        Encoded { records, sequence: last, digest, reduced }
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
        Ok(Record { topic: Topic::Syncs, key, value: Some(value), headers: Headers::default() })
    }

    /// A person's request, as it goes to the `control` topic.
    ///
    /// # Errors
    /// As [`Codec::encode_change`].
    pub fn encode_control_request(&self, request: &wire::ControlRequest) -> Result<Record, String> {
        let value = self.frame(Topic::Control, request)?;
        Ok(Record {
            topic: Topic::Control,
            key: request.account.clone(),
            value: Some(value),
            headers: Headers::default(),
        })
    }
}

/// The event as CloudEvents describes it (Kafka protocol binding, binary mode).
fn headers(event: &record::Event<'_>) -> Headers {
    let headers = Headers::with_capacity(HEADERS, HEADER_BYTES)
        .and("ce_specversion", "1.0")
        .and("ce_id", event.id.as_hyphenated())
        .and("ce_source", format_args!("scimtail/{}", event.account))
        .and("ce_type", format_args!("scimtail.{}", event.event_type.as_str()))
        .and("ce_time", rfc3339(event.observed_at))
        .and("ce_sequence", Sequence(event.sequence))
        .and("content-type", "application/avro");
    let headers = match &event.privileges[..] {
        [] => headers,
        privileges => headers.and("ce_privileges", privileges.join(",")),
    };
    match event.correlation_id {
        None => headers,
        Some(id) => headers.and("ce_correlationid", id.as_hyphenated()),
    }
}

/// Of the record of the state that an event led to.
fn caused_by(event: &record::Event<'_>) -> Headers {
    Headers::with_capacity(2, CAUSE_BYTES)
        .and("ce_id", event.id.as_hyphenated())
        .and("ce_sequence", Sequence(event.sequence))
}

/// The header `ce_sequence`.
struct Sequence(i64);

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:019}", self.0)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::super::stored::{StoredMembership, StoredPrincipal};
    use super::*;
    use crate::directory::changes::Event;
    use crate::directory::principal::ENTERPRISE;
    use crate::directory::{
        AttributeChange, Entry, EventType, GroupPattern, PackedPrincipal, Principal, Put, RemovalReason,
    };

    /// What apache-avro reads of the record, encoded again by apache-avro.
    fn again<T: DeserializeOwned + Serialize>(topic: Topic, record: &Record) -> (T, Vec<u8>) {
        let datum = &record.value.as_deref().expect("no tombstone")[5..];
        let reader = schema::reader(schema::parsed(topic)).unwrap();
        let mut rest = datum;
        let value: T = reader.read_deser(&mut rest).unwrap();
        assert!(rest.is_empty(), "{} bytes are left of {topic:?}", rest.len());
        let mut bytes = datum[..0].to_vec();
        schema::writer(topic).write_ser(&mut bytes, &value).unwrap();
        (value, bytes)
    }

    fn decoded<T: DeserializeOwned>(topic: Topic, mut datum: &[u8]) -> Option<T> {
        schema::reader(schema::parsed(topic)).unwrap().read_deser(&mut datum).ok()
    }

    fn texts() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,100}")
    }

    prop_compose! {
        fn principals()(
            names in proptest::collection::vec(texts(), 4),
            active: Option<bool>,
            times in any::<[Option<i64>; 2]>(),
            attributes in proptest::collection::btree_map("[a-e]|[a-z.]{1,20}", ".{0,300}", 0..5),
            department in texts(),
            omitted in proptest::collection::vec("[a-z]{1,5}", 0..3),
            is_user: bool,
        ) -> (Kind, Principal) {
            let mut principal = Principal::new("id/1");
            let [user_name, display_name, external_id, email] = names.try_into().expect("four");
            (principal.display_name, principal.external_id) = (display_name, external_id);
            [principal.created, principal.last_modified] = times;
            (principal.attributes, principal.omitted) = (attributes, omitted);
            if is_user {
                (principal.user_name, principal.email, principal.active) = (user_name, email, active);
            }
            principal.attributes.extend(department.map(|text| (format!("{ENTERPRISE}department"), text)));
            (if is_user { Kind::User } else { Kind::Group }, principal)
        }
    }

    prop_compose! {
        fn events()(
            event_type in proptest::sample::select(EventType::ALL.to_vec()),
            changes in proptest::collection::vec(("[a-e]|[a-z]{1,9}", texts(), texts()), 0..3),
            removal_reason in proptest::option::of(Just(RemovalReason::Absent)),
            is_caused: bool,
            principal_name in texts(),
            group_name in proptest::option::of(prop_oneof![Just("CB/a/x".to_owned()), ".{0,20}"]),
            occurred_at: Option<i64>,
        ) -> Event {
            let change = |(attribute, old, new)| AttributeChange { attribute, old, new };
            Event {
                changes: changes.into_iter().map(change).collect(),
                removal_reason,
                cause: is_caused.then(|| (event_type, StateKey::Principal(Kind::Group, "g".into()))),
                principal_name,
                group_name,
                occurred_at,
                ..Event::new(event_type)
            }
        }
    }

    proptest! {
        /// apache-avro is the reference, and what readers of other languages agree with.
        #[test]
        fn a_record_has_the_bytes_that_apache_avro_gives_it(
            (kind, principal) in principals(),
            before in principals(),
            events in proptest::collection::vec(events(), 0..3),
            which in 0..4_u8,
            direct: Option<bool>,
            dangling in proptest::option::of(proptest::collection::vec("[a-z]{1,9}", 0..3)),
            numbers in any::<[i64; 4]>(),
            missing: (Option<i64>, u32),
            flags in any::<[bool; 2]>(),
            damage in proptest::collection::vec(any::<(proptest::sample::Index, u8)>(), 0..3),
            cut in 0..3_usize,
        ) {
            let mut account = Account::unconfigured("acme", "scimtail", 0);
            account.pattern = Some(GroupPattern::parse("CB/{domain}/{name}").unwrap());
            // One letter is the path of many changes and attributes.
            account.privileges = ["a", "e", "i", "o"].map(str::to_owned).to_vec();
            let mut known = Known::new(1);
            let (known_kind, known_principal) = before;
            let packed = PackedPrincipal::pack(&known_principal);
            let entry = Entry {
                packed: packed.borrowed(),
                digest: 7,
                first_seen_at: 0,
                changed_at: 0,
                sequence: numbers[0],
                missing_since: None,
                missing_walks: 0,
                members_unread: false,
            };
            known.put_principal(known_kind, "id/1", &entry, None);
            let member = Member { kind, id: "id/1".into() };
            let write = match which {
                0 => StateWrite::Remove { kind, id: "id/1".into() },
                1 => StateWrite::PutMembership { group: "g".into(), member, direct, first_seen_at: numbers[1] },
                2 => StateWrite::RemoveMembership { group: "g".into(), member },
                _ => StateWrite::Put(Box::new(Put {
                    kind,
                    id: "id/1".into(),
                    packed: PackedPrincipal::pack(&principal),
                    dangling: dangling.map(|ids| ids.into_iter().map(Into::into).collect()),
                    first_seen_at: numbers[1],
                    changed_at: numbers[2],
                    missing_since: missing.0,
                    missing_walks: missing.1,
                    members_unread: flags[0],
                })),
            };
            let unit = KeyChange { events, write, observed_at: 0, loses_attribute: false, snapshot: flags[1] };
            let context = EventContext::new(&account, &known, &SyncStatus::initial(account.settings(), 0));
            let codec = Codec { ids: schema::SchemaIds([1; Topic::ALL.len()]) };
            let (mut sequence, mut counted) = (numbers[3] >> 1, numbers[3] >> 1);
            let encoded = codec.encode_change(&context, &known, &unit, &mut sequence);
            let events = context.change_events(&known, &unit, &mut counted);
            prop_assert_eq!(sequence, counted);
            for (record, event) in encoded.records.iter().zip(&events) {
                let header = record.headers.get("ce_privileges");
                prop_assert_eq!(header.unwrap_or_default(), event.privileges.join(","));
                let (read, bytes) = again::<wire::ChangeEvent>(Topic::Events, record);
                prop_assert_eq!((&bytes[..], &read), (&record.value.as_ref().unwrap()[5..], event));
            }
            let state = encoded.records.last().unwrap();
            let Some(datum) = state.value.as_ref().map(|value| &value[5..]) else { return Ok(()) };
            let bytes = match state.topic {
                Topic::Users => {
                    let (read, bytes) = again::<wire::UserState>(Topic::Users, state);
                    prop_assert_eq!(read.clone().into_principal(), principal);
                    prop_assert_eq!(StoredPrincipal::read(Kind::User, datum), Some(read.into()));
                    bytes
                }
                Topic::Groups => {
                    let (read, bytes) = again::<wire::GroupState>(Topic::Groups, state);
                    prop_assert_eq!(read.clone().into_principal(), principal);
                    prop_assert_eq!(StoredPrincipal::read(Kind::Group, datum), Some(read.into()));
                    bytes
                }
                topic => {
                    let (read, bytes) = again::<wire::MembershipState>(topic, state);
                    prop_assert_eq!(StoredMembership::read(datum), Some(read.into()));
                    bytes
                }
            };
            prop_assert_eq!(&bytes[..], datum);
            // Whatever else is in a topic: what is read of it is what apache-avro reads.
            let mut broken = datum.to_vec();
            for (at, byte) in damage {
                let at = at.index(broken.len());
                broken[at] = byte;
            }
            let broken = &broken[..broken.len() - cut.min(broken.len())];
            match state.topic {
                Topic::Users => {
                    let read = StoredPrincipal::read(Kind::User, broken);
                    prop_assert!(read.is_none() || read == decoded::<wire::UserState>(Topic::Users, broken).map(Into::into));
                }
                Topic::Groups => {
                    let read = StoredPrincipal::read(Kind::Group, broken);
                    prop_assert!(read.is_none() || read == decoded::<wire::GroupState>(Topic::Groups, broken).map(Into::into));
                }
                topic => {
                    let read = StoredMembership::read(broken);
                    prop_assert!(read.is_none() || read == decoded::<wire::MembershipState>(topic, broken).map(Into::into));
                }
            }
        }
    }
}
