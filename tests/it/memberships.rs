//! Five ways to read memberships: each of them gives the same truth, and a membership that cannot be read is unknown.

use scimtail::directory::{Kind, Member, ReasonCode, Status, Strategy};
use std::sync::atomic::Ordering;

use crate::memory::{Crash, MemoryDirectory, World, account, advance};

const BEFORE: &str =
    "user u1 ann\nuser u2 bob\nuser u3 cid\ngroup g1 Admins: u1 u2\ngroup g2 Staff: u1 u2 u3\ngroup g3 Empty:";
const AFTER: &str =
    "user u1 ann\nuser u2 bob\nuser u3 cid\ngroup g1 Admins: u1 u3\ngroup g2 Staff: u1 u2 u3\ngroup g3 Empty: u2";

const ALL: [Strategy; 5] =
    [Strategy::List, Strategy::Get, Strategy::GroupsFilter, Strategy::MembersFilter, Strategy::User];

fn showing(strategy: Strategy, text: &str) -> MemoryDirectory {
    MemoryDirectory::parse(text).showing(strategy)
}

fn world() -> World {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.empty_members_are_none = false;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn each_strategy_reads_the_same_memberships_and_the_same_changes() {
    for strategy in ALL {
        let mut world = world();
        let status = world.completed(&showing(strategy, BEFORE)).await;
        assert_eq!((status.memberships_read, status.memberships_as_of), (Some(5), Some(1)), "{strategy:?}");
        let status = world.completed(&showing(strategy, AFTER)).await;
        let expected =
            ["membership.removed u2 in g1 (not_listed)", "membership.added u3 in g1", "membership.added u2 in g3"];
        assert_eq!(world.lines(0), expected, "{strategy:?}");
        assert_eq!(status.memberships_read, Some(6), "{strategy:?}");
        // Unchanged, also after a restart: nothing.
        world.restart();
        world.completed(&showing(strategy, AFTER)).await;
        world.completed(&showing(strategy, AFTER)).await;
        assert_eq!(world.lines(expected.len()), [""; 0], "{strategy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_each_strategy_a_removed_user_loses_its_memberships_once() {
    for strategy in ALL {
        let mut world = world();
        world.account_mut().limits.min_losses = 100;
        world.completed(&showing(strategy, BEFORE)).await;
        let mut gone = showing(strategy, BEFORE);
        gone.users.remove("u3");
        world.completed(&gone).await;
        assert_eq!(
            world.lines(0),
            ["membership.removed u3 in g2 (not_found)", "user.removed u3 (not_found)"],
            "{strategy:?}"
        );
        world.restart();
        for _ in 0..2 {
            world.completed(&gone).await;
        }
        assert_eq!(world.lines(2), [""; 0], "{strategy:?}: its group may list it for good");
        // Back under its old id, it is a member again.
        let dangling = world.known.completed.as_ref().unwrap().dangling;
        let groups_tell = matches!(strategy, Strategy::List | Strategy::Get);
        assert_eq!(dangling > 0, groups_tell, "{strategy:?}: only where the group lists it");
        let status = world.completed(&showing(strategy, BEFORE)).await;
        assert_eq!(world.lines(2), ["user.added u3", "membership.added u3 in g2"], "{strategy:?}");
        assert_eq!((status.dangling, status.memberships_read), (0, Some(5)), "{strategy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_that_cannot_be_read_stay_and_the_status_says_as_of_when() {
    let unreadable = [(Strategy::Get, "g1"), (Strategy::GroupsFilter, "g1"), (Strategy::MembersFilter, "u2")];
    for (strategy, unread) in unreadable {
        let mut world = world();
        world.completed(&showing(strategy, BEFORE)).await;
        let mut partly = showing(strategy, AFTER);
        partly.faults.memberships_unread = [unread.to_owned()].into();
        let status = world.completed(&partly).await;
        assert_eq!((status.memberships_read, status.memberships_as_of), (None, Some(1)), "{strategy:?}");
        assert!(!world.lines(0).iter().any(|line| line.contains("removed")), "{strategy:?}: {:?}", world.lines(0));
        let status = world.completed(&showing(strategy, AFTER)).await;
        assert_eq!((status.memberships_read, status.memberships_as_of), (Some(6), Some(3)), "{strategy:?}");
        assert_eq!(world.lines(0).len(), 3, "{strategy:?}: everything is seen once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_showed_members_and_shows_none_anywhere_is_held() {
    for strategy in ALL {
        let mut world = world();
        world.completed(&showing(strategy, BEFORE)).await;
        let mut silent = showing(strategy, BEFORE);
        silent.faults.filters_find_nothing = true;
        for group in silent.groups.values_mut() {
            group["members"] = serde_json::json!([]);
        }
        // By GET, list and user every row has to be read again to see that it shows no members.
        world.restart();
        let status = world.sync(&silent).await;
        assert_eq!((status.status, status.memberships_as_of), (Status::Held, Some(1)), "{strategy:?}");
        assert_eq!(world.lines(0), [""; 0], "{strategy:?}");
        let status = world.completed(&showing(strategy, AFTER)).await;
        assert_eq!((status.memberships_read, world.lines(0).len()), (Some(6), 3), "{strategy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_filters_makes_no_user_a_member_of_every_group() {
    for strategy in [Strategy::GroupsFilter, Strategy::MembersFilter] {
        let mut world = world();
        world.completed(&showing(strategy, BEFORE)).await;
        let mut ignoring = showing(strategy, AFTER);
        ignoring.faults.filters_ignored = true;
        let status = world.sync(&ignoring).await;
        assert_eq!(
            (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
            (Status::Failed, Some("filter_ignored"))
        );
        assert_eq!(world.lines(0), [""; 0], "{strategy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_trouble_is_not_asked_about_every_user() {
    for (strategy, prefix) in [(Strategy::MembersFilter, "u"), (Strategy::GroupsFilter, "g"), (Strategy::Get, "g")] {
        let text: String = (0..200).map(|n| format!("user u{n} name{n}\ngroup g{n} Group{n}: u{n}\n")).collect();
        let mut world = world();
        world.completed(&showing(strategy, &text)).await;
        let mut down = showing(strategy, &text);
        down.faults.memberships_unread = (0..200).map(|n| format!("{prefix}{n}")).collect();
        let status = world.completed(&down).await;
        assert_eq!((status.memberships_read, world.lines(0)), (None, vec![]), "{strategy:?}");
        let asked = down.filters.load(Ordering::Relaxed) + down.gets.load(Ordering::Relaxed);
        assert!(asked <= 40, "{strategy:?}: {asked} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_says_whether_it_is_a_member_directly_and_a_change_of_that_is_no_event() {
    let direct = |world: &World, group: &str| {
        let member = Member { kind: Kind::User, id: "u1".into() };
        world.known.members(group).unwrap().get(&member).unwrap().direct
    };
    let mut world = world();
    let mut directory = showing(Strategy::User, BEFORE);
    directory.faults.indirect = ["g2".to_owned()].into();
    world.completed(&directory).await;
    assert_eq!((direct(&world, "g1"), direct(&world, "g2")), (Some(true), Some(false)));
    let before = world.log.records.lock().unwrap().len();
    directory.faults.indirect.clear();
    world.completed(&directory).await;
    assert_eq!((direct(&world, "g2"), world.lines(0)), (Some(true), vec![]));
    assert!(world.log.records.lock().unwrap().len() > before + 2, "the records say so");
    world.restart();
    assert_eq!(direct(&world, "g2"), Some(true));
    // A filter that finds direct members only makes them direct.
    let mut filtered = self::world();
    filtered.account_mut().habits.filter_is_direct = true;
    filtered.completed(&showing(Strategy::GroupsFilter, BEFORE)).await;
    assert_eq!(direct(&filtered, "g1"), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_named_without_an_id_are_found_by_name_and_an_ambiguous_name_changes_nothing() {
    let mut world = world();
    let mut by_name = showing(Strategy::User, BEFORE);
    by_name.groups_by_name = true;
    assert_eq!(world.completed(&by_name).await.memberships_read, Some(5));
    // Two groups of one name: it is unknown which of them is meant; known memberships stay.
    let mut ambiguous = showing(Strategy::User, &AFTER.replace("Empty", "Staff"));
    ambiguous.groups_by_name = true;
    let status = world.completed(&ambiguous).await;
    assert_eq!(status.memberships_read, None);
    let expected = [
        r#"group.updated g3 displayName "Empty" → "Staff""#,
        "membership.removed u2 in g1 (not_listed)",
        "membership.added u3 in g1",
    ];
    assert_eq!(world.lines(0), expected);
    // Once the names differ again, the changes that were left open are published.
    let mut clear = showing(Strategy::User, AFTER);
    clear.groups_by_name = true;
    world.completed(&clear).await;
    assert_eq!(world.lines(3), [r#"group.updated g3 displayName "Staff" → "Empty""#, "membership.added u2 in g3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_row_is_unchanged_is_read_again_when_a_group_that_it_names_is_gone_or_renamed() {
    let staff = "user u1 ann\nuser u2 bob\ngroup g2 Staff: u1 u2\n";
    let before = format!("{staff}group g1 Admins: u1");
    let gone = ["membership.removed u1 in g1 (not_found)", "group.removed g1 (not_found)"];
    let (added, renamed) = ("membership.added u1 in g0", r#"group.updated g1 displayName "Admins" → "Ops""#);
    // What comes in place of g1, and the events of that sync and of the next.
    let cases: [(&str, &[&str], &[&str]); 3] = [
        ("group g0 Admins: u1", &["group.added g0", gone[0], gone[1]], &[added]),
        (
            "group g1 Ops:\ngroup g0 Admins: u1",
            &["group.added g0", renamed],
            &["membership.removed u1 in g1 (not_listed)", added],
        ),
        (
            "group g1 Ops: u2\ngroup g0 Admins: u1",
            &["group.added g0", renamed, "membership.added u2 in g1"],
            &["membership.removed u1 in g1 (not_listed)", added],
        ),
    ];
    for (after, at_once, next) in cases {
        let directory = |text: &str| MemoryDirectory { groups_by_name: true, ..showing(Strategy::User, text) };
        let mut world = world();
        world.completed(&directory(&before)).await;
        let directory = directory(&format!("{staff}{after}"));
        // The marker does not say that all memberships were read: those of u1 were not.
        assert_eq!(world.completed(&directory).await.memberships_read, None, "{after}");
        assert_eq!(world.lines(0), at_once, "{after}");
        assert!(world.completed(&directory).await.memberships_read.is_some(), "{after}");
        assert_eq!(world.lines(at_once.len()), next, "{after}");
        world.completed(&directory).await;
        assert_eq!(world.lines(0).len(), at_once.len() + next.len(), "{after}: once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_row_is_as_it_was_before_the_last_change_is_read_again() {
    let text = "user u1 ann\ngroup g1 Admins: u1\ngroup g2 Staff:";
    let mut world = world();
    world.completed(&showing(Strategy::User, text)).await;
    // One of its groups is in no list, so that not all that the row says can be published.
    let mut more = showing(Strategy::User, &format!("{text} u1\ngroup g3 Unlisted: u1"));
    more.faults.unlisted = ["g3".to_owned()].into();
    world.completed(&more).await;
    world.completed(&showing(Strategy::User, text)).await;
    assert_eq!(world.lines(0), ["membership.added u1 in g2", "membership.removed u1 in g2 (not_listed)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_as_they_were_before_a_sync_was_published_in_part_are_read_again() {
    let users: String = (1..=9).map(|number| format!("user u{number} name{number}\n")).collect();
    let (none, all) = ("group g1 All:", "group g1 All: u1 u2 u3 u4 u5 u6 u7 u8 u9");
    for strategy in [Strategy::User, Strategy::List] {
        let mut world = world();
        let before = showing(strategy, &format!("{users}{none}\ngroup g2 Staff: u1"));
        world.completed(&before).await;
        let commits = world.log.commits.load(Ordering::Relaxed);
        *world.log.crash.lock().unwrap() = Some(Crash::Abort(commits + 1));
        let after = showing(strategy, &format!("{users}{all}\ngroup g2 Staff: u1"));
        assert_eq!(world.sync(&after).await.status, Status::Failed);
        *world.log.crash.lock().unwrap() = None;
        let members = |world: &World| world.known.members("g1").map_or(0, |members| members.len());
        let published = members(&world);
        assert!((1..9).contains(&published), "{strategy:?}: {published}");
        world.completed(&before).await;
        assert_eq!(members(&world), 0, "{strategy:?}");
        assert_eq!(world.lines(0).len(), 2 * published, "{strategy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_taken_for_gone_has_the_members_again_whose_rows_never_changed() {
    let text = "user u1 ann\nuser u2 bob\ngroup g1 Admins: u1\ngroup g2 Staff: u1 u2";
    let mut world = world();
    world.completed(&showing(Strategy::User, text)).await;
    let mut hidden = showing(Strategy::User, text);
    hidden.faults.unlisted = ["g1".to_owned()].into();
    hidden.faults.gone = ["g1".to_owned()].into();
    world.completed(&hidden).await;
    let back = showing(Strategy::User, text);
    world.completed(&back).await;
    world.completed(&back).await;
    let expected = [
        "membership.removed u1 in g1 (not_found)",
        "group.removed g1 (not_found)",
        "group.added g1",
        "membership.added u1 in g1",
    ];
    assert_eq!(world.lines(0), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_list_as_long_as_the_cap_ends_no_membership() {
    for strategy in [Strategy::List, Strategy::Get] {
        let mut world = world();
        let five = "group g1 All: u1 u2 u3 u4 u5";
        let users: String = (1..=9).map(|n| format!("user u{n} name{n}\n")).collect();
        world.completed(&showing(strategy, &format!("{users}{five}"))).await;
        world.account_mut().habits.member_cap = Some(4);
        // Four members: exactly the cap. One of them is new, two known ones may be behind the cut.
        let capped = showing(strategy, &format!("{users}group g1 All: u1 u2 u3 u6"));
        let status = world.completed(&capped).await;
        assert_eq!((status.memberships_read, status.memberships_as_of), (None, Some(1)), "{strategy:?}");
        assert_eq!(world.lines(0), ["membership.added u6 in g1"], "{strategy:?}");
        // Three members: not cut off.
        let status = world.completed(&showing(strategy, &format!("{users}group g1 All: u1 u2 u6"))).await;
        assert_eq!(status.memberships_read, Some(3), "{strategy:?}");
        assert_eq!(world.lines(1).len(), 3, "{strategy:?}: {:?}", world.lines(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_no_get_can_find_are_published_only_where_the_profile_says_so() {
    let text = "user u1 ann\ngroup g1 Admins: u1 x1 x2";
    for publish in [false, true] {
        let mut world = world();
        world.account_mut().habits.publish_unlisted = publish;
        let mut directory = MemoryDirectory::parse(text);
        directory.faults.get_always_404 = true;
        let status = world.completed(&directory).await;
        let (read, dangling) = if publish { (3, 0) } else { (1, 2) };
        assert_eq!((status.memberships_read, status.dangling), (Some(read), dangling), "publish: {publish}");
        // One leaves: by a list that GET cannot contradict.
        let mut left = MemoryDirectory::parse("user u1 ann\ngroup g1 Admins: u1 x1");
        left.faults.get_not_offered = true;
        world.restart();
        world.completed(&left).await;
        let expected: &[&str] = if publish { &["membership.removed x2 in g1 (not_listed)"] } else { &[] };
        assert_eq!(world.lines(0), expected, "publish: {publish}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_user_is_not_published_again_by_the_profiles_word_alone() {
    let mut world = world();
    world.account_mut().habits.publish_unlisted = true;
    world.account_mut().limits.min_losses = 100;
    let text = "user u1 ann\nuser u2 bob\ngroup g1 Admins: u1 u2";
    world.completed(&MemoryDirectory::parse(text)).await;
    let mut gone = MemoryDirectory::parse(text);
    gone.users.remove("u2");
    gone.faults.get_not_offered = true;
    for _ in 0..3 {
        world.completed(&gone).await;
    }
    assert_eq!(world.lines(0), ["membership.removed u2 in g1 (absent)", "user.removed u2 (absent)"]);
    // The group changes, and still lists it.
    gone.groups.get_mut("g1").unwrap()["displayName"] = serde_json::json!("Owners");
    world.restart();
    world.completed(&gone).await;
    assert_eq!(world.lines(2).len(), 1, "{:?}", world.lines(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dangling_member_that_only_get_finds_is_found_within_a_day() {
    let mut world = world();
    let text = "user u1 ann\ngroup g1 Admins: u1 u2 g9";
    let status = world.completed(&MemoryDirectory::parse(text)).await;
    assert_eq!(status.dangling, 2);
    let mut back = MemoryDirectory::parse(&format!("user u2 bob\n{text}\ngroup g9 Nested:"));
    back.faults.unlisted = ["u2".to_owned(), "g9".to_owned()].into();
    world.account_mut().habits.trust_total = false;
    world.completed(&back).await;
    assert_eq!(world.lines(0), [""; 0], "it is not their time yet");
    advance(24 * 3600 * 1000);
    let status = world.completed(&back).await;
    let expected =
        ["group.added g9", "user.added u2", "membership.added u2 in g1", "membership.added g9 in g1 as group"];
    assert_eq!(world.lines(0), expected);
    assert_eq!((status.dangling, status.hidden), (0, 2));
}

/// What GET shows of a group otherwise than its list does not count, neither then nor later.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_asked_for_because_its_dangling_member_is_back_gains_that_member_and_nothing_else() {
    let mut world = world();
    world.account_mut().habits.trust_total = false;
    let directory = |text: &str| {
        let mut directory = MemoryDirectory::parse(&format!("user u1 ann\n{text}\ngroup g1 Admins: u1 u2"));
        directory.groups.get_mut("g1").unwrap()["externalId"] = serde_json::json!("x1");
        directory.faults.unlisted = ["u2".to_owned()].into();
        directory.faults.get_is_poorer = true;
        directory
    };
    assert_eq!(world.completed(&directory("")).await.dangling, 1);
    for _ in 0..3 {
        advance(24 * 3600 * 1000);
        world.completed(&directory("user u2 bob")).await;
    }
    assert_eq!(world.lines(0), ["user.added u2", "membership.added u2 in g1"]);
    assert_eq!(world.known.completed.as_ref().unwrap().dangling, 0);
}

/// Some servers show members in lists and none in a GET.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_of_a_group_that_no_list_shows_goes_only_where_get_shows_all_members() {
    for shows in [false, true] {
        let mut world = world();
        world.account_mut().habits.trust_total = false;
        world.account_mut().habits.get_shows_members = shows;
        let before = "user u1 ann\nuser u2 bob\ngroup g1 Admins: u1\ngroup g2 Staff: u2";
        world.completed(&MemoryDirectory::parse(before)).await;
        let mut hidden = MemoryDirectory::parse(&before.replace("Admins: u1", "Admins:"));
        hidden.faults.unlisted = ["g1".to_owned()].into();
        let status = world.completed(&hidden).await;
        let (lines, read) =
            if shows { (&["membership.removed u1 in g1 (not_listed)"][..], Some(1)) } else { (&[][..], Some(2)) };
        assert_eq!((world.lines(0), status.memberships_read), (lines.iter().map(|l| (*l).to_owned()).collect(), read));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_new_unlisted_members_are_asked_for_within_the_budget() {
    let members: String = (0..450).map(|n| format!(" x{n:03}")).collect();
    let mut world = world();
    let directory = MemoryDirectory::parse(&format!("user u1 ann\ngroup g1 Admins: u1{members}"));
    for dangling in [100, 200, 300, 400, 450, 450] {
        // Those that dangle already are asked for again, and take nothing of it.
        advance(24 * 3600 * 1000);
        let status = world.completed(&directory).await;
        let all = (dangling == 450).then_some(1);
        assert_eq!((status.dangling, status.memberships_read), (dangling, all), "all are asked, or it is not said");
        // The type is unknown: each is asked for as a user and as a group.
        assert!(directory.gets.swap(0, Ordering::Relaxed) <= 400);
        assert_eq!(status.findings.iter().any(|finding| finding.contains("are not asked for yet")), all.is_none());
    }
}

/// Of these no answer says whether they exist.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_never_answer_keep_no_other_one_from_being_found() {
    let members: String = (0..150).map(|n| format!(" x{n:03}")).collect();
    let mut world = world();
    world.account_mut().habits.trust_total = false;
    let mut directory = MemoryDirectory::parse(&format!("user u1 ann\nuser z1 zoe\ngroup g1 Admins: u1 z1{members}"));
    directory.faults.unlisted = ["z1".to_owned()].into();
    directory.faults.mute = (0..150).map(|n| format!("x{n:03}")).collect();
    let mut syncs = 0;
    while world.known.members("g1").is_none_or(|members| members.len() < 2) {
        world.completed(&directory).await;
        syncs += 1;
        assert!(syncs < 10, "z1 is behind the others");
    }
}

/// They need no GET, so that no budget bounds them.
#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_members_that_the_profile_vouches_for_is_published_at_once() {
    let members: String = (0..450).map(|n| format!(" x{n:03}")).collect();
    let mut world = world();
    world.account_mut().habits.publish_unlisted = true;
    let mut directory = MemoryDirectory::parse(&format!("user u1 ann\ngroup g1 Admins: u1{members}"));
    directory.faults.get_not_offered = true;
    for _ in 0..2 {
        assert_eq!(world.completed(&directory).await.memberships_read, Some(451));
    }
    assert_eq!(world.lines(0), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strategy_may_change_without_an_event() {
    let mut world = world();
    for strategy in ALL.into_iter().chain([Strategy::List]) {
        let status = world.completed(&showing(strategy, BEFORE)).await;
        assert_eq!((status.memberships_read, world.lines(0)), (Some(5), vec![]), "{strategy:?}");
    }
    let status = world.completed(&showing(Strategy::Never, BEFORE)).await;
    assert_eq!((status.memberships_read, status.memberships_as_of, world.lines(0)), (None, Some(6), vec![]));
}
