//! `run`: the service, or one round with `--once`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::failure::{Exit, Failure};
use super::outcome::{Synced, exit, lines};
use super::output::{Format, account_width, print, print_document, progress};
use super::services::services;
use crate::config::follow::{Followed, LOOK_EVERY};
use crate::config::{AccountConfig, Config, HttpConfig};
use crate::connect;
use crate::http::{self, ReadToken};
use crate::kafka::client::librdkafka_version;
use crate::kafka::read::Progress;
use crate::memory;
use crate::page::{self, Sources};
use crate::progress::Board;
use crate::schedule::now_millis;
use crate::shards::once::{self, Outcome};
use crate::shards::outage;
use crate::shards::{Services, assignment};
use crate::telemetry;

/// From the signal to the end of the process, even if something hangs.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(8);

#[derive(Debug, Args)]
pub struct Options {
    /// Sync every account once and end
    #[arg(long)]
    pub once: bool,
    /// Only these accounts
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// With --once: form of the output
    #[arg(long, value_enum, default_value = "text", requires = "once")]
    format: Format,
    /// End when standard input is closed: a service that `demo` starts ends with it, however that ends
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

/// What `run --once` did, for programs.
#[derive(Debug, Serialize)]
struct Document<'a> {
    accounts: Vec<Synced<'a>>,
    exit_code: u8,
}

/// Runs the service until a signal ends it, or one sync of each account.
///
/// # Errors
/// The service cannot start, or an error ended it.
pub async fn run(file: &Path, options: Options) -> Result<Exit, Failure> {
    let config = &Config::load(file)?;
    let accounts = config.select(&options.accounts)?;
    if options.once {
        return once(config, accounts, options.format).await;
    }
    // Before anything that takes time, because until then SIGHUP ends the process.
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, format!("signals cannot be handled: {error}"));
    let hangup = signal(SignalKind::hangup()).map_err(failed)?;
    // Before anything is counted. A refused address is reported before this instance owns a shard.
    // Not ready before Kafka has answered.
    let (answers, ready) = watch::channel(false);
    let (configured, accounts) = watch::channel(accounts);
    let progress = Board::default();
    let mut tasks = match &config.http {
        Some(HttpConfig { listen, token }) => {
            let (pages, forgetting) = page::routes(Sources {
                kafka: config.kafka.clone(),
                registry: connect::registry(&config.registry)?,
                accounts: accounts.clone(),
                progress: progress.clone(),
                clock: now_millis,
            });
            let token = token.clone().map(|token| ReadToken(Arc::new(move || token.read())));
            let listening = http::listen(*listen, token, ready, pages).await;
            let mut tasks = listening.map_err(|problem| Failure::new(Exit::Configuration, problem))?;
            tasks.spawn(forgetting);
            tasks
        }
        None => JoinSet::new(),
    };
    telemetry::built_from(&librdkafka_version());
    let services = Services { progress, ..services(config).await? };
    tasks.spawn(memory::keep_giving_back());
    tasks.spawn(outage::of_kafka(services.kafka.clone(), answers));
    tasks.spawn(outage::of_registry(services.registry.clone()));
    if !options.accounts.is_empty() {
        warn!("--account: no instance syncs the other accounts of the shards that are assigned to this one");
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let shutdown = CancellationToken::new();
    info!(group = config.kafka.topic_prefix, accounts = accounts.borrow().len(), "running; SIGTERM or Ctrl-C ends it");
    tasks.spawn(follow(Followed::new(file, config, &options.accounts), hangup, configured));
    let service = assignment::run(services, accounts, shutdown.clone(), fastrand::Rng::new());
    tokio::pin!(service);
    tokio::select! {
        ended = &mut service => return Ok(ended.map(|()| Exit::Done)?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_closed(), if options.end_with_stdin => {}
    }
    info!("stopping");
    shutdown.cancel();
    match tokio::time::timeout(SHUTDOWN_WAIT, service).await {
        Ok(ended) => ended?,
        Err(_) => warn!("a shard did not stop in time; its open transaction is resolved at the next start"),
    }
    Ok(Exit::Done)
}

async fn stdin_closed() {
    // An error is an end too.
    drop(tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await);
}

/// One sync of each account.
async fn once(config: &Config, accounts: Vec<Arc<AccountConfig>>, format: Format) -> Result<Exit, Failure> {
    let mut outcomes = once::run(&services(config).await?, accounts.clone(), restoring).await;
    let unexpected = || Outcome::Stopped("the sync ended unexpectedly".into());
    let outcomes: Vec<(&str, Outcome)> = accounts
        .iter()
        .map(|config| config.account.name.as_str())
        .map(|name| (name, outcomes.remove(name).unwrap_or_else(unexpected)))
        .collect();
    let worst = outcomes.iter().fold(Exit::Done, |worst, (_, outcome)| worst.or(exit(outcome)));
    match format {
        Format::Json => {
            let accounts = outcomes.iter().map(|(name, outcome)| Synced::new(name, outcome)).collect();
            print_document(&Document { accounts, exit_code: worst.code() })?;
        }
        Format::Text => {
            for (name, outcome) in &outcomes {
                lines(name, outcome, account_width(config)).iter().try_for_each(|line| print(line))?;
            }
        }
    }
    Ok(worst)
}

/// Sends the service the accounts that the files configure. Looks at the files periodically, and at once on SIGHUP.
async fn follow(mut followed: Followed, mut hangup: Signal, service: watch::Sender<Vec<Arc<AccountConfig>>>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            _ = looks.tick() => false,
        };
        // Reading may take long, e.g. from a network file system. The service goes on meanwhile.
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

/// The progress bar of the restore of one shard.
fn restoring(partition: i32) -> impl FnMut(Progress) + Send + use<> {
    progress(&format!("restoring shard {partition}"))
}
