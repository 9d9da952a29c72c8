//! Memberships: what groups list, turned into what is published.
//!
//! A membership exists when its group lists it and its principal is not proven gone (contract.md).
//! Servers keep deleted users in their groups for good, so a listed member without a principal is
//! *dangling*: counted and kept with the group, not published.

use std::collections::{BTreeMap, BTreeSet};

use super::Map;
use super::changes::{Event, EventType, RemovalReason, StateWrite, Unit};
use super::diff::Diff;
use super::key::StateKey;
use super::member_reads::{GroupRead, ListedMember, directer};
use super::principal::{Id, Kind, Member};
use super::status::Baseline;

/// The principal that a member listed by `group` names: by the type the server states, else user before group.
pub(super) fn resolve(diff: &Diff<'_>, group: &Id, member: &ListedMember) -> Option<Member> {
    let order: &[Kind] = match member.kind {
        Some(Kind::Group) => &[Kind::Group, Kind::User],
        Some(Kind::User) => &[Kind::User, Kind::Group],
        // Users and groups may share ids: that the user is gone does not make a member of the group with its id.
        None if stands_for_one_who_is_gone(diff, group, &member.id) => &[Kind::User],
        None => &[Kind::User, Kind::Group],
    };
    // A member that nobody can ask for is what its group says.
    let vouched = || diff.vouched.contains(&member.id).then_some(member.kind.unwrap_or(Kind::User));
    let kind = order.iter().copied().find(|kind| diff.exists(*kind, &member.id)).or_else(vouched)?;
    Some(Member { kind, id: member.id.clone() })
}

/// The id of a user who goes in this sync, or, where users and groups are counted alike, who went in an earlier one.
fn stands_for_one_who_is_gone(diff: &Diff<'_>, group: &Id, id: &Id) -> bool {
    let went = diff.ids_are_shared
        && diff.known.dangling(group).binary_search(id).is_ok()
        && diff.known.table(Kind::Group).contains(id);
    went || diff.gone.contains_key(&(Kind::User, id.clone()))
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
    members.len() == known.map_or(0, Map::len) + dangling.len() && members.iter().all(is_known)
}

/// Known members that the group no longer shows, apart from those whose principal is proven gone.
pub(super) fn lost(diff: &Diff<'_>, group: &Id, read: &GroupRead) -> Vec<Member> {
    let shown = by_id(&read.members);
    let known = diff.known.members(group).into_iter().flat_map(|members| members.keys());
    // A partial read is silent about everybody else.
    let spoken_of =
        |member: &&Member| !read.partial || (member.kind == Kind::User && diff.user_groups.contains_key(&member.id));
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
    let is_new = |member: &Member| !known.is_some_and(|known| known.contains_key(member));
    let new: BTreeSet<Member> =
        read.members.iter().filter_map(|listed| resolve(diff, group, listed)).filter(is_new).collect();
    new.len()
}

/// The list alone is no proof where GET of the group can be asked: both must lack the member. In repair nothing is.
pub(super) fn agreed(diff: &Diff<'_>, group: &Id, read: &GroupRead, member: &Member) -> bool {
    match &read.confirmed {
        _ if diff.rules.repair => false,
        None => true,
        Some(None) => false,
        Some(Some(shown)) => !shows(diff, group, &by_id(shown), member),
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

/// What becomes of all memberships.
#[derive(Default)]
pub(super) struct Plan {
    pub removed: Vec<Unit>,
    pub added: Vec<Unit>,
    /// Memberships that turned direct or indirect: rewritten silently.
    pub rewritten: Vec<Unit>,
    /// Lists of dangling members that differ from the known ones.
    pub dangling: BTreeMap<Id, Vec<Id>>,
    pub dangling_total: usize,
    /// Groups whose bytes must not be recognised next time: something in them stayed unpublished.
    pub unsettled: BTreeSet<Id>,
    /// Memberships that exist after this sync.
    pub count: usize,
}

pub(super) fn plan(diff: &Diff<'_>, now: i64) -> Plan {
    let mut plan = Plan::default();
    for ((kind, group), reason) in &diff.gone {
        if *kind == Kind::Group {
            for member in sorted_members(diff, group) {
                // Where both go, the member is the cause: it explains more than the group does.
                let cause = gone(diff, &member).unwrap_or((Kind::Group, group.clone(), *reason));
                plan.removed.push(remove(diff, group, member, Some(cause), now));
            }
        }
    }
    for group in diff.groups() {
        let mut dangling: BTreeSet<Id> = BTreeSet::new();
        let mut count = diff.known.members(group).map_or(0, |members| members.len());
        // Members that go with their principal. A group that was not read again still lists them.
        for member in sorted_members(diff, group) {
            if let Some(cause) = gone(diff, &member) {
                dangling.insert(member.id.clone());
                plan.removed.push(remove(diff, group, member, Some(cause), now));
                count -= 1;
            }
        }
        match diff.groups_read.get(group).filter(|_| diff.memberships_are_known()) {
            None => dangling.extend(diff.known.dangling(group).iter().cloned()),
            Some(read) => {
                // A partial read says nothing of those whom nobody knows.
                if read.partial {
                    dangling.extend(diff.known.dangling(group).iter().cloned());
                } else {
                    dangling.clear();
                }
                read_group(diff, group, read, &mut plan, &mut dangling, &mut count);
            }
        }
        plan.count += count;
        plan.dangling_total += dangling.len();
        let list: Vec<Id> = dangling.into_iter().collect();
        if list != diff.known.dangling(group) {
            plan.dangling.insert(group.clone(), list);
        }
    }
    plan
}

fn read_group(
    diff: &Diff<'_>,
    group: &Id,
    read: &GroupRead,
    plan: &mut Plan,
    dangling: &mut BTreeSet<Id>,
    count: &mut usize,
) {
    for member in lost(diff, group, read) {
        if agreed(diff, group, read, &member) {
            plan.removed.push(remove(diff, group, member, None, read.observed_at));
            *count -= 1;
        } else {
            plan.unsettled.insert(group.clone());
        }
    }
    let known = diff.known.members(group);
    let mut shown: BTreeMap<Member, Option<bool>> = BTreeMap::new();
    for listed in &read.members {
        match resolve(diff, group, listed) {
            None if dangles(diff, group, &listed.id) => drop(dangling.insert(listed.id.clone())),
            // Once dangling, it takes a principal to be published again, not only the profile's word.
            Some(member) if !diff.exists(member.kind, &member.id) && dangles(diff, group, &listed.id) => {
                dangling.insert(listed.id.clone());
            }
            // Nobody answered whether this member exists: it is asked again in the next sync.
            None => drop(plan.unsettled.insert(group.clone())),
            Some(member) => {
                let direct = shown.get(&member).map_or(listed.direct, |direct| directer(*direct, listed.direct));
                shown.insert(member, direct);
            }
        }
    }
    for (member, direct) in shown {
        if known.is_some_and(|known| known.contains_key(&member)) {
            plan.rewritten.extend(redirected(diff, group, read, member, direct));
            continue;
        }
        *count += 1;
        let event = membership_event(diff, EventType::MembershipAdded, group, &member);
        plan.added.push(Unit {
            events: event.into_iter().collect(),
            write: StateWrite::PutMembership { group: group.clone(), member, direct, first_seen_at: read.observed_at },
            observed_at: read.observed_at,
            loses_attribute: false,
            snapshot: first_read(diff, group) == Some(Baseline::Events),
        });
    }
}

/// A membership that the server now calls direct or indirect, and did not before.
fn redirected(diff: &Diff<'_>, group: &Id, read: &GroupRead, member: Member, direct: Option<bool>) -> Option<Unit> {
    let known = diff.known.members(group)?.get(&member)?;
    if direct.is_none() || direct == known.direct {
        return None;
    }
    let first_seen_at = known.first_seen_at;
    Some(Unit {
        events: Vec::new(),
        write: StateWrite::PutMembership { group: group.clone(), member, direct, first_seen_at },
        observed_at: read.observed_at,
        loses_attribute: false,
        snapshot: false,
    })
}

fn dangles(diff: &Diff<'_>, group: &Id, id: &Id) -> bool {
    diff.nobody.contains(id)
        || diff.known.dangling(group).binary_search(id).is_ok()
        || Kind::BOTH.into_iter().any(|kind| diff.gone.contains_key(&(kind, id.clone())))
}

fn sorted_members(diff: &Diff<'_>, group: &Id) -> Vec<Member> {
    let mut members: Vec<Member> =
        diff.known.members(group).into_iter().flat_map(|members| members.keys()).cloned().collect();
    members.sort_unstable();
    members
}

fn gone(diff: &Diff<'_>, member: &Member) -> Option<(Kind, Id, RemovalReason)> {
    let reason = diff.gone.get(&(member.kind, member.id.clone()))?;
    Some((member.kind, member.id.clone(), *reason))
}

fn remove(
    diff: &Diff<'_>,
    group: &Id,
    member: Member,
    cause: Option<(Kind, Id, RemovalReason)>,
    observed_at: i64,
) -> Unit {
    let reason = cause.as_ref().map_or(RemovalReason::NotListed, |(_, _, reason)| *reason);
    let event = membership_event(diff, EventType::MembershipRemoved, group, &member).map(|event| Event {
        removal_reason: Some(reason),
        cause: cause.map(|(kind, id, _)| (EventType::removed(kind), StateKey::Principal(kind, id))),
        ..event
    });
    Unit {
        events: event.into_iter().collect(),
        write: StateWrite::RemoveMembership { group: group.clone(), member },
        observed_at,
        loses_attribute: false,
        snapshot: first_read(diff, group) == Some(Baseline::Events),
    }
}

/// `Some`: the members of this group are read for the first time, and this is what that publishes. Members of a group
/// that is new itself are news.
fn first_read(diff: &Diff<'_>, group: &Id) -> Option<Baseline> {
    let rules = &diff.rules;
    let known = diff.known.table(Kind::Group).get(group);
    let first = match known {
        _ if rules.first_read(Kind::Group).is_some() => true,
        Some(entry) => entry.members_unread || rules.first_memberships,
        None => false,
    };
    first.then_some(rules.baseline)
}

/// `None` where the sync publishes no events, so that a first load looks up no names.
fn membership_event(diff: &Diff<'_>, event_type: EventType, group: &Id, member: &Member) -> Option<Event> {
    if first_read(diff, group) == Some(Baseline::State)
        || (diff.rules.repair && event_type == EventType::MembershipAdded)
    {
        return None;
    }
    Some(Event {
        principal_name: diff.principal(member.kind, &member.id).and_then(|found| found.name().map(str::to_owned)),
        group_name: diff.principal(Kind::Group, group).and_then(|found| found.display_name),
        ..Event::new(event_type)
    })
}
