//! The records that a sync writes for each change, as borrowed from what is known and what was read. Their fields are
//! those of the Avro schemas, in their order (`schemas/README.md`).

use uuid::Uuid;

use super::datum::{block, boolean, long, optional, text};
use super::wire;
use crate::directory::packed::Fields;
use crate::directory::{AttributeChange, Entitlement, EventType, Id, Kind, Member, RemovalReason};

/// A principal as a record shows it.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub kind: Kind,
    pub id: &'a str,
    pub fields: Fields<'a>,
}

/// An event, see [`wire::ChangeEvent`].
pub(super) struct Event<'a> {
    pub id: Uuid,
    pub event_type: EventType,
    pub account: &'a str,
    pub provider: &'a str,
    pub sequence: i64,
    pub sync: i64,
    pub snapshot: bool,
    pub kind: Kind,
    pub principal_id: &'a str,
    pub principal_name: Option<&'a str>,
    pub group_id: Option<&'a str>,
    pub group_name: Option<&'a str>,
    pub entitlement: Entitlement,
    pub observed_at: i64,
    pub window_start: Option<i64>,
    pub occurred_at: Option<i64>,
    pub removal_reason: Option<RemovalReason>,
    pub removal_means: Option<&'a str>,
    pub correlation_id: Option<Uuid>,
    pub changes: &'a [AttributeChange],
    pub image: Option<Image<'a>>,
    pub privileges: Vec<&'a str>,
}

/// The state of a user, see [`wire::UserState`], or of a group, see [`wire::GroupState`].
pub(super) struct State<'a> {
    pub account: &'a str,
    pub provider: &'a str,
    pub image: Image<'a>,
    pub first_seen_at: i64,
    pub changed_at: i64,
    pub sequence: i64,
    pub sync: i64,
    pub missing_since: Option<i64>,
    pub missing_walks: u32,
    /// Groups only, from here on.
    pub entitlement: Entitlement,
    pub dangling: &'a [Id],
    pub members_unread: bool,
}

/// A membership, see [`wire::MembershipState`].
pub(super) struct Membership<'a> {
    pub account: &'a str,
    pub provider: &'a str,
    pub member: &'a Member,
    pub group: &'a str,
    pub direct: Option<bool>,
    pub first_seen_at: i64,
    pub sequence: i64,
    pub sync: i64,
}

impl<'a> Image<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        text(out, self.id);
        self.put_fields(out);
    }

    /// All but the id.
    fn put_fields(&self, out: &mut Vec<u8>) {
        let fields = &self.fields;
        if self.kind == Kind::User {
            optional(out, fields.user_name, text);
        }
        optional(out, fields.display_name, text);
        if self.kind == Kind::User {
            optional(out, fields.active, boolean);
        }
        optional(out, fields.external_id, text);
        if self.kind == Kind::User {
            optional(out, fields.email, text);
        }
        optional(out, fields.created, long);
        optional(out, fields.last_modified, long);
        block(out, fields.attributes(), |out, (path, value)| {
            text(out, path);
            long(out, value.len() as i64);
            value.append_to(out);
        });
    }

    /// What a person would call it.
    pub fn name(&self) -> Option<&'a str> {
        self.fields.name()
    }
}

impl Event<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        text(out, hyphenated(&self.id, &mut [0; 36]));
        text(out, self.event_type.as_str());
        text(out, self.account);
        text(out, self.provider);
        long(out, self.sequence);
        long(out, self.sync);
        boolean(out, self.snapshot);
        text(out, self.kind.principal_type());
        text(out, self.principal_id);
        optional(out, self.principal_name, text);
        optional(out, self.group_id, text);
        optional(out, self.group_name, text);
        put_entitlement(out, &self.entitlement);
        long(out, self.observed_at);
        optional(out, self.window_start, long);
        optional(out, self.occurred_at, long);
        optional(out, self.removal_reason.map(RemovalReason::as_str), text);
        optional(out, self.removal_means, text);
        optional(out, self.correlation_id, |out, id| text(out, hyphenated(&id, &mut [0; 36])));
        match &self.image {
            Some(image) => block(out, image.fields.omitted(), text),
            None => long(out, 0),
        }
        block(out, self.changes.iter(), |out, change| text(out, &change.attribute));
        block(out, self.changes.iter(), |out, change| {
            text(out, &change.attribute);
            optional(out, change.old.as_deref(), text);
            optional(out, change.new.as_deref(), text);
        });
        for kind in Kind::BOTH {
            optional(out, self.image.filter(|image| image.kind == kind), |out, image| image.put(out));
        }
        block(out, self.privileges.iter(), |out, path| text(out, path));
    }

    /// The same, owned: for those that read it field by field.
    pub fn to_wire(&self) -> wire::ChangeEvent {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let [entitlement_domain, entitlement_kind, entitlement_name] = parts(&self.entitlement).map(owned);
        let principal = |kind| {
            let image = self.image.filter(|image| image.kind == kind);
            image.map(|image| image.fields.to_principal(image.id.into()))
        };
        wire::ChangeEvent {
            event_id: self.id.to_string(),
            event_type: self.event_type.as_str().to_owned(),
            account: self.account.to_owned(),
            provider: self.provider.to_owned(),
            sequence: self.sequence,
            sync: self.sync,
            snapshot: self.snapshot,
            principal_type: self.kind.principal_type().to_owned(),
            principal_id: self.principal_id.to_owned(),
            principal_name: owned(self.principal_name),
            group_id: owned(self.group_id),
            group_name: owned(self.group_name),
            entitlement_domain,
            entitlement_kind,
            entitlement_name,
            observed_at: self.observed_at,
            window_start: self.window_start,
            occurred_at: self.occurred_at,
            removal_reason: self.removal_reason.map(|reason| reason.as_str().to_owned()),
            removal_means: owned(self.removal_means),
            correlation_id: self.correlation_id.map(|id| id.to_string()),
            omitted_attributes: self
                .image
                .map(|image| image.fields.omitted().map(str::to_owned).collect())
                .unwrap_or_default(),
            changed_attributes: self.changes.iter().map(|change| change.attribute.clone()).collect(),
            changes: self
                .changes
                .iter()
                .map(|change| wire::AttributeChange {
                    attribute: change.attribute.clone(),
                    old_value: change.old.clone(),
                    new_value: change.new.clone(),
                })
                .collect(),
            user: principal(Kind::User).map(Into::into),
            group: principal(Kind::Group).map(Into::into),
            privileges: self.privileges.iter().map(ToString::to_string).collect(),
        }
    }
}

impl State<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        text(out, self.account);
        text(out, self.provider);
        self.image.put(out);
        long(out, self.first_seen_at);
        long(out, self.changed_at);
        long(out, self.sequence);
        long(out, self.sync);
        optional(out, self.missing_since, long);
        long(out, i64::from(self.missing_walks));
        block(out, self.image.fields.omitted(), text);
        if self.image.kind == Kind::Group {
            put_entitlement(out, &self.entitlement);
            block(out, fitting(self.dangling).iter(), |out, id| text(out, id));
            boolean(out, self.members_unread);
        }
    }
}

impl Membership<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        text(out, self.account);
        text(out, self.provider);
        text(out, self.member.kind.principal_type());
        text(out, &self.member.id);
        text(out, self.group);
        optional(out, self.direct, boolean);
        long(out, self.first_seen_at);
        long(out, self.sequence);
        long(out, self.sync);
    }
}

fn hyphenated<'b>(id: &Uuid, buffer: &'b mut [u8; 36]) -> &'b str {
    id.as_hyphenated().encode_lower(buffer)
}

/// Domain, kind and name; what the pattern does not name is absent.
fn parts(entitlement: &Entitlement) -> [Option<&str>; 3] {
    [&entitlement.domain, &entitlement.kind, &entitlement.name].map(|text| (!text.is_empty()).then_some(text.as_str()))
}

fn put_entitlement(out: &mut Vec<u8>, entitlement: &Entitlement) {
    parts(entitlement).into_iter().for_each(|part| optional(out, part, text));
}

/// Ids of dangling members that fit into a record beside the rest. Those that are cut are asked for again after a
/// restore.
fn fitting(dangling: &[Id]) -> &[Id] {
    const DANGLING_BYTES_MAX: usize = 300_000;
    let mut left = DANGLING_BYTES_MAX;
    let fits = |id: &&Id| match left.checked_sub(id.len() + 2) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    &dangling[..dangling.iter().take_while(fits).count()]
}
