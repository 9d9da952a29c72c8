//! `reseed` and `retire`: what a person does about an account's state as a whole. Unlike the other requests they are
//! carried out here, by an owner of the shard for a moment; the record on `control` says who did it, when and why.

use super::control::{Who, one, record_request};
use super::{CONFIGURATION, DONE, FAILED, Failure, print, services};
use crate::account::Account;
use crate::config::Config;
use crate::shards::reseed::{self, Reseeded};
use clap::Args;

#[derive(Debug, Args)]
pub struct Reseed {
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Args)]
pub struct Retire {
    #[command(flatten)]
    who: Who,
}

/// A service that runs beside it has the shard back after about this long.
const BACK_SOON: &str = "a service that keeps its shard takes it back by itself, in half a minute or a few";

pub async fn reseed(config: &Config, options: Reseed) -> Result<u8, Failure> {
    let account = one(config, &options.who)?.account;
    let services = services(config).await?;
    let why = format!("reseeded by {}", options.who.by);
    let asked = record_request(&services, &account, "reseed", options.who);
    match reseed::reseed(&services, &account, why, asked).await? {
        Reseeded::NotNeeded => {
            let name = &account.name;
            print(&format!("{name}: not stopped, nothing to reseed; what differs is repaired by its next sync"))?;
        }
        Reseeded::GoesOn(records) => print(&format!(
            "{}: goes on from the {records} state records that are there. Its next sync writes silently what is missing, \
             publishes what changed and removes nobody; {BACK_SOON}",
            account.name
        ))?,
    }
    Ok(DONE)
}

pub async fn retire(config: &Config, options: Retire) -> Result<u8, Failure> {
    options.who.check()?;
    let name = &options.who.account;
    if config.accounts.iter().any(|config| config.account.name == *name) {
        return Err(Failure::new(
            CONFIGURATION,
            format!(
                "{name} is still configured and would be read anew; → take it out of the configuration; 15 \
                 seconds later a running service has let go of it; then retire it"
            ),
        ));
    }
    let kafka = &config.kafka;
    let account = Account::unconfigured(name, &kafka.topic_prefix, kafka.partition_of(name));
    let services = services(config).await?;
    let name = account.name.clone();
    let asked = record_request(&services, &account, "retire", options.who);
    let Some(records) = reseed::retire(&services, &account, asked).await? else {
        return Err(Failure::new(FAILED, format!("nothing of an account `{name}` is in the topics")));
    };
    print(&format!(
        "{name}: {records} records are gone from the compacted topics, no event was published; {BACK_SOON}. Its events \
         stay as long as their topic keeps them: until then, do not give the name to another account"
    ))?;
    Ok(DONE)
}
