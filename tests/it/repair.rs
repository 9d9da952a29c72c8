//! Lost or altered records in Kafka are noticed before anything is published on top of them, and repaired without
//! alarm. The repair is silent where only our copy was lost, and publishes ordinary events where the directory changed.
//! It removes no user or group.

use scimtail::directory::{Kind, ReasonCode, Status, Strategy, SyncStatus};
use std::collections::BTreeSet;

use scimtail::log::{Record, Topic};

use crate::memory::{Crash, MemoryDirectory, World, account};
use crate::removals::release;

const DIRECTORY: &str = "user u1 ann title=A\nuser u2 bob\nuser u3 cid\nuser u4 dan\nuser u5 eve\nuser u6 fay\n\
                         group g1 Admins: u1 u2 u3\ngroup g2 Staff: u4";

/// An account that has completed two syncs, the second with events.
async fn world() -> World {
    let mut world = World::new(account("acme"));
    world.completed(&MemoryDirectory::parse(&DIRECTORY.replace("title=A", "title=B"))).await;
    world.completed(&MemoryDirectory::parse(DIRECTORY)).await;
    world
}

/// Keeps only the records that `keep` says, and takes the account over as a new owner does.
fn lose(world: &mut World, lost: impl Fn(usize, &Record) -> bool) {
    let records = world.log.records.lock().unwrap().clone();
    let (gone, kept): (Vec<_>, Vec<_>) =
        records.into_iter().enumerate().partition(|(index, record)| lost(*index, record));
    for (_, record) in gone {
        *world.log.holes.lock().unwrap().entry(record.topic).or_default() += 1;
    }
    *world.log.records.lock().unwrap() = kept.into_iter().map(|(_, record)| record).collect();
    world.restart();
}

fn of(topic: Topic, key: &str) -> impl Fn(usize, &Record) -> bool {
    let key = key.to_owned();
    move |_, record| record.topic == topic && record.key == key
}

fn keys(world: &World) -> BTreeSet<String> {
    world.log.state().into_keys().map(|(_, key)| key).collect()
}

fn latest(world: &World) -> (Status, Option<&str>) {
    let latest = world.known.latest.as_ref().expect("a record");
    (latest.status, latest.reason_code.as_ref().map(ReasonCode::as_str))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_only_the_topics_lost_are_written_again_silently() {
    for (topic, key) in [
        (Topic::Users, "acme/Users/u2"),
        (Topic::Groups, "acme/Groups/g2"),
        (Topic::Memberships, "acme/Users/u3/Groups/g1"),
    ] {
        let mut world = world().await;
        let (all, events) = (keys(&world), world.log.events().len());
        lose(&mut world, of(topic, key));
        let reason = world.known.repair.clone().unwrap_or_else(|| panic!("{key}: the loss is noticed"));
        assert!(reason.contains("hold 11 records of acme") && reason.contains("says 12"), "{reason}");
        assert!(!keys(&world).contains(key));

        let status = world.completed(&MemoryDirectory::parse(DIRECTORY)).await;
        assert_eq!(keys(&world), all, "{key} is back");
        assert_eq!(world.lines(events), [""; 0], "{key}: no access changed");
        assert_eq!(
            (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
            (Status::Completed, Some("repair"))
        );
        assert_eq!(world.known.repair, None);

        // From here on it is an account like any other, also for the next owner.
        world.restart();
        assert_eq!(world.known.repair, None);
        let status = world.completed(&MemoryDirectory::parse(DIRECTORY)).await;
        assert_eq!((status.reason_code.as_ref().map(ReasonCode::as_str), status.events_published()), (None, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_value_that_came_back_is_noticed_and_its_difference_is_an_event() {
    let mut world = world().await;
    let events = world.log.events().len();
    let records = world.log.records.lock().unwrap().clone();
    let newest = records.iter().rposition(|record| record.topic == Topic::Users && record.key == "acme/Users/u1");
    lose(&mut world, |index, _| Some(index) == newest);
    let reason = world.known.repair.clone().expect("an old value is noticed");
    assert!(reason.contains("with another digest"), "{reason}");
    world.completed(&MemoryDirectory::parse(DIRECTORY)).await;
    assert_eq!(world.lines(events), ["user.updated u1 title \"B\" → \"A\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_changed_meanwhile_are_published_and_gone_ones_are_removed_by_the_sync_after_the_repair() {
    let mut world = world().await;
    let events = world.log.events().len();
    lose(&mut world, of(Topic::Users, "acme/Users/u2"));
    // u3 is gone, u4 is disabled, u7 is new, g1 no longer has u1. It is unknown whether u7 was known before the loss,
    // so it is written silently like u2.
    let now = "user u1 ann title=A\nuser u2 bob\nuser u4 dan inactive\nuser u5 eve\nuser u6 fay\nuser u7 gil\n\
               group g1 Admins: u2 u3\ngroup g2 Staff: u4";
    let status = world.completed(&MemoryDirectory::parse(now)).await;
    assert_eq!(world.lines(events), ["user.disabled u4 active true → false"]);
    assert_eq!(status.removals_suppressed, 1, "u3");
    assert!(keys(&world).contains("acme/Users/u3") && keys(&world).contains("acme/Users/u7"));

    let repaired = world.log.events().len();
    world.completed(&MemoryDirectory::parse(now)).await;
    let removed = [
        "membership.removed u1 in g1 (not_listed)",
        "membership.removed u3 in g1 (not_found)",
        "user.removed u3 (not_found)",
    ];
    let mut lines = world.lines(repaired);
    lines.sort();
    assert_eq!(lines, removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_lasts_until_a_sync_completes_whatever_happens_in_between() {
    let directory = MemoryDirectory::parse(DIRECTORY);
    let all = keys(&world().await);
    // More is lost than one transaction writes, so a crash can leave half of it.
    let lost = |_: usize, record: &Record| record.topic == Topic::Users && record.key != "acme/Users/u1";
    let broken = || {
        let mut directory = MemoryDirectory::parse(DIRECTORY);
        directory.faults.fails_at = Some((0, Kind::Group));
        directory
    };
    for crash in [Crash::Before(0), Crash::After(0), Crash::Before(1), Crash::After(1), Crash::Abort(1)] {
        let mut world = world().await;
        let events = world.log.events().len();
        lose(&mut world, lost);
        let failed = world.sync(&broken()).await;
        assert_eq!(
            (failed.status, failed.reason_code.as_ref().map(ReasonCode::as_str)),
            (Status::Failed, Some("repair"))
        );
        assert!(failed.reason.expect("words").contains("HTTP 500"));
        world.restart();
        assert!(world.known.repair.is_some(), "the next owner knows");

        let commits = world.log.commits.load(std::sync::atomic::Ordering::Relaxed);
        let crash = match crash {
            Crash::Before(number) => Crash::Before(commits + number),
            Crash::After(number) => Crash::After(commits + number),
            Crash::Abort(number) => Crash::Abort(commits + number),
        };
        *world.log.crash.lock().unwrap() = Some(crash);
        if let Ok(status) = world.try_sync(&directory).await {
            assert_eq!(status.status, Status::Failed, "{crash:?}");
        }
        world.restart();
        // The second transaction is the last: once it is durable the repair is over, whether its answer arrived or not.
        let over = latest(&world) == (Status::Completed, Some("repair"));
        assert_eq!(over, matches!(crash, Crash::After(number) if number == commits + 1), "{crash:?}");
        assert_eq!(world.known.repair.is_none(), over, "{crash:?}");
        world.completed(&directory).await;
        assert_eq!(keys(&world), all, "{crash:?}");
        assert_eq!(world.lines(events), [""; 0], "{crash:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_whose_tombstone_was_lost_is_published_again_rather_than_never() {
    let mut world = world().await;
    let now = DIRECTORY.replace("user u6 fay\n", "");
    world.completed(&MemoryDirectory::parse(&now)).await;
    assert!(world.lines(0).contains(&"user.removed u6 (not_found)".to_owned()));
    lose(&mut world, |_, record| record.topic == Topic::Users && record.value.is_none());
    assert!(world.known.table(Kind::User).contains("u6"), "back from the dead");
    world.completed(&MemoryDirectory::parse(&now)).await;
    let events = world.log.events().len();
    world.completed(&MemoryDirectory::parse(&now)).await;
    assert_eq!(world.lines(events), ["user.removed u6 (not_found)"]);
    let ids: BTreeSet<String> = world.log.events().into_iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), world.log.events().len(), "another removal, another id");
}

/// A repair does not make the wrong token good: the condition is that users are seen again, as ever.
#[tokio::test(flavor = "multi_thread")]
async fn g4_another_directory_is_held_in_a_repair_too() {
    let mut world = world().await;
    lose(&mut world, of(Topic::Users, "acme/Users/u2"));
    let status = world.sync(&MemoryDirectory::parse("user x1 xan\nuser x2 xip\ngroup y1 Ys: x1")).await;
    assert_eq!((status.status, status.reason_code.as_ref().map(ReasonCode::as_str)), (Status::Held, Some("repair")));
    world.restart();
    assert!(world.known.repair.is_some());
    world.completed(&MemoryDirectory::parse(DIRECTORY)).await;
}

/// As after a reseed of an account whose marker was lost: no sync has completed since, as far as Kafka says.
#[tokio::test(flavor = "multi_thread")]
async fn g4_what_is_held_in_a_repair_without_a_marker_goes_on_after_a_restart_and_can_be_released() {
    let mut world = world().await;
    let (status, reason_code) = (Status::Failed, Some(ReasonCode::Repair));
    let reseeded = SyncStatus { status, reason_code, ..world.known.latest.clone().unwrap() };
    world.record_latest(reseeded).await.unwrap();
    lose(&mut world, of(Topic::Syncs, "acme"));
    let other = MemoryDirectory::parse("user x1 xan\nuser x2 xip\ngroup y1 Ys: x1");
    for _ in 0..2 {
        assert_eq!(world.sync(&other).await.status, Status::Held);
        world.restart();
        assert!(world.known.repair.is_some() && world.known.completed.is_none());
    }
    // A sync that a person has released, and that is cut off.
    let hold = world.known.latest.as_ref().unwrap().hold.as_ref().unwrap().to_string();
    release(&mut world, &hold).await;
    world.restart();
    world.completed(&other).await;
    world.restart();
    assert_eq!((world.known.base(), &world.known.repair), (world.known.latest.as_ref().unwrap().sync, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_checkpoint_or_a_topic_that_ends_too_early_stops_the_account() {
    let mut world = world().await;
    world.completed(&MemoryDirectory::parse(&DIRECTORY.replace("title=A", "title=C"))).await;
    let whole = world.log.records.lock().unwrap().clone();
    let stopped = |keep: &dyn Fn(&Record) -> bool| {
        let kept = whole.iter().filter(|record| keep(record)).cloned().collect();
        *world.log.records.lock().unwrap() = kept;
        world.log.try_restore(&world.account).err().map(|stopped| stopped.reason.to_string())
    };
    assert_eq!(stopped(&|_| true), None);
    let reason = stopped(&|record| record.topic != Topic::Syncs).expect("a lost checkpoint is noticed");
    assert!(reason.contains("the checkpoint of acme is lost") && reason.contains("scimtail reseed acme"), "{reason}");
    let reason = stopped(&|record| record.key != "acme/latest").expect("half a checkpoint is none");
    assert!(reason.contains("the checkpoint of acme is lost"), "{reason}");
    for topic in [Topic::Events, Topic::Users, Topic::Groups, Topic::Memberships] {
        let reason = stopped(&|record| record.topic != topic).unwrap_or_else(|| panic!("{topic:?} is missed"));
        assert!(reason.contains(&format!("{} ends before", topic.name("test"))), "{reason}");
    }
}

/// The simulation found this: the record of a user was lost, and then the user left the directory for good. By every
/// way to read memberships, the account notices once it looks for the principals that memberships name.
#[tokio::test(flavor = "multi_thread")]
async fn memberships_that_outlived_a_lost_record_go_with_their_user_or_group() {
    for strategy in [Strategy::List, Strategy::Get, Strategy::User, Strategy::GroupsFilter, Strategy::MembersFilter] {
        let showing = |text: &str| MemoryDirectory::parse(text).showing(strategy);
        let mut world = World::new(account("acme"));
        world.completed(&showing(DIRECTORY)).await;
        lose(&mut world, of(Topic::Users, "acme/Users/u4"));
        // The group goes on listing the removed user, as on most servers.
        let now = DIRECTORY.replace("user u4 dan\n", "");
        world.completed(&showing(&now)).await;
        assert!(keys(&world).contains("acme/Users/u4/Groups/g2"), "not in the repair itself");
        world.completed(&showing(&now)).await;
        let expected = ["membership.removed u4 in g2 (not_found)", "user.removed u4 (not_found)"];
        assert_eq!(world.lines(0), expected, "{strategy:?}");

        lose(&mut world, of(Topic::Groups, "acme/Groups/g1"));
        let now = now.replace("group g1 Admins: u1 u2 u3\n", "");
        world.completed(&showing(&now)).await;
        world.restart();
        world.completed(&showing(&now)).await;
        let removed = ["u1", "u2", "u3"].map(|user| format!("membership.removed {user} in g1 (not_found)"));
        assert_eq!(
            world.lines(2),
            [&removed[..], &["group.removed g1 (not_found)".to_owned()]].concat(),
            "{strategy:?}"
        );
        let written = world.log.records.lock().unwrap().len();
        world.completed(&showing(&now)).await;
        assert_eq!(world.log.records.lock().unwrap().len(), written + 2, "{strategy:?}: and that was all");
    }
}

/// The evidence that a membership ended is read again after the repair, by every way to read memberships.
#[tokio::test(flavor = "multi_thread")]
async fn a_membership_that_went_before_a_repair_is_removed_after_it() {
    for strategy in [Strategy::List, Strategy::Get, Strategy::User, Strategy::GroupsFilter, Strategy::MembersFilter] {
        let mut world = World::new(account("acme"));
        world.completed(&MemoryDirectory::parse(DIRECTORY).showing(strategy)).await;
        lose(&mut world, of(Topic::Users, "acme/Users/u6"));
        let now = MemoryDirectory::parse(&DIRECTORY.replace("u1 u2 u3", "u2 u3")).showing(strategy);
        for _ in 0..2 {
            world.completed(&now).await;
        }
        assert_eq!(world.lines(0), ["membership.removed u1 in g1 (not_listed)"], "{strategy:?}");
    }
}

/// A broker may lose the end of `syncs` alone: numbers in the state are not given out again all the same.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_not_given_twice_where_the_newest_checkpoint_was_lost() {
    let mut world = world().await;
    let syncs = world.log.records.lock().unwrap().iter().rposition(|record| record.key == "acme").expect("a marker");
    world.completed(&MemoryDirectory::parse(&DIRECTORY.replace("title=A", "title=C"))).await;
    let (sync, events) = (world.known.base(), world.log.events().len());
    lose(&mut world, |index, record| record.topic == Topic::Syncs && index > syncs + 1);
    assert!(world.known.repair.is_some() && world.known.base() < sync);
    world.completed(&MemoryDirectory::parse(&DIRECTORY.replace("title=A", "title=D"))).await;
    assert_eq!(world.known.base(), sync + 1);
    assert_eq!(world.lines(events), ["user.updated u1 title \"C\" → \"D\""]);
    assert!(world.log.events().iter().map(|event| event.sequence).eq(1..=events as i64 + 1));
}

/// The state is that of the sync whose marker was lost, and nothing of it is written again.
#[tokio::test(flavor = "multi_thread")]
async fn the_marker_after_a_repair_is_behind_what_the_sync_of_a_lost_marker_wrote() {
    let mut world = world().await;
    let syncs = world.log.records.lock().unwrap().iter().rposition(|record| record.key == "acme").expect("a marker");
    let changed = MemoryDirectory::parse(&DIRECTORY.replace("title=A", "title=C"));
    world.completed(&changed).await;
    lose(&mut world, |index, record| record.topic == Topic::Syncs && index > syncs + 1);
    world.completed(&changed).await;
    world.log.assert_positions_cover_the_state();
}

/// Differences in a first sync that was cut off are written silently anyway, and counted as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_in_an_interrupted_first_sync_leaves_a_checkpoint_that_is_right() {
    let mut world = World::new(account("acme"));
    *world.log.crash.lock().unwrap() = Some(Crash::Before(3));
    assert!(world.try_sync(&MemoryDirectory::parse(DIRECTORY)).await.is_err());
    lose(&mut world, of(Topic::Groups, "acme/Groups/g1"));
    assert!(world.known.is_first());
    world.completed(&MemoryDirectory::parse(DIRECTORY)).await;
    world.restart();
    assert_eq!(world.known.repair, None, "a repaired loss raises no alarm");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_of_a_first_sync_is_behind_what_an_interrupted_one_wrote_whose_newest_record_is_lost() {
    let mut world = World::new(account("acme"));
    let directory = MemoryDirectory::parse(DIRECTORY);
    *world.log.crash.lock().unwrap() = Some(Crash::Before(2));
    assert!(world.try_sync(&directory).await.is_err());
    let newest = world.log.records.lock().unwrap().iter().rposition(|record| record.key == "acme/latest");
    lose(&mut world, |index, _| Some(index) == newest);
    world.completed(&directory).await;
    world.log.assert_positions_cover_the_state();
}

/// A member that only its group names, and that the profile vouches for, has no record and is not an orphan.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_the_profile_vouches_for_are_not_taken_for_what_was_lost() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.publish_unlisted = true;
    let directory = |silent: Option<&str>| {
        let mut directory = MemoryDirectory::parse(&DIRECTORY.replace("u1 u2 u3", "u1 u2 u3 x1"));
        directory.faults.get_not_offered = silent.is_none();
        directory.faults.silent = silent.map(str::to_owned);
        directory
    };
    world.completed(&directory(None)).await;
    assert!(keys(&world).contains("acme/Users/x1/Groups/g1"));
    world.restart();
    assert_eq!(world.known.orphans(Kind::User).count(), 0);
    // The control that would vouch for GET does not answer: nothing is known of x1, and nothing follows.
    for _ in 0..2 {
        world.completed(&directory(Some("u1"))).await;
        world.restart();
    }
    assert!(keys(&world).contains("acme/Users/x1/Groups/g1"));
    assert_eq!(world.lines(0), [""; 0]);
}
