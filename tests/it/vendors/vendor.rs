//! A vendor as data: the shapes of its resources and lists, and its habits. `vendors.toml` has the vendors.

use std::collections::BTreeMap;

use scimtail::directory::Kind;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::company::{Company, Person, Standing, Team};

/// One vendor. Texts such as `$id` in its templates are filled in; a key whose value is nothing is left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// The profile.
    pub name: String,
    /// Public sources of the shapes and habits; `unverified` stands before what is not documented.
    pub source: String,
    /// A profile that does not ship yet.
    pub profile: Option<String>,
    /// Further lines of the account: what each customer has to set.
    #[serde(default)]
    pub account: String,

    // Requests.
    /// Path of the endpoint, as in the vendor's documents.
    pub base: String,
    #[serde(default = "both_paths")]
    pub paths: [String; 2],
    /// False: there is no list of groups (404).
    #[serde(default = "yes")]
    pub groups: bool,
    /// Header of the credential and its value; `$token` stands for the token, `$basic` for RFC 7617.
    #[serde(default = "bearer")]
    pub credential: [String; 2],
    pub token: Option<TokenEndpoint>,
    /// A media type that `Accept` has to name first.
    pub accept: Option<String>,
    #[serde(default = "scim_json")]
    pub content_type: String,
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Requests of a sync that finds no change, where they are billed or were too many.
    pub requests_max: Option<usize>,

    // Resources. `$n` is the number of a person or group with four digits.
    pub user_id: String,
    pub group_id: String,
    #[serde(deserialize_with = "json")]
    pub user: Value,
    #[serde(default, deserialize_with = "json")]
    pub group: Value,
    /// What only GET by id shows beside it.
    #[serde(default, deserialize_with = "json")]
    pub get_only: Value,
    #[serde(default, deserialize_with = "json")]
    pub member: Value,
    /// A member of the first group that is no user and no group.
    #[serde(default, deserialize_with = "json")]
    pub other_member: Value,
    /// An entry of `$groups` of a user.
    #[serde(default, deserialize_with = "json")]
    pub user_group: Value,
    /// A parameter and the value without which no group shows `members`.
    pub members_on: Option<[String; 2]>,
    /// `attributes` is obeyed.
    #[serde(default)]
    pub selects: bool,

    // Lists.
    #[serde(default = "list", deserialize_with = "json")]
    pub list: Value,
    #[serde(default)]
    pub paging: Paging,
    /// Rows of a page if the request does not say.
    #[serde(default = "hundred")]
    pub count: usize,
    /// Rows of a page whatever the request says.
    #[serde(default = "thousand")]
    pub count_max: usize,
    /// A larger `count` is refused with 400.
    #[serde(default)]
    pub refuses_larger: bool,
    #[serde(default)]
    pub end: End,
    /// Attributes that can be filtered by with `eq`.
    #[serde(default)]
    pub filters: Vec<String>,
    /// The ServiceProviderConfig, if there is one.
    #[serde(default, deserialize_with = "json")]
    pub config: Value,

    // What becomes of people.
    #[serde(default)]
    pub disabled: Fate,
    #[serde(default = "gone")]
    pub removed: Fate,
    /// A person who was gone and returns has another id.
    #[serde(default)]
    pub returns_as_new: bool,

    // What has to be known of it.
    /// A person's display name, empty if the vendor shows no names.
    #[serde(default = "name")]
    pub display_name: String,
    /// The vendor shows e-mail addresses.
    #[serde(default = "yes")]
    pub email: bool,
    /// `removal_means` of its removals.
    pub removal_means: Option<String>,
    pub privilege: Option<Privilege>,
    /// The attribute that says that a person is disabled, if it is not `active`; its template has `$disabled`.
    pub disabled_in: Option<String>,
    /// What a group of this name grants: kind and name in its entitlement.
    #[serde(default)]
    pub entitlements: bool,
}

/// RFC 6749 §4.4, §6.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEndpoint {
    pub path: String,
    /// Parameters that a request has to have.
    pub wants: BTreeMap<String, String>,
    /// The client names itself in the form, and not in `Authorization`.
    #[serde(default)]
    pub client_in_body: bool,
    /// The answer; `$token` stands for the token.
    #[serde(deserialize_with = "json")]
    pub answer: Value,
}

/// Requests for one list or GET that are answered in `seconds`; those above get 429.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// `Users`, `Users/`, `Groups`, `Groups/`: lists, and with the slash GET by id.
    pub of: String,
    pub requests: usize,
    pub seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    #[default]
    Index,
    /// RFC 9865, and without `cursor` one page only.
    Cursor,
    /// One answer has everything.
    Whole,
}

/// The answer to a page behind the last row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    #[default]
    Empty,
    /// No `Resources`.
    Omitted,
    Null,
    /// 400.
    Refused,
    /// 404.
    NotFound,
}

/// How a vendor shows a person who is disabled or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// In lists, with `active` false.
    #[default]
    Listed,
    /// Not in lists; GET by id shows the user with `active` false.
    Hidden,
    /// GET by id answers 404.
    Gone,
}

/// An attribute in which the vendor says what a person may do; its template has `$privilege`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privilege {
    pub attribute: String,
    /// What the template gets, as JSON.
    pub without: String,
    pub with: String,
    /// What is published before and after, as JSON; the same if it is not said.
    pub published: Option<[String; 2]>,
    /// What the event names as the privilege, if not the attribute; empty: it is none.
    pub named: Option<String>,
}

fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let text = String::deserialize(deserializer)?;
    serde_json::from_str(&text).map_err(|error| serde::de::Error::custom(format!("{error} in {text}")))
}

/// RFC 7644 §3.4.2.
fn list() -> Value {
    serde_json::json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": "$total", "itemsPerPage": "$items", "startIndex": "$start", "Resources": "$rows",
    })
}

fn both_paths() -> [String; 2] {
    Kind::BOTH.map(|kind| kind.endpoint().to_owned())
}

fn bearer() -> [String; 2] {
    ["authorization".to_owned(), "Bearer $token".to_owned()]
}

fn scim_json() -> String {
    "application/scim+json".to_owned()
}

fn name() -> String {
    "$name".to_owned()
}

fn yes() -> bool {
    true
}

fn hundred() -> usize {
    100
}

fn thousand() -> usize {
    1000
}

fn gone() -> Fate {
    Fate::Gone
}

/// What a request wants to see of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub by_id: bool,
    pub members: bool,
}

pub type Fields<'a> = BTreeMap<&'a str, Value>;

/// The template with its fields filled in. Without a value a key is left out.
pub fn fill(template: &Value, fields: &Fields<'_>) -> Value {
    match template {
        Value::String(text) => match text.strip_prefix('$').and_then(|name| fields.get(name)) {
            Some(value) => value.clone(),
            None => Value::String(fields.iter().rev().fold(text.clone(), |text, (name, value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text.replace(&format!("${name}"), &value)
            })),
        },
        Value::Array(values) => values.iter().map(|value| fill(value, fields)).collect(),
        Value::Object(object) => {
            let filled = object.iter().map(|(key, value)| (key.clone(), fill(value, fields)));
            Value::Object(filled.filter(|(_, value)| !value.is_null()).collect())
        }
        other => other.clone(),
    }
}

impl Vendor {
    pub fn fate(&self, person: &Person) -> Option<Fate> {
        match person.standing {
            Standing::Active => None,
            Standing::Disabled => Some(self.disabled),
            Standing::Removed => Some(self.removed),
        }
    }

    /// What the vendor calls a person. Ids of those who returned may be others.
    pub fn user_id(&self, n: usize, person: &Person) -> String {
        let n = if person.returned && self.returns_as_new { n + 1000 } else { n };
        self.user_id.replace("$n", &format!("{n:04}"))
    }

    pub fn group_id(&self, n: usize) -> String {
        self.group_id.replace("$n", &format!("{n:04}"))
    }

    /// The members that a group has here: those who are gone are in no group.
    pub fn members<'c>(&self, company: &'c Company, team: &'c Team) -> Vec<(usize, &'c Person)> {
        let people = team.members.iter().map(|n| (*n, &company.people[n]));
        people.filter(|(_, person)| self.fate(person) != Some(Fate::Gone)).collect()
    }

    fn fields_of_person(&self, n: usize, person: &Person) -> Fields<'static> {
        let text = |text: &str| Value::String(text.to_owned());
        let mut fields = Fields::from([
            ("id", text(&self.user_id(n, person))),
            ("email", text(&format!("person{n:03}@example.org"))),
            ("login", text(&format!("person{n:03}"))),
            ("name", text(&format!("{} {}", person.given, person.family))),
            ("given", text(person.given)),
            ("family", text(person.family)),
            ("active", Value::Bool(person.standing == Standing::Active)),
            ("disabled", Value::Bool(person.standing != Standing::Active)),
        ]);
        if let Some(privilege) = &self.privilege {
            let value = if person.privileged { &privilege.with } else { &privilege.without };
            fields.insert("privilege", serde_json::from_str(value).expect("a privilege is JSON"));
        }
        fields
    }

    pub fn display_name(&self, n: usize, person: &Person) -> String {
        let shown = fill(&Value::String(self.display_name.clone()), &self.fields_of_person(n, person));
        shown.as_str().expect("a display name is a text").to_owned()
    }

    pub fn user(&self, company: &Company, n: usize) -> Value {
        let person = &company.people[&n];
        let mut fields = self.fields_of_person(n, person);
        if !self.user_group.is_null() {
            let of = company.teams.iter().filter(|(_, team)| team.members.contains(&n));
            let groups = of.map(|(team, Team { name, .. })| {
                let fields = Fields::from([("id", self.group_id(*team).into()), ("name", (*name).into())]);
                fill(&self.user_group, &fields)
            });
            fields.insert("groups", groups.collect());
        }
        fill(&self.user, &fields)
    }

    pub fn group(&self, company: &Company, n: usize, look: Look) -> Value {
        let team = &company.teams[&n];
        let members: Vec<(usize, &Person)> = self.members(company, team);
        let others = (n == 0 && !self.other_member.is_null()).then(|| self.other_member.clone());
        let mut fields = Fields::from([
            ("id", self.group_id(n).into()),
            ("name", team.name.into()),
            ("size", members.len().into()),
            ("members", Value::Null),
        ]);
        if look.members {
            let rows = members.iter().map(|(n, person)| fill(&self.member, &self.fields_of_person(*n, person)));
            fields.insert("members", rows.chain(others).collect());
        }
        let mut group = fill(&self.group, &fields);
        if let (true, Value::Object(more)) = (look.by_id, fill(&self.get_only, &fields)) {
            object(&mut group).extend(more);
        }
        group
    }

    pub fn group_name(&self, team: &Team) -> String {
        let name = fill(&self.group["displayName"], &Fields::from([("name", team.name.into())]));
        name.as_str().expect("a group has a name").to_owned()
    }
}

pub fn object(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("a resource is an object")
}
