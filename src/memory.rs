//! One memory budget for the process, shared by all accounts: no directory may take the memory of the others.
//!
//! What a sync keeps until it publishes (changed principals, the page under way) is reserved here. A sync that would go
//! beyond the budget fails with a reason, and the process lives on. A small sync is always let through, so that an
//! account that floods the process does not stop the others.

use std::cell::Cell;
use std::ffi::c_long;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, interval};

/// Syncs under way get one part in so many of the memory that the process may use. Known and everything else come
/// beside it.
const SHARE: u64 = 4;
/// The budget if neither a cgroup nor the machine says how much memory there is.
const FALLBACK_BYTES: u64 = 1 << 30;
/// A sync that keeps no more than this never fails for want of memory.
const SMALL_BYTES: u64 = 32 << 20;

/// How long the allocator keeps what is free, in milliseconds. With mimalloc's 1,000 the peak of a first load of 100,000
/// users is a fifth higher, at the same CPU time; with 0 the load takes a fifth more CPU time. `MIMALLOC_PURGE_DELAY` in
/// the environment wins.
const PURGE_DELAY_MS: c_long = 50;
/// `mi_option_purge_delay` of mimalloc.h, which the crate does not name.
const PURGE_DELAY: mi_option_t = 15;

/// How often the allocator is asked for what is free. By itself it gives back only while it works: at rest after a first
/// load of 100,000 users, it kept up to 40 MB.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

static LIMIT: OnceLock<u64> = OnceLock::new();
static RESERVED: AtomicU64 = AtomicU64::new(0);
/// The turn of [`keep_giving_back`].
static TURN: AtomicU64 = AtomicU64::new(0);

/// Lets the allocator give back soon what is free.
#[expect(unsafe_code, reason = "the crate of mimalloc has no safe call")]
pub fn give_back_soon() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: an option is a number that the allocator reads when it frees, and any number is valid.
        unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) }
    }
}

/// Lets the allocator give back what is free, again and again. It takes microseconds if nothing is free, and a tenth of a
/// millisecond for each megabyte that goes.
///
/// Each thread has pages of its own, which no other one can give back: [`give_back_at_rest`] does.
pub async fn keep_giving_back() {
    let mut turns = interval(GIVE_BACK_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        TURN.fetch_add(1, Ordering::Relaxed);
        // A thread that is at rest already has to come to rest again.
        let mut woken = JoinSet::new();
        for _ in 0..2 * Handle::current().metrics().num_workers() {
            woken.spawn(yield_now());
        }
        woken.join_all().await;
    }
}

/// For each thread of the runtime, before it waits: once in each turn of [`keep_giving_back`].
#[expect(unsafe_code, reason = "the crate of mimalloc has no safe call")]
pub fn give_back_at_rest() {
    thread_local! { static SEEN: Cell<u64> = const { Cell::new(0) } }
    let turn = TURN.load(Ordering::Relaxed);
    if SEEN.replace(turn) != turn {
        // SAFETY: it frees nothing that is in use, and any thread may call it at any time.
        unsafe { mi_collect(true) }
    }
}

/// Sets the budget, once, before the first sync; `None`: a quarter of the cgroup's limit or of the machine's memory.
pub fn set_budget(bytes: Option<u64>) {
    LIMIT.get_or_init(|| bytes.unwrap_or_else(|| available().unwrap_or(FALLBACK_BYTES * SHARE) / SHARE));
}

fn limit() -> u64 {
    set_budget(None);
    LIMIT.get().copied().unwrap_or(FALLBACK_BYTES)
}

/// The smaller of the cgroup's limit (v2, v1) and the machine's memory; `None` if neither can be read.
fn available() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let cgroups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let total = || {
        let info = fs::read_to_string("/proc/meminfo").ok()?;
        let kib = info
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>();
        Some(kib.ok()? << 10)
    };
    cgroups.into_iter().filter_map(number).chain(total()).min()
}

/// A sync would take more than all syncs together may: `mib`, in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    pub mib: u64,
}

/// What one sync has reserved; given back when it is dropped.
#[derive(Debug, Default)]
pub struct Reserved(u64);

impl Reserved {
    /// Reserves `bytes` in all.
    ///
    /// # Errors
    /// The budget is used up.
    pub fn set(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let bytes = bytes as u64;
        let others = RESERVED.load(Ordering::Relaxed).saturating_sub(self.0);
        if bytes > SMALL_BYTES && others + bytes > limit() {
            return Err(OverBudget { mib: limit() >> 20 });
        }
        if bytes > self.0 {
            RESERVED.fetch_add(bytes - self.0, Ordering::Relaxed);
        } else {
            RESERVED.fetch_sub(self.0 - bytes, Ordering::Relaxed);
        }
        self.0 = bytes;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use libmimalloc_sys::mi_option_get;

    use super::*;

    /// The number is mimalloc's own, and another mimalloc may number its options in another way.
    #[test]
    #[expect(unsafe_code, reason = "the crate of mimalloc has no safe call")]
    fn the_option_that_is_set_is_the_one_that_the_variable_names() {
        const VARIABLE: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "77");
        // SAFETY: as in `give_back_soon`.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) }.to_string();
        give_back_soon();
        if std::env::var_os(VARIABLE.0).is_some_and(|value| value == VARIABLE.1) {
            assert_eq!(delay(), VARIABLE.1);
            return;
        }
        assert_eq!(delay(), PURGE_DELAY_MS.to_string());
        let name = "memory::tests::the_option_that_is_set_is_the_one_that_the_variable_names";
        let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).envs([VARIABLE]).output();
        let said = String::from_utf8_lossy(&child.unwrap().stdout).into_owned();
        assert!(said.contains("1 passed"), "{said}");
    }

    #[test]
    fn the_budget_refuses_large_syncs_beyond_it_and_never_small_ones() {
        let (mut large, mut small) = (Reserved::default(), Reserved::default());
        let refusal = large.set(usize::MAX >> 1).unwrap_err();
        assert_eq!(refusal, OverBudget { mib: limit() >> 20 });
        small.set(SMALL_BYTES as usize).unwrap();
        let before = RESERVED.load(Ordering::Relaxed);
        small.set(1).unwrap();
        assert_eq!(before - RESERVED.load(Ordering::Relaxed), SMALL_BYTES - 1);
    }
}
