//! Rows at their expected place: a walk that finds the rows of the last one in the same order recognises them without
//! scanning their JSON.
//!
//! **Soundness.** A row is taken for the row of the last walk only if the 128-bit hash of as many bytes is the same.
//! Those bytes were one JSON value then, so they are one now, and what follows has to be `,` or `]`. Any other row is
//! scanned. The rest of the page, with `[]` in the place of the rows, is parsed as every page is. Whatever is unusual
//! about a page is left to [`split_list`](super::envelope::split_list), which reads all of it.

use bytes::Bytes;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use super::envelope::{ListPage, PAGE_ROWS_MAX, beside_rows, raw_row};
use crate::directory::RawHash;
use crate::json::Fields;
use crate::source::{RawRow, RowBytes};

/// Bytes before the rows of a page: `schemas` and some numbers.
const HEAD_BYTES_MAX: usize = 4_096;
/// Rows that may be gone between two that are recognised.
const AHEAD_MAX: usize = 1_024;
/// Rows in a row that are not found ahead; behind them the order is another one, and nothing is looked for.
const LOST_MAX: usize = 64;

const NAME: &[u8] = b"\"resources\"";

/// Lengths and hashes of the rows of a walk, in their order: 20 bytes a row.
#[derive(Debug, Default)]
pub struct Places {
    hashes: Vec<RawHash>,
    lengths: Vec<u32>,
}

impl Places {
    pub fn push(&mut self, row: &RawRow) {
        let length = row.bytes.sent().and_then(|bytes| u32::try_from(bytes.len()).ok());
        self.hashes.push(row.hash);
        // No row has no bytes, so that this one is never expected.
        self.lengths.push(length.unwrap_or(0));
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The row at `place` if `bytes` begin with it: its hash and length.
    fn row_at(&self, place: usize, bytes: &[u8]) -> Option<(RawHash, usize)> {
        let length = *self.lengths.get(place)? as usize;
        let row = bytes.get(..length).filter(|row| !row.is_empty())?;
        // Cheaper than the hash of a row that is longer or shorter now.
        let ends = matches!(bytes.get(length), Some(b',' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
        let hash = self.hashes[place];
        (ends && RawHash::new(xxh3_128(row)) == Some(hash)).then_some((hash, length))
    }

    /// The place of a row at `place` or not far behind it.
    fn ahead(&self, place: usize, hash: RawHash) -> Option<usize> {
        let rest = self.hashes.get(place..)?;
        rest.iter().take(AHEAD_MAX).position(|there| *there == hash).map(|distance| place + distance)
    }
}

/// Splits a page whose first row is expected at `place` of the last walk. Returns the place that is expected after its
/// last row. `None`: nothing is expected, or the page is unusual.
pub fn split_expected(body: &Bytes, places: &Places, place: usize) -> Option<(ListPage, usize)> {
    if places.is_empty() {
        return None;
    }
    let begin = rows_begin(body)?;
    let Rows { rows, end, next, .. } = rows(body, begin, places, place)?;
    let mut rest = Vec::with_capacity(begin + body.len() - end + 2);
    rest.extend_from_slice(&body[..begin]);
    rest.extend_from_slice(b"[]");
    rest.extend_from_slice(&body[end..]);
    // JSON of other encodings, or none at all, is named by `split_list`.
    let rest = std::str::from_utf8(&rest).ok()?;
    let fields: Fields<'_> = serde_json::from_str(rest).ok()?;
    let mut lists = fields.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Resources"));
    let (list, another) = (lists.next()?, lists.next());
    // The name may be one inside another object, or in a document that is not JSON.
    let offset = list.1.get().as_ptr() as usize - rest.as_ptr() as usize;
    if another.is_some() || offset != begin || list.1.get() != "[]" {
        return None;
    }
    let page = beside_rows(&fields).ok()?;
    Some((ListPage { rows, has_resources: true, ..page }, next))
}

/// Where the list of rows begins.
fn rows_begin(body: &[u8]) -> Option<usize> {
    let head = &body[..body.len().min(HEAD_BYTES_MAX)];
    let at = head.windows(NAME.len()).position(|name| name.eq_ignore_ascii_case(NAME))?;
    let colon = skip_blank(body, at + NAME.len());
    let begin = skip_blank(body, (body.get(colon) == Some(&b':')).then_some(colon + 1)?);
    (body.get(begin) == Some(&b'[')).then_some(begin)
}

/// The rows of a page.
struct Rows {
    rows: Vec<RawRow>,
    /// Where their list ends in the body.
    end: usize,
    /// The place expected next.
    next: usize,
    /// How many of them were not at their place.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the tests see of the work that is saved"))]
    scanned: usize,
}

fn rows(body: &Bytes, begin: usize, places: &Places, mut place: usize) -> Option<Rows> {
    let (mut rows, mut scanned, mut lost) = (Vec::new(), 0, 0);
    let mut at = skip_blank(body, begin + 1);
    if body.get(at) == Some(&b']') {
        return Some(Rows { rows, end: at + 1, next: place, scanned });
    }
    loop {
        if rows.len() == PAGE_ROWS_MAX {
            return None;
        }
        let length = match places.row_at(place, &body[at..]) {
            Some((hash, length)) => {
                rows.push(RawRow { hash, bytes: RowBytes::Sent(body.slice(at..at + length)) });
                (place, lost) = (place + 1, 0);
                length
            }
            None => {
                let length = object_length(&body[at..])?;
                let row = raw_row(body.slice(at..at + length));
                scanned += 1;
                // Rows before it may be gone. Or those that were not found were new, and it is where they were expected.
                let found = if lost < LOST_MAX { places.ahead(place.saturating_sub(lost), row.hash) } else { None };
                lost = if found.is_some() { 0 } else { lost + 1 };
                // One that is not found probably changed in its place.
                place = found.unwrap_or(place) + 1;
                rows.push(row);
                length
            }
        };
        at = skip_blank(body, at + length);
        match body.get(at)? {
            b',' => at = skip_blank(body, at + 1),
            b']' => return Some(Rows { rows, end: at + 1, next: place, scanned }),
            _ => return None,
        }
    }
}

/// The length of the JSON object with which `bytes` begin.
fn object_length(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

fn skip_blank(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::envelope::split_list;
    use super::*;

    fn row(id: u32, revision: u32) -> String {
        format!(r#"{{"id":"{id}","title":"{revision} ] }} , \" é","x":[{id},{{}}]}}"#)
    }

    fn body(rows: &[String], blank: &str) -> Bytes {
        let rows = rows.join(&format!("{blank},{blank}"));
        format!(
            r#"{{"schemas":["s"],"totalResults":9,{blank}"Resources"{blank}:[{blank}{rows}{blank}],"itemsPerPage":7}}"#
        )
        .into()
    }

    fn places(rows: &[String]) -> Places {
        let mut places = Places::default();
        rows.iter().for_each(|row| places.push(&raw_row(Bytes::copy_from_slice(row.as_bytes()))));
        places
    }

    /// How many of the rows are scanned, and the place expected next.
    fn scanned(before: &[String], after: &[String], place: usize) -> (usize, usize) {
        let body = body(after, "");
        let begin = rows_begin(&body).unwrap();
        let Rows { scanned, next, .. } = rows(&body, begin, &places(before), place).unwrap();
        (scanned, next)
    }

    #[test]
    fn only_rows_that_are_not_at_their_place_are_scanned() {
        let before: Vec<String> = (0..10).map(|id| row(id, 0)).collect();
        assert_eq!(scanned(&before, &before, 0), (0, 10));
        assert_eq!(scanned(&before, &before[4..7], 4), (0, 7));
        let mut changed = before.clone();
        changed[3] = row(3, 1);
        assert_eq!(scanned(&before, &changed, 0), (1, 10));
        let mut removed = before.clone();
        removed.drain(2..5);
        assert_eq!(scanned(&before, &removed, 0), (1, 10));
        let mut added = before.clone();
        added.insert(5, row(77, 0));
        assert_eq!(scanned(&before, &added, 0), (2, 10));
        let turned: Vec<String> = before.iter().rev().cloned().collect();
        assert_eq!(scanned(&before, &turned, 0).0, 10);
    }

    #[test]
    fn an_unusual_page_is_left_to_the_parser_of_all_pages() {
        let rows = [row(1, 0), row(2, 0)];
        let places = places(&rows);
        let list = rows.join(",");
        for body in [
            format!(r#"{{"x":{{"Resources":[{list}]}}}}"#),
            format!(r#"{{"Resources":[{list}],"resources":[]}}"#),
            format!(r#"{{"Resources":[{list},]}}"#),
            format!(r#"{{"Resources":[{list}"#),
            format!(r#"{{"Resources":[{list}]"#),
            format!(r#"{{"Resources":[{list}]}} x"#),
            format!(r#"{{"Resources":[{list},7]}}"#),
            format!(r#"{{"Resources":{{"a":[{list}]}}}}"#),
            format!("\u{FEFF}{{\"Resources\":[{list}]}}"),
            format!(r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"Resources":[{list}]}}"#),
            r#"{"Resources":null,"totalResults":0}"#.to_owned(),
        ] {
            assert!(split_expected(&body.clone().into(), &places, 0).is_none(), "{body}");
        }
        let nothing = Places::default();
        assert!(split_expected(&body(&rows, ""), &nothing, 0).is_none());
    }

    proptest! {
        #[test]
        fn a_page_is_split_the_same_whatever_is_expected(
            before in proptest::collection::vec((0..30_u32, 0..2_u32), 0..40),
            after in proptest::collection::vec((0..30_u32, 0..2_u32), 0..40),
            place in 0..45_usize,
            blank in prop_oneof![Just(""), Just(" "), Just("\r\n\t ")],
        ) {
            let of = |rows: &[(u32, u32)]| rows.iter().map(|(id, revision)| row(*id, *revision)).collect::<Vec<_>>();
            let body = body(&of(&after), blank);
            let whole = split_list(&body).unwrap();
            let (split, _) = split_expected(&body, &places(&of(&[&before[..], &[(99, 0)]].concat())), place).unwrap();
            prop_assert_eq!(split, whole);
        }
    }
}
