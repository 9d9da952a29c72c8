//! The crash matrix: scimtail is killed before and after every step, and restarted. A checker that shares no code with
//! it judges its topics in Kafka (`check_topics.py`, `judge.py`).
//!
//! One *run*: the directories change by seed, one fault strikes, at most two calm syncs follow, the checker reads the
//! new records. *Rounds* of runs share a topic prefix; the first run of each is a first sync. `cargo test` runs the
//! first two rounds, which reach every fail point. `CRASH_RUNS=1000 cargo test --test it crash -- --nocapture` runs the
//! whole matrix; `CRASH_SEED` and `CRASH_ROUND` repeat one round of it.

mod checker;
mod directory;
mod plan;
mod process;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use scimtail::failpoint::Point;
use tokio::task::JoinSet;

use self::checker::{Checker, Judgement};
use self::directory::Directories;
use self::plan::{FIRST_ROUNDS, Kind, Plan};
use self::process::End;
use self::world::{Run, TOKEN, World};
use crate::services::{broker, services};

/// The rounds that `cargo test` runs, unless `CRASH_SEED` says otherwise.
const SEED: u64 = 1;
/// A kind of run that is drawn more often than this strikes. `Joined` strikes least, in a third of its runs: if the
/// second one is armed, the shards are often shared before it comes to its fault.
const DRAWS_WITHOUT_STRIKE_MAX: usize = 20;
/// Rounds at a time, each with a separate broker: a run mostly waits.
const LANES: usize = 2;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// The rounds to run, by number.
fn rounds(seed: u64, runs: Option<usize>) -> VecDeque<(usize, Vec<Plan>)> {
    let mut left = runs.unwrap_or(usize::MAX);
    let (first, last) = match (setting("CRASH_ROUND"), runs) {
        (Some(round), _) => (round as usize, round as usize + 1),
        (None, Some(_)) => (0, usize::MAX),
        (None, None) => (0, FIRST_ROUNDS),
    };
    let mut rounds = VecDeque::new();
    for round in first..last {
        let mut plans = Plan::round(seed, round);
        plans.truncate(left);
        left -= plans.len();
        if plans.is_empty() {
            break;
        }
        rounds.push_back((round, plans));
    }
    rounds
}

#[derive(Default)]
struct Tally {
    runs: usize,
    struck: usize,
    failed: usize,
    /// How often each end happened to the process that the fault was for.
    ends: BTreeMap<End, usize>,
}

/// The outcomes of all runs.
#[derive(Default)]
struct Report {
    points: BTreeMap<Point, Tally>,
    kinds: BTreeMap<Kind, Tally>,
    /// Converged in one calm sync.
    at_once: usize,
    judged: Judgement,
    failures: Vec<String>,
}

impl Report {
    fn count(&mut self, plan: &Plan, result: &Result<Run, String>) {
        for tally in [self.points.entry(plan.point).or_default(), self.kinds.entry(plan.kind).or_default()] {
            tally.runs += 1;
            tally.struck += usize::from(result.as_ref().is_ok_and(|run| run.struck));
            tally.failed += usize::from(result.is_err());
            if let Ok(run) = result {
                *tally.ends.entry(run.end).or_default() += 1;
            }
        }
        if let Ok(run) = result {
            self.at_once += usize::from(run.syncs == 1);
            self.judged += &run.judgement;
        }
    }

    fn print(&self, seed: u64, seconds: f64) {
        let row = |name: &str, tally: &Tally| {
            let ends = tally.ends.iter().map(|(end, times)| match end {
                End::Killed => format!("{times}× killed"),
                End::Exited(code) => format!("{times}× {code}"),
            });
            let ends: Vec<String> = ends.collect();
            println!("{name:18} {:5} {:7} {:6}  {}", tally.runs, tally.struck, tally.failed, ends.join(", "));
        };
        println!("\n{:18} {:>5} {:>7} {:>6}  ended", "fail point", "runs", "struck", "failed");
        self.points.iter().for_each(|(point, tally)| row(point.name(), tally));
        println!("\n{:18} {:>5} {:>7} {:>6}  ended", "kind of run", "runs", "struck", "failed");
        self.kinds.iter().for_each(|(kind, tally)| row(&format!("{kind:?}"), tally));
        let sum = |of: fn(&Tally) -> usize| self.kinds.values().map(of).sum::<usize>();
        let (runs, struck, failed) = (sum(|tally| tally.runs), sum(|tally| tally.struck), sum(|tally| tally.failed));
        let Judgement { records, events, transactions, completed, .. } = &self.judged;
        println!(
            "\nseed {seed}: {runs} runs, {struck} faults struck, {seconds:.0} s\n\
             judged: {records} records, {events} events, {transactions} transactions, {completed} completed syncs\n\
             converged: {} in one calm sync, {} in two\n\
             verdict: {failed} of {runs} runs failed",
            self.at_once,
            runs - failed - self.at_once,
        );
    }
}

/// One round on a new prefix; true if all of its runs were as they must be.
async fn round(
    (seed, number, plans): (u64, usize, &[Plan]),
    world: &mut World<'_>,
    random: &mut fastrand::Rng,
    report: &Mutex<Report>,
) -> bool {
    for (index, plan) in plans.iter().enumerate() {
        let started = Instant::now();
        let result = world.run(plan, &mut random.fork()).await;
        let Plan { kind, point, nth, delay } = plan;
        let delay = delay.map(|delay| format!(" + {delay} ms")).unwrap_or_default();
        let name = format!("round {number} run {index}: {kind:?} at {} {nth}{delay}", point.name());
        let end = match &result {
            Ok(Run { struck: true, .. }) => "struck",
            Ok(_) => "not reached",
            Err(_) => "FAILED",
        };
        println!("{name}: {end}, {:.1} s", started.elapsed().as_secs_f64());
        let mut report = report.lock().expect("no holder panicked");
        report.count(plan, &result);
        if let Err(reason) = result {
            let folder = world.keep();
            println!(
                "{reason}\n→ {} has what was read, and the logs\n→ CRASH_SEED={seed} CRASH_ROUND={number} \
                 CRASH_RUNS={} cargo test --test it crash -- --nocapture",
                folder.display(),
                index + 1
            );
            report.failures.push(format!("seed {seed} {name}: {}", reason.lines().next().unwrap_or_default()));
            // The rest of the round would build on a state that is wrong already.
            return false;
        }
    }
    true
}

/// G1, G2, G3, G5, G6, G8 under fire: after a kill at any point, the topics are those of a calm program.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn g1_killed_at_every_fail_point_it_leaves_what_a_calm_program_leaves() {
    let seed = setting("CRASH_SEED").unwrap_or(SEED);
    let rounds = rounds(seed, setting("CRASH_RUNS").map(|runs| runs as usize));
    let whole = rounds.iter().map(|(round, _)| *round).take(FIRST_ROUNDS).eq(0..FIRST_ROUNDS);
    let (rounds, report) = (Arc::new(Mutex::new(rounds)), Arc::new(Mutex::new(Report::default())));
    let began = Instant::now();
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (rounds, report) = (rounds.clone(), report.clone());
        lanes.spawn(async move {
            let next = || rounds.lock().expect("no holder panicked").pop_front();
            let Some(mut this) = next() else { return };
            let mut broker = broker();
            let mut checker = Checker::start(&broker.bootstrap, &services().registry);
            let directories = Directories::start(TOKEN).await;
            loop {
                let (number, plans) = this;
                let mut random = fastrand::Rng::with_seed(seed << 32 | 1 << 31 | number as u64);
                let mut world = World::new(&mut broker, &mut checker, &directories, &mut random).await;
                let well = round((seed, number, &plans), &mut world, &mut random, &report).await;
                if well && number == 0 && plans.len() == Plan::round(seed, 0).len() {
                    let unnoticed = checker.unnoticed();
                    assert!(unnoticed.is_empty(), "the checker does not notice: {unnoticed:#?}");
                }
                match next() {
                    Some(round) => this = round,
                    None => return,
                }
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    let report = report.lock().expect("no holder panicked");
    report.print(seed, began.elapsed().as_secs_f64());
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    if whole {
        let struck = |point: &&Point| report.points.get(point).is_none_or(|tally| tally.struck == 0);
        let missed: Vec<&str> = Point::ALL.iter().filter(struck).map(|point| point.name()).collect();
        assert!(missed.is_empty(), "never reached: {missed:?}");
    }
    // In the suite's own runs every kind is known to strike, however seldom it is drawn, but for the one where Kafka
    // decides which of two instances gets a shard.
    let certain = |kind: &Kind| whole && seed == SEED && *kind != Kind::Joined;
    let excused = |kind: &Kind| if certain(kind) { 0 } else { DRAWS_WITHOUT_STRIKE_MAX };
    let idle = |(kind, tally): &(&Kind, &Tally)| tally.struck == 0 && tally.runs > excused(kind);
    let idle: Vec<&Kind> = report.kinds.iter().filter(idle).map(|(kind, _)| kind).collect();
    assert!(idle.is_empty(), "seed {seed}: kinds of run whose fault never struck: {idle:?}");
}
