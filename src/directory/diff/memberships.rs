//! What becomes of all memberships: removed, added, rewritten, or left dangling with their group.

use std::collections::{BTreeMap, BTreeSet};

use super::members::{agreed, dangles, first_read, gone, lost, resolve};
use super::sightings::{Diff, GroupRead};
use crate::directory::changes::{Event, EventType, Gained, GainedNames, KeyChange, RemovalReason, StateWrite, Units};
use crate::directory::key::StateKey;
use crate::directory::observed::directer;
use crate::directory::principal::{Id, Kind, Member};
use crate::directory::status::Baseline;
use crate::directory::strategy::Strategy;

/// What becomes of all memberships.
#[derive(Default)]
pub(super) struct Plan {
    pub removed: Units,
    pub added: Units,
    /// Memberships that turned direct or indirect: rewritten silently.
    pub rewritten: Units,
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
    for (group, reason) in &diff[Kind::Group].gone {
        for (member, cause) in sorted_members(diff, group, |member| {
            // Where both go, the member is the cause: it explains more than the group does.
            Some(gone(diff, member).unwrap_or((Kind::Group, group.clone(), *reason)))
        }) {
            plan.removed.push(remove(diff, group, member, Some(cause), now));
        }
    }
    let all_stay = Kind::BOTH.into_iter().all(|kind| diff[kind].gone.is_empty());
    // Where users tell their groups, no group lists a member that has no principal.
    let groups_list = !matches!(diff.reads.strategy, Strategy::User | Strategy::MembersFilter);
    for group in diff.groups() {
        let mut dangling: BTreeSet<Id> = BTreeSet::new();
        let mut count = diff.known.members(group).map_or(0, |members| members.len());
        // Members that go with their principal. A group that was not read again still lists them.
        if !all_stay {
            for (member, cause) in sorted_members(diff, group, |member| gone(diff, member)) {
                if groups_list {
                    dangling.insert(member.id.clone());
                }
                plan.removed.push(remove(diff, group, member, Some(cause), now));
                count -= 1;
            }
        }
        match diff.reads.of_groups.get(group).filter(|_| diff.memberships_are_known()) {
            None if groups_list => dangling.extend(diff.known.dangling(group).iter().cloned()),
            None => {}
            Some(read) => {
                // A partial read says nothing of other dangling members.
                if read.partial && groups_list {
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
            // No answer says whether this member exists: the next sync asks again.
            None => drop(plan.unsettled.insert(group.clone())),
            Some(member) => {
                dangling.remove(&listed.id);
                let direct = shown.get(&member).map_or(listed.direct, |direct| directer(*direct, listed.direct));
                shown.insert(member, direct);
            }
        }
    }
    let mut gained = Vec::new();
    for (member, direct) in shown {
        if known.is_some_and(|known| known.contains(&member)) {
            plan.rewritten.extend(redirected(diff, group, read, member, direct));
        } else {
            gained.push((member, direct));
        }
    }
    *count += gained.len();
    let has_events = has_events(diff, EventType::MembershipAdded, group);
    plan.added.gain(Gained {
        group: group.clone(),
        names: has_events.then(|| GainedNames {
            group: group_name(diff, group),
            members: gained.iter().map(|(member, _)| member_name(diff, member)).collect(),
        }),
        members: gained,
        observed_at: read.observed_at,
        snapshot: first_read(diff, group) == Some(Baseline::Events),
    });
}

/// A membership that the server now calls direct or indirect, and did not before.
fn redirected(
    diff: &Diff<'_>,
    group: &Id,
    read: &GroupRead,
    member: Member,
    direct: Option<bool>,
) -> Option<KeyChange> {
    let known = diff.known.members(group)?.get(&member)?;
    if direct.is_none() || direct == known.direct {
        return None;
    }
    let first_seen_at = known.first_seen_at;
    Some(KeyChange {
        events: Vec::new(),
        write: StateWrite::PutMembership { group: group.clone(), member, direct, first_seen_at },
        observed_at: read.observed_at,
        loses_attribute: false,
        snapshot: false,
    })
}

/// Why a membership goes: the removal of which principal takes it along.
type Cause = (Kind, Id, RemovalReason);

/// The known members of the group that go, sorted: only those are copied, a directory may have a million members.
fn sorted_members(diff: &Diff<'_>, group: &Id, goes: impl Fn(&Member) -> Option<Cause>) -> Vec<(Member, Cause)> {
    let known = diff.known.members(group).into_iter().flat_map(|members| members.keys());
    let mut members: Vec<_> = known.filter_map(|member| Some((member.clone(), goes(member)?))).collect();
    members.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    members
}

fn remove(diff: &Diff<'_>, group: &Id, member: Member, cause: Option<Cause>, observed_at: i64) -> KeyChange {
    let reason = cause.as_ref().map_or(RemovalReason::NotListed, |(_, _, reason)| *reason);
    let event = membership_event(diff, EventType::MembershipRemoved, group, &member).map(|event| Event {
        removal_reason: Some(reason),
        cause: cause.map(|(kind, id, _)| (EventType::removed(kind), StateKey::Principal(kind, id))),
        ..event
    });
    KeyChange {
        events: event.into_iter().collect(),
        write: StateWrite::RemoveMembership { group: group.clone(), member },
        observed_at,
        loses_attribute: false,
        snapshot: first_read(diff, group) == Some(Baseline::Events),
    }
}

fn membership_event(diff: &Diff<'_>, event_type: EventType, group: &Id, member: &Member) -> Option<Event> {
    has_events(diff, event_type, group).then(|| Event {
        principal_name: member_name(diff, member),
        group_name: group_name(diff, group),
        ..Event::new(event_type)
    })
}

/// False where the sync publishes no events of the group's memberships, so that a first load looks up no names.
fn has_events(diff: &Diff<'_>, event_type: EventType, group: &Id) -> bool {
    first_read(diff, group) != Some(Baseline::State) && !(diff.rules.repair && event_type == EventType::MembershipAdded)
}

fn member_name(diff: &Diff<'_>, member: &Member) -> Option<String> {
    diff.packed(member.kind, &member.id)?.fields().name().map(str::to_owned)
}

fn group_name(diff: &Diff<'_>, group: &Id) -> Option<String> {
    diff.packed(Kind::Group, group)?.fields().display_name.map(str::to_owned)
}
