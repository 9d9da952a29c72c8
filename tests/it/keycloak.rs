//! The main job against a real Keycloak: memberships on request, small pages, access tokens, and roles that say what is
//! shown. What Keycloak's admin API says is the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use scimtail::directory::{AttributeList, Status};
use scimtail::schedule::now_millis;
use scimtail::scim::{Client, Credential, Profile, Reach, ScimDirectory};
use serde_json::{Value, json};

use crate::keycloak_server::{CLIENT_ID, CLIENT_SECRET, Person, ROLES, Realm, Team};
use crate::memory::{World, account};
use crate::program::{Ended, Program, TOKEN_VARIABLE};
use crate::reader::{ReadRecord, compacted, read};
use crate::services::{services, unique_prefix};

/// The profile by which the tests read Keycloak, and what an account has to override.
const PROVIDER: &str = "keycloak";
const OVERRIDES: &str = "";
/// Without memberships: they are shown on request only.
const WITHOUT_MEMBERS: &str = "request_attributes = false\n";

const USERS: usize = 300;
const TEAMS: usize = 40;
/// Enough for two of Keycloak's pages.
const USERS_OF_TWO_PAGES: usize = 120;
const STATE: [&str; 3] = ["users", "groups", "memberships"];

/// The numbers of each team's members: everyone is in one team or two.
fn teams(users: usize, teams: usize) -> Vec<BTreeSet<usize>> {
    let is_in = |user: usize, team: usize| user % teams == team || (user * 7 + 1) % teams == team;
    (0..teams).map(|team| (0..users).filter(|user| is_in(*user, team)).collect()).collect()
}

/// An account that reads the realm.
fn program(realm: &Realm, test: &str, overrides: &str) -> Program {
    let (services, prefix) = (services(), unique_prefix(test));
    let text = format!(
        "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{prefix}\"\npartitions = 2\nreplication = 1\n\
         [registry]\nurl = \"{}\"\n\
         [[account]]\nname = \"acme\"\nprovider = \"{PROVIDER}\"\nbase_url = \"{}\"\n\
         client_id = \"{CLIENT_ID}\"\nclient_secret_env = \"{TOKEN_VARIABLE}\"\ntoken_url = \"{}\"\n\
         [account.profile]\n{overrides}",
        services.bootstrap,
        services.registry,
        realm.base_url(),
        realm.token_url(),
    );
    Program::with_text(&prefix, CLIENT_SECRET, &text)
}

/// `user.added USER`, `membership.added USER in GROUP`, `user.updated USER emails.value`.
fn line(event: &Value) -> String {
    let text = |field: &str| event[field].as_str().unwrap_or_else(|| panic!("{field} is not a text in {event}"));
    let mut line = format!("{} {}", text("event_type"), text("principal_id"));
    if text("event_type").starts_with("membership.") {
        line.push_str(&format!(" in {}", text("group_id")));
    }
    for change in event["changes"].as_array().into_iter().flatten() {
        line.push_str(&format!(" {}", change["attribute"].as_str().expect("a path")));
    }
    line
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Asserts that a check ended with `code`, and printed each of these texts.
fn checked(ended: &Ended, code: i32, texts: &[&str]) {
    assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
    for text in texts {
        assert!(ended.out.contains(text), "`{text}` is missing in {}", ended.out);
    }
}

/// A realm, and the topics that follow it.
struct Followed {
    realm: Realm,
    program: Program,
    events_seen: usize,
}

impl Followed {
    fn new(realm: Realm, test: &str, overrides: &str) -> Followed {
        let program = program(&realm, test, overrides);
        Followed { realm, program, events_seen: 0 }
    }

    async fn records(&self) -> Vec<ReadRecord> {
        let topics = ["events", "users", "groups", "memberships"].map(|suffix| self.program.topic(suffix));
        read(services(), &topics).await
    }

    /// Syncs once, compares the state with the realm, and returns the new events, sorted.
    async fn sync(&mut self) -> Vec<String> {
        let ended = self.program.run(&["run", "--once"]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        let records = self.records().await;
        self.check_state(&records).await;
        self.new_events(&records)
    }

    fn new_events(&mut self, records: &[ReadRecord]) -> Vec<String> {
        let topic = self.program.topic("events");
        let events: Vec<&ReadRecord> = records.iter().filter(|record| record.topic == topic).collect();
        let new = events[self.events_seen..].iter().map(|record| line(&record.value)).collect();
        self.events_seen = events.len();
        sorted(new)
    }

    /// The compacted topics are the realm.
    async fn check_state(&self, records: &[ReadRecord]) {
        let [users, groups, memberships] = STATE.map(|suffix| compacted(records, &self.program.topic(suffix)));
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let found: BTreeMap<String, Person> = users
            .values()
            .map(|ReadRecord { value, .. }| {
                let enabled = value["active"].as_bool().expect("a state");
                let (user_name, email) = (text(value, "user_name"), text(value, "email"));
                let full_name = text(value, "display_name");
                (text(value, "id"), Person { user_name, enabled, email, full_name })
            })
            .collect();
        assert_eq!(found, self.realm.people().await);
        let teams = self.realm.teams().await;
        let found: BTreeMap<String, String> =
            groups.values().map(|record| (text(&record.value, "id"), text(&record.value, "display_name"))).collect();
        assert_eq!(found, teams.iter().map(|(id, team)| (id.clone(), team.name.clone())).collect());
        let found: BTreeSet<String> = memberships.into_keys().collect();
        let of_team = |(id, team): (&String, &Team)| {
            team.members.iter().map(|user| format!("acme/Users/{user}/Groups/{id}")).collect::<Vec<_>>()
        };
        assert_eq!(found, teams.iter().flat_map(of_team).collect());
    }
}

/// The id of the team with this name.
fn named(teams: &BTreeMap<String, Team>, name: &str) -> String {
    teams.iter().find(|(_, team)| team.name == name).expect("the team").0.clone()
}

/// G2, G6, G8 against a server that shows members on request only: 300 users in pages of 100, 40 groups, and every kind
/// of change.
#[tokio::test(flavor = "multi_thread")]
async fn g8_a_keycloak_realm_arrives_in_kafka_change_by_change() {
    let realm = Realm::create(USERS, &teams(USERS, TEAMS)).await;
    let mut world = Followed::new(realm, "keycloak", OVERRIDES);
    let check = world.program.run(&["check"]).await;
    let texts = ["ok    users       300 listed", "ok    groups      40 listed", "members     in the list of groups"];
    checked(&check, 0, &texts);
    assert!(!check.out.contains("note  settings"), "{}", check.out);

    assert_eq!(world.sync().await, [""; 0], "the baseline is state only");
    assert_eq!(world.sync().await, [""; 0], "nothing changed");
    let users: Vec<String> = world.realm.people().await.into_keys().collect();
    let teams = world.realm.teams().await;

    // Users: one comes, one changes, one is disabled and enabled again.
    let added = world.realm.add_user("newcomer").await;
    world.realm.update_user(&users[0], json!({ "email": "another@example.com" })).await;
    world.realm.update_user(&users[1], json!({ "enabled": false })).await;
    let expected = [
        format!("user.added {added}"),
        format!("user.updated {} emails", users[0]),
        format!("user.disabled {} active", users[1]),
    ];
    assert_eq!(world.sync().await, sorted(expected.to_vec()));
    world.realm.update_user(&users[1], json!({ "enabled": true })).await;
    let mut expected = vec![format!("user.enabled {} active", users[1])];

    // Groups: one is renamed, one added, and one loses all of its members: it is then shown without any.
    let [renamed, emptied, deleted] = ["Team 1", "Team 2", "Team 3"].map(|name| named(&teams, name));
    let leaver = teams[&renamed].members.first().expect("a member").clone();
    world.realm.rename_group(&renamed, "Team One").await;
    world.realm.add_member(&renamed, &added).await;
    world.realm.remove_member(&renamed, &leaver).await;
    let group = world.realm.add_group("Newcomers").await;
    world.realm.add_member(&group, &added).await;
    expected.extend([
        format!("group.updated {renamed} displayName"),
        format!("group.added {group}"),
        format!("membership.added {added} in {renamed}"),
        format!("membership.added {added} in {group}"),
        format!("membership.removed {leaver} in {renamed}"),
    ]);
    for member in &teams[&emptied].members {
        world.realm.remove_member(&emptied, member).await;
        expected.push(format!("membership.removed {member} in {emptied}"));
    }
    assert_eq!(world.sync().await, sorted(expected));

    // A group is deleted, then users of other groups are.
    world.realm.delete_group(&deleted).await;
    let mut expected = vec![format!("group.removed {deleted}")];
    expected.extend(teams[&deleted].members.iter().map(|member| format!("membership.removed {member} in {deleted}")));
    assert_eq!(world.sync().await, sorted(expected));
    let leavers = [&added, &users[2]];
    let mut expected: Vec<String> = leavers.map(|user| format!("user.removed {user}")).to_vec();
    for (id, team) in world.realm.teams().await {
        let lost = leavers.into_iter().filter(|user| team.members.contains(*user));
        expected.extend(lost.map(|user| format!("membership.removed {user} in {id}")));
    }
    for user in leavers {
        world.realm.delete_user(user).await;
    }
    assert_eq!(world.sync().await, sorted(expected));
    assert_eq!(world.sync().await, [""; 0], "nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_setting_by_which_keycloak_shows_memberships() {
    let realm = Realm::create(12, &teams(12, 3)).await;
    let without = program(&realm, "keycloak-members", WITHOUT_MEMBERS);
    let setting =
        "[account.profile] request_attributes = true: groups show their members only if `attributes` names them";
    checked(&without.run(&["check"]).await, 0, &["no group shows any", setting]);
    assert_eq!(without.run(&["run", "--once"]).await.code, 0);
    let records = read(services(), &[without.topic("users"), without.topic("memberships")]).await;
    assert_eq!(compacted(&records, &without.topic("users")).len(), 12);
    assert_eq!(compacted(&records, &without.topic("memberships")).len(), 0);

    let mut with = Followed::new(realm, "keycloak-members", OVERRIDES);
    assert_eq!(with.sync().await, [""; 0]);
}

/// The cap is 100 rows, whatever is asked for. A group below another one is in no list.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_size_beyond_keycloaks_cap_loses_no_user_and_a_group_below_another_is_not_read() {
    let realm = Realm::create(USERS_OF_TWO_PAGES, &teams(USERS_OF_TWO_PAGES, 3)).await;
    let parent = named(&realm.teams().await, "Team 0");
    let below = realm.add_group_below(&parent, "Below").await;
    let user = realm.people().await.into_keys().next().expect("a user");
    realm.add_member(&below, &user).await;
    let mut world = Followed::new(realm, "keycloak-cap", &format!("{OVERRIDES}page_size = 500\n"));
    let check = world.program.run(&["check"]).await;
    let setting = "[account.profile] page_size = 100: the server sends at most this many rows a page";
    checked(&check, 0, &["120 listed, index paging, 100 rows a page at most", "3 listed", setting]);
    assert_eq!(world.sync().await, [""; 0]);
    // Nor does the membership of a group that is not read.
    world.realm.remove_member(&below, &user).await;
    assert_eq!(world.sync().await, [""; 0]);
}

/// Passes everything on to Keycloak, and deletes a user of page 1 just before the request for page 2 arrives.
struct Passage {
    realm: Realm,
    token: String,
    http: reqwest::Client,
    /// The user to delete in the next walk.
    armed: Mutex<Option<String>>,
}

async fn pass(State(passage): State<Arc<Passage>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if request.uri().path().ends_with("/Users") && query.contains("startIndex=101") {
        let user = passage.armed.lock().unwrap().take();
        if let Some(user) = user {
            passage.realm.delete_user(&user).await;
        }
    }
    let (_, path_and_query) = request.uri().path_and_query().unwrap().as_str().split_once("/v2").unwrap();
    let url = format!("{}{path_and_query}", passage.realm.base_url());
    let answer = passage.http.get(url).bearer_auth(&passage.token).send().await.unwrap();
    let (status, body): (_, Bytes) = (answer.status(), answer.bytes().await.unwrap());
    Response::builder().status(status).body(body.into()).unwrap()
}

async fn passage(realm: Realm) -> (Arc<Passage>, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = realm.token().await;
    let passage = Arc::new(Passage { realm, token, http, armed: Mutex::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v2", listener.local_addr().unwrap());
    let router = Router::new().fallback(pass).with_state(passage.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (passage, base_url)
}

/// G3: the deletion lets another user slide to page 1, so that the walk misses it. GET by id finds it, and has to show
/// its memberships too.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_user_deleted_between_two_pages_of_keycloak_changes_nothing_of_another_user() {
    let (passage, base_url) = passage(Realm::create(USERS_OF_TWO_PAGES, &teams(USERS_OF_TWO_PAGES, 3)).await).await;
    for memberships in ["list", "user", "get", "groups_filter"] {
        // The access token is the passage's.
        let overrides = format!("auth = \"bearer\"\nrequest_attributes = true\nmemberships = \"{memberships}\"\n");
        let profile = Profile::layered(PROVIDER, &BTreeMap::new(), toml::from_str(&overrides).unwrap()).unwrap();
        let mut world = World::new(account("acme"));
        world.account_mut().habits = profile.habits();
        world.account_mut().batch = scimtail::account::BatchBounds::default();
        let credential = Credential::bearer("unused".to_owned().into()).unwrap();
        let reach = Reach { allow_private: true, ..Reach::default() };
        let client = Client::new(base_url.parse().unwrap(), credential, profile, &reach, now_millis).unwrap();
        let directory = ScimDirectory::new(client, AttributeList::default());

        let status = world.sync_with(&directory).await;
        assert_eq!(status.status, Status::Completed, "{memberships}: {:?}", status.reason);
        let teams = passage.realm.teams().await;
        let known: usize = teams.values().map(|team| team.members.len()).sum();
        assert_eq!(world.known.memberships_len(), known, "{memberships}");

        let people = passage.realm.people().await;
        let first = people.iter().min_by_key(|(_, person)| &person.user_name).expect("a user").0.clone();
        *passage.armed.lock().unwrap() = Some(first.clone());
        let status = world.sync_with(&directory).await;
        assert_eq!(*passage.armed.lock().unwrap(), None, "{memberships}: the walk slid");
        assert_eq!(status.status, Status::Completed, "{memberships}: {:?}", status.reason);
        // Its own memberships may be gone already, because groups are read after users.
        let mut expected = vec![format!("user.removed {first} (not_found)")];
        let of_first = teams.iter().filter(|(_, team)| team.members.contains(&first));
        expected.extend(of_first.map(|(id, _)| format!("membership.removed {first} in {id}")));
        let early = world.lines(0);
        assert!(early.iter().all(|event| event.contains(&first)), "{memberships}: {early:?}");

        for _ in 0..2 {
            let status = world.sync_with(&directory).await;
            assert_eq!(status.status, Status::Completed, "{memberships}: {:?}", status.reason);
        }
        let events = world.lines(0);
        let said = |expected: &String| events.iter().filter(|event| event.starts_with(expected)).count() == 1;
        assert!(events.len() == expected.len() && expected.iter().all(said), "{memberships}: {events:?}");
        assert_eq!(world.known.table(scimtail::directory::Kind::User).len(), people.len() - 1, "{memberships}");
    }
}

/// Asserts that a check and a sync end with `code`, both with each of these texts.
fn refused(check: &Ended, run: &Ended, code: i32, texts: &[&str]) {
    for ended in [check, run] {
        checked(ended, code, texts);
    }
    assert!(check.out.contains("FAIL") && run.out.contains("failed"), "{}{}", check.out, run.out);
}

/// With `query-users`, Keycloak answers 200 and counts users that it does not show.
#[tokio::test(flavor = "multi_thread")]
async fn roles_that_are_taken_away_are_named_by_check_and_run_and_remove_no_user() {
    const COUNTED: [&str; 2] =
        ["Users: 0 of 24 could be read, twice", "the right to read them, and not only to count them"];
    const USERS_REFUSED: [&str; 1] = ["Users: 403: the credentials may not read this list"];
    const GROUPS_REFUSED: [&str; 1] = ["Groups: 403: the credentials may not read this list"];
    let mut world = Followed::new(Realm::create(24, &teams(24, 3)).await, "keycloak-roles", OVERRIDES);
    assert_eq!(world.sync().await, [""; 0]);
    let before = world.records().await;
    let cases: [(&[&str], i32, &[&str]); 4] = [
        (&["query-users", "query-groups"], 78, &COUNTED),
        (&["query-users"], 78, &GROUPS_REFUSED),
        (&["query-groups"], 78, &USERS_REFUSED),
        (&[], 78, &USERS_REFUSED),
    ];
    for (roles, code, texts) in cases {
        world.realm.set_roles(roles).await;
        let (check, run) = (world.program.run(&["check"]).await, world.program.run(&["run", "--once"]).await);
        refused(&check, &run, code, texts);
        assert_eq!(world.records().await, before, "{roles:?}");
    }

    // The same before a first sync.
    world.realm.set_roles(&["query-users", "query-groups"]).await;
    let new = Followed::new(world.realm, "keycloak-roles", OVERRIDES);
    let (check, run) = (new.program.run(&["check"]).await, new.program.run(&["run", "--once"]).await);
    refused(&check, &run, 78, &COUNTED);
    assert_eq!(new.records().await, []);

    world.realm = new.realm;
    world.realm.set_roles(&ROLES).await;
    checked(&world.program.run(&["check"]).await, 0, &["24 listed"]);
    assert_eq!(world.sync().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keycloak_refuses_is_named_in_the_same_words_by_check_and_run() {
    let realm = Realm::create(3, &teams(3, 1)).await;
    let program = program(&realm, "keycloak-refusals", OVERRIDES);
    let wrong = |arguments: &[&str]| {
        let output = program.command(arguments).env(TOKEN_VARIABLE, "wrong").output().expect("it runs");
        Ended::from(output)
    };
    let texts = ["401: the token endpoint refused the client", "check client_id and the client secret"];
    refused(&wrong(&["check"]), &wrong(&["run", "--once"]), 78, &texts);

    realm.remove_audience().await;
    let texts = ["Users: 401:", "refused the access token"];
    refused(&program.run(&["check"]).await, &program.run(&["run", "--once"]).await, 78, &texts);

    realm.update(json!({ "scimApiEnabled": false })).await;
    let texts = ["Users: 404: there is no SCIM list at this address"];
    refused(&program.run(&["check"]).await, &program.run(&["run", "--once"]).await, 78, &texts);
    let topics = STATE.map(|suffix| program.topic(suffix));
    assert_eq!(read(services(), &topics).await, []);
}
