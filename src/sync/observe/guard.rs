//! The guard looks, and a release covers what it would hold.

use crate::directory::{Evidence, HoldId, Losses, Reason, ReasonCode, guard};
use std::collections::BTreeSet;

use super::observation::Observation;
use crate::account::Account;

pub(super) struct Judgement {
    pub held: Option<(Reason, HoldId)>,
    pub vanishing: BTreeSet<String>,
}

/// Lets the guard look, and a release cover what the guard would hold. The guard does not apply to a
/// first sync: no reader relies on anything yet.
pub(super) fn judge<D>(seen: &Observation<'_, '_, '_, D>) -> Judgement {
    let Observation { account, diff, attempt, .. } = seen;
    let known = diff.known();
    if known.is_first() {
        return Judgement { held: None, vanishing: BTreeSet::new() };
    }
    let limits = &account.limits;
    let mut evidence = diff.evidence();
    if limits.max_added.is_some() {
        evidence.added = diff.additions();
    }
    let vanishes = |losing: u64, holding: u64| losing as f64 > limits.max_ratio * holding as f64;
    let vanishing = diff.vanishing(limits.min_losses, vanishes, &mut evidence);
    let Some(losses) = guard::excess(&evidence, limits) else {
        return Judgement { held: None, vanishing };
    };
    let covered = attempt.release.as_ref().is_some_and(|release| {
        release.hold.base == known.base() && release.left.is_some_and(|left| losses.within(&left))
    });
    if covered {
        return Judgement { held: None, vanishing };
    }
    let reason = Reason::new(ReasonCode::MassChange, in_words(&losses, &evidence, &vanishing, account));
    Judgement { held: Some((reason, HoldId { base: known.base(), losses })), vanishing }
}

fn in_words(losses: &Losses, evidence: &Evidence, vanishing: &BTreeSet<String>, account: &Account) -> String {
    let of = |count: u64, population: u64, what: &str| (count > 0).then(|| format!("{count} of {population} {what}"));
    let parts: Vec<String> = [
        of(losses.users, evidence.users, "users would go"),
        of(losses.groups, evidence.groups, "groups would go"),
        of(losses.memberships, evidence.memberships, "memberships would go"),
        of(losses.disabled, evidence.enabled_users, "users would be disabled"),
        (losses.attributes > 0).then(|| {
            // Paths as the account lists them.
            let paths: Vec<String> = vanishing.iter().map(|path| format!("`{path}`")).collect();
            format!("{} principals would lose an attribute ({})", losses.attributes, paths.join(", "))
        }),
        (losses.added > 0).then(|| {
            let max = account.limits.max_added.unwrap_or_default();
            format!("{} users, groups and memberships would be added (guard.max_added is {max})", losses.added)
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    let limits = &account.limits;
    // 0.07 times 100 is not 7 in binary fractions.
    let percent = (limits.max_ratio * 10_000.0).round() / 100.0;
    let (from, losses) = (limits.min_losses, if limits.min_losses == 1 { "loss" } else { "losses" });
    format!("{}; the limit is {percent} % (from {from} {losses}) or {}", parts.join(", "), limits.max_absolute)
}
