//! Cursors (RFC 9865): used only where the server advertises or offers them, begun again where they expire.

use serde_json::json;

use super::script::{Effect, GROUPS, Place, Target, USERS, on};
use super::server::Request;
use super::truth::Cursors;
use super::world::{HISTORY, HostileWorld};

async fn baseline(cursors: Cursors, overrides: &str) -> HostileWorld {
    let mut truth = super::world::directory(7);
    truth.habits.cursors = cursors;
    let mut world = HostileWorld::new(truth, overrides).await;
    world.completed().await;
    world.assert_state_is_the_truth();
    world.make_history();
    world
}

fn by_cursor(request: &Request) -> bool {
    request.parameters.contains_key("cursor")
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_are_used_where_the_server_advertises_offers_or_demands_them() {
    for (cursors, overrides) in [
        (Cursors::Advertised, "paging = \"auto\""),
        (Cursors::Unasked, ""),
        (Cursors::Advertised, "paging = \"cursor\""),
        (Cursors::Unasked, "paging = \"cursor\""),
        (Cursors::Forced, "paging = \"cursor_forced\""),
    ] {
        let mut world = baseline(cursors, overrides).await;
        let status = world.calm(HISTORY).await;
        assert_eq!((status.users_read, status.groups_read), (Some(7), Some(2)), "{cursors:?} {overrides}");
        world.assert_state_is_the_truth();
        let pages = world.server.requests_for(USERS);
        assert!(pages.iter().skip(1).all(by_cursor), "{cursors:?} {overrides}: {pages:?}");
        // RFC 9865 §2: no index beside a cursor, and the same count on every page.
        assert!(pages.iter().all(|page| !(by_cursor(page) && page.parameters.contains_key("startIndex"))));
        assert!(pages.iter().all(|page| page.parameters.get("count") == pages[0].parameters.get("count")));
        assert_eq!(pages.len(), 3, "a page without nextCursor is the last");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_cursors_is_read_by_index_and_loses_no_user() {
    for overrides in ["paging = \"auto\"", "paging = \"index\"", "paging = \"cursor\""] {
        let mut world = baseline(Cursors::None, overrides).await;
        let status = world.calm(HISTORY).await;
        assert_eq!(status.users_read, Some(7), "{overrides}");
    }
    // And one that is told to use the index does not follow an offer.
    let mut world = baseline(Cursors::Advertised, "paging = \"index\"").await;
    world.calm(HISTORY).await;
    assert!(!world.server.requests().iter().any(by_cursor));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_expires_on_the_way_begins_the_walk_again_and_not_for_ever() {
    for (cursors, overrides) in
        [(Cursors::Advertised, "paging = \"auto\""), (Cursors::Forced, "paging = \"cursor_forced\"")]
    {
        for code in ["expiredCursor", "invalidCursor"] {
            let mut world = baseline(cursors, overrides).await;
            for page in [2, 3] {
                let expired = on(USERS).walk(1).page(page).then(Effect::ScimError(code));
                let news = if page == 2 { HISTORY } else { &[] };
                let status = world.publishes([expired], news).await;
                assert_eq!(status.users_read, Some(7));
                let walks = world.server.requests_for(USERS).iter().map(|request| request.place.walk).max();
                assert_eq!(walks, Some(2));
            }
            let always = on(USERS).page(2).then(Effect::ScimError(code));
            let (events, state) = (world.lines(), world.world.log.state());
            world.server.script([always]);
            let status = world.sync().await;
            assert_eq!(status.status, scimtail::directory::Status::Failed);
            assert!(world.server.requests().len() <= 20, "{} requests", world.server.requests().len());
            assert!(world.lines() == events && world.world.log.state() == state);
            world.calm(&[]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_overlap_count_every_user_once() {
    let mut world = baseline(Cursors::Advertised, "paging = \"auto\"").await;
    let overlap = [on(USERS).then(Effect::Back(2)), on(GROUPS).then(Effect::Back(2))];
    let status = world.publishes(overlap, HISTORY).await;
    assert_eq!((status.users_read, status.groups_read), (Some(7), Some(2)));
}

/// The same cursor again, a strange one, a huge one, an address.
#[tokio::test(flavor = "multi_thread")]
async fn no_cursor_keeps_a_walk_from_ending_or_loses_a_user() {
    let long = "c".repeat(1 << 20);
    for next in [
        json!("a+/=3"),
        json!(""),
        json!(7),
        json!(null),
        json!({}),
        json!(long),
        json!("http://169.254.169.254/"),
        json!("\r\nx: y"),
    ] {
        let mut world = baseline(Cursors::Advertised, "paging = \"auto\"").await;
        let said = next.clone();
        world.server.script([on(USERS).then(Effect::edit(move |body| body["nextCursor"] = said.clone()))]);
        world.sync().await;
        let lines = world.lines();
        assert!(lines.iter().all(|line| HISTORY.contains(&line.as_str())), "{next}: {lines:?}");
        assert!(world.server.requests().len() <= 40, "{next}: {} requests", world.server.requests().len());
        world.server.script([]);
        world.completed().await;
        world.assert_state_is_the_truth();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_paging_is_asked_once() {
    let mut world = HostileWorld::new(super::world::directory(7), "paging = \"none\"").await;
    let whole =
        || [on(USERS).then(Effect::IgnoreCount).then(Effect::IgnoreStart), on(GROUPS).then(Effect::IgnoreStart)];
    world.publishes(whole(), &[]).await;
    let places: Vec<Target> =
        world.server.requests().iter().map(|Request { place: Place { target, .. }, .. }| *target).collect();
    assert_eq!(places.iter().filter(|target| **target == USERS).count(), 1, "{places:?}");
    world.make_history();
    world.publishes(whole(), HISTORY).await;
}
