//! `plan`: what a sync would publish. Reads Kafka and the directory, writes nothing, owns no shard.

use crate::directory::{Baseline, Changes, Kind, Known, ReasonCode, StateWrite, SyncStatus};
use clap::Args;
use tracing::Instrument;

use super::failure::{Exit, Failure};
use super::outcome::counts;
use super::output::print;
use super::read::read_state;
use crate::avro::{EventContext, wire::ChangeEvent};
use crate::config::{AccountConfig, Config};
use crate::connect::{self, Connection};
use crate::kafka::topics::{Found, found};
use crate::log::Topic;
use crate::mapping::text;
use crate::schedule::now_millis;
use crate::shards::spans;
use crate::sync::{self, Planned};

#[derive(Debug, Args)]
pub struct Options {
    /// Accounts to plan for [default: all]
    accounts: Vec<String>,
}

pub async fn plan(config: &Config, options: Options) -> Result<Exit, Failure> {
    let accounts = config.select(&options.accounts)?;
    let many = accounts.len() > 1;
    let mut worst = Exit::Done;
    for account in accounts {
        if many {
            print(&format!("{}  {}", account.account.name, account.base_url))?;
        }
        match plan_one(config, &account).instrument(spans::account(&account.account.name)).await {
            Ok(exit) => worst = worst.max(exit),
            // One account that cannot be planned does not stop the others.
            Err(failure) if many && failure.problem.is_some() => {
                failure.say();
                worst = worst.max(failure.exit);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(worst)
}

async fn plan_one(config: &Config, account: &AccountConfig) -> Result<Exit, Failure> {
    let known = known(config, account).await?;
    let started = tokio::time::Instant::now();
    let directory = Connection::new(account, now_millis)
        .directory()
        .map_err(|error| Failure::new(Exit::Configuration, error.problem))?;
    let planned = sync::plan(&account.account, &directory, &known, now_millis).await;
    let seconds = started.elapsed().as_secs_f64();
    match planned {
        Planned::Changes(attempt, changes) => {
            show(account, &known, &attempt, &changes, seconds)?;
            Ok(Exit::Done)
        }
        Planned::Held(attempt, hold, reason, changes) => {
            show(account, &known, &attempt, &changes, seconds)?;
            print(&format!("held: {}. A sync would publish nothing.", reason.problem))?;
            print(&format!("release: scimtail release {} --hold {hold}", account.account.name))?;
            Ok(Exit::TryLater)
        }
        Planned::Failed(reason) => {
            let exit = if reason.code == ReasonCode::Unreachable { Exit::Unreachable } else { Exit::Failed };
            Err(Failure::new(exit, reason.problem.of(&account.account.name)))
        }
    }
}

/// What Kafka holds of the account; nothing if the topics do not exist yet.
async fn known(config: &Config, account: &AccountConfig) -> Result<Known, Failure> {
    if found(&config.kafka).await?.topics.iter().all(|topic| *topic == Found::Missing) {
        let mut known = Known::default();
        known.latest = Some(SyncStatus::initial(account.account.settings(), 0));
        return Ok(known);
    }
    read_state(&config.kafka, &connect::registry(&config.registry)?, &account.account).await
}

fn show(
    account: &AccountConfig,
    known: &Known,
    attempt: &SyncStatus,
    changes: &Changes,
    seconds: f64,
) -> Result<(), Failure> {
    if let Some(reason) = &known.repair {
        print(&format!("in repair: {reason}; missing records are written silently, no user or group is removed"))?;
    }
    print(&format!("read {} in {seconds:.1} s", counts(attempt)))?;
    for finding in &attempt.findings {
        print(&format!("note: {finding}"))?;
    }
    let context = EventContext::new(&account.account, known, attempt);
    let mut sequence = attempt.sequence;
    let events: Vec<ChangeEvent> =
        changes.units.iter().flat_map(|unit| context.change_events(known, unit, &mut sequence)).collect();
    for event in &events {
        print(&text::planned(event))?;
    }
    let silent = changes.units.iter().filter(|unit| unit.events.is_empty()).count();
    if known.is_first() && account.account.baseline == Baseline::State {
        let put = |topic: Topic| {
            let of = |write: &StateWrite| match (topic, write) {
                (Topic::Users, StateWrite::Put { kind, .. }) => *kind == Kind::User,
                (Topic::Groups, StateWrite::Put { kind, .. }) => *kind == Kind::Group,
                (Topic::Memberships, StateWrite::PutMembership { .. }) => true,
                _ => false,
            };
            changes.units.iter().filter(|unit| of(&unit.write)).count()
        };
        print(&format!(
            "first sync: {} users, {} groups, {} memberships would be written as state, without events; nothing was written",
            put(Topic::Users),
            put(Topic::Groups),
            put(Topic::Memberships)
        ))?;
    } else {
        let silent = if silent > 0 { format!(" and {silent} silent rewrites") } else { String::new() };
        let noun = if events.len() == 1 { "change" } else { "changes" };
        print(&format!("{} {noun}{silent}; nothing was written", events.len()))?;
    }
    Ok(())
}
