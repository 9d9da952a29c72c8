//! Principals: users and groups as one shape, named by their SCIM `id`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU128;
use std::sync::{Arc, LazyLock};

use super::agreement::compatible;
use super::emails::main_email;
use super::values::{belongs_to, comparable};
use crate::json::{json_text, text_of};

/// An id that no principal has: a server that finds one by it ignores the filter.
pub const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// A SCIM `id`: case-sensitive, issued by the server, unique in its directory (RFC 7643 §3.1).
pub type Id = Arc<str>;

/// Hash of a resource's bytes as the server sent them: by it an unchanged resource is recognised
/// without being parsed.
pub type RawHash = NonZeroU128;

/// The SCIM resource types that scimtail reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    User,
    Group,
}

impl Kind {
    pub const BOTH: [Kind; 2] = [Kind::User, Kind::Group];

    /// The published field `principal_type`.
    pub fn principal_type(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Group => "group",
        }
    }

    /// The endpoint's name in URLs and keys (RFC 7644 §3.2).
    pub fn endpoint(self) -> &'static str {
        match self {
            Kind::User => "Users",
            Kind::Group => "Groups",
        }
    }

    pub fn parse_principal_type(text: &str) -> Option<Kind> {
        Kind::BOTH.into_iter().find(|kind| kind.principal_type() == text)
    }
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    pub kind: Kind,
    pub id: Id,
}

/// A user or group, canonical: absent, null and `[]` are all "not there" (RFC 7643 §2.5), multi-valued
/// attributes are sorted, only allow-listed attributes are kept.
///
/// `user_name`, `active` and `email` are always `None` for groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub id: Id,
    pub user_name: Option<String>,
    pub display_name: Option<String>,
    /// `None`: unknown, never "inactive".
    pub active: Option<bool>,
    pub external_id: Option<String>,
    pub email: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    pub created: Option<i64>,
    /// Milliseconds since 1970-01-01 UTC; not compared.
    pub last_modified: Option<i64>,
    /// Every other listed attribute: SCIM path → canonical JSON text.
    pub attributes: BTreeMap<String, String>,
    /// Paths left out because the record would be too large.
    pub omitted: Vec<String>,
}

impl Principal {
    pub fn new(id: impl Into<Id>) -> Principal {
        Principal {
            id: id.into(),
            user_name: None,
            display_name: None,
            active: None,
            external_id: None,
            email: None,
            created: None,
            last_modified: None,
            attributes: BTreeMap::new(),
            omitted: Vec::new(),
        }
    }

    /// What a person would call it: userName, else displayName.
    pub fn name(&self) -> Option<&str> {
        self.user_name.as_deref().or(self.display_name.as_deref())
    }

    /// Every published attribute as (SCIM path, JSON text), sorted by path. `email` is derived from `emails` and
    /// `last_modified` moves without a change of the person: neither is among them.
    pub fn published(&self) -> BTreeMap<&str, String> {
        let mut all: BTreeMap<&str, String> =
            self.attributes.iter().map(|(path, value)| (path.as_str(), value.clone())).collect();
        let text = |value: &Option<String>| value.as_deref().map(json_text);
        let fields = [
            ("userName", text(&self.user_name)),
            ("displayName", text(&self.display_name)),
            ("active", self.active.map(|active| active.to_string())),
            ("externalId", text(&self.external_id)),
            ("meta.created", self.created.map(|millis| millis.to_string())),
        ];
        all.extend(fields.into_iter().filter_map(|(path, value)| Some((path, value?))));
        all
    }
}

impl Principal {
    /// `name.formatted`, else given and family name: used for a `displayName` that the server does not state.
    /// As far as the account lists them.
    pub fn composed_name(&self) -> Option<String> {
        let part = |name: &str| {
            let (_, value) = self.attributes.iter().find(|(path, _)| path.eq_ignore_ascii_case(name))?;
            // Sentry writes `N/A` for a name that it does not know.
            text_of(value).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && text != "N/A")
        };
        part("name.formatted").or_else(|| {
            let parts: Vec<String> = ["name.givenName", "name.familyName"].into_iter().filter_map(part).collect();
            (!parts.is_empty()).then(|| parts.join(" "))
        })
    }

    /// True where the main e-mail address is the user name, because the directory shows no `emails`.
    pub fn email_is_user_name(&self) -> bool {
        self.email.is_some()
            && self.email == self.user_name
            && !self.attributes.keys().any(|path| belongs_to(path, "emails"))
    }

    /// True for the name of what an attribute points to, e.g. `manager.displayName` beside `manager.value`: it is
    /// published, but a difference in it is not a change of this principal.
    pub fn is_derived(&self, path: &str) -> bool {
        let Some((head, name)) = path.rsplit_once('.') else { return false };
        ["display", "displayName"].iter().any(|derived| derived.eq_ignore_ascii_case(name))
            && self.attributes.contains_key(&format!("{head}.value"))
    }

    /// The differences between two principals that count as changes, sorted by path, with the published values.
    pub fn differences(before: &Principal, after: &Principal) -> Vec<AttributeChange> {
        let (old, new) = (before.published(), after.published());
        let paths: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        paths
            .into_iter()
            .filter(|path| old.get(path) != new.get(path))
            .filter(|path| !before.is_derived(path) && !after.is_derived(path))
            .filter(|path| !is_equal(path, old.get(path).map(String::as_str), new.get(path).map(String::as_str)))
            .map(|path| AttributeChange {
                attribute: path.to_owned(),
                old: old.get(path).cloned(),
                new: new.get(path).cloned(),
            })
            .collect()
    }

    /// A known principal as GET shows it. GET proves that the principal exists, and tells `active`; of the other
    /// attributes only those count that both show: a server's GET and its list rarely show the same.
    pub fn as_shown_by_get(&self, got: Principal) -> Principal {
        let mut shown = self.clone();
        // Where lists do not state `active`, that GET says so is not news, and would be lost with the next list.
        shown.active = match (self.active, got.active) {
            (None, Some(true)) => None,
            (known, got) => got.or(known),
        };
        shown.last_modified = got.last_modified.or(shown.last_modified);
        let contradicts =
            |path: &str, known: &str, got: &str| !is_equal(path, Some(known), Some(got)) && !compatible(known, got);
        for (field, got) in [
            (&mut shown.user_name, got.user_name),
            (&mut shown.display_name, got.display_name),
            (&mut shown.external_id, got.external_id),
        ] {
            if field.is_some() && got.is_some() {
                *field = got;
            }
        }
        for (path, got) in got.attributes {
            if let Some(known) = shown.attributes.get_mut(&path)
                && contradicts(&path, known, &got)
            {
                *known = got;
            }
        }
        let emails = shown.attributes.iter().find(|(path, _)| path.eq_ignore_ascii_case("emails"));
        shown.email = match emails.and_then(|(_, emails)| main_email(emails)) {
            None if self.email_is_user_name() => shown.user_name.clone(),
            email => email.or(shown.email),
        };
        shown
    }

    /// What two rows of one walk say of the same principal, whichever came first: the smaller text where they differ.
    /// `active` is the caller's, because there a difference means that it is unknown.
    pub fn merged(self, other: Principal) -> Principal {
        fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        let mut attributes = self.attributes;
        for (path, value) in other.attributes {
            let before = attributes.remove(&path);
            attributes.extend(smaller(before, Some(value)).map(|value| (path, value)));
        }
        let mut omitted = self.omitted;
        omitted.extend(other.omitted);
        omitted.sort_unstable();
        omitted.dedup();
        let emails = attributes.iter().find(|(path, _)| path.eq_ignore_ascii_case("emails"));
        Principal {
            email: emails.and_then(|(_, emails)| main_email(emails)).or_else(|| smaller(self.email, other.email)),
            id: self.id,
            user_name: smaller(self.user_name, other.user_name),
            display_name: smaller(self.display_name, other.display_name),
            active: self.active,
            external_id: smaller(self.external_id, other.external_id),
            created: smaller(self.created, other.created),
            last_modified: self.last_modified.max(other.last_modified),
            attributes,
            omitted,
        }
    }

    /// Takes over from `known` what could not be read of this principal. `entries`: attributes as the list spells them.
    pub fn keep_unreadable(&mut self, known: &Principal, entries: &[String]) {
        for entry in entries {
            match entry.to_ascii_lowercase().as_str() {
                "active" => self.active = known.active,
                "username" => self.user_name.clone_from(&known.user_name),
                "displayname" => self.display_name.clone_from(&known.display_name),
                "externalid" => self.external_id.clone_from(&known.external_id),
                "meta.created" => self.created = known.created,
                "meta.lastmodified" => self.last_modified = known.last_modified,
                "emails" => self.email.clone_from(&known.email),
                _ => {}
            }
            let below = |path: &str| {
                path.get(..entry.len()).is_some_and(|head| head.eq_ignore_ascii_case(entry))
                    && matches!(path.as_bytes().get(entry.len()), None | Some(b'.' | b':'))
            };
            let kept = known.attributes.iter().filter(|(path, _)| below(path));
            self.attributes.extend(kept.map(|(path, value)| (path.clone(), value.clone())));
        }
        if self.email.is_none() && known.email_is_user_name() && self.user_name == known.user_name {
            self.email.clone_from(&known.email);
        }
    }
}

/// True if two values of an attribute are the same. Absence equals every value that holds nothing (RFC 7643 §2.5).
fn is_equal(path: &str, one: Option<&str>, other: Option<&str>) -> bool {
    let of = |value: Option<&str>| {
        let value = value.map(|value| comparable(path, value).into_owned());
        value.filter(|value| !matches!(value.as_str(), "[]" | "{}" | "\"\"" | "null"))
    };
    one == other || of(one) == of(other)
}

/// The attributes that may leave the process, as SCIM paths (RFC 7644 §3.10). Matching ignores case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeList(Arc<Listed>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    paths: Vec<String>,
    /// Places in `paths` of those that may cover a path, by their length: this is asked several times for each attribute
    /// of each user.
    by_length: BTreeMap<usize, Vec<usize>>,
}

/// URN of the enterprise extension (RFC 7643 §4.3), with the colon that precedes an attribute.
pub const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:";

const DEFAULT: &[&str] = &[
    "userName",
    "displayName",
    "name.formatted",
    "name.givenName",
    "name.familyName",
    "active",
    "externalId",
    "emails",
    "userType",
    "title",
    "roles",
    "entitlements",
    "meta.created",
    "meta.lastModified",
];
const DEFAULT_ENTERPRISE: &[&str] =
    &["department", "organization", "division", "costCenter", "employeeNumber", "manager"];

/// Never published, even when listed.
const NEVER: &[&str] = &["password", "x509Certificates"];

/// One for all: each record of `syncs` names them.
static DEFAULT_LIST: LazyLock<AttributeList> = LazyLock::new(|| {
    let enterprise = DEFAULT_ENTERPRISE.iter().map(|name| format!("{ENTERPRISE}{name}"));
    AttributeList::of(DEFAULT.iter().map(ToString::to_string).chain(enterprise).collect())
});

impl Default for AttributeList {
    fn default() -> AttributeList {
        DEFAULT_LIST.clone()
    }
}

impl AttributeList {
    pub fn new(paths: Vec<String>) -> AttributeList {
        if paths == DEFAULT_LIST.paths() { AttributeList::default() } else { AttributeList::of(paths) }
    }

    fn of(paths: Vec<String>) -> AttributeList {
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, path) in paths.iter().enumerate().filter(|(_, path)| !NEVER.iter().any(|never| covers(never, path)))
        {
            by_length.entry(path.len()).or_default().push(place);
        }
        AttributeList(Arc::new(Listed { paths, by_length }))
    }

    pub fn paths(&self) -> &[String] {
        &self.0.paths
    }

    /// True for the list of an account that names no attributes.
    pub fn is_default(&self) -> bool {
        Arc::ptr_eq(&self.0, &DEFAULT_LIST.0)
    }

    /// The list with these paths behind it, without those that it covers already.
    #[must_use]
    pub fn and(self, paths: &[String]) -> AttributeList {
        paths.iter().fold(self, |list, path| {
            if list.covers(path) {
                return list;
            }
            AttributeList::new(list.paths().iter().chain([path]).cloned().collect())
        })
    }

    /// The list's own spelling of the entry that covers `path` (the entry itself or something below
    /// it), so that a server that changes the case of a name causes no change.
    pub fn entry(&self, path: &str) -> Option<&str> {
        let Listed { paths, by_length, .. } = &*self.0;
        let name = path.as_bytes();
        let mut first: Option<usize> = None;
        // A loop, because it is asked several times for each attribute of each user: a chain of iterators took twice the
        // instructions where the compiler did not put it in its place.
        for end in (0..=name.len()).filter(|end| matches!(name.get(*end), None | Some(b'.'))) {
            for place in by_length.get(&end).into_iter().flatten() {
                let is_earlier = first.is_none_or(|first| *place < first);
                if is_earlier && name[..end].eq_ignore_ascii_case(paths[*place].as_bytes()) {
                    first = Some(*place);
                }
            }
        }
        // `active` is always read.
        first.map(|place| paths[place].as_str()).or_else(|| covers("active", path).then_some("active"))
    }

    pub fn covers(&self, path: &str) -> bool {
        self.entry(path).is_some()
    }
}

/// True for the path of an entry, and for what is below it.
fn covers(entry: &str, path: &str) -> bool {
    matches!(path.as_bytes().get(entry.len()), None | Some(b'.'))
        && path.get(..entry.len()).is_some_and(|head| head.eq_ignore_ascii_case(entry))
}

/// One changed attribute: SCIM path and JSON texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeChange {
    pub attribute: String,
    pub old: Option<String>,
    pub new: Option<String>,
}
