//! What a sync makes of each change at Okta.

use scimtail::directory::Kind;
use serde_json::json;

use super::world::OktaWorld;

const ORG: &str = "
    user 00u1 ann ACTIVE title=Lead department=Finance
    user 00u2 bob ACTIVE
    user 00u3 cyd ACTIVE
    group 00g0 BUILT_IN Everyone: 00u1 00u2 00u3
    group 00g1 OKTA_GROUP CB/acme.com/ROLE/Admin: 00u1
    group 00g2 APP_GROUP Finance: 00u1 00u2
";

#[tokio::test]
async fn the_baseline_has_people_of_every_status_and_groups_with_their_members() {
    let statuses = [
        ("ACTIVE", true),
        ("PASSWORD_EXPIRED", true),
        ("RECOVERY", true),
        ("LOCKED_OUT", true),
        ("PROVISIONED", true),
        ("STAGED", false),
        ("SUSPENDED", false),
        ("DEPROVISIONED", false),
    ];
    let lines =
        statuses.iter().enumerate().map(|(number, (status, _))| format!("user 00u{number} name{number} {status}\n"));
    let org: String = lines.chain(["group 00g1 OKTA_GROUP Team: 00u0 00u6\n".to_owned()]).collect();
    let mut world = OktaWorld::baseline(&org).await;
    for (number, (status, active)) in statuses.iter().enumerate() {
        let user = world.known(Kind::User, &format!("00u{number}"));
        assert_eq!((user.active, user.attributes["status"].as_str()), (Some(*active), &*format!("\"{status}\"")));
        let login = format!("name{number}@acme.example");
        assert_eq!((user.user_name.as_deref(), user.email.as_deref()), (Some(&*login), Some(&*login)));
        assert_eq!(user.display_name.as_deref(), Some(&*format!("name{number} Tester")));
    }
    let group = world.known(Kind::Group, "00g1");
    assert_eq!((group.display_name.as_deref(), group.attributes["type"].as_str()), (Some("Team"), "\"OKTA_GROUP\""));
    assert_eq!(world.world.known.members("00g1").map(|members| members.len()), Some(2));
    world.publishes(&[]).await;
}

#[tokio::test]
async fn each_change_of_a_person_is_one_event() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.change(|org| org.user("00u1")["profile"]["title"] = json!("Head"));
    world.publishes(&["user.updated 00u1 title \"Lead\" → \"Head\""]).await;
    world.okta.change(|org| org.user("00u1")["lastLogin"] = json!("2024-01-01T00:00:00.000Z"));
    world.publishes(&[]).await;
    world.okta.change(|org| org.set_status("00u1", "LOCKED_OUT"));
    world.publishes(&["user.updated 00u1 status \"ACTIVE\" → \"LOCKED_OUT\""]).await;
    world.okta.change(|org| org.set_status("00u1", "SUSPENDED"));
    world
        .publishes(&[
            "user.updated 00u1 status \"LOCKED_OUT\" → \"SUSPENDED\"",
            "user.disabled 00u1 active true → false",
        ])
        .await;
    world.okta.change(|org| org.set_status("00u1", "ACTIVE"));
    world
        .publishes(&["user.updated 00u1 status \"SUSPENDED\" → \"ACTIVE\"", "user.enabled 00u1 active false → true"])
        .await;
    world.okta.change(|org| org.add_user("00u4", "dan", "STAGED"));
    world.publishes(&["user.added 00u4"]).await;
}

#[tokio::test]
async fn each_change_of_a_group_is_one_event() {
    let mut world = OktaWorld::baseline(ORG).await;
    assert!(world.world.known.table(Kind::Group).principal("00g0").is_none(), "Everyone is left out");
    world.okta.change(|org| org.join("00g1", "00u2"));
    world.publishes(&["membership.added 00u2 in 00g1"]).await;
    world.okta.change(|org| org.leave("00g1", "00u1"));
    world.publishes(&["membership.removed 00u1 in 00g1 (not_listed)"]).await;
    world.okta.change(|org| org.rename("00g2", "Accounting"));
    world.publishes(&["group.updated 00g2 displayName \"Finance\" → \"Accounting\""]).await;
    world.okta.change(|org| org.add_group("00g3", "OKTA_GROUP", "New", &["00u3"]));
    world.publishes(&["group.added 00g3", "membership.added 00u3 in 00g3"]).await;
    world.okta.change(|org| drop(org.groups.remove("00g3")));
    world.publishes(&["membership.removed 00u3 in 00g3 (not_found)", "group.removed 00g3 (not_found)"]).await;
}

#[tokio::test]
async fn a_deactivated_person_is_disabled_and_a_deleted_one_is_removed() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.change(|org| org.set_status("00u2", "DEPROVISIONED"));
    world
        .publishes(&[
            "user.updated 00u2 status \"ACTIVE\" → \"DEPROVISIONED\"",
            "user.disabled 00u2 active true → false",
            "membership.removed 00u2 in 00g2 (not_listed)",
        ])
        .await;
    world.publishes(&[]).await;
    world.okta.change(|org| org.delete_user("00u2"));
    world.publishes(&["user.removed 00u2 (not_found)"]).await;
    world.okta.change(|org| org.delete_user("00u1"));
    world
        .publishes(&[
            "membership.removed 00u1 in 00g1 (not_found)",
            "membership.removed 00u1 in 00g2 (not_found)",
            "user.removed 00u1 (not_found)",
        ])
        .await;
}

#[tokio::test]
async fn a_person_who_is_created_again_is_another_one() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.change(|org| {
        org.delete_user("00u3");
        org.add_user("00u9", "cyd", "ACTIVE");
        org.join("00g1", "00u9");
    });
    let events = ["user.added 00u9", "membership.added 00u9 in 00g1", "user.removed 00u3 (not_found)"];
    world.publishes(&events).await;
}

#[tokio::test]
async fn a_person_who_is_deactivated_between_the_two_lists_is_disabled_at_once() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.faults(|faults| faults.deactivate_after_filter = Some("00u3".to_owned()));
    world
        .publishes(&[
            "user.updated 00u3 status \"ACTIVE\" → \"DEPROVISIONED\"",
            "user.disabled 00u3 active true → false",
        ])
        .await;
    world.publishes(&[]).await;
}

#[tokio::test]
async fn a_custom_attribute_is_read_by_its_path_and_nothing_else_leaves() {
    let overrides = "attributes = [\"status\", \"type\", \"profile.costCode\"]";
    let mut world = OktaWorld::baseline_with(ORG, overrides, None).await;
    world.okta.change(|org| {
        org.user("00u1")["profile"]["costCode"] = json!("4711");
        org.user("00u1")["profile"]["secret"] = json!("hidden");
    });
    world.publishes(&["user.updated 00u1 profile.costCode none → \"4711\""]).await;
    let user = world.known(Kind::User, "00u1");
    let paths: Vec<&str> = user.attributes.keys().map(String::as_str).collect();
    let none = |part: &str| paths.iter().all(|path| !path.contains(part));
    assert!(none("secret") && none("credentials") && none("_links"), "{paths:?}");
}

#[tokio::test]
async fn a_status_that_is_not_known_says_neither_active_nor_inactive_and_is_named() {
    let mut world = OktaWorld::baseline(ORG).await;
    world.okta.change(|org| org.set_status("00u1", "FROZEN"));
    let status = world.publishes(&["user.updated 00u1 status \"ACTIVE\" → \"FROZEN\""]).await;
    assert_eq!(world.known(Kind::User, "00u1").active, Some(true), "as last seen");
    assert!(status.findings.iter().any(|finding| finding.contains("00u1 (active)")), "{:?}", status.findings);
}
