//! Removals are reported only with proof, and the guard holds large ones.

use scimtail::directory::{Kind, ReasonCode, Status};
use std::sync::atomic::Ordering;

use scimtail::avro::wire::ControlRequest;
use scimtail::control::{self, Request};

use crate::memory::{Faults, MemoryDirectory, World, account, advance};

const DAY: i64 = 24 * 3600 * 1000;

/// `count` users u00…, all members of g1.
fn directory(users: std::ops::Range<usize>) -> MemoryDirectory {
    let mut text: String = users.clone().map(|n| format!("user u{n:02} name{n} title=T\n")).collect();
    let members: Vec<String> = users.map(|n| format!("u{n:02}")).collect();
    text.push_str(&format!("group g1 Admins: {}\ngroup g2 Empty:\n", members.join(" ")));
    MemoryDirectory::parse(&text)
}

async fn baseline() -> World {
    let mut world = World::new(account("acme"));
    world.completed(&directory(0..30)).await;
    world
}

fn with(mut directory: MemoryDirectory, faults: Faults) -> MemoryDirectory {
    directory.faults = faults;
    directory
}

pub async fn release(world: &mut World, hold: &str) {
    let latest = world.known.latest.as_ref().unwrap();
    let content = ControlRequest {
        account: "acme".into(),
        action: "release".into(),
        hold_id: Some(hold.into()),
        requested_by: "a person".into(),
        ..ControlRequest::default()
    };
    let request = Request { offset: latest.control_offset, content };
    let (status, _) = control::apply(&world.known, &request).expect("the request is new");
    world.record_latest(status).await.unwrap();
    assert!(control::apply(&world.known, &request).is_none(), "a request takes effect once");
}

/// G3: a walk that ends in an error on any page publishes nothing, whatever the pages before it showed.
#[tokio::test(flavor = "multi_thread")]
async fn g3_an_error_on_any_page_of_any_list_removes_nothing() {
    let mut world = baseline().await;
    for kind in Kind::BOTH {
        for page in 0..4 {
            // Two users are really gone, so there would be something to remove.
            let broken = with(directory(0..28), Faults { fails_at: Some((page, kind)), ..Faults::default() });
            let status = world.sync(&broken).await;
            assert_eq!(
                (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
                (Status::Failed, Some("http_status"))
            );
            assert_eq!(world.lines(0), [""; 0]);
        }
    }
    world.completed(&directory(0..28)).await;
    assert_eq!(world.lines(0).len(), 4, "two users and their memberships");
}

/// G3: users that the list leaves out but GET finds are kept.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_user_missed_by_paging_is_kept_because_get_finds_it() {
    let mut world = baseline().await;
    // It was asked for once; a user that is known as hidden is asked for again only when its time comes.
    for (truthful_totals, gets) in [(false, 3), (true, 0)] {
        let unlisted = ["u03".to_owned(), "u17".to_owned()].into();
        let slid = with(directory(0..30), Faults { unlisted, truthful_totals, ..Faults::default() });
        let status = world.completed(&slid).await;
        assert_eq!(world.lines(0), [""; 0]);
        assert_eq!((status.users_read, status.hidden), (Some(30), 2));
        assert_eq!(slid.gets.load(Ordering::Relaxed), gets, "one control and one GET for each missing id");
    }
}

/// G3: without a GET that can be trusted, a missing user is kept and counted.
#[tokio::test(flavor = "multi_thread")]
async fn g3_without_a_usable_get_a_missing_user_is_kept_and_shown() {
    for faults in [
        Faults { get_not_offered: true, ..Faults::default() },
        Faults { get_always_404: true, ..Faults::default() },
        Faults { get_times_out: true, ..Faults::default() },
    ] {
        let mut world = baseline().await;
        // Their group goes on listing them, as on most servers.
        let mut smaller = directory(0..30);
        smaller.users.retain(|id, _| id.as_str() < "u28");
        smaller.faults = faults;
        let status = world.completed(&smaller).await;
        assert_eq!(world.lines(0), [""; 0], "the users stay, and so do their memberships");
        assert_eq!(status.removals_suppressed, 2);
        world.completed(&directory(0..28)).await;
        assert_eq!(world.lines(0).len(), 4, "once GET answers, they go");
    }
}

/// G3: a list shorter than its own total is read again, and fails when it stays short.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_sync_does_not_complete_on_a_list_shorter_than_its_total() {
    let mut world = World::new(account("acme"));
    let unlisted = ["u03".to_owned()].into();
    let short = with(directory(0..30), Faults { unlisted, truthful_totals: true, ..Faults::default() });
    let status = world.sync(&short).await;
    assert_eq!(
        (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
        (Status::Failed, Some("walk_incomplete"))
    );
    assert!(world.known.completed.is_none(), "half a list is not a baseline");
    // Three in a row are an alert.
    assert!(!status.reason.unwrap().contains("removals cannot be seen"));
    world.sync(&short).await;
    world.restart();
    assert!(world.sync(&short).await.reason.unwrap().starts_with("removals cannot be seen"));
    // A second walk that brings the rest makes it whole.
    let slid = Faults { first_walk_only: true, ..short.faults.clone() };
    let status = world.completed(&with(directory(0..30), slid)).await;
    assert_eq!(status.users_read, Some(30));
}

/// G3: the list alone does not prove that a membership ended.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_membership_that_get_still_shows_is_kept() {
    let mut world = baseline().await;
    world.account_mut().limits.min_losses = 1_000;
    let hides = with(directory(0..30), Faults { list_hides_members_of: ["g1".to_owned()].into(), ..Faults::default() });
    world.completed(&hides).await;
    assert_eq!(world.lines(0), [""; 0]);
    // The disagreement is looked at again each time, and the true end is seen.
    let mut ended = directory(0..30);
    ended.groups.get_mut("g1").unwrap()["members"] = serde_json::json!([{ "value": "u00" }]);
    ended.faults = hides.faults.clone();
    world.completed(&ended).await;
    assert_eq!(world.lines(0).len(), 29);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_told_in_the_numbers_of_the_configuration() {
    let mut world = baseline().await;
    (world.account_mut().limits.max_ratio, world.account_mut().limits.min_losses) = (0.07, 1);
    let reason = world.sync(&directory(0..20)).await.reason.unwrap();
    assert!(reason.ends_with("the limit is 7 % (from 1 loss) or 500"), "{reason}");
}

/// G4: a loss beyond the limit is held whole, additions included, until released.
#[tokio::test(flavor = "multi_thread")]
async fn g4_a_mass_removal_is_held_whole_until_it_is_released() {
    let mut world = baseline().await;
    let mut shrunken = directory(0..20);
    shrunken.users.insert("new".into(), serde_json::json!({ "id": "new", "userName": "newcomer" }));
    let status = world.sync(&shrunken).await;
    assert_eq!(
        (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
        (Status::Held, Some("mass_change"))
    );
    assert_eq!(status.hold.as_ref().unwrap().to_string(), "1-u10-g0-m0-d0-a0");
    assert_eq!(status.reason.unwrap(), "10 of 30 users would go; the limit is 20 % (from 5 losses) or 500");
    assert_eq!(world.lines(0), [""; 0], "additions wait too");

    // It survives restarts and repeated syncs, which compute it again.
    world.restart();
    assert_eq!(world.sync(&shrunken).await.status, Status::Held);

    // A release of something smaller does not fit and is replaced by the hold.
    release(&mut world, "1-u9-g0-m0-d0-a0").await;
    let status = world.sync(&shrunken).await;
    assert_eq!((status.status, status.release), (Status::Held, None));

    // A release of another base is ignored.
    release(&mut world, "7-u99-g0-m0-d0-a0").await;
    assert_eq!(world.sync(&shrunken).await.status, Status::Held);

    release(&mut world, "1-u10-g0-m0-d0-a0").await;
    world.restart();
    let status = world.completed(&shrunken).await;
    assert_eq!(world.lines(0).len(), 1 + 10 + 10, "one added, ten memberships and ten users removed");
    let release = status.release.unwrap();
    assert_eq!((release.by.as_str(), release.left), ("a person", None), "the sync that published names its releaser");
    let status = world.completed(&shrunken).await;
    assert_eq!((status.hold, status.release), (None, None), "and ends with it");
}

/// G4: a directory that recovers drops the hold by itself.
#[tokio::test(flavor = "multi_thread")]
async fn g4_a_directory_that_recovers_drops_the_hold() {
    let mut world = baseline().await;
    assert_eq!(world.sync(&directory(0..10)).await.status, Status::Held);
    let status = world.completed(&directory(0..30)).await;
    assert_eq!((status.hold, world.lines(0)), (None, vec![]));
}

/// G3: a user that a GET finds counts as seen, with any number of them and any other hold.
#[tokio::test(flavor = "multi_thread")]
async fn principals_that_only_get_finds_stay_and_do_not_fail_later_syncs() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.trust_total = false;
    let unlisted: std::collections::BTreeSet<String> = (0..12).map(|n| format!("u{n:02}")).collect();
    let faults = Faults { unlisted, ..Faults::default() };
    let status = world.completed(&with(directory(0..30), faults.clone())).await;
    assert_eq!((status.memberships_read, status.hidden, status.dangling), (Some(30), 12, 0));
    for _ in 0..2 {
        let status = world.completed(&with(directory(0..30), faults.clone())).await;
        assert_eq!((status.hidden, world.lines(0)), (12, vec![]));
    }
    // A real hold is still a hold.
    let mut disabled = with(directory(0..30), faults.clone());
    for user in disabled.users.values_mut().skip(15).take(10) {
        user["active"] = serde_json::json!(false);
    }
    assert_eq!(world.sync(&disabled).await.status, Status::Held);
    // One of them is really gone, another one is listed again. A day later at most that is known.
    advance(DAY);
    let mut moved = with(directory(0..30), faults);
    moved.users.remove("u03");
    moved.faults.unlisted.remove("u04");
    let status = world.completed(&moved).await;
    assert_eq!(status.hidden, 10);
    assert_eq!(world.lines(0), ["membership.removed u03 in g1 (not_found)", "user.removed u03 (not_found)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_survives_a_failed_sync_and_can_still_be_released() {
    let mut world = baseline().await;
    let hold = world.sync(&directory(0..20)).await.hold.unwrap();
    let broken = with(directory(0..20), Faults { fails_at: Some((0, Kind::User)), ..Faults::default() });
    let status = world.sync(&broken).await;
    assert_eq!((status.status, status.hold.as_ref()), (Status::Failed, Some(&hold)));
    release(&mut world, &hold.to_string()).await;
    world.completed(&directory(0..20)).await;
}

/// G2: the events, applied to the baseline, give what the topics hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_active_that_is_released_is_an_event_of_each_user_who_had_it() {
    let mut world = baseline().await;
    let users = (0..10).map(|n| format!("u{n:02}"));
    let mut without = with(directory(0..30), Faults { without_active: users.collect(), ..Faults::default() });
    let hold = world.sync(&without).await.hold.unwrap().to_string();
    release(&mut world, &hold).await;
    without.users.get_mut("u03").unwrap()["title"] = serde_json::json!("U");
    world.completed(&without).await;
    let expected = (0..10).map(|n| match n {
        3 => r#"user.updated u03 active true → none title "T" → "U""#.to_owned(),
        _ => format!("user.updated u{n:02} active true → none"),
    });
    assert_eq!(world.lines(0), expected.collect::<Vec<_>>());
    world.completed(&without).await;
    assert_eq!(world.lines(10), [""; 0], "and once");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_released_in_advance() {
    let mut world = baseline().await;
    release(&mut world, "1-u30-g9-m99-d99-a99").await;
    assert_eq!(world.sync(&directory(0..10)).await.status, Status::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_and_a_group_may_share_an_id() {
    let mut world = World::new(account("acme"));
    let with_members = |members: serde_json::Value| {
        let mut directory = MemoryDirectory::parse("user 1 ann\nuser 2 bob\ngroup 1 One:\ngroup 2 Two:");
        directory.groups.get_mut("2").unwrap()["members"] = members;
        directory
    };
    let both = serde_json::json!([{ "value": "1", "type": "User" }, { "value": "1", "type": "Group" }]);
    assert_eq!(world.completed(&with_members(both)).await.memberships_read, Some(2));
    world.completed(&with_members(serde_json::json!([{ "value": "1", "type": "Group" }]))).await;
    assert_eq!(world.lines(0), ["membership.removed 1 in 2 (not_listed)"]);
}

/// G3: an answer that changes within a sync removes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_user_who_is_listed_after_all_is_not_removed_by_an_earlier_404() {
    let mut world = baseline().await;
    let unlisted = ["u03".to_owned()].into();
    let faults = Faults {
        unlisted,
        first_walk_only: true,
        truthful_totals: true,
        first_get_404: Some("u03".into()),
        ..Faults::default()
    };
    // Another user is missing too and does not answer, so the list is short and is walked twice.
    let mut slid = with(directory(0..30), faults);
    slid.faults.unlisted.insert("u04".into());
    slid.faults.silent = Some("u04".into());
    world.completed(&slid).await;
    assert_eq!(world.lines(0), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_get_did_not_answer_is_asked_again() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.trust_total = false;
    let unlisted = ["u03".to_owned()].into();
    let mut unsure = with(directory(0..6), Faults { unlisted, silent: Some("u03".into()), ..Faults::default() });
    let status = world.completed(&unsure).await;
    assert_eq!((status.memberships_read, status.dangling), (Some(5), 0));
    unsure.faults.silent = None;
    let status = world.completed(&unsure).await;
    assert_eq!((status.memberships_read, status.hidden), (Some(6), 1));
    assert_eq!(world.lines(0), ["user.added u03", "membership.added u03 in g1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_lists_leave_out_but_get_shows_are_no_reason_for_a_hold() {
    let mut world = baseline().await;
    let hides = with(directory(0..30), Faults { list_hides_members_of: ["g1".to_owned()].into(), ..Faults::default() });
    assert_eq!(world.sync(&hides).await.status, Status::Completed);
    assert_eq!(world.lines(0), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_on_a_small_directory_is_held_however_few_users_it_has() {
    let mut world = World::new(account("acme"));
    world.completed(&MemoryDirectory::parse("user u1 ann\nuser u2 bob")).await;
    let other = MemoryDirectory::parse("user x1 xenia\nuser x2 yves\nuser x3 zoe");
    let status = world.sync(&other).await;
    assert_eq!(status.status, Status::Held);
    assert_eq!(status.hold.unwrap().to_string(), "1-u2-g0-m0-d0-a0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_is_held_and_once_released_removes_by_get_of_the_other_kind() {
    let mut world = baseline().await;
    let mut emptied = directory(0..0);
    let status = world.sync(&emptied).await;
    assert_eq!((status.status, status.users_read), (Status::Held, Some(0)));
    let hold = status.hold.unwrap().to_string();
    assert_eq!(hold, "1-u30-g0-m0-d0-a0");
    release(&mut world, &hold).await;
    world.completed(&emptied).await;
    assert!(world.lines(0).iter().all(|line| line.ends_with("(not_found)")), "{:?}", world.lines(0));
    assert_eq!(world.lines(0).len(), 60);

    // Where not even that control answers, the repeated empty list is the proof.
    let mut world = baseline().await;
    emptied.faults.get_not_offered = true;
    let hold = world.sync(&emptied).await.hold.unwrap().to_string();
    release(&mut world, &hold).await;
    world.completed(&emptied).await;
    assert!(world.lines(0).iter().all(|line| line.ends_with("(absent)")), "{:?}", world.lines(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_leaves_out_users_who_still_answer_fails_as_incomplete() {
    let mut world = baseline().await;
    let empty = with(directory(0..30), Faults { empty: Some(Kind::User), ..Faults::default() });
    let status = world.sync(&empty).await;
    assert_eq!(
        (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
        (Status::Failed, Some("list_incomplete"))
    );
    assert!(empty.gets.load(Ordering::Relaxed) <= 21, "a control and a sample are enough");
    let unlisted = (0..12).map(|n| format!("u{n:02}")).collect();
    let status = world.sync(&with(directory(0..30), Faults { unlisted, ..Faults::default() })).await;
    assert_eq!(status.reason_code.as_ref().map(ReasonCode::as_str), Some("list_incomplete"));
    assert_eq!(world.lines(0), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn disabling_many_and_losing_an_attribute_of_many_are_held() {
    let mut world = baseline().await;
    let mut disabled = directory(0..30);
    for user in disabled.users.values_mut().take(10) {
        user["active"] = serde_json::json!(false);
    }
    assert_eq!(world.sync(&disabled).await.hold.unwrap().to_string(), "1-u0-g0-m0-d10-a0");
    let mut narrowed = directory(0..30);
    for user in narrowed.users.values_mut().take(10) {
        user.as_object_mut().unwrap().remove("title");
    }
    let status = world.sync(&narrowed).await;
    let hold = status.hold.unwrap().to_string();
    assert_eq!(hold, "1-u0-g0-m0-d0-a10");
    release(&mut world, &hold).await;
    world.completed(&narrowed).await;
    assert_eq!(world.lines(0).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_unknown_habits_that_shows_no_member_any_more_is_held() {
    let mut groupless = World::new(account("acme"));
    groupless.account_mut().habits.empty_members_are_none = false;
    let status = groupless.completed(&MemoryDirectory::parse("user u1 ann")).await;
    assert_eq!(status.memberships_read, Some(0), "without a group there is no membership");
    let mut world = World::new(account("acme"));
    world.account_mut().habits.empty_members_are_none = false;
    world.completed(&directory(0..6)).await;
    let mut silent = directory(0..6);
    for group in silent.groups.values_mut() {
        group.as_object_mut().unwrap().remove("members");
    }
    let status = world.sync(&silent).await;
    assert_eq!((status.status, status.memberships_as_of), (Status::Held, Some(1)));
    assert_eq!(world.lines(0), [""; 0]);
    // If no group can be asked for by itself, the list may only lack the permission to show them. They stay, and the
    // status says so.
    silent.faults.get_not_offered = true;
    let status = world.completed(&silent).await;
    assert_eq!((status.memberships_read, world.lines(0)), (None, vec![]));
    assert!(status.findings[0].contains("empty_members"), "{:?}", status.findings);
    let status = world.completed(&directory(0..6)).await;
    assert_eq!((status.memberships_read, world.lines(0)), (Some(6), vec![]));
}

/// Users without groups: nothing but the rule under test matters.
fn users(ids: std::ops::Range<usize>) -> MemoryDirectory {
    MemoryDirectory::parse(&ids.map(|n| format!("user u{n:02} name{n}\n")).collect::<String>())
}

/// G3: where GET is not available, absence in three complete walks is the rule, and it survives restarts.
#[tokio::test(flavor = "multi_thread")]
async fn g3_without_get_absence_in_three_complete_walks_is_the_proof() {
    let not_offered = Faults { get_not_offered: true, ..Faults::default() };
    let always_404 = Faults { get_always_404: true, ..Faults::default() };
    for faults in [not_offered, always_404] {
        let mut world = World::new(account("acme"));
        world.completed(&users(0..30)).await;
        let smaller = with(users(0..28), faults.clone());
        for walk in 1..=2 {
            let status = world.completed(&smaller).await;
            assert_eq!((world.lines(0), status.removals_suppressed), (vec![], 2), "walk {walk}");
            // As `run --once` from cron: every sync starts with what Kafka holds.
            world.restart();
            let broken = with(users(0..28), Faults { fails_at: Some((3, Kind::User)), ..faults.clone() });
            assert_eq!(world.sync(&broken).await.status, Status::Failed, "a failed walk does not count");
        }
        assert!(smaller.gets.load(Ordering::Relaxed) <= 4, "only the controls are asked");
        let status = world.completed(&smaller).await;
        assert_eq!(world.lines(0), ["user.removed u28 (absent)", "user.removed u29 (absent)"]);
        assert_eq!(status.removals_suppressed, 0);
    }
}

/// G3: a user that is listed again in between starts from the beginning, and no event says that it was ever missing.
#[tokio::test(flavor = "multi_thread")]
async fn g3_the_count_of_missing_walks_starts_again_when_the_principal_is_listed() {
    let faults = Faults { get_not_offered: true, ..Faults::default() };
    let mut world = World::new(account("acme"));
    world.completed(&users(0..30)).await;
    for _ in 0..3 {
        for _ in 0..2 {
            world.completed(&with(users(0..29), faults.clone())).await;
        }
        world.completed(&with(users(0..30), faults.clone())).await;
    }
    assert_eq!(world.lines(0), [""; 0]);
    let entry = world.known.table(Kind::User).get("u29").unwrap();
    assert_eq!((entry.missing_since, entry.missing_walks), (None, 0));
}

/// G3: a control GET that does not answer makes a walk that counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_walk_whose_control_does_not_answer_is_not_counted() {
    let mut world = World::new(account("acme"));
    world.completed(&users(0..30)).await;
    for _ in 0..5 {
        world.completed(&with(users(0..29), Faults { get_times_out: true, ..Faults::default() })).await;
    }
    let refused = with(users(0..29), Faults { get_not_offered: true, ..Faults::default() });
    world.completed(&refused).await;
    world.completed(&refused).await;
    assert_eq!(world.lines(0), [""; 0]);
    world.completed(&refused).await;
    assert_eq!(world.lines(0), ["user.removed u29 (absent)"]);
}

/// G3: a user that GET once found although no list showed it is never removed by absence.
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_hidden_user_is_never_removed_by_absence() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.trust_total = false;
    world.completed(&users(0..30)).await;
    let hidden = Faults { unlisted: ["u29".to_owned()].into(), ..Faults::default() };
    world.completed(&with(users(0..30), hidden.clone())).await;
    for _ in 0..5 {
        advance(DAY);
        let refused = Faults { get_not_offered: true, ..hidden.clone() };
        let status = world.completed(&with(users(0..30), refused)).await;
        assert_eq!((status.hidden, world.lines(0)), (1, vec![]));
    }
}

/// G4: if absence is the rule, the guard looks at the walk that would remove.
#[tokio::test(flavor = "multi_thread")]
async fn g4_where_absence_is_the_rule_the_walk_that_would_remove_is_held() {
    let mut world = World::new(account("acme"));
    world.completed(&users(0..30)).await;
    let smaller = with(users(0..20), Faults { get_not_offered: true, ..Faults::default() });
    for _ in 0..2 {
        assert_eq!(world.completed(&smaller).await.removals_suppressed, 10);
    }
    for _ in 0..2 {
        let status = world.sync(&smaller).await;
        assert_eq!((status.status, status.hold.unwrap().to_string().as_str()), (Status::Held, "3-u10-g0-m0-d0-a0"));
        world.restart();
    }
    release(&mut world, "3-u10-g0-m0-d0-a0").await;
    world.completed(&smaller).await;
    assert_eq!(world.lines(0).len(), 10);
}

/// G4: another tenant's directory is held in its first walk, whatever the rule of removals.
#[tokio::test(flavor = "multi_thread")]
async fn g4_another_directory_behind_the_same_token_is_held_at_once() {
    for faults in [Faults::default(), Faults { get_not_offered: true, ..Faults::default() }] {
        let mut world = World::new(account("acme"));
        world.completed(&users(0..42)).await;
        // One of ours is known as hidden: its absence from the list proves nothing.
        let other = with(users(50..92), faults);
        let status = world.sync(&other).await;
        assert_eq!(
            (status.status, status.reason_code.as_ref().map(ReasonCode::as_str)),
            (Status::Held, Some("mass_change"))
        );
        assert_eq!(status.hold.unwrap().to_string(), "1-u42-g0-m0-d0-a0");
        assert_eq!(world.lines(0), [""; 0]);
    }
}

/// G4: hidden users count neither as seen again nor as lost.
#[tokio::test(flavor = "multi_thread")]
async fn g4_hidden_users_do_not_vouch_for_another_directory() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.trust_total = false;
    world.completed(&users(0..4)).await;
    let hidden = Faults { unlisted: ["u03".to_owned()].into(), ..Faults::default() };
    world.completed(&with(users(0..4), hidden)).await;
    let status = world.sync(&users(50..54)).await;
    assert_eq!((status.status, status.hold.unwrap().to_string().as_str()), (Status::Held, "2-u3-g0-m0-d0-a0"));
}

/// Inactive users that lists leave out are disabled, not removed, and come back as enabled.
#[tokio::test(flavor = "multi_thread")]
async fn inactive_users_that_lists_hide_are_disabled_and_come_back() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.hides_inactive = true;
    world.completed(&users(0..30)).await;
    let mut hiding = users(0..30);
    hiding.users.get_mut("u07").unwrap()["active"] = serde_json::json!(false);
    hiding.faults.unlisted = ["u07".to_owned()].into();
    let status = world.completed(&hiding).await;
    assert_eq!(world.lines(0), ["user.disabled u07 active true → false"]);
    assert_eq!((status.hidden, status.users_read), (1, Some(30)));
    world.restart();
    world.completed(&users(0..30)).await;
    assert_eq!(world.lines(1), ["user.enabled u07 active false → true"]);
    assert_eq!(world.known.table(Kind::User).get("u07").unwrap().missing_since, None);
}

/// G4: many of them at once are held as disabled users; the release covers them.
#[tokio::test(flavor = "multi_thread")]
async fn g4_many_hidden_inactive_users_are_held_as_disabled() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.hides_inactive = true;
    world.completed(&users(0..30)).await;
    let mut hiding = users(0..30);
    for n in 0..12 {
        let id = format!("u{n:02}");
        hiding.users.get_mut(&id).unwrap()["active"] = serde_json::json!(false);
        hiding.faults.unlisted.insert(id);
    }
    let status = world.sync(&hiding).await;
    let hold = status.hold.unwrap().to_string();
    assert_eq!((status.status, hold.as_str()), (Status::Held, "1-u12-g0-m0-d12-a0"));
    assert!(status.reason.unwrap().contains("inactive"), "the reason says so");
    release(&mut world, &hold).await;
    world.completed(&hiding).await;
    assert!(world.lines(0).iter().all(|line| line.starts_with("user.disabled")), "{:?}", world.lines(0));
    assert_eq!(world.lines(0).len(), 12);
}

/// Hidden users are asked for within a budget and a day, so the number of GETs stays bounded.
#[tokio::test(flavor = "multi_thread")]
async fn hidden_users_are_asked_for_once_a_day_within_the_budget() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.trust_total = false;
    world.account_mut().limits.max_ratio = 1.0;
    let text: String = (0..700).map(|n| format!("user u{n:03} name{n}\n")).collect();
    let mut directory = MemoryDirectory::parse(&text);
    world.completed(&directory).await;
    directory.faults.unlisted = (0..450).map(|n| format!("u{n:03}")).collect();
    world.completed(&directory).await;
    let gets = |directory: &MemoryDirectory| directory.gets.swap(0, Ordering::Relaxed);
    assert_eq!(gets(&directory), 451, "missing unexpectedly: a control, and everyone within the guard's limits");
    let status = world.completed(&directory).await;
    assert_eq!((gets(&directory), status.hidden), (0, 450), "no user is due");
    advance(DAY);
    let status = world.completed(&directory).await;
    assert_eq!((gets(&directory), status.hidden), (201, 450), "a control and the budget");
    // In 48 syncs a day every hidden user is asked for once, and a removed one is found.
    directory.users.remove("u123");
    let mut asked = 0;
    for _ in 0..48 {
        advance(DAY / 48);
        world.completed(&directory).await;
        let count = gets(&directory);
        assert!(count <= 201, "{count} GETs in one sync");
        asked += count;
    }
    assert!((450..=450 + 48 + 48).contains(&asked), "{asked}");
    assert_eq!(world.lines(0), ["user.removed u123 (not_found)"]);
}

/// G3: one GET that answers 404 for a listed id (it may just have been deleted) is not yet "GET is not available".
#[tokio::test(flavor = "multi_thread")]
async fn g3_a_second_control_decides_where_the_first_one_says_404() {
    let mut world = World::new(account("acme"));
    world.completed(&users(0..30)).await;
    // The smallest listed id is the first control.
    let faults = Faults { first_get_404: Some("u00".into()), ..Faults::default() };
    world.completed(&with(users(0..29), faults)).await;
    assert_eq!(world.lines(0), ["user.removed u29 (not_found)"]);
}

/// A directory that serves no groups keeps its known groups, and says that they were not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_groups_loses_none() {
    let mut world = baseline().await;
    world.account_mut().habits.groups = false;
    let only_users = users(0..30).showing(scimtail::directory::Strategy::Never);
    let mut only_users = only_users;
    for user in only_users.users.values_mut() {
        user["title"] = serde_json::json!("T");
    }
    let status = world.completed(&only_users).await;
    assert_eq!((status.groups_read, status.memberships_read, status.memberships_as_of), (None, None, Some(1)));
    assert_eq!(world.lines(0), [""; 0]);
    assert_eq!(world.known.memberships_len(), 30);
}
