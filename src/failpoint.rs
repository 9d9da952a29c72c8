//! Fail points: the places at which the tests kill or stop the process (`tests/it/crash_matrix`).
//!
//! They exist only in builds with the development dependencies, i.e. in tests and benchmarks, because these switch the
//! `failpoints` feature of `fail` on. In every other build [`hit`] does nothing, and the variable `FAILPOINTS` is not
//! read.
//!
//! `FAILPOINTS="apply.middle=2*off->1*return(kill)"` kills the process the third time it gets there. What a point can
//! do: `kill` (SIGKILL: nothing is unwound, flushed or answered), `kill N` (the same N milliseconds later, while the
//! process goes on), `stop` (SIGSTOP, until SIGCONT). Some points are numbers rather than places, see [`number`].

#![allow(unused, reason = "without its feature, the macro of `fail` expands to nothing")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// Declares each point once: its variant, and its name in `FAILPOINTS`.
macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident = $name:literal,)+) => {
        /// A place where the process can be made to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point {
            $($(#[doc = $doc])* $point,)+
        }

        impl Point {
            pub const ALL: &'static [Point] = &[$(Point::$point,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Point::$point => $name,)+
                }
            }
        }
    };
}

points! {
    /// A request to a directory, a page or a GET by id, is about to be sent.
    FetchBefore = "fetch.before",
    /// Its answer was read.
    FetchAfter = "fetch.after",
    /// Everything was read and admitted.
    DiffBefore = "diff.before",
    /// The changes are known, nothing is encoded.
    DiffAfter = "diff.after",
    /// The next transaction's worth is about to be encoded, maybe while the one before it is on its way.
    EncodeBefore = "encode.before",
    EncodeAfter = "encode.after",
    BeginBefore = "begin.before",
    BeginAfter = "begin.after",
    /// An event or a state record is about to be enqueued.
    SendBefore = "send.before",
    SendAfter = "send.after",
    /// A `syncs` record is about to be enqueued: all data of the transaction is acknowledged.
    MarkerBefore = "marker.before",
    MarkerAfter = "marker.after",
    /// Waiting for acknowledgements, first of the data, then of the markers.
    DrainBefore = "drain.before",
    DrainAfter = "drain.after",
    /// Everything is acknowledged, `commit_transaction` not yet called.
    CommitBefore = "commit.before",
    /// It answered Ok; no account knows of it.
    CommitAfter = "commit.after",
    /// The account knows that its batch is committed.
    ApplyBefore = "apply.before",
    /// Some units of the batch are applied.
    ApplyMiddle = "apply.middle",
    ApplyAfter = "apply.after",
    AbortBefore = "abort.before",
    AbortAfter = "abort.after",
    FenceBefore = "fence.before",
    /// Every earlier producer is fenced; nothing was read back.
    FenceAfter = "fence.after",
    RestoreBefore = "restore.before",
    /// A record was read back.
    RestoreMiddle = "restore.middle",
    RestoreAfter = "restore.after",
    /// A person's request was read and is not applied.
    ControlBefore = "control.before",
    /// It is recorded.
    ControlAfter = "control.after",
    /// The group assigned partitions; no shard knows.
    AssignedBefore = "assigned.before",
    /// The tasks of the assigned shards are started.
    AssignedAfter = "assigned.after",
    /// The group takes partitions back; their shards run.
    RevokedBefore = "revoked.before",
    /// They have stopped; the rebalance still waits for this instance.
    RevokedAfter = "revoked.after",
    /// The group went on without this instance, whose shards run.
    LostBefore = "lost.before",
    LostAfter = "lost.after",
}

/// Whether `FAILPOINTS` named any: benchmarks are built with the points too, and must not pay for them.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Keeps the points as `FAILPOINTS` says for as long as it lives.
pub struct Armed {
    _scenario: Option<fail::FailScenario<'static>>,
}

/// Reads `FAILPOINTS`, in builds that have points.
///
/// # Panics
/// If it cannot be understood.
pub fn arm() -> Armed {
    if !fail::has_failpoints() {
        return Armed { _scenario: None };
    }
    let scenario = fail::FailScenario::setup();
    ARMED.store(!fail::list().is_empty(), Ordering::Relaxed);
    Armed { _scenario: Some(scenario) }
}

/// The process is at `point`.
#[inline]
pub fn hit(point: Point) {
    if fail::has_failpoints() && ARMED.load(Ordering::Relaxed) {
        act(point);
    }
}

fn act(point: Point) {
    fail::fail_point!(point.name(), |what| {
        let what = what.unwrap_or_default();
        match what.split_once(' ') {
            None if what == "kill" => die(),
            None if what == "stop" => signal(Signal::STOP),
            Some(("kill", wait_ms)) => {
                let wait = Duration::from_millis(wait_ms.parse().expect("milliseconds"));
                drop(std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    die()
                }));
            }
            _ => panic!("{}: a fail point cannot `{what}`", point.name()),
        }
    });
}

/// A number that stands in for one of ours: `FAILPOINTS="batch.units=return(6)"`.
pub fn number(name: &str) -> Option<usize> {
    if fail::has_failpoints() && ARMED.load(Ordering::Relaxed) {
        fail::fail_point!(name, |value| value.map(|value| value.parse().expect("a number")));
    }
    None
}

fn die() -> ! {
    signal(Signal::KILL);
    // The kernel ends all threads; this one may get here first.
    loop {
        std::thread::park();
    }
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("a process may signal itself");
}
