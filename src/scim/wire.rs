//! JSON as servers really send it → canonical principals.
//!
//! A resource is split into its top-level attributes without being parsed; only listed attributes are
//! parsed, so attributes outside the account's list never become values in this process (G9).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use super::error::{self, ReadError};
use super::profile::AbsentActive;
use crate::directory::principal::json_text;
use crate::directory::{AttributeList, Id, Kind, ListedGroup, ListedMember, Principal, RawHash};
use crate::pipeline::RawRow;

/// JSON bytes of one resource's listed attributes; beyond this its largest attributes are left out, see `reduce`.
pub const RESOURCE_BYTES_MAX: usize = 200_000;
/// Bytes that one resource may bring about in an event and in the one that follows it. An event holds up to three
/// quarters of what its new image is reckoned at and two fifths of the old one: 690,000 bytes, and it has to fit into
/// the 1,000,000 that librdkafka sends by default.
const EVENT_BYTES_MAX: usize = 3 * RESOURCE_BYTES_MAX;

/// Sub-attributes of one complex attribute; one that has more is left out whole.
pub const SUB_ATTRIBUTES_MAX: usize = 64;

/// JSON bytes of one attribute that are parsed; a larger one is left out without a look inside. Parsed JSON takes up to
/// a hundred times its bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1 << 20;

/// Attributes of one object; the schemas of RFC 7643 have about thirty.
pub const ATTRIBUTES_MAX: usize = 500;

/// Objects inside objects of one attribute; RFC 7643 §2.3.8 knows one level. Each takes its share of the stack.
pub const NESTING_MAX: usize = 8;

/// Bytes of an attribute's path: each of its values is stored under one.
pub const PATH_BYTES_MAX: usize = 512;

/// Rows of one page.
pub const PAGE_ROWS_MAX: usize = 100_000;

/// Bytes of a cursor; it goes into a URL.
pub const CURSOR_BYTES_MAX: usize = 4_096;

/// Groups of one user.
pub const GROUPS_MAX: usize = 100_000;
/// Members of one group; the largest that a vendor documents are 290,000.
pub const MEMBERS_MAX: usize = 1_000_000;

/// Bytes of an id; SCIM ids are opaque but short, and keys hold them percent-encoded.
pub const ID_BYTES_MAX: usize = 1_024;

/// A JSON object as (name, unparsed value) pairs, in the server's order.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(24);
                while let Some(Name(name)) = map.next_key()? {
                    if fields.len() == ATTRIBUTES_MAX {
                        return Err(A::Error::custom("too many attributes"));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A name that borrows unless it holds an escape.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// Attribute names ignore case (RFC 7643 §2.1).
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// As [`Fields::get`]; an error where the object says two different things: nobody knows which one is meant.
    fn agreed(&self, name: &str) -> Result<Option<&'a RawValue>, ()> {
        let mut values = self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        let first = values.next();
        let differs = |value: &RawValue| first.is_some_and(|first| first.get() != value.get());
        if values.any(differs) { Err(()) } else { Ok(first) }
    }
}

/// A JSON array of at most `MAX` elements, which ends the reading where it holds more: a body of the permitted size
/// could hold so many that a list of them alone would fill the memory.
struct Bounded<T, const MAX: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = array.next_element()? {
                    if elements.len() == MAX {
                        return Err(A::Error::custom("too many elements"));
                    }
                    elements.push(element);
                }
                Ok(Bounded(elements))
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

/// One page as the server sent it.
#[derive(Debug)]
pub struct ListPage {
    pub rows: Vec<RawRow>,
    /// `totalResults`, where it is a readable number ≥ 0.
    pub total: Option<u64>,
    /// `nextCursor` (RFC 9865 §2), where there is one.
    pub next_cursor: Option<String>,
}

/// Splits a ListResponse (RFC 7644 §3.4.2) into rows without parsing them.
///
/// # Errors
/// `not_a_list_response` for anything else: HTML, an error body with status 200, truncated JSON.
pub fn split_list(body: &Bytes) -> Result<ListPage, ReadError> {
    let not_a_list = |what: &str| ReadError::new(error::NOT_A_LIST, format!("the answer is not a SCIM list: {what}"));
    let fields: Fields<'_> = serde_json::from_slice(body).map_err(|error| not_a_list(kind_of(&error)))?;
    let field = |name: &str| fields.agreed(name).map_err(|()| not_a_list(&format!("it has two `{name}`")));
    if let Some(schemas) = field("schemas")? {
        let Bounded(schemas): Bounded<Cow<'_, str>, ATTRIBUTES_MAX> =
            serde_json::from_str(schemas.get()).map_err(|_| not_a_list("`schemas` is not a list of texts"))?;
        if schemas.iter().any(|schema| schema.to_ascii_lowercase().ends_with(":error")) {
            return Err(not_a_list("it is a SCIM error with status 200"));
        }
    }
    let total = field("totalResults")?.and_then(|total| total.get().trim_matches('"').parse::<u64>().ok());
    let next_cursor = field("nextCursor")?.and_then(|raw| serde_json::from_str::<Option<String>>(raw.get()).ok());
    let next_cursor = next_cursor.flatten().filter(|cursor| !cursor.is_empty() && cursor.len() <= CURSOR_BYTES_MAX);
    let Bounded(rows): Bounded<&RawValue, PAGE_ROWS_MAX> = match field("Resources")?.map(RawValue::get) {
        // Resources may be absent when nothing matches (RFC 7644 §3.4.2).
        None | Some("null") if total == Some(0) || next_cursor.is_some() => Bounded(Vec::new()),
        None | Some("null") => return Err(not_a_list("it has neither `Resources` nor a total of 0")),
        Some(text) => {
            serde_json::from_str(text).map_err(|_| not_a_list("`Resources` is not a list, or longer than any page"))?
        }
    };
    let rows = rows.into_iter().map(|row| raw_row(body.slice_ref(row.get().as_bytes()))).collect();
    Ok(ListPage { rows, total, next_cursor })
}

/// True for a SCIM error that refuses a cursor (RFC 9865 §2.1), whatever its spelling.
pub fn refuses_cursor(body: &[u8]) -> bool {
    let scim_type = |fields: Fields<'_>| fields.get("scimType").and_then(|raw| read_text(raw).ok().flatten());
    serde_json::from_slice(body).ok().and_then(scim_type).is_some_and(|scim_type| {
        ["expiredCursor", "invalidCursor"].iter().any(|refused| refused.eq_ignore_ascii_case(&scim_type))
    })
}

/// A resource with the hash it is recognised by.
pub fn raw_row(bytes: Bytes) -> RawRow {
    // Zero is not a hash: one resource in 2^128 shares its hash with another, which is as good as none.
    let hash = RawHash::new(xxh3_128(&bytes)).unwrap_or(RawHash::MIN);
    RawRow { hash, bytes }
}

fn kind_of(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => "it is not a JSON object",
    }
}

/// What of a resource is read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub attributes: AttributeList,
    pub absent_active: AbsentActive,
    /// Memberships are read from `groups` of the user.
    pub groups_on_user: bool,
}

/// A resource as read: the principal and, for groups, whom it lists.
#[derive(Debug)]
pub struct Resource {
    pub principal: Principal,
    pub members: Vec<ListedMember>,
    pub groups: Vec<ListedGroup>,
}

/// Parses one resource.
///
/// # Errors
/// `not_a_resource`: no JSON object, no usable `id`, or a value nested too deeply.
pub fn read_resource(kind: Kind, bytes: &[u8], reading: &Reading) -> Result<Resource, ReadError> {
    let broken = |what: &str| ReadError::new(error::NOT_A_RESOURCE, format!("a row of {} {what}", kind.endpoint()));
    let fields: Fields<'_> = serde_json::from_slice(bytes).map_err(|_| broken("is not a JSON object"))?;
    let id = fields.agreed("id").ok().flatten().and_then(read_id).ok_or_else(|| broken("has no usable `id`"))?;
    let mut principal = Principal::new(id);
    let mut members = Vec::new();
    let mut groups = Vec::new();
    let mut active_stated = false;
    let mut said: Vec<(&str, &RawValue)> = Vec::with_capacity(fields.0.len());
    for (name, raw) in &fields.0 {
        let name = without_core_urn(name);
        if name.eq_ignore_ascii_case("id") || name.eq_ignore_ascii_case("schemas") {
            continue;
        }
        let is_members = name.eq_ignore_ascii_case("members");
        let is_groups = name.eq_ignore_ascii_case("groups");
        let memberships = is_members || (is_groups && reading.groups_on_user);
        // Neither is ever an attribute of the principal: memberships are records of their own.
        if !memberships && (is_groups || !wanted(&reading.attributes, name)) {
            continue;
        }
        match said.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            Some((_, value)) if value.get() == raw.get() => continue,
            Some(_) => return Err(broken("says two things of one attribute")),
            None => said.push((name, raw)),
        }
        match kind {
            Kind::Group if is_members => members = read_members(raw).map_err(|()| broken("has unreadable members"))?,
            Kind::User if is_groups => groups = read_groups(raw).map_err(|()| broken("has unreadable groups"))?,
            _ => {}
        }
        if memberships {
            continue;
        }
        if raw.get().len() > ATTRIBUTE_BYTES_MAX {
            principal.omitted.extend(entries_of(&reading.attributes, name));
            active_stated |= name.eq_ignore_ascii_case("active");
            continue;
        }
        active_stated |= name.eq_ignore_ascii_case("active") && raw.get() != "null";
        set(&mut principal, kind, &reading.attributes, name, raw)
            .map_err(|()| broken("has a value that cannot be read"))?;
    }
    if kind == Kind::User && !active_stated && reading.absent_active == AbsentActive::True {
        principal.active = Some(true);
    }
    reduce(&mut principal, kind, &reading.attributes);
    // In no server's order: that is not a difference.
    principal.omitted.sort_unstable();
    principal.omitted.dedup();
    Ok(Resource { principal, members, groups })
}

/// The `id` of a resource alone, e.g. to compare it with the id that was asked for.
pub fn id_of(bytes: &[u8]) -> Option<Id> {
    let fields: Fields<'_> = serde_json::from_slice(bytes).ok()?;
    read_id(fields.get("id")?)
}

fn read_id(raw: &RawValue) -> Option<Id> {
    let id = match serde_json::from_str(raw.get()).ok()? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    // `.` and `..` cannot stand in a URL's path, however they are encoded.
    let usable = !id.is_empty() && id.len() <= ID_BYTES_MAX && id != "." && id != "..";
    usable.then(|| id.into())
}

/// Some servers write core attributes with their schema's URN in front.
fn without_core_urn(name: &str) -> &str {
    const CORE: [&str; 2] =
        ["urn:ietf:params:scim:schemas:core:2.0:User:", "urn:ietf:params:scim:schemas:core:2.0:Group:"];
    CORE.iter()
        .find_map(|urn| name.get(..urn.len()).filter(|head| head.eq_ignore_ascii_case(urn)).map(|_| &name[urn.len()..]))
        .unwrap_or(name)
}

/// True where the list covers the attribute, something below it, or something of that extension.
fn wanted(list: &AttributeList, name: &str) -> bool {
    list.covers(name) || list.paths().iter().any(|path| is_below(path, name))
}

/// The entries of the list that an attribute of this name would fill.
fn entries_of(list: &AttributeList, name: &str) -> Vec<String> {
    match list.entry(name) {
        Some(entry) => vec![entry.to_owned()],
        None => list.paths().iter().filter(|path| is_below(path, name)).cloned().collect(),
    }
}

fn is_below(path: &str, name: &str) -> bool {
    path.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
        && matches!(path.as_bytes().get(name.len()), Some(b'.' | b':'))
}

fn set(principal: &mut Principal, kind: Kind, list: &AttributeList, name: &str, raw: &RawValue) -> Result<(), ()> {
    if name.contains(':') {
        // An extension is an object of attributes (RFC 7643 §3.3); some servers write its attributes flat.
        if raw.get().starts_with('{') && !list.covers(name) {
            for (attribute, raw) in fields(raw)?.0 {
                set_attribute(principal, list, &format!("{name}:{attribute}"), raw, NESTING_MAX)?;
            }
            return Ok(());
        }
        return set_attribute(principal, list, name, raw, NESTING_MAX);
    }
    let is = |attribute: &str| name.eq_ignore_ascii_case(attribute);
    if is("userName") || is("active") {
        if kind == Kind::User && is("active") {
            principal.active = read_active(&value(raw)?);
        } else if kind == Kind::User {
            principal.user_name = read_text(raw)?;
        }
    } else if is("displayName") {
        principal.display_name = read_text(raw)?;
    } else if is("externalId") {
        principal.external_id = read_text(raw)?;
    } else if is("meta") {
        for (attribute, raw) in fields(raw)?.0 {
            let path = format!("meta.{attribute}");
            let time = || read_text(raw).map(|text| text.as_deref().and_then(read_time));
            match list.entry(&path) {
                Some(entry) if entry.eq_ignore_ascii_case("meta.created") => principal.created = time()?,
                Some(entry) if entry.eq_ignore_ascii_case("meta.lastModified") => principal.last_modified = time()?,
                Some(_) => set_attribute(principal, list, &path, raw, NESTING_MAX)?,
                None => {}
            }
        }
    } else {
        if is("emails") && list.covers("emails.value") {
            principal.email = main_email(&value(raw)?);
        }
        set_attribute(principal, list, name, raw, NESTING_MAX)?;
    }
    Ok(())
}

fn value(raw: &RawValue) -> Result<Value, ()> {
    serde_json::from_str(raw.get()).map_err(|_| ())
}

/// An object's fields; anything else has none.
fn fields(raw: &RawValue) -> Result<Fields<'_>, ()> {
    if !raw.get().starts_with('{') {
        return Ok(Fields(Vec::new()));
    }
    serde_json::from_str(raw.get()).map_err(|_| ())
}

/// A text, or a number as text; empty is absent.
fn read_text(raw: &RawValue) -> Result<Option<String>, ()> {
    Ok(match value(raw)? {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Stores a value by its path in the list's spelling: complex values flattened, multi-valued ones as one
/// canonical array. `nesting`: objects that may still stand inside each other.
fn set_attribute(
    principal: &mut Principal,
    list: &AttributeList,
    path: &str,
    raw: &RawValue,
    nesting: usize,
) -> Result<(), ()> {
    let text = raw.get();
    if path.len() > PATH_BYTES_MAX {
        return Err(());
    }
    match text.as_bytes().first() {
        Some(b'{') if nesting == 0 => return Err(()),
        Some(b'{') => {
            let fields = fields(raw)?;
            if fields.0.len() > SUB_ATTRIBUTES_MAX {
                principal.omitted.extend(list.entry(path).map(str::to_owned));
                return Ok(());
            }
            let points = fields.get("value").is_some();
            for (name, raw) in fields.0.iter().filter(|(name, _)| !is_derived(name, points)) {
                set_attribute(principal, list, &format!("{path}.{name}"), raw, nesting - 1)?;
            }
        }
        Some(b'[') => {
            let whole = list.covers(path);
            let Value::Array(elements) = value(raw)? else { return Err(()) };
            let mut canonical: Vec<String> = elements
                .into_iter()
                .filter_map(canonical_element)
                .filter_map(|element| match element {
                    Value::Object(mut object) if !whole => {
                        object.retain(|name, _| list.covers(&format!("{path}.{name}")));
                        (!object.is_empty()).then_some(Value::Object(object))
                    }
                    element => whole.then_some(element),
                })
                .map(|element| element.to_string())
                .collect();
            canonical.sort_unstable();
            canonical.dedup();
            if !canonical.is_empty() {
                principal.attributes.insert(spelling(list, path), format!("[{}]", canonical.join(",")));
            }
        }
        Some(b'n') => {}
        _ if !list.covers(path) => {}
        // A text without an escape is its own canonical form.
        Some(b'"') if !text.contains('\\') => drop(principal.attributes.insert(spelling(list, path), text.to_owned())),
        _ => drop(principal.attributes.insert(spelling(list, path), value(raw)?.to_string())),
    }
    Ok(())
}

/// The path as the list spells its head: a server that changes the case of names changes nothing.
fn spelling(list: &AttributeList, path: &str) -> String {
    match list.entry(path) {
        Some(entry) => format!("{entry}{}", &path[entry.len()..]),
        None => path.to_owned(),
    }
}

/// `$ref` names a host, and `display` beside a `value` belongs to what the value points to: neither is a
/// change of this principal.
fn is_derived(name: &str, points: bool) -> bool {
    name == "$ref" || (points && (name == "display" || name == "displayName"))
}

/// An element without nulls and empty lists, which are equal to absence (RFC 7643 §2.5).
fn canonical_element(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(elements) => {
            let elements: Vec<Value> = elements.into_iter().filter_map(canonical_element).collect();
            (!elements.is_empty()).then_some(Value::Array(elements))
        }
        Value::Object(object) => {
            let points = object.contains_key("value");
            let object: serde_json::Map<String, Value> = object
                .into_iter()
                .filter(|(name, _)| !is_derived(name, points))
                .filter_map(|(name, value)| Some((name, canonical_element(value)?)))
                .collect();
            (!object.is_empty()).then_some(Value::Object(object))
        }
        scalar => Some(scalar),
    }
}

/// Boolean as servers really send it; anything else is unknown, never "inactive".
fn read_active(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(active) => Some(*active),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        _ => None,
    }
}

/// Milliseconds since 1970-01-01 UTC; `None` where the text is no time with an offset.
fn read_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// The primary address, else that of type `work`, else the smallest by text.
pub fn main_email(emails: &Value) -> Option<String> {
    let elements = emails.as_array()?;
    let address = |email: &Value| {
        let text = email.get("value").unwrap_or(email).as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let first = |fits: &dyn Fn(&Value) -> bool| elements.iter().filter(|email| fits(email)).filter_map(address).min();
    first(&|email| email.get("primary").and_then(read_active) == Some(true))
        .or_else(|| {
            first(&|email| {
                email.get("type").and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("work"))
            })
        })
        .or_else(|| first(&|_| true))
}

/// A member as it stands in a group (RFC 7643 §4.2).
#[derive(Deserialize)]
struct MemberWire<'a> {
    #[serde(borrow, alias = "Value")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "Type")]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "$ref")]
    reference: Option<&'a RawValue>,
}

/// Made member by member: the first that names nobody ends the reading.
struct Listed(ListedMember);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let member = MemberWire::deserialize(deserializer)?;
        let id = member.value.and_then(read_id).ok_or_else(|| D::Error::custom("a member without an id"))?;
        Ok(Listed(ListedMember { id, kind: member_kind(&member), direct: None }))
    }
}

fn read_members(raw: &RawValue) -> Result<Vec<ListedMember>, ()> {
    let members: Option<Bounded<Listed, MEMBERS_MAX>> = serde_json::from_str(raw.get()).map_err(|_| ())?;
    let members = members.map_or_else(Vec::new, |Bounded(members)| members);
    let mut listed: Vec<ListedMember> = members.into_iter().map(|Listed(member)| member).collect();
    listed.sort_unstable();
    listed.dedup_by(|a, b| (&a.id, a.kind) == (&b.id, b.kind));
    Ok(listed)
}

/// A group as it stands on a user (RFC 7643 §4.1.2).
#[derive(Deserialize)]
struct GroupWire<'a> {
    #[serde(borrow, default, alias = "Value")]
    value: Option<&'a RawValue>,
    #[serde(default, alias = "Display")]
    display: Option<Value>,
    #[serde(default, alias = "Type")]
    r#type: Option<Value>,
}

fn read_groups(raw: &RawValue) -> Result<Vec<ListedGroup>, ()> {
    let groups: Option<Bounded<GroupWire<'_>, GROUPS_MAX>> = serde_json::from_str(raw.get()).map_err(|_| ())?;
    let mut listed = Vec::new();
    for group in groups.into_iter().flat_map(|Bounded(groups)| groups) {
        let direct = match group.r#type.as_ref().and_then(Value::as_str).map(str::to_ascii_lowercase).as_deref() {
            Some("direct") => Some(true),
            Some("indirect") => Some(false),
            _ => None,
        };
        let id = group.value.filter(|raw| raw.get() != "null").map(|raw| read_id(raw).ok_or(())).transpose()?;
        let name = group.display.as_ref().and_then(Value::as_str).map(str::to_owned);
        if id.is_none() && name.is_none() {
            return Err(());
        }
        listed.push(ListedGroup { id, name, direct });
    }
    listed.sort_unstable();
    listed.dedup();
    Ok(listed)
}

/// By `type`, else by the endpoint that `$ref` names.
fn member_kind(member: &MemberWire<'_>) -> Option<Kind> {
    let text = |raw: Option<&RawValue>| {
        let text: Cow<'_, str> = serde_json::from_str(raw?.get()).ok()?;
        Some(text.to_ascii_lowercase())
    };
    match text(member.r#type).as_deref() {
        Some("user") => return Some(Kind::User),
        Some("group") => return Some(Kind::Group),
        _ => {}
    }
    let reference = text(member.reference)?;
    let names = |endpoint: &str| reference.contains(endpoint);
    match (names("users/"), names("groups/")) {
        (true, false) => Some(Kind::User),
        (false, true) => Some(Kind::Group),
        _ => None,
    }
}

/// Leaves out the largest attributes until the largest event that the principal can make fits into a message, and names
/// the listed attributes they belong to.
///
/// An event states each value in its image and as a change's new value, and the next one as the old value; each path in
/// the image, and in the changes of both twice. A name stands there as `principal_name` too, and a group's also as
/// `group_name` and, where the pattern reads it, in `entitlement_*`, which are changes with an old and a new value
/// themselves.
fn reduce(principal: &mut Principal, kind: Kind, list: &AttributeList) {
    /// Lengths and branches of the encoding, for every path.
    const FRAME: usize = 3;
    // Sizes as JSON, because that is how an event states them.
    let names = [
        ("userName", &principal.user_name, 4),
        ("displayName", &principal.display_name, if kind == Kind::Group { 8 } else { 4 }),
        ("externalId", &principal.external_id, 3),
    ];
    let names =
        names.into_iter().filter_map(|(path, text, times)| Some((path, json_text(text.as_deref()?).len() * times)));
    let attributes = principal.attributes.iter().map(|(path, value)| {
        let email = principal.email.as_ref().filter(|_| path.eq_ignore_ascii_case("emails"));
        (path.as_str(), 5 * (path.len() + FRAME) + 3 * value.len() + email.map_or(0, String::len))
    });
    let mut sizes: Vec<(String, usize)> =
        names.chain(attributes).map(|(path, bytes)| (path.to_owned(), bytes)).collect();
    let mut size: usize = sizes.iter().map(|(_, size)| size).sum();
    if size <= EVENT_BYTES_MAX {
        return;
    }
    sizes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (path, bytes) in sizes {
        if size <= EVENT_BYTES_MAX {
            break;
        }
        size -= bytes;
        match path.as_str() {
            "userName" => principal.user_name = None,
            "displayName" => principal.display_name = None,
            "externalId" => principal.external_id = None,
            other => {
                principal.attributes.remove(other);
                if other.eq_ignore_ascii_case("emails") {
                    principal.email = None;
                }
            }
        }
        principal.omitted.push(list.entry(&path).unwrap_or(&path).to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(json: &str) -> Principal {
        let reading = Reading {
            attributes: AttributeList::default(),
            absent_active: AbsentActive::Unknown,
            groups_on_user: false,
        };
        read_resource(Kind::User, json.as_bytes(), &reading).unwrap().principal
    }

    #[test]
    fn order_case_null_empty_and_display_are_no_difference() {
        let one = user(
            r#"{"id":"1","userName":"a","emails":[{"value":"b@x","type":"work"},{"value":"a@x"}],"roles":[{"value":"r","display":"Old"}],
               "title":null,"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{"manager":{"value":"9","$ref":"http://a/Users/9","displayName":"X"}}}"#,
        );
        let other = user(
            r#"{"ROLES":[{"display":"New","value":"r"}],"Emails":[{"value":"a@x","type":null},{"type":"work","value":"b@x"}],"USERNAME":"a","ID":"1",
               "entitlements":[],"URN:ietf:params:scim:schemas:extension:enterprise:2.0:user":{"Manager":{"value":"9","$ref":"http://b/Users/9"}}}"#,
        );
        assert_eq!(one, other);
        assert_eq!(one.email.as_deref(), Some("b@x"));
    }

    #[test]
    fn active_is_read_as_servers_write_it_and_otherwise_unknown() {
        for (json, expected) in [
            ("true", Some(true)),
            ("\"False\"", Some(false)),
            ("\"true\"", Some(true)),
            ("0", Some(false)),
            ("1", Some(true)),
            ("null", None),
            ("\"yes\"", None),
            ("2", None),
            ("[]", None),
        ] {
            assert_eq!(user(&format!(r#"{{"id":"1","active":{json}}}"#)).active, expected, "{json}");
        }
        assert_eq!(user(r#"{"id":"1"}"#).active, None);
    }

    #[test]
    fn attributes_outside_the_list_are_not_kept() {
        let principal = user(
            r#"{"id":"1","password":"secret","phoneNumbers":[{"value":"1"}],"nickName":"n","name":{"givenName":"g"}}"#,
        );
        assert!(principal.attributes.is_empty(), "{principal:?}");
        let reading = Reading {
            attributes: AttributeList::new(vec![
                "name.givenName".into(),
                "password".into(),
                "phoneNumbers.value".into(),
            ]),
            absent_active: AbsentActive::Unknown,
            groups_on_user: false,
        };
        let json = br#"{"id":"1","userName":"u","password":"secret","phoneNumbers":[{"value":"1","type":"work"}],"name":{"givenName":"g","familyName":"f"}}"#;
        let principal = read_resource(Kind::User, json, &reading).unwrap().principal;
        let attributes: Vec<(&str, &str)> =
            principal.attributes.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
        assert_eq!(attributes, [("name.givenName", "\"g\""), ("phoneNumbers", r#"[{"value":"1"}]"#)]);
        assert_eq!(principal.user_name, None);
    }

    #[test]
    fn a_list_is_split_whatever_its_spelling_and_anything_else_is_refused() {
        let split = |text: &str| split_list(&Bytes::copy_from_slice(text.as_bytes()));
        let page = split(r#"{"resources":[{"id":"1"}, {"id":"2"}],"TotalResults":"2"}"#).unwrap();
        assert_eq!((page.rows.len(), page.total), (2, Some(2)));
        assert_eq!(&page.rows[1].bytes[..], br#"{"id":"2"}"#);
        assert_eq!(split(r#"{"totalResults":0}"#).unwrap().rows.len(), 0);
        assert_eq!(split(r#"{"totalResults":-3,"Resources":[]}"#).unwrap().total, None);
        for text in [
            "<html>",
            "{}",
            "[]",
            "",
            r#"{"totalResults":5}"#,
            r#"{"totalResults":5,"Resources":{}}"#,
            r#"{"Resources":[{"id":"1"}"#,
            r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"totalResults":0}"#,
        ] {
            assert_eq!(split(text).unwrap_err().code, error::NOT_A_LIST, "{text}");
        }
    }

    #[test]
    fn members_are_typed_by_type_or_reference() {
        let json = br#"{"id":"g","displayName":"G","members":[{"value":"1","type":"User"},{"value":"2","$ref":"https://x/scim/v2/Groups/2"},{"value":3}]}"#;
        let reading = Reading {
            attributes: AttributeList::default(),
            absent_active: AbsentActive::Unknown,
            groups_on_user: false,
        };
        let members = read_resource(Kind::Group, json, &reading).unwrap().members;
        let kinds: Vec<_> = members.iter().map(|member| (member.id.as_ref(), member.kind)).collect();
        assert_eq!(kinds, [("1", Some(Kind::User)), ("2", Some(Kind::Group)), ("3", None)]);
    }

    #[test]
    fn a_resource_that_contradicts_itself_or_nests_without_end_is_refused() {
        let nested =
            |depth: usize| format!(r#"{{"id":"1","title":{}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let reading = Reading {
            attributes: AttributeList::default(),
            absent_active: AbsentActive::Unknown,
            groups_on_user: false,
        };
        let read = |json: &str| read_resource(Kind::User, json.as_bytes(), &reading).map(|read| read.principal);
        assert!(read(&nested(NESTING_MAX)).is_ok());
        for json in [
            &nested(NESTING_MAX + 1),
            &nested(100_000),
            r#"{"id":"1","ID":"2"}"#,
            r#"{"id":"1","active":true,"Active":false}"#,
        ] {
            assert_eq!(read(json).unwrap_err().code, error::NOT_A_RESOURCE);
        }
        assert!(read(r#"{"id":"1","nickName":"a","nickName":"b"}"#).is_ok(), "nobody reads it");
        assert!(read(r#"{"id":"1","title":"a","Title":"a"}"#).is_ok(), "no contradiction");
    }

    #[test]
    fn an_attribute_too_large_to_look_at_is_left_out_and_named() {
        let big = "0,".repeat(ATTRIBUTE_BYTES_MAX / 2);
        let principal = user(&format!(r#"{{"id":"1","userName":"u","emails":[{big}0],"active":[{big}0]}}"#));
        assert_eq!(principal.omitted, ["active", "emails"]);
        assert_eq!((principal.user_name.as_deref(), principal.active), (Some("u"), None));
        let reading = Reading {
            attributes: AttributeList::new(vec!["meta.created".into()]),
            absent_active: AbsentActive::True,
            groups_on_user: false,
        };
        let json = format!(r#"{{"id":"1","meta":[{big}0],"active":[{big}0]}}"#);
        let principal = read_resource(Kind::User, json.as_bytes(), &reading).unwrap().principal;
        assert_eq!((principal.omitted.len(), principal.active), (2, None), "stated, though unread");
    }

    #[test]
    fn an_oversized_resource_is_reduced_and_says_what_it_left_out() {
        let big = "x".repeat(RESOURCE_BYTES_MAX);
        let principal = user(&format!(r#"{{"id":"1","userName":"u","title":"{big}","department":"d"}}"#));
        assert_eq!(principal.omitted, ["title"]);
        assert_eq!(principal.user_name.as_deref(), Some("u"));
    }
}
