//! Open Cybersecurity Schema Framework 1.8.0 (schema.ocsf.io/1.8.0), Identity & Access Management and Discovery.
//!
//! The only class of 1.8.0 for a changed user or group is Entity Management. The actor is unknown, because polling shows
//! changes but not who made them. `time` is when the change happened if the directory says so, else when it was observed.
//! `unmapped` has the values without an attribute in OCSF, among them the window of polling.

use serde_json::{Map, Value, json};

use super::change::{self, Person, Team, object};
use super::{Action, Change, Subject};

/// The version of OCSF in the output.
pub const VERSION: &str = "1.8.0";

/// `severity_id` and `severity`: no action is required, or the user decides whether one is.
const INFORMATIONAL: (i64, &str) = (1, "Informational");
const LOW: (i64, &str) = (2, "Low");
const SUCCESS: i64 = 1;

/// `type_id` of a managed entity.
const ENTITY_USER: i64 = 2;
const ENTITY_GROUP: i64 = 3;

#[derive(Clone, Copy)]
enum Class {
    AccountChange,
    EntityManagement,
    GroupManagement,
    UserInventory,
}

impl Class {
    fn uid(self) -> i64 {
        match self {
            Class::AccountChange => 3001,
            Class::EntityManagement => 3004,
            Class::GroupManagement => 3006,
            Class::UserInventory => 5003,
        }
    }

    fn caption(self) -> &'static str {
        match self {
            Class::AccountChange => "Account Change",
            Class::EntityManagement => "Entity Management",
            Class::GroupManagement => "Group Management",
            Class::UserInventory => "User Inventory Info",
        }
    }

    fn category(self) -> (i64, &'static str) {
        match self {
            Class::UserInventory => (5, "Discovery"),
            _ => (3, "Identity & Access Management"),
        }
    }
}

fn activity(change: &Change<'_>) -> (Class, i64, &'static str) {
    match (change.subject, change.action) {
        (Subject::User | Subject::Membership, Action::Known) => (Class::UserInventory, 2, "Collect"),
        (Subject::Group | Subject::NestedMembership, Action::Known) => (Class::EntityManagement, 2, "Read"),
        (Subject::User, Action::Added) => (Class::AccountChange, 1, "Create"),
        (Subject::User, Action::Enabled) => (Class::AccountChange, 2, "Enable"),
        (Subject::User, Action::Disabled) => (Class::AccountChange, 5, "Disable"),
        (Subject::User, Action::Removed) => (Class::AccountChange, 6, "Delete"),
        (Subject::Group, Action::Added) => (Class::GroupManagement, 6, "Create"),
        (Subject::Group, Action::Removed) => (Class::GroupManagement, 5, "Delete"),
        (Subject::Membership, Action::Added) => (Class::GroupManagement, 3, "Add User"),
        (Subject::Membership, _) => (Class::GroupManagement, 4, "Remove User"),
        (Subject::NestedMembership, Action::Added) => (Class::GroupManagement, 7, "Add Subgroup"),
        (Subject::NestedMembership, _) => (Class::GroupManagement, 8, "Remove Subgroup"),
        (Subject::User | Subject::Group, _) => (Class::EntityManagement, 3, "Update"),
    }
}

pub fn value(change: &Change<'_>) -> Value {
    let event = change.event;
    let (class, activity_id, activity) = activity(change);
    let (category_uid, category) = class.category();
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("activity_id", activity_id.into());
    put("activity_name", activity.into());
    put("category_name", category.into());
    put("category_uid", category_uid.into());
    put("class_name", class.caption().into());
    put("class_uid", class.uid().into());
    put("message", change.message().into());
    put("metadata", metadata(change));
    let (severity_id, severity) = if change.is_of_privileges() { LOW } else { INFORMATIONAL };
    put("severity", severity.into());
    put("severity_id", severity_id.into());
    put("status", "Success".into());
    put("status_id", SUCCESS.into());
    put("time", change.time().into());
    put("type_name", format!("{}: {activity}", class.caption()).into());
    put("type_uid", (class.uid() * 100 + activity_id).into());
    put("unmapped", unmapped(change));
    match (class, change.subject) {
        (Class::AccountChange, _) => drop(put("user", user(&change.person(), &[]))),
        (Class::UserInventory, Subject::Membership) => {
            put("user", user(&change.person(), &[change.team()]));
        }
        (Class::UserInventory, _) => drop(put("user", user(&change.person(), &[]))),
        (Class::GroupManagement, _) => {
            put("group", group(&change.team()));
            match change.subject {
                Subject::Membership => drop(put("user", user(&change.person(), &[]))),
                Subject::NestedMembership => drop(put("subgroup", group(&change.subgroup()))),
                Subject::User | Subject::Group => {}
            }
        }
        (Class::EntityManagement, Subject::NestedMembership) => {
            put("entity", group_entity(&change.subgroup(), Value::Null));
        }
        (Class::EntityManagement, subject) => {
            let is_user = subject == Subject::User;
            let now = |data| match is_user {
                true => user_entity(&change.person(), data),
                false => group_entity(&change.team(), data),
            };
            if change.action == Action::Known {
                put("entity", now(Value::Null));
            } else {
                let old = data(event.changes.iter().map(|one| (&one.attribute, &one.old_value)));
                let new = data(event.changes.iter().map(|one| (&one.attribute, &one.new_value)));
                put(
                    "entity",
                    match is_user {
                        true => user_entity(&change.person_before(), old),
                        false => group_entity(&change.team_before(), old),
                    },
                );
                put("entity_result", now(new));
            }
        }
    }
    Value::Object(fields)
}

fn metadata(change: &Change<'_>) -> Value {
    let event = change.event;
    object([
        ("correlation_uid", event.correlation_id.clone().into()),
        ("event_code", event.event_type.clone().into()),
        ("is_truncated", if event.omitted_attributes.is_empty() { Value::Null } else { true.into() }),
        ("log_provider", event.provider.clone().into()),
        ("processed_time", event.observed_at.into()),
        ("product", json!({ "name": "scimtail", "vendor_name": "scimtail" })),
        ("sequence", event.sequence.into()),
        ("tenant_uid", event.account.clone().into()),
        ("uid", event.event_id.clone().into()),
        ("version", VERSION.into()),
    ])
}

/// Values without an attribute in OCSF, under the names of `ChangeEvent`.
fn unmapped(change: &Change<'_>) -> Value {
    let event = change.event;
    let attributes = match (&event.user, &event.group) {
        (Some(user), _) => data(user.attributes.iter()),
        (_, Some(group)) => data(group.attributes.iter()),
        _ => Value::Null,
    };
    let parent = match (change.subject, change.action) {
        (Subject::NestedMembership, Action::Known) => group(&change.team()),
        _ => Value::Null,
    };
    object([
        ("attributes", attributes),
        ("changed_attributes", event.changed_attributes.clone().into()),
        ("entitlement_domain", event.entitlement_domain.clone().into()),
        ("entitlement_kind", event.entitlement_kind.clone().into()),
        ("entitlement_name", event.entitlement_name.clone().into()),
        ("omitted_attributes", event.omitted_attributes.clone().into()),
        ("parent_group", parent),
        ("privileges", event.privileges.clone().into()),
        ("removal_means", event.removal_means.clone().into()),
        ("removal_reason", event.removal_reason.clone().into()),
        ("snapshot", event.snapshot.into()),
        ("sync", event.sync.into()),
        ("window_start", event.window_start.into()),
    ])
}

/// Attributes as JSON values, without those that have no value.
fn data<'a, V: Into<Option<&'a String>>>(attributes: impl Iterator<Item = (&'a String, V)>) -> Value {
    let values = attributes.filter_map(|(path, text)| Some((path.clone(), change::json(text.into()?))));
    Value::Object(values.collect())
}

fn user(person: &Person, groups: &[Team]) -> Value {
    let account = match person.active {
        Some(active) => json!({ "uid": person.id, "is_disabled": !active }),
        None => Value::Null,
    };
    object([
        ("account", account),
        ("display_name", person.display_name.clone().into()),
        ("email_addr", person.email.clone().filter(|email| is_address(email)).into()),
        ("groups", groups.iter().map(group).collect()),
        ("name", person.user_name.clone().into()),
        ("uid", person.id.clone().into()),
        ("uid_alt", person.external_id.clone().into()),
    ])
}

fn group(team: &Team) -> Value {
    object([
        ("name", team.name.clone().into()),
        ("uid", team.id.clone().into()),
        ("uid_alt", team.external_id.clone().into()),
    ])
}

fn user_entity(person: &Person, data: Value) -> Value {
    let name = person.user_name.clone().or_else(|| person.display_name.clone());
    object([
        ("data", data),
        ("name", name.into()),
        ("type", "User".into()),
        ("type_id", ENTITY_USER.into()),
        ("uid", person.id.clone().into()),
        ("user", user(person, &[])),
    ])
}

fn group_entity(team: &Team, data: Value) -> Value {
    object([
        ("data", data),
        ("group", group(team)),
        ("name", team.name.clone().into()),
        ("type", "Group".into()),
        ("type_id", ENTITY_GROUP.into()),
        ("uid", team.id.clone().into()),
    ])
}

/// True if OCSF's `email_t` accepts the text. A refused address is still under `unmapped.attributes.emails`.
fn is_address(text: &str) -> bool {
    let local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let domain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty()
            && name.chars().all(local)
            && host.split('.').all(|label| !label.is_empty() && label.chars().all(domain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_an_address_is_called_one() {
        for (text, is) in [("j.doe@acme.com", true), ("a@localhost", true), ("j doe@acme.com", false), ("j.doe", false)]
        {
            assert_eq!(is_address(text), is, "{text}");
        }
    }
}
