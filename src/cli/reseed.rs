//! `reseed` and `retire`: a person's decisions about the whole state of an account. Unlike the other requests, this
//! process carries them out, and owns the shard for that moment. The record on `control` says who did it, when and why.

use std::sync::Arc;

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::print;
use super::request::{Request, record_request};
use super::services::services;
use crate::account::Account;
use crate::config::Config;
use crate::shards::reseed::{self, Reseeded};

#[derive(Debug, Args)]
pub struct Reseed {
    #[command(flatten)]
    request: Request,
}

#[derive(Debug, Args)]
pub struct Retire {
    #[command(flatten)]
    request: Request,
}

/// What happens to a service that runs meanwhile.
const BACK_SOON: &str =
    "a running service takes its shard back by itself, within half a minute, or after a few minutes";

pub async fn reseed(config: &Config, options: Reseed) -> Result<Exit, Failure> {
    let account = options.request.account(config)?.account.clone();
    let services = services(config).await?;
    let why = format!("reseeded by {}", options.request.by);
    let asked = record_request(&services, &account, "reseed", options.request);
    match reseed::reseed(&services, &account, why, asked).await? {
        Reseeded::NotNeeded => {
            let name = &account.name;
            print(&format!("{name}: not stopped, so there is nothing to reseed; its next sync repairs what differs"))?;
        }
        Reseeded::GoesOn(records) => print(&format!(
            "{}: continues from the {records} state records in the topics. Its next sync writes missing records silently, \
             publishes changes and removes no user or group; {BACK_SOON}",
            account.name
        ))?,
    }
    Ok(Exit::Done)
}

pub async fn retire(config: &Config, options: Retire) -> Result<Exit, Failure> {
    options.request.check()?;
    let name = &options.request.account;
    if config.accounts.iter().any(|config| config.account.name == *name) {
        return Err(Failure::new(
            Exit::Configuration,
            format!(
                "{name} is still configured, so the next sync would write it again; → remove it from the configuration, \
                 wait 15 seconds for a running service to release it, then retire it"
            ),
        ));
    }
    let kafka = &config.kafka;
    let account = Arc::new(Account::unconfigured(name, &kafka.topic_prefix, kafka.partition_of(name)));
    let services = services(config).await?;
    let name = account.name.clone();
    let asked = record_request(&services, &account, "retire", options.request);
    let Some(records) = reseed::retire(&services, &account, asked).await? else {
        return Err(Failure::new(Exit::Failed, format!("the topics hold nothing of an account `{name}`")));
    };
    print(&format!(
        "{name}: {records} records were removed from the compacted topics, no event was published; {BACK_SOON}. Its \
         events remain until their retention ends; → do not give the name to another account before"
    ))?;
    Ok(Exit::Done)
}
