//! The events for a change in a directory: two snapshots as text → the events between them.

use expect_test::{Expect, expect};
use scimtail::avro::wire::ChangeEvent;
use scimtail::directory::Baseline;

use crate::memory::{MemoryDirectory, World, account};

/// Syncs `before` as the baseline, then `after`, and compares the events.
async fn check(before: &str, after: &str, expected: Expect) {
    let mut world = World::new(account("acme"));
    // Small snapshots: other tests cover the guard.
    world.account_mut().limits.min_losses = 1_000;
    world.completed(&MemoryDirectory::parse(before)).await;
    assert_eq!(world.lines(0), [""; 0], "the baseline is silent");
    world.completed(&MemoryDirectory::parse(after)).await;
    expected.assert_eq(&world.lines(0).join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_added_updated_disabled_enabled_and_removed() {
    check(
        "user u1 ann title=Analyst\nuser u2 bob\nuser u3 cat inactive\nuser u4 dan",
        "user u1 ann title=Manager\nuser u2 bob inactive\nuser u3 cat\nuser u5 eve",
        expect![[r#"
            user.updated u1 title "Analyst" → "Manager"
            user.disabled u2 active true → false
            user.enabled u3 active false → true
            user.added u5
            user.removed u4 (not_found)"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updated_and_disabled_in_one_sync_are_two_events() {
    check(
        "user u1 ann title=Analyst",
        "user u1 ann title=Former inactive",
        expect![[r#"
            user.updated u1 title "Analyst" → "Former"
            user.disabled u1 active true → false"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_state_becomes_known_and_never_the_other_way() {
    check(
        "user u1 ann unknown\nuser u2 bob unknown\nuser u3 cat",
        "user u1 ann\nuser u2 bob inactive\nuser u3 cat unknown",
        expect![[r#"
        user.updated u1 active none → true
        user.disabled u2 active none → false"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_first_seen_inactive_is_only_added() {
    check("user u1 ann", "user u1 ann\nuser u2 bob inactive", expect!["user.added u2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_come_first_then_memberships_then_removals() {
    check(
        "user u1 ann\nuser u2 bob\ngroup g1 Admins: u1 u2\ngroup g2 Old: u1",
        "user u1 ann\nuser u3 cat\ngroup g1 Administrators: u1 u3\ngroup g3 New: u1",
        expect![[r#"
            group.added g3
            group.updated g1 displayName "Admins" → "Administrators"
            user.added u3
            membership.removed u1 in g2 (not_found)
            membership.removed u2 in g1 (not_found)
            membership.added u3 in g1
            membership.added u1 in g3
            user.removed u2 (not_found)
            group.removed g2 (not_found)"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_that_ends_by_itself_says_so() {
    check(
        "user u1 ann\nuser u2 bob\ngroup g1 Admins: u1 u2",
        "user u1 ann\nuser u2 bob\ngroup g1 Admins: u1",
        expect!["membership.removed u2 in g1 (not_listed)"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_user_loses_its_memberships_although_the_group_still_lists_it() {
    check(
        "user u1 ann\nuser u2 bob\ngroup g1 Admins: u1 u2",
        "user u1 ann\ngroup g1 Admins: u1 u2",
        expect![[r#"
            membership.removed u2 in g1 (not_found)
            user.removed u2 (not_found)"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_group_is_a_member_of_its_own_kind() {
    check(
        "user u1 ann\ngroup g1 All:\ngroup g2 Team: u1",
        "user u1 ann\ngroup g1 All: group=g2\ngroup g2 Team: u1",
        expect!["membership.added g2 in g1 as group"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_alters_the_entitlement_is_one_event() {
    check(
        "user u1 ann\ngroup g1 CB/acme.com/ROLE/Admin: u1",
        "user u1 ann\ngroup g1 CB/acme.com/BE/Europe/West: u1",
        expect![[r#"group.updated g1 displayName "CB/acme.com/ROLE/Admin" → "CB/acme.com/BE/Europe/West" entitlement_kind "role" → "business_entity" entitlement_name "Admin" → "Europe/West""#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_recreated_under_a_new_id_is_two_principals() {
    check(
        "user u1 ann\nuser u9 zoe",
        "user u2 ann\nuser u9 zoe",
        expect![[r#"
        user.added u2
        user.removed u1 (not_found)"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_principal_is_dangling_until_the_principal_appears() {
    let mut world = World::new(account("acme"));
    let without = MemoryDirectory::parse("user u1 ann\ngroup g1 Admins: u1 ghost");
    let status = world.completed(&without).await;
    assert_eq!((status.memberships_read, status.dangling), (Some(1), 1));
    // The group's bytes stay the same; only the user appears.
    let status =
        world.completed(&MemoryDirectory::parse("user u1 ann\nuser ghost gus\ngroup g1 Admins: u1 ghost")).await;
    assert_eq!(world.lines(0), ["user.added ghost", "membership.added ghost in g1"]);
    assert_eq!((status.memberships_read, status.dangling), (Some(2), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_group_that_appears_after_its_parent_was_read_is_found() {
    let mut world = World::new(account("acme"));
    world.completed(&MemoryDirectory::parse("user u1 ann\ngroup g1 All: group=g2")).await;
    world.completed(&MemoryDirectory::parse("user u1 ann\ngroup g1 All: group=g2\ngroup g2 Team: u1")).await;
    assert_eq!(world.lines(0), ["group.added g2", "membership.added g2 in g1 as group", "membership.added u1 in g2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_user_that_its_group_still_lists_is_not_brought_back_by_a_restart() {
    let mut world = World::new(account("acme"));
    world.completed(&MemoryDirectory::parse("user u1 ann\nuser u2 bob\ngroup g1 Admins: u1 u2")).await;
    let after = MemoryDirectory::parse("user u1 ann\ngroup g1 Admins: u1 u2");
    world.completed(&after).await;
    let published = world.lines(0).len();
    world.restart();
    let status = world.completed(&after).await;
    assert_eq!((world.lines(published), status.dangling), (vec![], 1));
    // Back under its old id: added, with its membership, and a new first_seen_at.
    world.completed(&MemoryDirectory::parse("user u1 ann\nuser u2 bob\ngroup g1 Admins: u1 u2")).await;
    assert_eq!(world.lines(published), ["user.added u2", "membership.added u2 in g1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_of_events_is_marked_as_snapshot() {
    let mut world = World::new(account("acme"));
    world.account_mut().baseline = Baseline::Events;
    let directory = MemoryDirectory::parse("user u1 ann\ngroup g1 Admins: u1");
    world.completed(&directory).await;
    assert_eq!(
        world.lines(0),
        ["user.added u1 snapshot", "group.added g1 snapshot", "membership.added u1 in g1 snapshot"]
    );
    world.completed(&directory).await;
    assert_eq!(world.lines(0).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newly_listed_attribute_is_rewritten_silently_and_then_followed() {
    let mut world = World::new(account("acme"));
    world.account_mut().attributes = scimtail::directory::AttributeList::new(vec!["userName".into()]);
    let directory = MemoryDirectory::parse("user u1 ann title=Analyst");
    world.completed(&directory).await;
    world.account_mut().attributes = scimtail::directory::AttributeList::default();
    world.restart();
    world.completed(&directory).await;
    assert_eq!(world.lines(0), [""; 0]);
    let user = world.known.table(scimtail::directory::Kind::User).principal("u1").unwrap();
    assert_eq!(user.attributes["title"], "\"Analyst\"");
    world.completed(&MemoryDirectory::parse("user u1 ann title=Manager")).await;
    assert_eq!(world.lines(0), ["user.updated u1 title \"Analyst\" → \"Manager\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_names_the_privileges_that_it_changes_or_gives() {
    let mut world = World::new(account("acme"));
    world.completed(&MemoryDirectory::parse("user u1 ann roles=viewer\nuser u2 bob")).await;
    let after = "user u1 ann roles=owner\nuser u2 bob title=Analyst\nuser u3 cat roles=owner\nuser u4 dan";
    world.completed(&MemoryDirectory::parse(after)).await;
    let events = world.log.events();
    let mut told: Vec<_> =
        events.iter().map(|event| (&*event.principal_id, &*event.event_type, event.privileges.join(" "))).collect();
    told.sort_unstable();
    let expected = [
        ("u1", "user.updated", "roles"),
        ("u2", "user.updated", ""),
        ("u3", "user.added", "roles"),
        ("u4", "user.added", ""),
    ];
    assert_eq!(told, expected.map(|(id, event_type, privileges)| (id, event_type, privileges.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_users_is_a_finding_with_what_the_vendor_says_of_it() {
    let mut world = World::new(account("acme"));
    let nobody = MemoryDirectory::parse("group g1 Admins:");
    let findings = |world: &World| world.known.completed.as_ref().expect("a completed sync").findings.clone();
    world.completed(&nobody).await;
    assert!(findings(&world)[0].starts_with("Users: no user is listed; → check for the wrong directory"));
    world.account_mut().habits.no_list_hint = Some("read the groups at their source".to_owned());
    world.completed(&nobody).await;
    assert_eq!(findings(&world), ["Users: no user is listed; → read the groups at their source"]);
    world.completed(&MemoryDirectory::parse("user u1 ann\ngroup g1 Admins:")).await;
    assert_eq!(findings(&world), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_group_pattern_is_rewritten_silently() {
    let mut world = World::new(account("acme"));
    let directory = MemoryDirectory::parse("user u1 ann\ngroup g1 CB/acme.com/ROLE/Admin: u1");
    let pattern = world.account_mut().pattern.take();
    world.completed(&directory).await;
    world.account_mut().pattern = pattern;
    world.restart();
    let before = world.log.state();
    world.completed(&directory).await;
    assert_eq!(world.lines(0), [""; 0]);
    let changed: Vec<_> = world.log.state().into_iter().filter(|(key, value)| before.get(key) != Some(value)).collect();
    assert_eq!(changed.len(), 1, "one group record is rewritten");
}

/// Readers alert on the names: an event that bears those of another member points at the wrong person.
#[tokio::test(flavor = "multi_thread")]
async fn each_membership_event_names_its_own_member_and_group() {
    let mut world = World::new(account("acme"));
    world.account_mut().baseline = Baseline::Events;
    let users = "user u1 ann\nuser u2 bob\nuser u3 cid\ngroup g2 Staff: u3\n";
    world.completed(&MemoryDirectory::parse(&format!("{users}group g1 Admins: u3 group=g2 u1"))).await;
    world.completed(&MemoryDirectory::parse(&format!("{users}group g1 Admins: u2 u3"))).await;
    let named = |event: &ChangeEvent| {
        let of = |name: &Option<String>| name.clone().unwrap_or_default();
        format!("{} {} in {}", event.event_type, of(&event.principal_name), of(&event.group_name))
    };
    let events = world.log.events();
    let memberships = events.iter().filter(|event| event.event_type.starts_with("membership."));
    assert_eq!(
        memberships.map(named).collect::<Vec<_>>(),
        [
            "membership.added ann in Admins",
            "membership.added cid in Admins",
            "membership.added Staff in Admins",
            "membership.added cid in Staff",
            "membership.removed ann in Admins",
            "membership.removed Staff in Admins",
            "membership.added bob in Admins",
        ]
    );
}
