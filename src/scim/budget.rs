//! How often a credential is used, by what its profile states and by what the vendor's answers say.
//!
//! One [`Budget`] for each credential and host, shared by all accounts of the process that use it. A request takes a
//! [`Turn`], held over all of its tries; each try asks for a [`Permit`], which waits for room:
//!
//! - **Stated limits** hold in any window. A bucket that refills (`governor`) lets up to twice the count through in
//!   some windows, so each limit remembers when its requests were answered. A request counts from when it is sent
//!   until `per` after its answer began: the vendor counts it at some moment in between.
//! - **Pauses** that a 429 or 503 asks for stop every request of the budget, not only the one that was answered so.
//! - **Remaining counts** of answers let that many requests through until they are reset.
//! - **After a 429** one request is under way at a time, and slowly more again. A throttled request that keeps its turn
//!   is the first to go on. Without this, many at once would use up all of their tries against each other.
//!
//! [`Pace`] computes when there is room; a budget waits for it.

use crate::directory::ReasonCode;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::advice::Advice;
use super::error::ReadError;
use super::pace::{Pace, Sent};
use super::profile::{Allowance, Operation, RateLimit};
use crate::retry::Waits;

/// What one credential may ask of one host.
#[derive(Debug)]
pub struct Budget {
    pace: Mutex<Pace>,
    changed: Notify,
}

/// The budgets in use, by hash of host and credential.
static BUDGETS: Mutex<BTreeMap<u128, Weak<Budget>>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    pub fn new(limits: &[RateLimit], random: fastrand::Rng) -> Arc<Budget> {
        Arc::new(Budget { pace: Mutex::new(Pace::new(limits, random)), changed: Notify::new() })
    }

    /// The process's budget of `key`, bound by `allowance` beside those of its other users. `current` is what the
    /// caller has used so far: it is kept if a credential was rotated and no other account uses the new one.
    pub fn shared(key: u128, allowance: &Allowance, current: Option<&Arc<Budget>>) -> Arc<Budget> {
        let mut budgets = lock(&BUDGETS);
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let found = budgets.get(&key).and_then(Weak::upgrade);
        let budget = found.or_else(|| current.cloned()).unwrap_or_else(|| Budget::new(&[], fastrand::Rng::new()));
        budgets.insert(key, Arc::downgrade(&budget));
        lock(&budget.pace).allow(allowance);
        budget
    }

    /// For one request and all of its tries.
    pub fn turn(self: &Arc<Self>) -> Turn {
        Turn { budget: self.clone(), taken: false }
    }
}

/// One request's place among those under way.
#[derive(Debug)]
pub struct Turn {
    budget: Arc<Budget>,
    taken: bool,
}

impl Turn {
    /// Waits until a request may be sent.
    ///
    /// # Errors
    /// There was no room within the longest stated window and `ROOM_WAIT_MAX`.
    pub async fn permit(&mut self, operation: Option<Operation>) -> Result<Permit, ReadError> {
        let budget = &self.budget;
        let room_wait = lock(&budget.pace).room_wait();
        let deadline = Instant::now() + room_wait;
        loop {
            let changed = budget.changed.notified();
            let now = Instant::now();
            let asked = lock(&budget.pace).ask(now, operation, &mut self.taken);
            match asked {
                Ok(sent) => {
                    return Ok(Permit { budget: budget.clone(), sent: Some(sent) });
                }
                Err(_) if now >= deadline => {
                    let text =
                        format!("the vendor's rate limit left no room for a request in {} s", room_wait.as_secs());
                    return Err(ReadError::new(ReasonCode::Unavailable, text));
                }
                Err(until) => {
                    tokio::select! {
                        () = changed => {}
                        () = sleep_until(until.map_or(deadline, |until| until.min(deadline))) => {}
                    }
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.taken {
            lock(&self.budget.pace).end_turn();
            self.budget.changed.notify_waiters();
        }
    }
}

/// Leave to send one request now. If it is dropped, the request counts as answered without advice.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    sent: Option<Sent>,
}

impl Permit {
    /// The answer has begun.
    pub fn answered(mut self, advice: &Advice) {
        self.end(advice);
    }

    fn end(&mut self, advice: &Advice) {
        if let Some(sent) = self.sent.take() {
            lock(&self.budget.pace).answered(Instant::now(), sent, advice);
            self.budget.changed.notify_waiters();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(&Advice::default());
    }
}

/// The tries of one request: those answered 429 are counted apart from those that failed.
pub struct Tries {
    throttled: Waits,
    failed: Waits,
}

impl Tries {
    pub fn new(throttled: Waits, failed: Waits) -> Tries {
        Tries { throttled, failed }
    }

    /// Waits before another try, if there is one left; a wait for the vendor's sake is one for the whole budget.
    /// `advice`: of the answer, if one came.
    pub async fn another(&mut self, turn: &Turn, advice: Option<&Advice>) -> bool {
        let throttled = advice.is_some_and(|advice| advice.throttled);
        let waits = if throttled { &mut self.throttled } else { &mut self.failed };
        let Some(own) = waits.next_wait() else { return false };
        match advice.and_then(|advice| advice.wait) {
            // The answer has paused the budget.
            Some(_) => {}
            None if throttled => lock(&turn.budget.pace).pause(Instant::now(), own),
            None => sleep(own).await,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;
    use tokio::task::JoinSet;

    use super::*;
    use crate::scim::advice::Left;
    use crate::scim::pace::ROOM_WAIT_MAX;

    const SECOND: Duration = Duration::from_secs(1);
    /// 2026-01-01T00:00:00Z.
    const EPOCH: i64 = 1_767_225_600_000;

    /// How a simulated vendor says that its limit is used up.
    #[derive(Clone, Copy, Debug)]
    enum Says {
        Nothing,
        RetryAfterSeconds,
        RetryAfterDate,
        XRateLimitEpoch,
        OktaEpochMillis,
        SeparateFields,
        StructuredField,
        OldStructuredField,
    }

    /// Allows `requests` in each `per`, in windows as the clock has them or in any.
    struct Vendor {
        requests: usize,
        per: Duration,
        sliding: bool,
        says: Says,
        started: Instant,
        accepted: Vec<Instant>,
        refused: usize,
    }

    type Shared = Arc<Mutex<Vendor>>;

    impl Vendor {
        fn start(requests: usize, per: Duration, sliding: bool, says: Says) -> Shared {
            let started = Instant::now();
            Arc::new(Mutex::new(Vendor { requests, per, sliding, says, started, accepted: Vec::new(), refused: 0 }))
        }

        fn answer(&mut self) -> Advice {
            let (now, per) = (Instant::now(), self.per);
            let elapsed = now - self.started;
            let window = elapsed.as_nanos() / per.as_nanos();
            let counts = |at: &&Instant| {
                if self.sliding {
                    **at + per > now
                } else {
                    (**at - self.started).as_nanos() / per.as_nanos() == window
                }
            };
            let used = self.accepted.iter().filter(counts).count();
            let refused = used >= self.requests;
            if refused {
                self.refused += 1;
            } else {
                self.accepted.push(now);
            }
            let status = if refused { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            let left = self.requests.saturating_sub(used + 1);
            let window_ends = per * u32::try_from(window + 1).unwrap();
            let seconds = (window_ends - elapsed).as_secs_f64().ceil();
            let ends = EPOCH + i64::try_from(window_ends.as_millis()).unwrap();
            let now = EPOCH + i64::try_from(elapsed.as_millis()).unwrap();
            let fields: Vec<(&'static str, String)> = match self.says {
                Says::RetryAfterSeconds if refused => vec![("retry-after", seconds.to_string())],
                Says::RetryAfterDate if refused => {
                    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ends).unwrap());
                    vec![("retry-after", httpdate::fmt_http_date(at))]
                }
                Says::Nothing | Says::RetryAfterSeconds | Says::RetryAfterDate => vec![],
                Says::XRateLimitEpoch => vec![
                    ("x-ratelimit-limit", self.requests.to_string()),
                    ("x-ratelimit-remaining", left.to_string()),
                    ("x-ratelimit-reset", (ends / 1000).to_string()),
                ],
                Says::OktaEpochMillis => {
                    vec![("x-rate-limit-remaining", left.to_string()), ("x-rate-limit-reset", ends.to_string())]
                }
                Says::SeparateFields => {
                    vec![("ratelimit-remaining", left.to_string()), ("ratelimit-reset", seconds.to_string())]
                }
                Says::StructuredField => {
                    vec![("ratelimit", format!("\"burst\";r={left};t={seconds}, \"day\";r=999;t=9"))]
                }
                Says::OldStructuredField => {
                    vec![("ratelimit", format!("limit={}, remaining={left}, reset={seconds}", self.requests))]
                }
            };
            Advice::read(status, &headers(&fields), now, 1.0)
        }
    }

    fn headers(fields: &[(&'static str, String)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn limit(of: Option<Operation>, requests: u32, per: Duration) -> RateLimit {
        RateLimit { of, requests, per }
    }

    fn budget(limits: &[RateLimit]) -> Arc<Budget> {
        Budget::new(limits, fastrand::Rng::with_seed(7))
    }

    fn tries() -> Tries {
        let throttled = Waits::bounded(8, 5 * SECOND, 60 * SECOND);
        Tries::new(throttled, Waits::bounded(4, SECOND / 2, 60 * SECOND))
    }

    /// One request as `Client::send` makes it. True if it was accepted in the end.
    async fn request(budget: &Arc<Budget>, vendor: &Shared, of: Option<Operation>, latency: [Duration; 2]) -> bool {
        let mut turn = budget.turn();
        let mut tries = tries();
        loop {
            let permit = turn.permit(of).await.unwrap();
            sleep(latency[0]).await;
            let advice = vendor.lock().unwrap().answer();
            sleep(latency[1]).await;
            permit.answered(&advice);
            if !advice.throttled {
                return true;
            }
            if !tries.another(&turn, Some(&advice)).await {
                return false;
            }
        }
    }

    /// `requests` in all, by `workers` at once; how long they took.
    async fn walk(
        budgets: &[Arc<Budget>],
        vendor: &Shared,
        requests: usize,
        workers: usize,
        latency_ms: u64,
    ) -> Duration {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            let (budget, vendor) = (budgets[worker % budgets.len()].clone(), vendor.clone());
            let mut random = fastrand::Rng::with_seed(worker as u64);
            let share = requests / workers + usize::from(worker < requests % workers);
            tasks.spawn(async move {
                for _ in 0..share {
                    let latency = [0; 2].map(|_| Duration::from_millis(random.u64(0..=latency_ms)));
                    assert!(request(&budget, &vendor, None, latency).await, "given up");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        started.elapsed()
    }

    fn assert_close(took: Duration, ideal: Duration, what: &str) {
        assert!(took >= ideal && took <= ideal.mul_f64(1.02), "{what}: {took:?}, ideally {ideal:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_vendor_says_in_any_form_keeps_requests_within_two_percent_of_the_ideal() {
        for says in [
            Says::RetryAfterSeconds,
            Says::RetryAfterDate,
            Says::XRateLimitEpoch,
            Says::OktaEpochMillis,
            Says::SeparateFields,
            Says::StructuredField,
            Says::OldStructuredField,
        ] {
            for workers in [1, 8, 50] {
                let vendor = Vendor::start(5, SECOND, false, says);
                let took = walk(&[budget(&[])], &vendor, 200, workers, 0).await;
                assert_close(took, 39 * SECOND, &format!("{says:?}, {workers} at once"));
                if !matches!(says, Says::RetryAfterSeconds | Says::RetryAfterDate) && workers == 1 {
                    assert_eq!(vendor.lock().unwrap().refused, 0, "{says:?}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_at_once_do_not_use_up_their_tries_against_each_other() {
        // What is under way when the limit is reached cannot be held back: here each takes up to 40 ms.
        let vendor = Vendor::start(5, SECOND, false, Says::RetryAfterSeconds);
        walk(&[budget(&[])], &vendor, 200, 50, 20).await;
        let refused = vendor.lock().unwrap().refused;
        // At first all others, then about one a window.
        assert!(refused <= 45 + 40, "{refused} requests were refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_the_profile_states_is_kept_without_a_single_429() {
        for sliding in [false, true] {
            for workers in [1, 8] {
                let vendor = Vendor::start(5, SECOND, sliding, Says::Nothing);
                let took = walk(&[budget(&[limit(None, 5, SECOND)])], &vendor, 200, workers, 0).await;
                assert_close(took, 39 * SECOND, &format!("sliding {sliding}, {workers} at once"));
                assert_eq!(vendor.lock().unwrap().refused, 0);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_travel_at_different_speeds_keep_the_limit_where_they_arrive() {
        let vendor = Vendor::start(5, SECOND, true, Says::Nothing);
        let took = walk(&[budget(&[limit(None, 5, SECOND)])], &vendor, 200, 8, 40).await;
        assert_eq!(vendor.lock().unwrap().refused, 0);
        // A request counts until a second after its answer: up to 80 ms a window.
        assert!(took <= 39 * SECOND.mul_f64(1.09), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn five_group_lists_in_thirty_seconds_hold_in_any_window_and_delay_nothing_else() {
        let of = Some(Operation::ListGroups);
        let budget = budget(&[limit(of, 5, 30 * SECOND), limit(Some(Operation::ListUsers), 200, 30 * SECOND)]);
        let vendor = Vendor::start(usize::MAX, SECOND, true, Says::Nothing);
        let started = Instant::now();
        let mut lists = JoinSet::new();
        for worker in 0..3u64 {
            let (budget, vendor) = (budget.clone(), vendor.clone());
            lists.spawn(async move {
                for _ in 0..8 {
                    sleep(Duration::from_millis(70 * worker)).await;
                    request(&budget, &vendor, of, [Duration::ZERO; 2]).await;
                }
            });
        }
        while lists.join_next().await.is_some() {}
        assert_close(started.elapsed(), 120 * SECOND, "24 lists");
        let sent = vendor.lock().unwrap().accepted.clone();
        assert_eq!(sent.len(), 24);
        for window in sent.windows(6) {
            assert!(window[5] - window[0] >= 30 * SECOND, "{window:?}");
        }
        let now = Instant::now();
        for _ in 0..200 {
            request(&budget, &vendor, Some(Operation::ListUsers), [Duration::ZERO; 2]).await;
        }
        assert_eq!(now.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_with_one_credential_share_one_budget() {
        let allowed = |limits: &[RateLimit]| Allowance { limits: limits.to_vec(), ..Allowance::default() };
        let limits = || allowed(&[limit(None, 5, SECOND)]);
        let (one, two) = (Budget::shared(1, &limits(), None), Budget::shared(1, &limits(), None));
        assert!(Arc::ptr_eq(&one, &two) && !Arc::ptr_eq(&one, &Budget::shared(2, &Allowance::default(), None)));
        let vendor = Vendor::start(5, SECOND, true, Says::Nothing);
        let took = walk(&[one.clone(), two], &vendor, 100, 4, 0).await;
        assert_close(took, 19 * SECOND, "two accounts");
        assert_eq!(vendor.lock().unwrap().refused, 0);
        // A rotated credential keeps its budget, unless the new one is in use already.
        let rotated = Budget::shared(3, &limits(), Some(&one));
        assert!(Arc::ptr_eq(&one, &rotated) && Arc::ptr_eq(&one, &Budget::shared(3, &limits(), None)));
        let other = Budget::shared(4, &limits(), None);
        assert!(Arc::ptr_eq(&other, &Budget::shared(4, &limits(), Some(&one))));
        // Another account's profile may state more.
        drop(Budget::shared(4, &allowed(&[limit(None, 1, SECOND)]), None));
        assert_eq!(lock(&other.pace).windows.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_remains_of_one_endpoint_says_nothing_about_another_where_a_profile_says_so() {
        let used_up = Advice { left: Some(Left { requests: 0, reset: 30 * SECOND }), ..Advice::default() };
        for (per_endpoint, waits) in [(true, Duration::ZERO), (false, 30 * SECOND)] {
            let allowance = Allowance { per_endpoint, ..Allowance::default() };
            let budget = Budget::shared(10 + u128::from(per_endpoint), &allowance, None);
            let started = Instant::now();
            budget.turn().permit(Some(Operation::ListUsers)).await.unwrap().answered(&used_up);
            drop(budget.turn().permit(Some(Operation::ListGroups)).await.unwrap());
            assert_close(started.elapsed(), waits, "another endpoint");
            drop(budget.turn().permit(Some(Operation::ListUsers)).await.unwrap());
            assert_close(started.elapsed(), 30 * SECOND, "the same endpoint");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_requests_are_under_way_than_a_profile_allows() {
        let allowance = Allowance { at_once: Some(2), ..Allowance::default() };
        let budget = Budget::shared(20, &allowance, None);
        let mut turns = [budget.turn(), budget.turn(), budget.turn()];
        let [one, two, three] = &mut turns;
        let permits = [one.permit(None).await.unwrap(), two.permit(None).await.unwrap()];
        assert!(tokio::time::timeout(SECOND, three.permit(None)).await.is_err(), "two are under way");
        permits.into_iter().for_each(|permit| permit.answered(&Advice::default()));
        let [one, ..] = turns;
        drop(one);
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_pauses_every_request_of_the_budget() {
        let budget = budget(&[]);
        let started = Instant::now();
        let advice =
            Advice::read(StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", "10".to_owned())]), EPOCH, 1.0);
        budget.turn().permit(None).await.unwrap().answered(&advice);
        drop(budget.turn().permit(Some(Operation::GetUser)).await.unwrap());
        assert_close(started.elapsed(), 10 * SECOND, "another request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_vendor_that_always_answers_429_is_given_up_after_bounded_tries() {
        for (says, longest) in [(Says::RetryAfterSeconds, 7.0), (Says::Nothing, 7.0 * 1.5 * 60.0)] {
            let vendor = Vendor::start(0, SECOND, false, says);
            let started = Instant::now();
            assert!(!request(&budget(&[]), &vendor, None, [Duration::ZERO; 2]).await);
            assert_eq!(vendor.lock().unwrap().refused, 8);
            assert!(started.elapsed().as_secs_f64() <= longest * 1.02, "{:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_apart_from_429s() {
        let budget = budget(&[]);
        let (mut turn, mut tries) = (budget.turn(), tries());
        let throttled = Advice { throttled: true, ..Advice::default() };
        for (advice, left) in [(None, 3), (Some(&throttled), 7)] {
            for _ in 0..left {
                assert!(tries.another(&turn, advice).await);
            }
            assert!(!tries.another(&turn, advice).await);
        }
        drop(turn.permit(None).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_room_for_ever() {
        let budget = budget(&[limit(None, 1, SECOND)]);
        let _never_answered = budget.turn().permit(None).await.unwrap();
        let started = Instant::now();
        let error = budget.turn().permit(None).await.unwrap_err();
        assert_eq!((error.code, started.elapsed()), (ReasonCode::Unavailable, ROOM_WAIT_MAX + SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_dropped_leaves_its_room_to_others() {
        let budget = budget(&[limit(None, 1, SECOND)]);
        let permit = budget.turn().permit(None).await.unwrap();
        drop(permit);
        drop(budget.turn().permit(None).await.unwrap());
        let pace = lock(&budget.pace);
        assert_eq!((pace.turns, pace.unanswered), (0, 0));
    }
}
