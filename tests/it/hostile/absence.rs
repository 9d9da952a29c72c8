//! GET by id is not available: absence from three complete walks is the proof.

use super::script::{Delivery, Effect, Rule, USER, USERS, on};
use super::world::HostileWorld;

/// Complete walks that have to miss a principal.
const WALKS: i32 = 3;

fn gone(world: &HostileWorld) {
    world.server.change(|truth| drop(truth.users.remove("u05")));
}

fn refusing(status: u16) -> Vec<Rule> {
    vec![on(USER).then(Effect::Status(status))]
}

#[tokio::test(flavor = "multi_thread")]
async fn where_get_is_not_to_be_had_three_complete_walks_prove_an_absence() {
    for status in [403, 404, 405, 501] {
        let mut world = HostileWorld::baseline(7).await;
        gone(&world);
        for walk in 1..WALKS {
            let sync = world.publishes(refusing(status), &[]).await;
            assert_eq!(sync.removals_suppressed, 1, "{status} walk {walk}");
            // The count is state: a restart does not forget it.
            world.world.restart();
        }
        world.publishes(refusing(status), &["user.removed u05 (absent)"]).await;
        world.assert_state_is_the_truth();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn walks_that_fail_or_are_answered_otherwise_do_not_count_as_absences() {
    let mut world = HostileWorld::baseline(7).await;
    gone(&world);
    world.publishes(refusing(405), &[]).await;
    // A failed walk counts for no absence, and neither does one whose GETs give errors, no answer, or nonsense.
    world.fails([on(USERS).page(2).then(Effect::Status(500)), on(USER).then(Effect::Status(405))], "unavailable").await;
    for effect in [Effect::Status(500), Effect::Status(400), Effect::Deliver(Delivery::Reset(None)), Effect::body("{}")]
    {
        world.publishes([on(USER).then(effect)], &[]).await;
    }
    world.publishes(refusing(405), &[]).await;
    world.publishes(refusing(405), &["user.removed u05 (absent)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_listed_again_begins_to_be_absent_from_zero() {
    let mut world = HostileWorld::baseline(7).await;
    let missing =
        |status: u16| [on(USERS).then(Effect::LeaveOut(vec!["u05".into()])), on(USER).then(Effect::Status(status))];
    for _ in 1..WALKS {
        world.publishes(missing(405), &[]).await;
    }
    world.calm(&[]).await;
    for _ in 1..WALKS {
        world.publishes(missing(405), &[]).await;
    }
    world.publishes(missing(405), &["user.removed u05 (absent)"]).await;
    world.calm(&["user.added u05"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_user_is_never_removed_by_absence() {
    let mut world = HostileWorld::baseline(7).await;
    let hidden = || on(USERS).then(Effect::LeaveOut(vec!["u05".into()]));
    let status = world.publishes([hidden()], &[]).await;
    assert_eq!(status.hidden, 1, "GET found it");
    for _ in 0..2 * WALKS {
        world.publishes([hidden(), on(USER).then(Effect::Status(405))], &[]).await;
    }
    world.calm(&[]).await;
    world.assert_state_is_the_truth();
}
