//! A resource as servers really send it → a canonical principal.
//!
//! A resource is split into its top-level attributes without being parsed; only listed attributes are
//! parsed, so attributes outside the account's list never become values in this process (G9 of the README).
//!
//! **Invariant:** one attribute that cannot be read costs that attribute, never the row, and one row never the walk.
//! What cannot be read is named, and what is known of it stays.

use serde_json::value::RawValue;

use super::attributes::{entries_of, forget, is_of, set, wanted, without_core_urn};
use super::members::{Members, read_groups, read_members};
use super::profile::{AbsentActive, Email};
use super::usual;
use super::value::{NESTING_MAX, id, id_of};
use crate::directory::reduction::reduce;
use crate::directory::{AttributeList, Id, Kind, ListedGroup, ListedMember, Principal};
use crate::json::Fields;

/// JSON bytes of one attribute that are parsed; a larger one is left out without a look inside.
pub const ATTRIBUTE_BYTES_MAX: usize = 1 << 20;

/// What of a resource is read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub attributes: AttributeList,
    pub absent_active: AbsentActive,
    pub email: Email,
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
            email: Email::Emails,
            groups_on_user: false,
            paths: Kind::BOTH.map(|kind| kind.endpoint().to_owned()),
        }
    }
}

/// A resource as read: the principal and, for groups, the members that it lists.
#[derive(Debug, PartialEq, Eq)]
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

impl Resource {
    fn of(principal: Principal) -> Resource {
        Resource {
            principal,
            members: Vec::new(),
            groups: Vec::new(),
            unreadable: Vec::new(),
            composed_name: false,
            other_members: 0,
        }
    }
}

/// A row that is not a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `None`: it has no usable `id`, so that its principal is unknown.
    pub id: Option<Id>,
}

/// Parses one resource.
///
/// # Errors
/// It is not a JSON object, has no usable `id`, or has more attributes than any resource has.
pub fn read_resource(kind: Kind, bytes: &[u8], reading: &Reading) -> Result<Resource, Unreadable> {
    let may_be_usual = kind == Kind::User && !reading.groups_on_user && reading.attributes.is_default();
    match may_be_usual.then(|| usual::read(bytes)).flatten() {
        Some((principal, active_stated)) => Ok(completed(Resource::of(principal), active_stated, kind, reading)),
        None => read_in_full(kind, bytes, reading),
    }
}

/// As [`read_resource`], whatever the row looks like.
fn read_in_full(kind: Kind, bytes: &[u8], reading: &Reading) -> Result<Resource, Unreadable> {
    let fields: Fields<'_> = serde_json::from_slice(bytes).map_err(|_| Unreadable { id: id_of(bytes) })?;
    let id = fields.agreed("id").ok().flatten().and_then(id).ok_or(Unreadable { id: None })?;
    let list = &reading.attributes;
    let mut resource = Resource::of(Principal::new(id));
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
    Ok(completed(resource, active_stated, kind, reading))
}

/// Adds what follows from the attributes that were read.
fn completed(mut resource: Resource, active_stated: bool, kind: Kind, reading: &Reading) -> Resource {
    let (principal, list) = (&mut resource.principal, &reading.attributes);
    if kind == Kind::User {
        if !active_stated {
            principal.active = reading.absent_active.meaning();
        }
        let unreadable = |attribute: &str| resource.unreadable.iter().any(|name| is_of(name, attribute));
        if reading.email == Email::UserName && principal.email.is_none() && list.covers("emails.value") {
            principal.email = principal.user_name.clone();
        }
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
    // The order in which the server states them is not a difference.
    principal.omitted.sort_unstable();
    principal.omitted.dedup();
    resource.unreadable.sort_unstable();
    resource.unreadable.dedup();
    resource
}

/// Paths of the attributes of a resource, as the server spells them: what a listed attribute may have been meant to be.
/// Those of complex attributes and extensions end at the first value that is not an object.
pub fn paths_of(bytes: &[u8]) -> Vec<String> {
    let mut paths = Vec::new();
    if let Ok(fields) = serde_json::from_slice::<Fields<'_>>(bytes) {
        for (name, raw) in fields.0 {
            let separator = if name.contains(':') { ':' } else { '.' };
            paths_below(name.into_owned(), separator, raw, NESTING_MAX, &mut paths);
        }
    }
    paths
}

fn paths_below(path: String, separator: char, raw: &RawValue, nesting: usize, paths: &mut Vec<String>) {
    match Fields::of(raw).filter(|_| nesting > 0 && raw.get().starts_with('{')) {
        None => paths.push(path),
        Some(fields) => {
            for (name, raw) in fields.0 {
                paths_below(format!("{path}{separator}{name}"), '.', raw, nesting - 1, paths);
            }
        }
    }
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
        Kind::Group => {
            let Members { listed, others } = read_members(raw, &reading.paths)?;
            (resource.members, resource.other_members) = (listed, others);
        }
        Kind::User => resource.groups = read_groups(raw)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn where_the_user_name_is_the_address_it_is_the_email_of_a_user_without_emails() {
        let read = |json: &str, attributes: AttributeList, email: Email| {
            let reading = Reading { email, ..Reading::plain(attributes) };
            read_resource(Kind::User, json.as_bytes(), &reading).unwrap().principal.email
        };
        let (bare, stated) =
            (r#"{"id":"1","userName":"a@x"}"#, r#"{"id":"1","userName":"a@x","emails":[{"value":"b@x"}]}"#);
        let all = AttributeList::default;
        assert_eq!(read(bare, all(), Email::UserName).as_deref(), Some("a@x"));
        assert_eq!(read(bare, all(), Email::Emails), None);
        assert_eq!(read(stated, all(), Email::UserName).as_deref(), Some("b@x"));
        for listed in ["userName", "emails"] {
            assert_eq!(
                read(bare, AttributeList::new(vec![listed.to_owned()]), Email::UserName),
                None,
                "{listed} alone"
            );
        }
    }
    use crate::directory::comparable;
    use crate::json::ATTRIBUTES_MAX;
    use crate::scim::value::NESTING_MAX;

    fn user(json: &str) -> Principal {
        let reading = Reading::plain(AttributeList::default());
        read_resource(Kind::User, json.as_bytes(), &reading).unwrap().principal
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
    fn a_name_is_shown_where_no_display_name_is_served() {
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
        // `$ref` decides over a type that is neither; a version or a host is not an endpoint.
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

    /// Names and values of rows that are read in one pass, of those that are not, and of what lies between.
    fn pairs() -> impl Strategy<Value = (String, String)> {
        const NAMES: [&str; 24] = [
            "userName",
            "displayName",
            "externalId",
            "active",
            "name",
            "emails",
            "roles",
            "entitlements",
            "title",
            "userType",
            "meta",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
            "nickName",
            "groups",
            "members",
            "schemas",
            "locale",
            "Title",
            "ID",
            "urn:ietf:params:scim:schemas:core:2.0:User:title",
            "urn:ietf:params:scim:schemas:extension:acme:2.0:User",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department",
            "name.formatted",
            "tit\\u006ce",
        ];
        const VALUES: [&str; 16] = [
            r#""Ann""#,
            r#""""#,
            r#""a\u0062c""#,
            r#""a\"b""#,
            "null",
            "true",
            "false",
            "7",
            "[]",
            "{}",
            r#""2026-01-02T03:04:05Z""#,
            r#""ann@x""#,
            r#""work""#,
            r#"["a@x"]"#,
            r#"{"a":{"b":[1]}}"#,
            r#""true""#,
        ];
        const BELOW: [&str; 22] = [
            "formatted",
            "givenName",
            "familyName",
            "middleName",
            "department",
            "organization",
            "costCenter",
            "employeeNumber",
            "division",
            "manager",
            "created",
            "lastModified",
            "version",
            "resourceType",
            "value",
            "Value",
            "display",
            "displayName",
            "type",
            "primary",
            "$ref",
            "other",
        ];
        let value = || prop::sample::select(&VALUES[..]).prop_map(str::to_owned);
        let object = |inner: BoxedStrategy<String>| {
            prop::collection::vec((prop::sample::select(&BELOW[..]), inner), 0..4).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            })
        };
        let list = prop::collection::vec(prop_oneof![object(value().boxed()), value()], 0..3);
        let any = prop_oneof![
            3 => value(),
            3 => object(prop_oneof![3 => value(), 1 => object(value().boxed())].boxed()),
            2 => list.prop_map(|values| format!("[{}]", values.join(","))),
        ];
        (prop::sample::select(&NAMES[..]).prop_map(str::to_owned), any)
    }

    /// An attribute as most servers write it.
    fn usual_pairs() -> impl Strategy<Value = (String, String)> {
        const USUAL: [(&str, &str); 9] = [
            ("userName", r#""ann""#),
            ("displayName", r#""Ann Bee""#),
            ("active", "false"),
            ("title", r#""Clerk""#),
            ("name", r#"{"formatted":"Ann Bee","givenName":"Ann","middleName":null}"#),
            (
                "emails",
                r#"[{"value":"b@x","type":"work"},{"primary":true,"value":"c@x","display":"C"},{"value":"b@x","type":"work"}]"#,
            ),
            ("roles", r#"[{"value":"admin","type":null},{}]"#),
            (
                "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
                r#"{"department":"Ops","manager":{"value":"7","$ref":"../Users/7","displayName":""}}"#,
            ),
            ("meta", r#"{"created":"2026-01-02T03:04:05Z","lastModified":"never","version":7,"location":"x"}"#),
        ];
        prop::sample::select(&USUAL[..]).prop_map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    proptest! {
        #[test]
        fn a_user_that_is_read_in_one_pass_is_the_user_that_is_read_in_full(
            usual in prop::collection::vec(usual_pairs(), 0..6),
            others in prop::collection::vec(pairs(), 0..3),
            absent_active in prop::sample::select(vec![AbsentActive::Unknown, AbsentActive::True]),
            email in prop::sample::select(vec![Email::Emails, Email::UserName]),
        ) {
            let reading = Reading { absent_active, email, ..Reading::plain(AttributeList::default()) };
            let fields = usual.iter().chain(&others).map(|(name, value)| format!(",\"{name}\":{value}"));
            let row = format!("{{\"id\":\"1\"{}}}", fields.collect::<String>());
            let read = read_resource(Kind::User, row.as_bytes(), &reading);
            prop_assert_eq!(read, read_in_full(Kind::User, row.as_bytes(), &reading), "{}", row);
        }
    }

    #[test]
    fn a_user_as_rfc_7643_writes_it_is_read_in_one_pass() {
        let row =
            |attributes: &str| format!("{{\"schemas\":[],\"id\":\"1\",{attributes}\"groups\":[{{\"value\":\"g\"}}]}}");
        for (attributes, is_usual) in [
            (r#""userName":"ann","name":{"givenName":"Ann"},"emails":[{"value":"a@x","primary":true}],"#, true),
            (r#""urn:acme:1.0:User":{"seat":{"admin":true}},"externalId":null,"#, true),
            (r#""title":"Clerk","Title":"Clerk","#, false),
            (r#""userName":"A\u006en","#, false),
            (r#""userName":7,"#, false),
            (r#""active":"true","#, false),
        ] {
            assert_eq!(usual::read(row(attributes).as_bytes()).is_some(), is_usual, "{attributes}");
        }
    }
}
