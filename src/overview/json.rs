//! How accounts stand, for programs: `status --format json`, and `/status` of the HTTP listener.

use serde_json::{Value, json};

use super::standing::{Owner, Standing};
use crate::directory::Losses;

/// One object. Times are RFC 3339 in UTC, `null` if they are not known.
pub fn json(standing: &Standing) -> Value {
    let counts = standing.counts;
    json!({
        "account": standing.account,
        "provider": standing.provider,
        "status": standing.label.as_str().to_lowercase(),
        "needs_person": standing.needs_person,
        "sync": standing.sync,
        "completed_sync": standing.completed.map(|(sync, _)| sync),
        "completed_at": standing.completed.map(|(_, at)| time(at)),
        "next_at": standing.next_at.map(time),
        "users": counts.and_then(|counts| counts.users),
        "groups": counts.and_then(|counts| counts.groups),
        "memberships": counts.and_then(|counts| counts.memberships),
        "owner": standing.owner.host(),
        "owner_known": standing.owner != Owner::Unknown,
        "reason_code": standing.reason_code.as_ref().map(|code| code.as_str()),
        "reason": standing.reason,
        "hold_id": standing.hold.as_ref().map(ToString::to_string),
        "hold": standing.hold.as_ref().map(|hold| losses(&hold.losses)),
        "commands": standing.steps.iter().map(|step| &step.command).collect::<Vec<_>>(),
        "findings": standing.findings,
        "not_included": standing.not_included,
    })
}

fn losses(losses: &Losses) -> Value {
    let Losses { users, groups, memberships, disabled, attributes, added } = losses;
    json!({
        "users_removed": users,
        "groups_removed": groups,
        "memberships_removed": memberships,
        "users_disabled": disabled,
        "attributes_lost": attributes,
        "added": added,
    })
}

/// `2026-11-21T12:00:00Z`. `millis` since 1970-01-01 UTC.
fn time(millis: i64) -> String {
    format!("{:.0}", jiff::Timestamp::from_millisecond(millis).unwrap_or_default())
}
