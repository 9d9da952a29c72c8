//! Taking what a sync reads about memberships.

use std::collections::{BTreeMap, BTreeSet};

use super::members;
use super::sightings::{Confirmation, Diff, GroupRead, UserGroups};
use crate::directory::maps::Map;
use crate::directory::observed::{ListedGroup, ListedMember, directer};
use crate::directory::principal::{Id, Kind, Member};
use crate::directory::strategy::Strategy;

/// What a listed group names.
enum Named {
    One(Id),
    /// Several groups bear the name: which one is meant is unknown.
    Several(Vec<Id>),
    Nobody,
}

impl Diff<'_> {
    /// How this sync reads memberships; said before the first row, or after a list of groups that showed no member at
    /// all. `shown_before`: a completed sync saw members this way.
    pub fn read_memberships_by(&mut self, strategy: Strategy, shown_before: bool) {
        (self.reads.strategy, self.rules.shown_before) = (strategy, shown_before);
        // What the list said of members, it said by another strategy.
        self.reads.of_groups.clear();
        self.reads.failed.clear();
        self.reads.unsettled.clear();
        self.reads.partly_unread = false;
        // Another way of reading may show others who have been there all along: a first read.
        let by = self.known.completed.as_ref().and_then(|completed| completed.memberships_by);
        self.rules.first_memberships |= by.is_some_and(|by| by != strategy);
    }

    /// Members as the list of groups shows them. `unlisted`: no list shows the group, GET found it.
    pub(super) fn take_listed_members(
        &mut self,
        group: &Id,
        mut members: Vec<ListedMember>,
        observed_at: i64,
        unlisted: bool,
    ) {
        // One id for all memberships of a user: a group's rows bring one for each.
        for member in &mut members {
            if let Some(id) = self[Kind::User].listed.get(&member.id) {
                member.id = id.clone();
            }
        }
        self.reads.shown |= !members.is_empty();
        self.reads.failed.remove(group);
        let capped = self.is_capped(&members);
        // Some servers show members in lists but none in a GET: an empty GET alone ends no membership there.
        let mute = unlisted && members.is_empty() && !self.rules.get_shows_members;
        self.reads.partly_unread |= capped;
        let unproven = capped || mute;
        if capped {
            self.reads.unsettled.insert((Kind::Group, group.clone()));
        }
        let confirmation = if unproven { Confirmation::Unproven } else { Confirmation::NotAsked };
        self.keep_members(members.len());
        self.reads.of_groups.insert(group.clone(), GroupRead { members, observed_at, confirmation, partial: false });
    }

    /// A list exactly as long as the vendor's cap may go on behind it.
    fn is_capped(&self, members: &[ListedMember]) -> bool {
        self.rules.member_cap.is_some_and(|cap| members.len() == cap)
    }

    /// Takes all members of one group, asked for by itself. Where they are the known ones nothing is kept, so that
    /// memory holds only what changed. `observed_at`: milliseconds since 1970-01-01 UTC.
    pub fn take_members(&mut self, group: &Id, members: Vec<ListedMember>, observed_at: i64) {
        self.reads.shown |= !members.is_empty();
        self.reads.failed.remove(group);
        let capped = self.is_capped(&members);
        self.reads.partly_unread |= capped;
        if members::are_known(self, group, &members) {
            self.reads.of_groups.remove(group);
            return;
        }
        let observed_at = observed_at.max(self.rules.not_before);
        let confirmation = if capped { Confirmation::Unproven } else { Confirmation::NotAsked };
        self.keep_members(members.len());
        self.reads.of_groups.insert(group.clone(), GroupRead { members, observed_at, confirmation, partial: false });
    }

    /// Takes all groups of one user. `observed_at`: milliseconds since 1970-01-01 UTC.
    pub fn take_groups_of(&mut self, user: &Id, groups: Vec<ListedGroup>, observed_at: i64) {
        self.reads.shown |= !groups.is_empty();
        self.keep_members(groups.len());
        let observed_at = observed_at.max(self.rules.not_before);
        self.reads.of_users.insert(user.clone(), UserGroups { groups, observed_at });
    }

    /// The memberships of some groups or users could not be read: they stay as they were.
    pub fn mark_memberships_unread(&mut self) {
        self.reads.partly_unread = true;
    }

    /// The members of one group could not be read: they stay as they were, and the group is read again.
    pub fn mark_members_unread(&mut self, group: &Id) {
        self.reads.partly_unread = true;
        self.reads.of_groups.remove(group);
        self.reads.failed.insert(group.clone());
        self.reads.unsettled.insert((Kind::Group, group.clone()));
    }

    /// Turns what users said of their groups into what groups say of these users.
    pub fn settle_user_groups(&mut self) {
        self.reads.partly_unread |= self.recognised_rows_mean_something_else();
        if self.reads.of_users.is_empty() {
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
        for (user, read) in &self.reads.of_users {
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
                && let Some(read) = self.reads.of_users.get(&member.id)
            {
                reads.entry(group.clone()).or_insert_with(|| GroupRead::partial(read.observed_at));
            }
        }
        for read in reads.values_mut() {
            read.members.sort_unstable();
            // A member that is in a group directly is a direct one, whatever else is said.
            read.members.dedup_by(|later, first| {
                let same = later.id == first.id;
                if same {
                    first.direct = directer(first.direct, later.direct);
                }
                same
            });
        }
        self.reads.partly_unread |= doubtful;
        self.reads.unsettled.extend(unsettled);
        self.reads.of_groups.extend(reads);
    }

    /// True if a user was recognised by its bytes, and one of its groups is gone or has another name: which groups the
    /// bytes name now is found out when they are read, in the next sync.
    fn recognised_rows_mean_something_else(&self) -> bool {
        let groups = &self[Kind::Group];
        let renamed =
            groups.changed.iter().filter(|(id, changed)| self.known.is_renamed(id, changed.packed.borrowed()));
        let mut members = groups.gone.keys().chain(renamed.map(|(id, _)| id)).filter_map(|id| self.known.members(id));
        members.any(|members| {
            let mut users = members.keys().filter(|member| member.kind == Kind::User).map(|member| &member.id);
            users.any(|user| self[Kind::User].listed.contains(user) && !self.reads.of_users.contains_key(user))
        })
    }

    fn is_known_member(&self, group: &Id, user: &Id) -> bool {
        let member = Member { kind: Kind::User, id: user.clone() };
        self.known.members(group).is_some_and(|members| members.contains(&member))
    }

    fn groups_by_name(&self) -> Map<String, Vec<Id>> {
        let mut by_name: Map<String, Vec<Id>> = Map::default();
        let nameless = |group: &ListedGroup| group.id.is_none();
        if self.reads.of_users.values().any(|read| read.groups.iter().any(nameless)) {
            for id in self.groups() {
                let name = self.packed(Kind::Group, id).and_then(|group| group.fields().display_name);
                by_name.entry(name.unwrap_or_default().to_owned()).or_default().push(id.clone());
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

    /// Members that no list shows and that are not known: published only if GET finds them. Members already
    /// known as dangling are not asked again here.
    pub fn unlisted_members(&self) -> Vec<ListedMember> {
        let unknown = |group: &Id, member: &ListedMember| {
            members::resolve(self, group, member).is_none()
                && self.known.dangling(group).binary_search(&member.id).is_err()
                && Kind::BOTH.into_iter().all(|kind| !self[kind].gone.contains_key(&member.id))
        };
        let unlisted: BTreeSet<&ListedMember> = self
            .reads
            .of_groups
            .iter()
            .flat_map(|(group, read)| read.members.iter().filter(move |member| unknown(group, member)))
            .collect();
        unlisted.into_iter().cloned().collect()
    }

    /// All dangling members, sorted: their principals may come back.
    pub fn dangling(&self) -> Vec<Id> {
        let ids = self.known.groups_with_dangling().flat_map(|(_, ids)| ids.iter());
        let absent: BTreeSet<&Id> =
            ids.filter(|id| Kind::BOTH.into_iter().all(|kind| !self.appeared(kind, id))).collect();
        absent.into_iter().cloned().collect()
    }

    /// Groups not read in this sync one of whose dangling members has appeared since: to be read by GET.
    pub fn rereads(&self) -> Vec<Id> {
        let unread = |group: &Id| {
            self.appeared(Kind::Group, group)
                && !self.reads.of_groups.contains_key(group)
                && self.dangling_appeared(group)
        };
        let mut groups: Vec<Id> =
            self.known.groups_with_dangling().map(|(group, _)| group).filter(|group| unread(group)).cloned().collect();
        groups.sort_unstable();
        groups
    }

    /// Groups that lost members by the list alone: GET of the group has to agree.
    pub fn groups_that_lost_members(&self) -> Vec<Id> {
        if self.reads.strategy != Strategy::List || !self.memberships_are_known() {
            return Vec::new();
        }
        self.reads
            .of_groups
            .iter()
            .filter(|(group, read)| {
                matches!(read.confirmation, Confirmation::NotAsked) && !members::lost(self, group, read).is_empty()
            })
            .map(|(group, _)| group.clone())
            .collect()
    }

    /// The list of this sync shows members, or the profile vouches that none shown is none.
    pub fn list_shows_members(&self) -> bool {
        self.reads.shown || self.rules.empty_members_are_none
    }

    /// Takes the answer that no principal has this id, so that its members dangle.
    pub fn mark_without_principal(&mut self, id: Id) {
        self.reads.without_principal.insert(id);
    }

    /// Accepts that a member exists although no GET can find it: the profile says that lists are not complete.
    pub fn accept_unlisted(&mut self, id: Id) {
        self.reads.accepted.insert(id);
    }

    /// True where the profile says that the directory does not list everyone.
    pub fn publishes_unlisted(&self) -> bool {
        self.rules.publish_unlisted
    }

    /// Takes GET's word on a group that lost members; `None`: no answer that proves anything.
    pub fn confirm_group(&mut self, group: &Id, members: Option<Vec<ListedMember>>) {
        self.reads.partly_unread |= members.is_none();
        let Some(read) = self.reads.of_groups.get(group) else { return };
        // Only the lost members matter, and a group may have a million others.
        let lost: BTreeSet<Id> = members::lost(self, group, read).into_iter().map(|member| member.id).collect();
        let shown = members.map(|mut members| {
            members.retain(|member| lost.contains(&member.id));
            members
        });
        if let Some(read) = self.reads.of_groups.get_mut(group) {
            read.confirmation = shown.map_or(Confirmation::Unproven, Confirmation::Shows);
        }
    }
}
