//! How lists are paged, and what is not a list.

use scimtail::directory::Kind;

use super::org::Org;
use super::world::OktaWorld;

fn org(users: usize) -> String {
    let users = (0..users).map(|number| {
        let status = if number % 7 == 3 { "DEPROVISIONED" } else { "ACTIVE" };
        format!("user 00u{number:04} name{number} {status}\n")
    });
    users.chain(["group 00g1 OKTA_GROUP Team: 00u0000\n".to_owned()]).collect()
}

#[tokio::test]
async fn every_page_of_both_lists_of_people_is_read() {
    let world = OktaWorld::baseline(&org(450)).await;
    assert_eq!(world.world.known.table(Kind::User).len(), 450);
    let lists: Vec<(Option<String>, Option<String>)> = world
        .okta
        .shared()
        .seen
        .iter()
        .filter(|seen| seen.path == "/api/v1/users")
        .map(|seen| (seen.query.get("filter").cloned(), seen.query.get("after").cloned()))
        .collect();
    let filter = || Some("status eq \"DEPROVISIONED\"".to_owned());
    let after = |id: &str| Some(id.to_owned());
    assert_eq!(lists, [(filter(), None), (None, None), (None, after("00u0232"))]);
    assert!(world.okta.shared().seen.iter().all(|seen| !seen.query.contains_key("search")), "it lags behind");
}

#[tokio::test]
async fn a_page_that_takes_okta_too_long_is_asked_for_in_smaller_ones() {
    let mut world = OktaWorld::new(Org::parse(&org(60)), "", None).await;
    world.okta.faults(|faults| faults.slow_above = Some(20));
    world.publishes(&[]).await;
    assert_eq!(world.world.known.table(Kind::User).len(), 60);
    assert_eq!(world.world.known.members("00g1").map(|members| members.len()), Some(1));
    // The size is kept: the next sync does not begin with the large one.
    drop(world.okta.asked());
    world.publishes(&[]).await;
    assert_eq!(world.okta.asked().iter().filter(|path| *path == "/api/v1/users").count(), 6);
}

/// An outage of a moment must not make all reading slow for good.
#[tokio::test]
async fn pages_that_became_small_become_large_again() {
    let mut world = OktaWorld::baseline(&org(60)).await;
    world.okta.faults(|faults| faults.slow_above = Some(0));
    world.fails("Users: Okta answers HTTP 500").await;
    world.okta.faults(|faults| faults.slow_above = None);
    let mut requests = Vec::new();
    for _ in 0..60 {
        drop(world.okta.asked());
        world.publishes(&[]).await;
        requests.push(world.okta.asked().iter().filter(|path| *path == "/api/v1/users").count());
    }
    // Ten rows at least, so that even then the requests are bounded; in the end one page for each of the two lists.
    assert_eq!((requests[0], requests[59]), (1 + 6, 2), "{requests:?}");
}

/// It must not look like the end of the list, and a group's members like gone.
#[tokio::test]
async fn a_full_page_that_has_lost_its_link_fails_the_sync() {
    let mut world = OktaWorld::baseline(&org(450)).await;
    world.okta.faults(|faults| faults.unlinked = true);
    world.fails("Users: the header Link of a page is missing").await;
    world.okta.faults(|faults| faults.unlinked = false);
    world.publishes(&[]).await;
}

#[tokio::test]
async fn a_next_page_at_another_host_is_not_followed() {
    let mut world = OktaWorld::baseline(&org(450)).await;
    world.okta.faults(|faults| faults.link_elsewhere = true);
    world.fails("Users: the link to the next page leads to another host").await;
    world.okta.faults(|faults| faults.link_elsewhere = false);
    world.publishes(&[]).await;
}

#[tokio::test]
async fn what_is_not_a_list_fails_the_sync_and_removes_nobody() {
    let mut world = OktaWorld::baseline(&org(9)).await;
    for body in ["<html>canary", "{}", "[{\"id\":\"00u0000\"", "null", "[1] [2]"] {
        world.okta.faults(|faults| faults.refused = Some((200, vec![], body.to_owned())));
        world.fails("Users: the answer is not a list of Okta's API; → base_url").await;
    }
    world.okta.faults(|faults| faults.refused = None);
    world.publishes(&[]).await;
}

#[tokio::test]
async fn an_organisation_that_shows_nobody_is_held() {
    let mut world = OktaWorld::baseline(&org(3)).await;
    world.okta.faults(|faults| faults.refused = Some((200, vec![], "[]".to_owned())));
    let held = world.sync().await;
    assert_eq!(held.status.as_str(), "held", "{:?}", held.reason);
}

#[tokio::test]
async fn a_request_that_is_throttled_is_repeated_after_the_wait() {
    let mut world = OktaWorld::new(Org::parse(&org(9)), "", None).await;
    world.okta.faults(|faults| faults.throttled = 2);
    world.publishes(&[]).await;
    assert_eq!(world.okta.asked().iter().filter(|path| *path == "/api/v1/users").count(), 4);
}

#[tokio::test]
async fn more_than_the_share_of_a_limit_that_answers_state_is_waited_for() {
    let mut world = OktaWorld::new(Org::parse(&org(30)), "page_size = 1", None).await;
    // Half of 20 is used up after ten pages. Waits are cut short in tests, and the sync ends all the same.
    world.okta.faults(|faults| faults.rate_limit = 20);
    world.publishes(&[]).await;
    assert_eq!(world.world.known.table(Kind::User).len(), 30);
}
