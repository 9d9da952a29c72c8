//! Principals that are known but not listed: missing, hidden, gone, or only counted.
//!
//! A principal that no list shows is **hidden** once GET found it (`missing_since` set, `missing_walks` 0), and
//! **counted** where absence is the rule (`missing_walks` above 0). Its state record holds both, so that they
//! survive restarts; nothing else is remembered. One that a list shows and the account does not read is hidden too: it is
//! there, so that it is never missing and never gone, and only GET tells its changes.

use super::compare::Changed;
use super::sightings::Diff;
use crate::directory::changes::RemovalReason;
use crate::directory::principal::{Id, Kind};

/// Complete walks that have to miss a principal where GET is not available. One walk may miss a row that moved between
/// two pages.
pub const ABSENCE_WALKS: u32 = 3;

impl Diff<'_> {
    /// Distinct ids that the lists showed.
    pub fn listed(&self, kind: Kind) -> usize {
        self[kind].listed.len()
    }

    /// Ids that the lists showed: the controls of a proof. Deterministic.
    pub fn some_listed_ids(&self, kind: Kind, count: usize) -> Vec<Id> {
        let mut smallest: Vec<&Id> = self[kind].listed.iter().collect();
        if smallest.len() > count && count > 0 {
            smallest.select_nth_unstable(count - 1);
            smallest.truncate(count);
        }
        smallest.sort_unstable();
        smallest.into_iter().cloned().collect()
    }

    /// Ids that count as seen for completeness: listed, answered by GET in this sync (alive or proven gone), and
    /// hidden ones that were not due to be asked.
    pub fn accounted_for(&self, kind: Kind) -> usize {
        let listed = &self[kind].listed;
        let alive =
            self[kind].found.iter().filter(|id| !listed.contains(*id) && self.known.table(kind).contains(id)).count();
        let gone = self[kind].gone.values().filter(|reason| **reason == RemovalReason::NotFound).count();
        // Rows that cannot be published are there all the same.
        let unread = self[kind].unread_rows.iter().filter(|id| !listed.contains(*id)).count();
        let aside = self[kind].aside.iter().filter(|id| !self.known.table(kind).contains(id)).count();
        listed.len() + alive + gone + self.hidden_unasked(kind) + self[kind].no_id + unread + aside
    }

    /// Rows of the walk that have no usable id.
    pub fn without_id(&self, kind: Kind) -> usize {
        self[kind].no_id
    }

    fn unlisted(&self, kind: Kind) -> impl Iterator<Item = &Id> {
        // A sync asks for them about ten times. With a look at every known id each time, that was a quarter of a poll
        // with few changes.
        let ids = (!self[kind].unread).then(|| self[kind].known_unlisted.get_or_init(|| self.known_unlisted(kind)));
        debug_assert!(ids.is_none_or(|ids| *ids == self.known_unlisted(kind)), "void with every row and commit");
        // A principal whose record was lost is known by its memberships that are left, and asked for like any other.
        let orphans = (!self[kind].unread).then(|| self.known.orphans(kind));
        ids.into_iter()
            .flatten()
            .chain(orphans.into_iter().flatten())
            .filter(move |id| !self.appeared(kind, id) && !self[kind].gone.contains_key(*id))
    }

    fn known_unlisted(&self, kind: Kind) -> Vec<Id> {
        let (table, listed) = (self.known.table(kind), &self[kind].listed);
        // In most syncs every principal is listed.
        if self[kind].known_listed >= table.len() {
            return Vec::new();
        }
        table.ids().filter(|id| !listed.contains(*id)).cloned().collect()
    }

    fn is_hidden(&self, kind: Kind, id: &Id) -> bool {
        self[kind].aside.contains(id) || self.is_marked(kind, id).is_some_and(|walks| walks == 0)
    }

    /// The walks that missed a known principal; `None`: it was listed and read when it was last seen.
    fn is_marked(&self, kind: Kind, id: &Id) -> Option<u32> {
        let entry = self.known.table(kind).get(id)?;
        entry.missing_since.map(|_| entry.missing_walks)
    }

    /// Known principals that the account read until now and reads no longer, sorted: what they are called now is news.
    pub fn newly_aside(&self, kind: Kind) -> Vec<Id> {
        let mut aside: Vec<Id> = self
            .unlisted(kind)
            .filter(|id| self[kind].aside.contains(*id) && self.is_marked(kind, id).is_none())
            .cloned()
            .collect();
        aside.sort_unstable();
        aside
    }

    /// Known principals that neither a list showed nor an answer settled, sorted. Hidden ones count as seen until a
    /// GET says otherwise.
    pub fn missing(&self, kind: Kind) -> Vec<Id> {
        let mut missing: Vec<Id> = self.unlisted(kind).filter(|id| !self.is_hidden(kind, id)).cloned().collect();
        missing.sort_unstable();
        missing
    }

    /// Principals known as hidden that no list shows and that this sync has not asked for.
    pub fn hidden(&self, kind: Kind) -> Vec<Id> {
        let mut hidden: Vec<Id> = self.unlisted(kind).filter(|id| self.is_hidden(kind, id)).cloned().collect();
        hidden.sort_unstable();
        hidden
    }

    fn hidden_unasked(&self, kind: Kind) -> usize {
        self.unlisted(kind).filter(|id| self.is_hidden(kind, id)).count()
    }

    /// All principals that exist without being listed.
    pub(super) fn hidden_count(&self, kind: Kind) -> i64 {
        let found = self[kind].found.difference(&self[kind].listed).count();
        (found + self.hidden_unasked(kind)) as i64
    }

    /// GET is not available for this kind: absence is the rule.
    pub fn rely_on_absence(&mut self, kind: Kind) {
        self[kind].absence = true;
    }

    fn walks_missed(&self, kind: Kind, id: &Id) -> u32 {
        self.known.table(kind).get(id).map_or(0, |entry| entry.missing_walks).saturating_add(1)
    }

    /// Missing principals that this walk loses: where absence is the rule, those that it was the last to miss.
    pub fn losing(&self, kind: Kind) -> Vec<Id> {
        // A row without an id may be the row of any principal.
        if self.rules.repair || self[kind].no_id > 0 {
            return Vec::new();
        }
        let mut missing = self.missing(kind);
        if self[kind].absence {
            missing.retain(|id| self.walks_missed(kind, id) >= ABSENCE_WALKS);
        }
        missing
    }

    /// Raises the count of those that are missing where absence is the rule: a silent rewrite.
    pub(super) fn count_absences(&mut self, now: i64) {
        for kind in Kind::BOTH {
            if !self[kind].absence || self[kind].no_id > 0 {
                continue;
            }
            for id in self.missing(kind) {
                let missing_walks = self.walks_missed(kind, &id);
                let Some(entry) = self.known.table(kind).get(&id) else { continue };
                let missing_since = Some(entry.missing_since.unwrap_or(now));
                let silent = Changed { missing_since, missing_walks, ..Changed::silent(entry.packed.to_owned(), now) };
                self[kind].changed.insert(id, silent);
            }
        }
    }

    /// Principals were known, and none of them is listed again: another directory answers, or none. A principal that
    /// was hidden or is being counted was not listed before either.
    pub(super) fn none_again(&self, kind: Kind) -> bool {
        let table = self.known.table(kind);
        if self[kind].unread || self[kind].known_listed > 0 || self[kind].aside.iter().any(|id| table.contains(id)) {
            return false;
        }
        table.iter().any(|(_, entry)| entry.missing_since.is_none())
    }

    /// Takes the proof that a missing principal is gone. In repair it stays missing, to be asked for again.
    pub fn record_removal(&mut self, kind: Kind, id: Id, reason: RemovalReason) {
        let is_there = self.appeared(kind, &id) || self[kind].aside.contains(&id);
        if self.rules.repair || self[kind].no_id > 0 || is_there {
            return;
        }
        self[kind].gone.insert(id, reason);
    }
}
