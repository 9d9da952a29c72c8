//! Users as most servers write them, read in one pass.
//!
//! `resource` splits a row and scans each part again, because servers write whatever they like. Most write what RFC 7643
//! says: names in its spelling, texts without escapes, nothing twice. [`read`] reads such a row, and returns
//! `None` for every other one, which is then read in full. What it returns is what reading in full gives: the tests
//! compare the two on rows that are made of both.

use std::fmt;
use std::marker::PhantomData;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::attributes::{wanted, without_core_urn};
use super::value::{array, read_time, usable_id};
use crate::directory::principal::ENTERPRISE;
use crate::directory::{AttributeList, Id, Principal};
use crate::json::ATTRIBUTES_MAX;

/// Bytes of a row; in a longer one an attribute may be too large, or have too many values.
const ROW_BYTES_MAX: usize = 64 << 10;

/// Attributes of RFC 7643 that the list leaves out, so that hardly any name has to be looked up in it.
const NOT_READ: [&str; 11] = [
    "schemas",
    "nickName",
    "profileUrl",
    "preferredLanguage",
    "locale",
    "timezone",
    "phoneNumbers",
    "addresses",
    "groups",
    "ims",
    "photos",
];

/// Attributes of most users.
const NAMES: usize = 32;
/// What the names of a value's attributes take, with quotes and commas: more than that moves the text.
const NAMES_BYTES: usize = 64;

static LIST: LazyLock<AttributeList> = LazyLock::new(AttributeList::default);

#[derive(Default)]
struct User<'a> {
    id: Option<Id>,
    user_name: Option<&'a str>,
    display_name: Option<&'a str>,
    external_id: Option<&'a str>,
    active: Option<bool>,
    name: Option<Object<Name<'a>>>,
    emails: Option<Vec<Object<Element<'a>>>>,
    roles: Option<Vec<Object<Element<'a>>>>,
    entitlements: Option<Vec<Object<Element<'a>>>>,
    title: Option<&'a str>,
    user_type: Option<&'a str>,
    extension: Option<Object<Extension<'a>>>,
    meta: Option<Object<Meta<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Name<'a> {
    #[serde(borrow)]
    formatted: Option<&'a str>,
    given_name: Option<&'a str>,
    family_name: Option<&'a str>,
    // Unlisted, and nothing is kept of them. Another value than a text may be nested so deep that it cannot be read.
    #[serde(rename = "middleName")]
    _middle_name: Option<&'a str>,
    #[serde(rename = "honorificPrefix")]
    _honorific_prefix: Option<&'a str>,
    #[serde(rename = "honorificSuffix")]
    _honorific_suffix: Option<&'a str>,
}

/// A value of a multi-valued attribute (RFC 7643 §2.4).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Element<'a> {
    #[serde(borrow)]
    display: Option<&'a str>,
    primary: Option<bool>,
    r#type: Option<&'a str>,
    value: Option<&'a str>,
    #[serde(rename = "$ref", default)]
    _reference: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extension<'a> {
    #[serde(borrow)]
    department: Option<&'a str>,
    organization: Option<&'a str>,
    division: Option<&'a str>,
    cost_center: Option<&'a str>,
    employee_number: Option<&'a str>,
    manager: Option<Object<Manager<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manager<'a> {
    #[serde(borrow)]
    value: Option<&'a str>,
    display_name: Option<&'a str>,
    #[serde(rename = "$ref", default)]
    _reference: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Meta<'a> {
    #[serde(borrow)]
    created: Option<&'a str>,
    last_modified: Option<&'a str>,
    #[serde(rename = "resourceType", default)]
    _resource_type: IgnoredAny,
    #[serde(rename = "location", default)]
    _location: IgnoredAny,
    #[serde(rename = "version", default)]
    _version: IgnoredAny,
}

/// A JSON object: what serde derives would take an array as well.
#[derive(Default)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for User<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes;
        impl<'de> Visitor<'de> for Attributes {
            type Value = User<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut user, mut names) = (User::default(), Vec::with_capacity(NAMES));
                while let Some(name) = map.next_key::<&str>()? {
                    if names.contains(&name) || names.len() == ATTRIBUTES_MAX {
                        return Err(A::Error::custom("an attribute that is stated twice, or too many"));
                    }
                    names.push(name);
                    match name {
                        "id" => user.id = usable_id(map.next_value()?),
                        "userName" => user.user_name = map.next_value()?,
                        "displayName" => user.display_name = map.next_value()?,
                        "externalId" => user.external_id = map.next_value()?,
                        "active" => user.active = map.next_value()?,
                        "name" => user.name = map.next_value()?,
                        "emails" => user.emails = map.next_value()?,
                        "roles" => user.roles = map.next_value()?,
                        "entitlements" => user.entitlements = map.next_value()?,
                        "title" => user.title = map.next_value()?,
                        "userType" => user.user_type = map.next_value()?,
                        "meta" => user.meta = map.next_value()?,
                        _ if ENTERPRISE.strip_suffix(':') == Some(name) => user.extension = map.next_value()?,
                        _ if NOT_READ.contains(&name) || !may_be_read(name) => drop(map.next_value::<IgnoredAny>()?),
                        _ => return Err(A::Error::custom("an attribute in another spelling")),
                    }
                }
                Ok(user)
            }
        }
        deserializer.deserialize_map(Attributes)
    }
}

/// True for a name by which `resource` would read something.
fn may_be_read(name: &str) -> bool {
    let name = without_core_urn(name);
    let is = |attribute: &str| name.eq_ignore_ascii_case(attribute);
    is("id") || !(is("schemas") || is("members") || is("groups")) && wanted(&LIST, name)
}

/// A user of the default list, and whether its row states `active`. `None`: the row has to be read in full.
pub(super) fn read(bytes: &[u8]) -> Option<(Principal, bool)> {
    let row = std::str::from_utf8(bytes).ok().filter(|row| row.len() <= ROW_BYTES_MAX)?;
    let user: User<'_> = serde_json::from_str(row).ok()?;
    let mut principal = Principal::new(user.id?);
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    principal.user_name = text(user.user_name);
    principal.display_name = text(user.display_name);
    principal.external_id = text(user.external_id);
    principal.active = user.active;
    principal.email = user.emails.as_deref().and_then(main_address).map(str::to_owned);
    let Object(name) = user.name.unwrap_or_default();
    let Object(extension) = user.extension.unwrap_or_default();
    let Object(manager) = extension.manager.unwrap_or_default();
    let one = |path: &str, value: Option<&str>| value.map(|value| (path.to_owned(), quoted(value)));
    let extended = |name: &str, value: Option<&str>| value.map(|value| ([ENTERPRISE, name].concat(), quoted(value)));
    let all = |path: &str, elements: Option<Vec<Object<Element<'_>>>>| {
        let mut values: Vec<String> =
            elements.iter().flatten().filter_map(|Object(element)| element.canonical()).collect();
        values.sort_unstable();
        values.dedup();
        (!values.is_empty()).then(|| (path.to_owned(), array(&values)))
    };
    // In the order of the paths, in which a map is built without a search for the place of each.
    let attributes = [
        all("emails", user.emails),
        all("entitlements", user.entitlements),
        one("name.familyName", name.family_name),
        one("name.formatted", name.formatted),
        one("name.givenName", name.given_name),
        all("roles", user.roles),
        one("title", user.title),
        extended("costCenter", extension.cost_center),
        extended("department", extension.department),
        extended("division", extension.division),
        extended("employeeNumber", extension.employee_number),
        extended("manager.displayName", manager.display_name),
        extended("manager.value", manager.value),
        extended("organization", extension.organization),
        one("userType", user.user_type),
    ];
    principal.attributes = attributes.into_iter().flatten().collect();
    if let Some(Object(meta)) = user.meta {
        principal.created = meta.created.and_then(read_time);
        principal.last_modified = meta.last_modified.and_then(read_time);
    }
    Some((principal, user.active.is_some()))
}

/// As JSON: what was read without an escape needs none.
fn quoted(text: &str) -> String {
    ["\"", text, "\""].concat()
}

impl Element<'_> {
    /// As `value::canonical_object` writes it.
    fn canonical(&self) -> Option<String> {
        let texts = [self.display, self.r#type, self.value];
        let room = texts.iter().flatten().map(|text| text.len()).sum::<usize>() + NAMES_BYTES;
        let mut json = String::with_capacity(room);
        let mut put = |name: &str, value: Option<&str>, quote: &str| {
            if let Some(value) = value {
                json.push(if json.is_empty() { '{' } else { ',' });
                [name, quote, value, quote].into_iter().for_each(|part| json.push_str(part));
            }
        };
        put("\"display\":", self.display, "\"");
        put("\"primary\":", self.primary.map(|primary| if primary { "true" } else { "false" }), "");
        put("\"type\":", self.r#type, "\"");
        put("\"value\":", self.value, "\"");
        if json.is_empty() {
            return None;
        }
        json.push('}');
        Some(json)
    }
}

/// As `main_email` chooses it.
fn main_address<'a>(emails: &[Object<Element<'a>>]) -> Option<&'a str> {
    let rank = |email: &Element<'_>| match (email.primary, email.r#type) {
        (Some(true), _) => 0,
        (_, Some(kind)) if kind.eq_ignore_ascii_case("work") => 1,
        _ => 2,
    };
    let address = |email: &Element<'a>| email.value.filter(|value| !value.is_empty());
    let addresses = emails.iter().filter_map(|Object(email)| Some((rank(email), address(email)?)));
    addresses.min().map(|(_, address)| address)
}
