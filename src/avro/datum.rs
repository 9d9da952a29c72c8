//! Avro's binary encoding of the types that the records of a sync are made of (Avro 1.12, "Binary encoding").
//!
//! apache-avro encodes a record of 400 bytes in about a microsecond, from a struct whose texts have to be owned. A first
//! load encodes each user three times, so the four records that it writes are encoded here, from what is borrowed. The
//! tests decode them with apache-avro and encode them with it again: the bytes are the same.

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
