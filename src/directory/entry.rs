//! A principal as its state record in Kafka says it: as [`Entry`] while it is looked at, and `AtRest` in one piece of
//! memory, so that a directory of a million users fits.

use super::packed::{Packed, Reader, put_integer, put_number};

/// A user or group as its state record in Kafka. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    pub packed: Packed<'a>,
    /// The record's share of the account's state digest.
    pub digest: u128,
    pub first_seen_at: i64,
    pub changed_at: i64,
    /// Of the last event; 0 if the baseline brought it silently.
    pub sequence: i64,
    pub missing_since: Option<i64>,
    pub missing_walks: u32,
    /// Groups only: no completed sync has read its members, so that they are not news when one does.
    pub members_unread: bool,
}

impl Entry<'_> {
    pub(super) fn is_enabled(&self) -> bool {
        self.packed.active() != Some(false)
    }
}

/// What follows, and what it says: bits of the byte behind the digest.
const MEMBERS_UNREAD: u8 = 1;
const WAS_CHANGED: u8 = 1 << 1;
const IS_MISSING: u8 = 1 << 2;
const HAS_MISSED_WALKS: u8 = 1 << 3;

const DIGEST_BYTES: usize = size_of::<u128>();
/// About what everything but the principal takes: a digest, a byte, times of six bytes and their lengths, a sequence.
const HEAD_BYTES: usize = 48;

/// An [`Entry`] in one allocation: what is rarely there, or mostly the same twice, takes a bit.
#[derive(Clone, Debug)]
pub(super) struct AtRest(Box<[u8]>);

impl AtRest {
    pub fn new(entry: &Entry<'_>) -> AtRest {
        let flags = [
            (MEMBERS_UNREAD, entry.members_unread),
            (WAS_CHANGED, entry.changed_at != entry.first_seen_at),
            (IS_MISSING, entry.missing_since.is_some()),
            (HAS_MISSED_WALKS, entry.missing_walks > 0),
        ];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set).fold(0, |flags, (flag, _)| flags | flag);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&entry.digest.to_ne_bytes());
        head.push(flags);
        put_integer(&mut head, entry.first_seen_at);
        if flags & WAS_CHANGED != 0 {
            put_integer(&mut head, entry.changed_at);
        }
        put_integer(&mut head, entry.sequence);
        if let Some(since) = entry.missing_since {
            put_integer(&mut head, since);
        }
        if entry.missing_walks > 0 {
            put_number(&mut head, entry.missing_walks as usize);
        }
        AtRest([&head, entry.packed.bytes()].concat().into())
    }

    pub fn entry(&self) -> Entry<'_> {
        let (digest, rest) = self.0.split_first_chunk::<DIGEST_BYTES>().expect("new wrote a digest");
        let mut reader = Reader::of(rest);
        let flags = reader.byte();
        let is = |flag: u8| flags & flag != 0;
        let first_seen_at = reader.integer();
        Entry {
            digest: u128::from_ne_bytes(*digest),
            first_seen_at,
            changed_at: if is(WAS_CHANGED) { reader.integer() } else { first_seen_at },
            sequence: reader.integer(),
            missing_since: is(IS_MISSING).then(|| reader.integer()),
            missing_walks: if is(HAS_MISSED_WALKS) { reader.number() as u32 } else { 0 },
            members_unread: is(MEMBERS_UNREAD),
            packed: reader.principal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packed::PackedPrincipal;
    use super::super::principal::Principal;
    use super::*;

    proptest! {
        #[test]
        fn an_entry_at_rest_is_read_as_it_was_written(
            digest: u128,
            times: [i64; 2],
            was_changed: bool,
            sequence: i64,
            missing_since: Option<i64>,
            missing_walks: u32,
            members_unread: bool,
            name in "[a-z]{0,10}",
        ) {
            let principal = Principal { user_name: Some(name), ..Principal::new("id") };
            let packed = PackedPrincipal::pack(&principal);
            let [first_seen_at, changed_at] = times;
            let entry = Entry {
                packed: packed.borrowed(),
                digest,
                first_seen_at,
                changed_at: if was_changed { changed_at } else { first_seen_at },
                sequence,
                missing_since,
                missing_walks,
                members_unread,
            };
            let at_rest = AtRest::new(&entry);
            prop_assert_eq!(at_rest.entry(), entry);
        }
    }
}
