//! What this sync read about memberships, by whichever strategy the directory allows.
//!
//! Groups tell their members (in the list, by GET, by a filter), or users their groups (on the user, by a filter).
//! Both end as a `GroupRead`: a whole one speaks of all members of its group, a partial one only of the users whose
//! groups were read.

use std::collections::{BTreeMap, BTreeSet};

use super::Map;
use super::diff::{Diff, of};
use super::memberships;
use super::principal::{Id, Kind};

/// How memberships are read (scim.md §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// `members` in the list of groups.
    #[default]
    List,
    /// `members` in GET of each group.
    Get,
    /// Users whose `groups.value` is the group.
    GroupsFilter,
    /// Groups whose `members.value` is the user.
    MembersFilter,
    /// `groups` on the user.
    User,
    /// Not at all: memberships stay unknown.
    Never,
}

impl Strategy {
    pub const ALL: [Strategy; 6] = [
        Strategy::List,
        Strategy::Get,
        Strategy::GroupsFilter,
        Strategy::MembersFilter,
        Strategy::User,
        Strategy::Never,
    ];

    /// As the profile's `memberships` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::List => "list",
            Strategy::Get => "get",
            Strategy::GroupsFilter => "groups_filter",
            Strategy::MembersFilter => "members_filter",
            Strategy::User => "user",
            Strategy::Never => "never",
        }
    }

    pub fn parse(text: &str) -> Option<Strategy> {
        Strategy::ALL.into_iter().find(|strategy| strategy.as_str() == text)
    }
}

/// Of two statements on one membership: direct is direct whatever else is said; then what is not stated is not known.
pub(super) fn directer(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (None, _) | (_, None) => None,
        _ => Some(false),
    }
}

/// A member as a group lists it: the type is often not said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedMember {
    pub id: Id,
    pub kind: Option<Kind>,
    pub direct: Option<bool>,
}

/// A group as a user lists it: some servers say only its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedGroup {
    pub id: Option<Id>,
    pub name: Option<String>,
    pub direct: Option<bool>,
}

/// A group whose members this sync read.
pub(super) struct GroupRead {
    pub members: Vec<ListedMember>,
    pub observed_at: i64,
    /// What GET of the same group says: `None` not asked, `Some(None)` no answer that proves anything.
    pub confirmed: Option<Option<Vec<ListedMember>>>,
    /// Speaks only of the users in `Diff::user_groups`.
    pub partial: bool,
}

/// A user whose groups this sync read completely.
pub(super) struct UserGroups {
    pub groups: Vec<ListedGroup>,
    pub observed_at: i64,
}

/// What a listed group names.
enum Named {
    One(Id),
    /// Several groups bear the name: which one is meant is unknown.
    Several(Vec<Id>),
    Nobody,
}

impl Diff<'_> {
    /// Members as the list of groups shows them. `unlisted`: no list shows the group, GET found it.
    pub(super) fn list_members(&mut self, group: &Id, members: Vec<ListedMember>, observed_at: i64, unlisted: bool) {
        self.members_shown |= !members.is_empty();
        self.members_failed.remove(group);
        let capped = self.is_capped(&members);
        self.partly_unread |= capped;
        // Some servers show members in lists but none in a GET: an empty GET alone ends no membership.
        let unproven = capped || (unlisted && members.is_empty());
        if capped {
            self.unsettled.insert((Kind::Group, group.clone()));
        }
        let confirmed = unproven.then_some(None);
        self.keep_members(members.len());
        self.groups_read.insert(group.clone(), GroupRead { members, observed_at, confirmed, partial: false });
    }

    /// A list exactly as long as the vendor's cap may go on behind it.
    fn is_capped(&self, members: &[ListedMember]) -> bool {
        self.rules.member_cap.is_some_and(|cap| members.len() == cap)
    }

    /// Takes all members of one group, asked for by itself. Where they are the known ones nothing is kept, so that
    /// memory holds only what changed. `observed_at`: milliseconds since 1970-01-01 UTC.
    pub fn group_members(&mut self, group: &Id, members: Vec<ListedMember>, observed_at: i64) {
        self.members_shown |= !members.is_empty();
        self.members_failed.remove(group);
        let capped = self.is_capped(&members);
        self.partly_unread |= capped;
        if memberships::are_known(self, group, &members) {
            self.groups_read.remove(group);
            return;
        }
        let observed_at = observed_at.max(self.rules.not_before);
        let confirmed = capped.then_some(None);
        self.keep_members(members.len());
        self.groups_read.insert(group.clone(), GroupRead { members, observed_at, confirmed, partial: false });
    }

    /// Takes all groups of one user. `observed_at`: milliseconds since 1970-01-01 UTC.
    pub fn groups_of_user(&mut self, user: &Id, groups: Vec<ListedGroup>, observed_at: i64) {
        self.members_shown |= !groups.is_empty();
        self.keep_members(groups.len());
        let observed_at = observed_at.max(self.rules.not_before);
        self.user_groups.insert(user.clone(), UserGroups { groups, observed_at });
    }

    /// The memberships of some groups or users could not be read: they stay as they were.
    pub fn memberships_unread(&mut self) {
        self.partly_unread = true;
    }

    /// The members of one group could not be read: they stay as they were, and the group is read again.
    pub fn members_unread(&mut self, group: &Id) {
        self.partly_unread = true;
        self.groups_read.remove(group);
        self.members_failed.insert(group.clone());
        self.unsettled.insert((Kind::Group, group.clone()));
    }

    /// Principals that this sync saw, sorted: whom to ask for memberships.
    pub fn seen(&self, kind: Kind) -> Vec<Id> {
        let mut seen: Vec<Id> = of(&self.listed, kind).union(of(&self.found, kind)).cloned().collect();
        seen.sort_unstable();
        seen
    }

    /// Turns what users said of their groups into what groups say of these users.
    pub fn settle_user_groups(&mut self) {
        if self.user_groups.is_empty() {
            return;
        }
        let by_name = self.groups_by_name();
        let mut reads: BTreeMap<Id, GroupRead> = BTreeMap::new();
        let mut unsettled = BTreeSet::new();
        let mut doubtful = false;
        let mut shows = |group: Id, user: &Id, direct: Option<bool>, observed_at: i64| {
            let read = reads.entry(group).or_insert_with(|| GroupRead::partial(observed_at));
            read.members.push(ListedMember { id: user.clone(), kind: Some(Kind::User), direct });
        };
        for (user, read) in &self.user_groups {
            for listed in &read.groups {
                match self.named(listed, &by_name) {
                    Named::One(group) => shows(group, user, listed.direct, read.observed_at),
                    Named::Several(groups) => {
                        // Known memberships of either stay; a new one would be a guess.
                        doubtful = true;
                        unsettled.insert((Kind::User, user.clone()));
                        for group in groups.into_iter().filter(|group| self.is_known_member(group, user)) {
                            shows(group, user, listed.direct, read.observed_at);
                        }
                    }
                    // A group that no list shows cannot be published; looked at again next time.
                    Named::Nobody => drop(unsettled.insert((Kind::User, user.clone()))),
                }
            }
        }
        // Groups that none of these users names any more.
        for (group, member, _) in self.known.memberships() {
            if member.kind == Kind::User
                && let Some(read) = self.user_groups.get(&member.id)
            {
                reads.entry(group.clone()).or_insert_with(|| GroupRead::partial(read.observed_at));
            }
        }
        for read in reads.values_mut() {
            read.members.sort_unstable();
            // Who is in a group directly is so, whatever else is said.
            read.members.dedup_by(|later, first| {
                let same = later.id == first.id;
                if same {
                    first.direct = directer(first.direct, later.direct);
                }
                same
            });
        }
        self.partly_unread |= doubtful;
        self.unsettled.extend(unsettled);
        self.groups_read.extend(reads);
    }

    fn is_known_member(&self, group: &Id, user: &Id) -> bool {
        let member = super::principal::Member { kind: Kind::User, id: user.clone() };
        self.known.members(group).is_some_and(|members| members.contains_key(&member))
    }

    fn groups_by_name(&self) -> Map<String, Vec<Id>> {
        let mut by_name: Map<String, Vec<Id>> = Map::default();
        let nameless = |group: &ListedGroup| group.id.is_none();
        if self.user_groups.values().any(|read| read.groups.iter().any(nameless)) {
            for id in self.groups() {
                let name = self.principal(Kind::Group, id).and_then(|group| group.display_name);
                by_name.entry(name.unwrap_or_default()).or_default().push(id.clone());
            }
        }
        by_name
    }

    fn named(&self, listed: &ListedGroup, by_name: &Map<String, Vec<Id>>) -> Named {
        match (&listed.id, &listed.name) {
            (Some(id), _) if self.exists(Kind::Group, id) => Named::One(id.clone()),
            (Some(_), _) | (None, None) => Named::Nobody,
            (None, Some(name)) => match by_name.get(name).map(Vec::as_slice) {
                None | Some([]) => Named::Nobody,
                Some([one]) => Named::One(one.clone()),
                Some(several) => Named::Several(several.to_vec()),
            },
        }
    }

    /// Members that no list shows and nobody knows: published only if GET finds them. Members already
    /// known as dangling are not asked again here.
    pub fn unlisted_members(&self) -> Vec<ListedMember> {
        let unknown = |group: &Id, member: &ListedMember| {
            memberships::resolve(self, group, member).is_none()
                && self.known.dangling(group).binary_search(&member.id).is_err()
                && Kind::BOTH.into_iter().all(|kind| !self.gone.contains_key(&(kind, member.id.clone())))
        };
        let unlisted: BTreeSet<&ListedMember> = self
            .groups_read
            .iter()
            .flat_map(|(group, read)| read.members.iter().filter(move |member| unknown(group, member)))
            .collect();
        unlisted.into_iter().cloned().collect()
    }

    /// All dangling members, sorted: nobody knows them, and they may come back.
    pub fn dangling(&self) -> Vec<Id> {
        let ids = self.known.groups_with_dangling().flat_map(|(_, ids)| ids.iter());
        let absent: BTreeSet<&Id> =
            ids.filter(|id| Kind::BOTH.into_iter().all(|kind| !self.appeared(kind, id))).collect();
        absent.into_iter().cloned().collect()
    }

    /// Groups not read in this sync one of whose dangling members has appeared since: to be read by GET.
    pub fn rereads(&self) -> Vec<Id> {
        let unread = |group: &Id| {
            self.appeared(Kind::Group, group) && !self.groups_read.contains_key(group) && self.dangling_appeared(group)
        };
        let mut groups: Vec<Id> =
            self.known.groups_with_dangling().map(|(group, _)| group).filter(|group| unread(group)).cloned().collect();
        groups.sort_unstable();
        groups
    }

    /// Groups that lost members by the list alone: GET of the group has to agree.
    pub fn groups_that_lost_members(&self) -> Vec<Id> {
        if self.strategy != Strategy::List || !self.memberships_are_known() {
            return Vec::new();
        }
        self.groups_read
            .iter()
            .filter(|(group, read)| read.confirmed.is_none() && !memberships::lost(self, group, read).is_empty())
            .map(|(group, _)| group.clone())
            .collect()
    }

    /// The list of this sync shows members, or the profile vouches that none shown is none.
    pub fn list_shows_members(&self) -> bool {
        self.members_shown || self.rules.empty_members_are_none
    }

    /// Takes the answer that no principal has this id, so that its members dangle.
    pub fn nobody(&mut self, id: Id) {
        self.nobody.insert(id);
    }

    /// Takes it that a member nobody can ask for exists, where the profile says that lists do not show everyone.
    pub fn vouched(&mut self, id: Id) {
        self.vouched.insert(id);
    }

    /// True where the profile says that the directory does not list everyone.
    pub fn publishes_unlisted(&self) -> bool {
        self.rules.publish_unlisted
    }

    /// Takes GET's word on a group that lost members; `None`: no answer that proves anything.
    pub fn confirm_group(&mut self, group: &Id, members: Option<Vec<ListedMember>>) {
        self.partly_unread |= members.is_none();
        let Some(read) = self.groups_read.get(group) else { return };
        // Only whether it shows those who are lost matters, and a group may have a million others.
        let lost: BTreeSet<Id> = memberships::lost(self, group, read).into_iter().map(|member| member.id).collect();
        let shown = members.map(|mut members| {
            members.retain(|member| lost.contains(&member.id));
            members
        });
        if let Some(read) = self.groups_read.get_mut(group) {
            read.confirmed = Some(shown);
        }
    }

    /// An empty `members` of a server not known to return them is unknown, not none. Where there are no groups there
    /// are no members either.
    pub fn memberships_are_known(&self) -> bool {
        let no_groups = of(&self.listed, Kind::Group).is_empty() && self.known.table(Kind::Group).is_empty();
        self.memberships_are_shown() || (self.strategy != Strategy::Never && no_groups)
    }

    /// This directory shows members: in this sync, in an earlier one by the same strategy, or by the profile's word.
    pub(super) fn memberships_are_shown(&self) -> bool {
        let shown = self.rules.empty_members_are_none || self.members_shown || self.rules.shown_before;
        self.strategy != Strategy::Never && shown
    }
}

impl GroupRead {
    fn partial(observed_at: i64) -> GroupRead {
        GroupRead { members: Vec::new(), observed_at, confirmed: None, partial: true }
    }
}
