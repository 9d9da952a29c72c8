//! Pages that are asked for before the one in front of them has come.

use std::iter::successors;

use serde_json::json;

use super::script::{Effect, GROUPS, USER, USERS, on};
use super::world::{HISTORY, HostileWorld, directory};

/// Of 14 users, three rows a page: five pages, and one for the end.
const USERS_HERE: usize = 14;
const ROWS: usize = 3;
const REQUESTS: usize = 5 + 1;

fn in_flight(pages: usize) -> String {
    format!("pages_in_flight = {pages}")
}

/// Where the pages of users began that were asked for, sorted.
fn asked(world: &HostileWorld) -> Vec<usize> {
    let requests = world.server.requests_for(USERS);
    let mut asked: Vec<usize> =
        requests.iter().map(|request| request.parameters["startIndex"].parse().unwrap()).collect();
    asked.sort_unstable();
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_asked_for_at_once_are_those_that_would_be_asked_for_one_after_the_other() {
    for pages in 1..=5 {
        let mut world = HostileWorld::baseline_with(USERS_HERE, &in_flight(pages)).await;
        world.make_history();
        world.server.script([]);
        world.calm(HISTORY).await;
        let status = world.calm(&[]).await;
        assert_eq!(asked(&world), [1, 4, 7, 10, 13, 15], "{pages} in flight");
        assert_eq!(status.users_read, Some(USERS_HERE as i64));
        world.assert_state_is_the_truth();
    }
}

/// A page that is shorter than the others, as of a server that filters its pages after it has cut them. If it is the
/// first one, the pages behind it are longer than was guessed.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_length_than_the_first_ends_the_guessing_and_no_row_is_missed() {
    let cases = [1, 4, 7, 10].into_iter().flat_map(|short| (1..ROWS).map(move |rows| (short, rows)));
    for ((short, rows), pages) in cases.flat_map(|case| (2..=5).map(move |pages| (case, pages))) {
        let mut world = HostileWorld::baseline_with(USERS_HERE, &in_flight(pages)).await;
        let cut = Effect::edit(move |body| {
            if body["startIndex"] == json!(short) {
                body["Resources"].as_array_mut().unwrap().truncate(rows);
            }
        });
        let status = world.publishes([on(USERS).then(cut)], &[]).await;
        let case = format!("{rows} rows at {short}, {pages} in flight");
        assert_eq!(status.users_read, Some(USERS_HERE as i64), "{case}");
        let after = |begin: &usize| (*begin <= USERS_HERE).then(|| begin + if *begin == short { rows } else { ROWS });
        let needed: Vec<usize> = successors(Some(1), after).map(|begin| begin.min(USERS_HERE + 1)).collect();
        let asked = asked(&world);
        assert!(needed.iter().all(|begin| asked.contains(begin)), "{case}: {asked:?}");
        // Besides them at most the guesses that were under way when the first one proved wrong.
        assert!(asked.len() < needed.len() + pages, "{case}: {asked:?}");
        // A guess that is taken for the next page skips rows. That each is looked for by its id would hide it.
        assert_eq!(world.server.requests_for(USER).len(), 0, "{case}: no row was missed");
        world.assert_state_is_the_truth();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_total_is_not_known_or_not_trusted_no_page_is_guessed() {
    for (more, total) in [("", json!(null)), ("trust_total = false", json!(USERS_HERE))] {
        let overrides = format!("{}\n{more}", in_flight(4));
        let mut world = HostileWorld::baseline_with(USERS_HERE, &overrides).await;
        world.publishes([on(USERS).then(Effect::field("totalResults", total))], &[]).await;
        let order: Vec<String> =
            world.server.requests_for(USERS).iter().map(|request| request.parameters["startIndex"].clone()).collect();
        assert_eq!(order, ["1", "4", "7", "10", "13", "15"]);
    }
}

/// A row is added in front while two pages are under way: one of them shows the list before, the other one after.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_slides_between_pages_under_way_is_found_by_a_walk_page_by_page() {
    for page in 2..=5 {
        let mut world = HostileWorld::baseline_with(USERS_HERE, &in_flight(4)).await;
        let added = Effect::afterwards(|truth| {
            truth
                .users
                .entry("a00".to_owned())
                .or_insert_with(|| json!({ "id": "a00", "userName": "a00", "active": true }));
        });
        world.server.script([on(USERS).walk(1).page(page).then(added)]);
        world.completed().await;
        assert!(!world.lines().iter().any(|line| line.contains("removed")), "{:?}", world.lines());
        world.server.script([]);
        world.completed().await;
        assert_eq!(world.lines(), ["user.added a00"], "once, and no other event");
        world.assert_state_is_the_truth();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_missed_a_row_is_followed_by_one_that_guesses_no_page() {
    let mut world = HostileWorld::new(directory(USERS_HERE), &in_flight(4)).await;
    let missed = on(USERS).walk(1).then(Effect::LeaveOut(vec!["u08".to_owned()]));
    world.server.script([missed.then(Effect::field("totalResults", json!(USERS_HERE)))]);
    world.completed().await;
    let order: Vec<usize> = world
        .server
        .requests_for(USERS)
        .iter()
        .filter(|request| request.place.walk == 2)
        .map(|request| request.parameters["startIndex"].parse().unwrap())
        .collect();
    assert!(order.is_sorted() && order.len() == REQUESTS, "{order:?}");
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_a_guessed_page_is_that_of_its_list() {
    let mut world = HostileWorld::baseline_with(USERS_HERE, &in_flight(4)).await;
    for (status, code) in [(403, "credentials_refused"), (500, "unavailable")] {
        world.fails([on(USERS).page(3).then(Effect::Status(status))], code).await;
        world.fails([on(GROUPS).page(1).then(Effect::Status(status))], code).await;
    }
    world.calm(&[]).await;
    world.assert_state_is_the_truth();
}
