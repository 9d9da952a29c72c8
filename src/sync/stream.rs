//! A first sync of a new account writes the users that it has read while it reads on: the first record is there after the
//! first page, and memory holds what is known, not what is known and all that is new.
//!
//! **Safety argument.** Known moves only after a commit, as in every sync. A commit is under way only while the next page
//! is fetched and parsed: before a row of that page is compared, the commit has returned and known has followed. So a
//! row that comes again is compared with what was written, and cannot be added twice. However the reading ends, what is
//! under way is waited for first ([`Stream::settle`]): the record of the attempt, and the next attempt, build on it.
//! A sync that is dropped meanwhile takes its acquisition with it, and the next one reads what was committed.
//!
//! Only an account of which nothing is known streams. One that was cut off goes on as a first sync does that has known
//! principals: they may be gone, which takes the whole list to see.

use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use futures::poll;

use super::batch::{Batches, EncodedBatch};
use super::observe::Refusal;
use super::owned::Writing;
use crate::directory::{Diff, Known, SyncStatus};
use crate::log::{Batch, CommitError, Log, Positions};

/// Users for which a transaction pays. The first page is written whatever it holds.
const USERS_MIN: usize = 1_000;

type Commit<'a> = BoxFuture<'a, Result<Positions, CommitError>>;

/// Never locked: what a sync looks at may be shared between threads, and a future of this kind may not.
type UnderWay<'a> = Mutex<Option<(EncodedBatch, Commit<'a>)>>;

/// Writes what was read so far.
pub struct Stream<'a> {
    writing: Writing<'a, ()>,
    log: Box<dyn Fn(Batch) -> Commit<'a> + Send + Sync + 'a>,
    batches: &'a mut Batches,
    /// The sync as it began.
    attempt: SyncStatus,
    under_way: UnderWay<'a>,
    begun: bool,
}

/// True for an account whose first sync can be written as it is read.
pub fn can_stream(known: &Known) -> bool {
    known.is_first() && known.state_records() == 0
}

impl<'a> Stream<'a> {
    pub fn new<L: Log>(writing: Writing<'a, L>, batches: &'a mut Batches, attempt: &SyncStatus) -> Stream<'a> {
        let Writing { account, log, codec, clock } = writing;
        Stream {
            writing: Writing { account, log: &(), codec, clock },
            log: Box::new(move |batch| log.commit(batch).boxed()),
            batches,
            attempt: attempt.clone(),
            under_way: Mutex::new(None),
            begun: false,
        }
    }

    /// Writes the users that were read, if they are enough for a transaction. Returns when all but the last transaction
    /// are committed.
    ///
    /// # Errors
    /// A transaction is not committed.
    pub async fn write(&mut self, diff: &mut Diff<'_>) -> Result<(), Refusal> {
        let enough = USERS_MIN.min(self.writing.account.batch.principals);
        if diff.changed_users() == 0 || self.begun && diff.changed_users() < enough {
            return Ok(());
        }
        self.begun = true;
        self.batches.take_some(diff.drain_users());
        while let Some(encoded) = self.batches.next(self.writing, diff.known()) {
            let mut batch = encoded.map_err(Refusal::Failed)?;
            self.settle(diff).await?;
            let mut commit = (self.log)(batch.for_log(self.writing, diff.known(), &self.attempt));
            // A future does nothing before it is looked at.
            let commit = match poll!(&mut commit) {
                Poll::Ready(result) => future::ready(result).boxed(),
                Poll::Pending => commit,
            };
            *self.under_way() = Some((batch, commit));
        }
        Ok(())
    }

    /// Waits for what is under way, and lets known follow.
    ///
    /// # Errors
    /// As [`Stream::write`].
    pub async fn settle(&mut self, diff: &mut Diff<'_>) -> Result<(), Refusal> {
        let Some((_, commit)) = self.under_way() else { return Ok(()) };
        // It stays where it is until it is known: a sync that takes too long is called off, and settles after that.
        let committed = commit.await;
        if let Some((batch, _)) = self.under_way().take() {
            let positions = committed.map_err(Refusal::NotCommitted)?;
            diff.follow(|known| batch.apply(self.writing.account, known, &positions));
        }
        Ok(())
    }

    fn under_way(&mut self) -> &mut Option<(EncodedBatch, Commit<'a>)> {
        self.under_way.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
