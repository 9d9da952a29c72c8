//! Lists that do not page as RFC 7644 §3.4.2.4 demands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::script::{Effect, GROUPS, Target, USERS, on};
use super::world::{HISTORY, HostileWorld};

/// Requests of a calm walk over seven users and one over two groups, three rows a page, with a page for the end.
const CALM_REQUESTS: usize = 4 + 2;

#[tokio::test(flavor = "multi_thread")]
async fn totals_that_say_less_than_there_is_are_no_reason_to_stop() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    world.calm(HISTORY).await;
    // Of the page only (three vendors), zero, below zero, a text, a fraction, nothing at all.
    let page_sized = Effect::edit(|body| body["totalResults"] = json!(body["Resources"].as_array().map(Vec::len)));
    let mut effects = vec![page_sized, Effect::field("totalResults", Value::Null)];
    for total in [json!(0), json!(-7), json!("7"), json!("many"), json!(7.0), json!(1e300), json!([7]), json!(true)] {
        effects.push(Effect::field("totalResults", total));
    }
    for effect in effects {
        let status = world.publishes([on(USERS).then(effect)], &[]).await;
        assert_eq!((status.users_read, status.groups_read), (Some(7), Some(2)));
        assert_eq!(world.server.requests().len(), CALM_REQUESTS);
    }
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_never_reaches_its_total_is_walked_twice_and_fails() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let growing = Effect::edit(|body| {
        let start = body["startIndex"].as_u64().expect("a number");
        body["totalResults"] = json!(start * 10);
    });
    // Shrinking: the largest that any page stated counts.
    let shrinking = Effect::edit(|body| {
        let start = body["startIndex"].as_u64().expect("a number");
        body["totalResults"] = json!(15 - start);
    });
    for effect in
        [Effect::field("totalResults", json!(u64::MAX)), Effect::field("totalResults", json!(9)), growing, shrinking]
    {
        let status = world.fails([on(USERS).then(effect)], "walk_incomplete").await;
        assert_eq!(status.users_read, Some(7));
        let walks = world.server.requests_for(USERS).iter().map(|request| request.place.walk).max();
        assert_eq!(walks, Some(2));
        assert!(world.server.requests_for(USERS).len() <= 2 * 4);
    }
    let status = world.fails([on(GROUPS).then(Effect::field("totalResults", json!(3)))], "walk_incomplete").await;
    assert_eq!(status.groups_read, Some(2));
    world.calm(HISTORY).await;
}

/// Setting `trust_total = false` would let such a list count as an empty one.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_counted_and_not_shown_is_a_matter_of_rights_and_not_of_totals() {
    let hidden = |kind: Target| on(kind).then(Effect::field("Resources", json!([])));
    for mut world in [HostileWorld::new(super::world::directory(7), "").await, HostileWorld::baseline(7).await] {
        for list in [USERS, GROUPS] {
            let reason = world.fails([hidden(list)], "walk_incomplete").await.reason.expect("a reason");
            assert!(reason.contains("give the credentials the right to read them"), "{reason}");
            assert!(!reason.contains("trust_total"), "{reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_walk_may_make_up_for_the_first() {
    let mut world = HostileWorld::new(super::world::directory(7), "").await;
    // A first sync cannot ask for what it does not know: only walking again helps.
    let slid =
        on(USERS).walk(1).then(Effect::LeaveOut(vec!["u03".into()])).then(Effect::field("totalResults", json!(7)));
    world.publishes([slid], &[]).await;
    assert_eq!(world.server.requests_for(USERS).iter().map(|request| request.place.walk).max(), Some(2));
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn items_per_page_and_start_index_of_an_answer_are_not_believed() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    world.calm(HISTORY).await;
    for said in [json!(0), json!(-1), json!(100), json!("3"), json!(null), json!(u64::MAX)] {
        for field in ["itemsPerPage", "startIndex"] {
            let effect = Effect::field(field, said.clone());
            world.publishes([on(USERS).then(effect.clone()), on(GROUPS).then(effect)], &[]).await;
            assert_eq!(world.server.requests().len(), CALM_REQUESTS);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_is_ignored_or_capped_loses_no_user() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let everything = [on(USERS).then(Effect::IgnoreCount), on(GROUPS).then(Effect::IgnoreCount)];
    world.publishes(everything, HISTORY).await;
    for cap in [1, 2] {
        world.publishes([on(USERS).then(Effect::Cap(cap)), on(GROUPS).then(Effect::Cap(cap))], &[]).await;
        assert!(world.server.requests().len() <= 8 + 3);
    }
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_overlap_count_every_user_once() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let status = world.publishes([on(USERS).then(Effect::Back(1)), on(GROUPS).then(Effect::Back(1))], HISTORY).await;
    assert_eq!((status.users_read, status.groups_read), (Some(7), Some(2)));
    world.publishes([on(USERS).then(Effect::Back(2))], &[]).await;
    assert!(world.server.requests_for(USERS).len() <= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_begins_again_after_its_end_is_complete() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let round = [on(USERS).then(Effect::WrapAround), on(GROUPS).then(Effect::WrapAround)];
    let status = world.publishes(round, HISTORY).await;
    assert_eq!((status.users_read, status.groups_read), (Some(7), Some(2)));
    let pages = world.server.requests_for(USERS).len() + world.server.requests_for(GROUPS).len();
    assert!(pages <= CALM_REQUESTS + 1, "{pages} pages");
    world.assert_state_is_the_truth();
}

/// The same page for ever: with any total, it is not a list of three.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_start_index_fails_the_sync_and_is_no_baseline() {
    let page_sized = Effect::edit(|body| body["totalResults"] = json!(3));
    for more in [None, Some(page_sized)] {
        let mut rule = on(USERS).then(Effect::IgnoreStart);
        rule.effects.extend(more);
        let mut world = HostileWorld::new(super::world::directory(7), "").await;
        world.server.change(|truth| truth.habits.search = false);
        world.fails([rule.clone()], "paging_ignored").await;
        assert!(world.server.requests().len() <= 4);
        world.calm(&[]).await;
        world.make_history();
        world.fails([rule], "paging_ignored").await;
        world.calm(HISTORY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_start_index_is_ignored_search_pages_the_list() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let status = world.publishes([on(USERS).then(Effect::IgnoreStart)], HISTORY).await;
    assert_eq!(status.users_read, Some(7));
    let searched = world.server.requests_for(super::script::Target::Search(scimtail::directory::Kind::User));
    assert!(!searched.is_empty() && searched.iter().all(|request| request.method == "POST"));
    world.assert_state_is_the_truth();
}

/// The same ids with other bytes on every page: not a new row among them.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_users_in_ever_new_words_end_the_walk() {
    let mut world = HostileWorld::baseline(7).await;
    let number = Arc::new(AtomicUsize::new(0));
    let reworded = Effect::edit(move |body| {
        for row in body["Resources"].as_array_mut().expect("rows") {
            row["nickName"] = json!(number.fetch_add(1, Ordering::Relaxed));
        }
    });
    let script = [on(USERS).then(Effect::IgnoreStart).then(reworded)];
    world.server.script(script);
    world.sync().await;
    assert_eq!(world.lines(), [""; 0]);
    assert!(world.server.requests().len() <= 40, "{}", world.server.requests().len());
    world.calm(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_an_end_fails_the_sync_at_the_limit_of_pages() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let invented = Effect::invent(|index| json!({ "id": format!("i{index}"), "userName": format!("invented{index}") }));
    world.fails([on(USERS).then(invented)], "too_many_pages").await;
    world.calm(HISTORY).await;
}

/// With any number of rows, size of pages and form of the end, every user is read, and none twice.
#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_the_end_of_a_list_ends_it_whatever_its_length() {
    let seed = std::env::var("PAGING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_128);
    println!("repeat it: PAGING_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..60 {
        let (users, cap) = (random.usize(0..10), random.usize(1..5));
        let last = users.div_ceil(cap) + 1;
        let end = match random.u8(0..7) {
            0 => Effect::field("Resources", Value::Null),
            1 => Effect::edit(|body| body["Resources"] = Value::Null),
            2 => Effect::Status(400),
            3 => Effect::Status(404),
            4 => Effect::body(r#"{"totalResults":0}"#),
            5 => Effect::body("{}"),
            _ => Effect::field("itemsPerPage", json!(0)),
        };
        let mut world = HostileWorld::new(super::world::directory(users.max(3)), "page_size = 4").await;
        world.server.change(|truth| truth.users.retain(|id, _| id.as_str() < format!("u{users:02}").as_str()));
        // A first page has to say itself that it is empty.
        let rules = if users == 0 { vec![] } else { vec![on(USERS).page(last).then(end)] };
        let capped = on(USERS).then(Effect::Cap(cap));
        world.server.script([rules, vec![capped]].concat());
        let status = world.sync().await;
        let what = format!("round {round}: {users} users, {cap} a page: {:?}", status.reason);
        assert_eq!((status.users_read, status.reason), (Some(users as i64), None), "{what}");
        world.assert_state_is_the_truth();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_in_the_middle_removes_no_user_behind_it() {
    let mut world = HostileWorld::baseline(9).await;
    world.make_history();
    let empty = Effect::field("Resources", json!([]));
    // The users behind it are asked for one by one, and answer.
    let status = world.publishes([on(USERS).page(3).then(empty)], HISTORY).await;
    assert_eq!(status.users_read, Some(9));
    world.assert_state_is_the_truth();
}
