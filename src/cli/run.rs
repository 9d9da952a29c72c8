//! `run`: the service, or one round with `--once`.

use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{CONFIGURATION, DONE, FAILED, Failure, TRY_LATER, UNREACHABLE, account_width, print, services};
use crate::config::follow::{Followed, LOOK_EVERY};
use crate::config::{AccountConfig, Config};
use crate::directory::{REPAIR, Status, SyncStatus};
use crate::http;
use crate::kafka::read::Progress;
use crate::service::ServiceError;
use crate::shards::assignment;
use crate::shards::once::{self, Outcome};

/// From the signal to the end, whatever hangs.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(8);

#[derive(Debug, Args)]
pub struct Options {
    /// Sync every account once and end
    #[arg(long)]
    pub once: bool,
    /// Only these accounts
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
}

/// # Errors
/// What the person should read, and the exit code.
pub async fn run(file: &Path, options: Options) -> Result<u8, Failure> {
    let config = &Config::load(file)?;
    let accounts = config.select(&options.accounts)?;
    if options.once {
        let mut outcomes = once::run(&services(config).await?, accounts.clone(), restoring).await;
        let mut worst = DONE;
        for account in &accounts {
            let name = &account.account.name;
            let outcome =
                outcomes.remove(name).unwrap_or_else(|| Outcome::Stopped("the sync ended unexpectedly".into()));
            worst = worst.max(code(&outcome));
            for line in lines(name, &outcome, account_width(config)) {
                print(&line)?;
            }
        }
        return Ok(worst);
    }
    // Before anything that takes time: until then a signal ends the process.
    let failed = |error: std::io::Error| Failure::new(FAILED, format!("signals cannot be handled: {error}"));
    let hangup = signal(SignalKind::hangup()).map_err(failed)?;
    // Before anything is counted, and a refused address is known before anything is owned.
    let mut beside = match config.http_listen {
        Some(address) => http::listen(address).await.map_err(|reason| Failure::new(CONFIGURATION, reason))?,
        None => JoinSet::new(),
    };
    let services = services(config).await?;
    if !options.accounts.is_empty() {
        warn!("--account: other accounts of the shards that are assigned to this instance are synced by nobody");
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let shutdown = CancellationToken::new();
    info!(group = config.kafka.topic_prefix, accounts = accounts.len(), "running; SIGTERM or Ctrl-C ends it");
    let (configured, accounts) = watch::channel(accounts);
    beside.spawn(follow(Followed::new(file, config, &options.accounts), hangup, configured));
    let service = assignment::run(services, accounts, shutdown.clone(), fastrand::Rng::new());
    tokio::pin!(service);
    tokio::select! {
        ended = &mut service => return Ok(ended.map(|()| DONE)?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    shutdown.cancel();
    match tokio::time::timeout(SHUTDOWN_WAIT, service).await {
        Ok(ended) => ended?,
        Err(_) => warn!("a shard did not stop in time; its open transaction is resolved at the next start"),
    }
    Ok(DONE)
}

/// Tells the service what the files say: by looks, and on SIGHUP at once.
async fn follow(mut followed: Followed, mut hangup: Signal, service: watch::Sender<Vec<AccountConfig>>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            _ = looks.tick() => false,
        };
        // Files may lie where reading takes long; the service goes on.
        let looked = tokio::task::spawn_blocking(move || {
            let accounts = if asked { Some(followed.now()) } else { followed.look() };
            (followed, accounts)
        });
        let Ok((back, accounts)) = looked.await else {
            error!("the configuration is no longer followed; → restart scimtail");
            return;
        };
        followed = back;
        match accounts {
            Some(Ok(accounts)) => drop(service.send_replace(accounts)),
            Some(Err(error)) => error!(reason = error.0, "the configuration stays as it was"),
            None => {}
        }
    }
}

fn restoring(partition: i32) -> impl FnMut(Progress) + Send + use<> {
    super::progress(&format!("restoring shard {partition}"))
}

/// Held and failed syncs are worth another try; what a person has to mend is worse.
fn code(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Synced { status, .. } if status.status == Status::Completed => DONE,
        Outcome::Synced { .. } | Outcome::Paused { .. } | Outcome::Ended(_) => TRY_LATER,
        Outcome::Unavailable(ServiceError::Unreachable(_) | ServiceError::Cancelled(_)) => UNREACHABLE,
        Outcome::Unavailable(ServiceError::Refused(_)) | Outcome::Stopped(_) => CONFIGURATION,
    }
}

/// What became of one account, as people read it.
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
            Status::Completed if status.reason_code.as_deref() == Some(REPAIR) => {
                let reason = status.reason.clone().unwrap_or_default();
                vec![
                    row(AnsiColor::Yellow, "repaired", completed(status, *seconds)),
                    hint("why:", format!("{reason}; what was missing was written silently, nobody was removed")),
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
            row(AnsiColor::Yellow, "paused", format!("by {}", crate::mapping::text::clean(by))),
            hint("go on:", format!("scimtail resume {name}")),
        ],
        Outcome::Stopped(reason) => vec![row(AnsiColor::Red, "stopped", reason.to_string())],
        Outcome::Ended(ended) if ended.fenced => vec![
            row(AnsiColor::Yellow, "taken", ended.reason.clone()),
            hint("a service", "seems to run: scimtail poll asks it to sync now".to_owned()),
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
pub fn completed(status: &SyncStatus, seconds: f64) -> String {
    let changes = match (status.events_published(), status.sync) {
        (0, _) => "no change".to_owned(),
        (1, _) => "1 change".to_owned(),
        (changes, _) => format!("{changes} changes"),
    };
    format!("sync {}   {}   {changes}   {seconds:.1} s", status.sync, counts(status))
}

/// `42 users, 7 groups, 64 memberships`; what was not read says so.
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
