//! Work saved where the profile says that it is safe, and never as evidence of absence.

use scimtail::directory::{Kind, Status, Strategy};
use serde_json::json;

use crate::memory::{Faults, MemoryDirectory, World, account, advance, clock};

const HOUR: i64 = 3_600_000;

fn directory() -> MemoryDirectory {
    let mut directory =
        MemoryDirectory::parse("user u1 ann\nuser u2 bob\nuser u3 cid\ngroup g1 Admins: u1 u2\ngroup g2 Staff: u3");
    let stamp = json!({ "lastModified": "2020-01-01T00:00:00Z" });
    for resource in directory.users.values_mut().chain(directory.groups.values_mut()) {
        resource["meta"] = stamp.clone();
    }
    directory
}

fn modify(directory: &mut MemoryDirectory, kind: Kind, id: &str, attribute: &str, value: serde_json::Value) {
    let resources = if kind == Kind::User { &mut directory.users } else { &mut directory.groups };
    let resource = resources.get_mut(id).unwrap();
    resource[attribute] = value;
    let now = jiff::Timestamp::from_millisecond(clock()).unwrap();
    resource["meta"] = json!({ "lastModified": now.to_string() });
}

#[tokio::test(flavor = "multi_thread")]
async fn between_full_walks_only_modifications_are_read_and_nobody_is_missed() {
    let mut world = World::new(account("acme"));
    world.account.habits.full_walk_every = Some(HOUR);
    let mut directory = directory();
    let status = world.completed(&directory).await;
    assert_eq!((status.users_read, status.memberships_read), (Some(3), Some(3)));

    advance(HOUR / 2);
    modify(&mut directory, Kind::User, "u1", "title", json!("Analyst"));
    modify(&mut directory, Kind::Group, "g2", "members", json!([{ "value": "u3" }, { "value": "u1" }]));
    // Changed without a new time stamp, and removed: only a full walk sees either.
    directory.users.get_mut("u2").unwrap()["title"] = json!("Manager");
    directory.users.remove("u3");
    let status = world.completed(&directory).await;
    assert_eq!(world.lines(0), ["user.updated u1 title none → \"Analyst\"", "membership.added u1 in g2"]);
    assert_eq!(
        (status.users_read, status.groups_read, status.memberships_read, status.memberships_as_of),
        (None, None, None, Some(1)),
        "not read is not zero"
    );
    let status = world.completed(&directory).await;
    assert_eq!((status.published, world.lines(0).len()), ([0; 10], 2), "what lies in the overlap is no change");

    advance(HOUR / 2);
    let status = world.completed(&directory).await;
    assert_eq!(status.users_read, Some(2));
    let expected = [
        "user.updated u2 title none → \"Manager\"",
        "membership.removed u3 in g2 (not_found)",
        "user.removed u3 (not_found)",
    ];
    assert_eq!(world.lines(2), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_or_a_failure_the_next_walk_is_a_full_one() {
    let mut world = World::new(account("acme"));
    world.account.habits.full_walk_every = Some(HOUR);
    let directory = directory();
    world.completed(&directory).await;
    assert_eq!(world.completed(&directory).await.users_read, None);
    world.restart();
    assert_eq!(world.completed(&directory).await.users_read, Some(3));
    let mut broken = self::directory();
    broken.faults = Faults { fails_at: Some((0, Kind::Group)), ..Faults::default() };
    assert_eq!(world.sync(&broken).await.status, Status::Failed);
    assert_eq!(world.completed(&directory).await.users_read, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_of_modifications_ends_no_membership_of_those_it_does_not_show() {
    for strategy in [Strategy::List, Strategy::Get, Strategy::GroupsFilter, Strategy::MembersFilter, Strategy::User] {
        let mut world = World::new(account("acme"));
        world.account.habits.full_walk_every = Some(HOUR);
        let mut directory = directory().showing(strategy);
        world.completed(&directory).await;
        modify(&mut directory, Kind::User, "u1", "title", json!("Analyst"));
        world.completed(&directory).await;
        assert_eq!(world.lines(0), ["user.updated u1 title none → \"Analyst\""], "{strategy:?}");
        assert_eq!(world.known.memberships_len(), 3, "{strategy:?}");
    }
}
