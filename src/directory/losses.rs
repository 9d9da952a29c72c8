//! What a sync would take away, for the guard to judge.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::changes::EventType;
use super::diff::{Changed, Diff, of};
use super::guard::{Evidence, Losses};
use super::known::Entry;
use super::memberships;
use super::principal::{Id, Kind};

impl Diff<'_> {
    /// What the guard looks at, with everything missing taken for lost.
    pub fn evidence(&self) -> Evidence {
        let known = self.known;
        let [no_user_again, no_group_again] = Kind::BOTH.map(|kind| self.nobody_again(kind));
        // Where nobody is seen again, everybody is at stake, whatever it takes to lose them.
        let at_stake =
            |kind: Kind, nobody_again: bool| if nobody_again { self.missing(kind) } else { self.losing(kind) };
        let missing_users = at_stake(Kind::User, no_user_again);
        let missing_groups = at_stake(Kind::Group, no_group_again);
        let gone = |kind| self.gone.keys().filter(|(of, _)| *of == kind).count();
        let lost = |kind, missing: &[Id]| (missing.len() + gone(kind)) as u64;
        let missing: HashSet<(Kind, &Id)> = missing_users
            .iter()
            .map(|id| (Kind::User, id))
            .chain(missing_groups.iter().map(|id| (Kind::Group, id)))
            .collect();
        let memberships = if self.memberships_are_known() {
            self.groups_read
                .iter()
                .map(|(group, read)| {
                    let lost = memberships::lost(self, group, read).into_iter();
                    let lost = lost.filter(|member| memberships::agreed(self, read, member));
                    lost.filter(|member| !missing.contains(&(member.kind, &member.id))).count()
                })
                .sum::<usize>() as u64
        } else {
            0
        };
        let disabled = of(&self.changed, Kind::User)
            .values()
            .flat_map(|changed| &changed.events)
            .filter(|event| event.event_type == EventType::UserDisabled)
            .count() as u64;
        let losses = Losses {
            users: lost(Kind::User, &missing_users),
            groups: lost(Kind::Group, &missing_groups),
            memberships,
            disabled,
            attributes: 0,
        };
        Evidence {
            losses,
            users: known.table(Kind::User).len() as u64,
            groups: known.table(Kind::Group).len() as u64,
            memberships: known.memberships_len() as u64,
            enabled_users: self.enabled_users(disabled),
            no_user_again,
            no_group_again,
            ..Evidence::default()
        }
    }

    /// Known users that are not disabled; counted only where a disable makes it matter.
    fn enabled_users(&self, disabled: u64) -> u64 {
        let users = self.known.table(Kind::User);
        if disabled == 0 {
            return users.len() as u64;
        }
        users.iter().filter(|(id, entry)| entry.packed.unpack((*id).clone()).active != Some(false)).count() as u64
    }

    /// Adds to `evidence` which attributes vanish, given that fewer than `min_losses` losers never matter.
    /// Returns the paths for which `vanishes(losing, holding)` holds.
    pub fn vanishing(
        &self,
        min_losses: u64,
        vanishes: impl Fn(u64, u64) -> bool,
        evidence: &mut Evidence,
    ) -> BTreeSet<String> {
        let mut losers: HashMap<(Kind, &str), u64> = HashMap::new();
        for kind in Kind::BOTH {
            for path in of(&self.changed, kind).values().flat_map(|changed| &changed.lost) {
                *losers.entry((kind, path)).or_default() += 1;
            }
        }
        let mut vanishing = BTreeSet::new();
        for ((kind, path), losing) in losers.into_iter().filter(|(_, losing)| *losing >= min_losses.max(1)) {
            let holds = |(id, entry): &(&Id, &Entry)| entry.packed.unpack((*id).clone()).compared().contains_key(path);
            let holding = self.known.table(kind).iter().filter(holds).count() as u64;
            evidence.vanishing.push((losing, holding));
            if vanishes(losing, holding) {
                vanishing.insert(path.to_owned());
            }
        }
        let loses = |changed: &&Changed| changed.lost.iter().any(|path| vanishing.contains(path));
        evidence.attribute_losers =
            Kind::BOTH.iter().map(|kind| of(&self.changed, *kind).values().filter(loses).count() as u64).sum();
        vanishing
    }
}
