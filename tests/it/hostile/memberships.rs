//! Five ways to read memberships, each with a server that serves them in no other way, and one server that gives wrong
//! answers.

use serde_json::json;

use super::script::{Effect, GROUP, Target, USERS, on};
use super::truth::{Habits, Truth};
use super::world::HostileWorld;
use scimtail::directory::{Kind, Status};

const USERS_BY_GROUP: Target = Target::Filtered(Kind::User);
const GROUPS_BY_MEMBER: Target = Target::Filtered(Kind::Group);

fn directory(habits: Habits) -> Truth {
    Truth { habits, ..super::world::directory(7) }
}

/// Shows members nowhere.
fn silent() -> Habits {
    Habits { members_in_list: false, members_in_get: false, ..Habits::default() }
}

async fn baseline(overrides: &str, habits: Habits) -> HostileWorld {
    let mut world = HostileWorld::new(directory(habits), overrides).await;
    let status = world.completed().await;
    assert_eq!(status.memberships_read, Some(4), "{overrides}");
    world.assert_state_is_the_truth();
    world
}

fn move_a_user(world: &HostileWorld) {
    world.server.change(|truth| {
        truth.groups.get_mut("g1").unwrap()["members"] =
            json!([{ "value": "u00" }, { "value": "u01" }, { "value": "u06" }]);
    });
}

const MOVED: &[&str] = &["membership.removed u02 in g1 (not_listed)", "membership.added u06 in g1"];

#[tokio::test(flavor = "multi_thread")]
async fn memberships_are_read_in_the_way_the_profile_names() {
    let get = Habits { members_in_list: false, ..Habits::default() };
    let on_users = Habits { groups_on_users: true, ..silent() };
    for (strategy, habits) in [
        ("list", Habits::default()),
        ("get", get),
        ("groups_filter", silent()),
        ("members_filter", silent()),
        ("user", on_users),
    ] {
        let mut world = baseline(&format!("memberships = \"{strategy}\""), habits).await;
        move_a_user(&world);
        world.calm(MOVED).await;
        world.assert_state_is_the_truth();
        world.calm(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_vendor_shows_no_memberships_none_are_published_and_none_removed() {
    let mut world = HostileWorld::new(directory(silent()), "memberships = \"never\"").await;
    let status = world.completed().await;
    assert_eq!(status.memberships_read, None);
    move_a_user(&world);
    world.calm(&[]).await;
    assert!(!world.server.requests().iter().any(|request| request.parameters.contains_key("filter")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_for_members_that_fails_leaves_memberships_as_they_were() {
    let get = Habits { members_in_list: false, ..Habits::default() };
    for (strategy, habits, target) in [
        ("get", get, GROUP),
        ("groups_filter", silent(), USERS_BY_GROUP),
        ("members_filter", silent(), GROUPS_BY_MEMBER),
    ] {
        let mut world = baseline(&format!("memberships = \"{strategy}\""), habits).await;
        for effect in [
            Effect::Status(500),
            Effect::Status(403),
            Effect::Status(404),
            Effect::ScimError("invalidFilter"),
            Effect::body("<html>Sign in</html>"),
            Effect::body("{}"),
            Effect::Deliver(super::script::Delivery::Reset(None)),
        ] {
            world.server.script([on(target).then(effect.clone())]);
            world.sync().await;
            assert_eq!(world.lines(), [""; 0], "{strategy} {effect:?}");
        }
        move_a_user(&world);
        world.calm(MOVED).await;
    }
}

/// One of seven servers ignores filters and answers with all users; another finds none and does not say that it can't.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_finds_every_user_fails_and_one_that_finds_none_is_left_to_the_guard() {
    for (strategy, target) in [("groups_filter", USERS_BY_GROUP), ("members_filter", GROUPS_BY_MEMBER)] {
        let mut world = baseline(&format!("memberships = \"{strategy}\""), silent()).await;
        world.server.change(|truth| truth.habits.filters = false);
        world.server.script([]);
        world.sync().await;
        assert_eq!(world.lines(), [""; 0], "{strategy}: all users");
        world.server.change(|truth| truth.habits.filters = true);
        let nobody = Effect::edit(|body| {
            body["Resources"] = json!([]);
            body["totalResults"] = json!(0);
        });
        world.server.script([on(target).then(nobody)]);
        // Four of four memberships: below the number from which losses are held, unless the account says otherwise.
        world.world.account_mut().limits.min_losses = 1;
        let status = world.sync().await;
        assert_eq!(status.status, Status::Held, "{strategy}");
        assert_eq!(world.lines(), [""; 0], "{strategy}: no users");
        world.calm(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_list_exactly_as_long_as_a_known_cap_is_unknown() {
    let mut world = HostileWorld::new(directory(Habits::default()), "member_cap = 3").await;
    let status = world.completed().await;
    assert_eq!((status.memberships_read, status.memberships_as_of), (None, None), "g1 has as many as the cap");
    // Three of three: a user that is not among them may still be a member.
    world.server.change(|truth| {
        let members = json!([{ "value": "u03" }, { "value": "u04" }, { "value": "u05" }]);
        truth.groups.get_mut("g1").unwrap()["members"] = members;
    });
    world.server.script([]);
    world.completed().await;
    assert!(!world.lines().iter().any(|line| line.contains("removed")), "{:?}", world.lines());
    // Two of three: the others are not members.
    world.server.change(|truth| {
        truth.groups.get_mut("g1").unwrap()["members"] = json!([{ "value": "u03" }, { "value": "u00" }])
    });
    world.server.script([]);
    world.completed().await;
    assert!(world.lines().iter().any(|line| line.starts_with("membership.removed u01")), "{:?}", world.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_read_by_get_keeps_a_user_missed_by_paging_as_a_member() {
    let get = Habits { members_in_list: false, ..Habits::default() };
    let mut world = baseline("memberships = \"get\"", get).await;
    world.publishes([on(USERS).then(Effect::LeaveOut(vec!["u01".into()]))], &[]).await;
    world.calm(&[]).await;
}
