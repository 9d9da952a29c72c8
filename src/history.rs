//! The state at a past time: the present state with later events undone, newest first. Pure.
//!
//! **What is undone together.** The events of one completed sync, and those that failed attempts before it published of
//! the same changes, carry the same `window_start`: they are one window. A window is undone as a whole or not at all, so
//! the result is always the state that a completed sync left. That sync is the last one whose events were all observed by
//! the time asked for. This holds also while the next sync is being published.
//!
//! **How far back.** Kafka keeps events for a limited time and drops the oldest first. Events from sequence 1 on reach back
//! to the end of the first sync, whose result is never undone. Otherwise a part of the oldest window may have been dropped, so that
//! window is not undone. It is certainly whole if its sync began after the oldest record of the partition was written; that
//! record may be of another account.
//!
//! Silent rewrites have no events: newly listed attributes, memberships that became direct, the time since a principal is
//! missing. They stay as they are now. Only the `added` event tells when a removed principal was first seen. Without that
//! event, `first_seen_at` is [`UNKNOWN_TIME`].

use std::collections::BTreeMap;

use serde_json::Value;

use crate::avro::codec;
use crate::avro::wire::{AttributeChange, ChangeEvent, Group, MembershipState, User};
use crate::directory::{
    Entry, EventType, Kind, Known, Map, Membership, Packed, PackedPrincipal, Principal, StateKey, SyncStatus,
    UNKNOWN_TIME, belongs_to, email_before,
};

/// The inverse of one event.
enum Undo {
    Remove(StateKey),
    /// The principal (`None` for a membership), and `first_seen_at` from an earlier event.
    Put(StateKey, Option<PackedPrincipal>, i64),
    Change(StateKey, Vec<AttributeChange>),
}

/// The oldest event from which on there is no gap, and its window.
struct Head {
    sequence: i64,
    window_start: Option<i64>,
    /// When the newest event of its window was observed.
    newest: i64,
}

/// Takes an account's events in their order, and undoes those that were observed later than a time.
pub struct History {
    time: i64,
    /// The sequence of the present state. Later events are not part of it.
    sequence: i64,
    last_sequence: i64,
    /// When the oldest record of the partition was written.
    log_start: Option<i64>,
    head: Option<Head>,
    /// The present window, and when its newest event was observed.
    window: Option<i64>,
    newest: i64,
    /// The inverses of the events of the present window, and of windows after the time.
    undo: Vec<Undo>,
    /// (sync, observed_at) of the newest event that stays.
    kept: Option<(i64, i64)>,
    newest_event: Option<(i64, i64)>,
    /// When each present key was added, if an event says so.
    added: Map<StateKey, i64>,
    /// When the newest event of the baseline was observed.
    baseline: Option<i64>,
}

/// The result of [`History::undo`]. Times are milliseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    pub undone: usize,
    /// (sync, observed_at) of the newest event that stays; `None` if only the baseline stays, or Kafka dropped it.
    pub kept: Option<(i64, i64)>,
    /// The earliest time to which the events reach back.
    pub earliest: i64,
}

/// Why the state is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The events reach back only to this time.
    TooEarly(i64),
    /// Events are missing or do not fit the state; says which.
    Broken(String),
}

impl History {
    /// `time`: later events are undone. `sequence`: of the present state. `log_start`: when the oldest record of the
    /// partition was written. Times are milliseconds since 1970-01-01 UTC.
    pub fn new(time: i64, sequence: i64, log_start: Option<i64>) -> History {
        History {
            time,
            sequence,
            last_sequence: 0,
            log_start,
            head: None,
            window: None,
            newest: 0,
            undo: Vec::new(),
            kept: None,
            newest_event: None,
            added: Map::default(),
            baseline: None,
        }
    }

    /// True until the first event was taken.
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// The event cannot be undone. It then counts as missing.
    pub fn take(&mut self, event: &ChangeEvent) -> Result<(), String> {
        if event.sequence > self.sequence {
            return Ok(());
        }
        let event_type = EventType::ALL.into_iter().find(|known| known.as_str() == event.event_type);
        let event_type = event_type.ok_or_else(|| format!("event {} has an unknown type", event.sequence))?;
        let key = key(event).ok_or_else(|| format!("event {} does not name a principal", event.sequence))?;
        let gap = event.sequence != self.last_sequence + 1;
        if gap || self.head.is_none() {
            // Events before a gap are of no use.
            (self.head, self.baseline) = (None, None);
            if self.last_sequence > 0 {
                // Events are missing in the middle of the log, so older records do not prove that a window is whole.
                self.log_start = None;
            }
            self.undo.clear();
            self.added.clear();
        }
        if self.head.is_none() || self.window != event.window_start {
            // The whole window before was observed in time, so it stays.
            if self.newest <= self.time {
                self.undo.clear();
                self.kept = self.newest_event;
            }
            (self.window, self.newest) = (event.window_start, event.observed_at);
        }
        self.newest = self.newest.max(event.observed_at);
        self.last_sequence = event.sequence;
        self.newest_event = Some((event.sync, event.observed_at));
        let (window_start, newest) = (event.window_start, self.newest);
        let head = self.head.get_or_insert(Head { sequence: event.sequence, window_start, newest });
        if head.window_start == window_start {
            head.newest = head.newest.max(newest);
        }
        if window_start.is_none() {
            self.baseline = Some(newest);
        }
        let undo = self.undo_of(event_type, key, event);
        self.undo.push(undo);
        Ok(())
    }

    fn undo_of(&mut self, event_type: EventType, key: StateKey, event: &ChangeEvent) -> Undo {
        match event_type {
            EventType::UserAdded | EventType::GroupAdded | EventType::MembershipAdded => {
                self.added.insert(key.clone(), event.observed_at);
                Undo::Remove(key)
            }
            EventType::UserRemoved | EventType::GroupRemoved | EventType::MembershipRemoved => {
                let first_seen_at = self.added.remove(&key).unwrap_or(UNKNOWN_TIME);
                Undo::Put(key, image(event).map(|image| PackedPrincipal::pack(&image)), first_seen_at)
            }
            EventType::UserUpdated | EventType::UserDisabled | EventType::UserEnabled | EventType::GroupUpdated => {
                Undo::Change(key, event.changes.clone())
            }
        }
    }

    /// Undoes on `known`, the present state, the events that were observed later than the time.
    ///
    /// # Errors
    /// [`Refusal`]; `known` may then be undone in part.
    pub fn undo(mut self, known: &mut Known) -> Result<AsOf, Refusal> {
        let missing =
            |at: i64| Refusal::Broken(format!("event {at} is missing, so the events do not lead to the state"));
        if self.last_sequence != self.sequence && self.head.is_some() {
            return Err(missing(self.last_sequence + 1));
        }
        let earliest = self.earliest(known);
        if self.time < earliest {
            return Err(Refusal::TooEarly(earliest));
        }
        // Events after the last completed sync belong to a window that the next one will complete.
        let open = known.completed.as_ref().is_some_and(|completed| completed.sequence < self.sequence);
        if open && (self.head.is_none() || !self.is_whole(self.window)) {
            let words =
                "a sync is still being published and its oldest events have expired; → retry after it completes";
            return Err(Refusal::Broken(words.to_owned()));
        }
        if self.newest <= self.time && !open {
            self.undo.clear();
            self.kept = self.newest_event;
        }
        let undone = self.undo.len();
        for undo in self.undo.into_iter().rev() {
            apply(undo, known).map_err(Refusal::Broken)?;
        }
        Ok(AsOf { undone, kept: self.kept, earliest })
    }

    fn earliest(&self, known: &Known) -> i64 {
        // After the end of the last completed sync, only events have changed the state.
        let finished = |completed: &SyncStatus| completed.finished_at.unwrap_or(completed.started_at);
        let completed = known.completed.as_ref().map_or(i64::MAX, finished);
        match &self.head {
            // No event was ever published.
            None if self.sequence == 0 => self.first_sync(known).unwrap_or(completed),
            // Kafka has dropped all events.
            None => self.log_start.unwrap_or(completed).min(completed),
            Some(head) if head.sequence == 1 => self.first_sync(known).or(head.window_start).unwrap_or(completed),
            Some(head) => match self.log_start {
                Some(log_start) if self.is_whole(head.window_start) => log_start,
                log_start => head.newest.max(log_start.unwrap_or(head.newest)),
            },
        }
    }

    /// True if no event of this window can have been dropped: it is not the oldest window, or it began after the oldest
    /// record of the log was written.
    fn is_whole(&self, window_start: Option<i64>) -> bool {
        let oldest = self.head.as_ref().filter(|head| head.sequence > 1 && head.window_start == window_start);
        oldest.is_none_or(|_| self.log_start.zip(window_start).is_some_and(|(log, window)| window >= log))
    }

    /// When the first sync read its last resource. Everything that no event added came with it.
    fn first_sync(&self, known: &Known) -> Option<i64> {
        let principals = Kind::BOTH.into_iter().flat_map(|kind| {
            let entries = known.table(kind).iter();
            entries.map(move |(id, entry)| (StateKey::Principal(kind, id.clone()), entry.first_seen_at))
        });
        let memberships = known.memberships().map(|(group, member, membership)| {
            let key = StateKey::Membership { member: member.clone(), group: group.clone() };
            (key, membership.first_seen_at)
        });
        let silent = principals.chain(memberships).filter(|(key, _)| !self.added.contains_key(key));
        silent.map(|(_, first_seen_at)| first_seen_at).chain(self.baseline).max()
    }
}

fn key(event: &ChangeEvent) -> Option<StateKey> {
    if event.event_type.starts_with("membership.") {
        let (group, member) = codec::membership_of(&MembershipState {
            principal_type: event.principal_type.clone(),
            principal_id: event.principal_id.clone(),
            group_id: event.group_id.clone()?,
            ..MembershipState::default()
        })?;
        return Some(StateKey::Membership { member, group });
    }
    let kind = Kind::parse_principal_type(&event.principal_type)?;
    Some(StateKey::Principal(kind, event.principal_id.as_str().into()))
}

/// The image of the principal in the event.
fn image(event: &ChangeEvent) -> Option<Principal> {
    let omitted = event.omitted_attributes.clone();
    if let Some(user) = event.user.clone() {
        let User { id, user_name, display_name, active, external_id, email, created, last_modified, attributes } = user;
        let id = id.into();
        return Some(Principal {
            id,
            user_name,
            display_name,
            active,
            external_id,
            email,
            created,
            last_modified,
            attributes,
            omitted,
        });
    }
    let Group { id, display_name, external_id, created, last_modified, attributes } = event.group.clone()?;
    let bare = Principal::new(id);
    Some(Principal { display_name, external_id, created, last_modified, attributes, omitted, ..bare })
}

fn apply(undo: Undo, known: &mut Known) -> Result<(), String> {
    let there = |known: &Known, key: &StateKey| known.record_digest(key).is_some();
    match undo {
        Undo::Remove(key) => {
            if !there(known, &key) {
                return Err("an event adds a record that the state does not have".to_owned());
            }
            match key {
                StateKey::Principal(kind, id) => known.remove_principal(kind, &id, None),
                StateKey::Membership { member, group } => known.remove_membership(&group, &member, None),
            }
        }
        Undo::Put(key, image, first_seen_at) => {
            if there(known, &key) {
                return Err("an event removes a record that the state has".to_owned());
            }
            match (key, image) {
                (StateKey::Principal(kind, id), Some(packed)) => {
                    known.put_principal(kind, &id, &entry(packed.borrowed(), first_seen_at), None);
                }
                (StateKey::Principal(..), None) => {
                    return Err("a removal does not have the image of its principal".to_owned());
                }
                (StateKey::Membership { member, group }, _) => {
                    let membership = Membership { direct: None, first_seen_at, sequence: 0, digest: 0.into() };
                    known.put_membership(&group, (member.kind, &member.id), membership);
                }
            }
        }
        Undo::Change(key, changes) => {
            let StateKey::Principal(kind, id) = key else { return Err("an event changes a membership".to_owned()) };
            let Some(now) = known.table(kind).get(&id) else {
                return Err("an event changes a principal that the state does not have".to_owned());
            };
            let packed = PackedPrincipal::pack(&changed(kind, now.packed.unpack(id.clone()), changes));
            let before = Entry {
                missing_since: now.missing_since,
                missing_walks: now.missing_walks,
                ..entry(packed.borrowed(), now.first_seen_at)
            };
            known.put_principal(kind, &id, &before, None);
        }
    }
    Ok(())
}

fn entry(packed: Packed<'_>, first_seen_at: i64) -> Entry<'_> {
    Entry {
        packed,
        digest: 0,
        first_seen_at,
        changed_at: UNKNOWN_TIME,
        sequence: 0,
        missing_since: None,
        missing_walks: 0,
        members_unread: false,
    }
}

/// The principal with the old values of these changes: the inverse of `Principal::compared`.
fn changed(kind: Kind, mut principal: Principal, changes: Vec<AttributeChange>) -> Principal {
    // Several paths change at once if the server wrote another shape before.
    let addresses = kind == Kind::User && changes.iter().any(|change| belongs_to(&change.attribute, "emails"));
    let now = addresses.then(|| principal.attributes.clone());
    let email_is_user_name = principal.email_is_user_name();
    // A display name that is composed of other names has no change of its own.
    let composed = kind == Kind::User && principal.display_name.is_some();
    let composed = composed && principal.display_name == principal.composed_name();
    let composed = composed && changes.iter().all(|change| change.attribute != "displayName");
    for AttributeChange { attribute, old_value, .. } in changes {
        let json: Option<Value> = old_value.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let text = || json.as_ref().and_then(Value::as_str).map(str::to_owned);
        match attribute.as_str() {
            "userName" => principal.user_name = text(),
            "displayName" => principal.display_name = text(),
            "externalId" => principal.external_id = text(),
            "active" => principal.active = json.as_ref().and_then(Value::as_bool),
            "meta.created" => principal.created = json.as_ref().and_then(Value::as_i64),
            // Follow from the name of the group.
            "entitlement_domain" | "entitlement_kind" | "entitlement_name" if kind == Kind::Group => {}
            _ => match old_value {
                Some(old) => drop(principal.attributes.insert(attribute, old)),
                None => drop(principal.attributes.remove(&attribute)),
            },
        }
    }
    if email_is_user_name && !addresses {
        principal.email.clone_from(&principal.user_name);
    }
    if composed {
        principal.display_name = principal.composed_name();
    }
    if let Some(now) = now {
        principal.email = email_before(principal.email.as_deref(), pairs(&now), pairs(&principal.attributes));
    }
    principal
}

fn pairs(attributes: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    attributes.iter().map(|(path, text)| (path.as_str(), text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(attributes: &[(&str, &str)], email: Option<&str>) -> Principal {
        let attributes = attributes.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Principal { attributes: attributes.collect(), email: email.map(str::to_owned), ..Principal::new("u1") }
    }

    /// The change that leads from the first attributes to the second.
    fn between(before: &Principal, now: &Principal) -> Vec<AttributeChange> {
        let (before, now) = (before.published(), now.published());
        let paths = before.keys().chain(now.keys()).filter(|path| before.get(*path) != now.get(*path));
        let paths: std::collections::BTreeSet<&&str> = paths.collect();
        let change = |path: &&&str| AttributeChange {
            attribute: (***path).to_owned(),
            old_value: before.get(**path).cloned(),
            new_value: now.get(**path).cloned(),
        };
        paths.iter().map(change).collect()
    }

    #[test]
    fn an_address_is_undone_with_the_addresses_in_any_shape() {
        let shapes = [
            principal(&[], None),
            principal(&[("emails", r#"[{"value":"a@x"},{"primary":true,"value":"b@x"}]"#)], Some("b@x")),
            principal(&[("emails", r#"[{"value":"a@x"},{"primary":"True","value":"c@x"}]"#)], Some("c@x")),
            principal(&[("emails", r#"["e@x","d@x"]"#), ("title", r#""T""#)], Some("d@x")),
            principal(&[("emails", r#""f@x""#)], Some("f@x")),
            principal(&[("emails.type", r#""work""#), ("emails.value", r#""g@x""#)], Some("g@x")),
            principal(&[("Emails", r#"[{"Value":"h@x"}]"#)], Some("h@x")),
            principal(&[("emails", r#"[{"type":"home"}]"#)], None),
        ];
        for before in &shapes {
            for now in &shapes {
                assert_eq!(&changed(Kind::User, now.clone(), between(before, now)), before, "from {now:?}");
            }
        }
    }

    #[test]
    fn an_address_that_is_the_user_name_is_undone_with_it() {
        let user = |name: &str| Principal { user_name: Some(name.into()), ..principal(&[], Some(name)) };
        let (before, now) = (user("a@x"), user("b@x"));
        assert_eq!(changed(Kind::User, now.clone(), between(&before, &now)), before);
    }

    #[test]
    fn a_group_never_has_an_address() {
        let (before, now) = (principal(&[("emails", r#"["a@x"]"#)], None), principal(&[], None));
        assert_eq!(changed(Kind::Group, now.clone(), between(&before, &now)), before);
    }
}
