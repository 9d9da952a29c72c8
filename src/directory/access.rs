//! Which principal is in which group through other groups. Groups are members of groups, some of them in a circle.

use super::known::{Known, UNKNOWN_TIME};
use super::maps::{Map, Set};
use super::principal::{Id, Kind};

/// A group that the members of another one are in, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Above<'k> {
    pub group: &'k Id,
    /// When the youngest membership on the way was first seen, milliseconds since 1970-01-01 UTC; or
    /// [`UNKNOWN_TIME`].
    pub since: i64,
    /// How many memberships of groups in groups lie between.
    pub steps: u32,
    /// Place of the step before in the same list; `None`: the group asked for itself.
    before: Option<u32>,
}

/// For every group with groups above it: those, nearest first.
pub struct Nesting<'k>(Map<&'k Id, Vec<Above<'k>>>);

impl<'k> Nesting<'k> {
    pub fn of(known: &'k Known) -> Nesting<'k> {
        let mut parents: Map<&Id, Vec<(&Id, i64)>> = Map::default();
        for (group, member, membership) in known.memberships() {
            // What the server calls indirect is not a step of its own.
            if member.kind == Kind::Group && membership.direct != Some(false) {
                parents.entry(&member.id).or_default().push((group, membership.first_seen_at));
            }
        }
        for above in parents.values_mut() {
            above.sort_unstable();
        }
        Nesting(parents.keys().map(|group| (*group, climb(group, &parents))).collect())
    }

    /// The groups above one, nearest first; none twice, and never itself.
    pub fn above(&self, group: &Id) -> &[Above<'k>] {
        self.0.get(group).map_or(&[], Vec::as_slice)
    }

    /// The groups on the way from `group` to one above it, `group` itself first.
    pub fn way(&self, group: &'k Id, to: &Above<'k>) -> Vec<&'k Id> {
        let all = self.above(group);
        let mut way = Vec::new();
        let mut at = to.before;
        while let Some(step) = at.and_then(|index| all.get(index as usize)) {
            way.push(step.group);
            at = step.before;
        }
        way.push(group);
        way.reverse();
        way
    }
}

/// The later of two times; unknown where one of them is.
pub fn later(one: i64, other: i64) -> i64 {
    if [one, other].contains(&UNKNOWN_TIME) { UNKNOWN_TIME } else { one.max(other) }
}

/// Breadth first, so that the shortest way to a group is the one that is kept.
fn climb<'k>(from: &'k Id, parents: &Map<&'k Id, Vec<(&'k Id, i64)>>) -> Vec<Above<'k>> {
    let mut found: Vec<Above<'k>> = Vec::new();
    let mut seen: Set<&Id> = Set::default();
    seen.insert(from);
    let mut next = 0;
    let mut at = (from, i64::MIN, 0, None);
    loop {
        let (group, since, steps, place) = at;
        for (parent, first_seen_at) in parents.get(group).into_iter().flatten() {
            if seen.insert(parent) {
                let since = later(since, *first_seen_at);
                found.push(Above { group: parent, since, steps: steps + 1, before: place });
            }
        }
        let Some(step) = found.get(next) else { return found };
        at = (step.group, step.since, step.steps, Some(next as u32));
        next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::members::Membership;

    /// `child in parent` a line, first seen at the number of the line; `child indirectly-in parent` otherwise.
    fn known(text: &str) -> Known {
        let mut known = Known::default();
        for (line, at) in text.lines().zip(1..) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [child, how, parent] = words[..] else { panic!("{line}") };
            let direct = (how == "indirectly-in").then_some(false);
            let membership = Membership { direct, first_seen_at: at, sequence: 0, digest: 0.into() };
            known.put_membership(parent, (Kind::Group, child), membership);
        }
        known
    }

    fn above(known: &Known, group: &str) -> Vec<String> {
        let (nesting, group) = (Nesting::of(known), Id::from(group));
        let group = known.memberships().map(|(_, member, _)| &member.id).find(|id| **id == group);
        let Some(group) = group else { return Vec::new() };
        let line = |above: &Above<'_>| {
            let way: Vec<&str> = nesting.way(group, above).into_iter().map(AsRef::as_ref).collect();
            format!("{} via {} since {}", above.group, way.join(" > "), above.since)
        };
        nesting.above(group).iter().map(line).collect()
    }

    #[test]
    fn the_groups_above_are_found_through_all_steps_nearest_first() {
        let known = known("a in b\nb in c\nc in d\nx in b");
        assert_eq!(above(&known, "a"), ["b via a since 1", "c via a > b since 2", "d via a > b > c since 3"]);
        assert_eq!(above(&known, "c"), ["d via c since 3"]);
        assert_eq!(above(&known, "d"), [""; 0]);
    }

    #[test]
    fn a_circle_ends_and_no_group_is_above_itself() {
        let known = known("a in b\nb in c\nc in a");
        assert_eq!(above(&known, "a"), ["b via a since 1", "c via a > b since 2"]);
        assert_eq!(above(&known, "c"), ["a via c since 3", "b via c > a since 3"]);
    }

    #[test]
    fn of_two_ways_the_shorter_one_counts_and_indirect_memberships_are_no_steps() {
        let known = known("a in b\nb in c\na in c\na indirectly-in d");
        assert_eq!(above(&known, "a"), ["b via a since 1", "c via a since 3"]);
    }
}
