//! An event as all formats read it: its subject, the action, and the values before and after.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::avro::wire::{AttributeChange, ChangeEvent};
use crate::directory::{belongs_to, email_before};

/// Attributes of a user: JSON text by SCIM path.
type Attributes<'e> = BTreeMap<&'e str, &'e str>;

/// The subject of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    User,
    Group,
    /// A user in a group.
    Membership,
    /// A group in a group.
    NestedMembership,
}

/// What happened to the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Baseline: the subject exists, since an unknown time. A removal is never this.
    Known,
    Added,
    Updated,
    Disabled,
    Enabled,
    Removed,
}

/// An event of a known type.
#[derive(Clone, Copy, Debug)]
pub struct Change<'e> {
    pub event: &'e ChangeEvent,
    pub subject: Subject,
    pub action: Action,
}

/// The values of a user that an event has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) user_name: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) email: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) active: Option<bool>,
    pub(super) roles: Vec<String>,
}

/// The values of a group that an event has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Team {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) external_id: Option<String>,
}

impl<'e> Change<'e> {
    /// The subject and action of an event. `None` for a type that this version does not know.
    pub fn of(event: &'e ChangeEvent) -> Option<Change<'e>> {
        let (subject, action) = event.event_type.split_once('.')?;
        let subject = match (subject, event.principal_type.as_str()) {
            ("user", _) => Subject::User,
            ("group", _) => Subject::Group,
            ("membership", "group") => Subject::NestedMembership,
            ("membership", _) => Subject::Membership,
            _ => return None,
        };
        let action = match (subject, action) {
            (_, "removed") => Action::Removed,
            (_, "added") => Action::Added,
            (Subject::User | Subject::Group, "updated") => Action::Updated,
            (Subject::User, "disabled") => Action::Disabled,
            (Subject::User, "enabled") => Action::Enabled,
            _ => return None,
        };
        let action = if event.snapshot && action != Action::Removed { Action::Known } else { action };
        Some(Change { event, subject, action })
    }

    pub(super) fn is_membership(&self) -> bool {
        matches!(self.subject, Subject::Membership | Subject::NestedMembership)
    }

    /// True if the event changes what a user may do. It is worth more than a line of information.
    pub(super) fn is_of_privileges(&self) -> bool {
        self.action == Action::Updated && !self.event.privileges.is_empty()
    }

    /// When the change happened if the directory says so, else when it was observed. Milliseconds since 1970-01-01 UTC.
    pub(super) fn time(&self) -> i64 {
        self.event.occurred_at.unwrap_or(self.event.observed_at)
    }

    /// `membership.added j.doe@acme.com Admins`. Marks a group that is a member, and a baseline.
    pub(super) fn message(&self) -> String {
        let event = self.event;
        let member = if self.subject == Subject::NestedMembership { "group " } else { "" };
        let name = event.principal_name.as_deref().unwrap_or(&event.principal_id);
        let mut message = format!("{} {member}{name}", event.event_type);
        if let Some(group) = event.group_name.as_ref().or(event.group_id.as_ref()).filter(|_| self.is_membership()) {
            message.push(' ');
            message.push_str(group);
        }
        if event.snapshot {
            message.push_str(" (baseline)");
        }
        message
    }

    /// The user of a user event or membership, after the changes.
    pub(super) fn person(&self) -> Person {
        match &self.event.user {
            Some(user) => Person {
                id: user.id.clone(),
                user_name: user.user_name.clone(),
                display_name: user.display_name.clone(),
                email: user.email.clone(),
                external_id: user.external_id.clone(),
                active: user.active,
                roles: roles_in(&self.attributes()),
            },
            None => Person {
                id: self.event.principal_id.clone(),
                user_name: self.event.principal_name.clone(),
                ..Person::default()
            },
        }
    }

    fn attributes(&self) -> Attributes<'e> {
        let attributes = self.event.user.iter().flat_map(|user| &user.attributes);
        attributes.map(|(path, text)| (path.as_str(), text.as_str())).collect()
    }

    /// [`Change::attributes`] before the changes that the event names.
    fn attributes_before(&self) -> Attributes<'e> {
        let mut attributes = self.attributes();
        for AttributeChange { attribute, old_value, .. } in &self.event.changes {
            match old_value {
                Some(old) => drop(attributes.insert(attribute, old)),
                None => drop(attributes.remove(attribute.as_str())),
            }
        }
        attributes
    }

    /// True if the event changes this attribute or one of its sub-attributes.
    fn changes(&self, attribute: &str) -> bool {
        self.event.changes.iter().any(|change| belongs_to(&change.attribute, attribute))
    }

    /// [`Change::person`] before the changes that the event names.
    ///
    /// A value that is derived from a multi-valued attribute is derived from all its paths before the changes. A server that
    /// begins to write a list changes several paths at once: `emails.value` disappears and `emails` appears.
    pub(super) fn person_before(&self) -> Person {
        // If `active` changed in the same sync, that is another event, and both events show the user after both.
        let mut person = Person { active: None, ..self.person() };
        let addresses = |attributes: &Attributes<'_>| attributes.keys().any(|path| belongs_to(path, "emails"));
        let email_is_user_name = person.email == person.user_name && !addresses(&self.attributes());
        for AttributeChange { attribute, old_value, .. } in &self.event.changes {
            let old = old_value.as_deref().map(json);
            let text = || old.as_ref().and_then(Value::as_str).map(str::to_owned);
            match attribute.as_str() {
                "userName" => person.user_name = text(),
                "displayName" => person.display_name = text(),
                "externalId" => person.external_id = text(),
                "active" => person.active = old.as_ref().and_then(Value::as_bool),
                _ => {}
            }
        }
        if email_is_user_name && person.email.is_some() {
            person.email.clone_from(&person.user_name);
        }
        if self.changes("emails") {
            person.email = email_before(person.email.as_deref(), self.attributes(), self.attributes_before());
        }
        if self.changes("roles") {
            person.roles = roles_in(&self.attributes_before());
        }
        person
    }

    /// The group of a group event, or the group of a membership.
    pub(super) fn team(&self) -> Team {
        let event = self.event;
        match &event.group {
            Some(group) => {
                Team { id: group.id.clone(), name: group.display_name.clone(), external_id: group.external_id.clone() }
            }
            None => Team {
                id: event.group_id.clone().unwrap_or_else(|| event.principal_id.clone()),
                name: event.group_name.clone(),
                external_id: None,
            },
        }
    }

    /// [`Change::team`] before the changes that the event names.
    pub(super) fn team_before(&self) -> Team {
        let mut team = self.team();
        for AttributeChange { attribute, old_value, .. } in &self.event.changes {
            let text = || old_value.as_deref().map(json).and_then(|old| old.as_str().map(str::to_owned));
            match attribute.as_str() {
                "displayName" => team.name = text(),
                "externalId" => team.external_id = text(),
                _ => {}
            }
        }
        team
    }

    /// The group that is the member of a nested membership.
    pub(super) fn subgroup(&self) -> Team {
        Team { id: self.event.principal_id.clone(), name: self.event.principal_name.clone(), external_id: None }
    }
}

/// The value of an attribute; its text if it is not JSON.
pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The value of an attribute as text for people: a string without its quotes, anything else as JSON.
pub(super) fn plain(text: &str) -> String {
    match json(text) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// An object without null and empty values.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let filled = |value: &Value| match value {
        Value::Null => false,
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| filled(value));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<String, Value>>())
}

/// Each role once, sorted. The display name of a role does not matter. A single role that is not in an array may be
/// flattened to `roles.value`.
fn roles_in(attributes: &Attributes<'_>) -> Vec<String> {
    let is_roles = |path: &str| path.eq_ignore_ascii_case("roles") || path.eq_ignore_ascii_case("roles.value");
    let texts = attributes.iter().filter(|(path, _)| is_roles(path)).map(|(_, text)| json(text));
    let mut roles: Vec<String> = texts.flat_map(|value| values(&value)).collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

/// Each element of a multi-valued attribute (RFC 7643 §2.4) as one text.
fn values(attribute: &Value) -> Vec<String> {
    match attribute {
        Value::Array(elements) => elements.iter().filter_map(word).collect(),
        single => word(single).into_iter().collect(),
    }
}

/// A text or number, or the `value` of an object, else its `display`. The case of sub-attribute names does not matter.
fn word(element: &Value) -> Option<String> {
    let named = |fields: &Map<String, Value>, name: &str| {
        fields.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).find_map(|(_, value)| plain_word(value))
    };
    match element {
        Value::Object(fields) => named(fields, "value").or_else(|| named(fields, "display")),
        scalar => plain_word(scalar),
    }
}

fn plain_word(scalar: &Value) -> Option<String> {
    match scalar {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::wire::User;

    #[test]
    fn an_event_type_of_a_later_version_is_not_guessed_at() {
        for event_type in ["user.locked", "group.disabled", "membership.updated", "role.added", "user", ""] {
            let event = ChangeEvent { event_type: event_type.into(), ..ChangeEvent::default() };
            assert!(Change::of(&event).is_none(), "{event_type}");
        }
    }

    #[test]
    fn a_baseline_record_is_known_and_a_removal_stays_a_removal() {
        for (event_type, action) in [("user.added", Action::Known), ("user.removed", Action::Removed)] {
            let event = ChangeEvent { event_type: event_type.into(), snapshot: true, ..ChangeEvent::default() };
            assert_eq!(Change::of(&event).expect("it is understood").action, action);
        }
    }

    fn user(attributes: &[(&str, &str)]) -> User {
        let attributes = attributes.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        User { email: Some("now@x".into()), active: Some(true), attributes: attributes.collect(), ..User::default() }
    }

    /// Before the changes (attribute, old value), with `now@x` as the address after them.
    fn before(attributes: &[(&str, &str)], changes: &[(&str, Option<&str>)]) -> Person {
        let changes = changes.iter().map(|(attribute, old)| AttributeChange {
            attribute: (*attribute).to_owned(),
            old_value: old.map(str::to_owned),
            new_value: attributes.iter().find(|(path, _)| path == attribute).map(|(_, text)| (*text).to_owned()),
        });
        let event = ChangeEvent {
            event_type: "user.updated".into(),
            principal_type: "user".into(),
            changes: changes.collect(),
            user: Some(user(attributes)),
            ..ChangeEvent::default()
        };
        Change::of(&event).expect("it is understood").person_before()
    }

    #[test]
    fn the_address_before_is_chosen_as_the_one_after() {
        let now = ("emails", r#"[{"value":"now@x"}]"#);
        for (old, chosen) in [
            (r#"[{"value":"b@x"},{"primary":true,"value":"c@x"},{"type":"work","value":"a@x"}]"#, Some("c@x")),
            (r#"[{"value":"b@x"},{"primary":"True","value":"c@x"}]"#, Some("c@x")),
            (r#"[{"Value":"b@x"},{"Type":"Work","Value":"c@x"}]"#, Some("c@x")),
            (r#"[{"primary":true,"value":""},{"value":"b@x"}]"#, Some("b@x")),
            (r#"["b@x","a@x"]"#, Some("a@x")),
            (r#""a@x""#, Some("a@x")),
            (r#"{"type":"work","value":"a@x"}"#, Some("a@x")),
            ("7", None),
        ] {
            assert_eq!(before(&[now], &[("emails", Some(old))]).email.as_deref(), chosen, "{old}");
        }
        assert_eq!(before(&[now], &[("emails", None)]).email, None, "there was none");
        assert_eq!(before(&[now], &[("title", None)]).email.as_deref(), Some("now@x"), "it stays");
        let listed = ("emails", r#"[{"value":"a@x"},{"value":"now@x"}]"#);
        let kept = before(&[listed], &[("emails", Some(r#"[{"value":"b@x"},{"value":"now@x"}]"#))]);
        assert_eq!(kept.email.as_deref(), Some("now@x"), "it is the primary one, which the list of attributes hides");
        let spelled = ("Emails", r#"[{"value":"now@x"}]"#);
        assert_eq!(before(&[spelled], &[("Emails", Some(r#"["a@x"]"#))]).email.as_deref(), Some("a@x"));
    }

    #[test]
    fn one_address_without_an_array_was_an_address_too() {
        let list = ("emails", r#"[{"value":"now@x"}]"#);
        let shapes = [("emails", None), ("emails.type", Some(r#""work""#)), ("emails.value", Some(r#""a@x""#))];
        assert_eq!(before(&[list], &shapes).email.as_deref(), Some("a@x"), "it became a list");
        let one = [("emails.type", r#""home""#), ("emails.value", r#""now@x""#)];
        let was_a_list = [("emails", Some(r#"["a@x"]"#)), ("emails.type", None), ("emails.value", None)];
        assert_eq!(before(&one, &was_a_list).email.as_deref(), Some("a@x"), "it was one");
        let value = [("emails.value", Some(r#""a@x""#))];
        assert_eq!(before(&one, &value).email.as_deref(), Some("a@x"), "only the address is another");
        let kind = [("emails.type", Some(r#""work""#))];
        assert_eq!(before(&one, &kind).email.as_deref(), Some("now@x"), "only its type is another");
    }

    #[test]
    fn names_before_are_what_they_were_or_none() {
        let (text, none) = (Some("\"Old\""), None);
        let person = before(&[], &[("displayName", text), ("externalId", text), ("userName", text)]);
        let names = [person.display_name, person.external_id, person.user_name];
        assert_eq!(names, [Some("Old".to_owned()), Some("Old".to_owned()), Some("Old".to_owned())]);
        let person = before(&[], &[("displayName", none), ("externalId", none), ("userName", none)]);
        assert_eq!([person.display_name, person.external_id, person.user_name], [None, None, None]);
    }

    #[test]
    fn whether_a_user_was_active_is_only_what_the_event_says() {
        // A switch in the same sync is an event of its own, and both show the user after both.
        assert_eq!(before(&[], &[("title", None)]).active, None);
        assert_eq!(before(&[], &[("active", None)]).active, None, "it was not known");
        assert_eq!(before(&[], &[("active", Some("false"))]).active, Some(false));
    }

    #[test]
    fn a_role_is_its_value_whatever_it_is_called() {
        for (roles, expected) in [
            (r#"[{"display":"Z","value":"a"},{"display":"A","value":"b"}]"#, &["a", "b"][..]),
            (r#"[{"display":"A","value":"b"},{"display":"Z","value":"a"}]"#, &["a", "b"]),
            (r#"["b",{"Value":"a"}]"#, &["a", "b"]),
            (r#"[{"type":"t","value":"a"},{"type":"u","value":"a"},"a"]"#, &["a"]),
            (r#"[{"value":7},8,{"value":""},"",{"type":"t"},null,["a"]]"#, &["7", "8"]),
            (r#"[{"Display":"Analyst"},{"display":"Viewer","value":null}]"#, &["Analyst", "Viewer"]),
            (r#"{"display":"A","value":"a"}"#, &["a"]),
            (r#""a""#, &["a"]),
            ("[]", &[]),
        ] {
            assert_eq!(before(&[("roles", "[]")], &[("roles", Some(roles))]).roles, expected, "{roles}");
            assert_eq!(before(&[("Roles", roles)], &[("title", None)]).roles, expected, "{roles}");
        }
        let one = [("roles.display", r#""A""#), ("roles.value", r#""a""#)];
        assert_eq!(before(&one, &[("title", None)]).roles, ["a"]);
        let list = ("roles", r#"[{"value":"b"}]"#);
        let shapes = [("roles", None), ("roles.display", Some(r#""A""#)), ("roles.value", Some(r#""a""#))];
        assert_eq!(before(&[list], &shapes).roles, ["a"]);
        assert!(before(&[list], &[("roles", None)]).roles.is_empty());
    }
}
