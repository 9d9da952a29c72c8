//! An account's first sync is cut off on the way. The next one goes on, and publishes no event about a resource that
//! was new only to scimtail.

use bytes::Bytes;
use futures::Stream;
use scimtail::directory::{AttributeList, Baseline, Id, Kind, ReasonCode, Status};
use scimtail::log::Topic;
use scimtail::scim::ReadError;
use scimtail::scim::directory::parse_row;
use scimtail::scim::envelope::raw_row;
use scimtail::scim::resource::Reading;
use scimtail::source::{Answer, Directory, Page, Parsed, RawRow};
use serde_json::{Value, json};

use crate::memory::{Crash, Faults, MemoryDirectory, World, account, advance, clock};

const BEFORE: &str =
    "user u1 ann\nuser u2 bob\nuser u3 cid\nuser u4 dan\nuser u5 eve\ngroup g1 Admins: u1 u2 u5\ngroup g2 Staff: u3 u4";
/// u2 is gone, u3 renamed, u4 inactive, u6 new; g2 is gone, g1 lost u5 and won u6.
const AFTER: &str = "user u1 ann\nuser u3 cyd\nuser u4 dan inactive\nuser u5 eve\nuser u6 fay\ngroup g1 Admins: u1 u6\ngroup g3 New: u1";

/// A first sync that was cut off after `commits` transactions.
async fn interrupted(baseline: Baseline, commits: usize) -> World {
    let mut world = World::new(account("acme"));
    world.account_mut().baseline = baseline;
    *world.log.crash.lock().unwrap() = Some(Crash::Before(commits));
    assert!(world.try_sync(&MemoryDirectory::parse(BEFORE)).await.is_err());
    world.restart();
    assert!(world.known.is_first());
    world
}

/// The state by key, as it would be without the interruption.
async fn calm(text: &str) -> Vec<String> {
    let mut world = World::new(account("acme"));
    world.completed(&MemoryDirectory::parse(text)).await;
    world.log.state().into_keys().map(|(_, key)| key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_first_sync_goes_on_silently() {
    for commits in 1..4 {
        let mut world = interrupted(Baseline::State, commits).await;
        let status = world.completed(&MemoryDirectory::parse(AFTER)).await;
        assert_eq!(world.lines(0), [""; 0], "after {commits} transactions");
        let keys: Vec<String> = world.log.state().into_keys().map(|(_, key)| key).collect();
        assert_eq!(keys, calm(AFTER).await, "after {commits} transactions");
        assert_eq!(status.sequence, 0);
        // From here on every difference is published.
        world.completed(&MemoryDirectory::parse(BEFORE)).await;
        assert!(!world.lines(0).is_empty());
        assert!(world.log.events().iter().all(|event| !event.snapshot));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_first_sync_with_events_goes_on_with_snapshots_removals_too() {
    for commits in 1..4 {
        let mut world = interrupted(Baseline::Events, commits).await;
        let before = world.log.events().len();
        world.completed(&MemoryDirectory::parse(AFTER)).await;
        let events = world.log.events();
        assert!(events.iter().all(|event| event.snapshot), "after {commits} transactions");
        let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=events.len() as i64).collect::<Vec<_>>());
        let removed: Vec<String> = world.lines(before).into_iter().filter(|line| line.contains("removed")).collect();
        // Only written state can be removed.
        let written: Vec<&str> = events[..before].iter().map(|event| event.principal_id.as_str()).collect();
        assert_eq!(
            removed.contains(&"user.removed u2 (not_found) snapshot".to_owned()),
            written.contains(&"u2"),
            "after {commits} transactions: {removed:?}"
        );
        let keys: Vec<String> = world.log.state().into_keys().map(|(_, key)| key).collect();
        assert_eq!(keys, calm(AFTER).await);
    }
}

/// G3: a first sync that goes on removes no user or group without proof either.
#[tokio::test(flavor = "multi_thread")]
async fn g3_an_interrupted_first_sync_removes_only_what_is_proven_gone() {
    for faults in [
        Faults { get_times_out: true, ..Faults::default() },
        Faults { get_not_offered: true, ..Faults::default() },
        Faults { get_always_404: true, ..Faults::default() },
    ] {
        let mut world = interrupted(Baseline::State, 3).await;
        let known = world.known.table(Kind::User).len();
        assert!(world.known.table(Kind::User).contains("u2"), "{known} users were written");
        let mut directory = MemoryDirectory::parse(AFTER);
        directory.faults = faults;
        let status = world.completed(&directory).await;
        assert!(world.known.table(Kind::User).contains("u2"));
        assert!(status.removals_suppressed >= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_does_not_apply_to_a_first_sync_and_applies_to_the_second() {
    let mut world = interrupted(Baseline::State, 3).await;
    let status = world.completed(&MemoryDirectory::parse("user u9 zoe")).await;
    assert_eq!((status.users_read, world.lines(0)), (Some(1), vec![]));
    assert_eq!(world.sync(&MemoryDirectory::parse("user u8 yan")).await.status, Status::Held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_first_sync_leaves_the_next_one_a_first_sync() {
    let mut world = World::new(account("acme"));
    let mut broken = MemoryDirectory::parse(BEFORE);
    broken.faults.fails_at = Some((0, Kind::Group));
    for _ in 0..2 {
        assert_eq!(world.sync(&broken).await.status, Status::Failed);
        world.restart();
        advance(1_000);
    }
    let status = world.completed(&MemoryDirectory::parse(BEFORE)).await;
    assert_eq!((status.sync, world.lines(0)), (3, vec![]));
}

/// G11: a directory that never answers does not hold its account for ever.
#[tokio::test(start_paused = true)]
async fn g11_a_sync_that_does_not_end_fails_at_its_deadline() {
    let mut world = World::new(account("acme"));
    let mut silent = MemoryDirectory::parse(BEFORE);
    silent.faults.never_answers = true;
    let status = world.sync(&silent).await;
    assert_eq!(status.reason_code.as_ref().map(ReasonCode::as_str), Some("sync_timeout"));
    world.completed(&MemoryDirectory::parse(BEFORE)).await;
}

/// G11: if there are more users and groups than the account allows, the sync fails by its name.
#[tokio::test(flavor = "multi_thread")]
async fn g11_a_directory_larger_than_its_account_says_fails() {
    let mut world = World::new(account("acme"));
    world.account_mut().max_principals = 3;
    let status = world.sync(&MemoryDirectory::parse(BEFORE)).await;
    assert_eq!(status.reason_code.as_ref().map(ReasonCode::as_str), Some("too_many_principals"));
    assert!(status.reason.unwrap().contains("[account.limits] max_principals"));
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_unknown_from_the_beginning_are_none_read_and_no_news_once_shown() {
    let mut world = World::new(account("acme"));
    world.account_mut().habits.empty_members_are_none = false;
    let mut silent = MemoryDirectory::parse(BEFORE);
    for group in silent.groups.values_mut() {
        group.as_object_mut().unwrap().remove("members");
    }
    let status = world.completed(&silent).await;
    assert_eq!((status.memberships_read, status.memberships_as_of), (None, None));
    // Principals that no completed sync had read are read for the first time: it is not known whether any of them is
    // new.
    let status = world.completed(&MemoryDirectory::parse(BEFORE)).await;
    assert_eq!((status.memberships_read, status.memberships_as_of), (Some(5), Some(2)));
    assert_eq!((world.lines(0), world.known.memberships_len()), (vec![], 5));
}

/// Users whose rows lie on these pages, and an error behind them if it is so.
struct Pages {
    users: Vec<Vec<Value>>,
    fails: bool,
}

impl Directory for Pages {
    type Error = ReadError;

    fn list(&self, kind: Kind, _since: Option<i64>) -> impl Stream<Item = Result<Page, ReadError>> + Send {
        let rows = |values: &[Value]| values.iter().map(|value| raw_row(Bytes::from(value.to_string()))).collect();
        let page = |values: &[Value]| Ok(Page { rows: rows(values), received_at: clock(), ..Page::default() });
        let users = if kind == Kind::User { &self.users[..] } else { &[] };
        let mut pages: Vec<Result<Page, ReadError>> = users.iter().map(|values| page(values)).collect();
        pages.push(match self.fails && kind == Kind::User {
            true => Err(ReadError::new(ReasonCode::HttpStatus, "the server answers HTTP 500")),
            false => page(&[]),
        });
        futures::stream::iter(pages)
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        parse_row(kind, page, row, &Reading::plain(AttributeList::default()))
    }

    async fn get(&self, _kind: Kind, _id: &Id) -> Answer {
        Answer::NotFound
    }

    async fn matching(&self, _: Kind, _: &'static str, _: &Id) -> Result<Vec<Id>, ReadError> {
        Ok(Vec::new())
    }
}

fn user(id: usize, title: &str) -> Value {
    json!({ "id": format!("u{id}"), "userName": format!("user {id}"), "active": true, "title": title })
}

fn with_events() -> World {
    let mut world = World::new(account("acme"));
    world.account_mut().baseline = Baseline::Events;
    world
}

/// What was read before the failure is written, and said so in the record of the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_writes_users_as_their_pages_come() {
    let mut world = with_events();
    let pages =
        |fails| Pages { users: (0..4).map(|page| vec![user(2 * page, "A"), user(2 * page + 1, "A")]).collect(), fails };
    let status = world.sync_with(&pages(true)).await;
    // Those of the last page were not enough for a transaction.
    assert_eq!((status.status, status.state_records, status.sequence), (Status::Failed, 6, 6));
    assert!(world.known.completed.is_none());
    // Each transaction has the newest record of the attempt as it was then.
    let latest = world.log.statuses().into_iter().filter(|(key, _)| key == "acme/latest");
    let records: Vec<(String, i64)> = latest.map(|(_, record)| (record.status, record.state_records)).collect();
    assert!(records.len() > 2 && records[0].1 == 2, "{records:?}");
    assert!(records.is_sorted_by_key(|(_, records)| *records), "{records:?}");
    // The next sync goes on: none of them is added twice.
    advance(1_000);
    let status = world.sync_with(&pages(false)).await;
    assert_eq!((status.status, status.users_read, status.sequence), (Status::Completed, Some(8), 8));
    assert!(world.lines(0).iter().all(|line| line.starts_with("user.added")));
}

/// A row that slides to the next page while it changes is compared with what was written, and nothing of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_comes_again_on_a_later_page_is_added_once() {
    let mut world = with_events();
    let mut untitled = user(2, "");
    untitled.as_object_mut().unwrap().remove("title");
    let pages = Pages { users: vec![vec![user(1, "A"), untitled], vec![user(2, "B"), user(3, "A")]], fails: false };
    let status = world.sync_with(&pages).await;
    assert_eq!((status.status, status.users_read), (Status::Completed, Some(3)));
    let lines = world.lines(0);
    let of = |begin: &str| lines.iter().filter(|line| line.starts_with(begin)).cloned().collect::<Vec<_>>();
    assert_eq!(of("user.added"), ["user.added u1 snapshot", "user.added u2 snapshot", "user.added u3 snapshot"]);
    assert_eq!(of("user.updated").len(), 1, "{lines:?}");
    assert_eq!(world.known.table(Kind::User).principal("u2").unwrap().attributes["title"], "\"B\"");
    // Unchanged, and no news.
    let before = world.log.events().len();
    advance(1_000);
    world.sync_with(&pages).await;
    assert_eq!(world.lines(before), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_follows_its_user_and_its_group_in_a_first_sync_that_streams() {
    let mut world = with_events();
    world.completed(&MemoryDirectory::parse(BEFORE)).await;
    let lines = world.lines(0);
    let place = |begin: &str| lines.iter().position(|line| line.starts_with(begin)).unwrap();
    for (user, group) in [("u1", "g1"), ("u2", "g1"), ("u5", "g1"), ("u3", "g2"), ("u4", "g2")] {
        let membership = place(&format!("membership.added {user} in {group}"));
        assert!(
            place(&format!("user.added {user} ")) < membership && place(&format!("group.added {group} ")) < membership
        );
    }
    let names = world.log.events().into_iter().filter(|event| event.event_type == "membership.added");
    assert!(names.into_iter().all(|event| event.principal_name.is_some() && event.group_name.is_some()));
}

/// Wherever it is cut off: the next owner knows what the log holds, and adds none of them twice.
#[tokio::test(flavor = "multi_thread")]
async fn g1_a_first_sync_that_streams_adds_no_user_twice_wherever_it_is_cut_off() {
    let pages =
        || Pages { users: (0..5).map(|page| vec![user(page, "A"), user(page + 1, "A")]).collect(), fails: false };
    for crash in (0..6).flat_map(|number| [Crash::Before(number), Crash::After(number), Crash::Abort(number)]) {
        let mut world = with_events();
        *world.log.crash.lock().unwrap() = Some(crash);
        drop(world.try_sync_with(&pages()).await);
        world.restart();
        advance(1_000);
        let status = world.sync_with(&pages()).await;
        assert_eq!((status.status, status.users_read), (Status::Completed, Some(6)), "{crash:?}");
        let mut added: Vec<String> = world.lines(0);
        added.sort_unstable();
        added.dedup();
        assert_eq!(added.len(), world.log.events().len(), "{crash:?}");
        assert_eq!(added.len(), 6, "{crash:?}: {added:?}");
        let users = world.log.state().into_keys().filter(|(topic, _)| *topic == Topic::Users).count();
        assert_eq!(users, 6, "{crash:?}");
    }
}

/// A sync that is called off while a transaction is under way knows what became of it.
#[tokio::test(start_paused = true)]
async fn a_first_sync_that_is_called_off_knows_what_it_has_written() {
    let mut world = with_events();
    let mut directory = MemoryDirectory::parse(BEFORE);
    directory.faults.groups_never_answer = true;
    let status = world.sync(&directory).await;
    assert_eq!(status.reason_code.as_ref().map(ReasonCode::as_str), Some("sync_timeout"));
    assert_eq!((status.state_records, world.known.table(Kind::User).len()), (3, 3));
    assert!(world.known.is_first());
    world.completed(&MemoryDirectory::parse(BEFORE)).await;
    let added = world.lines(0).into_iter().filter(|line| line.starts_with("user.added")).count();
    assert_eq!(added, 5);
}
