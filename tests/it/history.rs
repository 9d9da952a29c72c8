//! `state --as-of`: undoing events on the state gives the state after the sync of that time, for random histories.
//! Where the log does not reach back that far, the command says so.

use std::collections::BTreeMap;

use scimtail::avro::wire::ChangeEvent;
use scimtail::directory::{Baseline, Kind, Known, UNKNOWN_TIME};
use scimtail::history::{AsOf, History, Refusal};
use serde_json::json;

use crate::memory::{Crash, MemoryDirectory, World, account, clock};

const SYNCS: usize = 9;

fn random_directory(random: &mut fastrand::Rng) -> MemoryDirectory {
    let mut directory = MemoryDirectory::default();
    let some = |random: &mut fastrand::Rng, share: u8| random.u8(..) < share;
    for number in 0..8 {
        // u0 is always there: a directory that loses all users is another matter.
        if number == 0 || some(random, 210) {
            let id = format!("u{number}");
            let mut user = json!({ "id": id, "userName": format!("name{number}-{}", random.u8(0..2)) });
            if some(random, 220) {
                user["active"] = json!(some(random, 200));
            }
            if some(random, 128) {
                user["title"] = json!(format!("T\"{}\n", random.u8(0..2)));
            }
            if some(random, 128) {
                user["externalId"] = json!(format!("e{}", random.u8(0..2)));
            }
            if some(random, 128) {
                let kind = if some(random, 128) { "work" } else { "home" };
                user["emails"] = json!([{ "value": format!("a{}@x.example", random.u8(0..2)), "type": kind }, { "value": "b@x.example" }]);
            }
            if some(random, 128) {
                user["meta"] = json!({ "created": format!("2026-01-0{}T00:00:00Z", random.u8(1..3)) });
            }
            directory.users.insert(id, user);
        }
    }
    for number in 0..4 {
        if number == 0 || some(random, 210) {
            let id = format!("g{number}");
            let users = (0..8).filter(|_| random.bool()).map(|user| json!({ "value": format!("u{user}") }));
            let mut members: Vec<_> = users.collect();
            members.push(json!({ "value": format!("g{}", random.u8(0..4)), "type": "Group" }));
            let name = format!("CB/acme.com/ROLE/{}", random.u8(0..3));
            directory.groups.insert(id.clone(), json!({ "id": id, "displayName": name, "members": members }));
        }
    }
    directory
}

/// Known principals and memberships, and since when, by key.
type Contents = BTreeMap<String, (String, i64)>;

fn contents(known: &Known) -> Contents {
    let mut contents = BTreeMap::new();
    for kind in Kind::BOTH {
        for (id, entry) in known.table(kind).iter() {
            let mut principal = entry.packed.unpack(id.clone());
            // It moves without a change of the person.
            principal.last_modified = None;
            contents.insert(format!("{kind:?} {id}"), (format!("{principal:?}"), entry.first_seen_at));
        }
    }
    for (group, member, membership) in known.memberships() {
        contents.insert(format!("{member:?} in {group}"), (String::new(), membership.first_seen_at));
    }
    contents
}

/// A completed sync: when it was over, and what it left.
struct Moment {
    time: i64,
    contents: Contents,
    /// Events so far.
    events: usize,
}

/// The expected answer for a time: the last sync all of whose events had been observed by then.
fn left_at<'m>(moments: &'m [Moment], events: &[ChangeEvent], time: i64) -> &'m Moment {
    let observed = |moment: &&Moment| events[..moment.events].iter().all(|event| event.observed_at <= time);
    moments.iter().rev().find(observed).expect("no event belongs to the first sync, or none is asked for before it")
}

/// The times of all moments, and as many others between the first of them and now.
fn times(moments: &[Moment], random: &mut fastrand::Rng) -> Vec<i64> {
    let all: Vec<i64> = moments.iter().map(|moment| moment.time).collect();
    let (Some(first), now) = (all.first().copied(), clock()) else { return Vec::new() };
    let between: Vec<i64> = all.iter().map(|_| random.i64(first..now)).collect();
    [all, between].concat()
}

/// Syncs random directories, some of them interrupted by a crash; returns the moments and the state at the end.
async fn random_history(seed: u64, baseline: Baseline) -> (World, Vec<Moment>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut account = account("acme");
    account.baseline = baseline;
    account.limits.max_ratio = 1.0;
    account.limits.max_absolute = 1_000;
    let mut world = World::new(account);
    let mut moments = Vec::new();
    let mut directory = random_directory(&mut random);
    for _ in 0..SYNCS {
        // Some syncs find nothing new.
        if random.u8(..) < 160 {
            directory = random_directory(&mut random);
        }
        if random.u8(..) < 60 {
            let next = world.log.commits.load(std::sync::atomic::Ordering::Relaxed) + random.usize(0..3);
            *world.log.crash.lock().unwrap() = Some(Crash::After(next));
            if world.try_sync(&directory).await.is_err() {
                world.restart();
            }
            *world.log.crash.lock().unwrap() = None;
        } else {
            world.sync(&directory).await;
        }
        // If the crash came after the last commit, the sync is complete all the same.
        let (completed, latest) = (&world.known.completed, &world.known.latest);
        if completed.is_some() && completed.as_ref().map(|it| it.sync) == latest.as_ref().map(|it| it.sync) {
            let events = world.log.events().len();
            moments.push(Moment { time: clock(), contents: contents(&world.known), events });
        }
    }
    (world, moments)
}

fn as_of(
    known: &Known,
    events: &[ChangeEvent],
    log_start: Option<i64>,
    time: i64,
) -> Result<(Contents, AsOf), Refusal> {
    let mut known = known.clone();
    let mut history = History::new(time, known.latest.as_ref().expect("a sync").sequence, log_start);
    for event in events {
        history.take(event).expect("an event of our own");
    }
    let as_of = history.undo(&mut known)?;
    Ok((contents(&known), as_of))
}

/// Equal, except that the start of a state may no longer be known.
fn assert_same(told: &Contents, moment: &Moment, words: &str) {
    let bare = |contents: &Contents| -> Vec<(String, String)> {
        contents.iter().map(|(key, (what, _))| (key.clone(), what.clone())).collect()
    };
    assert_eq!(bare(told), bare(&moment.contents), "{words}");
    for (key, (_, since)) in told {
        assert!(*since == UNKNOWN_TIME || *since == moment.contents[key].1, "{words}: {key} since {since}");
    }
}

#[tokio::test]
async fn the_state_as_of_every_sync_is_what_it_had_left() {
    let first = fastrand::u64(..1 << 40);
    println!("seeds from {first}");
    let mut told = 0;
    for (seed, baseline) in (first..first + 120).zip([Baseline::State, Baseline::Events].into_iter().cycle()) {
        let (world, moments) = random_history(seed, baseline).await;
        let events = world.log.events();
        for time in times(&moments, &mut fastrand::Rng::with_seed(seed)) {
            let words = format!("seed {seed}, {baseline:?}, as of {time}");
            let (state, _) =
                as_of(&world.known, &events, None, time).unwrap_or_else(|error| panic!("{words}: {error:?}"));
            assert_same(&state, left_at(&moments, &events, time), &words);
            told += 1;
        }
        // The present state, whichever part of a sync was published before a crash.
        if let Some(newest) = moments.last() {
            let words = format!("seed {seed}, {baseline:?}, as of now");
            let (state, _) =
                as_of(&world.known, &events, None, clock()).unwrap_or_else(|error| panic!("{words}: {error:?}"));
            assert_same(&state, newest, &words);
        }
        // Before the end of the first sync, no state is known.
        if let Some(first) = moments.first() {
            let Err(Refusal::TooEarly(earliest)) = as_of(&world.known, &events, None, 1_600_000_000_000) else {
                panic!("seed {seed}: a time before everything is refused");
            };
            assert!(earliest <= first.time, "seed {seed}: {earliest} is later than {}", first.time);
        }
    }
    assert!(told > 500, "{told} moments");
}

#[tokio::test]
async fn where_old_events_are_gone_the_state_is_told_as_far_back_as_the_rest_reaches() {
    let first = fastrand::u64(..1 << 40);
    println!("seeds from {first}");
    let (mut told, mut refused, mut from_the_beginning) = (0, 0, 0);
    for seed in first..first + 60 {
        let (world, moments) = random_history(seed, Baseline::State).await;
        let events = world.log.events();
        let mut random = fastrand::Rng::with_seed(seed);
        // Kafka drops whole files, wherever they end: in the middle of a sync's records, or between two syncs, where
        // another account's record is the oldest one left.
        let anywhere = random.usize(..=events.len());
        let oldest = events.get(anywhere).filter(|_| random.bool()).map(|event| event.observed_at);
        let between = moments.get(random.usize(..moments.len().max(1)));
        let between = between.map(|moment| {
            let dropped = events.iter().filter(|event| event.observed_at <= moment.time).count();
            (dropped, Some(moment.time))
        });
        for (dropped, log_start) in [Some((anywhere, oldest)), between].into_iter().flatten() {
            let rest = &events[dropped..];
            for time in times(&moments, &mut random) {
                let words = format!("seed {seed}, {dropped} events dropped, log from {log_start:?}, as of {time}");
                match as_of(&world.known, rest, log_start, time) {
                    Ok((state, as_of)) => {
                        assert_same(&state, left_at(&moments, &events, time), &words);
                        assert!(as_of.earliest <= time, "{words}: {as_of:?}");
                        told += 1;
                        // The answer is complete although older events, and the changes in them, are gone.
                        from_the_beginning +=
                            usize::from(Some(as_of.earliest) == log_start && as_of.undone == rest.len());
                    }
                    Err(Refusal::TooEarly(earliest)) => {
                        assert!(earliest > time, "{words}: {earliest}");
                        // Where a sync completed since the log begins and before its first event, nothing is missing.
                        let whole = rest.first().is_none_or(|event| event.window_start >= log_start);
                        assert!(log_start.is_none_or(|from| time < from || !whole), "{words}: {earliest}");
                        refused += 1;
                    }
                    // The sync that a crash interrupted last is not whole.
                    Err(Refusal::Broken(complaint)) => {
                        let words = format!("{words}: {complaint}");
                        assert!(complaint.contains("a sync is still being published"), "{words}");
                        let completed = world.known.completed.as_ref().expect("a sync").started_at;
                        let open = rest.first().is_none_or(|event| event.window_start == Some(completed));
                        assert!(open && dropped > 0, "{words}");
                    }
                }
            }
        }
    }
    assert!(told > 100 && refused > 100 && from_the_beginning > 5, "{told} {refused} {from_the_beginning}");
}

#[tokio::test]
async fn events_that_do_not_lead_to_the_state_are_refused() {
    let (world, moments) = random_history(7, Baseline::State).await;
    let events = world.log.events();
    let (last, time) = (events.len() - 1, moments[0].time);
    assert!(matches!(as_of(&world.known, &events[..last], None, time), Err(Refusal::Broken(_))), "the newest is lost");
    // One sync in the middle: no time before it can be told, any time after it can.
    let mut gap = events.clone();
    gap.remove(last / 2);
    assert!(matches!(as_of(&world.known, &gap, Some(0), time), Err(Refusal::TooEarly(_))));
    let newest = moments.last().expect("a moment");
    let (state, _) = as_of(&world.known, &gap, Some(0), newest.time).expect("nothing is to be undone");
    assert_same(&state, newest, "the newest moment");
}

#[tokio::test]
async fn an_event_that_cannot_be_undone_is_as_one_that_is_missing() {
    let (world, moments) = random_history(7, Baseline::State).await;
    let events = world.log.events();
    let newest = moments.last().expect("a moment");
    for (strange, told_since) in [(events.len() / 2, Some(newest)), (events.len() - 1, None)] {
        let mut known = world.known.clone();
        let sequence = known.latest.as_ref().expect("a sync").sequence;
        let of = |time: i64| {
            let mut history = History::new(time, sequence, Some(0));
            for (place, event) in events.iter().enumerate() {
                let mut event = event.clone();
                if place == strange {
                    event.event_type = "user.promoted".to_owned();
                }
                assert_eq!(history.take(&event).is_err(), place == strange);
            }
            history
        };
        let before = of(moments[0].time).undo(&mut known.clone());
        match told_since {
            Some(newest) => {
                assert!(matches!(before, Err(Refusal::TooEarly(_))), "{before:?}");
                of(newest.time).undo(&mut known).expect("nothing is to be undone");
                assert_same(&contents(&known), newest, "the newest moment");
            }
            None => assert!(matches!(before, Err(Refusal::Broken(_))), "{before:?}"),
        }
    }
}

#[tokio::test]
async fn an_account_without_events_is_told_back_to_its_first_sync() {
    let mut world = World::new(account("acme"));
    let directory = MemoryDirectory::parse("user u1 ann\nuser u2 bob\ngroup g1 Admins: u1");
    let before = clock();
    world.completed(&directory).await;
    let time = clock();
    world.completed(&directory).await;
    let (state, as_of) = as_of(&world.known, &[], None, time).expect("nothing has changed");
    assert_eq!((state, as_of.undone), (contents(&world.known), 0));
    assert!(as_of.earliest > before && as_of.earliest < time);
    assert!(matches!(self::as_of(&world.known, &[], None, before), Err(Refusal::TooEarly(_))));
}
