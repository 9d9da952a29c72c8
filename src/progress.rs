//! What this process alone knows, for people who look: the long work that is under way, and the accounts that it cannot
//! sync because it does not understand their records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::directory::Problem;

/// Work that ends sooner is not shown: a page that flickers tells nothing.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

/// Work that may take long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// The state of a shard is read back from Kafka.
    Restore { partition: i32 },
    /// The directory of an account is read.
    Sync { account: String },
}

/// How far work has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What is counted, e.g. `Users`.
    pub what: &'static str,
    pub done: u64,
    /// `None` if the end is not known.
    pub total: Option<u64>,
}

/// What is shown; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    work: BTreeMap<Work, (Instant, Done)>,
    stopped: BTreeMap<String, Problem>,
}

impl Board {
    /// Shows work until what is returned is dropped.
    pub fn begin(&self, work: Work) -> Entry {
        Entry { board: self.clone(), work, begun: Instant::now() }
    }

    /// All that has been under way for a while.
    pub fn now(&self) -> Vec<(Work, Done)> {
        let shown = self.lock();
        let lasts = shown.work.iter().filter(|(_, (begun, _))| begun.elapsed() >= SHOWN_AFTER);
        lasts.map(|(work, (_, done))| (work.clone(), done.clone())).collect()
    }

    /// Shows that these accounts are stopped until what is returned is dropped.
    pub fn stop(&self, accounts: Vec<(String, Problem)>) -> Stops {
        let names = accounts.iter().map(|(name, _)| name.clone()).collect();
        self.lock().stopped.extend(accounts);
        Stops { board: self.clone(), names }
    }

    /// The accounts that are stopped, and why.
    pub fn stopped(&self) -> BTreeMap<String, Problem> {
        self.lock().stopped.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accounts that are shown as stopped while this lives.
#[derive(Debug)]
pub struct Stops {
    board: Board,
    names: Vec<String>,
}

impl Drop for Stops {
    fn drop(&mut self) {
        let mut shown = self.board.lock();
        for name in &self.names {
            shown.stopped.remove(name);
        }
    }
}

/// Work that is shown while this lives.
#[derive(Debug)]
pub struct Entry {
    board: Board,
    work: Work,
    begun: Instant,
}

impl Entry {
    pub fn set(&self, done: Done) {
        self.board.lock().work.insert(self.work.clone(), (self.begun, done));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.board.lock().work.remove(&self.work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_shown_while_it_is_under_way_and_lasts() {
        let board = Board::default();
        let entry = board.begin(Work::Restore { partition: 3 });
        assert_eq!(board.now(), [], "nothing is known of it yet");
        let half = Done { what: "records", done: 1, total: Some(2) };
        entry.set(half.clone());
        assert_eq!(board.now(), [], "it may end at once");
        tokio::time::advance(SHOWN_AFTER).await;
        assert_eq!(board.now(), [(Work::Restore { partition: 3 }, half)]);
        drop(entry);
        assert_eq!(board.now(), []);
    }
}
