//! Principals: users and groups as one shape, named by their SCIM `id`.

use std::collections::BTreeMap;
use std::num::NonZeroU128;
use std::sync::Arc;

/// An id that nobody has: what is found by it is found by accident.
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

    /// The word of contract.md's `principal_type`.
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

    /// Every compared attribute as (SCIM path, JSON text), sorted by path. `email` is derived from
    /// `emails` and `last_modified` moves without a change of the person: neither is compared.
    pub fn compared(&self) -> BTreeMap<&str, String> {
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

/// A string as JSON text (RFC 8259 §7).
pub fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            control if (control as u32) < 0x20 => json.push_str(&format!("\\u{:04x}", control as u32)),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

/// The attributes that may leave the process, as SCIM paths (RFC 7644 §3.10). Matching ignores case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeList(Vec<String>);

/// URN of the enterprise extension (RFC 7643 §4.3), with the colon that precedes an attribute.
pub const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:";

const DEFAULT: &[&str] = &[
    "userName",
    "displayName",
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

impl Default for AttributeList {
    fn default() -> AttributeList {
        let enterprise = DEFAULT_ENTERPRISE.iter().map(|name| format!("{ENTERPRISE}{name}"));
        AttributeList(DEFAULT.iter().map(ToString::to_string).chain(enterprise).collect())
    }
}

impl AttributeList {
    pub fn new(paths: Vec<String>) -> AttributeList {
        AttributeList(paths)
    }

    pub fn paths(&self) -> &[String] {
        &self.0
    }

    /// The list's own spelling of the entry that covers `path` (the entry itself or something below
    /// it), so that a server that changes the case of a name causes no change.
    pub fn entry(&self, path: &str) -> Option<&str> {
        let covers = |entry: &str| {
            path.get(..entry.len()).is_some_and(|head| head.eq_ignore_ascii_case(entry))
                && matches!(path.as_bytes().get(entry.len()), None | Some(b'.'))
        };
        if NEVER.iter().any(|never| covers(never)) {
            return None;
        }
        // `active` is always read (contract.md, default attribute list).
        self.0.iter().map(String::as_str).find(|entry| covers(entry)).or_else(|| covers("active").then_some("active"))
    }

    pub fn covers(&self, path: &str) -> bool {
        self.entry(path).is_some()
    }
}
