//! What long work is under way in this process, for people who look: restores of shards, and syncs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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

/// What is under way; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<Work, (Instant, Done)>>>);

impl Board {
    /// Shows work until what is returned is dropped.
    pub fn begin(&self, work: Work) -> Entry {
        Entry { board: self.clone(), work, begun: Instant::now() }
    }

    /// All that has been under way for a while.
    pub fn now(&self) -> Vec<(Work, Done)> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = shown.iter().filter(|(_, (begun, _))| begun.elapsed() >= SHOWN_AFTER);
        lasts.map(|(work, (_, done))| (work.clone(), done.clone())).collect()
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
        self.board.0.lock().unwrap_or_else(PoisonError::into_inner).insert(self.work.clone(), (self.begun, done));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.board.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.work);
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
