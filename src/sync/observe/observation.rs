//! One reading of a directory: what all its steps share.

use crate::account::Account;
use crate::directory::{Diff, Kind, SyncStatus};
use crate::memory::Reserved;
use crate::sync::stream::Stream;

/// GETs of one sync for each of these: users known as hidden, groups known as hidden, members known as dangling, and
/// members that no list shows. Each has its own, so that none of them waits for ever behind many of another. What is missing
/// unexpectedly is asked beside that, within the guard's limits or a person's release.
pub(super) const BUDGET: usize = 200;

pub(super) struct Observation<'a, 'k, 's, D> {
    pub account: &'a Account,
    pub directory: &'a D,
    pub diff: &'a mut Diff<'k>,
    /// Where users go as they are read, if the sync is the first of its account.
    pub stream: Option<&'a mut Stream<'s>>,
    /// The record of this attempt: counts and findings.
    pub attempt: &'a mut SyncStatus,
    /// Only what was modified since then is read, and no principal is missing. Milliseconds since 1970-01-01 UTC.
    pub since: Option<i64>,
    pub memory: Reserved,
    /// What the walks showed of each list.
    pub walks: [Walked; 2],
    /// What a GET is worth for each kind; `None`: not tried.
    pub controls: [Option<Control>; 2],
}

/// What one or two walks over a list have shown of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Walked {
    /// The largest total that any page of the newest walk stated.
    pub total: u64,
    /// Rows that its pages held, repeats included.
    pub received: usize,
    /// Rows that stood on one page twice, or said different things of one id.
    pub doubled: usize,
    /// Rows that an earlier page had shown already.
    pub repeated: usize,
    pub pages: usize,
    /// Its second page held only ids of the first one.
    pub repeats_itself: bool,
    /// Rows that could not be read in full.
    pub unread: usize,
    /// It was walked twice.
    pub twice: bool,
}

/// What GET by id is worth here, as a GET of an id that the list showed says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// It found the listed id: its 404 is a proof.
    Works,
    /// 403, 404, 405 or 501 for a listed id: absence is the rule.
    NotAvailable,
    /// Anything else, or an empty list: a 404 proves nothing now.
    Unclear,
}

impl<D> Observation<'_, '_, '_, D> {
    /// The kinds that this directory serves.
    pub fn served(&self) -> &'static [Kind] {
        if self.account.habits.groups { &Kind::BOTH } else { &[Kind::User] }
    }

    /// True if the lists have to reach their totals.
    pub fn lists_are_whole(&self) -> bool {
        self.since.is_none() && self.account.habits.trust_total
    }
}
