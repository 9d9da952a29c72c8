//! Work that is saved if the profile says that it is safe, and never used as evidence of absence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use scimtail::directory::{AttributeList, Kind, Status, Strategy};
use scimtail::schedule::now_millis;
use scimtail::scim::{Client, Credential, Profile, Reach, ScimDirectory};
use serde_json::{Value, json};

use crate::memory::{Faults, MemoryDirectory, World, account, advance, clock};

const HOUR: i64 = 3_600_000;

fn directory() -> MemoryDirectory {
    let mut directory =
        MemoryDirectory::parse("user u1 ann\nuser u2 bob\nuser u3 cid\ngroup g1 Admins: u1 u2\ngroup g2 Staff: u3");
    let stamp = json!({ "lastModified": "2020-01-01T00:00:00Z" });
    for resource in directory.users.values_mut().chain(directory.groups.values_mut()) {
        resource["meta"] = stamp.clone();
    }
    directory
}

fn modify(directory: &mut MemoryDirectory, kind: Kind, id: &str, attribute: &str, value: serde_json::Value) {
    let resources = if kind == Kind::User { &mut directory.users } else { &mut directory.groups };
    let resource = resources.get_mut(id).unwrap();
    resource[attribute] = value;
    let now = jiff::Timestamp::from_millisecond(clock()).unwrap();
    resource["meta"] = json!({ "lastModified": now.to_string() });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_records_of_an_account_have_in_common_is_in_memory_once_after_a_sync_and_after_a_restart() {
    let mut world = World::new(account("acme"));
    let shared = |world: &World| {
        let (latest, completed) = (world.known.latest.as_ref().unwrap(), world.known.completed.as_ref().unwrap());
        (Arc::ptr_eq(&latest.settings, &completed.settings), Arc::ptr_eq(&latest.positions, &completed.positions))
    };
    world.completed(&directory()).await;
    assert_eq!(shared(&world), (true, true));
    world.restart();
    assert_eq!(shared(&world), (true, true));
    // A sync that failed says what the account's settings are now, and the record of the last completed one what they were.
    world.account_mut().attributes = AttributeList::new(vec!["userName".to_owned()]);
    let mut failing = directory();
    failing.faults.fails_at = Some((0, Kind::User));
    assert_eq!(world.sync(&failing).await.status, Status::Failed);
    for restarted in [false, true] {
        let known = [&world.known.latest, &world.known.completed].map(|status| status.as_ref().unwrap());
        let paths = known.map(|status| status.settings.attributes.paths().len());
        assert_eq!(paths, [1, AttributeList::default().paths().len()], "restarted: {restarted}");
        world.restart();
    }
}

/// Every full walk asks for those whose time came since the last full walk, not only since the last sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_user_that_is_deleted_is_removed_within_a_day_of_the_next_full_walk() {
    for restarts in [false, true] {
        let mut world = World::new(account("acme"));
        world.account_mut().habits.trust_total = false;
        world.account_mut().habits.full_walk_every = Some(6 * HOUR);
        let others: String = (4..30).map(|number| format!("user u{number} name{number}\n")).collect();
        let mut directory = MemoryDirectory::parse(&format!("user u1 ann\nuser u2 bob\nuser u3 cid\n{others}"));
        world.completed(&directory).await;
        directory.faults.unlisted = ["u1", "u2", "u3"].map(str::to_owned).into();
        advance(6 * HOUR);
        assert_eq!(world.completed(&directory).await.hidden, 3);
        for id in ["u1", "u2", "u3"] {
            directory.users.remove(id);
        }
        world.account_mut().limits.min_losses = 100;
        for hour in 1..=30 {
            advance(HOUR);
            if restarts && hour % 4 == 0 {
                world.restart();
            }
            world.completed(&directory).await;
        }
        let mut removed = world.lines(0);
        removed.retain(|line| line.starts_with("user.removed"));
        removed.sort();
        assert_eq!(removed, ["u1", "u2", "u3"].map(|id| format!("user.removed {id} (not_found)")), "{restarts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn between_full_walks_only_modifications_are_read_and_no_user_is_missed() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.full_walk_every = Some(HOUR);
    let mut directory = directory();
    let status = world.completed(&directory).await;
    assert_eq!((status.users_read, status.memberships_read), (Some(3), Some(3)));

    advance(HOUR / 2);
    modify(&mut directory, Kind::User, "u1", "title", json!("Analyst"));
    modify(&mut directory, Kind::Group, "g2", "members", json!([{ "value": "u3" }, { "value": "u1" }]));
    // Changed without a new time stamp, and removed: only a full walk sees either.
    directory.users.get_mut("u2").unwrap()["title"] = json!("Manager");
    directory.users.remove("u3");
    let status = world.completed(&directory).await;
    assert_eq!(world.lines(0), ["user.updated u1 title none → \"Analyst\"", "membership.added u1 in g2"]);
    assert_eq!(
        (status.users_read, status.groups_read, status.memberships_read, status.memberships_as_of),
        (None, None, None, Some(1)),
        "not read is not zero"
    );
    let status = world.completed(&directory).await;
    assert_eq!((status.published, world.lines(0).len()), ([0; 10], 2), "a row in the overlap is not a change");

    advance(HOUR / 2);
    let status = world.completed(&directory).await;
    assert_eq!(status.users_read, Some(2));
    let expected = [
        "user.updated u2 title none → \"Manager\"",
        "membership.removed u3 in g2 (not_found)",
        "user.removed u3 (not_found)",
    ];
    assert_eq!(world.lines(2), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_or_a_failure_the_next_walk_is_a_full_one() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.full_walk_every = Some(HOUR);
    let directory = directory();
    world.completed(&directory).await;
    assert_eq!(world.completed(&directory).await.users_read, None);
    world.restart();
    assert_eq!(world.completed(&directory).await.users_read, Some(3));
    let mut broken = self::directory();
    broken.faults = Faults { fails_at: Some((0, Kind::Group)), ..Faults::default() };
    assert_eq!(world.sync(&broken).await.status, Status::Failed);
    assert_eq!(world.completed(&directory).await.users_read, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_of_modifications_ends_no_membership_of_those_it_does_not_show() {
    for strategy in [Strategy::List, Strategy::Get, Strategy::GroupsFilter, Strategy::MembersFilter, Strategy::User] {
        let mut world = World::new(account("acme"));
        world.account_mut().habits.full_walk_every = Some(HOUR);
        let mut directory = directory().showing(strategy);
        world.completed(&directory).await;
        modify(&mut directory, Kind::User, "u1", "title", json!("Analyst"));
        world.completed(&directory).await;
        assert_eq!(world.lines(0), ["user.updated u1 title none → \"Analyst\""], "{strategy:?}");
        assert_eq!(world.known.memberships_len(), 3, "{strategy:?}");
    }
}

/// A server whose lists carry ETags of their content.
#[derive(Default)]
struct Tagged {
    resources: BTreeMap<&'static str, Vec<Value>>,
    /// Answered in full, and by 304.
    sent: usize,
    unchanged: usize,
    /// The list of groups answers 500.
    groups_down: bool,
}

type Shared = Arc<Mutex<Tagged>>;

async fn list(
    State(shared): State<Shared>,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut server = shared.lock().unwrap();
    if path == "Groups" && server.groups_down {
        return StatusCode::NOT_IMPLEMENTED.into_response();
    }
    let Some(rows) = server.resources.get(path.as_str()) else { return StatusCode::NOT_FOUND.into_response() };
    let number = |name: &str| query[name].parse::<usize>().unwrap();
    let page: Vec<&Value> = rows.iter().skip(number("startIndex") - 1).take(number("count")).collect();
    let body = json!({ "totalResults": rows.len(), "Resources": page }).to_string();
    let etag = format!("W/\"{:x}\"", xxhash_rust::xxh3::xxh3_64(body.as_bytes()));
    if headers.get("if-none-match").is_some_and(|known| known.to_str().unwrap() == etag) {
        server.unchanged += 1;
        return (StatusCode::NOT_MODIFIED, [("etag", etag)]).into_response();
    }
    server.sent += 1;
    ([("etag", etag)], body).into_response()
}

async fn tagged() -> (Shared, ScimDirectory) {
    let users = (0..10).map(|n| json!({ "id": format!("u{n}"), "userName": format!("name{n}"), "active": true }));
    let groups = vec![json!({ "id": "g1", "displayName": "Admins", "members": [{ "value": "u1" }] })];
    let resources = BTreeMap::from([("Users", users.collect()), ("Groups", groups)]);
    let shared = Arc::new(Mutex::new(Tagged { resources, ..Tagged::default() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v2", listener.local_addr().unwrap());
    let router = Router::new().route("/v2/{path}", get(list)).with_state(shared.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let overrides = "paging = \"index\"\nmemberships = \"list\"\npage_size = 4\nlist_etags = true";
    let profile = Profile::layered("generic", &BTreeMap::new(), toml::from_str(overrides).unwrap()).unwrap();
    let reach = Reach { allow_private: true, ..Reach::default() };
    let credential = Credential::bearer("t".to_owned().into()).unwrap();
    let client = Client::new(base_url.parse().unwrap(), credential, profile, &reach, now_millis).unwrap();
    (shared, ScimDirectory::new(client, AttributeList::default()))
}

fn counts(shared: &Shared) -> (usize, usize) {
    let mut server = shared.lock().unwrap();
    (std::mem::take(&mut server.sent), std::mem::take(&mut server.unchanged))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_whose_etag_still_matches_are_not_sent_again() {
    let (shared, directory) = tagged().await;
    let mut world = World::new(account("acme"));
    assert_eq!(world.sync_with(&directory).await.status, Status::Completed);
    // Three pages of users and an empty one, a page of groups and an empty one.
    assert_eq!(counts(&shared), (6, 0));
    let status = world.sync_with(&directory).await;
    assert_eq!((status.users_read, status.memberships_read, world.lines(0)), (Some(10), Some(1), vec![]));
    assert_eq!(counts(&shared), (0, 6));

    shared.lock().unwrap().resources.get_mut("Users").unwrap()[5]["title"] = json!("Analyst");
    assert_eq!(world.sync_with(&directory).await.status, Status::Completed);
    assert_eq!(world.lines(0), ["user.updated u5 title none → \"Analyst\""]);
    assert_eq!(counts(&shared), (1, 5));

    // For a membership that the group shows, the page of its user is not read again.
    shared.lock().unwrap().resources.get_mut("Groups").unwrap()[0]["members"] =
        json!([{ "value": "u1" }, { "value": "u6" }]);
    for (expected, lines) in [((1, 5), 2), ((0, 6), 2)] {
        assert_eq!(world.sync_with(&directory).await.status, Status::Completed);
        assert_eq!((counts(&shared), world.lines(0).len()), (expected, lines), "{:?}", world.lines(0));
    }
}

/// A change that was read but not published is read again, although its page did not change since.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_failed_sync_saw_is_not_lost_to_an_unchanged_page() {
    let (shared, directory) = tagged().await;
    let mut world = World::new(account("acme"));
    world.sync_with(&directory).await;
    shared.lock().unwrap().resources.get_mut("Users").unwrap()[5]["title"] = json!("Analyst");
    shared.lock().unwrap().groups_down = true;
    assert_eq!(world.sync_with(&directory).await.status, Status::Failed);
    shared.lock().unwrap().groups_down = false;
    assert_eq!(world.sync_with(&directory).await.status, Status::Completed);
    assert_eq!(world.lines(0), ["user.updated u5 title none → \"Analyst\""]);
    // As after a restart: no row is recognised, so every page has to come.
    world.restart();
    assert_eq!(world.sync_with(&directory).await.status, Status::Completed);
    assert_eq!(world.lines(0).len(), 1);
}
