//! The directories of the matrix: small SCIM servers whose content changes by seed, and that remember each version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Rows of a page: few enough that a walk takes several requests.
const PAGE: usize = 8;
const USERS_AT_FIRST: usize = 24;
const GROUPS_AT_FIRST: usize = 4;
/// Nothing is removed below these: a directory without any known user is held, which is not tested here.
const USERS_MIN: usize = 12;
const GROUPS_MIN: usize = 3;
/// More than a record may hold under a bound in the configuration (see `Kind::Aborted`).
pub const LONG_TITLE_BYTES: usize = 6_000;

/// The contents of a directory at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Version {
    pub users: BTreeMap<String, Value>,
    pub groups: BTreeMap<String, Group>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    /// As the server lists them; it may go on listing removed members. A member that is a group begins with `g`.
    pub members: BTreeSet<String>,
}

impl Version {
    pub fn first(random: &mut fastrand::Rng) -> Version {
        let mut version = Version::default();
        for number in 0..USERS_AT_FIRST {
            version.add_user(number, random);
        }
        for number in 0..GROUPS_AT_FIRST {
            version.add_group(number, random);
        }
        version
    }

    /// The next version: any of the changes that can happen to a directory.
    pub fn change(&mut self, random: &mut fastrand::Rng) {
        let before = self.clone();
        while *self == before {
            for _ in 0..random.usize(1..12) {
                self.change_once(random);
            }
        }
        // A directory that shows no member anywhere may not show them at all: then memberships are unknown, and stay.
        if self.groups.values().all(|group| group.members.is_empty()) {
            let somebody = self.users.keys().next().expect("a directory always has a user").clone();
            self.groups.values_mut().next().expect("there is always a group").members.insert(somebody);
        }
    }

    fn change_once(&mut self, random: &mut fastrand::Rng) {
        let users: Vec<String> = self.users.keys().cloned().collect();
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        let somebody = random.choice(&users).expect("a directory always has a user").clone();
        let group = random.choice(&groups).expect("there is always a group").clone();
        match random.u8(0..20) {
            0..=3 => self.users.get_mut(&somebody).expect("it is there")["title"] = json!(title(random)),
            4 => {
                self.users.get_mut(&somebody).expect("it is there")["userName"] =
                    json!(format!("{somebody}-{}@acme.example", random.u16(..)))
            }
            // Disabled or enabled, and now and then also renamed in the same sync.
            5..=7 => {
                let user = self.users.get_mut(&somebody).expect("it is there");
                user["active"] = json!(user["active"] == json!(false));
                if random.bool() {
                    user["title"] = json!(title(random));
                }
            }
            // New, or back under an old id.
            8..=10 => {
                let number = random.usize(0..3 * USERS_AT_FIRST);
                if !self.users.contains_key(&user_id(number)) {
                    self.add_user(number, random);
                }
            }
            11..=12 if users.len() > USERS_MIN => {
                self.users.remove(&somebody);
                // Most servers go on listing removed members.
                if random.bool() {
                    self.groups.values_mut().for_each(|group| group.members.retain(|member| *member != somebody));
                }
            }
            13 => {
                let number = random.usize(0..3 * GROUPS_AT_FIRST);
                if !self.groups.contains_key(&group_id(number)) {
                    self.add_group(number, random);
                }
            }
            14 if groups.len() > GROUPS_MIN => {
                self.groups.remove(&group);
                self.groups.values_mut().for_each(|other| other.members.retain(|member| *member != group));
            }
            15 => self.groups.get_mut(&group).expect("it is there").name = format!("Team {}", random.u16(..)),
            16..=17 => {
                let other = random.choice(&groups).expect("there is always a group").clone();
                let member = if random.u8(0..4) == 0 && other > group { other } else { somebody };
                self.groups.get_mut(&group).expect("it is there").members.insert(member);
            }
            _ => {
                let members = &mut self.groups.get_mut(&group).expect("it is there").members;
                let member = random.choice(members.iter()).cloned();
                member.map(|member| members.remove(&member));
            }
        }
    }

    fn add_user(&mut self, number: usize, random: &mut fastrand::Rng) {
        let id = user_id(number);
        let user = json!({
            "userName": format!("{id}@acme.example"),
            "displayName": format!("Person {number}"),
            "title": title(random),
            "active": random.u8(0..8) != 0,
        });
        self.users.insert(id, user);
    }

    fn add_group(&mut self, number: usize, random: &mut fastrand::Rng) {
        let users: Vec<&String> = self.users.keys().collect();
        let count = random.usize(0..=8);
        let members = random.choose_multiple(users, count).into_iter().cloned().collect();
        self.groups.insert(group_id(number), Group { name: format!("Team {number}"), members });
    }

    /// One user whose record is too long for a small bound.
    pub fn lengthen(&mut self, random: &mut fastrand::Rng) {
        let users: Vec<String> = self.users.keys().cloned().collect();
        let somebody = random.choice(&users).expect("a directory always has a user");
        // Hard to compress, because the bound applies to the bytes that are sent.
        let long: String = (0..LONG_TITLE_BYTES).map(|_| random.alphanumeric()).collect();
        self.users.get_mut(somebody).expect("it is there")["title"] = json!(long);
    }

    /// For the checker: the server's answers, without anything that scimtail makes of them.
    pub fn json(&self) -> Value {
        let groups: BTreeMap<&String, Value> = self
            .groups
            .iter()
            .map(|(id, group)| (id, json!({ "displayName": group.name, "members": group.members })))
            .collect();
        json!({ "users": self.users, "groups": groups })
    }

    fn rows(&self, endpoint: &str) -> Vec<(&String, Value)> {
        match endpoint {
            "Users" => self.users.iter().map(|(id, user)| (id, self.user(id, user))).collect(),
            _ => self.groups.iter().map(|(id, group)| (id, self.group(id, group))).collect(),
        }
    }

    fn user(&self, id: &str, user: &Value) -> Value {
        let mut row = user.clone();
        row["id"] = json!(id);
        row["schemas"] = json!(["urn:ietf:params:scim:schemas:core:2.0:User"]);
        row
    }

    fn group(&self, id: &str, group: &Group) -> Value {
        let kind = |member: &str| if member.starts_with('g') { "Group" } else { "User" };
        let members: Vec<Value> =
            group.members.iter().map(|member| json!({ "value": member, "type": kind(member) })).collect();
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
            "id": id, "displayName": group.name, "members": members,
        })
    }
}

fn user_id(number: usize) -> String {
    format!("u{number:03}")
}

fn group_id(number: usize) -> String {
    format!("g{number:03}")
}

fn title(random: &mut fastrand::Rng) -> String {
    format!("Title {}", random.u16(..))
}

/// One directory an account, at `/{account}`.
#[derive(Clone)]
pub struct Directories {
    shared: Arc<Shared>,
    address: String,
    _server: Arc<Server>,
}

struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared {
    authorization: String,
    accounts: Mutex<BTreeMap<String, Account>>,
}

#[derive(Default)]
struct Account {
    version: Version,
    /// Endpoint and id of every GET that was answered with 404: the only proof of a removal.
    denied: BTreeSet<(String, String)>,
}

impl Directories {
    pub async fn start(token: &str) -> Directories {
        let shared = Arc::new(Shared { authorization: format!("Bearer {token}"), accounts: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new()
            .route("/{account}/{endpoint}", get(list))
            .route("/{account}/{endpoint}/{id}", get(one))
            .with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serving goes on") });
        Directories { shared, address, _server: Arc::new(Server(server)) }
    }

    pub fn base_url(&self, account: &str) -> String {
        format!("{}/{account}", self.address)
    }

    /// Sets the contents that `account` serves from now on.
    pub fn set(&self, account: &str, version: Version) {
        let mut accounts = self.shared.accounts.lock().expect("no holder panicked");
        accounts.entry(account.to_owned()).or_default().version = version;
    }

    /// The principals for which a GET said 404 since the last call.
    pub fn denied(&self, account: &str) -> Value {
        let mut accounts = self.shared.accounts.lock().expect("no holder panicked");
        let denied = std::mem::take(&mut accounts.get_mut(account).expect("an account that is served").denied);
        json!(denied.into_iter().collect::<Vec<_>>())
    }
}

async fn list(
    State(shared): State<Arc<Shared>>,
    Path((account, endpoint)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refused(&shared, &headers) {
        return refused;
    }
    if endpoint == "ServiceProviderConfig" {
        return scim(StatusCode::OK, &json!({ "filter": { "supported": false }, "patch": { "supported": false } }));
    }
    if query.contains_key("filter") {
        return error(StatusCode::BAD_REQUEST);
    }
    let accounts = shared.accounts.lock().expect("no holder panicked");
    let Some(Account { version, .. }) = accounts.get(&account) else { return error(StatusCode::NOT_FOUND) };
    let number = |name: &str, otherwise: usize| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (start, count) = (number("startIndex", 1).max(1), number("count", PAGE).min(PAGE));
    let rows = version.rows(&endpoint);
    let total = rows.len();
    let page: Vec<Value> = rows.into_iter().skip(start - 1).take(count).map(|(_, row)| row).collect();
    scim(
        StatusCode::OK,
        &json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": total, "startIndex": start, "itemsPerPage": page.len(), "Resources": page,
        }),
    )
}

async fn one(
    State(shared): State<Arc<Shared>>,
    Path((account, endpoint, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refused(&shared, &headers) {
        return refused;
    }
    let mut accounts = shared.accounts.lock().expect("no holder panicked");
    let Some(account) = accounts.get_mut(&account) else { return error(StatusCode::NOT_FOUND) };
    let row = account.version.rows(&endpoint).into_iter().find(|(known, _)| **known == id).map(|(_, row)| row);
    match row {
        Some(row) => scim(StatusCode::OK, &row),
        None => {
            account.denied.insert((endpoint, id));
            error(StatusCode::NOT_FOUND)
        }
    }
}

fn refused(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    (given != Some(&shared.authorization)).then(|| error(StatusCode::UNAUTHORIZED))
}

fn error(status: StatusCode) -> Response {
    let body = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": status.as_u16().to_string(),
    });
    scim(status, &body)
}

fn scim(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/scim+json")], Body::from(body.to_string())).into_response()
}
