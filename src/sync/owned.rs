//! One account of an owned shard: what a sync reads of it, and how it writes.

use std::sync::Arc;

use crate::account::Account;
use crate::avro::Codec;
use crate::directory::{Known, SyncStatus};
use crate::log::{Batch, CommitError, Log, Positions, Record};

/// An account whose shard this process owns, under one acquisition.
pub struct OwnedAccount<L> {
    pub account: Arc<Account>,
    /// What Kafka holds of the account. It moves only after a commit returned Ok.
    pub known: Known,
    pub log: L,
    pub codec: Codec,
    /// Milliseconds since 1970-01-01 UTC.
    pub clock: fn() -> i64,
}

/// How an account writes: all of [`OwnedAccount`] but what is known.
pub struct Writing<'a, L> {
    pub account: &'a Arc<Account>,
    pub log: &'a L,
    pub codec: &'a Codec,
    pub clock: fn() -> i64,
}

impl<L> Clone for Writing<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Writing<'_, L> {}

impl<L> OwnedAccount<L> {
    /// What is known, and how it is written, to be borrowed apart from each other.
    pub fn parts(&mut self) -> (Writing<'_, L>, &mut Known) {
        let OwnedAccount { account, known, log, codec, clock } = self;
        (Writing { account, log, codec, clock: *clock }, known)
    }
}

impl<L: Log> OwnedAccount<L> {
    /// Milliseconds since 1970-01-01 UTC, never before the last recorded time.
    pub fn now(&self) -> i64 {
        not_before(&self.known, self.clock)
    }

    /// Writes records, and then what `closing` makes of the positions reached, in one transaction of this acquisition.
    ///
    /// # Errors
    /// Nothing was written, or the acquisition is over.
    pub async fn commit(
        &self,
        records: Vec<Record>,
        closing: impl Fn(&Positions) -> Result<Vec<Record>, String> + Send + 'static,
    ) -> Result<Positions, CommitError> {
        let batch = Batch { acquisition: self.known.acquisition, records, closing: Box::new(closing) };
        self.log.commit(batch).await
    }

    /// Rewrites `account/latest` alone, in a transaction of its own.
    ///
    /// # Errors
    /// Nothing was written and `known` is as before, or the acquisition is over.
    pub async fn record_latest(&mut self, status: SyncStatus) -> Result<SyncStatus, CommitError> {
        let latest = self.codec.encode_latest(&self.account, &status).map_err(CommitError::Aborted)?;
        self.commit(Vec::new(), move |_| Ok(vec![latest.clone()])).await?;
        self.known.latest = Some(status.clone());
        Ok(status)
    }
}

/// The time of `clock`, but never before the last time that is recorded of the account: the clock of an earlier owner
/// may have been ahead of ours, and times of an account never go back.
pub fn not_before(known: &Known, clock: fn() -> i64) -> i64 {
    let times = [&known.latest, &known.completed].into_iter().flatten();
    let recorded = times.map(|status| status.finished_at.unwrap_or(0).max(status.started_at)).max();
    clock().max(recorded.unwrap_or(0))
}
