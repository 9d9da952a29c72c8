//! A user or group of Okta as the SCIM resource that says the same, so that one code reads both.

use serde_json::value::RawValue;

use crate::directory::principal::ENTERPRISE;
use crate::json::{Fields, json_text, push_json_text, text};

/// Profile fields of a user, and what SCIM calls them (RFC 7643 §4.1.1).
const OF_USER: [(&str, &str); 10] = [
    ("login", "userName"),
    ("displayName", "displayName"),
    ("nickName", "nickName"),
    ("title", "title"),
    ("userType", "userType"),
    ("profileUrl", "profileUrl"),
    ("preferredLanguage", "preferredLanguage"),
    ("locale", "locale"),
    ("timezone", "timezone"),
    ("description", "description"),
];
/// Sub-attributes of `name`.
const OF_NAME: [(&str, &str); 5] = [
    ("firstName", "givenName"),
    ("lastName", "familyName"),
    ("middleName", "middleName"),
    ("honorificPrefix", "honorificPrefix"),
    ("honorificSuffix", "honorificSuffix"),
];
/// Attributes of the enterprise extension (RFC 7643 §4.3).
const OF_ENTERPRISE: [(&str, &str); 5] = [
    ("employeeNumber", "employeeNumber"),
    ("costCenter", "costCenter"),
    ("organization", "organization"),
    ("division", "division"),
    ("department", "department"),
];
/// What a user has beside its profile, and is served under its own name. `type` is not among them: it is an internal id.
const BESIDE: [&str; 5] = ["status", "activated", "statusChanged", "lastLogin", "passwordChanged"];
/// What a group has beside its profile.
const BESIDE_GROUP: [&str; 3] = ["type", "lastMembershipUpdated", "objectClass"];

/// Statuses of people who may sign in, or may once they do what they are asked to.
const ACTIVE: [&str; 5] = ["ACTIVE", "PASSWORD_EXPIRED", "RECOVERY", "LOCKED_OUT", "PROVISIONED"];
const INACTIVE: [&str; 3] = ["STAGED", "SUSPENDED", "DEPROVISIONED"];

/// A user as SCIM; `None` if it has no profile, so that nothing but its id can be read.
pub fn user_as_scim(row: &[u8]) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_slice(row).ok()?;
    let profile = Fields::of(fields.get("profile")?)?;
    let mut user = Object::default();
    user.put_all(&fields, &["id"]);
    for (name, attribute) in OF_USER {
        user.put(attribute, profile.get(name));
    }
    let status = fields.get("status");
    match status.and_then(text).as_deref() {
        Some(status) if ACTIVE.contains(&status) => user.put_text("active", "true"),
        Some(status) if INACTIVE.contains(&status) => user.put_text("active", "false"),
        // A status that is not known says neither, and the row is named.
        Some(_) => user.put("active", status),
        None => {}
    }
    user.put_object("name", &renamed(&profile, &OF_NAME));
    let emails = [(profile.get("email"), "work", true), (profile.get("secondEmail"), "other", false)];
    user.put_list(
        "emails",
        emails.into_iter().filter_map(|(value, kind, primary)| {
            let mut email = valued(value?, kind)?;
            if primary {
                email.put_json("primary", "true");
            }
            Some(email)
        }),
    );
    let phones = [(profile.get("primaryPhone"), "work"), (profile.get("mobilePhone"), "mobile")];
    user.put_list("phoneNumbers", phones.into_iter().filter_map(|(value, kind)| valued(value?, kind)));
    let mut enterprise = renamed(&profile, &OF_ENTERPRISE);
    let mut manager = Object::default();
    manager.put("value", profile.get("managerId"));
    manager.put("displayName", profile.get("manager"));
    enterprise.put_object("manager", &manager);
    user.put_object(ENTERPRISE.trim_end_matches(':'), &enterprise);
    user.put_object("meta", &meta(&fields));
    user.put_all(&fields, &BESIDE);
    // Custom attributes by their path: `profile.costCode`.
    user.put("profile", fields.get("profile"));
    Some(user.end())
}

/// A group as SCIM, without its members; `None` if it has no profile.
pub fn group_as_scim(row: &[u8]) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_slice(row).ok()?;
    let profile = Fields::of(fields.get("profile")?)?;
    let mut group = Object::default();
    group.put_all(&fields, &["id"]);
    group.put("displayName", profile.get("name"));
    group.put("description", profile.get("description"));
    group.put_object("meta", &meta(&fields));
    group.put_all(&fields, &BESIDE_GROUP);
    group.put("profile", fields.get("profile"));
    Some(group.end())
}

fn meta(fields: &Fields<'_>) -> Object {
    let mut meta = Object::default();
    meta.put("created", fields.get("created"));
    meta.put("lastModified", fields.get("lastUpdated"));
    meta
}

fn renamed(profile: &Fields<'_>, names: &[(&str, &str)]) -> Object {
    let mut object = Object::default();
    for (name, attribute) in names {
        object.put(attribute, profile.get(name));
    }
    object
}

/// `{"value":…,"type":…}`; `None` if there is no value.
fn valued(value: &RawValue, kind: &str) -> Option<Object> {
    if matches!(value.get(), "null" | "\"\"") {
        return None;
    }
    let mut object = Object::default();
    object.put("value", Some(value));
    object.put_text("type", kind);
    Some(object)
}

/// A JSON object as it is written.
#[derive(Default)]
struct Object(String);

impl Object {
    fn put_json(&mut self, name: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        push_json_text(&mut self.0, name);
        self.0.push(':');
        self.0.push_str(json);
    }

    fn put(&mut self, name: &str, value: Option<&RawValue>) {
        if let Some(value) = value {
            self.put_json(name, value.get());
        }
    }

    fn put_text(&mut self, name: &str, value: &str) {
        self.put_json(name, &json_text(value));
    }

    /// These fields, under their own names.
    fn put_all(&mut self, fields: &Fields<'_>, names: &[&str]) {
        for name in names {
            self.put(name, fields.get(name));
        }
    }

    fn put_object(&mut self, name: &str, object: &Object) {
        if !object.0.is_empty() {
            self.put_json(name, &format!("{}}}", object.0));
        }
    }

    fn put_list(&mut self, name: &str, objects: impl Iterator<Item = Object>) {
        let list: Vec<String> = objects.map(|object| format!("{}}}", object.0)).collect();
        if !list.is_empty() {
            self.put_json(name, &format!("[{}]", list.join(",")));
        }
    }

    fn end(self) -> Vec<u8> {
        if self.0.is_empty() { b"{}".to_vec() } else { format!("{}}}", self.0).into_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(scim: Option<Vec<u8>>) -> Value {
        serde_json::from_slice(&scim.expect("a resource")).expect("JSON")
    }

    #[test]
    fn profile_fields_have_the_names_of_scim_and_custom_ones_their_path() {
        let user = json!({
            "id": "00u1", "status": "LOCKED_OUT", "created": "2020-01-01T00:00:00.000Z",
            "lastUpdated": "2020-01-02T00:00:00.000Z", "type": {"id": "oty1"},
            "profile": {
                "login": "sam.fernwood@acme.example", "email": "sam.fernwood@acme.example", "secondEmail": null, "firstName": "Sam",
                "lastName": "Fernwood", "title": "Lead", "department": "R\"D", "manager": "Ann", "managerId": "7",
                "costCode": 4711,
            },
            "credentials": {"password": {}}, "_links": {"self": {"href": "https://acme.okta.com"}},
        });
        assert_eq!(
            read(user_as_scim(user.to_string().as_bytes())),
            json!({
                "id": "00u1", "userName": "sam.fernwood@acme.example", "title": "Lead", "active": "true", "status": "LOCKED_OUT",
                "name": {"givenName": "Sam", "familyName": "Fernwood"},
                "emails": [{"value": "sam.fernwood@acme.example", "type": "work", "primary": true}],
                "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":
                    {"department": "R\"D", "manager": {"value": "7", "displayName": "Ann"}},
                "meta": {"created": "2020-01-01T00:00:00.000Z", "lastModified": "2020-01-02T00:00:00.000Z"},
                "profile": user["profile"],
            })
        );
        assert_eq!(user_as_scim(br#"{"id":"00u1","status":"ACTIVE"}"#), None);
    }

    #[test]
    fn every_status_is_active_or_not_and_another_one_is_neither() {
        for (statuses, active) in [(ACTIVE.as_slice(), "true"), (&INACTIVE, "false")] {
            for status in statuses {
                let user = json!({"id": "1", "status": status, "profile": {"login": "a"}});
                assert_eq!(read(user_as_scim(user.to_string().as_bytes()))["active"], active, "{status}");
            }
        }
        let user = read(user_as_scim(br#"{"id":"1","status":"FROZEN","profile":{}}"#));
        assert_eq!(user["active"], "FROZEN");
        assert!(read(user_as_scim(br#"{"id":"1","profile":{}}"#)).get("active").is_none());
    }

    #[test]
    fn a_group_has_its_name_and_type() {
        let group = br#"{"id":"00g1","type":"BUILT_IN","profile":{"name":"Everyone","description":null}}"#;
        let read = read(group_as_scim(group));
        assert_eq!((&read["displayName"], &read["type"]), (&json!("Everyone"), &json!("BUILT_IN")));
    }
}
