//! An event of every kind there is, for golden files and for the page of `docs/events.md`. The people are made up.

use std::collections::BTreeMap;

use scimtail::avro::wire::{AttributeChange, ChangeEvent, Group, User};
use uuid::Uuid;

pub struct Sample {
    /// Its event type, with its special property.
    pub name: &'static str,
    pub event: ChangeEvent,
}

const OBSERVED: i64 = 1_795_262_671_204;
const WINDOW_START: i64 = 1_795_262_371_011;
const CREATED: i64 = 1_764_583_200_000;

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn change(attribute: &str, old: Option<&str>, new: Option<&str>) -> AttributeChange {
    AttributeChange {
        attribute: attribute.to_owned(),
        old_value: old.map(str::to_owned),
        new_value: new.map(str::to_owned),
    }
}

fn jane() -> User {
    let attributes = [
        (
            "emails",
            r#"[{"primary":true,"type":"work","value":"jane.roe@acme.example"},{"type":"home","value":"jane@roe.example"}]"#,
        ),
        ("entitlements", r#"["export",{"display":"All reports","value":"reports"}]"#),
        ("name.familyName", r#""Roe""#),
        ("roles", r#"[{"display":"Senior analyst","value":"analyst"},{"value":"viewer"}]"#),
        ("title", r#""Analyst""#),
        ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department", r#""Finance""#),
        ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.displayName", r#""John Low""#),
        ("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value", r#""2b7e0c19""#),
    ];
    User {
        id: "7f3c9a52".to_owned(),
        user_name: some("jane.roe@acme.example"),
        display_name: some("Jane Roe"),
        active: Some(true),
        external_id: some("e-1042"),
        email: some("jane.roe@acme.example"),
        created: Some(CREATED),
        last_modified: Some(OBSERVED - 60_000),
        attributes: attributes.map(|(path, text)| (path.to_owned(), text.to_owned())).into(),
    }
}

fn admins() -> Group {
    Group {
        id: "a1/04".to_owned(),
        display_name: some("CB/acme.example/ROLE/Admin"),
        external_id: some("okta-00g1"),
        created: Some(CREATED),
        last_modified: Some(CREATED),
        attributes: BTreeMap::new(),
    }
}

fn base(event_type: &str, sequence: i64) -> ChangeEvent {
    ChangeEvent {
        event_id: Uuid::from_u128(0x5a1e_0000_0000_5000_8000_0000_0000_0000 + sequence as u128).to_string(),
        event_type: event_type.to_owned(),
        account: "acme-chargebee".to_owned(),
        provider: "chargebee".to_owned(),
        sequence,
        sync: 118,
        observed_at: OBSERVED,
        window_start: Some(WINDOW_START),
        ..ChangeEvent::default()
    }
}

fn user(event_type: &str, sequence: i64) -> ChangeEvent {
    ChangeEvent {
        principal_type: "user".to_owned(),
        principal_id: jane().id,
        principal_name: jane().user_name,
        user: Some(jane()),
        ..base(event_type, sequence)
    }
}

fn entitled(event: ChangeEvent) -> ChangeEvent {
    ChangeEvent {
        entitlement_domain: some("acme.example"),
        entitlement_kind: some("role"),
        entitlement_name: some("Admin"),
        ..event
    }
}

fn group(event_type: &str, sequence: i64) -> ChangeEvent {
    entitled(ChangeEvent {
        principal_type: "group".to_owned(),
        principal_id: admins().id,
        principal_name: admins().display_name,
        group_id: Some(admins().id),
        group_name: admins().display_name,
        group: Some(admins()),
        ..base(event_type, sequence)
    })
}

fn membership(event_type: &str, sequence: i64) -> ChangeEvent {
    entitled(ChangeEvent {
        principal_type: "user".to_owned(),
        principal_id: jane().id,
        principal_name: jane().user_name,
        group_id: Some(admins().id),
        group_name: admins().display_name,
        ..base(event_type, sequence)
    })
}

fn nested(event_type: &str, sequence: i64) -> ChangeEvent {
    ChangeEvent {
        principal_type: "group".to_owned(),
        principal_id: "b2\"05".to_owned(),
        principal_name: some("Finance"),
        ..membership(event_type, sequence)
    }
}

fn removed(event: ChangeEvent, reason: &str) -> ChangeEvent {
    ChangeEvent { removal_reason: some(reason), ..event }
}

/// A sync without a completed one before it.
fn baseline(event: ChangeEvent) -> ChangeEvent {
    ChangeEvent { snapshot: true, sync: 1, window_start: None, ..event }
}

fn renamed() -> ChangeEvent {
    let changes = vec![
        change("displayName", Some("\"Jane Doe\""), Some("\"Jane Roe\"")),
        change("emails", Some(r#"[{"value":"jane.doe@acme.example"}]"#), Some(&jane().attributes["emails"])),
        change("nickName", Some("\"JD\""), None),
        change("roles", Some(r#"[{"value":"viewer"}]"#), Some(&jane().attributes["roles"])),
        change("title", None, Some("\"Analyst\"")),
        change("userName", Some("\"jane.doe@acme.example\""), Some("\"jane.roe@acme.example\"")),
    ];
    ChangeEvent {
        occurred_at: Some(OBSERVED - 60_000),
        omitted_attributes: vec!["photos".to_owned()],
        ..updated(4, changes)
    }
}

/// Jane after these changes.
fn updated(sequence: i64, changes: Vec<AttributeChange>) -> ChangeEvent {
    ChangeEvent {
        changed_attributes: changes.iter().map(|change| change.attribute.clone()).collect(),
        changes,
        ..user("user.updated", sequence)
    }
}

/// The server began to write lists where it had written one value, and objects where it had written texts.
fn reshaped() -> ChangeEvent {
    let changes = vec![
        change("emails", None, Some(&jane().attributes["emails"])),
        change("emails.type", Some("\"work\""), None),
        change("emails.value", Some("\"jane.doe@acme.example\""), None),
        change("entitlements", Some("\"export\""), Some(&jane().attributes["entitlements"])),
        change("roles", Some(r#"["viewer"]"#), Some(&jane().attributes["roles"])),
    ];
    updated(20, changes)
}

/// No address was known before.
fn first_address() -> ChangeEvent {
    updated(21, vec![change("emails", None, Some(&jane().attributes["emails"]))])
}

fn promoted() -> ChangeEvent {
    updated(22, vec![change("title", Some("\"Trainee\""), Some("\"Analyst\""))])
}

fn switched(event_type: &str, sequence: i64, active: bool) -> ChangeEvent {
    let text = |active: bool| if active { "true" } else { "false" };
    let changes = vec![change("active", Some(text(!active)), Some(text(active)))];
    let mut event = user(event_type, sequence);
    event.user = event.user.map(|user| User { active: Some(active), ..user });
    event.changed_attributes = vec!["active".to_owned()];
    event.changes = changes;
    event
}

fn renamed_group() -> ChangeEvent {
    let changes = vec![
        change("displayName", Some("\"CB/acme.example/ROLE/Support\""), Some("\"CB/acme.example/ROLE/Admin\"")),
        change("entitlement_name", Some("\"Support\""), Some("\"Admin\"")),
    ];
    ChangeEvent {
        changed_attributes: changes.iter().map(|change| change.attribute.clone()).collect(),
        changes,
        ..group("group.updated", 12)
    }
}

/// The event with the privileges of the profile `generic` that it is about.
fn with_privileges(event: ChangeEvent) -> ChangeEvent {
    let attributes = event.user.as_ref().map(|user| &user.attributes);
    let is_about = |path: &&str| match event.event_type.as_str() {
        "user.updated" => event.changed_attributes.iter().any(|changed| changed == path),
        "user.added" => attributes.is_some_and(|attributes| attributes.contains_key(*path)),
        _ => false,
    };
    let privileges = ["roles", "entitlements"].into_iter().filter(is_about).map(str::to_owned).collect();
    ChangeEvent { privileges, ..event }
}

pub fn samples() -> Vec<Sample> {
    let cause = Uuid::from_u128(0x5a1e_0000_0000_5000_8000_0000_0000_c0de).to_string();
    let caused = |event: ChangeEvent| ChangeEvent { correlation_id: Some(cause.clone()), ..event };
    let deactivated = |event: ChangeEvent| ChangeEvent { removal_means: some("deactivated"), ..event };
    let mut inactive = user("user.added", 2);
    inactive.user = inactive.user.map(|user| User { active: Some(false), ..user });
    let mut bare = user("user.added", 3);
    bare.principal_name = None;
    bare.user = Some(User { id: bare.principal_id.clone(), ..User::default() });
    let list = [
        ("user.added", user("user.added", 1)),
        ("user.added.inactive", inactive),
        ("user.added.bare", bare),
        ("user.updated", renamed()),
        ("user.updated.reshaped", reshaped()),
        ("user.updated.first_address", first_address()),
        ("user.updated.promoted", promoted()),
        ("user.disabled", switched("user.disabled", 5, false)),
        ("user.enabled", switched("user.enabled", 6, true)),
        ("user.removed", caused(removed(user("user.removed", 7), "not_found"))),
        ("user.removed.deactivated", deactivated(removed(user("user.removed", 8), "not_found"))),
        ("user.removed.absent", removed(user("user.removed", 9), "absent")),
        ("user.removed.erased", removed(user("user.removed", 10), "erased")),
        ("group.added", group("group.added", 11)),
        ("group.updated", renamed_group()),
        ("group.removed", removed(group("group.removed", 13), "not_found")),
        ("group.removed.absent", removed(group("group.removed", 14), "absent")),
        ("membership.added", membership("membership.added", 15)),
        ("membership.added.nested", nested("membership.added", 16)),
        ("membership.removed", removed(membership("membership.removed", 17), "not_listed")),
        ("membership.removed.caused", caused(removed(membership("membership.removed", 18), "not_found"))),
        ("membership.removed.nested", removed(nested("membership.removed", 19), "not_listed")),
        ("baseline.user", baseline(user("user.added", 1))),
        ("baseline.group", baseline(group("group.added", 2))),
        ("baseline.membership", baseline(membership("membership.added", 3))),
        ("baseline.membership.nested", baseline(nested("membership.added", 4))),
        ("baseline.user.disabled", baseline(switched("user.disabled", 5, false))),
        ("baseline.user.removed", baseline(removed(user("user.removed", 6), "not_found"))),
        ("baseline.membership.removed", baseline(removed(membership("membership.removed", 7), "not_listed"))),
    ];
    list.into_iter().map(|(name, event)| Sample { name, event: with_privileges(event) }).collect()
}
