//! The arithmetic of a budget, without waiting: times go in, times come out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::advice::{Advice, PAUSE_MAX};
use super::profile::{Allowance, Operation, RateLimit};

/// Longest wait of one try for room, beyond the longest window that the profile states.
pub const ROOM_WAIT_MAX: Duration = Duration::from_secs(600);
/// Share of a wait by which it gets longer at random, so that processes do not come back at the same moment.
pub const JITTER_MAX: f64 = 0.01;
/// Requests of one credential under way at once.
pub const TURNS_MAX: u32 = 64;
/// Requests that have to be accepted before one more may be under way again.
const ACCEPTED_PER_TURN: u32 = 50;

/// Requests of one stated limit.
#[derive(Debug)]
pub(super) struct Window {
    limit: RateLimit,
    unanswered: u32,
    /// When the answers of the last `per` began, oldest first.
    answered: VecDeque<Instant>,
}

impl Window {
    fn counts(&self, operation: Option<Operation>) -> bool {
        self.limit.of.is_none() || self.limit.of == operation
    }

    /// `Err`: when there is room, if no answer comes before; `None` if only an answer makes room.
    fn room(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        let per = self.limit.per;
        while self.answered.front().is_some_and(|answered| *answered + per <= now) {
            self.answered.pop_front();
        }
        let counted = usize::try_from(self.unanswered).unwrap_or(usize::MAX).saturating_add(self.answered.len());
        if counted < usize::try_from(self.limit.requests).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(self.answered.front().map(|answered| *answered + per))
    }
}

/// Requests that may still be sent before a limit is reset.
#[derive(Clone, Copy, Debug)]
struct Quota {
    requests: u64,
    reset_at: Instant,
}

/// The arithmetic of one budget.
#[derive(Debug)]
pub struct Pace {
    pub(super) windows: Vec<Window>,
    /// Requests that were sent and are not answered.
    pub(super) unanswered: u32,
    paused_until: Option<Instant>,
    /// What an answer said is left, less what was sent since; by what the vendor counts apart.
    left: BTreeMap<Option<Operation>, Quota>,
    /// The vendor counts each operation apart.
    per_endpoint: bool,
    /// Requests under way, their waits between two tries included.
    pub(super) turns: u32,
    turns_max: u32,
    /// The most that `turns_max` becomes.
    turns_cap: u32,
    /// Answers other than 429 since `turns_max` changed.
    accepted: u32,
    random: fastrand::Rng,
}

/// A request that was let through.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    operation: Option<Operation>,
}

impl Pace {
    pub fn new(limits: &[RateLimit], random: fastrand::Rng) -> Pace {
        let mut pace = Pace {
            windows: Vec::new(),
            unanswered: 0,
            paused_until: None,
            left: BTreeMap::new(),
            per_endpoint: false,
            turns: 0,
            turns_max: TURNS_MAX,
            turns_cap: TURNS_MAX,
            accepted: 0,
            random,
        };
        pace.limit(limits);
        pace
    }

    /// Keeps these limits too, beside those there are.
    pub(super) fn limit(&mut self, limits: &[RateLimit]) {
        for limit in limits {
            if !self.windows.iter().any(|window| window.limit == *limit) {
                self.windows.push(Window { limit: limit.clone(), unanswered: 0, answered: VecDeque::new() });
            }
        }
    }

    /// Keeps what this profile allows too.
    pub(super) fn allow(&mut self, allowance: &Allowance) {
        self.limit(&allowance.limits);
        self.per_endpoint |= allowance.per_endpoint;
        self.turns_cap = allowance.at_once.map_or(self.turns_cap, |at_once| self.turns_cap.min(at_once.max(1)));
        self.turns_max = self.turns_max.min(self.turns_cap);
    }

    /// What the vendor counts together with this operation.
    fn counted_with(&self, operation: Option<Operation>) -> Option<Operation> {
        operation.filter(|_| self.per_endpoint)
    }

    /// Lets a try through. `has_turn`: whether its request is among those under way; not always kept after a 429.
    ///
    /// # Errors
    /// When to ask again; `None`: not before an answer has come.
    pub fn ask(
        &mut self,
        now: Instant,
        operation: Option<Operation>,
        has_turn: &mut bool,
    ) -> Result<Sent, Option<Instant>> {
        if *has_turn && self.turns > self.turns_max {
            self.turns -= 1;
            *has_turn = false;
        }
        if !*has_turn && self.turns >= self.turns_max {
            return Err(None);
        }
        let counted = self.counted_with(operation);
        let left = self.left.get(&counted).copied();
        let exhausted = left.filter(|left| left.requests == 0).map(|left| left.reset_at);
        let mut until = self.paused_until.max(exhausted).filter(|until| *until > now);
        for window in self.windows.iter_mut().filter(|window| window.counts(operation)) {
            if let Err(room) = window.room(now) {
                until = until.max(Some(room.ok_or(None)?));
            }
        }
        if let Some(until) = until {
            let jitter = (until - now).mul_f64(JITTER_MAX * self.random.f64());
            return Err(Some(until + jitter));
        }
        self.turns += u32::from(!*has_turn);
        *has_turn = true;
        self.unanswered += 1;
        for window in self.windows.iter_mut().filter(|window| window.counts(operation)) {
            window.unanswered += 1;
        }
        match left.filter(|left| left.reset_at > now) {
            Some(left) => drop(self.left.insert(counted, Quota { requests: left.requests - 1, ..left })),
            None => drop(self.left.remove(&counted)),
        }
        Ok(Sent { operation })
    }

    /// An answer began, or the request broke.
    pub fn answered(&mut self, now: Instant, sent: Sent, advice: &Advice) {
        self.unanswered = self.unanswered.saturating_sub(1);
        for window in self.windows.iter_mut().filter(|window| window.counts(sent.operation)) {
            window.unanswered = window.unanswered.saturating_sub(1);
            window.answered.push_back(now);
        }
        if let Some(left) = advice.left {
            // Requests under way may be counted already or not: they count as not.
            let requests = left.requests.saturating_sub(self.unanswered.into());
            let counted = self.counted_with(sent.operation);
            self.left.insert(counted, Quota { requests, reset_at: now + left.reset });
        }
        if let Some(wait) = advice.wait {
            self.pause(now, wait);
        }
        if advice.throttled {
            self.turns_max = 1;
            self.accepted = 0;
        } else {
            self.accepted += 1;
            if self.accepted >= ACCEPTED_PER_TURN {
                self.turns_max = (self.turns_max + 1).min(self.turns_cap);
                self.accepted = 0;
            }
        }
    }

    /// Nothing is let through before `wait` (at most [`PAUSE_MAX`]) is over.
    pub fn pause(&mut self, now: Instant, wait: Duration) {
        self.paused_until = self.paused_until.max(Some(now + wait.min(PAUSE_MAX)));
    }

    pub(super) fn end_turn(&mut self) {
        self.turns = self.turns.saturating_sub(1);
    }

    /// How long one try may wait for room.
    pub(super) fn room_wait(&self) -> Duration {
        self.windows.iter().map(|window| window.limit.per).max().unwrap_or_default() + ROOM_WAIT_MAX
    }
}
