//! A plan as JSON. docs/json.md describes the fields.

use serde::Serialize;

use super::one::{Contents, Plan, Tally, Unplanned};
use crate::avro::wire::{AttributeChange, ChangeEvent};
use crate::cli::outcome::rounded;

#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub accounts: Vec<Entry>,
    pub total: Tally,
    pub exit_code: u8,
}

/// The plan for one account.
#[derive(Debug, Default, Serialize)]
pub(super) struct Entry {
    account: String,
    /// `planned`, `held` or `failed`.
    result: &'static str,
    exit_code: u8,
    users_read: Option<i64>,
    groups_read: Option<i64>,
    memberships_read: Option<i64>,
    removals_suppressed: Option<i64>,
    seconds: Option<f64>,
    baseline: Option<Contents>,
    total: Tally,
    changes: Vec<Change>,
    silent_rewrites: usize,
    repair: Option<String>,
    reason_code: Option<String>,
    reason: Option<String>,
    remedy: Option<String>,
    hold_id: Option<String>,
    findings: Vec<String>,
}

/// What one event would say. Its fields have the names and meanings of the published event.
#[derive(Debug, Serialize)]
struct Change {
    event_type: String,
    principal_type: String,
    principal_id: String,
    principal_name: Option<String>,
    group_id: Option<String>,
    group_name: Option<String>,
    entitlement_domain: Option<String>,
    entitlement_kind: Option<String>,
    entitlement_name: Option<String>,
    removal_reason: Option<String>,
    removal_means: Option<String>,
    snapshot: bool,
    privileges: Vec<String>,
    changes: Vec<AttributeChange>,
}

impl Change {
    fn of(event: &ChangeEvent) -> Change {
        let event = event.clone();
        Change {
            event_type: event.event_type,
            principal_type: event.principal_type,
            principal_id: event.principal_id,
            principal_name: event.principal_name,
            group_id: event.group_id,
            group_name: event.group_name,
            entitlement_domain: event.entitlement_domain,
            entitlement_kind: event.entitlement_kind,
            entitlement_name: event.entitlement_name,
            removal_reason: event.removal_reason,
            removal_means: event.removal_means,
            snapshot: event.snapshot,
            privileges: event.privileges,
            changes: event.changes,
        }
    }
}

impl Entry {
    pub(super) fn of(account: &str, plan: &Plan) -> Entry {
        let attempt = &plan.attempt;
        let held = plan.held.as_ref();
        let problem = held.map(|(_, reason)| &reason.problem);
        Entry {
            account: account.to_owned(),
            result: if held.is_some() { "held" } else { "planned" },
            exit_code: plan.exit().code(),
            users_read: attempt.users_read,
            groups_read: attempt.groups_read,
            memberships_read: attempt.memberships_read,
            removals_suppressed: Some(attempt.removals_suppressed),
            seconds: Some(rounded(plan.seconds)),
            baseline: plan.baseline,
            total: Tally::of(&plan.events),
            changes: plan.events.iter().map(Change::of).collect(),
            silent_rewrites: plan.silent_rewrites(),
            repair: plan.known.repair.clone(),
            reason_code: held.map(|(_, reason)| reason.code.to_string()),
            reason: problem.map(|problem| problem.what.clone()),
            remedy: problem.and_then(|problem| problem.remedy.clone()),
            hold_id: held.map(|(hold, _)| hold.to_string()),
            findings: attempt.findings.clone(),
        }
    }

    pub(super) fn failed(account: &str, Unplanned { failure, code }: &Unplanned) -> Entry {
        let problem = failure.problem.as_ref();
        Entry {
            account: account.to_owned(),
            result: "failed",
            exit_code: failure.exit.code(),
            reason_code: code.as_ref().map(ToString::to_string),
            reason: problem.map(|problem| problem.what.clone()),
            remedy: problem.and_then(|problem| problem.remedy.clone()),
            ..Entry::default()
        }
    }
}
