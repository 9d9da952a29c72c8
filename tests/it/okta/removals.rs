//! What proves that a person or group is gone, and what holds.

use scimtail::directory::Status;

use super::world::OktaWorld;
use crate::memory::advance;

fn org(users: usize) -> String {
    let users = (0..users).map(|number| format!("user 00u{number:02} name{number} ACTIVE\n"));
    users.chain(["group 00g1 OKTA_GROUP Team: 00u00 00u01\ngroup 00g2 OKTA_GROUP Others: 00u00\n".to_owned()]).collect()
}

#[tokio::test]
async fn a_person_or_group_that_a_list_leaves_out_is_found_by_id_and_stays() {
    let mut world = OktaWorld::baseline(&org(9)).await;
    world.okta.faults(|faults| faults.unlisted.extend(["00u05", "00g1"].map(str::to_owned)));
    world.publishes(&[]).await;
    world.okta.faults(|faults| faults.unlisted.clear());
    world.publishes(&[]).await;
}

#[tokio::test]
async fn an_answer_that_is_not_a_404_proves_no_removal() {
    let mut world = OktaWorld::baseline(&org(9)).await;
    world.okta.change(|org| org.delete_user("00u05"));
    for status in [500, 429] {
        world.okta.faults(|faults| faults.get_status = Some(status));
        let status = world.publishes(&[]).await;
        assert_eq!(status.removals_suppressed, 1);
    }
    world.okta.faults(|faults| faults.get_status = None);
    world.publishes(&["user.removed 00u05 (not_found)"]).await;
}

#[tokio::test]
async fn a_server_that_answers_404_to_every_id_proves_nothing_by_it() {
    let mut world = OktaWorld::baseline(&org(9)).await;
    world.okta.faults(|faults| {
        faults.get_status = Some(404);
        faults.unlisted.insert("00u05".to_owned());
    });
    world.publishes(&[]).await;
    world.okta.faults(|faults| {
        faults.get_status = None;
        faults.unlisted.clear();
    });
    world.publishes(&[]).await;
}

#[tokio::test]
async fn a_mass_change_is_held_and_a_list_that_recovers_drops_the_hold() {
    let mut world = OktaWorld::baseline(&org(20)).await;
    world.okta.change(|org| (10..20).for_each(|number| org.delete_user(&format!("00u{number}"))));
    let held = world.sync().await;
    assert_eq!((held.status, world.world.lines(0).len()), (Status::Held, 0), "{:?}", held.reason);
    world.okta.change(|org| {
        (10..20).for_each(|number| org.add_user(&format!("00u{number}"), &format!("name{number}"), "ACTIVE"))
    });
    world.publishes(&[]).await;
}

#[tokio::test]
async fn a_list_that_leaves_out_many_who_are_there_fails_and_removes_none() {
    let mut world = OktaWorld::baseline(&org(20)).await;
    world.okta.faults(|faults| faults.unlisted.extend((10..20).map(|number| format!("00u{number}"))));
    world.fails("the list is incomplete").await;
    world.okta.faults(|faults| faults.unlisted.clear());
    world.publishes(&[]).await;
}

#[tokio::test]
async fn many_who_are_deactivated_at_once_are_held_too() {
    let mut world = OktaWorld::baseline(&org(20)).await;
    world.okta.change(|org| (10..20).for_each(|number| org.set_status(&format!("00u{number}"), "DEPROVISIONED")));
    assert_eq!(world.sync().await.status, Status::Held);
}

#[tokio::test]
async fn a_member_that_one_answer_leaves_out_is_not_removed() {
    let mut world = OktaWorld::baseline(&org(9)).await;
    world.okta.change(|org| org.join("00g1", "00u02"));
    world.publishes(&["membership.added 00u02 in 00g1"]).await;
    // The list of members lags behind in the walk, and shows the member when the group is asked for again.
    leave_out(&world, "x", Some(1));
    world.publishes(&[]).await;
    leave_out(&world, "y", None);
    world.publishes(&["membership.removed 00u02 in 00g1 (not_listed)"]).await;
}

#[tokio::test]
async fn a_known_group_that_is_not_read_any_more_is_not_removed_while_a_list_shows_it() {
    let groups = "user 00u1 ann ACTIVE\ngroup 00g1 OKTA_GROUP One: 00u1\ngroup 00g2 OKTA_GROUP Two: 00u1\n";
    let mut world = OktaWorld::baseline(groups).await;
    world.read_groups(Some(&["One"]));
    world.okta.faults(|faults| faults.not_found_by_id = Some("00g2".to_owned()));
    for _ in 0..4 {
        advance(86_400_000);
        world.publishes(&[]).await;
    }
}

/// Lists of the members of a group leave one out: so many of them, or all. Another description has them read again.
fn leave_out(world: &OktaWorld, description: &str, answers: Option<usize>) {
    let description = description.into();
    world.okta.change(|org| org.groups.get_mut("00g1").expect("a group").row["profile"]["description"] = description);
    world.okta.faults(|faults| {
        faults.unlisted_members.extend(["00u02".to_owned()]);
        faults.unlisted_members_in = answers;
    });
}

/// A role, a gateway or a replica may hide what the list shows.
#[tokio::test]
async fn a_group_that_a_list_shows_is_never_removed_whatever_get_says() {
    let mut world = OktaWorld::baseline(
        "user 00u1 ann ACTIVE
group 00g1 OKTA_GROUP One: 00u1
group 00g2 OKTA_GROUP Two: 00u1
group 00g3 OKTA_GROUP Three: 00u1
",
    )
    .await;
    world.okta.faults(|faults| faults.not_found_by_id = Some("00g3".to_owned()));
    for _ in 0..4 {
        advance(86_400_000);
        let status = world.publishes(&[]).await;
        assert!(status.findings.iter().any(|finding| finding.contains("00g3 (all but its id)")), "{status:?}");
    }
    world.okta.faults(|faults| faults.not_found_by_id = None);
    world.publishes(&[]).await;
    world.okta.change(|org| org.groups.remove("00g3"));
    world.publishes(&["membership.removed 00u1 in 00g3 (not_found)", "group.removed 00g3 (not_found)"]).await;
}
