//! Changes cut into transactions: bounded, in publishable order, a unit never split.

use std::vec::IntoIter;

use crate::avro::wire::ChangeEvent;
use crate::avro::{Codec, Encoded, Stamp};
use crate::directory::{Known, StateWrite, Status, SyncStatus, Unit};
use crate::failpoint::{self, Point};
use crate::mapping::{Change, ecs, ocsf, reduced};
use crate::pipeline::{Account, Marker, merged};
use crate::record::{Record, Topic};
use crate::telemetry::Carried;

/// JSON bytes of one copy. With its key and headers, a few thousand bytes, it has to fit into the 1,000,000 that librdkafka
/// sends by default, as every Avro record does (`scim::wire`).
const COPY_BYTES_MAX: usize = 900_000;

/// What one transaction may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Users and groups.
    pub principals: usize,
    /// All units; memberships are small, so that the bytes bound them first.
    pub units: usize,
    /// Keys, values and headers.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { principals: 5_000, units: 20_000, bytes: 8 << 20 }
    }
}

/// Encodes the units of one sync, batch by batch.
pub struct Batches {
    units: std::iter::Peekable<IntoIter<Unit>>,
    stamp: Stamp,
    bounds: Bounds,
    outputs: Vec<Topic>,
    /// As of the last batch that was encoded; `known` follows only after the commit.
    status: SyncStatus,
    done: bool,
}

/// One transaction's worth.
pub struct EncodedBatch {
    pub records: Vec<Record>,
    /// Each unit with the sequence of its last event and its share of the digest.
    pub applied: Vec<(Unit, Option<i64>, u128)>,
    /// The `syncs` record as of this transaction, positions aside.
    pub status: SyncStatus,
    pub carried: Carried,
    pub is_last: bool,
}

impl Batches {
    pub fn new(units: Vec<Unit>, stamp: Stamp, account: &Account, attempt: SyncStatus) -> Batches {
        let (bounds, outputs) = (account.batch, account.outputs.clone());
        Batches { units: units.into_iter().peekable(), stamp, bounds, outputs, status: attempt, done: false }
    }

    /// The next transaction; the last one always comes, even without a unit, and completes the sync.
    ///
    /// # Errors
    /// A value that does not fit its schema.
    pub fn next(&mut self, codec: &Codec, known: &Known, now: i64) -> Option<Result<EncodedBatch, String>> {
        if self.done {
            return None;
        }
        failpoint::hit(Point::EncodeBefore);
        let encoded = self.encode(codec, known, now);
        failpoint::hit(Point::EncodeAfter);
        Some(encoded)
    }

    fn encode(&mut self, codec: &Codec, known: &Known, now: i64) -> Result<EncodedBatch, String> {
        let (mut records, mut applied) = (Vec::new(), Vec::new());
        let (mut principals, mut bytes, mut carried) = (0, 0, Carried::default());
        let Bounds { principals: principals_max, units: units_max, bytes: bytes_max } = self.bounds;
        while principals < principals_max && applied.len() < units_max && bytes < bytes_max {
            let Some(unit) = self.units.next() else { break };
            let encoded = codec.unit(&self.stamp, known, &unit, &mut self.status.sequence)?;
            let copies = copies(&self.outputs, &encoded, &mut carried.copies_reduced)?;
            principals += usize::from(matches!(unit.write, StateWrite::Put { .. } | StateWrite::Remove { .. }));
            carried.events += encoded.events.len();
            carried.reduced += usize::from(encoded.reduced);
            bytes += encoded.records.iter().chain(&copies).map(Record::len).sum::<usize>();
            self.account_for(known, &unit, encoded.digest);
            records.extend(encoded.records);
            records.extend(copies);
            applied.push((unit, encoded.sequence, encoded.digest));
        }
        let is_last = self.units.peek().is_none();
        self.done = is_last;
        if is_last {
            self.status.status = Status::Completed;
            self.status.finished_at = Some(now);
            // What a release still lets through ends with the sync that used it; who released stays on record.
            if let Some(release) = &mut self.status.release {
                release.left = None;
            }
        }
        Ok(EncodedBatch { records, applied, status: self.status.clone(), carried, is_last })
    }

    /// Counts and digest as they will stand after this unit. Every key occurs once in a sync, so what
    /// `known` says of it is what the unit replaces, although earlier batches may not be applied yet.
    fn account_for(&mut self, known: &Known, unit: &Unit, digest: u128) {
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

/// A unit's events as JSON, beside the Avro and in its transaction (issue 6): under the same key, with the same headers.
fn copies(outputs: &[Topic], encoded: &Encoded, reduced: &mut usize) -> Result<Vec<Record>, String> {
    let mut copies = Vec::new();
    for (event, record) in encoded.events.iter().zip(&encoded.records) {
        for topic in outputs {
            let (json, is_reduced) = copy(*topic, event)?;
            *reduced += usize::from(is_reduced);
            let mut headers = record.headers.clone();
            for (name, value) in &mut headers {
                if *name == "content-type" {
                    *value = "application/json".to_owned();
                }
            }
            copies.push(Record { topic: *topic, key: record.key.clone(), value: Some(json), headers });
        }
    }
    Ok(copies)
}

/// An event as JSON, and whether that leaves out what would make it too large.
fn copy(topic: Topic, event: &ChangeEvent) -> Result<(Vec<u8>, bool), String> {
    let json = |event: &ChangeEvent| {
        let change = Change::of(event).ok_or("an event of no known type")?;
        let value = match topic {
            Topic::EventsOcsf => ocsf::value(&change),
            Topic::EventsEcs => ecs::value(&change),
            _ => return Err(format!("{topic:?} carries no copies")),
        };
        Ok(value.to_string().into_bytes())
    };
    let whole = json(event)?;
    if whole.len() <= COPY_BYTES_MAX {
        return Ok((whole, false));
    }
    let without_values = json(&reduced::without_large_values(event))?;
    if without_values.len() <= COPY_BYTES_MAX {
        return Ok((without_values, true));
    }
    Ok((json(&reduced::without_attributes(event))?, true))
}

impl EncodedBatch {
    /// Makes this transaction's `syncs` records: the completeness marker when the sync completes, and
    /// always `latest`, last.
    pub fn marker(&self, account: &Account, codec: &Codec) -> Marker {
        let (account, codec, status, is_last) = (account.clone(), codec.clone(), self.status.clone(), self.is_last);
        Box::new(move |reached| {
            let status = SyncStatus { positions: merged(&account, &status.positions, reached), ..status.clone() };
            let completed = is_last.then(|| codec.status(&account, &status, true));
            completed.into_iter().chain([codec.status(&account, &status, false)]).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::wire::{AttributeChange, User};

    /// However an event came about.
    #[test]
    fn a_copy_fits_whatever_makes_its_event_large() {
        let change = |number: usize, name: &str, value: &str| AttributeChange {
            attribute: format!("userType.{name}{number}"),
            old_value: Some(format!("\"{value}old\"")),
            new_value: Some(format!("\"{value}\"")),
        };
        let event = |changes: Vec<AttributeChange>| ChangeEvent {
            event_type: "user.updated".to_owned(),
            principal_type: "user".to_owned(),
            principal_id: "\u{1}".repeat(1_024),
            changed_attributes: changes.iter().map(|change| change.attribute.clone()).collect(),
            user: Some(User { id: "\u{1}".repeat(1_024), ..User::default() }),
            changes,
            ..ChangeEvent::default()
        };
        let one = |value: usize| event(vec![change(0, "", &"v".repeat(value))]);
        // Paths of control characters, which JSON escapes in six bytes each.
        let many = event((0..2_000).map(|number| change(number, &"\u{1}".repeat(50), "v")).collect());
        for topic in Topic::OUTPUTS {
            for (event, omitted) in [(one(10), ""), (one(2_000_000), "userType.0"), (many.clone(), "*")] {
                let (json, is_reduced) = copy(topic, &event).expect("it is mapped");
                assert!(json.len() <= COPY_BYTES_MAX, "{topic:?} {omitted}: {}", json.len());
                // ECS states no values of such attributes, and their paths once.
                assert_eq!(is_reduced, topic == Topic::EventsOcsf && !omitted.is_empty(), "{topic:?} {omitted}");
                let text = String::from_utf8(json).expect("UTF-8");
                let named = format!("\"omitted_attributes\":[\"{omitted}\"]");
                assert_eq!(text.contains(&named), is_reduced, "{topic:?} {omitted}");
            }
        }
    }
}
