//! Tokens that stop working, and places where a token may never go.

use scimtail::directory::Status;
use serde_json::json;

use super::script::{Effect, GROUPS, USERS, always, on};
use super::server::{Elsewhere, TOKEN};
use super::world::{HISTORY, HostileWorld, TRIES};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_revoked_at_any_request_stops_the_sync_and_removes_nothing() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for status in [401, 403] {
        // The lists: four pages of users, two of groups.
        for number in 1..=6 {
            world.fails([always().since(number).then(Effect::Status(status))], "credentials_refused").await;
            assert_eq!(world.server.requests().len(), number, "a refused request is not repeated");
        }
        // The GETs for missing users: they prove nothing then.
        for number in 7..=8 {
            world.server.script([always().since(number).then(Effect::Status(status))]);
            let sync = world.sync().await;
            assert!(!world.lines().iter().any(|line| line.contains("removed")), "{:?}", world.lines());
            assert!(sync.status == Status::Failed || sync.removals_suppressed == 1, "{sync:?}");
        }
    }
    world.server.script([]);
    world.completed().await;
    assert_eq!(world.lines(), *HISTORY);
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_sent_with_every_request_and_is_in_no_address_and_no_record() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    world.server.script([]);
    world.completed().await;
    let requests = world.server.requests();
    assert!(requests.len() > 6);
    for request in &requests {
        assert_eq!(request.authorization.as_deref(), Some(&*format!("Bearer {TOKEN}")));
        assert!(!request.path.contains(TOKEN) && !format!("{:?}", request.parameters).contains(TOKEN));
    }
    // A server that sends the token back: it is text of a server, and goes nowhere.
    for effect in [
        Effect::body(format!(r#"{{"error":"{TOKEN}"}}"#)),
        Effect::Header("www-authenticate", format!("Bearer error=\"{TOKEN}\"")),
        Effect::Header("location", format!("http://{TOKEN}.example/")),
    ] {
        for status in [200, 302, 401, 500] {
            world.server.script([on(USERS).then(Effect::Status(status)).then(effect.clone())]);
            world.sync().await;
        }
    }
    for record in world.world.log.records.lock().unwrap().iter() {
        let value = record.value.as_deref().unwrap_or_default();
        assert!(!value.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "{} holds the token", record.key);
    }
}

/// Addresses in bodies: the next page of a list, the location of a resource, the address of a member.
#[tokio::test(flavor = "multi_thread")]
async fn g11_no_address_in_a_body_is_ever_followed() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let elsewhere = Elsewhere::start().await;
    let url = elsewhere.url.clone();
    let linked = Effect::edit(move |body| {
        body["nextCursor"] = json!(format!("{url}/next"));
        body["next"] = json!(format!("{url}/next"));
        body["nextPage"] = json!(format!("{url}/next"));
        body["_links"] = json!({ "next": { "href": format!("{url}/next") } });
        for row in body["Resources"].as_array_mut().expect("rows") {
            row["meta"] = json!({ "location": format!("{url}/{}", row["id"]) });
            row["$ref"] = json!(format!("{url}/ref"));
            for member in row["members"].as_array_mut().into_iter().flatten() {
                member["$ref"] = json!(format!("{url}/Users/ref"));
            }
        }
    });
    let link = Effect::Header("link", format!("<{}/next>; rel=\"next\"", elsewhere.url));
    let headers = [
        link,
        Effect::Header("content-location", elsewhere.url.clone()),
        Effect::Header("refresh", format!("0; url={}", elsewhere.url)),
    ];
    let mut rules = vec![on(USERS).then(linked.clone()), on(GROUPS).then(linked)];
    rules.extend(headers.map(|header| always().then(header)));
    world.server.script(rules);
    world.sync().await;
    assert_eq!(elsewhere.connections(), 0);
    world.server.script([]);
    world.completed().await;
    assert_eq!(world.lines(), *HISTORY);
    assert_eq!(elsewhere.connections(), 0);
    assert!(world.server.requests().len() <= 12 * TRIES);
}
