//! Pace: how often a credential is used, by what its profile states and by what the vendor's answers say.
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
//! [`Pace`] is the arithmetic, without waiting: times go in, times come out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::{self, ReadError};
use super::profile::{Operation, RateLimit};
use crate::retry::Waits;

/// Longest pause that an answer can ask for.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Longest wait of one try for room, beyond the longest window that the profile states.
pub const ROOM_WAIT_MAX: Duration = Duration::from_secs(600);
/// Share of a wait by which it gets longer at random, so that processes do not come back at the same moment.
pub const JITTER_MAX: f64 = 0.01;
/// Requests of one credential under way at once.
pub const TURNS_MAX: u32 = 64;
/// Requests that have to be accepted before one more may be under way again.
const ACCEPTED_PER_TURN: u32 = 50;
/// From this on a number is a time in seconds since 1970-01-01 UTC (2001), not a delay (32 years).
const EPOCH_SECONDS_MIN: f64 = 1e9;
/// From this on it is one in milliseconds (2001), not in seconds (the year 33658).
const EPOCH_MILLIS_MIN: f64 = 1e12;

/// What the headers of one answer ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// 429.
    pub throttled: bool,
    /// Before the next request, of a 429 or 5xx; above zero, at most [`PAUSE_MAX`].
    pub wait: Option<Duration>,
    /// How many requests are left, and until when; at most [`PAUSE_MAX`].
    pub left: Option<(u64, Duration)>,
}

impl Advice {
    /// Nobody waits longer than that, whatever the server asks for.
    pub fn at_most(self, longest: Duration) -> Advice {
        let left = self.left.map(|(left, reset)| (left, reset.min(longest)));
        Advice { wait: self.wait.map(|wait| wait.min(longest)), left, ..self }
    }

    /// Reads Retry-After (RFC 9110 §10.2.3) and what vendors send of RateLimit (draft-ietf-httpapi-ratelimit-headers,
    /// old and new), X-RateLimit-* and X-Rate-Limit-*. What cannot be understood is ignored. `now`: milliseconds since
    /// 1970-01-01 UTC; the server's `Date` is preferred, because its other times are of the same clock.
    pub fn read(status: StatusCode, headers: &HeaderMap, now: i64) -> Advice {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let now = text(DATE.as_str()).and_then(date_millis).unwrap_or(now);
        let mut stated: Vec<(Option<u64>, Option<Duration>)> = Vec::new();
        for line in headers.get_all("ratelimit").iter().filter_map(|value| value.to_str().ok()) {
            stated.extend(items(line).into_iter().map(|(left, reset)| (count(left), delay(reset, now))));
        }
        for family in ["ratelimit", "x-ratelimit", "x-rate-limit"] {
            let field = |name: &str| text(&format!("{family}-{name}")).unwrap_or_default();
            stated.push((count(field("remaining")), delay(field("reset"), now)));
        }
        let throttled = status == StatusCode::TOO_MANY_REQUESTS;
        let reset = stated.iter().filter_map(|(_, reset)| *reset).max();
        let wait = text(RETRY_AFTER.as_str()).and_then(|text| delay(text, now)).or(reset.filter(|_| throttled));
        let left = stated.into_iter().filter_map(|(left, reset)| left.zip(reset));
        Advice {
            throttled,
            wait: wait.filter(|_| throttled || status.is_server_error()),
            // Of several the one that binds first.
            left: left.min_by_key(|(left, reset)| (*left, Reverse(*reset))),
        }
    }
}

/// Remaining count and reset of each item of `RateLimit`: `"default";r=50;t=30` (a list), or, in older drafts, all
/// of it `limit=100, remaining=50, reset=30`.
fn items(line: &str) -> Vec<(&str, &str)> {
    fn value<'a>(parameters: &'a str, names: &[&str]) -> &'a str {
        let mut pairs = parameters.split([';', ',']).filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| names.contains(&name.trim())).map_or("", |(_, value)| value.trim())
    }
    if line.contains("remaining") {
        return vec![(value(line, &["remaining"]), value(line, &["reset"]))];
    }
    line.split(',').map(|item| (value(item, &["r"]), value(item, &["t"]))).collect()
}

fn count(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

/// Seconds to wait, seconds or milliseconds since 1970, told apart by magnitude, or a date. `None`: not above zero.
fn delay(text: &str, now: i64) -> Option<Duration> {
    let millis = match text.parse::<f64>() {
        Ok(number) if !number.is_finite() => return None,
        Ok(number) if number >= EPOCH_MILLIS_MIN => number - now as f64,
        Ok(number) if number >= EPOCH_SECONDS_MIN => number * 1000.0 - now as f64,
        Ok(number) => number * 1000.0,
        Err(_) => (date_millis(text)? - now) as f64,
    };
    let bounded = millis.min(PAUSE_MAX.as_millis() as f64);
    (bounded >= 1.0).then(|| Duration::from_millis(bounded as u64))
}

/// An HTTP-date (RFC 9110 §5.6.7) or RFC 3339, in milliseconds since 1970-01-01 UTC.
fn date_millis(text: &str) -> Option<i64> {
    if let Ok(time) = httpdate::parse_http_date(text) {
        return i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok();
    }
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Requests of one stated limit.
#[derive(Debug)]
struct Window {
    limit: RateLimit,
    unanswered: u32,
    /// When the answers of the last `per` began, oldest first.
    answered: VecDeque<Instant>,
}

impl Window {
    fn counts(&self, operation: Option<Operation>) -> bool {
        self.limit.of.is_none() || self.limit.of == operation
    }

    /// `Err`: when there is room, if no answer comes before; `None` where only an answer makes room.
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

/// The arithmetic of one budget.
#[derive(Debug)]
pub struct Pace {
    windows: Vec<Window>,
    unanswered: u32,
    paused_until: Option<Instant>,
    /// What an answer said is left, less what was sent since, and until when.
    left: Option<(u64, Instant)>,
    turns: u32,
    turns_max: u32,
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
            left: None,
            turns: 0,
            turns_max: TURNS_MAX,
            accepted: 0,
            random,
        };
        pace.limit(limits);
        pace
    }

    /// Keeps these limits too, beside those there are.
    fn limit(&mut self, limits: &[RateLimit]) {
        for limit in limits {
            if !self.windows.iter().any(|window| window.limit == *limit) {
                self.windows.push(Window { limit: limit.clone(), unanswered: 0, answered: VecDeque::new() });
            }
        }
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
        let exhausted = self.left.filter(|(left, _)| *left == 0).map(|(_, until)| until);
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
        self.left = self.left.filter(|(_, until)| *until > now).map(|(left, until)| (left - 1, until));
        Ok(Sent { operation })
    }

    /// An answer began, or the request broke.
    pub fn answered(&mut self, now: Instant, sent: Sent, advice: &Advice) {
        self.unanswered = self.unanswered.saturating_sub(1);
        for window in self.windows.iter_mut().filter(|window| window.counts(sent.operation)) {
            window.unanswered = window.unanswered.saturating_sub(1);
            window.answered.push_back(now);
        }
        if let Some((left, reset)) = advice.left {
            // Requests under way may be counted already or not: they count as not.
            self.left = Some((left.saturating_sub(self.unanswered.into()), now + reset));
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
                self.turns_max = (self.turns_max + 1).min(TURNS_MAX);
                self.accepted = 0;
            }
        }
    }

    /// Nothing is let through before `wait` (at most [`PAUSE_MAX`]) is over.
    pub fn pause(&mut self, now: Instant, wait: Duration) {
        self.paused_until = self.paused_until.max(Some(now + wait.min(PAUSE_MAX)));
    }

    fn end_turn(&mut self) {
        self.turns = self.turns.saturating_sub(1);
    }

    fn room_wait(&self) -> Duration {
        self.windows.iter().map(|window| window.limit.per).max().unwrap_or_default() + ROOM_WAIT_MAX
    }
}

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

    /// The process's budget of `key`, bound by `limits` beside those of its other users. `current` is what the
    /// caller has used so far: it stays where a credential was rotated and nobody else uses the new one.
    pub fn shared(key: u128, limits: &[RateLimit], current: Option<&Arc<Budget>>) -> Arc<Budget> {
        let mut budgets = lock(&BUDGETS);
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let found = budgets.get(&key).and_then(Weak::upgrade);
        let budget = found.or_else(|| current.cloned()).unwrap_or_else(|| Budget::new(&[], fastrand::Rng::new()));
        budgets.insert(key, Arc::downgrade(&budget));
        lock(&budget.pace).limit(limits);
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
    /// There was no room within the longest stated window and [`ROOM_WAIT_MAX`].
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
                    return Err(ReadError::new(error::UNAVAILABLE, text));
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

/// Leave to send one request now. Dropped, it counts as answered without advice.
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
    use tokio::task::JoinSet;

    use super::*;

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
            Advice::read(status, &headers(&fields), now)
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

    /// One request as `Client::send` makes it. True where it was accepted in the end.
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
        let limits = [limit(None, 5, SECOND)];
        let (one, two) = (Budget::shared(1, &limits, None), Budget::shared(1, &limits, None));
        assert!(Arc::ptr_eq(&one, &two) && !Arc::ptr_eq(&one, &Budget::shared(2, &[], None)));
        let vendor = Vendor::start(5, SECOND, true, Says::Nothing);
        let took = walk(&[one.clone(), two], &vendor, 100, 4, 0).await;
        assert_close(took, 19 * SECOND, "two accounts");
        assert_eq!(vendor.lock().unwrap().refused, 0);
        // A rotated credential keeps its budget, unless the new one is in use already.
        let rotated = Budget::shared(3, &limits, Some(&one));
        assert!(Arc::ptr_eq(&one, &rotated) && Arc::ptr_eq(&one, &Budget::shared(3, &limits, None)));
        let other = Budget::shared(4, &limits, None);
        assert!(Arc::ptr_eq(&other, &Budget::shared(4, &limits, Some(&one))));
        // Another account's profile may state more.
        drop(Budget::shared(4, &[limit(None, 1, SECOND)], None));
        assert_eq!(lock(&other.pace).windows.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_pauses_every_request_of_the_budget() {
        let budget = budget(&[]);
        let started = Instant::now();
        let advice = Advice::read(StatusCode::TOO_MANY_REQUESTS, &headers(&[("retry-after", "10".to_owned())]), EPOCH);
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
        assert_eq!((error.code, started.elapsed()), (error::UNAVAILABLE, ROOM_WAIT_MAX + SECOND));
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

    #[test]
    fn retry_after_is_understood_in_every_form_and_bounded() {
        let wait = |fields: &[(&'static str, &str)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Advice::read(StatusCode::SERVICE_UNAVAILABLE, &headers(&fields), EPOCH).wait.map(|wait| wait.as_millis())
        };
        for (text, expected) in [
            ("120", Some(120_000)),
            ("1.5", Some(1_500)),
            ("Thu, 01 Jan 2026 00:01:30 GMT", Some(90_000)),
            ("2026-01-01T00:01:30Z", Some(90_000)),
            // An hour; ten years, in seconds and as a date; more than any clock holds.
            ("3600", Some(300_000)),
            ("315360000", Some(300_000)),
            ("Tue, 01 Jan 2036 00:00:00 GMT", Some(300_000)),
            ("99999999999999999999999", Some(300_000)),
            // Not above zero, or no time at all.
            ("0", None),
            ("-5", None),
            ("Wed, 31 Dec 2025 00:00:00 GMT", None),
            ("inf", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(&[("retry-after", text)]), expected, "{text}");
        }
        // The server's own clock counts: here it is an hour behind ours.
        let date = ("date", "Wed, 31 Dec 2025 23:00:00 GMT");
        assert_eq!(wait(&[("retry-after", "Wed, 31 Dec 2025 23:00:20 GMT"), date]), Some(20_000));
    }

    #[test]
    fn resets_are_told_apart_by_magnitude_and_garbage_is_ignored() {
        let read = |fields: &[(&'static str, &str)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Advice::read(StatusCode::OK, &headers(&fields), EPOCH)
        };
        for (reset, seconds) in [
            ("30", 30),
            ("1767225630", 30),
            ("1767225630000", 30),
            ("2026-01-01T00:00:30Z", 30),
            ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
            ("2082585600", 300),
        ] {
            for family in [["x-ratelimit-remaining", "x-ratelimit-reset"], ["ratelimit-remaining", "ratelimit-reset"]] {
                let advice = read(&[(family[0], "0"), (family[1], reset)]);
                assert_eq!(advice.left, Some((0, seconds * SECOND)), "{reset}");
                assert_eq!(advice.wait, None, "an accepted request was not throttled");
            }
        }
        for (remaining, reset) in
            [("0", "-1"), ("0", "1000000000"), ("-1", "30"), ("many", "30"), ("0", ""), ("", "30")]
        {
            let advice = read(&[("x-rate-limit-remaining", remaining), ("x-rate-limit-reset", reset)]);
            assert_eq!(advice, Advice::default(), "{remaining}, {reset}");
        }
        for (line, expected) in [
            ("\"default\";r=50;t=30", Some((50, 30))),
            ("\"a\";r=50;t=30, \"b\";r=2;t=7", Some((2, 7))),
            ("limit=100, remaining=0, reset=5", Some((0, 5))),
            ("default;r=0", None),
            (";;,,==", None),
        ] {
            assert_eq!(read(&[("ratelimit", line)]).left, expected.map(|(left, t)| (left, t * SECOND)), "{line}");
        }
    }

    #[test]
    fn a_429_without_retry_after_waits_until_the_reset() {
        let fields = [("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", "12".to_owned())];
        let advice = Advice::read(StatusCode::TOO_MANY_REQUESTS, &headers(&fields), EPOCH);
        assert_eq!((advice.throttled, advice.wait), (true, Some(12 * SECOND)));
    }
}
