//! One partition: the batches as producers sent them, and which transactions are open or aborted. No I/O, no clock.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use super::code::Code;

/// Bytes of a batch before its records, in the only format that is accepted.
const HEADER_BYTES: usize = 61;
const MAGIC: u8 = 2;
/// The length of a batch counts the bytes behind it.
const LENGTH_ENDS_AT: usize = 12;
const TRANSACTIONAL: i16 = 1 << 4;

/// What the header of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub producer: i64,
    pub epoch: i16,
    pub transactional: bool,
    sequence: i32,
    last_offset_delta: i32,
    max_timestamp: i64,
}

/// Cuts what a producer sent into batches.
///
/// # Errors
/// The bytes are no batches of the newest format.
pub fn batches(mut sent: Bytes) -> Result<Vec<(Header, Bytes)>, Code> {
    let mut batches = Vec::new();
    while !sent.is_empty() {
        if sent.len() < HEADER_BYTES || sent[16] != MAGIC {
            return Err(Code::CorruptMessage);
        }
        let length = usize::try_from(i32::from_be_bytes(at(&sent, 8))).map_err(|_| Code::CorruptMessage)?;
        let whole = LENGTH_ENDS_AT.saturating_add(length);
        if whole < HEADER_BYTES || whole > sent.len() {
            return Err(Code::CorruptMessage);
        }
        let bytes = sent.split_to(whole);
        let header = Header {
            transactional: i16::from_be_bytes(at(&bytes, 21)) & TRANSACTIONAL != 0,
            last_offset_delta: i32::from_be_bytes(at(&bytes, 23)),
            max_timestamp: i64::from_be_bytes(at(&bytes, 35)),
            producer: i64::from_be_bytes(at(&bytes, 43)),
            epoch: i16::from_be_bytes(at(&bytes, 51)),
            sequence: i32::from_be_bytes(at(&bytes, 53)),
        };
        if header.last_offset_delta < 0 {
            return Err(Code::CorruptMessage);
        }
        batches.push((header, bytes));
    }
    Ok(batches)
}

/// A field of a header whose length was checked.
fn at<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[from..from + N]);
    field
}

struct Batch {
    first: i64,
    last: i64,
    max_timestamp: i64,
    bytes: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    pub producer: i64,
    pub first: i64,
    /// Offset of the marker that ends it.
    last: i64,
}

/// The newest batch of a producer, so that one that is sent twice is kept once.
#[derive(Clone, Copy)]
struct Sent {
    epoch: i16,
    next_sequence: i32,
}

#[derive(Default)]
pub struct Partition {
    batches: Vec<Batch>,
    /// The offset of the next record.
    end: i64,
    /// The first offset of the open transaction of each producer.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
    sent: BTreeMap<i64, Sent>,
}

/// What a fetch answers.
#[derive(Debug, Default)]
pub struct Fetched {
    pub records: Bytes,
    pub aborted: Vec<Aborted>,
}

impl Partition {
    /// Appends a batch, and returns its first offset.
    ///
    /// # Errors
    /// It was sent before, or a batch before it is missing.
    pub fn append(&mut self, header: Header, bytes: Bytes) -> Result<i64, Code> {
        if header.producer >= 0 {
            let newest = self.sent.get(&header.producer).filter(|sent| sent.epoch == header.epoch);
            let expected = newest.map_or(0, |sent| sent.next_sequence);
            if header.sequence < expected {
                return Err(Code::DuplicateSequence);
            }
            if header.sequence > expected {
                return Err(Code::OutOfOrderSequence);
            }
            let next_sequence = header.sequence.wrapping_add(header.last_offset_delta).wrapping_add(1);
            self.sent.insert(header.producer, Sent { epoch: header.epoch, next_sequence });
        }
        let first = self.end;
        if header.transactional {
            self.open.entry(header.producer).or_insert(first);
        }
        // The checksum does not cover the offset, which only the broker knows.
        let mut placed = BytesMut::with_capacity(bytes.len());
        placed.put_i64(first);
        placed.extend_from_slice(&bytes[8..]);
        let last = first + i64::from(header.last_offset_delta);
        self.batches.push(Batch { first, last, max_timestamp: header.max_timestamp, bytes: placed.freeze() });
        self.end = last + 1;
        Ok(first)
    }

    /// Ends the transaction of a producer with a marker, as Kafka writes it. `now`: milliseconds since 1970-01-01 UTC.
    pub fn end_transaction(&mut self, producer: i64, epoch: i16, committed: bool, now: i64) {
        let Some(first) = self.open.remove(&producer) else { return };
        let at = self.end;
        if let Some(bytes) = marker(producer, epoch, committed, at, now) {
            self.batches.push(Batch { first: at, last: at, max_timestamp: now, bytes });
            self.end += 1;
        }
        if !committed {
            self.aborted.push(Aborted { producer, first, last: at });
        }
    }

    pub fn end(&self) -> i64 {
        self.end
    }

    /// The last stable offset: everything before it is committed or aborted.
    pub fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    /// The first offset whose batch holds a record of `timestamp` or later, with the newest time in that batch.
    pub fn offset_at(&self, timestamp: i64) -> Option<(i64, i64)> {
        let batch = self.batches.iter().find(|batch| batch.max_timestamp >= timestamp)?;
        Some((batch.first, batch.max_timestamp))
    }

    /// Whole batches from `offset` on: at least one if there is one, and about `bytes_max` bytes. `committed`: none
    /// that a transaction may still abort, and which transactions were aborted.
    ///
    /// # Errors
    /// The partition does not reach to `offset`.
    pub fn fetch(&self, offset: i64, committed: bool, bytes_max: usize) -> Result<Fetched, Code> {
        if offset < 0 || offset > self.end {
            return Err(Code::OffsetOutOfRange);
        }
        let limit = if committed { self.stable() } else { self.end };
        let start = self.batches.partition_point(|batch| batch.last < offset);
        let (mut records, mut reached) = (BytesMut::new(), offset);
        for batch in self.batches[start..].iter().take_while(|batch| batch.last < limit) {
            if !records.is_empty() && records.len() + batch.bytes.len() > bytes_max {
                break;
            }
            records.extend_from_slice(&batch.bytes);
            reached = batch.last;
        }
        let overlaps = |aborted: &&Aborted| committed && aborted.last >= offset && aborted.first <= reached;
        Ok(Fetched { records: records.freeze(), aborted: self.aborted.iter().filter(overlaps).copied().collect() })
    }
}

/// The control batch that ends a transaction.
fn marker(producer: i64, epoch: i16, committed: bool, offset: i64, now: i64) -> Option<Bytes> {
    let mut key = BytesMut::new();
    key.put_i16(0);
    key.put_i16(i16::from(committed));
    let mut value = BytesMut::new();
    value.put_i16(0);
    value.put_i32(0);
    let record = Record {
        transactional: true,
        control: true,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: producer,
        producer_epoch: epoch,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: -1,
        timestamp: now,
        key: Some(key.freeze()),
        value: Some(value.freeze()),
        headers: Default::default(),
    };
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, [&record], &options).ok()?;
    Some(bytes.freeze())
}
