//! Groups and their members: which are read, how large they may be, and what need not be read again.

use scimtail::directory::{Kind, Status};

use super::org::Org;
use super::world::OktaWorld;
use crate::memory::advance;

const ORG: &str = "
    user 00u1 ann ACTIVE
    user 00u2 bob ACTIVE
    user 00u3 cyd ACTIVE
    user 00u4 dan ACTIVE
    group 00g0 BUILT_IN Everyone: 00u1 00u2 00u3 00u4
    group 00g1 OKTA_GROUP CB/acme.com/ROLE/Admin: 00u1 00u2
    group 00g2 OKTA_GROUP CB/acme.com/BE/Europe/West: 00u3
    group 00g3 APP_GROUP Finance: 00u4
";
const DAY: i64 = 86_400_000;

fn members_read(asked: &[String]) -> usize {
    asked.iter().filter(|path| path.ends_with("/users") && path.contains("/groups/")).count()
}

#[tokio::test]
async fn only_groups_of_these_names_are_read_and_published() {
    let mut world = OktaWorld::baseline_with(ORG, "", Some(&["CB/*"])).await;
    assert_eq!(members_read(&world.okta.asked()), 2);
    assert_eq!(world.world.known.table(Kind::Group).len(), 2);
    world.okta.change(|org| {
        org.join("00g3", "00u1");
        org.join("00g1", "00u4");
    });
    world.publishes(&["membership.added 00u4 in 00g1"]).await;
}

#[tokio::test]
async fn thousands_of_other_groups_end_nothing() {
    let mut org = Org::parse(ORG);
    (0..1_200).for_each(|number| org.add_group(&format!("00g-{number:05}"), "OKTA_GROUP", "other", &[]));
    let mut world = OktaWorld::new(org, "page_size = 10", Some(&["CB/*"])).await;
    world.publishes(&[]).await;
    assert_eq!(world.world.known.table(Kind::Group).len(), 2);
}

#[tokio::test]
async fn a_group_that_is_renamed_out_of_the_selection_is_an_update() {
    let mut world = OktaWorld::baseline_with(ORG, "", Some(&["CB/*"])).await;
    world.okta.change(|org| org.rename("00g1", "Archive"));
    let name = "displayName \"CB/acme.com/ROLE/Admin\" → \"Archive\"";
    let entitlement =
        "entitlement_domain \"acme.com\" → none entitlement_kind \"role\" → none entitlement_name \"Admin\" → none";
    world.publishes(&[&format!("group.updated 00g1 {name} {entitlement}")]).await;
    world.publishes(&[]).await;
    world.okta.change(|org| org.rename("00g1", "CB/acme.com/ROLE/Admin"));
    let name = "displayName \"Archive\" → \"CB/acme.com/ROLE/Admin\"";
    let entitlement =
        "entitlement_domain none → \"acme.com\" entitlement_kind none → \"role\" entitlement_name none → \"Admin\"";
    world.publishes(&[&format!("group.updated 00g1 {name} {entitlement}")]).await;
}

#[tokio::test]
async fn after_a_narrower_selection_no_group_is_called_removed_and_the_account_goes_on() {
    let groups: String = (1..40).map(|number| format!("group 00g{number} OKTA_GROUP Team {number}: 00u1\n")).collect();
    let org = format!("user 00u1 ann ACTIVE\nuser 00u2 bob ACTIVE\n{groups}");
    for proof in ["", "removal_proof = \"absence\""] {
        let mut world = OktaWorld::baseline_with(&org, proof, None).await;
        for names in [&["Team 1*"][..], &["nothing"]] {
            world.read_groups(Some(names));
            for _ in 0..4 {
                advance(DAY);
                world.publishes(&[]).await;
                assert_eq!(world.world.known.table(Kind::Group).len(), 39, "{names:?} {proof}");
            }
        }
        world.okta.change(|org| org.set_status("00u2", "SUSPENDED"));
        let status = "user.updated 00u2 status \"ACTIVE\" → \"SUSPENDED\"";
        world.publishes(&[status, "user.disabled 00u2 active true → false"]).await;
        // One that is really gone is in no list, and is asked for once a day, as others that no list shows.
        world.okta.change(|org| org.groups.remove("00g7"));
        if proof.is_empty() {
            advance(DAY);
            world.publishes(&["membership.removed 00u1 in 00g7 (not_found)", "group.removed 00g7 (not_found)"]).await;
        }
        world.read_groups(None);
        let status = world.sync().await;
        assert_eq!(status.status, Status::Completed, "{status:?}");
        assert!(!world.world.lines(0).iter().any(|line| line.contains("added")), "{:?}", world.world.lines(0));
    }
}

/// It goes on as the selection did not name it in the first place, but for what it is called.
#[tokio::test]
async fn of_known_groups_that_are_not_read_any_more_the_members_are_followed_once_a_day() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.read_groups(Some(&["CB/acme.com/BE/*"]));
    world.publishes(&[]).await;
    world.okta.change(|org| org.leave("00g1", "00u2"));
    advance(DAY);
    world.publishes(&["membership.removed 00u2 in 00g1 (not_listed)"]).await;
    // Its last member: Okta's own list of members is empty.
    world.okta.change(|org| org.leave("00g1", "00u1"));
    advance(DAY);
    world.publishes(&["membership.removed 00u1 in 00g1 (not_listed)"]).await;
    assert_eq!(world.world.known.completed.as_ref().and_then(|completed| completed.memberships_read), Some(2));
}

#[tokio::test]
async fn pages_of_groups_that_lead_to_each_other_for_ever_end_although_none_of_them_is_read() {
    let mut world = OktaWorld::baseline_with(ORG, "", Some(&["nothing"])).await;
    world.okta.faults(|faults| faults.endless_groups = true);
    drop(world.okta.asked());
    world.fails("Groups: cursor after cursor is offered without a new row").await;
    assert!(world.okta.asked().len() < 300);
}

#[tokio::test]
async fn members_of_a_group_that_did_not_change_are_read_once_a_day() {
    let mut world = OktaWorld::baseline(ORG).await;
    assert_eq!(members_read(&world.okta.asked()), 3);
    world.publishes(&[]).await;
    assert_eq!(members_read(&world.okta.asked()), 0);
    world.okta.change(|org| org.join("00g1", "00u3"));
    world.publishes(&["membership.added 00u3 in 00g1"]).await;
    assert_eq!(members_read(&world.okta.asked()), 1);
    // What changed just now may be shown in part only: it is read again until that has passed.
    world.publishes(&[]).await;
    assert_eq!(members_read(&world.okta.asked()), 1);
    advance(DAY);
    world.publishes(&[]).await;
    assert_eq!(members_read(&world.okta.asked()), 3);
}

#[tokio::test]
async fn a_change_of_members_that_the_group_does_not_state_is_found_within_a_day() {
    let mut world = OktaWorld::baseline(ORG).await;
    assert!(world.okta.change(|org| org.groups.get_mut("00g1").expect("a group").members.remove("00u2")));
    world.publishes(&[]).await;
    assert_eq!(world.world.known.members("00g1").map(|members| members.len()), Some(2), "nothing is concluded");
    advance(DAY);
    world.publishes(&["membership.removed 00u2 in 00g1 (not_listed)"]).await;
}

/// The sync keeps no hash of a row that it cannot read whole, and so never recognises it.
#[tokio::test]
async fn a_group_that_cannot_be_read_whole_takes_nothing_from_the_saving_of_the_others() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.change(|org| org.groups.get_mut("00g3").expect("a group").row["profile"] = "none".into());
    let lists = |asked: &[String]| asked.iter().filter(|path| *path == "/api/v1/groups").count();
    for (sync, expected) in [(1, (1, 1)), (2, (2, 3)), (3, (1, 1)), (4, (1, 1))] {
        drop(world.okta.asked());
        let status = world.publishes(&[]).await;
        assert!(status.findings.iter().any(|finding| finding.contains("00g3")), "{:?}", status.findings);
        let asked = world.okta.asked();
        assert_eq!((lists(&asked), members_read(&asked)), expected, "sync {sync}: {asked:#?}");
    }
}

#[tokio::test]
async fn after_a_restart_all_members_are_read() {
    let mut world = OktaWorld::baseline(ORG).await;
    drop(world.okta.asked());
    world.world.restart();
    world.publishes(&[]).await;
    assert_eq!(members_read(&world.okta.asked()), 3, "the rows are not recognised any more");
}

#[tokio::test]
async fn members_that_cannot_be_read_stay_as_last_seen_and_other_groups_are_read() {
    let mut world = OktaWorld::baseline_with(ORG, "full_members_every = \"1s\"", None).await;
    advance(DAY);
    world.okta.faults(|faults| faults.broken_group = Some("00g1".to_owned()));
    world.okta.change(|org| {
        org.join("00g2", "00u4");
        org.leave("00g1", "00u1");
    });
    let status = world.publishes(&["membership.added 00u4 in 00g2"]).await;
    assert!(status.findings.iter().any(|finding| finding.contains("00g1 (members)")), "{:?}", status.findings);
    world.okta.faults(|faults| faults.broken_group = None);
    world.publishes(&["membership.removed 00u1 in 00g1 (not_listed)"]).await;
}

/// A role or a gateway may show a group and not its members.
#[tokio::test]
async fn a_group_whose_members_are_not_found_stays_with_its_members_if_the_group_itself_is_found() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.faults(|faults| faults.hidden_members_of = Some("00g1".to_owned()));
    advance(DAY);
    let status = world.publishes(&[]).await;
    assert!(status.findings.iter().any(|finding| finding.contains("00g1 (members)")), "{:?}", status.findings);
    world.okta.faults(|faults| faults.hidden_members_of = None);
    world.publishes(&[]).await;
}

#[tokio::test]
async fn pages_of_members_that_lead_to_each_other_for_ever_fail_the_sync() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.faults(|faults| faults.endless_members = true);
    advance(DAY);
    drop(world.okta.asked());
    world.fails("page after page of a group's members brings no new one").await;
    assert!(members_read(&world.okta.asked()) <= 3 * 101);
    world.okta.faults(|faults| faults.endless_members = false);
    world.publishes(&[]).await;
}

#[tokio::test]
async fn a_group_of_fifty_thousand_members_is_read_whole_and_one_change_in_it_is_one_event() {
    let mut org = Org::default();
    let ids: Vec<String> = (0..50_000).map(|number| format!("00u{number:06}")).collect();
    ids.iter().take(20).for_each(|id| org.add_user(id, id, "ACTIVE"));
    org.add_user("00u999999", "last", "ACTIVE");
    org.add_group("00g1", "OKTA_GROUP", "Large", &ids.iter().map(String::as_str).collect::<Vec<_>>());
    // The others are members that no list shows: a directory of fifty thousand people would only make the test longer.
    let mut world = OktaWorld::new(org, "rate_limits = []", None).await;
    world.publishes(&[]).await;
    assert_eq!(members_read(&world.okta.asked()), 250);
    assert_eq!(world.world.known.members("00g1").map(|members| members.len()), Some(20));
    world.okta.change(|org| org.join("00g1", "00u999999"));
    world.publishes(&["membership.added 00u999999 in 00g1"]).await;
}
