//! Changes cut into transactions: bounded, in publishable order, a unit never split.

use crate::directory::{Changes, EventType, KeyChange, Known, Reason, ReasonCode, StateWrite, Status, SyncStatus};
use std::vec::IntoIter;

use super::attempt::committed_so_far;
use super::copies::copies;
use super::owned::OwnedAccount;
use crate::account::BatchBounds;
use crate::avro::EventContext;
use crate::directory::changes::Bytes;
use crate::failpoint::{self, Point};
use crate::log::{CommitError, Log, Positions, Record};
use crate::telemetry::{self, Carried};

/// Encodes the units of one sync, batch by batch.
pub struct Batches {
    units: std::iter::Peekable<IntoIter<KeyChange>>,
    context: EventContext,
    /// As of the last batch that was encoded; `known` follows only after the commit.
    status: SyncStatus,
    /// Taken by the last batch.
    bytes: Option<Bytes>,
}

/// One transaction's worth.
pub struct EncodedBatch {
    records: Vec<Record>,
    /// Each unit with the sequence of its last event and its share of the digest.
    units: Vec<(KeyChange, Option<i64>, u128)>,
    /// The `syncs` record as of this transaction, positions aside.
    status: SyncStatus,
    carried: Carried,
    /// The sync completes with this batch, and these are the bytes that the next one recognises.
    completes: Option<Bytes>,
}

impl Batches {
    pub fn new<L>(owned: &OwnedAccount<L>, attempt: &SyncStatus, changes: Changes) -> Batches {
        failpoint::hit(Point::DiffAfter);
        let mut status = attempt.clone();
        status.read(&changes);
        // Admitted without a release: the directory recovered, and the hold goes with that.
        status.hold = status.release.as_ref().map(|release| release.hold.clone());
        let context = EventContext::new(&owned.account, &owned.known, &status);
        Batches { units: changes.units.into_iter().peekable(), context, status, bytes: Some(changes.bytes) }
    }

    /// The next transaction; the last one always comes, even without a unit, and completes the sync.
    ///
    /// # Errors
    /// A value that does not fit its schema.
    pub fn next<L: Log>(&mut self, owned: &OwnedAccount<L>) -> Option<Result<EncodedBatch, Reason>> {
        self.bytes.as_ref()?;
        failpoint::hit(Point::EncodeBefore);
        let encoded = self.encode(owned).map_err(|text| Reason::new(ReasonCode::EncodingFailed, text));
        failpoint::hit(Point::EncodeAfter);
        Some(encoded)
    }

    fn encode<L: Log>(&mut self, owned: &OwnedAccount<L>) -> Result<EncodedBatch, String> {
        let (mut records, mut units) = (Vec::new(), Vec::new());
        let (mut principals, mut bytes, mut carried) = (0, 0, Carried::default());
        let published = self.status.published;
        let BatchBounds { principals: principals_max, units: units_max, bytes: bytes_max } = owned.account.batch;
        while principals < principals_max && units.len() < units_max && bytes < bytes_max {
            let Some(unit) = self.units.next() else { break };
            let mut before = self.status.sequence;
            let encoded = owned.codec.encode_change(&self.context, &owned.known, &unit, &mut self.status.sequence);
            let copies = if owned.account.outputs.is_empty() {
                Vec::new()
            } else {
                let events = self.context.change_events(&owned.known, &unit, &mut before);
                copies(&owned.account.outputs, &events, &encoded.records, &mut carried.copies_reduced)?
            };
            principals += usize::from(matches!(unit.write, StateWrite::Put { .. } | StateWrite::Remove { .. }));
            carried.reduced += usize::from(encoded.reduced);
            bytes += encoded.records.iter().chain(&copies).map(Record::len).sum::<usize>();
            self.account_for(&owned.known, &unit, encoded.digest);
            records.extend(encoded.records);
            records.extend(copies);
            units.push((unit, encoded.sequence, encoded.digest));
        }
        let events =
            EventType::ALL.map(|of| (of.as_str(), self.status.published[of as usize] - published[of as usize]));
        let counted = events.into_iter().filter_map(|(of, count)| Some((of, u64::try_from(count).ok()?)));
        carried.events = counted.filter(|(_, count)| *count > 0).collect();
        let completes = if self.units.peek().is_none() { self.bytes.take() } else { None };
        if completes.is_some() {
            self.status.status = Status::Completed;
            self.status.finished_at = Some(owned.now());
            // What a release still lets through ends with the sync that used it. The person who released stays on
            // record.
            if let Some(release) = &mut self.status.release {
                release.left = None;
            }
        }
        Ok(EncodedBatch { records, units, status: self.status.clone(), carried, completes })
    }

    /// Counts and digest as they will be after this unit. Every key occurs once in a sync, so what
    /// `known` says of it is what the unit replaces, although earlier batches may not be applied yet.
    fn account_for(&mut self, known: &Known, unit: &KeyChange, digest: u128) {
        for event in &unit.events {
            self.status.published[event.event_type as usize] += 1;
        }
        let replaced = known.record_digest(&unit.write.key());
        let added = !matches!(unit.write, StateWrite::Remove { .. } | StateWrite::RemoveMembership { .. });
        self.status.state_records += i64::from(added) - i64::from(replaced.is_some());
        self.status.state_digest = self.status.state_digest.wrapping_add(digest).wrapping_sub(replaced.unwrap_or(0));
        if let Some(release) = &mut self.status.release {
            release.left = release.left.map(|left| left.less(&unit.losses()));
        }
    }
}

impl EncodedBatch {
    /// Commits the batch, and last its `syncs` records: the completeness marker when the sync completes, and always
    /// `latest`. `attempt`: the sync as it began.
    ///
    /// # Errors
    /// Nothing was written, or the acquisition is over.
    pub async fn commit<L: Log>(
        &mut self,
        owned: &OwnedAccount<L>,
        attempt: &SyncStatus,
    ) -> Result<Positions, CommitError> {
        // Positions as far as committed: this transaction moves only those of the topics it writes.
        self.status.positions = committed_so_far(&owned.known, attempt).positions;
        let (account, codec, status) = (owned.account.clone(), owned.codec.clone(), self.status.clone());
        let completes = self.completes.is_some();
        let closing = move |reached: &Positions| {
            let status = SyncStatus { positions: account.positions(&status.positions, reached), ..status.clone() };
            let completed = completes.then(|| codec.encode_completed(&account, &status));
            completed.into_iter().chain([codec.encode_latest(&account, &status)]).collect()
        };
        owned.commit(std::mem::take(&mut self.records), closing).await
    }

    /// Lets `known` follow what [`EncodedBatch::commit`] wrote.
    pub fn apply<L>(self, owned: &mut OwnedAccount<L>, reached: &Positions) {
        let EncodedBatch { units, mut status, carried, completes, .. } = self;
        status.positions = owned.account.positions(&status.positions, reached);
        failpoint::hit(Point::ApplyBefore);
        for (unit, sequence, digest) in &units {
            owned.known.apply(unit, *sequence, *digest);
            failpoint::hit(Point::ApplyMiddle);
        }
        telemetry::committed(&owned.account.name, status.sync, carried);
        match completes {
            Some(bytes) => {
                // A sync that read only what was modified says nothing of how many users there are.
                if status.users_read.is_some() {
                    owned.known.walked_at = Some(status.started_at);
                }
                owned.known.complete(status, bytes);
            }
            None => owned.known.latest = Some(status),
        }
        failpoint::hit(Point::ApplyAfter);
    }
}
