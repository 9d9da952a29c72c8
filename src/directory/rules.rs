//! What decides which differences are events.

use super::entitlement::GroupPattern;
use super::principal::{AttributeList, Kind};
use super::status::Baseline;

/// What decides which differences are events.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a first read of something publishes.
    pub baseline: Baseline,
    /// No completed sync has read the kind: differences are its baseline, not news. [users, groups].
    pub first: [bool; 2],
    /// No sync of the account has completed, and it is not in repair.
    pub first_sync: bool,
    /// No completed sync has read memberships.
    pub first_memberships: bool,
    /// A completed sync saw members by the strategy of this one: none shown is none, not unknown.
    pub shown_before: bool,
    /// Known is not what Kafka should hold. A principal that is missing in it was perhaps published long ago, so it is
    /// written silently, and nothing is removed before one sync completed.
    pub repair: bool,
    /// The list of the newest completed sync. Only attributes in both lists make events: a newly listed
    /// attribute is not a change of the person.
    pub previous_attributes: Option<AttributeList>,
    pub attributes: AttributeList,
    pub previous_pattern: Option<GroupPattern>,
    pub pattern: Option<GroupPattern>,
    /// The profile vouches that a group without members has none. Otherwise a directory that shows no
    /// member at all leaves memberships unknown.
    pub empty_members_are_none: bool,
    /// GET of a group shows all of its members. Some servers show members in lists and none in a GET.
    pub get_shows_members: bool,
    /// A member list this long may be cut off.
    pub member_cap: Option<usize>,
    /// Members that no list shows, where GET is impossible: published all the same.
    pub publish_unlisted: bool,
    /// `started_at` of the last completed sync, milliseconds since 1970-01-01 UTC.
    pub window_start: Option<i64>,
    /// `started_at` of this sync: nothing is observed earlier, whatever the clock says.
    pub not_before: i64,
}

impl Rules {
    /// `Some`: the kind is read for the first time, and this is what that publishes.
    pub(super) fn first_read(&self, kind: Kind) -> Option<Baseline> {
        self.first[kind as usize].then_some(self.baseline)
    }
}
