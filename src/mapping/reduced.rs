//! An event without its large values, for a copy that would be too large for Kafka.
//!
//! A format may repeat a value: OCSF has the name of a changed user seven times.

use std::collections::BTreeSet;

use crate::avro::wire::{AttributeChange, ChangeEvent};
use crate::directory::belongs_to;

/// Bytes of the largest value that stays, as JSON.
const VALUE_BYTES_MAX: usize = 4_096;

/// The content of `omitted_attributes` if even the names of the omitted attributes would be too large.
const EVERYTHING: &str = "*";

/// The event without each attribute that is large in its image, or before or after the change. `omitted_attributes` names
/// them; `changed_attributes` stays complete.
///
/// An attribute is omitted everywhere. If only one side of a change were, it would look added or removed.
pub fn without_large_values(event: &ChangeEvent) -> ChangeEvent {
    let omitted: BTreeSet<String> = values(event).filter(|(_, text)| is_large(text)).map(|(path, _)| path).collect();
    let keeps = |path: &str| !omitted.contains(path);
    let mut event = event.clone();
    for name in names(&mut event) {
        name.take_if(|name| is_large(name));
    }
    event.changes.retain(|change| keeps(&change.attribute));
    if let Some(user) = &mut event.user {
        user.user_name.take_if(|_| !keeps("userName"));
        user.display_name.take_if(|_| !keeps("displayName"));
        user.external_id.take_if(|_| !keeps("externalId"));
        // The address is one of those in `emails`.
        user.email.take_if(|email| is_large(email) || omitted.iter().any(|path| belongs_to(path, "emails")));
        user.attributes.retain(|path, _| keeps(path));
    }
    if let Some(group) = &mut event.group {
        group.display_name.take_if(|_| !keeps("displayName"));
        group.external_id.take_if(|_| !keeps("externalId"));
        group.attributes.retain(|path, _| keeps(path));
    }
    event.omitted_attributes.extend(omitted);
    event.omitted_attributes.sort_unstable();
    event.omitted_attributes.dedup();
    event
}

/// The event without attributes, except `active` and ids, which are bounded.
pub fn without_attributes(event: &ChangeEvent) -> ChangeEvent {
    let mut event = event.clone();
    for name in names(&mut event) {
        *name = None;
    }
    event.changes.clear();
    event.changed_attributes.clear();
    event.omitted_attributes = vec![EVERYTHING.to_owned()];
    if let Some(user) = &mut event.user {
        (user.user_name, user.display_name, user.external_id, user.email) = (None, None, None, None);
        user.attributes.clear();
    }
    if let Some(group) = &mut event.group {
        (group.display_name, group.external_id) = (None, None);
        group.attributes.clear();
    }
    event
}

/// Names that the event has outside its images.
fn names(event: &mut ChangeEvent) -> [&mut Option<String>; 5] {
    [
        &mut event.principal_name,
        &mut event.group_name,
        &mut event.entitlement_domain,
        &mut event.entitlement_kind,
        &mut event.entitlement_name,
    ]
}

fn is_large(text: &str) -> bool {
    // With the escapes of JSON, in which a byte may become six.
    text.len() > VALUE_BYTES_MAX
        || text.len() * 6 > VALUE_BYTES_MAX && serde_json::Value::from(text).to_string().len() > VALUE_BYTES_MAX
}

/// Every value of the event, with its attribute.
fn values(event: &ChangeEvent) -> impl Iterator<Item = (String, &String)> {
    let of_principal = match event.principal_type.as_str() {
        "group" => "displayName",
        _ => "userName",
    };
    let (user, group) = (event.user.as_ref(), event.group.as_ref());
    let has_image = user.is_some() || group.is_some();
    let named = [
        // An image has the name under the right attribute itself.
        (of_principal, event.principal_name.as_ref().filter(|_| !has_image)),
        ("displayName", event.group_name.as_ref()),
        ("entitlement_domain", event.entitlement_domain.as_ref()),
        ("entitlement_kind", event.entitlement_kind.as_ref()),
        ("entitlement_name", event.entitlement_name.as_ref()),
        ("userName", user.and_then(|user| user.user_name.as_ref())),
        ("displayName", user.and_then(|user| user.display_name.as_ref())),
        ("externalId", user.and_then(|user| user.external_id.as_ref())),
        ("displayName", group.and_then(|group| group.display_name.as_ref())),
        ("externalId", group.and_then(|group| group.external_id.as_ref())),
    ];
    let named = named.into_iter().filter_map(|(path, text)| Some((path.to_owned(), text?)));
    let attributes = user.map(|user| &user.attributes).into_iter().chain(group.map(|group| &group.attributes));
    let attributes = attributes.flatten().map(|(path, text)| (path.clone(), text));
    let changes = event.changes.iter().flat_map(|AttributeChange { attribute, old_value, new_value }| {
        old_value.iter().chain(new_value).map(|text| (attribute.clone(), text))
    });
    named.chain(attributes).chain(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::wire::{Group, User};

    fn large() -> Option<String> {
        Some("n".repeat(VALUE_BYTES_MAX + 1))
    }

    fn change(attribute: &str, old_value: Option<String>, new_value: Option<String>) -> AttributeChange {
        AttributeChange { attribute: attribute.into(), old_value, new_value }
    }

    #[test]
    fn an_attribute_that_was_large_is_gone_from_before_and_after_and_named() {
        let event = ChangeEvent {
            event_type: "user.updated".into(),
            principal_type: "user".into(),
            principal_name: Some("ann".into()),
            changed_attributes: vec!["userName".into(), "title".into()],
            changes: vec![
                change("userName", large(), Some("\"ann\"".into())),
                change("title", None, Some("\"t\"".into())),
            ],
            user: Some(User { user_name: Some("ann".into()), ..User::default() }),
            omitted_attributes: vec!["photos".into()],
            ..ChangeEvent::default()
        };
        let reduced = without_large_values(&event);
        assert_eq!(reduced.omitted_attributes, ["photos", "userName"]);
        assert_eq!(reduced.changed_attributes, ["userName", "title"]);
        assert_eq!(reduced.changes, [change("title", None, Some("\"t\"".into()))]);
        assert_eq!(reduced.user.and_then(|user| user.user_name), None, "it would read as the name before");
    }

    #[test]
    fn a_membership_loses_only_the_name_that_is_large() {
        let membership = |principal_name: Option<String>, group_name: Option<String>| {
            let event = ChangeEvent {
                event_type: "membership.added".into(),
                principal_type: "user".into(),
                principal_name,
                group_name,
                ..ChangeEvent::default()
            };
            without_large_values(&event)
        };
        let reduced = membership(large(), Some("Admins".into()));
        assert_eq!((reduced.principal_name, reduced.group_name.as_deref()), (None, Some("Admins")));
        assert_eq!(reduced.omitted_attributes, ["userName"]);
        // Six bytes each in JSON.
        let escaped = Some("\u{1}".repeat(VALUE_BYTES_MAX / 5));
        let reduced = membership(Some("ann".into()), escaped);
        assert_eq!((reduced.principal_name.as_deref(), reduced.group_name), (Some("ann"), None));
        assert_eq!(reduced.omitted_attributes, ["displayName"]);
    }

    #[test]
    fn an_address_goes_with_the_addresses() {
        let emails = format!("[{{\"value\":\"a@x\"}},{{\"value\":\"{}@x\"}}]", large().expect("a text"));
        let user =
            User { email: Some("a@x".into()), attributes: [("emails".to_owned(), emails)].into(), ..User::default() };
        let reduced = without_large_values(&ChangeEvent { user: Some(user), ..ChangeEvent::default() });
        let user = reduced.user.expect("the image");
        assert_eq!((user.email, user.attributes.len()), (None, 0));
        assert_eq!(reduced.omitted_attributes, ["emails"]);
    }

    /// Otherwise the address after the change would look like the one before.
    #[test]
    fn an_address_goes_with_one_that_was_not_in_a_list() {
        let user = User {
            email: Some("a@x".into()),
            attributes: [("emails.value".to_owned(), "\"a@x\"".to_owned())].into(),
            ..User::default()
        };
        let changes = vec![change("emails.value", large(), Some("\"a@x\"".into()))];
        let reduced = without_large_values(&ChangeEvent { changes, user: Some(user), ..ChangeEvent::default() });
        assert_eq!(reduced.user.and_then(|user| user.email), None);
        assert_eq!(reduced.omitted_attributes, ["emails.value"]);
    }

    #[test]
    fn without_attributes_ids_and_whether_the_user_is_active_remain() {
        let event = ChangeEvent {
            principal_id: "u1".into(),
            principal_name: Some("ann".into()),
            changed_attributes: vec!["title".into()],
            changes: vec![change("title", None, Some("\"t\"".into()))],
            user: Some(User { id: "u1".into(), active: Some(true), email: Some("a@x".into()), ..User::default() }),
            group: Some(Group { id: "g1".into(), display_name: Some("Admins".into()), ..Group::default() }),
            ..ChangeEvent::default()
        };
        let expected = ChangeEvent {
            principal_id: "u1".into(),
            omitted_attributes: vec!["*".into()],
            user: Some(User { id: "u1".into(), active: Some(true), ..User::default() }),
            group: Some(Group { id: "g1".into(), ..Group::default() }),
            ..ChangeEvent::default()
        };
        assert_eq!(without_attributes(&event), expected);
    }
}
