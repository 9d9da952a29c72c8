//! Security event tokens (RFC 8417) of the SCIM profile (RFC 9967): the claims, and their signature.
//!
//! A token has one event. `iat` is when the sync read it, so the same event always gives the same token. `txn` joins the
//! tokens of one cause. There is no event type for memberships, so they are a patch of the group's `members`
//! (RFC 9967 §2.4.2). That holds for a baseline too, because `feed:add` is about a resource without content: it could name
//! the group but not the member. A private claim marks each token of a baseline. `feed:add` means "known", not "new"
//! (§2.3.1), and `feed:remove` means "no longer seen", not "deleted" (§2.3.2).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::change::{self, object};
use super::{Action, Change, Subject};
use crate::avro::wire::{AttributeChange, Group, User};
use crate::jwt;

const EVENT: &str = "urn:ietf:params:scim:event:";
/// A private claim (RFC 7519 §4.3), present and true on the events of a first sync. Recipients ignore unknown claims (§4).
const BASELINE: &str = "scimtail_baseline";
const PATCH_OP: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// Characters that a path segment has unescaped: the unreserved ones (RFC 3986 §3.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The claims of the token.
pub fn value(change: &Change<'_>) -> Value {
    let event = change.event;
    let (name, payload) = payload(change);
    let (endpoint, id, external_id) = match change.subject {
        Subject::User => ("Users", event.principal_id.clone(), change.person().external_id),
        _ => ("Groups", change.team().id, change.team().external_id),
    };
    let subject = object([
        ("externalId", external_id.into()),
        ("format", "scim".into()),
        ("uri", format!("/{endpoint}/{}", utf8_percent_encode(&id, SEGMENT)).into()),
    ]);
    object([
        ("events", json!({ format!("{EVENT}{name}"): payload })),
        ("iat", event.observed_at.div_euclid(1_000).into()),
        ("iss", format!("scimtail/{}", event.account).into()),
        ("jti", event.event_id.clone().into()),
        (BASELINE, if event.snapshot { true.into() } else { Value::Null }),
        ("sub_id", subject),
        ("toe", event.occurred_at.map(|millis| millis.div_euclid(1_000)).into()),
        ("txn", event.correlation_id.as_ref().unwrap_or(&event.event_id).clone().into()),
    ])
}

fn payload(change: &Change<'_>) -> (&'static str, Value) {
    let event = change.event;
    let nothing = || json!({});
    match (change.subject, change.action) {
        (Subject::Membership, Action::Removed) | (Subject::NestedMembership, Action::Removed) => {
            // A value path (RFC 7644 §3.5.2), in which strings are those of JSON.
            let path = format!("members[value eq {}]", Value::from(event.principal_id.as_str()));
            patch(vec![json!({ "op": "remove", "path": path })])
        }
        (Subject::Membership, _) => patch(vec![add_member(&event.principal_id, "User")]),
        (Subject::NestedMembership, _) => patch(vec![add_member(&event.principal_id, "Group")]),
        (_, Action::Known) => ("feed:add", nothing()),
        (_, Action::Added) => {
            let resource = match (&event.user, &event.group) {
                (Some(user), _) => user_resource(user),
                (_, Some(group)) => group_resource(group),
                _ => nothing(),
            };
            ("prov:create:full", json!({ "data": resource }))
        }
        (_, Action::Updated) => {
            let mut operations: Vec<Value> = event.changes.iter().filter_map(operation).collect();
            // Operations apply in their order. Removals come first, so that they do not remove a part of an added value.
            operations.sort_by_key(|operation| operation["op"] != "remove");
            patch(operations)
        }
        (_, Action::Enabled) => ("prov:activate", nothing()),
        (_, Action::Disabled) => ("prov:deactivate", nothing()),
        (_, Action::Removed) => {
            let means = event.removal_means.as_deref();
            let name = match event.removal_reason.as_deref() {
                // A removal from a baseline only says that the resource is not in the feed after all.
                _ if event.snapshot => "feed:remove",
                Some("not_found") if means == Some("deactivated") => "prov:deactivate",
                Some("not_found") => "prov:delete",
                _ => "feed:remove",
            };
            (name, nothing())
        }
    }
}

fn patch(operations: Vec<Value>) -> (&'static str, Value) {
    ("prov:patch:full", json!({ "data": { "schemas": [PATCH_OP], "Operations": operations } }))
}

fn add_member(id: &str, kind: &str) -> Value {
    json!({ "op": "add", "path": "members", "value": [{ "value": id, "type": kind }] })
}

/// `None` for a value that comes from the name of the group, because it is not a SCIM attribute.
fn operation(one: &AttributeChange) -> Option<Value> {
    let path = &one.attribute;
    if path.starts_with("entitlement_") {
        return None;
    }
    let value = |text: &str| scim_value(path, text);
    Some(match (&one.old_value, &one.new_value) {
        (_, None) => json!({ "op": "remove", "path": path }),
        (None, Some(new)) => json!({ "op": "add", "path": path, "value": value(new) }),
        (Some(_), Some(new)) => json!({ "op": "replace", "path": path, "value": value(new) }),
    })
}

/// A value in the form of SCIM. Events have times as milliseconds, SCIM has them as text (RFC 7643 §2.3.5).
fn scim_value(path: &str, text: &str) -> Value {
    match (path, change::json(text)) {
        ("meta.created", Value::Number(millis)) => millis.as_i64().map(time).into(),
        (_, value) => value,
    }
}

fn time(millis: i64) -> String {
    crate::avro::codec::rfc3339(millis)
}

fn user_resource(user: &User) -> Value {
    let mut resource = Map::new();
    let mut schemas = vec![USER_SCHEMA.to_owned()];
    for (path, text) in &user.attributes {
        place(&mut resource, &mut schemas, path, change::json(text));
    }
    let fields = object([
        ("active", user.active.into()),
        ("displayName", user.display_name.clone().into()),
        ("externalId", user.external_id.clone().into()),
        ("id", user.id.clone().into()),
        ("meta", meta("User", user.created, user.last_modified)),
        ("schemas", schemas.into()),
        ("userName", user.user_name.clone().into()),
    ]);
    finished(resource, fields)
}

fn group_resource(group: &Group) -> Value {
    let mut resource = Map::new();
    let mut schemas = vec![GROUP_SCHEMA.to_owned()];
    for (path, text) in &group.attributes {
        place(&mut resource, &mut schemas, path, change::json(text));
    }
    let fields = object([
        ("displayName", group.display_name.clone().into()),
        ("externalId", group.external_id.clone().into()),
        ("id", group.id.clone().into()),
        ("meta", meta("Group", group.created, group.last_modified)),
        ("schemas", schemas.into()),
    ]);
    finished(resource, fields)
}

fn meta(resource_type: &str, created: Option<i64>, last_modified: Option<i64>) -> Value {
    object([
        ("created", created.map(time).into()),
        ("lastModified", last_modified.map(time).into()),
        ("resourceType", resource_type.into()),
    ])
}

fn finished(mut resource: Map<String, Value>, fields: Value) -> Value {
    if let Value::Object(fields) = fields {
        resource.extend(fields);
    }
    Value::Object(resource)
}

/// Inserts an attribute at its path (RFC 7644 §3.10): `name.familyName`, or below the URN of its extension.
fn place(resource: &mut Map<String, Value>, schemas: &mut Vec<String>, path: &str, value: Value) {
    let (into, path) = match path.rsplit_once(':') {
        Some((urn, attribute)) => {
            if !schemas.iter().any(|schema| schema == urn) {
                schemas.push(urn.to_owned());
            }
            let extension = resource.entry(urn).or_insert_with(|| json!({}));
            match extension.as_object_mut() {
                Some(extension) => (extension, attribute),
                None => return,
            }
        }
        None => (resource, path),
    };
    match path.split_once('.') {
        Some((head, sub_attribute)) => {
            let complex = into.entry(head).or_insert_with(|| json!({}));
            if let Some(complex) = complex.as_object_mut() {
                complex.insert(sub_attribute.to_owned(), value);
            }
        }
        None => drop(into.insert(path.to_owned(), value)),
    }
}

/// Signs tokens with one key.
pub struct Signer(jwt::Signer);

impl Signer {
    /// # Errors
    /// As `jwt::Signer::from_pem`.
    pub fn from_pem(pem: &[u8]) -> Result<Signer, String> {
        // RFC 8417 §2.3.
        jwt::Signer::from_pem(pem, "secevent+jwt", None).map(Signer)
    }

    /// # Errors
    /// As `jwt::Signer::sign`.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        self.0.sign(claims)
    }
}
