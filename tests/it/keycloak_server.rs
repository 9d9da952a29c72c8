//! A real Keycloak with its SCIM API, from `tests/services/keycloak.xml`. Keycloak keeps everything in memory.
//!
//! [`Realm::create`] starts it once per test process, in about 15 seconds, and makes a separate realm for the caller.
//! Keycloak's admin API makes the changes and says what is true. It shares nothing with the SCIM API but the database.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::services::{
    FETCH_MAX, Supervised, built_once, free_port, fresh_directory, http_status, java_command, require, require_java,
};

/// How long Keycloak may take to make the program that it starts from, once per target directory.
const BUILD_MAX: Duration = Duration::from_secs(180);
/// How long Keycloak may take until it answers.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long a request may take. The import of a realm is the longest.
const REQUEST_MAX: Duration = Duration::from_secs(60);
const HEAP_MIB: u32 = 512;
/// How long a token of the admin API is used: it lives for a minute.
const ADMIN_TOKEN_USED: Duration = Duration::from_secs(30);
/// Rows of one answer of the admin API: more than any realm of the tests has.
const ADMIN_ROWS: usize = 10_000;

/// The client of the tests at the admin API.
const ADMIN: &str = "tests";
const ADMIN_SECRET: &str = "secret-of-the-tests";
/// The client by which scimtail reads a realm.
pub const CLIENT_ID: &str = "scimtail";
pub const CLIENT_SECRET: &str = "secret-of-scimtail";
/// The client that has the roles for the administration of a realm.
const MANAGEMENT: &str = "realm-management";
/// The roles by which the SCIM API shows everything and changes nothing.
pub const ROLES: [&str; 3] = ["view-users", "query-users", "query-groups"];

/// What a build decides: the database is in memory.
const BUILD: [&str; 3] = ["build", "--db=dev-mem", "--features=scim-api"];
/// What Keycloak's own script gives the Java machine, apart from its choice of memory.
const JAVA_OPTIONS: [&str; 7] = [
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--enable-native-access=ALL-UNNAMED",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
];

/// The Keycloak of this test process. It ends with the process.
struct Keycloak {
    /// `http://127.0.0.1:PORT`.
    url: String,
    _supervised: Supervised,
}

/// The first call starts it.
fn keycloak() -> &'static Keycloak {
    static STARTED: OnceLock<Result<Keycloak, String>> = OnceLock::new();
    // A failure is kept too: a suite of tests must not wait for it once per test.
    match STARTED.get_or_init(|| start().map_err(|error| format!("{error:#}"))) {
        Ok(keycloak) => keycloak,
        Err(reason) => panic!("cannot start Keycloak: {reason}"),
    }
}

fn start() -> Result<Keycloak> {
    let built = build()?;
    let directory = fresh_directory("keycloak")?;
    // It writes into its home, which test processes must not share.
    symlink(built.join("lib"), directory.path().join("lib"))?;
    let port = free_port()?;
    let mut command = run(directory.path(), &built);
    command.extend(["start", "--optimized", "--http-enabled=true", "--http-host=127.0.0.1"].map(str::to_owned));
    command.push(format!("--http-port={port}"));
    // The address of a request is the one that tokens are issued for.
    command.extend(["--hostname-strict=false", "--cache=local"].map(str::to_owned));
    command.push(format!("--bootstrap-admin-client-id={ADMIN}"));
    command.push(format!("--bootstrap-admin-client-secret={ADMIN_SECRET}"));
    let supervised = Supervised::start("keycloak", &directory.keep(), command)?;
    supervised.wait_until(READY_MAX, |_log| http_status(port, "/realms/master") == Some(200))?;
    Ok(Keycloak { url: format!("http://127.0.0.1:{port}"), _supervised: supervised })
}

/// The folder of a Keycloak that starts at once; the first call in a target directory fetches and builds it.
fn build() -> Result<PathBuf> {
    const HINT: &str = "Maven fetches Keycloak: \
         apt-get install maven (Debian, Ubuntu), brew install maven (macOS)";
    require_java()?;
    let definition = format!("{}{BUILD:?}", include_str!("../services/keycloak.xml"));
    let built = built_once("keycloak", &definition, |directory| {
        require("mvn", HINT)?;
        let fetch = [
            "mvn",
            "--quiet",
            "--batch-mode",
            "--file",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/keycloak.xml"),
            "package",
            &format!("-Dservices.dir={}", directory.display()),
        ];
        let mvn =
            Supervised::start("mvn", directory, fetch)?.finish(FETCH_MAX).context("Maven cannot fetch Keycloak")?;
        let home = directory.join("keycloak");
        let mut command = run(&home, &home);
        command.extend(BUILD.map(str::to_owned));
        let build = Supervised::start("build", directory, command)?;
        mvn.leave();
        build.finish(BUILD_MAX).context("Keycloak cannot make the program that it starts from")
    })?;
    Ok(built.join("keycloak"))
}

/// Keycloak without its script, which keeps the Java machine from being the process that is supervised. `home`: where
/// it writes. `built`: where it is.
fn run(home: &Path, built: &Path) -> Vec<String> {
    let mut command = java_command(home, HEAP_MIB);
    command.extend(JAVA_OPTIONS.map(str::to_owned));
    command.extend([
        format!("-Dkc.home.dir={}", home.display()),
        format!("-Djboss.server.config.dir={}", built.join("conf").display()),
        "-cp".into(),
        built.join("lib/quarkus-run.jar").display().to_string(),
        "io.quarkus.bootstrap.runner.QuarkusEntryPoint".into(),
    ]);
    command
}

/// A realm of its own, with its SCIM API and a client for scimtail.
#[derive(Debug)]
pub struct Realm {
    name: String,
    /// Of Keycloak.
    url: &'static str,
    /// One for each test, because connections belong to the test's runtime.
    http: Client,
    /// Of the admin API, and since when.
    token: Mutex<Option<(Instant, String)>>,
}

/// A user as the admin API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub user_name: String,
    pub enabled: bool,
    pub email: String,
    /// First and last name. Keycloak's SCIM API has them in `name`, and no `displayName`.
    pub full_name: String,
}

/// A group of the top level as the admin API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    pub name: String,
    pub members: BTreeSet<String>,
}

/// What a user's row says that is made from its name: `user007`.
fn person(user_name: &str) -> Value {
    json!({
        "username": user_name, "enabled": true, "email": format!("{user_name}@example.com"),
        "firstName": "User", "lastName": user_name,
    })
}

impl Realm {
    /// A realm with users `user000`, `user001`, …, and groups `Team 0`, … `teams`: the numbers of each group's members.
    ///
    /// # Panics
    /// If Keycloak cannot be started, with what to install or with the end of its log.
    pub async fn create(users: usize, teams: &[BTreeSet<usize>]) -> Realm {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let keycloak = tokio::task::spawn_blocking(keycloak).await;
        let keycloak = keycloak.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let name = format!("realm{}", COUNT.fetch_add(1, Ordering::Relaxed));
        // Keycloak is on this machine, so no proxy of the environment applies.
        let http = Client::builder().no_proxy().timeout(REQUEST_MAX).build().expect("a client");
        let realm = Realm { name, url: &keycloak.url, http, token: Mutex::default() };
        let mut members: Vec<Value> = (0..users).map(|number| person(&format!("user{number:03}"))).collect();
        for (number, user) in members.iter_mut().enumerate() {
            let of_user = teams.iter().enumerate().filter(|(_, team)| team.contains(&number));
            user["groups"] = of_user.map(|(team, _)| format!("/Team {team}")).collect();
        }
        members.push(json!({
            "username": format!("service-account-{CLIENT_ID}"), "enabled": true,
            "serviceAccountClientId": CLIENT_ID, "clientRoles": { MANAGEMENT: ROLES },
        }));
        let teams: Vec<Value> = (0..teams.len()).map(|team| json!({ "name": format!("Team {team}") })).collect();
        let whole = json!({
            "realm": realm.name, "enabled": true, "scimApiEnabled": true, "users": members, "groups": teams,
            "clients": [{
                "clientId": CLIENT_ID, "secret": CLIENT_SECRET, "publicClient": false,
                "serviceAccountsEnabled": true, "standardFlowEnabled": false,
                "protocolMappers": [realm.audience()],
            }],
        });
        realm.ask(Method::POST, "/admin/realms", Some(&whole), StatusCode::CREATED).await;
        realm
    }

    /// Puts the address of the SCIM API into the tokens of the client: without it, Keycloak refuses them.
    fn audience(&self) -> Value {
        json!({
            "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
            "config": { "included.custom.audience": self.base_url(), "access.token.claim": "true" },
        })
    }

    pub fn base_url(&self) -> String {
        format!("{}/realms/{}/scim/v2", self.url, self.name)
    }

    pub fn token_url(&self) -> String {
        format!("{}/realms/{}/protocol/openid-connect/token", self.url, self.name)
    }

    /// An access token of scimtail's client.
    pub async fn token(&self) -> String {
        self.token_of(&self.token_url(), CLIENT_ID, CLIENT_SECRET).await
    }

    async fn token_of(&self, url: &str, client: &str, secret: &str) -> String {
        let form = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        let response = request.send().await.expect("Keycloak answers");
        let answer: Value = serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON");
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token for {client}: {answer}")).to_owned()
    }

    /// The users of the realm by id.
    pub async fn people(&self) -> BTreeMap<String, Person> {
        let text = |user: &Value, field: &str| user[field].as_str().unwrap_or_default().to_owned();
        let users = self.get(&format!("users?max={ADMIN_ROWS}")).await;
        let users = users.as_array().expect("a list").iter().map(|user| {
            let enabled = user["enabled"].as_bool().expect("a state");
            let (user_name, email) = (text(user, "username"), text(user, "email"));
            let full_name = format!("{} {}", text(user, "firstName"), text(user, "lastName"));
            (text(user, "id"), Person { user_name, enabled, email, full_name })
        });
        users.collect()
    }

    /// The groups of the realm's top level by id.
    pub async fn teams(&self) -> BTreeMap<String, Team> {
        let mut teams = BTreeMap::new();
        let groups = self.get(&format!("groups?max={ADMIN_ROWS}")).await;
        for group in groups.as_array().expect("a list") {
            let id = group["id"].as_str().expect("an id").to_owned();
            let members = self.get(&format!("groups/{id}/members?max={ADMIN_ROWS}&briefRepresentation=true")).await;
            let members = members.as_array().expect("a list").iter();
            let members = members.map(|user| user["id"].as_str().expect("an id").to_owned()).collect();
            teams.insert(id, Team { name: group["name"].as_str().expect("a name").to_owned(), members });
        }
        teams
    }

    /// Returns the id.
    pub async fn add_user(&self, user_name: &str) -> String {
        self.ask(Method::POST, &self.path("users"), Some(&person(user_name)), StatusCode::CREATED).await;
        self.id_of(&format!("users?exact=true&username={user_name}")).await
    }

    /// Changes fields of the admin API, such as `enabled`.
    pub async fn update_user(&self, id: &str, fields: Value) {
        let path = format!("users/{id}");
        let mut user = self.get(&path).await;
        user.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        self.ask(Method::PUT, &self.path(&path), Some(&user), StatusCode::NO_CONTENT).await;
    }

    pub async fn delete_user(&self, id: &str) {
        self.ask(Method::DELETE, &self.path(&format!("users/{id}")), None, StatusCode::NO_CONTENT).await;
    }

    /// Returns the id.
    pub async fn add_group(&self, name: &str) -> String {
        let group = json!({ "name": name });
        self.ask(Method::POST, &self.path("groups"), Some(&group), StatusCode::CREATED).await;
        self.id_of(&format!("groups?exact=true&search={name}")).await
    }

    /// Adds a group below another one. Returns its id.
    pub async fn add_group_below(&self, parent: &str, name: &str) -> String {
        let path = format!("groups/{parent}/children");
        self.ask(Method::POST, &self.path(&path), Some(&json!({ "name": name })), StatusCode::CREATED).await;
        self.id_of(&path).await
    }

    pub async fn rename_group(&self, id: &str, name: &str) {
        let path = self.path(&format!("groups/{id}"));
        self.ask(Method::PUT, &path, Some(&json!({ "name": name })), StatusCode::NO_CONTENT).await;
    }

    pub async fn delete_group(&self, id: &str) {
        self.ask(Method::DELETE, &self.path(&format!("groups/{id}")), None, StatusCode::NO_CONTENT).await;
    }

    pub async fn add_member(&self, group: &str, user: &str) {
        let path = self.path(&format!("users/{user}/groups/{group}"));
        self.ask(Method::PUT, &path, None, StatusCode::NO_CONTENT).await;
    }

    pub async fn remove_member(&self, group: &str, user: &str) {
        let path = self.path(&format!("users/{user}/groups/{group}"));
        self.ask(Method::DELETE, &path, None, StatusCode::NO_CONTENT).await;
    }

    /// Gives scimtail's client these roles and no other.
    pub async fn set_roles(&self, roles: &[&str]) {
        let client = self.id_of(&format!("clients?clientId={CLIENT_ID}")).await;
        let management = self.id_of(&format!("clients?clientId={MANAGEMENT}")).await;
        let account = self.get(&format!("clients/{client}/service-account-user")).await;
        let account = account["id"].as_str().expect("an id");
        let path = format!("users/{account}/role-mappings/clients/{management}");
        let had = self.get(&path).await;
        self.ask(Method::DELETE, &self.path(&path), Some(&had), StatusCode::NO_CONTENT).await;
        let all = self.get(&format!("clients/{management}/roles")).await;
        let all = all.as_array().expect("a list").iter();
        let wanted: Vec<&Value> = all.filter(|role| roles.iter().any(|name| role["name"] == *name)).collect();
        assert_eq!(wanted.len(), roles.len(), "Keycloak has the roles {roles:?}");
        self.ask(Method::POST, &self.path(&path), Some(&json!(wanted)), StatusCode::NO_CONTENT).await;
    }

    /// Takes the address of the SCIM API out of the tokens of scimtail's client.
    pub async fn remove_audience(&self) {
        let client = self.id_of(&format!("clients?clientId={CLIENT_ID}")).await;
        let mappers = format!("clients/{client}/protocol-mappers/models");
        let listed = self.get(&mappers).await;
        let mapper = listed.as_array().expect("a list").iter().find(|mapper| mapper["name"] == "audience");
        let id = mapper.expect("the mapper")["id"].as_str().expect("an id");
        self.ask(Method::DELETE, &self.path(&format!("{mappers}/{id}")), None, StatusCode::NO_CONTENT).await;
    }

    /// Changes fields of the realm, such as `scimApiEnabled`.
    pub async fn update(&self, fields: Value) {
        let mut realm = self.get("").await;
        realm.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        self.ask(Method::PUT, &self.path(""), Some(&realm), StatusCode::NO_CONTENT).await;
    }

    fn path(&self, path: &str) -> String {
        format!("/admin/realms/{}/{path}", self.name).trim_end_matches('/').to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, &self.path(path), None, StatusCode::OK).await
    }

    /// The id of the only object in a list.
    async fn id_of(&self, list: &str) -> String {
        let found = self.get(list).await;
        let [only] = &found.as_array().expect("a list")[..] else { panic!("{list}: {found}") };
        only["id"].as_str().expect("an id").to_owned()
    }

    async fn admin_token(&self) -> String {
        let held = self.token.lock().expect("no test panics with it").clone();
        if let Some((since, token)) = held
            && since.elapsed() < ADMIN_TOKEN_USED
        {
            return token;
        }
        let token_url = format!("{}/realms/master/protocol/openid-connect/token", self.url);
        let token = self.token_of(&token_url, ADMIN, ADMIN_SECRET).await;
        *self.token.lock().expect("no test panics with it") = Some((Instant::now(), token.clone()));
        token
    }

    /// Sends a request to the admin API that must be answered with `expected`; returns the body, or null.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, expected: StatusCode) -> Value {
        let what = format!("{method} {path}");
        let token = self.admin_token().await;
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response =
            request.send().await.unwrap_or_else(|error| panic!("Keycloak does not answer {what}: {error:?}"));
        let status = response.status();
        let text = response.text().await.unwrap_or_else(|error| panic!("Keycloak breaks off {what}: {error:?}"));
        assert_eq!(status, expected, "Keycloak refuses {what}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}
