//! A resource as servers really send it → a canonical principal.
//!
//! A resource is split into its top-level attributes without being parsed; only listed attributes are
//! parsed, so attributes outside the account's list never become values in this process (G9).
//!
//! **Invariant:** one attribute that cannot be read costs that attribute, never the row, and one row never the walk:
//! what cannot be read is named, and what is known of it stays.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::profile::AbsentActive;
use crate::directory::reduction::reduce;
use crate::directory::{AttributeList, Id, Kind, ListedGroup, ListedMember, Principal, main_email};
use crate::json::{Bounded, Fields, Text, is_number, json_text, only_field, text, text_or_number};

pub use super::envelope::raw_row;
pub use crate::json::ATTRIBUTES_MAX;

/// Bytes of an id; SCIM ids are opaque but short, and keys hold them percent-encoded.
pub const ID_BYTES_MAX: usize = 1_024;
/// Sub-attributes of one complex attribute; one that has more is left out whole.
pub const SUB_ATTRIBUTES_MAX: usize = 64;

/// JSON bytes of one attribute that are parsed; a larger one is left out without a look inside.
pub const ATTRIBUTE_BYTES_MAX: usize = 1 << 20;

/// Values of one multi-valued attribute; one that has more is left out whole.
pub const ELEMENTS_MAX: usize = 50_000;

/// Objects inside objects of one attribute; RFC 7643 §2.3.8 knows one level. Each takes its share of the stack.
pub const NESTING_MAX: usize = 8;

/// Bytes of an attribute's path: each of its values is stored under one.
pub const PATH_BYTES_MAX: usize = 512;

/// Groups of one user.
pub const GROUPS_MAX: usize = 100_000;
/// Members of one group; the largest that a vendor documents are 290,000.
pub const MEMBERS_MAX: usize = 1_000_000;

/// What of a resource is read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub attributes: AttributeList,
    pub absent_active: AbsentActive,
    /// Memberships are read from `groups` of the user.
    pub groups_on_user: bool,
    /// What the paths of users and groups end in, as `$ref` of a member names them.
    pub paths: [String; 2],
}

impl Reading {
    /// Of a directory without peculiarities.
    pub fn plain(attributes: AttributeList) -> Reading {
        Reading {
            attributes,
            absent_active: AbsentActive::Unknown,
            groups_on_user: false,
            paths: Kind::BOTH.map(|kind| kind.endpoint().to_owned()),
        }
    }
}

/// A resource as read: the principal and, for groups, the members that it lists.
#[derive(Debug)]
pub struct Resource {
    pub principal: Principal,
    pub members: Vec<ListedMember>,
    pub groups: Vec<ListedGroup>,
    /// Attributes whose values cannot be read, as the account's list spells them; `members` and `groups` among them.
    pub unreadable: Vec<String>,
    /// The server states no `displayName`: it was put together from `name`.
    pub composed_name: bool,
    /// Members whose stated kind is neither user nor group.
    pub other_members: usize,
}

/// A row that is not a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `None`: it has no usable `id`, so that it is not known whose row it is.
    pub id: Option<Id>,
}

/// Parses one resource.
///
/// # Errors
/// No JSON object, no usable `id`, or more attributes than any resource has.
pub fn read_resource(kind: Kind, bytes: &[u8], reading: &Reading) -> Result<Resource, Unreadable> {
    let fields: Fields<'_> = serde_json::from_slice(bytes).map_err(|_| Unreadable { id: id_of(bytes) })?;
    let id = fields.agreed("id").ok().flatten().and_then(id).ok_or(Unreadable { id: None })?;
    let list = &reading.attributes;
    let mut resource = Resource {
        principal: Principal::new(id),
        members: Vec::new(),
        groups: Vec::new(),
        unreadable: Vec::new(),
        composed_name: false,
        other_members: 0,
    };
    let mut active_stated = false;
    for (name, raw) in said(kind, &fields, reading) {
        let memberships = is_of_memberships(kind, name, reading);
        active_stated |= name.eq_ignore_ascii_case("active") && raw.is_none_or(|raw| raw.get() != "null");
        let read = match raw {
            // The object says two things of one attribute.
            None => Err(()),
            Some(raw) if memberships => read_memberships(kind, raw, reading, &mut resource),
            Some(raw) if raw.get().len() > ATTRIBUTE_BYTES_MAX => {
                resource.principal.omitted.extend(entries_of(list, name));
                Ok(())
            }
            Some(raw) => set(&mut resource.principal, kind, list, name, raw),
        };
        if read.is_err() {
            let entries = if memberships { vec![name.to_ascii_lowercase()] } else { entries_of(list, name) };
            forget(&mut resource.principal, &entries);
            resource.unreadable.extend(entries);
        }
    }
    let principal = &mut resource.principal;
    if kind == Kind::User {
        if !active_stated {
            principal.active = reading.absent_active.meaning();
        }
        let unreadable = |attribute: &str| resource.unreadable.iter().any(|name| is_of(name, attribute));
        let named = principal.display_name.is_some() || unreadable("displayName");
        if !named && unreadable("name") {
            // What would stand in for it cannot be read either.
            resource.unreadable.extend(list.entry("displayName").map(str::to_owned));
        } else if !named && list.covers("displayName") {
            principal.display_name = principal.composed_name();
            resource.composed_name = principal.display_name.is_some();
        }
    }
    reduce(principal, kind, list);
    // In no server's order: that is not a difference.
    principal.omitted.sort_unstable();
    principal.omitted.dedup();
    resource.unreadable.sort_unstable();
    resource.unreadable.dedup();
    Ok(resource)
}

/// True for an attribute and for what is below it.
fn is_of(path: &str, attribute: &str) -> bool {
    path.eq_ignore_ascii_case(attribute) || is_below(path, attribute)
}

/// An id: a text or a number. Numbers keep their digits, because two ids beyond 2^64 must not become one.
fn id(raw: &RawValue) -> Option<Id> {
    let id = text_or_number(raw)?;
    // `.` and `..` cannot be a part of a URL's path, however they are encoded. An id that had half a character is not
    // the one that the server knows.
    let usable = id.len() <= ID_BYTES_MAX && id != "." && id != ".." && !id.contains(char::REPLACEMENT_CHARACTER);
    usable.then(|| Id::from(&*id))
}

/// The `id` of a resource alone, e.g. to compare it with the id that was asked for.
pub fn id_of(bytes: &[u8]) -> Option<Id> {
    id(only_field(std::str::from_utf8(bytes).ok()?, "id")?)
}

/// Names of the top-level attributes of a resource, as the server spells them: what a listed attribute may have been
/// meant to be.
pub fn names_of(bytes: &[u8]) -> Vec<String> {
    let fields: Option<Fields<'_>> = serde_json::from_slice(bytes).ok();
    fields.map(|fields| fields.0.into_iter().map(|(name, _)| name.into_owned()).collect()).unwrap_or_default()
}

/// What of a resource is read, each attribute once; `None`: it is stated twice, and differently.
fn said<'f>(kind: Kind, fields: &'f Fields<'_>, reading: &Reading) -> Vec<(&'f str, Option<&'f RawValue>)> {
    let mut said: Vec<(&str, Option<&RawValue>)> = Vec::with_capacity(fields.0.len());
    for (name, raw) in &fields.0 {
        let name = without_core_urn(name);
        let is = |attribute: &str| name.eq_ignore_ascii_case(attribute);
        let read = is_of_memberships(kind, name, reading)
            // Memberships are records of their own, never attributes of the principal.
            || !(is("id") || is("schemas") || is("members") || is("groups")) && wanted(&reading.attributes, name);
        if !read {
            continue;
        }
        match said.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            Some((_, value)) if value.is_some_and(|value| value.get() == raw.get()) => {}
            Some((_, value)) => *value = None,
            None => said.push((name, Some(raw))),
        }
    }
    said
}

fn is_of_memberships(kind: Kind, name: &str, reading: &Reading) -> bool {
    match kind {
        Kind::Group => name.eq_ignore_ascii_case("members"),
        Kind::User => reading.groups_on_user && name.eq_ignore_ascii_case("groups"),
    }
}

fn read_memberships(kind: Kind, raw: &RawValue, reading: &Reading, resource: &mut Resource) -> Result<(), ()> {
    match kind {
        Kind::Group => (resource.members, resource.other_members) = read_members(raw, &reading.paths)?,
        Kind::User => resource.groups = read_groups(raw)?,
    }
    Ok(())
}

/// Takes out what was read of an attribute before it turned out unreadable.
fn forget(principal: &mut Principal, entries: &[String]) {
    for entry in entries {
        match entry.to_ascii_lowercase().as_str() {
            "active" => principal.active = None,
            "username" => principal.user_name = None,
            "displayname" => principal.display_name = None,
            "externalid" => principal.external_id = None,
            "emails" => principal.email = None,
            "meta.created" => principal.created = None,
            "meta.lastmodified" => principal.last_modified = None,
            _ => {}
        }
        principal.attributes.retain(|path, _| !(path == entry || is_below(path, entry)));
    }
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
            for (attribute, raw) in Fields::of(raw).ok_or(())?.0 {
                set_attribute(principal, list, &format!("{name}:{attribute}"), raw, NESTING_MAX)?;
            }
            return Ok(());
        }
        return set_attribute(principal, list, name, raw, NESTING_MAX);
    }
    let is = |attribute: &str| name.eq_ignore_ascii_case(attribute);
    if is("userName") || is("active") {
        if kind == Kind::User && is("active") {
            principal.active = read_active(raw);
            // Something is said, but not what.
            return if principal.active.is_some() || is_nothing(raw) { Ok(()) } else { Err(()) };
        } else if kind == Kind::User {
            principal.user_name = read_text(raw)?;
        }
    } else if is("displayName") {
        principal.display_name = read_text(raw)?;
    } else if is("externalId") {
        principal.external_id = read_text(raw)?;
    } else if is("meta") {
        let fields = Fields::of(raw).map(|fields| fields.0);
        for (attribute, raw) in fields.or_else(|| is_nothing(raw).then(Vec::new)).ok_or(())? {
            let path = format!("meta.{attribute}");
            let time = || text(raw).as_deref().and_then(read_time);
            match list.entry(&path) {
                Some(entry) if entry.eq_ignore_ascii_case("meta.created") => principal.created = time(),
                Some(entry) if entry.eq_ignore_ascii_case("meta.lastModified") => principal.last_modified = time(),
                Some(_) => set_attribute(principal, list, &path, raw, NESTING_MAX)?,
                None => {}
            }
        }
    } else {
        set_attribute(principal, list, name, raw, NESTING_MAX)?;
        if kind == Kind::User && is("emails") && list.covers("emails.value") {
            principal.email = principal.attributes.get(&spelling(list, name)).and_then(|emails| main_email(emails));
        }
    }
    Ok(())
}

/// A text; `None` where there is nothing.
///
/// # Errors
/// Something else, which is not nothing.
fn read_text(raw: &RawValue) -> Result<Option<String>, ()> {
    let read = text_or_number(raw).map(Cow::into_owned);
    if read.is_some() || is_nothing(raw) { Ok(read) } else { Err(()) }
}

/// Multi-valued attributes of a user (RFC 7643 §4.1.2). Servers that know only one value write it without its array.
const MULTI_VALUED: [&str; 8] =
    ["emails", "phoneNumbers", "ims", "photos", "addresses", "entitlements", "roles", "x509Certificates"];

/// Stores a value by its path in the list's spelling: complex values flattened, multi-valued ones as one
/// canonical array. `nesting`: objects that may still stand inside each other.
fn set_attribute(
    principal: &mut Principal,
    list: &AttributeList,
    path: &str,
    raw: &RawValue,
    nesting: usize,
) -> Result<(), ()> {
    let json = raw.get();
    if path.len() > PATH_BYTES_MAX {
        return Err(());
    }
    let multi_valued = MULTI_VALUED.iter().any(|name| name.eq_ignore_ascii_case(path));
    match json.as_bytes().first() {
        Some(b'n') => {}
        Some(b'[') => {
            let Ok(Bounded(elements)) = serde_json::from_str::<Bounded<&RawValue, ELEMENTS_MAX>>(json) else {
                principal.omitted.extend(list.entry(path).map(str::to_owned));
                return Ok(());
            };
            set_elements(principal, list, path, &elements, nesting)?;
        }
        Some(b'{' | b'"') if multi_valued => set_elements(principal, list, path, &[raw], nesting)?,
        Some(b'{') if nesting == 0 => return Err(()),
        Some(b'{') => {
            let fields = Fields::of(raw).ok_or(())?;
            if fields.0.len() > SUB_ATTRIBUTES_MAX {
                principal.omitted.extend(list.entry(path).map(str::to_owned));
                return Ok(());
            }
            for (name, raw) in fields.0.iter().filter(|(name, _)| name != "$ref") {
                set_attribute(principal, list, &format!("{path}.{}", standard_name(name)), raw, nesting - 1)?;
            }
        }
        _ if !list.covers(path) => {}
        _ => drop(principal.attributes.insert(spelling(list, path), canonical(raw, nesting)?.unwrap_or_default())),
    }
    Ok(())
}

/// Stores the values of a multi-valued attribute as one array, sorted because their order means nothing.
fn set_elements(
    principal: &mut Principal,
    list: &AttributeList,
    path: &str,
    elements: &[&RawValue],
    nesting: usize,
) -> Result<(), ()> {
    let whole = list.covers(path);
    let mut values = Vec::with_capacity(elements.len());
    for element in elements {
        let is_object = element.get().starts_with('{');
        let value = match (is_object, whole) {
            (true, false) => canonical_object(element, nesting, &|name| list.covers(&format!("{path}.{name}")))?,
            (false, false) => None,
            (_, true) => canonical(element, nesting)?,
        };
        // Some servers write an empty text where there is nothing.
        values.extend(value.filter(|value| value != "\"\""));
    }
    values.sort_unstable();
    values.dedup();
    if !values.is_empty() {
        principal.attributes.insert(spelling(list, path), format!("[{}]", values.join(",")));
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

/// A sub-attribute as RFC 7643 §2.4 spells it.
fn standard_name(name: &str) -> &str {
    const STANDARD: [&str; 5] = ["value", "display", "type", "primary", "displayName"];
    STANDARD.into_iter().find(|standard| standard.eq_ignore_ascii_case(name)).unwrap_or(name)
}

/// A value without nulls and empty lists, which are equal to absence (RFC 7643 §2.5), and with sorted names; `None`
/// where nothing is left. Numbers keep the digits that the server wrote.
fn canonical(raw: &RawValue, nesting: usize) -> Result<Option<String>, ()> {
    let json = raw.get();
    match json.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'[' | b'{') if nesting == 0 => Err(()),
        Some(b'[') => {
            let Bounded(elements): Bounded<&RawValue, ELEMENTS_MAX> = serde_json::from_str(json).map_err(|_| ())?;
            let elements: Result<Vec<Option<String>>, ()> =
                elements.into_iter().map(|element| canonical(element, nesting - 1)).collect();
            let elements: Vec<String> = elements?.into_iter().flatten().collect();
            Ok((!elements.is_empty()).then(|| format!("[{}]", elements.join(","))))
        }
        Some(b'{') => canonical_object(raw, nesting, &|_| true),
        // A text without an escape is its own canonical form.
        Some(b'"') if json.contains('\\') => Ok(text(raw).map(|text| json_text(&text))),
        _ => Ok(Some(json.to_owned())),
    }
}

/// As [`canonical`]; `keeps` says which of its attributes may be kept. `$ref` names a host and is never one of them.
fn canonical_object(raw: &RawValue, nesting: usize, keeps: &dyn Fn(&str) -> bool) -> Result<Option<String>, ()> {
    let mut pairs = Vec::new();
    for (name, raw) in Fields::of(raw).ok_or(())?.0 {
        let name = standard_name(&name);
        if name != "$ref" && keeps(name) {
            let value = canonical(raw, nesting.checked_sub(1).ok_or(())?)?;
            pairs.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    pairs.sort_unstable();
    // The same name twice: the smaller value, whatever the order.
    pairs.dedup_by(|later, first| later.0 == first.0);
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{}:{value}", json_text(&name))).collect();
    Ok((!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(","))))
}

/// Boolean as servers really send it; anything else is unknown, never "inactive".
fn read_active(raw: &RawValue) -> Option<bool> {
    let said = if is_number(raw) { Cow::Borrowed(raw.get()) } else { text(raw).unwrap_or(Cow::Borrowed(raw.get())) };
    match &*said {
        "1" if is_number(raw) => Some(true),
        "0" if is_number(raw) => Some(false),
        said if said.eq_ignore_ascii_case("true") => Some(true),
        said if said.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Milliseconds since 1970-01-01 UTC; `None` where the text is no time with an offset.
fn read_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// What servers write where there is nothing: null, an empty text, list or object.
fn is_nothing(raw: &RawValue) -> bool {
    let json = raw.get();
    json == "null"
        || json == "\"\""
        || json == "[]"
        || (json.starts_with('{') && json[1..].trim_start().starts_with('}'))
}

/// The kind that a member states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stated {
    Kind(Kind),
    Nothing,
    /// A service principal, a device, …: it is not a principal here.
    Other,
}

/// A member as it stands in a group (RFC 7643 §4.2), names in any case. Made member by member: the first without an
/// id ends the reading.
struct MemberWire<'a> {
    value: Option<&'a RawValue>,
    r#type: Option<Text<'a>>,
    reference: Option<Text<'a>>,
    /// Fields that it has at all.
    fields: usize,
}

/// A text if it is one; whatever else stands there says nothing.
struct TextOrNothing<'a>(Option<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for TextOrNothing<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(TextOrNothing(text(raw).map(Text)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for MemberWire<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = MemberWire<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut member = MemberWire { value: None, r#type: None, reference: None, fields: 0 };
                while let Some(Text(name)) = map.next_key()? {
                    member.fields += 1;
                    if name.eq_ignore_ascii_case("value") {
                        let value: &RawValue = map.next_value()?;
                        if member.value.is_some_and(|other| other.get() != value.get()) {
                            return Err(A::Error::custom("a member with two ids"));
                        }
                        member.value = Some(value);
                    } else if name.eq_ignore_ascii_case("type") {
                        member.r#type = map.next_value::<TextOrNothing<'_>>()?.0;
                    } else if name.eq_ignore_ascii_case("$ref") {
                        member.reference = map.next_value::<TextOrNothing<'_>>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(member)
            }

            // Some servers write null where there is no member.
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(MemberWire { value: None, r#type: None, reference: None, fields: 0 })
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

/// The members of a group as they are read, one by one: a list of what the server wrote would be several times as large.
struct Members<'p> {
    paths: &'p [String; 2],
    listed: Vec<ListedMember>,
    /// Members of another kind.
    others: usize,
}

impl Members<'_> {
    fn take(&mut self, member: &MemberWire<'_>) -> Result<(), ()> {
        if member.fields == 0 {
            return Ok(());
        }
        let kind = match stated_kind(member, self.paths) {
            Stated::Other => {
                self.others += 1;
                return Ok(());
            }
            Stated::Kind(kind) => Some(kind),
            Stated::Nothing => None,
        };
        let id = member.value.and_then(id).ok_or(())?;
        self.listed.push(ListedMember { id, kind, direct: None });
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of members")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let mut elements = 0;
        while let Some(member) = array.next_element::<MemberWire<'_>>()? {
            elements += 1;
            if elements > MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
            self.take(&member).map_err(|()| A::Error::custom("a member without an id"))?;
        }
        Ok(())
    }
}

/// Returns the members and how many of another kind there are.
fn read_members(raw: &RawValue, paths: &[String; 2]) -> Result<(Vec<ListedMember>, usize), ()> {
    let mut members = Members { paths, listed: Vec::new(), others: 0 };
    if raw.get().starts_with('{') {
        members.take(&serde_json::from_str(raw.get()).map_err(|_| ())?)?;
    } else if !is_nothing(raw) {
        let mut json = serde_json::Deserializer::from_str(raw.get());
        (&mut members).deserialize(&mut json).map_err(|_| ())?;
    }
    let Members { mut listed, others, .. } = members;
    listed.sort_unstable();
    listed.dedup_by(|a, b| (&a.id, a.kind) == (&b.id, b.kind));
    Ok((listed, others))
}

/// By `type`, else by the endpoint that `$ref` names.
fn stated_kind(member: &MemberWire<'_>, paths: &[String; 2]) -> Stated {
    let by_type = member.r#type.as_ref().map_or(Stated::Nothing, |Text(said)| kind_of_type(said));
    match by_type {
        Stated::Kind(_) => by_type,
        Stated::Nothing | Stated::Other => match member.reference.as_ref().map(|Text(said)| kind_of_ref(said, paths)) {
            Some(by_ref @ Stated::Kind(_)) => by_ref,
            Some(Stated::Other) => Stated::Other,
            Some(Stated::Nothing) | None => by_type,
        },
    }
}

fn kind_of_type(said: &str) -> Stated {
    // Some write the resource type's URN.
    match said.rsplit(':').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "user" | "users" => Stated::Kind(Kind::User),
        "group" | "groups" => Stated::Kind(Kind::Group),
        // How somebody is a member, not what the member is.
        "" | "direct" | "indirect" | "member" => Stated::Nothing,
        _ => Stated::Other,
    }
}

/// `…/Users/ID` names an endpoint; a part such as `v2`, or one for all kinds, names none.
fn kind_of_ref(said: &str, paths: &[String; 2]) -> Stated {
    const OF_ALL_KINDS: [&str; 4] = ["directoryobjects", "members", "resources", "scim"];
    let path = said.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let Some((head, _)) = path.rsplit_once('/') else { return Stated::Nothing };
    let endpoint = head.rsplit('/').next().unwrap_or_default();
    let is = |name: &str| endpoint.eq_ignore_ascii_case(name.trim_matches('/'));
    for kind in Kind::BOTH {
        // Some write the resource type instead of the endpoint.
        if is(kind.endpoint()) || is(kind.principal_type()) || is(&paths[kind as usize]) {
            return Stated::Kind(kind);
        }
    }
    let is_word = !endpoint.is_empty() && endpoint.chars().all(|c| c.is_ascii_alphabetic());
    let says_nothing = !is_word || OF_ALL_KINDS.iter().any(|name| is(name)) || head.ends_with(&format!("//{endpoint}"));
    if says_nothing { Stated::Nothing } else { Stated::Other }
}

fn read_groups(raw: &RawValue) -> Result<Vec<ListedGroup>, ()> {
    if is_nothing(raw) {
        return Ok(Vec::new());
    }
    let one = raw.get().starts_with('{').then(|| vec![raw]);
    let groups = match one {
        Some(one) => one,
        None => serde_json::from_str::<Bounded<&RawValue, GROUPS_MAX>>(raw.get()).map_err(|_| ())?.0,
    };
    let mut listed = Vec::new();
    for group in groups.into_iter().filter(|group| !is_nothing(group)) {
        let fields = Fields::of(group).ok_or(())?;
        let said = |name: &str| fields.get(name).and_then(text);
        let direct = match said("type").as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("direct") => Some(true),
            Some("indirect") => Some(false),
            _ => None,
        };
        let value = fields.get("value").filter(|raw| raw.get() != "null");
        let id = value.map(|raw| id(raw).ok_or(())).transpose()?;
        let name = said("display").map(Cow::into_owned);
        if id.is_none() && name.is_none() {
            return Err(());
        }
        listed.push(ListedGroup { id, name, direct });
    }
    listed.sort_unstable();
    listed.dedup();
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::comparable;

    fn user(json: &str) -> Principal {
        let reading = Reading::plain(AttributeList::default());
        read_resource(Kind::User, json.as_bytes(), &reading).unwrap().principal
    }

    #[test]
    fn ids_keep_their_digits_and_unusable_ones_are_refused() {
        let read = |json: &str| id(serde_json::from_str(json).unwrap()).map(|id| id.to_string());
        assert_eq!(read("18391303205636094465001").as_deref(), Some("18391303205636094465001"));
        assert_eq!(read("\"a\\/b\"").as_deref(), Some("a/b"));
        assert_eq!(read("-7").as_deref(), Some("-7"));
        let long = format!("\"{}\"", "x".repeat(ID_BYTES_MAX + 1));
        for json in ["\"\"", "null", "true", "[]", "{}", "{\"\":0}", "\".\"", "\"..\"", "\"\\ud83d\"", long.as_str()] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    /// What is compared of a principal.
    fn compared(principal: &Principal) -> Vec<(String, String)> {
        let published = principal.published();
        let compared = published.into_iter().filter(|(path, _)| !principal.is_derived(path));
        compared.map(|(path, value)| (path.to_owned(), comparable(path, &value).into_owned())).collect()
    }

    #[test]
    fn order_case_null_empty_and_display_are_no_difference() {
        let one = user(
            r#"{"id":"1","userName":"a","emails":[{"value":"b@x","type":"work"},{"value":"a@x"}],"roles":[{"value":"r","display":"Old"}],
               "title":null,"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{"manager":{"value":"9","$ref":"http://a/Users/9","displayName":"X"}}}"#,
        );
        let other = user(
            r#"{"ROLES":[{"display":"New","value":"r"}],"Emails":[{"Value":"a@x","type":null},{"TYPE":"work","value":"b@x"}],"USERNAME":"a","ID":"1",
               "entitlements":[],"URN:ietf:params:scim:schemas:extension:enterprise:2.0:user":{"Manager":{"value":"9","$ref":"http://b/Users/9"}}}"#,
        );
        assert_eq!(compared(&one), compared(&other));
        assert_eq!((one.email.as_deref(), other.email.as_deref()), (Some("b@x"), Some("b@x")));
        assert_eq!(one.attributes["roles"], r#"[{"display":"Old","value":"r"}]"#, "names are published");
    }

    #[test]
    fn one_value_is_read_as_a_list_of_one() {
        for (emails, stored) in [
            (r#""a@x""#, r#"["a@x"]"#),
            (r#"{"Value":"a@x","TYPE":"work"}"#, r#"[{"type":"work","value":"a@x"}]"#),
            (r#"["a@x","",null]"#, r#"["a@x"]"#),
        ] {
            let principal = user(&format!(r#"{{"id":"1","emails":{emails}}}"#));
            assert_eq!((principal.attributes["emails"].as_str(), principal.email.as_deref()), (stored, Some("a@x")));
        }
        for emails in ["\"\"", "null", "[]", "[null]", "[\"\"]"] {
            let principal = user(&format!(r#"{{"id":"1","emails":{emails}}}"#));
            assert!(!principal.attributes.contains_key("emails") && principal.email.is_none(), "{emails}");
        }
    }

    #[test]
    fn a_name_stands_in_for_a_display_name_that_is_not_served() {
        let read = |json: &str| {
            let reading = Reading::plain(AttributeList::default());
            let read = read_resource(Kind::User, json.as_bytes(), &reading).unwrap();
            (read.principal.display_name, read.composed_name)
        };
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(read(r#"{"id":"1","name":{"formatted":"Ann Lee","givenName":"A"}}"#), (name("Ann Lee"), true));
        assert_eq!(read(r#"{"id":"1","name":{"familyName":"Lee","givenName":"Ann"}}"#), (name("Ann Lee"), true));
        assert_eq!(read(r#"{"id":"1","displayName":"","name":{"Formatted":"Ann"}}"#), (name("Ann"), true));
        assert_eq!(read(r#"{"id":"1","displayName":"Annie","name":{"formatted":"Ann"}}"#), (name("Annie"), false));
        assert_eq!(read(r#"{"id":"1"}"#), (None, false));
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
            r#"{"id":"1","password":"secret","phoneNumbers":[{"value":"1"}],"nickName":"n","preferredLanguage":"x"}"#,
        );
        assert!(principal.attributes.is_empty(), "{principal:?}");
        let listed = ["name.givenName", "password", "phoneNumbers.value"];
        let reading = Reading::plain(AttributeList::new(listed.map(str::to_owned).to_vec()));
        let json = br#"{"id":"1","userName":"u","password":"secret","phoneNumbers":[{"value":"1","type":"work"}],"name":{"givenName":"g","familyName":"f"}}"#;
        let principal = read_resource(Kind::User, json, &reading).unwrap().principal;
        let attributes: Vec<(&str, &str)> =
            principal.attributes.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
        assert_eq!(attributes, [("name.givenName", "\"g\""), ("phoneNumbers", r#"[{"value":"1"}]"#)]);
        assert_eq!(principal.user_name, None);
    }

    #[test]
    fn members_are_typed_by_type_or_reference() {
        let json = br#"{"id":"g","displayName":"G","members":[{"value":"1","type":"User"},{"value":"2","$ref":"https://x/scim/v2/Groups/2"},{"value":3}]}"#;
        let reading = Reading::plain(AttributeList::default());
        let members = read_resource(Kind::Group, json, &reading).unwrap().members;
        let kinds: Vec<_> = members.iter().map(|member| (member.id.as_ref(), member.kind)).collect();
        assert_eq!(kinds, [("1", Some(Kind::User)), ("2", Some(Kind::Group)), ("3", None)]);
    }

    #[test]
    fn members_of_other_kinds_are_counted_and_left_out() {
        let read = |members: &str| {
            let json = format!(r#"{{"id":"g","members":{members}}}"#);
            let read = read_resource(Kind::Group, json.as_bytes(), &Reading::plain(AttributeList::default())).unwrap();
            let ids = read.members.iter().map(|member| member.id.to_string()).collect::<Vec<_>>().join(" ");
            (ids, read.other_members, read.unreadable)
        };
        let found = |ids: &str, others| (ids.to_owned(), others, Vec::new());
        assert_eq!(read(r#"[{"value":"1","type":"ServicePrincipal"},{"VALUE":"2","Type":"user"}]"#), found("2", 1));
        assert_eq!(read(r#"[{"value":"1","$ref":"../Devices/1"},{"value":"2","$ref":"Users/2"}]"#), found("2", 1));
        // `$ref` knows better than a type that is neither; a version or a host is no endpoint.
        assert_eq!(read(r#"[{"value":"1","type":"Person","$ref":"https://h/v2/Users/1"}]"#), found("1", 0));
        for reference in ["https://h.example/2", "https://h/scim/v2/2", "2", "", "https://h/v1.0/directoryObjects/2"] {
            assert_eq!(read(&format!(r#"[{{"value":"2","$ref":"{reference}"}}]"#)), found("2", 0), "{reference}");
        }
        assert_eq!(read(r#"[{"value":"2","type":"direct"},{"type":"Device"}]"#), found("2", 1));
        for nothing in ["null", "[]", "{}", "{ }", "\"\"", "[null]", "[{}]"] {
            assert_eq!(read(nothing), found("", 0), "{nothing}");
        }
        assert_eq!(read(r#"{"value":7}"#), found("7", 0));
        for unreadable in
            [r#"[{"display":"admin"}]"#, r#"[{"value":{"id":1}}]"#, "7", "\"x\"", "[[]]", "[\"x\"]", "true"]
        {
            assert_eq!(read(unreadable), (String::new(), 0, vec!["members".to_owned()]), "{unreadable}");
        }
    }

    #[test]
    fn what_cannot_be_read_costs_one_attribute_and_is_named() {
        let nested = |depth: usize| {
            format!(r#"{{"id":"1","userName":"u","title":{}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth))
        };
        let reading = Reading::plain(AttributeList::default());
        let read = |json: &str| read_resource(Kind::User, json.as_bytes(), &reading).unwrap();
        assert_eq!(read(&nested(NESTING_MAX)).unreadable, [""; 0]);
        for (json, unreadable) in [
            (nested(NESTING_MAX + 1), "title"),
            (nested(100), "title"),
            (r#"{"id":"1","userName":"u","active":true,"Active":false}"#.to_owned(), "active"),
            (r#"{"id":"1","userName":"u","title":"a","Title":"b"}"#.to_owned(), "title"),
        ] {
            let read = read(&json);
            assert_eq!(
                (read.unreadable, read.principal.user_name.as_deref()),
                (vec![unreadable.to_owned()], Some("u"))
            );
            assert!(read.principal.attributes.is_empty() && read.principal.active.is_none());
        }
        assert!(read(r#"{"id":"1","nickName":"a","nickName":"b"}"#).unreadable.is_empty(), "it is not read");
        assert!(read(r#"{"id":"1","title":"a","Title":"a"}"#).unreadable.is_empty(), "no contradiction");
    }

    #[test]
    fn a_row_that_is_no_resource_says_whose_it_is_if_it_can() {
        let reading = Reading::plain(AttributeList::default());
        let whose = |json: &str| {
            let error = read_resource(Kind::User, json.as_bytes(), &reading).unwrap_err();
            error.id.map(|id| id.to_string())
        };
        let many = format!("{{{}\"id\":\"1\"}}", "\"a\":0,".repeat(ATTRIBUTES_MAX + 1));
        assert_eq!(whose(&many).as_deref(), Some("1"));
        for json in [r#"{"id":"1","ID":"2"}"#, r#"{"userName":"u"}"#, "7", "null", "[]", r#"{"id":{"":0}}"#] {
            assert_eq!(whose(json), None, "{json}");
        }
    }

    #[test]
    fn an_attribute_too_large_to_look_at_is_left_out_and_named() {
        let big = "0,".repeat(ATTRIBUTE_BYTES_MAX / 2);
        let principal = user(&format!(r#"{{"id":"1","userName":"u","emails":[{big}0],"active":[{big}0]}}"#));
        assert_eq!(principal.omitted, ["active", "emails"]);
        assert_eq!((principal.user_name.as_deref(), principal.active), (Some("u"), None));
        let reading = Reading {
            absent_active: AbsentActive::True,
            ..Reading::plain(AttributeList::new(vec!["meta.created".into()]))
        };
        let json = format!(r#"{{"id":"1","meta":[{big}0],"active":[{big}0]}}"#);
        let principal = read_resource(Kind::User, json.as_bytes(), &reading).unwrap().principal;
        assert_eq!((principal.omitted.len(), principal.active), (2, None), "stated, though unread");
    }
}
