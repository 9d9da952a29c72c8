//! What became of an account's sync, in words for people.

use crate::directory::{ReasonCode, Status, SyncStatus};
use anstyle::{AnsiColor, Style};

use super::failure::Exit;
use crate::mapping::text::clean;
use crate::service::ServiceError;
use crate::shards::once::Outcome;

/// Held and failed syncs are worth another try. An account that needs a person is graver.
pub fn exit(outcome: &Outcome) -> Exit {
    match outcome {
        Outcome::Synced { status, .. } if status.status == Status::Completed => Exit::Done,
        Outcome::Synced { .. } | Outcome::Paused { .. } | Outcome::Ended(_) => Exit::TryLater,
        Outcome::Unavailable(ServiceError::Unreachable(_) | ServiceError::Cancelled(_)) => Exit::Unreachable,
        Outcome::Unavailable(ServiceError::Refused(_)) | Outcome::Stopped(_) => Exit::Configuration,
    }
}

/// What became of one account, as lines for people. `width`: of the account column.
pub fn lines(name: &str, outcome: &Outcome, width: usize) -> Vec<String> {
    let row = |color: AnsiColor, label: &str, text: String| {
        let style = Style::new().fg_color(Some(color.into()));
        format!("{name:width$}  {style}{label:9}{style:#}  {text}")
    };
    let hint = |label: &str, text: String| format!("{:width$}  {:9}  {label:9} {text}", "", "");
    let notes =
        |status: &SyncStatus| status.findings.iter().map(|finding| hint("note:", finding.clone())).collect::<Vec<_>>();
    let mut lines = match outcome {
        Outcome::Synced { status, seconds } => match status.status {
            Status::Completed if status.reason_code == Some(ReasonCode::Repair) => {
                let reason = status.reason.clone().unwrap_or_default();
                vec![
                    row(AnsiColor::Yellow, "repaired", completed(status, *seconds)),
                    hint(
                        "why:",
                        format!("{reason}; missing records were written silently, no user or group was removed"),
                    ),
                ]
            }
            Status::Completed => vec![row(AnsiColor::Green, "completed", completed(status, *seconds))],
            Status::Held => {
                let reason = status.reason.clone().unwrap_or_default();
                let hold = status.hold.as_ref().map(ToString::to_string).unwrap_or_default();
                vec![
                    row(AnsiColor::Yellow, "held", format!("{reason}. Nothing was published.")),
                    hint("look:", format!("scimtail plan {name}")),
                    hint("release:", format!("scimtail release {name} --hold {hold}")),
                ]
            }
            Status::Failed | Status::Running => {
                let reason = status.reason.clone().unwrap_or_default();
                vec![row(AnsiColor::Red, "failed", format!("sync {}: {reason}", status.sync))]
            }
        },
        Outcome::Paused { by } => vec![
            row(AnsiColor::Yellow, "paused", format!("by {}", clean(by))),
            hint("go on:", format!("scimtail resume {name}")),
        ],
        Outcome::Stopped(reason) => vec![row(AnsiColor::Red, "stopped", reason.to_string())],
        Outcome::Ended(ended) if ended.is_fenced() => vec![
            row(AnsiColor::Yellow, "taken", ended.reason.clone()),
            hint("instead:", format!("scimtail poll {name} asks the running service to sync now")),
        ],
        Outcome::Ended(ended) => vec![row(AnsiColor::Red, "failed", ended.reason.clone())],
        Outcome::Unavailable(error) => vec![row(AnsiColor::Red, "failed", error.to_string())],
    };
    if let Outcome::Synced { status, .. } = outcome {
        lines.extend(notes(status));
    }
    lines
}

/// `sync 118   42 users, 7 groups, 64 memberships   1 change    0.6 s`.
fn completed(status: &SyncStatus, seconds: f64) -> String {
    let changes = match status.events_published() {
        0 => "no change".to_owned(),
        1 => "1 change".to_owned(),
        changes => format!("{changes} changes"),
    };
    format!("sync {}   {}   {changes}   {seconds:.1} s", status.sync, counts(status))
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
