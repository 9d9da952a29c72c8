//! Microsoft Sentinel's Advanced Security Information Model, schema UserManagement 0.1.2
//! (learn.microsoft.com/azure/sentinel/normalization-schema-user-management).
//!
//! A row of ASIM has one changed property, so an update of three attributes becomes three rows with the same
//! `EventOriginalUid`. The actor is unknown, so no `Actor` field is filled. `AdditionalFields` has the values without a
//! column in ASIM.

use serde_json::{Map, Value};

use super::change::{object, plain};
use super::{Action, Change, Subject};
use crate::avro::codec::rfc3339;

pub const VERSION: &str = "0.1.2";

/// The rows of an event; at least one.
pub fn values(change: &Change<'_>) -> Vec<Value> {
    let property = |name: &str, old: Option<String>, new: Option<String>| {
        let Value::Object(fields) = object([
            ("EventSubType", name.into()),
            ("NewPropertyValue", new.into()),
            ("PreviousPropertyValue", old.into()),
            ("UpdatedPropertyName", name.into()),
        ]) else {
            return Map::new();
        };
        fields
    };
    let each = |one: &crate::avro::wire::AttributeChange| {
        let text = |value: &Option<String>| value.as_deref().map(plain);
        property(&one.attribute, text(&one.old_value), text(&one.new_value))
    };
    let member = || Some(change.event.principal_id.clone());
    let properties: Vec<Map<String, Value>> = match (change.subject, change.action) {
        (_, Action::Updated) => change.event.changes.iter().map(each).collect(),
        (Subject::NestedMembership, Action::Added) => vec![property("members", None, member())],
        (Subject::NestedMembership, Action::Removed) => vec![property("members", member(), None)],
        _ => Vec::new(),
    };
    if properties.is_empty() {
        return vec![Value::Object(row(change))];
    }
    let rows = properties.into_iter().map(|property| {
        let mut row = row(change);
        row.extend(property);
        Value::Object(row)
    });
    rows.collect()
}

fn event_type(change: &Change<'_>) -> &'static str {
    match (change.subject, change.action) {
        (Subject::User | Subject::Membership, Action::Known) => "UserRead",
        (Subject::Group | Subject::NestedMembership, Action::Known) => "GroupRead",
        (Subject::User, Action::Added) => "UserCreated",
        (Subject::User, Action::Updated) => "UserModified",
        (Subject::User, Action::Disabled) => "UserDisabled",
        (Subject::User, Action::Enabled) => "UserEnabled",
        (Subject::User, Action::Removed) => "UserDeleted",
        (Subject::Group, Action::Added) => "GroupCreated",
        (Subject::Group, Action::Removed) => "GroupDeleted",
        (Subject::Membership, Action::Removed) => "UserRemovedFromGroup",
        (Subject::Membership, _) => "UserAddedToGroup",
        // A group in a group. In ASIM, only users are added to groups.
        (Subject::Group | Subject::NestedMembership, _) => "GroupModified",
    }
}

fn row(change: &Change<'_>) -> Map<String, Value> {
    let event = change.event;
    let time = rfc3339(change.time());
    let person = matches!(change.subject, Subject::User | Subject::Membership).then(|| change.person());
    let team = (change.subject != Subject::User).then(|| change.team());
    let user_id = person.as_ref().map(|person| person.id.clone());
    let scope = person.as_ref().map(|_| event.account.clone());
    let user_name = person.and_then(|person| person.user_name.or(person.display_name));
    let user_name_type = user_name.as_deref().map(|name| if is_principal_name(name) { "UPN" } else { "Simple" });
    let (group_id, group_name) = team.map_or((None, None), |team| (Some(team.id), team.name));
    let row = object([
        ("AdditionalFields", rest(change)),
        ("Dvc", "scimtail".into()),
        ("EventCount", 1.into()),
        ("EventEndTime", time.clone().into()),
        ("EventMessage", change.message().into()),
        ("EventOriginalType", event.event_type.clone().into()),
        ("EventOriginalUid", event.event_id.clone().into()),
        ("EventProduct", "scimtail".into()),
        ("EventResult", "Success".into()),
        ("EventSchema", "UserManagement".into()),
        ("EventSchemaVersion", VERSION.into()),
        ("EventSeverity", if change.is_of_privileges() { "Low" } else { "Informational" }.into()),
        ("EventStartTime", time.clone().into()),
        ("EventType", event_type(change).into()),
        ("EventVendor", "scimtail".into()),
        ("GroupId", group_id.clone().into()),
        ("GroupIdType", group_id.map(|_| "Other").into()),
        ("GroupName", group_name.clone().into()),
        ("GroupNameType", group_name.map(|_| "Simple").into()),
        ("TargetUserId", user_id.clone().into()),
        ("TargetUserIdType", user_id.map(|_| "Other").into()),
        ("TargetUserScope", scope.into()),
        ("TargetUsername", user_name.into()),
        ("TargetUsernameType", user_name_type.into()),
        ("TimeGenerated", time.into()),
    ]);
    match row {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn is_principal_name(name: &str) -> bool {
    name.split_once('@').is_some_and(|(user, domain)| !user.is_empty() && domain.contains('.'))
        && !name.contains(char::is_whitespace)
}

/// Values without a column in ASIM, under the names of `ChangeEvent`.
fn rest(change: &Change<'_>) -> Value {
    let event = change.event;
    let member = (change.subject == Subject::NestedMembership).then(|| change.subgroup());
    object([
        ("account", event.account.clone().into()),
        ("correlation_id", event.correlation_id.clone().into()),
        ("entitlement_domain", event.entitlement_domain.clone().into()),
        ("entitlement_kind", event.entitlement_kind.clone().into()),
        ("entitlement_name", event.entitlement_name.clone().into()),
        ("member_group_id", member.as_ref().map(|team| team.id.clone()).into()),
        ("member_group_name", member.and_then(|team| team.name).into()),
        ("observed_at", rfc3339(event.observed_at).into()),
        ("omitted_attributes", event.omitted_attributes.clone().into()),
        ("privileges", event.privileges.clone().into()),
        ("provider", event.provider.clone().into()),
        ("removal_means", event.removal_means.clone().into()),
        ("removal_reason", event.removal_reason.clone().into()),
        ("sequence", event.sequence.into()),
        ("snapshot", event.snapshot.into()),
        ("sync", event.sync.into()),
        ("window_start", event.window_start.map(rfc3339).into()),
    ])
}
