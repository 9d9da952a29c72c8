//! Which privileges an event is about: attributes that make a user an owner or administrator, by the vendor's profile.

use super::packed::Fields;
use super::principal::AttributeChange;
use crate::json::Json;

/// Paths of one profile: events and their headers name them.
pub const PRIVILEGES_MAX: usize = 16;

/// Sub-attributes that describe a value, and are no value themselves (RFC 7643 §2.4).
const DESCRIBING: [&str; 5] = ["primary", "type", "display", "displayName", "$ref"];

/// Those of the privileges that a change is about, itself or something below it.
pub fn changed<'p>(privileges: &'p [String], changes: &[AttributeChange]) -> Vec<&'p str> {
    let is_changed = |privilege: &&String| changes.iter().any(|change| is_in(&change.attribute, privilege));
    privileges.iter().filter(is_changed).map(String::as_str).collect()
}

/// Those of the privileges that a user with these attributes has: a value that is not false.
pub fn held<'p>(privileges: &'p [String], user: &Fields<'_>) -> Vec<&'p str> {
    let is_held = |privilege: &&String| {
        user.attributes().any(|(path, value)| is_in(path, privilege) && grants(path, &value.to_json()))
    };
    privileges.iter().filter(is_held).map(String::as_str).collect()
}

/// True for an attribute, for its sub-attributes, and for the attributes of an extension.
fn is_in(path: &str, privilege: &str) -> bool {
    matches!(path.as_bytes().get(privilege.len()), None | Some(b'.' | b':'))
        && path.get(..privilege.len()).is_some_and(|head| head.eq_ignore_ascii_case(privilege))
}

fn grants(path: &str, value: &str) -> bool {
    let name = path.rsplit(['.', ':']).next().unwrap_or(path);
    // What cannot be read may say anything.
    !describes(name) && Json::read(value).is_none_or(|value| says_something(&value))
}

fn describes(name: &str) -> bool {
    DESCRIBING.iter().any(|describing| describing.eq_ignore_ascii_case(name))
}

fn says_something(value: &Json<'_>) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(value) => *value,
        Json::Number(digits) => *digits != "0",
        Json::Text(text) => !text.is_empty() && !text.eq_ignore_ascii_case("false"),
        Json::Array(elements) => elements.iter().any(says_something),
        Json::Object(members) => members.iter().any(|(name, value)| !describes(name) && says_something(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed::PackedPrincipal;
    use super::super::principal::Principal;
    use super::*;

    const OWNER: &str = "urn:ietf:params:scim:schemas:extension:acme:2.0:User:isOwner";

    fn privileges() -> Vec<String> {
        ["roles", "seat.admin", OWNER].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_change_is_about_a_privilege_if_it_is_in_it() {
        let change = |path: &str| AttributeChange { attribute: path.to_owned(), old: None, new: None };
        for (path, expected) in [
            ("roles", Some("roles")),
            ("ROLES.value", Some("roles")),
            ("seat.admin", Some("seat.admin")),
            (OWNER, Some(OWNER)),
            ("seat", None),
            ("seat.administered", None),
            ("rolesOfOld", None),
            ("title", None),
        ] {
            assert_eq!(changed(&privileges(), &[change("title"), change(path)]), Vec::from_iter(expected), "{path}");
        }
    }

    #[test]
    fn a_user_has_a_privilege_if_its_value_is_not_false_and_not_empty() {
        for (path, value, expected) in [
            ("roles", r#"[{"value":"admin"}]"#, Some("roles")),
            ("roles", r#""admin""#, Some("roles")),
            ("roles.value", r#""admin""#, Some("roles")),
            // As Slack sends it for users without a role.
            ("roles", r#"[{"primary":false}]"#, None),
            ("roles", r#"[{"primary":true,"type":"role","value":""}]"#, None),
            ("roles", "[]", None),
            ("roles.primary", "true", None),
            (OWNER, "true", Some(OWNER)),
            (OWNER, r#""False""#, None),
            (OWNER, "false", None),
            (OWNER, "null", None),
            ("title", r#""Owner""#, None),
        ] {
            let mut user = Principal::new("1");
            user.attributes.insert(path.to_owned(), value.to_owned());
            let packed = PackedPrincipal::pack(&user);
            assert_eq!(held(&privileges(), &packed.fields()), Vec::from_iter(expected), "{path} {value}");
        }
    }
}
