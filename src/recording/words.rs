//! The words that a recording keeps, because standards and the shipped profiles have them. Every other word is replaced.

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::scim::Profile;
use crate::scim::layers::EMBEDDED;

/// Names of RFC 7643, RFC 7644, RFC 9865 and of SCIM 1.1, in lower case.
const NAMES: &str = "
    schemas id externalid meta resourcetype created lastmodified location version
    username name formatted familyname givenname middlename honorificprefix honorificsuffix displayname nickname
    profileurl title usertype preferredlanguage locale timezone active password emails phonenumbers ims photos
    addresses streetaddress locality region postalcode country groups entitlements roles x509certificates
    value display type primary $ref ref
    employeenumber costcenter organization division department manager managerid
    members
    documentationuri patch bulk filter changepassword sort etag authenticationschemes supported maxoperations
    maxpayloadsize maxresults specuri pagination cursor index defaultpaginationmethod defaultpagesize maxpagesize
    cursortimeout
    endpoint description schema schemaextensions required
    attributes subattributes multivalued caseexact mutability returned uniqueness canonicalvalues referencetypes
    totalresults itemsperpage startindex resources nextcursor previouscursor count detail scimtype status
    excludedattributes sortby sortorder errors code uri
    readonly immutable operations";

/// Names whose numbers are counts, and not data.
const COUNTS: &str = "
    totalresults itemsperpage startindex count maxoperations maxpayloadsize maxresults defaultpagesize maxpagesize
    cursortimeout";

/// Parts of schemas that belong to the standards.
const URN_PARTS: &str = "urn ietf params scim schemas extension core api messages enterprise 1.0 1.1 2.0 user group";

/// Schemas and messages of the standards, in lower case; the profiles have more.
const URNS: [&str; 15] = [
    "urn:ietf:params:scim:schemas:core:2.0:user",
    "urn:ietf:params:scim:schemas:core:2.0:group",
    "urn:ietf:params:scim:schemas:core:2.0:schema",
    "urn:ietf:params:scim:schemas:core:2.0:resourcetype",
    "urn:ietf:params:scim:schemas:core:2.0:serviceproviderconfig",
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:user",
    "urn:ietf:params:scim:api:messages:2.0:listresponse",
    "urn:ietf:params:scim:api:messages:2.0:searchrequest",
    "urn:ietf:params:scim:api:messages:2.0:patchop",
    "urn:ietf:params:scim:api:messages:2.0:bulkrequest",
    "urn:ietf:params:scim:api:messages:2.0:bulkresponse",
    "urn:ietf:params:scim:api:messages:2.0:error",
    "urn:scim:schemas:core:1.0",
    "urn:scim:schemas:core:1.1",
    "urn:scim:schemas:extension:enterprise:1.0",
];

/// Parts of paths that are not data.
const PATH_PARTS: &str = "Users Groups Schemas ResourceTypes ServiceProviderConfig ServiceProviderConfigs .search
    scim api rest v1 v2 v2.0 User Group directoryObjects members resources";

const BOOLEANS: &str = "true false 0 1 yes no active inactive enabled disabled";
const TYPES: &str = "
    work home other mobile fax pager photo thumbnail member aim gtalk icq xmpp msn skype qq yahoo User Group direct indirect
    string boolean decimal integer dateTime reference binary complex oauth oauth2 oauthbearertoken httpbasic httpdigest";
const RESOURCES: &str = "User Group Users Groups Schema ResourceType ServiceProviderConfig EnterpriseUser";
const CHARACTERISTICS: &str = "
    readOnly readWrite immutable writeOnly always never default request none server global external uri";
const SCIM_TYPES: &str = "
    invalidFilter tooMany uniqueness mutability invalidSyntax invalidPath noTarget invalidValue invalidVers sensitive
    invalidCursor expiredCursor invalidCount";
/// What vendors call rights. Only attributes that decide about privileges keep these words.
const RIGHTS: &str = "
    owner admin administrator member manager billing guest viewer editor user full view dev collab none restricted
    membership_admin restricted_member";

/// What the shipped profiles name.
struct Vocabulary {
    names: HashSet<String>,
    urns: HashSet<String>,
    paths: HashSet<String>,
    privileges: HashSet<String>,
}

/// Only the profiles that ship: those of a configuration may name a company.
static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let mut vocabulary = Vocabulary {
        names: NAMES.split_whitespace().map(str::to_owned).collect(),
        urns: URNS.iter().map(ToString::to_string).collect(),
        paths: PATH_PARTS.split_whitespace().map(str::to_lowercase).collect(),
        privileges: ["roles", "entitlements", "usertype"].map(str::to_owned).into(),
    };
    for profile in EMBEDDED.iter().filter_map(|(name, _)| Profile::named(name).ok()) {
        vocabulary.paths.extend([profile.users_path, profile.groups_path].map(|path| path.to_lowercase()));
        vocabulary.names.extend(profile.list_params.keys().map(|name| name.to_lowercase()));
        for path in &profile.attributes {
            vocabulary.add(path);
        }
        for path in &profile.privileges {
            vocabulary.add(path);
            let name = path.rsplit([':', '.']).next().unwrap_or_default();
            vocabulary.privileges.insert(name.to_lowercase());
        }
    }
    vocabulary
});

impl Vocabulary {
    /// `urn:…:User:role`, `name.formatted`
    fn add(&mut self, path: &str) {
        let path = path.to_lowercase();
        let (urn, names) = match path.rsplit_once(':') {
            // A whole extension.
            Some(_) if path.ends_with(":user") || path.ends_with(":group") => (Some(path.as_str()), ""),
            Some((urn, names)) => (Some(urn), names),
            None => (None, path.as_str()),
        };
        self.urns.extend(urn.map(str::to_owned));
        self.names.extend(names.split('.').filter(|name| !name.is_empty()).map(str::to_owned));
    }
}

fn has(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|known| known.eq_ignore_ascii_case(word))
}

/// An attribute or parameter of the standards or of a profile.
pub(super) fn is_name(name: &str) -> bool {
    VOCABULARY.names.contains(&name.to_ascii_lowercase())
}

/// A schema of the standards or of a profile.
pub(super) fn is_urn(urn: &str) -> bool {
    VOCABULARY.urns.contains(&urn.to_ascii_lowercase())
}

pub(super) fn is_part_of_urns(part: &str) -> bool {
    has(URN_PARTS, part)
}

pub(super) fn is_part_of_paths(part: &str) -> bool {
    VOCABULARY.paths.contains(&part.to_ascii_lowercase())
}

/// True if this number is a count, the status of an error, or a truth value. `parent`: the attribute around it.
pub(super) fn is_count(parent: &str, name: &str, number: &str) -> bool {
    has(COUNTS, name) || is_status(parent, name, number) || has("active primary", name) && has(BOOLEANS, number)
}

/// RFC 7644 §3.12; SCIM 1.1 says `code` inside `Errors`.
fn is_status(parent: &str, name: &str, text: &str) -> bool {
    let of_an_error = parent.is_empty() && name.eq_ignore_ascii_case("status")
        || parent.eq_ignore_ascii_case("Errors") && has("status code", name);
    of_an_error && text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// True if the attribute takes one of the words of a standard, and this is one. `parent`: the attribute around it.
pub(super) fn is_word_of(parent: &str, name: &str, text: &str) -> bool {
    let parent_is = |other: &str| parent.eq_ignore_ascii_case(other);
    let privileges = &VOCABULARY.privileges;
    let is_privilege = privileges.contains(&name.to_ascii_lowercase())
        || ["value", "type"].iter().any(|of| name.eq_ignore_ascii_case(of))
            && privileges.contains(&parent.to_ascii_lowercase());
    match name.to_ascii_lowercase().as_str() {
        "active" | "primary" => has(BOOLEANS, text),
        // What servers write in the place of a name that they do not have.
        _ if text.eq_ignore_ascii_case("N/A") => true,
        "type" if has(TYPES, text) => true,
        "resourcetype" => has(RESOURCES, text),
        // Of a ResourceType or a schema; the name of a person is an object.
        "name" => has(RESOURCES, text) && !parent_is("members"),
        "mutability" | "returned" | "uniqueness" => has(CHARACTERISTICS, text),
        "canonicalvalues" | "referencetypes" => has(TYPES, text) || has(RESOURCES, text) || has(CHARACTERISTICS, text),
        "defaultpaginationmethod" => has("cursor index", text),
        "scimtype" => has(SCIM_TYPES, text),
        "sortorder" => has("ascending descending", text),
        "status" | "code" if is_status(parent, name, text) => true,
        _ => is_privilege && (has(RIGHTS, text) || has(BOOLEANS, text)),
    }
}
