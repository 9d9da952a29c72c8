//! Members as groups list them: which principal each one is, and which of them come and go.
//!
//! A membership exists when its group lists it and its principal is not proven gone. Servers keep deleted users in
//! their groups for good, so a listed member without a principal is *dangling*: counted and kept with the group, not
//! published.

use std::collections::BTreeSet;

use super::sightings::{Confirmation, Diff, GroupRead};
use crate::directory::changes::RemovalReason;
use crate::directory::maps::Map;
use crate::directory::members::Members;
use crate::directory::observed::ListedMember;
use crate::directory::principal::{Id, Kind, Member};
use crate::directory::status::Baseline;

/// The principal that a member listed by `group` names: by the type the server states, else user before group.
pub(super) fn resolve(diff: &Diff<'_>, group: &Id, member: &ListedMember) -> Option<Member> {
    let order: &[Kind] = match member.kind {
        Some(Kind::Group) => &[Kind::Group, Kind::User],
        Some(Kind::User) => &[Kind::User, Kind::Group],
        // Users and groups may share ids: that the user is gone does not make a member of the group with its id.
        None if shares_its_id_with_a_gone_principal(diff, group, &member.id) => &[Kind::User],
        None => &[Kind::User, Kind::Group],
    };
    // A member that no GET can find is what its group says.
    let vouched = || diff.reads.accepted.contains(&member.id).then_some(member.kind.unwrap_or(Kind::User));
    let kind = order.iter().copied().find(|kind| diff.exists(*kind, &member.id)).or_else(vouched)?;
    Some(Member { kind, id: member.id.clone() })
}

/// The id of a user who goes in this sync, or, where users and groups are counted alike, who went in an earlier one.
fn shares_its_id_with_a_gone_principal(diff: &Diff<'_>, group: &Id, id: &Id) -> bool {
    let went = diff.ids_are_shared
        && diff.known.dangling(group).binary_search(id).is_ok()
        && diff.known.table(Kind::Group).contains(id);
    went || diff[Kind::User].gone.contains_key(id)
}

/// True where the group's members are exactly the known ones, dangling ones included: nothing to keep.
pub(super) fn are_known(diff: &Diff<'_>, group: &Id, members: &[ListedMember]) -> bool {
    let (known, dangling) = (diff.known.members(group), diff.known.dangling(group));
    let is_known = |listed: &ListedMember| match resolve(diff, group, listed) {
        Some(member) => known
            .and_then(|known| known.get(&member))
            .is_some_and(|known| listed.direct.is_none() || listed.direct == known.direct),
        None => dangling.binary_search(&listed.id).is_ok(),
    };
    members.len() == known.map_or(0, Members::len) + dangling.len() && members.iter().all(is_known)
}

/// Known members that the group no longer shows, apart from those whose principal is proven gone.
pub(super) fn lost(diff: &Diff<'_>, group: &Id, read: &GroupRead) -> Vec<Member> {
    let shown = by_id(&read.members);
    let known = diff.known.members(group).into_iter().flat_map(|members| members.keys());
    // A partial read says nothing of the other members.
    let spoken_of =
        |member: &&Member| !read.partial || (member.kind == Kind::User && diff.reads.of_users.contains_key(&member.id));
    let mut lost: Vec<Member> = known
        .filter(|member| gone(diff, member).is_none() && !shows(diff, group, &shown, member))
        .filter(spoken_of)
        .cloned()
        .collect();
    lost.sort_unstable();
    lost
}

/// How many members the group shows that are news.
pub(super) fn added(diff: &Diff<'_>, group: &Id, read: &GroupRead) -> usize {
    if !diff.memberships_are_known() || first_read(diff, group).is_some() {
        return 0;
    }
    let known = diff.known.members(group);
    let is_new = |member: &Member| !known.is_some_and(|known| known.contains(member));
    let new: BTreeSet<Member> =
        read.members.iter().filter_map(|listed| resolve(diff, group, listed)).filter(is_new).collect();
    new.len()
}

/// The list alone is not a proof where GET of the group answers: both must lack the member. In repair nothing is a
/// proof.
pub(super) fn agreed(diff: &Diff<'_>, group: &Id, read: &GroupRead, member: &Member) -> bool {
    match &read.confirmation {
        _ if diff.rules.repair => false,
        Confirmation::NotAsked => true,
        Confirmation::Unproven => false,
        Confirmation::Shows(shown) => !shows(diff, group, &by_id(shown), member),
    }
}

fn by_id(members: &[ListedMember]) -> Map<&Id, Vec<&ListedMember>> {
    let mut all: Map<&Id, Vec<&ListedMember>> = Map::default();
    for member in members {
        all.entry(&member.id).or_default().push(member);
    }
    all
}

/// Users and groups may share ids: a row shows a member if its type, where stated, fits.
fn shows(diff: &Diff<'_>, group: &Id, rows: &Map<&Id, Vec<&ListedMember>>, member: &Member) -> bool {
    rows.get(&member.id).is_some_and(|rows| {
        let fits = |row: &&ListedMember| row.kind.is_none_or(|kind| kind == member.kind);
        rows.iter().any(|row| fits(row) || resolve(diff, group, row).as_ref() == Some(member))
    })
}

pub(super) fn dangles(diff: &Diff<'_>, group: &Id, id: &Id) -> bool {
    diff.reads.without_principal.contains(id)
        || diff.known.dangling(group).binary_search(id).is_ok()
        || Kind::BOTH.into_iter().any(|kind| diff[kind].gone.contains_key(id))
}

pub(super) fn gone(diff: &Diff<'_>, member: &Member) -> Option<(Kind, Id, RemovalReason)> {
    let reason = diff[member.kind].gone.get(&member.id)?;
    Some((member.kind, member.id.clone(), *reason))
}

/// `Some`: the members of this group are read for the first time, and this is what that publishes. Members of a group
/// that is new itself are news.
pub(super) fn first_read(diff: &Diff<'_>, group: &Id) -> Option<Baseline> {
    let rules = &diff.rules;
    let known = diff.known.table(Kind::Group).get(group);
    let first = match known {
        _ if rules.first_read(Kind::Group).is_some() => true,
        Some(entry) => entry.members_unread || rules.first_memberships,
        None => false,
    };
    first.then_some(rules.baseline)
}
