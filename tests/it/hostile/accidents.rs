//! Failures of other directory-sync tools, as described in their issue trackers, replayed against the real client and
//! the real sync. Each test names its source; README has them as a table.

use scimtail::directory::{ReasonCode, Status, SyncStatus};
use serde_json::json;

use super::script::{Effect, GROUPS, Rule, USERS, on};
use super::world::{HostileWorld, directory};
use scimtail::avro::wire::ControlRequest;
use scimtail::control::{self, Request};

use crate::memory::World;

async fn release(world: &mut World, status: &SyncStatus) {
    let latest = world.known.latest.as_ref().expect("an attempt");
    let content = ControlRequest {
        account: "acme".into(),
        action: "release".into(),
        hold_id: status.hold.as_ref().map(ToString::to_string),
        requested_by: "a person".into(),
        ..ControlRequest::default()
    };
    let request = Request { offset: latest.control_offset, content };
    let (status, _) = control::apply(&world.known, &request).expect("the request is new");
    world.record_latest(status).await.unwrap();
}

/// A list that ends early and claims to be whole: so many rows, and a total to match.
fn only(count: usize) -> Rule {
    let left_out = (count..1_000).map(|n| format!("u{n:02}")).collect();
    on(USERS).then(Effect::LeaveOut(left_out)).then(Effect::field("totalResults", json!(count)))
}

/// lithnet/googleapps-managementagent#78: a full import read 400 of 56,726 groups without an error, and 56,326 were
/// deleted; the next imports brought them back.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_list_that_calls_itself_whole_removes_no_user_and_makes_no_storm() {
    let mut world = HostileWorld::baseline(60).await;
    world.fails([only(4)], "list_incomplete").await;
    world.calm(&[]).await;
    // Also where GET by id cannot tell: then a person has to look.
    world.server.script([only(4), on(super::script::USER).then(Effect::Status(500))]);
    assert_eq!(world.sync().await.status, Status::Held);
    world.calm(&[]).await;
}

/// opnsense/core#10129: a cleanup job took an unreachable server for an empty one, and 43 users lost their access.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_not_an_empty_one() {
    let mut world = HostileWorld::baseline(43).await;
    world.fails([on(USERS).then(Effect::Status(503))], "unavailable").await;
    let empty = Effect::edit(|body| {
        body["Resources"] = json!([]);
        body["totalResults"] = json!(0);
    });
    world.fails([on(USERS).then(empty.clone())], "list_incomplete").await;
    world.server.script([on(USERS).then(empty), on(super::script::USER).then(Effect::Status(503))]);
    assert_eq!(world.sync().await.status, Status::Held);
    world.calm(&[]).await;
}

/// simstudioai/sim#6757: listings that turned a failure into a short or empty answer fed the deletion of everything that
/// they did not show.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_empty_in_the_middle_removes_no_user_behind_it() {
    let mut world = HostileWorld::baseline(60).await;
    for empty in [json!([]), json!(null)] {
        let middle = on(USERS).page(2).then(Effect::field("Resources", empty));
        world.server.script([middle, on(super::script::USER).then(Effect::Status(500))]);
        let status = world.sync().await;
        assert_eq!(
            (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
            (Status::Failed, Some("walk_incomplete"))
        );
    }
    world.calm(&[]).await;
}

/// bitwarden/directory-connector#107, the other way round: the last user really left, the answer was rightly empty, and
/// was ignored. The user kept the access.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_user_who_really_leaves_is_held_and_removed_once_a_person_has_looked() {
    let mut world = HostileWorld::baseline(1).await;
    world.server.change(|truth| truth.users.clear());
    world.server.script([]);
    let status = world.sync().await;
    assert_eq!(status.status, Status::Held, "{:?}", status.reason);
    release(&mut world.world, &status).await;
    world.completed().await;
    let removed: Vec<String> = world.lines().into_iter().filter(|line| line.starts_with("user.removed")).collect();
    assert_eq!(removed, ["user.removed u00 (not_found)"]);
}

/// slashdevops/idp-scim-sync#70: after minutes of HTTP 502 a subset of the groups was answered with 200; the others were
/// deleted and came back with new ids. Once it was one group alone, which no threshold sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_subset_of_the_groups_after_an_outage_removes_no_group_not_even_one() {
    let mut world = HostileWorld::baseline(7).await;
    let before = world.world.log.state();
    for _ in 0..3 {
        world.fails([on(GROUPS).then(Effect::Status(502))], "unavailable").await;
    }
    let subset = |ids: &[&str], total: usize| {
        let left_out = ids.iter().map(ToString::to_string).collect();
        on(GROUPS).then(Effect::LeaveOut(left_out)).then(Effect::field("totalResults", json!(total)))
    };
    let status = world.publishes([subset(&["g1"], 1)], &[]).await;
    assert_eq!(status.groups_read, Some(2), "GET finds the one that the list leaves out");
    world.server.script([subset(&["g1", "g2"], 0)]);
    world.sync().await;
    world.calm(&[]).await;
    let keys = |state: &std::collections::BTreeMap<_, Vec<u8>>| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&world.world.log.state()), keys(&before));
}

/// joe-broadhead/open-cowork#909 (and grafana/grafana#73834, where those beyond the first 500 were disabled): only the
/// first 500 were read, and changes beyond them were not seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_beyond_the_first_five_hundred_is_seen() {
    let mut world = HostileWorld::new(directory(1_200), "page_size = 1000").await;
    let capped = || [on(USERS).then(Effect::Cap(500))];
    world.publishes(capped(), &[]).await;
    world.server.change(|truth| {
        truth.users.get_mut("u1150").expect("a user")["active"] = json!(false);
        truth.users.remove("u1160");
    });
    let events = ["user.disabled u1150 active true → false", "user.removed u1160 (not_found)"];
    world.publishes(capped(), &events).await;
}

/// bbvch-ai/aihub-core#1525: a SCIM client read the first page of 20 of 43 users, and removed the others from their groups.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_twenty_whatever_is_asked_for_is_read_to_its_end() {
    let mut world = HostileWorld::new(directory(43), "page_size = 100").await;
    for _ in 0..2 {
        let status = world.publishes([on(USERS).then(Effect::Cap(20))], &[]).await;
        assert_eq!((status.users_read, status.memberships_read), (Some(43), Some(4)));
    }
}

/// awslabs/ssosync#268: the list of groups came back empty while that of users was whole, and every group was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_of_groups_beside_a_full_one_of_users_removes_no_group() {
    let mut world = HostileWorld::baseline(7).await;
    let empty = Effect::edit(|body| {
        body["Resources"] = json!([]);
        body["totalResults"] = json!(0);
    });
    world.fails([on(GROUPS).then(empty.clone())], "list_incomplete").await;
    world.server.script([on(GROUPS).then(empty), on(super::script::GROUP).then(Effect::Status(404))]);
    assert_eq!(world.sync().await.status, Status::Held);
    world.calm(&[]).await;
}

/// go-gitea/gitea#4402: a search that ran into its time limit was taken for its result, and the others were deactivated.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_half_way_is_not_used_to_remove_anybody() {
    let mut world = HostileWorld::baseline(43).await;
    for status in [408, 500, 504] {
        let code = if status == 408 { "http_status" } else { "unavailable" };
        world.fails([on(USERS).page(3).then(Effect::Status(status))], code).await;
    }
    world.calm(&[]).await;
}
