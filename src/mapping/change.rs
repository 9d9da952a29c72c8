//! What all formats ask of an event: whom it is about, what happened, how things stood before and after.

use serde_json::{Map, Value};

use crate::avro::wire::{AttributeChange, ChangeEvent};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    User,
    Group,
    /// A user in a group.
    Membership,
    /// A group in a group.
    NestedMembership,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Baseline: it is there, and nobody knows since when. A removal is never this: who is gone is not there.
    Known,
    Added,
    Updated,
    Disabled,
    Enabled,
    Removed,
}

/// An event whose type is understood.
#[derive(Clone, Copy, Debug)]
pub struct Change<'e> {
    pub event: &'e ChangeEvent,
    pub subject: Subject,
    pub action: Action,
}

/// A user as far as an event says.
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

/// A group as far as an event says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Team {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) external_id: Option<String>,
}

impl<'e> Change<'e> {
    /// `None` for an event type that this version does not know.
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

    /// When it happened, where the directory says so, else when it was seen. Milliseconds since 1970-01-01 UTC.
    pub(super) fn time(&self) -> i64 {
        self.event.occurred_at.unwrap_or(self.event.observed_at)
    }

    /// `membership.added j.doe@acme.com Admins`, whether the member is a group, and whether that is only known, not new.
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

    /// The user of a user event or of a membership, as it is now.
    pub(super) fn person(&self) -> Person {
        match &self.event.user {
            Some(user) => Person {
                id: user.id.clone(),
                user_name: user.user_name.clone(),
                display_name: user.display_name.clone(),
                email: user.email.clone(),
                external_id: user.external_id.clone(),
                active: user.active,
                roles: user.attributes.get("roles").map(|roles| values(&json(roles))).unwrap_or_default(),
            },
            None => Person {
                id: self.event.principal_id.clone(),
                user_name: self.event.principal_name.clone(),
                ..Person::default()
            },
        }
    }

    /// [`Change::person`] before the changes that the event names.
    pub(super) fn person_before(&self) -> Person {
        let mut person = self.person();
        for AttributeChange { attribute, old_value, .. } in &self.event.changes {
            let old = old_value.as_deref().map(json);
            let text = || old.as_ref().and_then(Value::as_str).map(str::to_owned);
            match attribute.as_str() {
                "userName" => person.user_name = text(),
                "displayName" => person.display_name = text(),
                "externalId" => person.external_id = text(),
                "active" => person.active = old.as_ref().and_then(Value::as_bool),
                "emails" => person.email = old.as_ref().and_then(main_email),
                "roles" => person.roles = old.as_ref().map(values).unwrap_or_default(),
                _ => {}
            }
        }
        person
    }

    /// The group of a group event, or the one that somebody is a member of.
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

/// The value of an attribute; its text where it is no JSON.
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

/// An object without what is null or empty.
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

/// `value` of each element of a multi-valued attribute (RFC 7643 §2.4), or the element itself.
fn values(attribute: &Value) -> Vec<String> {
    let text = |element: &Value| element.get("value").unwrap_or(element).as_str().map(str::to_owned);
    match attribute {
        Value::Array(elements) => elements.iter().filter_map(text).collect(),
        single => text(single).into_iter().collect(),
    }
}

/// The primary address, else that of type `work`, else the smallest by text: as `email` is chosen.
fn main_email(emails: &Value) -> Option<String> {
    let elements = emails.as_array()?;
    let address = |email: &Value| email.get("value").unwrap_or(email).as_str().map(str::to_owned);
    let first = |fits: &dyn Fn(&Value) -> bool| elements.iter().filter(|email| fits(email)).filter_map(address).min();
    first(&|email| email.get("primary") == Some(&Value::Bool(true)))
        .or_else(|| first(&|email| email["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("work"))))
        .or_else(|| first(&|_| true))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_address_before_is_chosen_as_the_one_after() {
        for (emails, chosen) in [
            (r#"[{"value":"b@x"},{"primary":true,"value":"c@x"},{"type":"work","value":"a@x"}]"#, Some("c@x")),
            (r#"[{"value":"b@x"},{"type":"Work","value":"c@x"}]"#, Some("c@x")),
            (r#"["b@x","a@x"]"#, Some("a@x")),
            ("7", None),
        ] {
            assert_eq!(main_email(&json(emails)).as_deref(), chosen);
        }
    }
}
