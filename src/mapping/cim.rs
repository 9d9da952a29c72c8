//! Splunk Common Information Model, data model Change, dataset Account_Management (docs.splunk.com, CIM 4.17 and
//! later).
//!
//! The model prescribes the values of `action`. It has none for enabling, disabling or joining, so those are `modified`,
//! and `result` says which, in the words of Splunk's OCSF add-on. `src_user`, the actor, is unknown. Fields of the model
//! are at the top, everything else is under `scimtail`.

use serde_json::{Value, json};

use super::change::{object, plain};
use super::{Action, Change, Subject};
use crate::avro::codec::rfc3339;

pub fn value(change: &Change<'_>) -> Value {
    let event = change.event;
    let (person, team) = (change.person(), change.team());
    let user = person.user_name.clone().or_else(|| person.display_name.clone()).unwrap_or_else(|| person.id.clone());
    let is_person = matches!(change.subject, Subject::User | Subject::Membership);
    let (category, object_name, object_id) = match change.subject {
        Subject::User => ("account", user.clone(), person.id.clone()),
        _ => ("group", team.name.clone().unwrap_or_else(|| team.id.clone()), team.id.clone()),
    };
    let attributes = match (change.subject, change.action) {
        (_, Action::Known) => Vec::new(),
        (Subject::Membership | Subject::NestedMembership, _) => vec!["members".to_owned()],
        (_, Action::Disabled | Action::Enabled) => vec!["active".to_owned()],
        _ => event.changed_attributes.clone(),
    };
    object([
        // First, because Splunk takes the first time in an event.
        ("_time", rfc3339(change.time()).into()),
        ("action", action(change).into()),
        ("change_type", "AAA".into()),
        ("dest", event.account.clone().into()),
        ("dvc", "scimtail".into()),
        ("object", object_name.into()),
        ("object_attrs", attributes.into()),
        ("object_category", category.into()),
        ("object_id", object_id.into()),
        ("result", result(change).into()),
        ("scimtail", rest(change)),
        ("status", "success".into()),
        ("tag", json!(["account", "change"])),
        ("user", if is_person { user.into() } else { Value::Null }),
        ("vendor_product", "scimtail".into()),
    ])
}

fn action(change: &Change<'_>) -> &'static str {
    match (change.subject, change.action) {
        (_, Action::Known) => "read",
        (Subject::User | Subject::Group, Action::Added) => "created",
        (Subject::User | Subject::Group, Action::Removed) => "deleted",
        _ => "modified",
    }
}

/// What kind of `modified` it is.
fn result(change: &Change<'_>) -> Option<&'static str> {
    match (change.subject, change.action) {
        (_, Action::Disabled) => Some("disabled"),
        (_, Action::Enabled) => Some("enabled"),
        (Subject::Membership, Action::Added) => Some("add_user"),
        (Subject::Membership, Action::Removed) => Some("remove_user"),
        (Subject::NestedMembership, Action::Added) => Some("add_subgroup"),
        (Subject::NestedMembership, Action::Removed) => Some("remove_subgroup"),
        _ => None,
    }
}

/// Values without a field in the model, under the names of `ChangeEvent`.
fn rest(change: &Change<'_>) -> Value {
    let event = change.event;
    let changes = event.changes.iter().map(|one| {
        let value = |text: &Option<String>| Value::from(text.as_deref().map(plain));
        object([
            ("attribute", one.attribute.clone().into()),
            ("new_value", value(&one.new_value)),
            ("old_value", value(&one.old_value)),
        ])
    });
    let subgroup = (change.subject == Subject::NestedMembership).then(|| change.subgroup());
    let user = event.user.as_ref();
    object([
        ("active", user.and_then(|user| user.active).into()),
        ("changes", changes.collect()),
        ("correlation_id", event.correlation_id.clone().into()),
        ("display_name", user.and_then(|user| user.display_name.clone()).into()),
        ("email", user.and_then(|user| user.email.clone()).into()),
        ("entitlement_domain", event.entitlement_domain.clone().into()),
        ("entitlement_kind", event.entitlement_kind.clone().into()),
        ("entitlement_name", event.entitlement_name.clone().into()),
        ("event_id", event.event_id.clone().into()),
        ("event_type", event.event_type.clone().into()),
        ("member_group_id", subgroup.as_ref().map(|team| team.id.clone()).into()),
        ("member_group_name", subgroup.and_then(|team| team.name).into()),
        ("observed_at", rfc3339(event.observed_at).into()),
        ("omitted_attributes", event.omitted_attributes.clone().into()),
        ("privileges", event.privileges.clone().into()),
        ("provider", event.provider.clone().into()),
        ("removal_means", event.removal_means.clone().into()),
        ("removal_reason", event.removal_reason.clone().into()),
        ("sequence", event.sequence.into()),
        ("snapshot", event.snapshot.into()),
        ("sync", event.sync.into()),
        ("user_id", (change.subject == Subject::Membership).then(|| event.principal_id.clone()).into()),
        ("window_start", event.window_start.map(rfc3339).into()),
    ])
}
