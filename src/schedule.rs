//! When an account syncs next, and what time it is. No other module reads a clock.

use std::time::{Duration, SystemTime};

/// After a failure the wait doubles from the interval's tenth, up to the interval times this.
const BACKOFF_INTERVALS_MAX: u32 = 4;
/// Shortest wait after a failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failure, however long the interval.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);

#[expect(clippy::disallowed_methods, reason = "the one place that asks for the time")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970-01-01 UTC.
pub fn now_millis() -> i64 {
    let since = wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Waits between the syncs of one account.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    failures: u32,
    random: fastrand::Rng,
}

impl Schedule {
    pub fn new(interval: Duration, random: fastrand::Rng) -> Schedule {
        Schedule { interval, failures: 0, random }
    }

    /// The wait before the first sync: short, but not the same for all accounts.
    pub fn first(&mut self) -> Duration {
        self.interval.min(Duration::from_secs(1)).mul_f64(self.random.f64() * 0.1)
    }

    /// After a completed or held sync: the interval, give or take a tenth.
    pub fn after_success(&mut self) -> Duration {
        self.failures = 0;
        self.jitter(self.interval)
    }

    /// After a failed one: soon at first, later with each failure in a row.
    pub fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.jitter(wait_after(self.interval, self.failures))
    }

    fn jitter(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(0.9 + 0.2 * self.random.f64())
    }
}

/// The wait of an account after so many failures in a row, without jitter; after none, its interval.
pub fn wait_after(interval: Duration, failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return interval };
    let first = (interval / 10).max(BACKOFF_MIN);
    let longest = interval.saturating_mul(BACKOFF_INTERVALS_MAX).min(BACKOFF_MAX).max(first);
    first.saturating_mul(1 << doublings.min(16)).min(longest)
}

/// Waits of an instance that was fenced although the group still assigns the shard to it: two owners must not fence
/// each other in turns.
#[derive(Debug)]
pub struct FenceWait {
    random: fastrand::Rng,
    repeats: u32,
    last: Option<i64>,
}

const FENCED_WAIT: Duration = Duration::from_secs(30);
const FENCED_AGAIN_WITHIN_MS: i64 = 600_000;
const FENCED_REPEATS_MAX: u32 = 5;

impl FenceWait {
    pub fn new(random: fastrand::Rng) -> FenceWait {
        FenceWait { random, repeats: 0, last: None }
    }

    /// 30 s with jitter, doubling on repeats within ten minutes. `now`: milliseconds since 1970-01-01 UTC.
    pub fn next(&mut self, now: i64) -> Duration {
        let again = self.last.is_some_and(|last| now - last < FENCED_AGAIN_WITHIN_MS);
        self.repeats = if again { (self.repeats + 1).min(FENCED_REPEATS_MAX) } else { 0 };
        self.last = Some(now);
        (FENCED_WAIT * (1 << self.repeats)).mul_f64(0.9 + 0.2 * self.random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_and_a_success_ends_that() {
        let mut schedule = Schedule::new(Duration::from_secs(60), fastrand::Rng::with_seed(1));
        let waits: Vec<u64> = (0..8).map(|_| schedule.after_failure().as_secs()).collect();
        assert!(waits[0] <= 7 && waits[1] > waits[0], "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= 264), "{waits:?}");
        let normal = schedule.after_success().as_secs();
        assert!((54..=66).contains(&normal), "{normal}");
        assert!(schedule.after_failure().as_secs() <= 7);
    }

    #[test]
    fn a_fenced_service_waits_longer_each_time() {
        let mut wait = FenceWait::new(fastrand::Rng::with_seed(1));
        let first = wait.next(0).as_secs();
        let second = wait.next(60_000).as_secs();
        let much_later = wait.next(10_000_000).as_secs();
        assert!((27..=33).contains(&first) && (54..=66).contains(&second) && (27..=33).contains(&much_later));
    }
}
