//! The attributes of a principal: which of a resource's attributes the account's list keeps, and the form in which
//! they are kept.

use serde_json::value::RawValue;

use super::value::{
    ELEMENTS_MAX, NESTING_MAX, array, canonical, canonical_object, is_nothing, read_active, read_text, read_time,
    standard_name,
};
use crate::directory::{AttributeList, Kind, Principal, main_email};
use crate::json::{Bounded, Fields, text};

/// Sub-attributes of one complex attribute; one that has more is left out whole.
pub const SUB_ATTRIBUTES_MAX: usize = 64;
/// Bytes that the paths of nearly all attributes take.
const PATH_CAPACITY: usize = 96;
/// Bytes of an attribute's path: each of its values is stored under one.
pub const PATH_BYTES_MAX: usize = 512;
/// Multi-valued attributes of a user (RFC 7643 §4.1.2). Servers that know only one value write it without its array.
const MULTI_VALUED: [&str; 8] =
    ["emails", "phoneNumbers", "ims", "photos", "addresses", "entitlements", "roles", "x509Certificates"];

/// True for an attribute and for what is below it.
pub fn is_of(path: &str, attribute: &str) -> bool {
    path.eq_ignore_ascii_case(attribute) || is_below(path, attribute)
}

fn is_below(path: &str, name: &str) -> bool {
    // The cheaper question first, as in `AttributeList::entry`.
    matches!(path.as_bytes().get(name.len()), Some(b'.' | b':'))
        && path.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
}

/// True if the list covers the attribute, something below it, or something of that extension.
pub(super) fn wanted(list: &AttributeList, name: &str) -> bool {
    list.covers(name) || list.paths().iter().any(|path| is_below(path, name))
}

/// The entries of the list that an attribute of this name would fill.
pub(super) fn entries_of(list: &AttributeList, name: &str) -> Vec<String> {
    match list.entry(name) {
        Some(entry) => vec![entry.to_owned()],
        None => list.paths().iter().filter(|path| is_below(path, name)).cloned().collect(),
    }
}

/// Some servers write core attributes with their schema's URN in front.
pub(super) fn without_core_urn(name: &str) -> &str {
    const CORE: [&str; 2] =
        ["urn:ietf:params:scim:schemas:core:2.0:User:", "urn:ietf:params:scim:schemas:core:2.0:Group:"];
    CORE.iter()
        .find_map(|urn| name.get(..urn.len()).filter(|head| head.eq_ignore_ascii_case(urn)).map(|_| &name[urn.len()..]))
        .unwrap_or(name)
}

pub(super) fn set(
    principal: &mut Principal,
    kind: Kind,
    list: &AttributeList,
    name: &str,
    raw: &RawValue,
) -> Result<(), ()> {
    // Room for the paths of an extension, so that it hardly ever grows.
    let mut path = String::with_capacity(PATH_CAPACITY);
    path.push_str(name);
    if name.contains(':') {
        // An extension is an object of attributes (RFC 7643 §3.3); some servers write its attributes flat.
        if raw.get().starts_with('{') && !list.covers(name) {
            for (attribute, raw) in Fields::of(raw).ok_or(())?.0 {
                set_below(principal, list, &mut path, ':', &attribute, raw, NESTING_MAX)?;
            }
            return Ok(());
        }
        return set_attribute(principal, list, &mut path, raw, NESTING_MAX);
    }
    let is = |attribute: &str| name.eq_ignore_ascii_case(attribute);
    if is("userName") || is("active") {
        if kind == Kind::User && is("active") {
            principal.active = read_active(raw);
            // The server states a value, and it is unknown which.
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
            let time = || text(raw).as_deref().and_then(read_time);
            match list.entry(&["meta.", &attribute].concat()) {
                Some(entry) if entry.eq_ignore_ascii_case("meta.created") => principal.created = time(),
                Some(entry) if entry.eq_ignore_ascii_case("meta.lastModified") => principal.last_modified = time(),
                Some(_) => set_below(principal, list, &mut path, '.', &attribute, raw, NESTING_MAX)?,
                None => {}
            }
        }
    } else {
        set_attribute(principal, list, &mut path, raw, NESTING_MAX)?;
        if kind == Kind::User && is("emails") && list.covers("emails.value") {
            let emails = list.entry(name).map_or_else(|| name.to_owned(), |entry| spelled(entry, name));
            principal.email = principal.attributes.get(&emails).and_then(|emails| main_email(emails));
        }
    }
    Ok(())
}

/// As [`set_attribute`], for what is `name` below `path`.
fn set_below(
    principal: &mut Principal,
    list: &AttributeList,
    path: &mut String,
    separator: char,
    name: &str,
    raw: &RawValue,
    nesting: usize,
) -> Result<(), ()> {
    let above = path.len();
    path.push(separator);
    path.push_str(name);
    let set = set_attribute(principal, list, path, raw, nesting);
    path.truncate(above);
    set
}

/// Stores a value by its path in the list's spelling: complex values flattened, multi-valued ones as one
/// canonical array. `nesting`: objects that may still be inside each other.
fn set_attribute(
    principal: &mut Principal,
    list: &AttributeList,
    path: &mut String,
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
                set_below(principal, list, path, '.', standard_name(name), raw, nesting - 1)?;
            }
        }
        _ => {
            if let Some(entry) = list.entry(path) {
                principal.attributes.insert(spelled(entry, path), canonical(raw, nesting)?.unwrap_or_default());
            }
        }
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
    let entry = list.entry(path);
    let whole = entry.is_some();
    let mut values = Vec::with_capacity(elements.len());
    for element in elements {
        let is_object = element.get().starts_with('{');
        let value = match (is_object, whole) {
            (true, false) => canonical_object(element, nesting, &|name| list.covers(&[path, ".", name].concat()))?,
            (false, false) => None,
            (_, true) => canonical(element, nesting)?,
        };
        // Some servers write an empty text for an absent value.
        values.extend(value.filter(|value| value != "\"\""));
    }
    values.sort_unstable();
    values.dedup();
    if !values.is_empty() {
        principal
            .attributes
            .insert(entry.map_or_else(|| path.to_owned(), |entry| spelled(entry, path)), array(&values));
    }
    Ok(())
}

/// The path as the entry that covers it spells its head: a server that changes the case of names changes nothing.
fn spelled(entry: &str, path: &str) -> String {
    [entry, &path[entry.len()..]].concat()
}

/// Takes out what was read of an attribute before it turned out unreadable.
pub(super) fn forget(principal: &mut Principal, entries: &[String]) {
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
