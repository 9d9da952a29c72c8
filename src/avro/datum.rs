//! Avro's binary encoding of the types that the records of a sync are made of (Avro 1.12, "Binary encoding").
//!
//! apache-avro encodes a record of 400 bytes in about a microsecond, from a struct whose texts have to be owned. A first
//! load encodes each user three times, so the four records that it writes are encoded here, from what is borrowed. The
//! tests decode them with apache-avro and encode them with it again: the bytes are the same.
//!
//! A restore decodes them here as well. Whatever [`Datum`] does not read is left to apache-avro, which also says what is
//! wrong with it.

use std::cell::Cell;

/// Memory that a thread keeps for the next record; a longer record is rare.
const ROOM_BYTES_MAX: usize = 16 << 10;

/// Encodes into memory that the thread uses again, and returns what `read` makes of the bytes. A new buffer for each record
/// would be copied where it is too small, and keep what it does not need where it is too large.
pub(super) fn encoded<T>(write: impl FnOnce(&mut Vec<u8>), read: impl FnOnce(&[u8]) -> T) -> T {
    thread_local! { static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) } }
    let mut room = ROOM.take();
    room.clear();
    write(&mut room);
    let result = read(&room);
    room.clear();
    room.shrink_to(ROOM_BYTES_MAX);
    ROOM.set(room);
    result
}

/// Signed integers of 32 and 64 bits: zigzag, seven bits a byte.
pub(super) fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

/// The union of null and another type, null first.
pub(super) fn optional<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => long(out, 0),
        Some(value) => {
            long(out, 1);
            write(out, value);
        }
    }
}

/// An array, or a map with pairs for items: one block, then the empty one.
pub(super) fn block<T>(
    out: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    if items.len() > 0 {
        long(out, items.len() as i64);
        items.for_each(|item| write(out, item));
    }
    long(out, 0);
}

/// What is left to read of a record. Every method is `None` for bytes of another form, and reads on behind its value.
#[derive(Clone, Copy)]
pub(super) struct Datum<'a>(pub &'a [u8]);

impl<'a> Datum<'a> {
    pub fn long(&mut self) -> Option<i64> {
        let mut zigzag = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if bits << shift >> shift != bits {
                return None;
            }
            zigzag |= bits << shift;
            if byte < 0x80 {
                return Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
        }
        None
    }

    pub fn boolean(&mut self) -> Option<bool> {
        match self.take(1)?[0] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.long()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.long()? {
            0 => Some(None),
            1 => Some(Some(read(self)?)),
            _ => None,
        }
    }

    /// An array, or a map with pairs for items, as [`block`] writes it.
    pub fn block<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.long()?).ok()?;
        if count == 0 {
            return Some(Vec::new());
        }
        // Each item takes a byte at least.
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(read(self)?);
        }
        (self.long()? == 0).then_some(items)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}
