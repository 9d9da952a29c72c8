//! Thousands of lives of an account, each drawn from one seed: a directory that changes, servers that fail, a log that
//! crashes, owners that come and go, days that pass in no time. The pipeline is the real one; directory and log are in
//! memory. In every life the view of readers stays true.
//!
//! A failing seed is repeated by the command that the failure prints.

use scimtail::directory::{Baseline, Id, Kind, ReasonCode, Status, Strategy, SyncStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use scimtail::avro::wire::{ChangeEvent, ControlRequest};
use scimtail::control::{self, Request};
use serde_json::json;

use crate::crashes::{fold, naive};
use crate::memory::{Crash, Faults, MemoryDirectory, World, account, advance, clock};

/// Seeds of one run of the suite, unless `SIMULATION_RUNS` says otherwise; they begin at `SIMULATION_SEED`.
const RUNS: u64 = 4_000;
/// Syncs while everything may go wrong.
const CHAOS_MAX: usize = 12;
/// Syncs until everything has settled: one that is held, its release, and three walks where absence is the rule.
const CALM_MAX: usize = 10;
const HOUR_MS: i64 = 3_600_000;
/// If fewer of each happen in [`RUNS`] lives, the simulation no longer tests its purpose. About half of the usual
/// number.
const LEAST: [(&str, usize); 16] = [
    ("abort of a status", 30),
    ("another owner", 3_500),
    ("crash after a commit", 430),
    ("crash before a commit", 460),
    ("events", 12_000),
    ("record lost", 320),
    ("release", 230),
    ("sync completed", 12_000),
    ("sync completed: repair", 300),
    ("sync failed: commit_aborted", 380),
    ("sync failed: http_status", 440),
    ("sync failed: list_incomplete", 320),
    ("sync failed: repair", 25),
    ("sync failed: walk_incomplete", 60),
    ("sync held: mass_change", 400),
    ("sync held: repair", 30),
];

/// What really happened, by name.
type Counts = BTreeMap<String, usize>;

/// One life: its settings, and the observations of it.
struct Life {
    random: fastrand::Rng,
    world: World,
    directory: MemoryDirectory,
    /// Facts that the baseline brought and the events changed; `None` before a sync completed.
    facts: Option<BTreeSet<String>>,
    folded: usize,
    /// A record was lost, so not all of the state came by events.
    lossy: bool,
    counts: Counts,
}

#[test]
fn g1_whatever_happens_in_a_simulated_life_what_readers_see_is_true() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (first, runs) = (setting("SIMULATION_SEED").unwrap_or(0), setting("SIMULATION_RUNS").unwrap_or(RUNS));
    let started = Instant::now();
    // Each life is alone with its clock, whichever thread it is on.
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let counts = std::thread::scope(|scope| {
        let share = |thread: usize| move || lives((first..first + runs).skip(thread).step_by(threads));
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(share(thread))).collect();
        threads.into_iter().fold(Counts::new(), |all, thread| added(all, thread.join().expect("every life ends well")))
    });
    println!("{runs} lives from seed {first} in {:.1} s: {counts:#?}", started.elapsed().as_secs_f64());
    if runs >= RUNS {
        let times = |name: &str| counts.get(name).copied().unwrap_or(0);
        let seldom: Vec<_> = LEAST.iter().filter(|(name, least)| times(name) < *least).collect();
        assert!(seldom.is_empty(), "too seldom in {runs} lives: {seldom:?} of {counts:#?}");
    }
}

/// What happened in these lives.
fn lives(seeds: impl Iterator<Item = u64>) -> Counts {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let _within = runtime.enter();
    seeds.fold(Counts::new(), |counts, seed| {
        let life = std::panic::AssertUnwindSafe(|| runtime.block_on(Life::new(seed).live()));
        match std::panic::catch_unwind(life) {
            Ok(lived) => added(counts, lived),
            Err(_) => panic!(
                "repeat it: SIMULATION_SEED={seed} SIMULATION_RUNS=1 cargo test --test it simulated_life -- --nocapture"
            ),
        }
    })
}

fn added(mut counts: Counts, more: Counts) -> Counts {
    more.into_iter().for_each(|(name, times)| *counts.entry(name).or_default() += times);
    counts
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut account = account("acme");
        account.baseline = if random.bool() { Baseline::State } else { Baseline::Events };
        account.habits.absence_only = random.u8(..) < 40;
        account.habits.trust_total = random.u8(..) < 200;
        account.batch.principals = random.usize(1..5);
        account.batch.units = random.usize(2..9);
        let strategies = [
            Strategy::List,
            Strategy::List,
            Strategy::Get,
            Strategy::User,
            Strategy::GroupsFilter,
            Strategy::MembersFilter,
        ];
        let mut directory = MemoryDirectory::default().showing(strategies[random.usize(..strategies.len())]);
        directory.groups_by_name = random.bool();
        for _ in 0..random.usize(1..12) {
            change(&mut directory, &mut random);
        }
        // Absences of a group cannot be counted if its record is lost and no GET can ask for its members: it stays.
        let lossy = random.u8(..) < 40 && !account.habits.absence_only;
        Life { random, world: World::new(account), directory, facts: None, folded: 0, lossy, counts: Counts::new() }
    }

    fn count(&mut self, name: impl Into<String>) {
        *self.counts.entry(name.into()).or_default() += 1;
    }

    /// Returns what happened.
    async fn live(mut self) -> Counts {
        for _ in 0..self.random.usize(1..=CHAOS_MAX) {
            advance(self.random.i64(1..20 * HOUR_MS));
            for _ in 0..self.random.usize(0..4) {
                change(&mut self.directory, &mut self.random);
            }
            if self.random.u8(..) < 90 {
                self.directory.faults = self.fault();
            }
            self.crash_ahead();
            self.lose_something();
            self.sync().await;
            self.directory.faults = Faults::default();
        }
        self.settle().await;
        self.counts.insert("events".to_owned(), self.world.log.events().len());
        self.counts
    }

    /// Faults stop: within two syncs the state is the directory, holds and absences aside.
    async fn settle(&mut self) {
        *self.world.log.crash.lock().unwrap() = None;
        let mut undisturbed = 0;
        for _ in 0..CALM_MAX {
            // Every hidden or dangling principal becomes due for a GET.
            advance(25 * HOUR_MS);
            let repaired = self.world.known.repair.is_some();
            let status = self.sync().await.expect("nothing goes wrong any more");
            if status.status == Status::Held {
                self.release(&status).await;
                undisturbed = 0;
                continue;
            }
            assert_eq!(status.status, Status::Completed, "{:?}", status.reason);
            if self.state() == naive(&self.directory) {
                return;
            }
            undisturbed += usize::from(!repaired);
            let enough = if self.world.account.habits.absence_only { 4 } else { 2 };
            assert!(undisturbed < enough, "{:?} is not {:?}", self.state(), naive(&self.directory));
        }
        panic!("it does not settle");
    }

    async fn sync(&mut self) -> Option<SyncStatus> {
        let before = self.world.log.events().len();
        let faultless = format!("{:?}", self.directory.faults) == format!("{:?}", Faults::default());
        let was_first = self.world.known.is_first();
        let crash = *self.world.log.crash.lock().unwrap();
        let unread = self.groups_never_read();
        let status = match self.world.try_sync(&self.directory).await {
            Ok(status) => {
                let reason = status
                    .reason_code
                    .as_ref()
                    .map(ReasonCode::as_str)
                    .map(|code| format!(": {code}"))
                    .unwrap_or_default();
                self.count(format!("sync {}{reason}", format!("{:?}", status.status).to_lowercase()));
                Some(status)
            }
            Err(ended) => {
                match crash {
                    Some(Crash::Before(_)) => self.count("crash before a commit"),
                    Some(Crash::After(_)) => self.count("crash after a commit"),
                    // The transaction with the sync's status was aborted, and no other one can report it.
                    Some(Crash::Abort(_)) => self.count("abort of a status"),
                    None => panic!("it ended by itself: {}", ended.reason),
                }
                self.world.restart();
                None
            }
        };
        if self.random.u8(..) < 60 {
            self.count("another owner");
            self.world.restart();
        }
        self.world.assert_known_is_the_log();
        self.assert_true(before);
        let completed = self.world.known.completed.is_some();
        if completed && (was_first || self.facts.is_none()) {
            // The baseline; what its events say is part of it.
            (self.facts, self.folded) = (Some(self.state()), self.world.log.events().len());
        } else if let Some(facts) = self.facts.take() {
            let events = self.world.log.events();
            // Members that no completed sync had read before are not news: they come silently.
            let mut facts = facts;
            facts.extend(self.members_of(&unread).filter(|_| self.world.account.baseline == Baseline::State));
            let facts = fold_unless(self.lossy, facts, &events[self.folded..]).unwrap_or_else(|| self.state());
            let facts = self.with_titles_that_get_did_not_show(facts);
            assert_eq!(facts, self.state(), "events and state part ways");
            (self.facts, self.folded) = (Some(facts), events.len());
        }
        if let Some(status) = status.as_ref().filter(|status| faultless && status.status == Status::Held)
            && self.random.bool()
        {
            self.release(status).await;
        }
        status
    }

    /// Only GET showed this user, without a title. The title in a list is not a change, and comes silently.
    fn with_titles_that_get_did_not_show(&self, facts: BTreeSet<String>) -> BTreeSet<String> {
        let state = self.state();
        let shown = |fact: String| {
            let mut words = fact.splitn(3, ' ');
            let (Some("user"), Some(id), Some(rest)) = (words.next(), words.next(), words.next()) else { return fact };
            let Some(active) = rest.strip_prefix("null ") else { return fact };
            let same =
                |other: &&String| other.starts_with(&format!("user {id} ")) && other.ends_with(&format!(" {active}"));
            state.iter().find(same).cloned().unwrap_or(fact)
        };
        facts.into_iter().map(shown).collect()
    }

    /// Groups whose members no completed sync has read.
    fn groups_never_read(&self) -> BTreeSet<Id> {
        let known = &self.world.known;
        let all = !known.kinds_read().memberships;
        let groups = known.table(Kind::Group).iter().filter(|(_, entry)| all || entry.members_unread);
        groups.map(|(id, _)| id.clone()).collect()
    }

    /// Facts of the members that these groups have in the state.
    fn members_of(&self, groups: &BTreeSet<Id>) -> impl Iterator<Item = String> {
        let members = self.world.known.memberships().filter(|(group, ..)| groups.contains(*group));
        members.map(|(group, member, _)| format!("member {group} {}", member.id)).collect::<Vec<_>>().into_iter()
    }

    /// Every event since `before` is true of the directory as it is, and in its place.
    fn assert_true(&self, before: usize) {
        let events = self.world.log.events();
        assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as i64), "a gap in the sequence");
        let ids: BTreeSet<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(ids.len(), events.len(), "an id twice");
        let (users, groups) = (&self.directory.users, &self.directory.groups);
        for event in &events[before..] {
            let id = &event.principal_id;
            match event.event_type.as_str() {
                "user.removed" => assert!(!users.contains_key(id), "{id} is there"),
                "group.removed" => assert!(!groups.contains_key(id), "{id} is there"),
                "membership.removed" => {
                    let group = groups.get(event.group_id.as_ref().expect("a group"));
                    let listed = group.is_some_and(|group| {
                        let members = group["members"].as_array().expect("members");
                        members.iter().any(|member| member["value"] == id.as_str())
                    });
                    let there = users.contains_key(id) || groups.contains_key(id);
                    assert!(!(listed && there), "{id} is a member");
                }
                "user.disabled" => assert_eq!(users[id]["active"], json!(false), "{id} is active"),
                _ => {}
            }
        }
    }

    /// The state as facts, like [`naive`].
    fn state(&self) -> BTreeSet<String> {
        let known = &self.world.known;
        let mut facts = BTreeSet::new();
        for (id, entry) in known.table(Kind::User).iter() {
            let user = entry.packed.unpack(id.clone());
            let title = user.attributes.get("title").map_or("null", String::as_str);
            facts.insert(format!("user {id} {title} {}", user.active.unwrap_or(true)));
        }
        for (id, entry) in known.table(Kind::Group).iter() {
            facts.insert(format!("group {id} {}", json!(entry.packed.unpack(id.clone()).display_name)));
        }
        for (group, member, _) in known.memberships() {
            facts.insert(format!("member {group} {}", member.id));
        }
        facts
    }

    fn fault(&mut self) -> Faults {
        let random = &mut self.random;
        let some = |random: &mut fastrand::Rng, ids: Vec<String>| random.choice(ids).into_iter().collect();
        let (users, groups) = (self.directory.users.keys().cloned(), self.directory.groups.keys().cloned());
        let (users, groups): (Vec<String>, Vec<String>) = (users.collect(), groups.collect());
        let kind = if random.bool() { Kind::User } else { Kind::Group };
        let none = Faults::default();
        match random.u8(0..15) {
            0 => Faults { fails_at: Some((random.usize(0..3), kind)), ..none },
            // If absence is the rule, a user that three lists leave out is removed: the rule says so.
            1 | 2 if !self.world.account.habits.absence_only => Faults {
                unlisted: some(random, users),
                truthful_totals: random.bool(),
                first_walk_only: random.bool(),
                // A GET for a user that the list leaves out may not answer either: that proves nothing.
                get_times_out: random.u8(..) < 80,
                ..none
            },
            3 => Faults { empty: Some(kind), ..none },
            4 => Faults { get_times_out: true, ..none },
            5 => Faults { silent: some(random, users).pop_first(), ..none },
            6 => Faults { list_hides_members_of: some(random, groups), ..none },
            7 => Faults { first_get_404: some(random, users).pop_first(), ..none },
            9 => {
                let ids = if random.bool() { users } else { groups };
                Faults { nameless: some(random, ids).pop_first(), ..none }
            }
            10 => Faults { without_active: users.into_iter().filter(|_| random.bool()).collect(), ..none },
            11 => Faults { contradicted: some(random, users).pop_first(), ..none },
            12 => Faults { members_unreadable: some(random, groups), ..none },
            13 => Faults { get_is_poorer: true, unlisted: some(random, users), ..none },
            14 => Faults { with_a_device: some(random, groups).pop_first(), ..none },
            _ => none,
        }
    }

    /// Perhaps one of the next commits does not come back.
    fn crash_ahead(&mut self) {
        let commits = self.world.log.commits.load(std::sync::atomic::Ordering::Relaxed);
        let number = commits + self.random.usize(0..4);
        let crash = match self.random.u8(0..9) {
            0 => Some(Crash::Before(number)),
            1 => Some(Crash::After(number)),
            2 => Some(Crash::Abort(number)),
            _ => None,
        };
        *self.world.log.crash.lock().unwrap() = crash;
    }

    /// Perhaps the broker loses a record, and a new owner finds out.
    fn lose_something(&mut self) {
        if !self.lossy || self.random.u8(..) > 60 {
            return;
        }
        let first = self.world.known.is_first();
        if first && self.world.account.baseline == Baseline::Events {
            // The snapshot of a lost record is published once more, under the same id.
            return;
        }
        let state = self.world.log.state();
        let Some((topic, key)) = self.random.choice(state.into_keys()) else { return };
        let lost = |record: &scimtail::log::Record| record.topic == topic && record.key == key;
        let mut records = self.world.log.records.lock().unwrap();
        let holes = records.iter().filter(|record| lost(record)).count() as i64;
        records.retain(|record| !lost(record));
        *self.world.log.holes.lock().unwrap().entry(topic).or_default() += holes;
        drop(records);
        self.count("record lost");
        self.world.restart();
        assert!(first || self.world.known.repair.is_some(), "the loss of {key} is noticed");
    }

    async fn release(&mut self, status: &SyncStatus) {
        let content = ControlRequest {
            account: "acme".to_owned(),
            action: "release".to_owned(),
            hold_id: status.hold.as_ref().map(ToString::to_string),
            requested_by: "an operator".to_owned(),
            requested_at: clock(),
            reason: None,
        };
        let offset = self.world.known.latest.as_ref().map_or(0, |latest| latest.control_offset);
        let applied = control::apply(&self.world.known, &Request { offset, content });
        let (status, _) = applied.expect("it is new");
        *self.world.log.crash.lock().unwrap() = None;
        self.world.record_latest(status).await.expect("the log works");
        self.count("release");
    }
}

/// Facts after the events; `None` if records were lost, because then not everything came by events.
fn fold_unless(lossy: bool, facts: BTreeSet<String>, events: &[ChangeEvent]) -> Option<BTreeSet<String>> {
    (!lossy).then(|| fold(facts, events))
}

/// One change happens in the directory.
fn change(directory: &mut MemoryDirectory, random: &mut fastrand::Rng) {
    let user = format!("u{}", random.u8(0..9));
    let group = format!("g{}", random.u8(0..4));
    // If memberships are read from users, no user shows which groups are in which.
    let nests = matches!(directory.strategy, Some(Strategy::List | Strategy::Get));
    let MemoryDirectory { users, groups, groups_by_name, .. } = directory;
    match random.u8(0..11) {
        0 => drop(users.remove(&user)),
        1 => {
            if let Some(user) = users.get_mut(&user) {
                user["active"] = json!(user["active"] == json!(false));
            }
        }
        2..=5 => {
            let active = users.get(&user).is_none_or(|user| user["active"] == json!(true));
            let title = format!("T{}", random.u8(0..4));
            let name = format!("name of {user}");
            users.insert(user.clone(), json!({ "id": user, "userName": name, "title": title, "active": active }));
        }
        6 => drop(groups.remove(&group)),
        7 => {
            let members = groups.get(&group).map_or(json!([]), |group| group["members"].clone());
            let name = format!("G{}", random.u8(0..3));
            let taken = groups.iter().any(|(id, other)| *id != group && other["displayName"] == json!(name));
            if taken && *groups_by_name {
                return;
            }
            groups.insert(group.clone(), json!({ "id": group, "displayName": name, "members": members }));
        }
        8 => {
            // Deleted and made again: with the same name and members, and another id.
            let again = format!("g{}", random.u8(0..4));
            if let Some(mut group) = groups.remove(&group) {
                group["id"] = json!(again);
                groups.insert(again, group);
            }
        }
        _ => {
            // The member is a user that may not be there, or another group.
            let nested = nests && random.u8(..) < 40;
            let member = if nested { format!("g{}", random.u8(0..4)) } else { user };
            if let Some(members) = groups.get_mut(&group).and_then(|group| group["members"].as_array_mut()) {
                let before = members.len();
                members.retain(|other| other["value"] != json!(member));
                if members.len() == before && member != group {
                    members.push(json!({ "value": member }));
                }
            }
        }
    }
}
