//! The mass-change guard: more loss than a directory usually has in one interval is held
//! until a person looked.

use std::fmt;

/// What a sync would take away, kind by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    pub users: u64,
    pub groups: u64,
    /// Apart from those that go with a removed principal.
    pub memberships: u64,
    pub disabled: u64,
    /// Principals that would lose a value in a vanishing attribute; 0 unless that rule held.
    pub attributes: u64,
    /// Users, groups and memberships that would be added; 0 unless `max_added` held.
    pub added: u64,
}

impl Losses {
    fn all(&self) -> [u64; 6] {
        [self.users, self.groups, self.memberships, self.disabled, self.attributes, self.added]
    }

    /// True where every count of `self` is within the counts of `limit`.
    pub fn within(&self, limit: &Losses) -> bool {
        self.all().iter().zip(limit.all()).all(|(count, limit)| *count <= limit)
    }

    /// What is left of a release after `published` went out.
    pub fn less(&self, published: &Losses) -> Losses {
        Losses {
            users: self.users.saturating_sub(published.users),
            groups: self.groups.saturating_sub(published.groups),
            memberships: self.memberships.saturating_sub(published.memberships),
            disabled: self.disabled.saturating_sub(published.disabled),
            attributes: self.attributes.saturating_sub(published.attributes),
            added: self.added.saturating_sub(published.added),
        }
    }
}

/// What a hold lets through once released: the completed sync it was computed on, and the counts.
/// Written `118-u31-g0-m77-d0-a0`, with `-n500` behind it if additions are held as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldId {
    /// Number of the last completed sync: the base of the held batch.
    pub base: i64,
    pub losses: Losses,
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Losses { users, groups, memberships, disabled, attributes, added } = self.losses;
        write!(f, "{}-u{users}-g{groups}-m{memberships}-d{disabled}-a{attributes}", self.base)?;
        if added > 0 { write!(f, "-n{added}") } else { Ok(()) }
    }
}

impl HoldId {
    /// The inverse of `Display`; `None` for anything else.
    pub fn parse(text: &str) -> Option<HoldId> {
        let mut parts = text.split('-');
        let base = parts.next()?.parse().ok()?;
        let mut count = |letter: char| parts.next()?.strip_prefix(letter)?.parse().ok();
        let losses = Losses {
            users: count('u')?,
            groups: count('g')?,
            memberships: count('m')?,
            disabled: count('d')?,
            attributes: count('a')?,
            added: 0,
        };
        let added = match parts.next() {
            None => 0,
            Some(added) => added.strip_prefix('n')?.parse().ok()?,
        };
        let losses = Losses { added, ..losses };
        parts.next().is_none().then_some(HoldId { base, losses })
    }
}

/// Configured limits of the guard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Share of a kind's population, 0 to 1.
    pub max_ratio: f64,
    /// Below this many losses the ratio does not apply.
    pub min_losses: u64,
    pub max_absolute: u64,
    /// More additions than this are held as well; `None`: additions never are.
    pub max_added: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_ratio: 0.2, min_losses: 5, max_absolute: 500, max_added: None }
    }
}

impl Limits {
    fn exceeded(&self, losses: u64, population: u64) -> bool {
        losses > self.max_absolute || self.share_exceeded(losses, population)
    }

    fn share_exceeded(&self, losses: u64, population: u64) -> bool {
        losses >= self.min_losses && losses as f64 > self.max_ratio * population as f64
    }
}

/// Everything the guard looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    pub losses: Losses,
    /// Known users, groups, memberships, and users not yet disabled: what the losses are measured against.
    pub users: u64,
    pub groups: u64,
    pub memberships: u64,
    pub enabled_users: u64,
    /// At least one user was known, and no known user is seen again; likewise groups.
    pub no_user_again: bool,
    pub no_group_again: bool,
    /// Attributes that principals lose: (losing, holding) per attribute.
    pub vanishing: Vec<(u64, u64)>,
    /// Distinct principals that lose a value in an attribute for which the rule holds.
    pub attribute_losers: u64,
    /// Users, groups and memberships that are news.
    pub added: u64,
}

/// Returns what has to be held, or `None` where the batch may go out.
pub fn excess(evidence: &Evidence, limits: &Limits) -> Option<Losses> {
    let Losses { users, groups, memberships, disabled, .. } = evidence.losses;
    let vanishing = evidence.vanishing.iter().any(|(losing, holding)| limits.share_exceeded(*losing, *holding));
    let held = limits.exceeded(users, evidence.users)
        || limits.exceeded(groups, evidence.groups)
        || limits.exceeded(memberships, evidence.memberships)
        || limits.exceeded(disabled, evidence.enabled_users)
        // However few: a wrong token on a small account looks exactly like this.
        || evidence.no_user_again
        || evidence.no_group_again
        || vanishing;
    let flooded = limits.max_added.is_some_and(|max| evidence.added > max);
    let attributes = if vanishing { evidence.attribute_losers } else { 0 };
    let added = if flooded { evidence.added } else { 0 };
    (held || flooded).then_some(Losses { attributes, added, ..evidence.losses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(change: impl FnOnce(&mut Evidence)) -> bool {
        let mut evidence =
            Evidence { users: 100, groups: 100, memberships: 100, enabled_users: 100, ..Evidence::default() };
        change(&mut evidence);
        excess(&evidence, &Limits::default()).is_some()
    }

    #[test]
    fn a_fifth_passes_and_more_is_held_for_each_kind_by_itself() {
        assert!(!held(|e| e.losses.users = 20));
        assert!(held(|e| e.losses.users = 21));
        assert!(held(|e| e.losses.groups = 21));
        assert!(held(|e| e.losses.memberships = 21));
        assert!(held(|e| e.losses.disabled = 21));
        assert!(!held(
            |e| e.losses = Losses { users: 20, groups: 20, memberships: 20, disabled: 20, ..Losses::default() }
        ));
    }

    #[test]
    fn few_losses_pass_in_a_small_directory_unless_it_is_empty() {
        assert!(!held(|e| (e.users, e.losses.users) = (6, 4)));
        assert!(held(|e| (e.users, e.losses.users) = (6, 5)));
        assert!(held(|e| (e.users, e.losses.users, e.no_user_again) = (2, 2, true)));
    }

    #[test]
    fn a_large_directory_has_an_absolute_limit() {
        assert!(!held(|e| (e.users, e.losses.users) = (1_000_000, 500)));
        assert!(held(|e| (e.users, e.losses.users) = (1_000_000, 501)));
    }

    #[test]
    fn a_flood_of_additions_is_held_only_where_a_limit_says_so() {
        let evidence = Evidence { added: 501, ..Evidence::default() };
        assert_eq!(excess(&evidence, &Limits::default()), None);
        let limits = Limits { max_added: Some(500), ..Limits::default() };
        assert_eq!(excess(&evidence, &limits), Some(Losses { added: 501, ..Losses::default() }));
        assert_eq!(excess(&Evidence { added: 500, ..Evidence::default() }, &limits), None);
    }

    #[test]
    fn a_vanishing_attribute_is_held_and_counts_its_losers() {
        let evidence = Evidence { vanishing: vec![(30, 100)], attribute_losers: 30, users: 100, ..Evidence::default() };
        assert_eq!(excess(&evidence, &Limits::default()), Some(Losses { attributes: 30, ..Losses::default() }));
        let few = Evidence { vanishing: vec![(20, 100)], attribute_losers: 20, users: 100, ..Evidence::default() };
        assert_eq!(excess(&few, &Limits::default()), None);
    }

    #[test]
    fn a_hold_id_reads_back_and_anything_else_is_refused() {
        let losses = Losses { users: 31, groups: 0, memberships: 77, disabled: 0, ..Losses::default() };
        let id = HoldId { base: 118, losses };
        assert_eq!(id.to_string(), "118-u31-g0-m77-d0-a0");
        assert_eq!(HoldId::parse("118-u31-g0-m77-d0-a0"), Some(id));
        let flood = HoldId { base: 118, losses: Losses { added: 500, ..Losses::default() } };
        assert_eq!(HoldId::parse("118-u0-g0-m0-d0-a0-n500"), Some(flood));
        for text in [
            "",
            "118",
            "118-u0-g0-m0-d0-a0-n",
            "118-u0-g0-m0-d0-a0-n1-n2",
            "118-u31",
            "118-u31-g0-m77-d0-a0-x",
            "x-u1-g0-m0-d0-a0",
            "118-g0-u31-m77-d0-a0",
        ] {
            assert_eq!(HoldId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_release_covers_what_is_within_its_counts() {
        let released = Losses { users: 31, memberships: 77, ..Losses::default() };
        assert!(Losses { users: 30, memberships: 77, ..Losses::default() }.within(&released));
        assert!(!Losses { users: 31, groups: 1, ..Losses::default() }.within(&released));
        let left = released.less(&Losses { users: 30, ..Losses::default() });
        assert_eq!(left, Losses { users: 1, memberships: 77, ..Losses::default() });
    }
}
