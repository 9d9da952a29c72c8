//! What became of an account's sync, in words for people and as JSON.

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::failure::Exit;
use crate::directory::{ReasonCode, Status, SyncStatus};
use crate::mapping::text::clean;
use crate::shards::once::Outcome;

/// The account's exit code, if it were alone.
pub fn exit(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Synced { status, .. } => match (status.status, &status.reason_code) {
            (Status::Completed, _) => Exit::Done,
            (Status::Held, _) | (_, None) => Exit::TryLater,
            (_, Some(code)) => Exit::from(code),
        },
        Outcome::Paused { .. } => Exit::TryLater,
        Outcome::Stopped(_) => Exit::Configuration,
        Outcome::Ended(ended) => Exit::from(ended),
        Outcome::Unavailable(error) => Exit::from(error),
    }
}

/// One word for an outcome, and its colour.
fn label(outcome: &Outcome) -> (AnsiColor, &'static str) {
    match outcome {
        Outcome::Synced { status, is_first, .. } => match status.status {
            Status::Completed if status.reason_code == Some(ReasonCode::Repair) => (AnsiColor::Yellow, "repaired"),
            Status::Completed if *is_first => (AnsiColor::Green, "baseline"),
            Status::Completed => (AnsiColor::Green, "completed"),
            Status::Held => (AnsiColor::Yellow, "held"),
            Status::Failed | Status::Running => (AnsiColor::Red, "failed"),
        },
        Outcome::Paused { .. } => (AnsiColor::Yellow, "paused"),
        Outcome::Stopped(_) => (AnsiColor::Red, "stopped"),
        Outcome::Ended(ended) if ended.is_fenced() => (AnsiColor::Yellow, "taken"),
        Outcome::Ended(_) | Outcome::Unavailable(_) => (AnsiColor::Red, "failed"),
    }
}

/// What became of one account, as lines for people. `width`: of the account column.
pub fn lines(name: &str, outcome: &Outcome, width: usize) -> Vec<String> {
    let row = |text: &str| {
        let (color, label) = label(outcome);
        let style = Style::new().fg_color(Some(color.into()));
        format!("{name:width$}  {style}{label:9}{style:#}  {text}")
    };
    let hint = |label: &str, text: &str| format!("{:width$}  {:9}  {label:9} {text}", "", "");
    let mut lines = match outcome {
        Outcome::Synced { status, seconds, is_first } => {
            let reason = status.reason.as_deref().unwrap_or_default();
            match status.status {
                Status::Completed if status.reason_code == Some(ReasonCode::Repair) => vec![
                    row(&completed(status, *seconds, false)),
                    hint(
                        "why:",
                        &format!("{reason}; missing records were written silently, no user or group was removed"),
                    ),
                ],
                Status::Completed => vec![row(&completed(status, *seconds, *is_first))],
                Status::Held => {
                    let hold = status.hold.as_ref().map(ToString::to_string).unwrap_or_default();
                    vec![
                        row(&format!("{reason}. Nothing was published.")),
                        hint("look:", &format!("scimtail plan {name}")),
                        hint("release:", &format!("scimtail release {name} --hold {hold}")),
                    ]
                }
                Status::Failed | Status::Running => vec![row(&format!("sync {}: {reason}", status.sync))],
            }
        }
        Outcome::Paused { by } => {
            vec![row(&format!("by {}", clean(by))), hint("go on:", &format!("scimtail resume {name}"))]
        }
        Outcome::Stopped(reason) => vec![row(&reason.to_string())],
        Outcome::Ended(ended) if ended.is_fenced() => vec![
            row(&ended.reason),
            hint("instead:", &format!("scimtail poll {name} asks the running service to sync now")),
        ],
        Outcome::Ended(ended) => vec![row(&ended.reason)],
        Outcome::Unavailable(error) => vec![row(&error.to_string())],
    };
    if let Outcome::Synced { status, .. } = outcome {
        lines.extend(status.findings.iter().map(|finding| hint("note:", finding)));
    }
    lines
}

/// `sync 118   42 users, 7 groups, 64 memberships   1 change    0.6 s`.
fn completed(status: &SyncStatus, seconds: f64, is_first: bool) -> String {
    let changes = match (status.events_published(), is_first) {
        (0, true) => "state only, no events".to_owned(),
        (events, true) => format!("state, and {events} events marked snapshot"),
        (0, false) => "no change".to_owned(),
        (1, false) => "1 change".to_owned(),
        (changes, false) => format!("{changes} changes"),
    };
    format!("sync {}   {}   {changes}   {seconds:.1} s", status.sync, counts(status))
}

/// What became of one account, for programs. docs/json.md describes the fields.
#[derive(Debug, Serialize)]
pub struct Synced<'a> {
    account: &'a str,
    result: &'static str,
    exit_code: u8,
    sync: Option<i64>,
    users_read: Option<i64>,
    groups_read: Option<i64>,
    memberships_read: Option<i64>,
    removals_suppressed: Option<i64>,
    events_published: Option<i64>,
    seconds: Option<f64>,
    reason_code: Option<&'a str>,
    reason: Option<String>,
    hold_id: Option<String>,
    findings: &'a [String],
}

impl<'a> Synced<'a> {
    pub fn new(account: &'a str, outcome: &'a Outcome) -> Synced<'a> {
        let (status, seconds) = match outcome {
            Outcome::Synced { status, seconds, .. } => (Some(&**status), Some(rounded(*seconds))),
            _ => (None, None),
        };
        let reason = match outcome {
            Outcome::Synced { status, .. } => status.reason.clone(),
            Outcome::Paused { by } => Some(format!("paused by {by}")),
            Outcome::Stopped(problem) => Some(problem.to_string()),
            Outcome::Ended(ended) => Some(ended.reason.clone()),
            Outcome::Unavailable(error) => Some(error.to_string()),
        };
        Synced {
            account,
            result: label(outcome).1,
            exit_code: exit(outcome).code(),
            sync: status.map(|status| status.sync),
            users_read: status.and_then(|status| status.users_read),
            groups_read: status.and_then(|status| status.groups_read),
            memberships_read: status.and_then(|status| status.memberships_read),
            removals_suppressed: status.map(|status| status.removals_suppressed),
            events_published: status.map(SyncStatus::events_published),
            seconds,
            reason_code: status.and_then(|status| status.reason_code.as_ref()).map(ReasonCode::as_str),
            reason,
            hold_id: status.and_then(|status| status.hold.as_ref()).map(ToString::to_string),
            findings: status.map(|status| status.findings.as_slice()).unwrap_or_default(),
        }
    }
}

/// Seconds with three decimals.
pub fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

/// `42 users, 7 groups, 64 memberships`, or `groups not read`.
pub fn counts(status: &SyncStatus) -> String {
    let count = |value: Option<i64>, one: &str| match value {
        Some(1) => format!("1 {one}"),
        Some(value) => format!("{value} {one}s"),
        None => format!("{one}s not read"),
    };
    let mut text = format!(
        "{}, {}, {}",
        count(status.users_read, "user"),
        count(status.groups_read, "group"),
        count(status.memberships_read, "membership")
    );
    if status.removals_suppressed > 0 {
        text.push_str(&format!(", {} missing but not proven gone", status.removals_suppressed));
    }
    text
}
