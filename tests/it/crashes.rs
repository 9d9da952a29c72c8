//! Crashes at every step, on the in-memory log: the result equals the calm run. The diff also has to agree with a naive
//! model on any directories that proptest generates.

use scimtail::directory::{Baseline, ReasonCode, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use scimtail::avro::wire::ChangeEvent;
use scimtail::log::Topic;
use serde_json::json;

use crate::memory::{Crash, MemoryDirectory, World, account};

/// Versions of one directory, drawn from a seed.
fn history(seed: u64, versions: usize) -> Vec<MemoryDirectory> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..versions).map(|_| random_directory(&mut random)).collect()
}

fn random_directory(random: &mut fastrand::Rng) -> MemoryDirectory {
    let mut directory = MemoryDirectory::default();
    for user in 0..8 {
        if random.u8(..) < 200 {
            let (id, title) = (format!("u{user}"), random.u8(0..3));
            let active = random.u8(..) < 200;
            directory.users.insert(
                id.clone(),
                json!({ "id": id, "userName": format!("name{user}"), "title": format!("T{title}"), "active": active }),
            );
        }
    }
    for group in 0..3 {
        if random.u8(..) < 210 {
            let id = format!("g{group}");
            // Members may be dangling, and g0 may be nested in g1.
            let mut members: Vec<String> = (0..8).filter(|_| random.bool()).map(|user| format!("u{user}")).collect();
            if group == 1 && random.bool() {
                members.push("g0".into());
            }
            let members: Vec<_> = members.iter().map(|id| json!({ "value": id })).collect();
            let name = format!("G{group}-{}", random.u8(0..2));
            directory.groups.insert(id.clone(), json!({ "id": id, "displayName": name, "members": members }));
        }
    }
    directory
}

fn world(baseline: Baseline) -> World {
    let mut account = account("acme");
    account.baseline = baseline;
    // Other tests cover the guard. Here everything changes all the time, but at least one user is always seen again.
    account.limits.max_ratio = 1.0;
    World::new(account)
}

/// The part of an event that must not depend on the time or the number of tries.
fn essence(event: &ChangeEvent) -> String {
    let ChangeEvent { event_type, sequence, principal_id, group_id, changes, .. } = event;
    format!("{sequence} {event_type} {principal_id} {group_id:?} {changes:?}")
}

/// State without the fields that depend on the attempt's number or times.
fn meaning(world: &World) -> BTreeMap<(Topic, String), String> {
    let known = &world.known;
    let mut meaning = BTreeMap::new();
    for (kind, topic) in
        [(scimtail::directory::Kind::User, Topic::Users), (scimtail::directory::Kind::Group, Topic::Groups)]
    {
        for (id, entry) in known.table(kind).iter() {
            let text = format!("{:?} {} {:?}", entry.packed.unpack(id.clone()), entry.sequence, known.dangling(id));
            meaning.insert((topic, id.to_string()), text);
        }
    }
    for (group, member, membership) in known.memberships() {
        meaning.insert((Topic::Memberships, format!("{group} {member:?}")), membership.sequence.to_string());
    }
    meaning
}

/// The world after all versions, the number of events after each version, and the version during which it crashed.
async fn run(
    baseline: Baseline,
    versions: &[MemoryDirectory],
    crash: Option<Crash>,
) -> (World, Vec<usize>, Option<usize>) {
    let mut world = world(baseline);
    *world.log.crash.lock().unwrap() = crash;
    let (mut counts, mut crashed) = (Vec::new(), None);
    for (version, directory) in versions.iter().enumerate() {
        loop {
            let base = world.known.base();
            match world.try_sync(directory).await {
                Ok(status) if status.status == Status::Completed => break,
                Ok(status) if status.reason_code.as_ref().map(ReasonCode::as_str) == Some("commit_aborted") => {
                    crashed = Some(version);
                    *world.log.crash.lock().unwrap() = None;
                }
                Ok(status) => {
                    // A random directory may lose all users: then it is held, in the calm run as well.
                    assert_eq!(status.status, Status::Held, "{:?}", status.reason);
                    break;
                }
                Err(_) => {
                    crashed = Some(version);
                    world.restart();
                    // The commit had completed the sync, although its answer was lost.
                    if world.known.base() > base {
                        break;
                    }
                }
            }
        }
        counts.push(world.log.events().len());
    }
    (world, counts, crashed)
}

fn first_difference(left: &[String], right: &[String]) -> Option<String> {
    let at = (0..left.len().max(right.len())).find(|at| left.get(*at) != right.get(*at))?;
    Some(format!("event {at}: {:?} instead of {:?}", left.get(at), right.get(at)))
}

/// G1, G6: if any commit fails, before or after it became durable, the events are those of the calm run, with the same
/// ids and the same gapless sequence.
#[tokio::test(flavor = "multi_thread")]
async fn g1_a_crash_at_any_commit_changes_nothing_that_a_consumer_sees() {
    for seed in 0..6 {
        for baseline in [Baseline::State, Baseline::Events] {
            let versions = history(seed, 4);
            let (calm, counts, _) = run(baseline, &versions, None).await;
            let expected: Vec<String> = calm.log.events().iter().map(essence).collect();
            let ids: Vec<String> = calm.log.events().iter().map(|event| event.event_id.clone()).collect();
            let sequences: Vec<i64> = calm.log.events().iter().map(|event| event.sequence).collect();
            assert!(sequences.iter().copied().eq(1..=sequences.len() as i64), "seed {seed}: sequences have a gap");
            let distinct: BTreeSet<&String> = ids.iter().collect();
            assert_eq!(distinct.len(), ids.len(), "seed {seed}: two events share an id");
            for commit in 0..calm.log.commits.load(Ordering::Relaxed) {
                for crash in [Crash::Before(commit), Crash::After(commit), Crash::Abort(commit)] {
                    let (world, _, crashed) = run(baseline, &versions, Some(crash)).await;
                    let crashed = crashed.unwrap_or_else(|| panic!("seed {seed}: {crash:?} was not reached"));
                    let events: Vec<String> = world.log.events().iter().map(essence).collect();
                    assert_eq!(first_difference(&events, &expected), None, "seed {seed}: {crash:?}");
                    // Ids name the last completed sync: until the repeated one completed they are the same.
                    let repeated: Vec<String> = world.log.events().iter().map(|event| event.event_id.clone()).collect();
                    let until = counts[crashed];
                    assert_eq!(first_difference(&repeated[..until], &ids[..until]), None, "seed {seed}: {crash:?}");
                    assert_eq!(meaning(&world), meaning(&calm), "seed {seed}: {crash:?}");
                    // G8: also when a sync needs several transactions.
                    world.log.assert_positions_cover_the_state();
                }
            }
        }
    }
}

/// G6: the same change has the same id after any number of tries, and no other change shares it. Here only the
/// tombstones tell two returns apart: the user is the same, and no sync completes in between.
#[tokio::test(flavor = "multi_thread")]
async fn g6_a_change_keeps_its_event_id_when_repeated_and_shares_it_with_no_other() {
    let calm = ids_of_leaving_and_returning(&[]).await;
    let types: Vec<&str> = calm.iter().map(|(event_type, _)| event_type.as_str()).collect();
    assert_eq!(types, ["user.removed", "user.added", "user.removed", "user.added"]);
    let distinct: BTreeSet<&String> = calm.iter().map(|(_, id)| id).collect();
    assert_eq!(distinct.len(), calm.len(), "two events share an id: {calm:?}");
    let repeated = ids_of_leaving_and_returning(&[Crash::Before, Crash::Abort, Crash::Before]).await;
    assert_eq!(repeated, calm);
}

/// Type and id of the events of u0, which leaves, returns, leaves and returns. Each of these syncs dies after its first
/// transaction, so none completes. Before that it fails in each of the given ways with nothing written.
async fn ids_of_leaving_and_returning(failures: &[fn(usize) -> Crash]) -> Vec<(String, String)> {
    let user = |id: &str| (id.to_owned(), json!({ "id": id, "userName": id }));
    // Other users come and go beside u0, always new ones, so each sync needs two transactions.
    let others = |sync: usize| (0..4).map(move |other| format!("v{sync}-{other}"));
    let mut directory = MemoryDirectory::default();
    directory.users.extend([user("stays"), user("u0")]);
    for sync in [0, 2] {
        directory.users.extend(others(sync).map(|id| user(&id)));
    }
    let mut world = world(Baseline::State);
    world.completed(&directory).await;
    let base = world.known.base();
    for sync in 0..4 {
        for id in std::iter::once("u0".to_owned()).chain(others(sync)) {
            if sync % 2 == 0 {
                directory.users.remove(&id);
            } else {
                directory.users.extend([user(&id)]);
            }
        }
        for crash in failures.iter().copied().chain([Crash::After as fn(usize) -> Crash]) {
            let next = world.log.commits.load(Ordering::Relaxed);
            *world.log.crash.lock().unwrap() = Some(crash(next));
            let tried = world.try_sync(&directory).await;
            assert!(!tried.is_ok_and(|status| status.status == Status::Completed), "no sync completes");
            world.restart();
        }
        assert_eq!(world.known.base(), base, "no sync completed");
    }
    let events = world.log.events();
    assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as i64), "sequences have a gap");
    events
        .into_iter()
        .filter(|event| event.principal_id == "u0")
        .map(|event| (event.event_type, event.event_id))
        .collect()
}

/// G2: folding the events over the baseline gives the state.
#[tokio::test(flavor = "multi_thread")]
async fn g2_folding_events_over_the_baseline_gives_the_state() {
    for seed in 100..140 {
        let (world, _, _) = run(Baseline::Events, &history(seed, 6), None).await;
        let mut principals: BTreeMap<(String, String), String> = BTreeMap::new();
        let mut memberships: BTreeSet<(String, String)> = BTreeSet::new();
        for event in world.log.events() {
            let key = (event.principal_type.clone(), event.principal_id.clone());
            match event.event_type.as_str() {
                "user.removed" | "group.removed" => drop(principals.remove(&key)),
                "membership.added" => drop(memberships.insert((event.group_id.unwrap(), event.principal_id))),
                "membership.removed" => drop(memberships.remove(&(event.group_id.unwrap(), event.principal_id))),
                _ => {
                    let image = event.user.map(|user| format!("{:?} {:?}", user.active, user.attributes));
                    let image = image.or(event.group.map(|group| format!("{:?}", group.display_name)));
                    principals.insert(key, image.expect("user and group events hold an image"));
                }
            }
        }
        let mut known = BTreeMap::new();
        for kind in scimtail::directory::Kind::BOTH {
            for (id, entry) in world.known.table(kind).iter() {
                let found = entry.packed.unpack(id.clone());
                let image = match kind {
                    scimtail::directory::Kind::User => format!("{:?} {:?}", found.active, found.attributes),
                    scimtail::directory::Kind::Group => format!("{:?}", found.display_name),
                };
                known.insert((kind.principal_type().to_owned(), id.to_string()), image);
            }
        }
        assert_eq!(principals, known, "seed {seed}");
        let held: BTreeSet<(String, String)> =
            world.known.memberships().map(|(group, member, _)| (group.to_string(), member.id.to_string())).collect();
        assert_eq!(memberships, held, "seed {seed}");
    }
}

/// G7: an unchanged directory writes its `syncs` records and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn g7_an_unchanged_directory_writes_only_its_syncs_records() {
    for seed in 0..20 {
        let directory = &history(seed, 1)[0];
        let mut world = world(Baseline::State);
        world.completed(directory).await;
        for restart in [false, true, false] {
            if restart {
                world.restart();
            }
            let before = world.log.records.lock().unwrap().len();
            world.completed(directory).await;
            let records = world.log.records.lock().unwrap();
            let keys: Vec<(Topic, &str)> =
                records[before..].iter().map(|record| (record.topic, record.key.as_str())).collect();
            assert_eq!(keys, [(Topic::Syncs, "acme"), (Topic::Syncs, "acme/latest")], "seed {seed}");
        }
    }
}

/// The simplest possible diff: two sets of facts.
pub fn naive(directory: &MemoryDirectory) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for (id, user) in &directory.users {
        facts.insert(format!("user {id} {} {}", user["title"], user["active"]));
    }
    for (id, group) in &directory.groups {
        facts.insert(format!("group {id} {}", group["displayName"]));
        for member in group["members"].as_array().unwrap() {
            let member = member["value"].as_str().unwrap();
            if directory.users.contains_key(member) || directory.groups.contains_key(member) {
                facts.insert(format!("member {id} {member}"));
            }
        }
    }
    facts
}

/// Applies the changes that a consumer sees to the facts it had.
pub fn fold(mut facts: BTreeSet<String>, events: &[ChangeEvent]) -> BTreeSet<String> {
    for event in events {
        let (kind, id) = (&event.principal_type, &event.principal_id);
        match event.event_type.as_str() {
            "membership.added" => {
                let fact = format!("member {} {id}", event.group_id.as_ref().unwrap());
                assert!(facts.insert(fact), "{id} was a member already");
            }
            "membership.removed" => {
                let fact = format!("member {} {id}", event.group_id.as_ref().unwrap());
                assert!(facts.remove(&fact), "{id} was no member");
            }
            other => {
                let known = facts.iter().find(|fact| fact.starts_with(&format!("{kind} {id} "))).cloned();
                assert_eq!(known.is_none(), other.ends_with(".added"), "{other} {id}");
                if let Some(known) = known {
                    facts.remove(&known);
                }
                if let Some(user) = event.user.as_ref().filter(|_| !other.ends_with(".removed")) {
                    let title = user.attributes.get("title").map_or("null", String::as_str);
                    facts.insert(format!("user {id} {title} {}", user.active.unwrap_or(true)));
                }
                if let Some(group) = event.group.as_ref().filter(|_| !other.ends_with(".removed")) {
                    facts.insert(format!("group {id} {}", json!(group.display_name)));
                }
            }
        }
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_diff_agrees_with_a_naive_model(seeds in proptest::collection::vec(any::<u64>(), 2..6)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = world(Baseline::State);
            let mut facts = None;
            for seed in seeds {
                let directory = random_directory(&mut fastrand::Rng::with_seed(seed));
                let before = world.log.events().len();
                let status = world.sync(&directory).await;
                if status.status == Status::Held {
                    assert_eq!(world.log.events().len(), before);
                    continue;
                }
                let truth = naive(&directory);
                if let Some(known) = facts.replace(truth.clone()) {
                    assert_eq!(fold(known, &world.log.events()[before..]), truth);
                }
            }
        });
    }
}
