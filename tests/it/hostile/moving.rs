//! Directories that change while they are read, or seem to.

use scimtail::directory::{ReasonCode, Status};
use serde_json::json;

use super::script::{Effect, GROUPS, USER, USERS, on};
use super::world::{HISTORY, HostileWorld, TRIES};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_slide_out_of_the_window_remove_no_user() {
    let mut world = HostileWorld::baseline(12).await;
    // After the first page two users of it are deleted: the next two survivors slide onto it, unseen.
    let slide = Effect::afterwards(|truth| {
        truth.users.remove("u00");
        truth.users.remove("u01");
    });
    let status = world.publishes([on(USERS).walk(1).page(1).then(slide)], &[]).await;
    assert_eq!((status.status, status.users_read), (Status::Completed, Some(12)));
    let gone = [
        "membership.removed u00 in g1 (not_found)",
        "membership.removed u01 in g1 (not_found)",
        "membership.removed u00 in g2 (not_found)",
        "user.removed u00 (not_found)",
        "user.removed u01 (not_found)",
    ];
    world.calm(&gone).await;
    world
        .server
        .change(|truth| truth.groups.values_mut().for_each(|group| group["members"] = json!([{ "value": "u02" }])));
    world.completed().await;
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_slide_during_a_first_sync_are_found_by_a_second_walk() {
    let mut world = HostileWorld::new(super::world::directory(12), "").await;
    let slide = Effect::afterwards(|truth| drop(truth.users.remove("u05")));
    world.server.script([on(USERS).walk(1).page(2).then(slide)]);
    world.completed().await;
    // A user that went during the walk may still be known: it was listed. The next sync sees it gone.
    world.calm(&["user.removed u05 (not_found)"]).await;
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_dropped_from_one_page_is_found_by_its_id_and_stays() {
    let mut world = HostileWorld::baseline(7).await;
    for left_out in ["u00", "u04", "u06"] {
        let script = [on(USERS).then(Effect::LeaveOut(vec![left_out.into()]))];
        let status = world.publishes(script, &[]).await;
        assert_eq!(status.hidden, 1);
        let asked = world.server.requests_for(USER);
        assert_eq!(asked.len(), 2, "{left_out} and a control");
    }
    world.calm(&[]).await;
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_removes_no_user_in_any_of_its_forms() {
    let mut world = HostileWorld::baseline(7).await;
    let all = |kind: &str, count: usize| (0..count).map(|n| format!("{kind}{n:02}")).collect::<Vec<_>>();
    for list in [USERS, GROUPS] {
        let ids = if list == USERS { all("u", 7) } else { vec!["g1".to_owned(), "g2".to_owned()] };
        let empty = on(list).then(Effect::LeaveOut(ids));
        let absent = empty.clone().then(Effect::field("Resources", json!(null)));
        // One by one they answer: the list is wrong.
        world.fails([empty.clone()], "list_incomplete").await;
        world.fails([absent], "list_incomplete").await;
        // One by one they do not answer either: the removal is held until a person looks.
        let one = if list == USERS { USER } else { super::script::GROUP };
        for status in [404, 403, 500] {
            let script = [empty.clone(), on(one).then(Effect::Status(status))];
            world.server.script(script);
            let held = world.sync().await;
            assert_eq!(
                (held.status, held.reason_code.as_ref().map(ReasonCode::as_str)),
                (Status::Held, Some("mass_change"))
            );
            assert_eq!(world.lines(), [""; 0]);
        }
    }
    let status = world.calm(&[]).await;
    assert_eq!(status.hold, None, "a directory that recovers drops the hold");
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_half_of_the_users_missing_is_held_or_fails() {
    let mut world = HostileWorld::baseline(20).await;
    let most: Vec<String> = (0..12).map(|n| format!("u{n:02}")).collect();
    let missing = on(USERS).then(Effect::LeaveOut(most));
    world.fails([missing.clone()], "list_incomplete").await;
    assert!(world.server.requests_for(USER).len() <= 20, "a sample is enough");
    // GET finds no user, not even a listed one: absence is the rule, and the third walk would remove them.
    for (status, outcome) in [(404, Status::Completed), (410, Status::Completed), (404, Status::Held)] {
        world.server.script([missing.clone(), on(USER).then(Effect::Status(status))]);
        let counted = world.sync().await;
        assert_eq!(counted.status, outcome, "{:?}", counted.reason);
        assert_eq!(world.lines(), [""; 0]);
        if outcome == Status::Held {
            assert!(counted.hold.unwrap().to_string().ends_with("-u12-g0-m0-d0-a0"));
        } else {
            assert_eq!(counted.removals_suppressed, 12);
        }
    }
    world.calm(&[]).await;
}

/// A GET that says 404 for every user, 200 with another user, 200 with nonsense, or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_proves_nothing_removes_no_user() {
    let mut world = HostileWorld::baseline(12).await;
    let missing = on(USERS).then(Effect::LeaveOut(vec!["u05".into()])).then(Effect::field("totalResults", json!(11)));
    let answers = [
        vec![Effect::Status(404)],
        vec![Effect::Status(410)],
        vec![Effect::Status(400)],
        vec![Effect::Status(401)],
        vec![Effect::Status(403)],
        vec![Effect::Status(405)],
        vec![Effect::Status(429)],
        vec![Effect::Status(500)],
        vec![Effect::Status(501)],
        Effect::redirect(302, "/login").to_vec(),
        vec![Effect::body(json!({ "id": "u11", "userName": "somebody else" }).to_string())],
        vec![Effect::body("{}")],
        vec![Effect::body("null")],
        vec![Effect::body("<html>Sign in</html>")],
        vec![Effect::body(r#"{"id":"u05","id":"u06"}"#)],
        vec![Effect::body(r#"{"totalResults":0}"#)],
        vec![Effect::Deliver(super::script::Delivery::Reset(None))],
        vec![Effect::Deliver(super::script::Delivery::Cut(3))],
    ];
    for answer in answers {
        let mut rule = on(USER);
        rule.effects = answer;
        let status = world.publishes([missing.clone(), rule], &[]).await;
        assert_eq!(status.removals_suppressed, 1);
        assert!(world.server.requests_for(USER).len() <= 2 * TRIES);
        // It is listed again: no two of these add up to an absence.
        world.calm(&[]).await;
    }
    // And one that answers 404 for it, but a control with something else.
    let silent_control = on(USER).id("u00").then(Effect::Status(500));
    world.publishes([missing, silent_control, on(USER).id("u05").then(Effect::Status(404))], &[]).await;
    world.calm(&[]).await;
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_removed_and_created_again_is_two_users() {
    let mut world = HostileWorld::baseline(7).await;
    world.server.change(|truth| {
        truth.users.remove("u05");
        truth.users.insert("n05".into(), json!({ "id": "n05", "userName": "name5", "active": true, "title": "T" }));
    });
    world.calm(&["user.added n05", "user.removed u05 (not_found)"]).await;
    // And one that came back under its old id.
    world.server.change(|truth| drop(truth.users.remove("n05")));
    world.calm(&["user.removed n05 (not_found)"]).await;
    world.server.change(|truth| {
        truth.users.insert("n05".into(), json!({ "id": "n05", "userName": "name5", "active": true, "title": "T" }));
    });
    world.calm(&["user.added n05"]).await;
    world.assert_state_is_the_truth();
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_that_change_between_the_lists_are_right_after_the_next_sync() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    // Between the users' list and the groups' a member is created, another one deleted.
    let change = Effect::afterwards(|truth| {
        truth.users.insert("late".into(), json!({ "id": "late", "userName": "late" }));
        truth.users.remove("u02");
        truth.groups.get_mut("g1").unwrap()["members"] =
            json!([{ "value": "u00" }, { "value": "late" }, { "value": "u02" }]);
    });
    world.server.script([on(USERS).walk(1).page(4).then(change)]);
    world.completed().await;
    assert!(!world.lines().iter().any(|line| line.contains("removed u02")), "{:?}", world.lines());
    world.server.script([]);
    world.completed().await;
    world.assert_state_is_the_truth();
    world.calm(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_may_not_be_read_leave_memberships_as_they_were() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for status in [401, 403] {
        world.fails([on(GROUPS).then(Effect::Status(status))], "credentials_refused").await;
    }
    // Suddenly no group shows a member, and none of them may be asked.
    world.world.account_mut().habits.empty_members_are_none = false;
    world.server.change(|truth| truth.habits.members_in_list = false);
    let status = world.publishes([on(super::script::GROUP).then(Effect::Status(403))], HISTORY).await;
    assert_eq!(status.memberships_read, None);
}
