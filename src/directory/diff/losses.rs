//! What a sync would take away, for the guard to judge.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::compare::Changed;
use super::members;
use super::sightings::Diff;
use crate::directory::changes::EventType;
use crate::directory::entry::Entry;
use crate::directory::guard::{Evidence, Losses};
use crate::directory::principal::{Id, Kind};

impl Diff<'_> {
    /// What the guard looks at, with everything missing taken for lost.
    pub fn evidence(&self) -> Evidence {
        let known = self.known();
        let [no_user_again, no_group_again] = Kind::BOTH.map(|kind| self.none_again(kind));
        // If none of the known principals is seen again, all of them are at stake, however many walks their loss takes.
        let at_stake = |kind: Kind, none_again: bool| if none_again { self.missing(kind) } else { self.losing(kind) };
        let missing_users = at_stake(Kind::User, no_user_again);
        let missing_groups = at_stake(Kind::Group, no_group_again);
        let gone = |kind| self[kind].gone.len();
        let lost = |kind, missing: &[Id]| (missing.len() + gone(kind)) as u64;
        let missing: HashSet<(Kind, &Id)> = missing_users
            .iter()
            .map(|id| (Kind::User, id))
            .chain(missing_groups.iter().map(|id| (Kind::Group, id)))
            .collect();
        let memberships = if self.memberships_are_known() {
            self.reads
                .of_groups
                .iter()
                .map(|(group, read)| {
                    let lost = members::lost(self, group, read).into_iter();
                    let lost = lost.filter(|member| members::agreed(self, group, read, member));
                    lost.filter(|member| !missing.contains(&(member.kind, &member.id))).count()
                })
                .sum::<usize>() as u64
        } else {
            0
        };
        let disabled = self[Kind::User]
            .changed
            .values()
            .flat_map(|changed| &changed.events)
            .filter(|event| event.event_type == EventType::UserDisabled)
            .count() as u64;
        let losses = Losses {
            users: lost(Kind::User, &missing_users),
            groups: lost(Kind::Group, &missing_groups),
            memberships,
            disabled,
            ..Losses::default()
        };
        Evidence {
            losses,
            users: known.table(Kind::User).len() as u64,
            groups: known.table(Kind::Group).len() as u64,
            memberships: known.memberships_len() as u64,
            enabled_users: known.table(Kind::User).enabled() as u64,
            no_user_again,
            no_group_again,
            ..Evidence::default()
        }
    }

    /// Users, groups and memberships that are news, for a guard that limits them.
    pub fn additions(&self) -> u64 {
        // In repair they are written silently.
        if self.rules.repair {
            return 0;
        }
        let principals = Kind::BOTH.iter().filter(|kind| self.rules.first_read(**kind).is_none()).map(|kind| {
            let added = |changed: &&Changed| changed.events.iter().any(|event| event.event_type.is_added());
            self[*kind].changed.values().filter(added).count() as u64
        });
        let memberships = self.reads.of_groups.iter().map(|(group, read)| members::added(self, group, read) as u64);
        principals.sum::<u64>() + memberships.sum::<u64>()
    }

    /// Adds to `evidence` which attributes vanish, given that fewer than `min_losses` losers never matter.
    /// Returns the paths for which `vanishes(losing, holding)` holds.
    pub fn vanishing(
        &self,
        min_losses: u64,
        vanishes: impl Fn(u64, u64) -> bool,
        evidence: &mut Evidence,
    ) -> BTreeSet<String> {
        let mut vanishing = BTreeSet::new();
        let mut losers: HashMap<(Kind, &str), u64> = HashMap::new();
        for kind in Kind::BOTH {
            for path in self[kind].changed.values().flat_map(|changed| &changed.lost) {
                *losers.entry((kind, path)).or_default() += 1;
            }
        }
        let lost_active = self.active.lost.len() as u64;
        if lost_active >= min_losses.max(1) {
            let holds = |(_, entry): &(&Id, Entry<'_>)| entry.packed.active().is_some();
            let holding = self.known.table(Kind::User).iter().filter(holds).count() as u64;
            evidence.vanishing.push((lost_active, holding));
            if vanishes(lost_active, holding) {
                vanishing.insert("active".to_owned());
            }
        }
        for ((kind, path), losing) in losers.into_iter().filter(|(_, losing)| *losing >= min_losses.max(1)) {
            let holds = |(_, entry): &(&Id, Entry<'_>)| entry.packed.fields().holds(path);
            let holding = self.known.table(kind).iter().filter(holds).count() as u64;
            evidence.vanishing.push((losing, holding));
            if vanishes(losing, holding) {
                vanishing.insert(path.to_owned());
            }
        }
        let loses = |changed: &&Changed| changed.lost.iter().any(|path| vanishing.contains(path));
        let counted: u64 =
            Kind::BOTH.iter().map(|kind| self[*kind].changed.values().filter(loses).count() as u64).sum();
        let of_active = self.active.lost.iter().filter(|_| vanishing.contains("active"));
        let of_active = of_active.filter(|id| !self[Kind::User].changed.get(*id).as_ref().is_some_and(loses));
        evidence.attribute_losers = counted + of_active.count() as u64;
        vanishing
    }
}
