//! Changes cut into transactions: bounded, in publishable order, a unit never split.

use crate::directory::{
    Changes, EventType, KeyChange, Known, Reason, ReasonCode, StateWrite, Status, SyncStatus, Units,
};
use std::iter::Peekable;

use super::attempt::committed_so_far;
use super::copies::copies;
use super::owned::{Writing, not_before};
use crate::account::{Account, BatchBounds};
use crate::avro::EventContext;
use crate::directory::changes::{Bytes, IntoUnits};
use crate::failpoint::{self, Point};
use crate::log::{Batch, Positions, Record};
use crate::telemetry::{self, Carried};

/// Encodes the units of one sync, batch by batch.
pub struct Batches {
    units: Peekable<IntoUnits>,
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
    /// Without a unit yet. `attempt`: the sync as it begins.
    pub fn new(account: &Account, known: &Known, attempt: &SyncStatus) -> Batches {
        Batches {
            units: Units::default().into_iter().peekable(),
            context: EventContext::new(account, known, attempt),
            status: attempt.clone(),
            bytes: None,
        }
    }

    /// Takes units of a sync that reads on. All that were taken before are encoded.
    pub fn take_some(&mut self, units: Units) {
        self.units = units.into_iter().peekable();
    }

    /// Takes all that is left, so that the sync completes with it. `attempt`: what its reading found.
    pub fn take_rest(&mut self, attempt: &SyncStatus, changes: Changes) {
        failpoint::hit(Point::DiffAfter);
        self.status = attempt.clone().with_published_of(&self.status);
        self.status.read(&changes);
        // Admitted without a release: the directory recovered, and the hold goes with that.
        self.status.hold = self.status.release.as_ref().map(|release| release.hold.clone());
        self.take_some(changes.units);
        self.bytes = Some(changes.bytes);
    }

    /// The next transaction. The last one always comes, even without a unit, and completes the sync.
    ///
    /// # Errors
    /// A value that does not fit its schema.
    pub fn next<L>(&mut self, writing: Writing<'_, L>, known: &Known) -> Option<Result<EncodedBatch, Reason>> {
        if self.bytes.is_none() && self.units.peek().is_none() {
            return None;
        }
        failpoint::hit(Point::EncodeBefore);
        let encoded = self.encode(writing, known).map_err(|text| Reason::new(ReasonCode::EncodingFailed, text));
        failpoint::hit(Point::EncodeAfter);
        Some(encoded)
    }

    fn encode<L>(&mut self, writing: Writing<'_, L>, known: &Known) -> Result<EncodedBatch, String> {
        let Writing { account, codec, clock, .. } = writing;
        let (mut principals, mut bytes, mut carried) = (0, 0, Carried::default());
        let published = self.status.published;
        let BatchBounds { principals: principals_max, units: units_max, bytes: bytes_max } = account.batch;
        // Mostly all units of a batch have as many events as the first one.
        let (room, each) =
            (self.units.size_hint().0.min(units_max), self.units.peek().map_or(0, |unit| unit.events.len() + 1));
        let (mut records, mut units) = (Vec::with_capacity(room * each), Vec::with_capacity(room));
        while principals < principals_max && units.len() < units_max && bytes < bytes_max {
            let Some(unit) = self.units.next() else { break };
            let mut before = self.status.sequence;
            let encoded = codec.encode_change(&self.context, known, &unit, &mut self.status.sequence);
            let copies = if account.outputs.is_empty() {
                Vec::new()
            } else {
                let events = self.context.change_events(known, &unit, &mut before);
                copies(&account.outputs, &events, &encoded.records, &mut carried.copies_reduced)?
            };
            principals += usize::from(matches!(unit.write, StateWrite::Put(_) | StateWrite::Remove { .. }));
            carried.reduced += usize::from(encoded.reduced);
            bytes += encoded.records.iter().chain(&copies).map(Record::len).sum::<usize>();
            self.account_for(known, &unit, encoded.digest);
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
            self.status.finished_at = Some(not_before(known, clock));
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
    /// The batch for the log, and last its `syncs` records: the completeness marker when the sync completes, and always
    /// `latest`. `attempt`: the sync as it began.
    pub fn for_log<L>(&mut self, writing: Writing<'_, L>, known: &Known, attempt: &SyncStatus) -> Batch {
        // Positions as far as committed: this transaction moves only those of the topics it writes.
        self.status.positions = committed_so_far(known, attempt).positions;
        let (account, codec, status) = (writing.account.clone(), writing.codec.clone(), self.status.clone());
        let completes = self.completes.is_some();
        let closing = move |reached: &Positions| {
            let status = SyncStatus { positions: account.positions(&status.positions, reached), ..status.clone() };
            let completed = completes.then(|| codec.encode_completed(&account, &status));
            completed.into_iter().chain([codec.encode_latest(&account, &status)]).collect()
        };
        let records = std::mem::take(&mut self.records);
        Batch { acquisition: known.acquisition, records, closing: Box::new(closing) }
    }

    /// Lets `known` follow a batch that was committed.
    pub fn apply(self, account: &Account, known: &mut Known, reached: &Positions) {
        let EncodedBatch { units, mut status, carried, completes, .. } = self;
        status.positions = account.positions(&status.positions, reached);
        failpoint::hit(Point::ApplyBefore);
        for (unit, sequence, digest) in &units {
            known.apply(unit, *sequence, *digest);
            failpoint::hit(Point::ApplyMiddle);
        }
        telemetry::committed(&account.name, status.sync, carried);
        match completes {
            Some(bytes) => {
                // A sync that read only what was modified says nothing of how many users there are.
                if status.users_read.is_some() {
                    known.walked_at = Some(status.started_at);
                }
                known.complete(status, bytes);
            }
            None => known.latest = Some(status),
        }
        failpoint::hit(Point::ApplyAfter);
    }
}
