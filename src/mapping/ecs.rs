//! Elastic Common Schema 9.4 (elastic.co/docs/reference/ecs), category `iam`.
//!
//! `user.target` is the user before the change, and `user.changes` has the values that differ after it (ECS, User Fields
//! Usage and Examples). The actor is unknown, so the event has one user, and ECS expects that one at the root too.
//! `labels` has the values without a field in ECS.

use serde_json::{Value, json};

use super::change::{Person, object};
use super::{Action, Change, Subject};
use crate::avro::codec::rfc3339;

/// The version of ECS in the output.
pub const VERSION: &str = "9.4.0";

/// `event.severity` has the scale of the source (ECS, Event Fields): that of `severity_id` in OCSF.
const INFORMATIONAL: i64 = 1;
const LOW: i64 = 2;

pub fn value(change: &Change<'_>) -> Value {
    let event = change.event;
    let kind = if change.action == Action::Known { "asset" } else { "event" };
    let (target, changes) = match change.subject {
        Subject::User if change.action == Action::Updated => {
            let (before, after) = (change.person_before(), change.person());
            (user(&before), different(&before, &after))
        }
        Subject::User => (user(&change.person()), Value::Null),
        Subject::Membership => {
            let mut target = user(&change.person());
            let team = change.team();
            target["group"] = object([("id", team.id.into()), ("name", team.name.into())]);
            (target, Value::Null)
        }
        Subject::Group | Subject::NestedMembership => (Value::Null, Value::Null),
    };
    let mut root = Value::Null;
    if matches!(change.subject, Subject::User | Subject::Membership) {
        root = user(&change.person());
        for (name, value) in [("target", target), ("changes", changes)] {
            if value.as_object().is_some_and(|fields| !fields.is_empty()) {
                root[name] = value;
            }
        }
    }
    let group = match change.subject {
        Subject::Group | Subject::NestedMembership => {
            let team = change.team();
            object([("id", team.id.into()), ("name", team.name.into())])
        }
        Subject::User | Subject::Membership => Value::Null,
    };
    object([
        ("@timestamp", rfc3339(change.time()).into()),
        ("ecs", json!({ "version": VERSION })),
        (
            "event",
            object([
                ("action", action(change).into()),
                ("category", json!(["iam"])),
                ("code", event.event_type.clone().into()),
                ("created", rfc3339(event.observed_at).into()),
                ("dataset", "scimtail.events".into()),
                ("id", event.event_id.clone().into()),
                ("kind", kind.into()),
                ("module", "scimtail".into()),
                ("outcome", if kind == "event" { "success".into() } else { Value::Null }),
                ("provider", event.provider.clone().into()),
                ("reason", event.removal_reason.clone().into()),
                ("sequence", event.sequence.into()),
                ("severity", if change.is_of_privileges() { LOW } else { INFORMATIONAL }.into()),
                ("type", types(change).into()),
            ]),
        ),
        ("group", group),
        ("labels", labels(change)),
        ("message", change.message().into()),
        ("related", object([("user", related(change).into())])),
        ("user", root),
    ])
}

fn types(change: &Change<'_>) -> Vec<&'static str> {
    let subject = match change.subject {
        Subject::User | Subject::Membership => "user",
        Subject::Group | Subject::NestedMembership => "group",
    };
    let happened = match (change.subject, change.action) {
        (_, Action::Known) => "info",
        (Subject::User | Subject::Group, Action::Added) => "creation",
        (Subject::User | Subject::Group, Action::Removed) => "deletion",
        _ => "change",
    };
    vec![subject, happened]
}

/// `user-added`, and for memberships what happened to the member. The words for a baseline never say that it changed.
fn action(change: &Change<'_>) -> String {
    match (change.subject, change.action) {
        (Subject::User, Action::Known) => "user-known".to_owned(),
        (Subject::Group, Action::Known) => "group-known".to_owned(),
        (Subject::Membership, Action::Known) => "user-known-in-group".to_owned(),
        (Subject::NestedMembership, Action::Known) => "group-known-in-group".to_owned(),
        (Subject::Membership, Action::Removed) => "user-removed-from-group".to_owned(),
        (Subject::Membership, _) => "user-added-to-group".to_owned(),
        (Subject::NestedMembership, Action::Removed) => "group-removed-from-group".to_owned(),
        (Subject::NestedMembership, _) => "group-added-to-group".to_owned(),
        (Subject::User | Subject::Group, _) => change.event.event_type.replace('.', "-"),
    }
}

fn user(person: &Person) -> Value {
    object([
        ("email", person.email.clone().into()),
        ("full_name", person.display_name.clone().into()),
        ("id", person.id.clone().into()),
        ("name", person.user_name.clone().into()),
        ("roles", person.roles.clone().into()),
    ])
}

/// The values of `after` that differ; the id never does.
fn different(before: &Person, after: &Person) -> Value {
    let new = |before: &Option<String>, after: &Option<String>| after.clone().filter(|_| before != after).into();
    object([
        ("email", new(&before.email, &after.email)),
        ("full_name", new(&before.display_name, &after.display_name)),
        ("name", new(&before.user_name, &after.user_name)),
        ("roles", if before.roles == after.roles { Value::Null } else { after.roles.clone().into() }),
    ])
}

/// Every name and id of the user in the event, also the old ones.
fn related(change: &Change<'_>) -> Vec<String> {
    if !matches!(change.subject, Subject::User | Subject::Membership) {
        return Vec::new();
    }
    let mut names: Vec<String> = [change.person(), change.person_before()]
        .into_iter()
        .flat_map(|person| [Some(person.id), person.user_name, person.display_name, person.email])
        .flatten()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Keywords under the names of `ChangeEvent`.
fn labels(change: &Change<'_>) -> Value {
    let event = change.event;
    let time = |millis: Option<i64>| millis.map(rfc3339);
    let subgroup = (change.subject == Subject::NestedMembership).then(|| change.subgroup());
    let active = event.user.as_ref().and_then(|user| user.active);
    object([
        ("account", event.account.clone().into()),
        ("active", active.map(|active| active.to_string()).into()),
        ("changed_attributes", event.changed_attributes.clone().into()),
        ("correlation_id", event.correlation_id.clone().into()),
        ("entitlement_domain", event.entitlement_domain.clone().into()),
        ("entitlement_kind", event.entitlement_kind.clone().into()),
        ("entitlement_name", event.entitlement_name.clone().into()),
        ("member_group_id", subgroup.as_ref().map(|team| team.id.clone()).into()),
        ("member_group_name", subgroup.and_then(|team| team.name).into()),
        ("omitted_attributes", event.omitted_attributes.clone().into()),
        ("privileges", event.privileges.clone().into()),
        ("removal_means", event.removal_means.clone().into()),
        ("snapshot", event.snapshot.to_string().into()),
        ("sync", event.sync.to_string().into()),
        ("window_start", time(event.window_start).into()),
    ])
}
