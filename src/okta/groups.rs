//! Groups with their members: which groups are read, the row of a group that carries its members, and which members
//! need not be read again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::value::RawValue;

use super::names::GroupNames;
use crate::directory::{Id, RawHash};
use crate::json::{Bounded, Fields, Text, push_json_text, text};
use crate::scim::members::MEMBERS_MAX;

/// The group of everyone, which all people are in.
const EVERYONE: (&str, &str) = ("BUILT_IN", "Everyone");
/// Groups remembered of one directory; the members of more than that are read each time.
const REMEMBERED_MAX: usize = 50_000;
/// A change of members is stated at once, and may be shown by the list of members only later. Members that were read
/// that soon after a change are read again, milliseconds.
const SETTLED_MS: i64 = 600_000;

/// Whether a group is read. A row whose name cannot be read is: it may be the row of any group that is known.
pub fn is_chosen(row: &[u8], names: Option<&GroupNames>) -> bool {
    match (name_of(row), names) {
        (None, _) => true,
        (Some(name), Some(names)) => names.matches(&name),
        (Some(name), None) => name != EVERYONE.1 || !is_of_type(row, EVERYONE.0),
    }
}

/// Whether a group without a readable name may be one of those that are not read.
pub fn may_be_aside(row: &[u8], names: Option<&GroupNames>) -> bool {
    name_of(row).is_none() && (names.is_some() || is_of_type(row, EVERYONE.0))
}

fn is_of_type(row: &[u8], wanted: &str) -> bool {
    let fields: Option<Fields<'_>> = serde_json::from_slice(row).ok();
    fields.as_ref().and_then(|fields| fields.get("type")).and_then(text).is_some_and(|kind| kind == wanted)
}

/// The name of a group; `None` if it has none.
fn name_of(row: &[u8]) -> Option<String> {
    let fields: Fields<'_> = serde_json::from_slice(row).ok()?;
    let profile = Fields::of(fields.get("profile")?)?;
    text(profile.get("name")?).map(Cow::into_owned)
}

/// A row that carries the group's members, in the order of their ids. `None`: they cannot be read.
pub fn with_members(group: &[u8], members: Option<&[Id]>) -> Bytes {
    let mut row = String::from("{\"group\":");
    row.push_str(&String::from_utf8_lossy(group));
    row.push_str(",\"members\":");
    match members {
        None => row.push_str("null"),
        Some(members) => {
            row.push('[');
            for (number, member) in members.iter().enumerate() {
                row.push_str(if number == 0 { "" } else { "," });
                push_json_text(&mut row, member);
            }
            row.push(']');
        }
    }
    row.push('}');
    row.into()
}

/// The row of a group that is not read.
pub fn aside(group: &Id) -> Bytes {
    let mut row = String::from("{\"aside\":");
    push_json_text(&mut row, group);
    row.push('}');
    row.into()
}

/// The row of a group of which only the id is to be believed.
pub fn only_id(group: &Id) -> Bytes {
    let mut own = String::from("{\"id\":");
    push_json_text(&mut own, group);
    own.push('}');
    with_members(own.as_bytes(), None)
}

/// What [`with_members`] and [`aside`] made a row of.
#[derive(Debug, PartialEq, Eq)]
pub enum Parts<'r> {
    Group(&'r [u8], Option<Vec<Id>>),
    Aside(Id),
}

pub fn parts(row: &[u8]) -> Option<Parts<'_>> {
    let fields: Fields<'_> = serde_json::from_slice(row).ok()?;
    if let Some(id) = fields.get("aside") {
        return Some(Parts::Aside(Id::from(&*text(id)?)));
    }
    let members = match fields.get("members").map(RawValue::get) {
        None | Some("null") => None,
        Some(members) => {
            let Bounded(ids): Bounded<Text<'_>, MEMBERS_MAX> = serde_json::from_str(members).ok()?;
            Some(ids.into_iter().map(|Text(id)| Id::from(&*id)).collect())
        }
    };
    Some(Parts::Group(fields.get("group")?.get().as_bytes(), members))
}

/// A group as its members were last read.
#[derive(Clone, Copy)]
struct Remembered {
    /// Of the group's own row.
    group: RawHash,
    /// Of the row with the members.
    row: RawHash,
    /// Milliseconds since 1970-01-01 UTC.
    read_at: i64,
}

/// The groups whose members were read by this process. That a group's row is the same saves requests; it is never
/// evidence that a member is gone or that one was added. Clones share what they remember.
#[derive(Clone, Default)]
pub struct MembersRead(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    read: HashMap<Id, Remembered>,
    /// Rows that the sync did not recognise, and when: it keeps no hash of a row that it cannot read whole, for example.
    /// They are not remembered for a while, because each of them has the whole list read twice.
    unrecognised: HashMap<RawHash, i64>,
}

impl MembersRead {
    /// The hash of the row with members of a group whose own row did not change since they were read, `before` this time
    /// and less than `every` ago. Milliseconds.
    pub fn unchanged(&self, id: &Id, group: RawHash, before: i64, now: i64, every: i64) -> Option<RawHash> {
        let remembered = self.lock().read.get(id).copied()?;
        let is_fresh = (0..every).contains(&(now - remembered.read_at));
        let is_known = remembered.read_at < before;
        (remembered.group == group && is_fresh && is_known).then_some(remembered.row)
    }

    /// `own`: the group's own row, with this hash. `now`: by the clock of this machine; `skew`: the server's minus it.
    pub fn remember(&self, id: Id, own: &[u8], group: RawHash, row: RawHash, (now, skew): (i64, i64), every: i64) {
        let settled = changed_at(own).is_some_and(|changed| changed + SETTLED_MS < now + skew);
        let Memory { read, unrecognised } = &mut *self.lock();
        let recognised = unrecognised.get(&row).is_none_or(|at| !(0..every).contains(&(now - at)));
        if settled && recognised && (read.len() < REMEMBERED_MAX || read.contains_key(&id)) {
            read.insert(id, Remembered { group, row, read_at: now });
        } else {
            read.remove(&id);
        }
    }

    /// The sync does not recognise this row, so that the list is read again, with all members.
    pub fn not_recognised(&self, row: RawHash, now: i64) {
        let Memory { read, unrecognised } = &mut *self.lock();
        read.clear();
        if unrecognised.len() == REMEMBERED_MAX {
            unrecognised.clear();
        }
        unrecognised.insert(row, now);
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a group says that its members changed; `None` if it does not say so.
fn changed_at(group: &[u8]) -> Option<i64> {
    let fields: Fields<'_> = serde_json::from_slice(group).ok()?;
    let at = text(fields.get("lastMembershipUpdated")?)?;
    at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn everyone_is_left_out_unless_it_is_named() {
        let group = |kind: &str, name: &str| format!(r#"{{"id":"1","type":"{kind}","profile":{{"name":"{name}"}}}}"#);
        let names =
            |names: &[&str]| GroupNames::new(&names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        let everyone = group("BUILT_IN", "Everyone");
        assert!(!is_chosen(everyone.as_bytes(), None) && is_chosen(everyone.as_bytes(), Some(&names(&["Every*"]))));
        assert!(is_chosen(group("OKTA_GROUP", "Everyone").as_bytes(), None));
        let chargebee = group("OKTA_GROUP", "CB/acme.com/ROLE/Admin");
        assert!(is_chosen(chargebee.as_bytes(), Some(&names(&["CB/*"]))));
        assert!(!is_chosen(chargebee.as_bytes(), Some(&names(&["AWS/*", "SF/*"]))));
        assert!(is_chosen(b"{\"id\":\"1\"}", Some(&names(&["CB/*"]))), "it may be any group");
    }

    #[test]
    fn a_row_with_members_is_taken_apart_into_what_it_was_made_of() {
        let members: Vec<Id> = ["00u1", "a\"b"].map(Id::from).to_vec();
        for members in [Some(members.as_slice()), Some(&[]), None] {
            let row = with_members(b"{\"id\":\"g\"}", members);
            assert_eq!(parts(&row), Some(Parts::Group(b"{\"id\":\"g\"}", members.map(<[Id]>::to_vec))));
        }
        let id = Id::from("a\"b");
        assert_eq!(parts(&aside(&id)), Some(Parts::Aside(id)));
    }

    #[test]
    fn members_are_read_again_after_a_change_after_a_day_and_while_a_change_is_fresh() {
        let read = MembersRead::default();
        let (id, hash) = (Id::from("g"), |number: u128| RawHash::new(number).unwrap());
        let own = br#"{"lastMembershipUpdated":"1970-01-01T00:00:00.000Z"}"#;
        let now = 2 * SETTLED_MS;
        read.remember(id.clone(), own, hash(1), hash(2), (now, 0), DAY);
        assert_eq!(read.unchanged(&id, hash(1), now + 1, now + DAY - 1, DAY), Some(hash(2)));
        assert_eq!(read.unchanged(&id, hash(1), now + 1, now + DAY, DAY), None);
        assert_eq!(read.unchanged(&id, hash(1), now, now, DAY), None, "this walk has read it, and the sync not yet");
        assert_eq!(read.unchanged(&id, hash(3), now + 1, now, DAY), None);
        assert_eq!(read.unchanged(&id, hash(1), now + 1, now - 1, DAY), None, "a clock that went back says nothing");
        read.remember(id.clone(), own, hash(1), hash(2), (SETTLED_MS, 0), DAY);
        assert_eq!(read.unchanged(&id, hash(1), now + 1, SETTLED_MS, DAY), None, "the change is fresh");
        read.remember(id.clone(), b"{}", hash(1), hash(2), (now, 0), DAY);
        assert_eq!(read.unchanged(&id, hash(1), now + 1, now, DAY), None, "it does not say when it changed");
        read.remember(id.clone(), own, hash(1), hash(2), (now, 0), DAY);
        read.not_recognised(hash(2), now);
        read.remember(id.clone(), own, hash(1), hash(2), (now + 1, 0), DAY);
        assert_eq!(read.unchanged(&id, hash(1), now + 2, now + 2, DAY), None, "it would not be recognised again");
        read.remember(id.clone(), own, hash(1), hash(2), (now + DAY, 0), DAY);
        assert_eq!(
            read.unchanged(&id, hash(1), now + DAY + 1, now + DAY, DAY),
            Some(hash(2)),
            "it is tried once a day"
        );
    }
}
