//! `plan`: what a sync would publish. Reads Kafka and the directory, writes nothing, owns no shard.

use clap::Args;
use tracing::Instrument;

mod document;
mod one;

use super::failure::{Exit, Failure};
use super::outcome::counts;
use super::output::{Format, print, print_document};
use crate::config::Config;
use crate::mapping::text;
use crate::shards::spans;
use document::{Document, Entry};
use one::{Contents, Plan, Tally, plan_one};

#[derive(Debug, Args)]
pub struct Options {
    /// Accounts to plan for [default: all]
    accounts: Vec<String>,
    /// End with 3 instead of 0 if a sync would publish an event or write the first state; a held account still ends
    /// with 75. (terraform has 2 for this, which is a wrong usage here)
    #[arg(long)]
    detailed_exitcode: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub async fn plan(config: &Config, options: Options) -> Result<Exit, Failure> {
    let accounts = config.select(&options.accounts)?;
    let many = accounts.len() > 1;
    let mut worst = Exit::Done;
    let mut total = Tally::default();
    let mut entries = Vec::new();
    for account in &accounts {
        let name = &account.account.name;
        if many && options.format == Format::Text {
            print(&format!("{name}  {}", account.base_url))?;
        }
        let planning = plan_one(config, account, options.detailed_exitcode);
        match planning.instrument(spans::account(name)).await {
            Ok(plan) => {
                worst = worst.or(plan.exit());
                total = total.and(Tally::of(&plan.events));
                match options.format {
                    Format::Text => show(name, &plan)?,
                    Format::Json => entries.push(Entry::of(name, &plan)),
                }
            }
            // One account that cannot be planned does not stop the others.
            Err(unplanned) => {
                unplanned.failure.say();
                worst = worst.or(unplanned.failure.exit);
                if options.format == Format::Json {
                    entries.push(Entry::failed(name, &unplanned));
                }
            }
        }
    }
    match options.format {
        Format::Json => print_document(&Document { accounts: entries, total, exit_code: worst.code() })?,
        Format::Text if many => {
            print(&format!("{} in {} accounts; nothing was written", total.words(), accounts.len()))?
        }
        Format::Text => {}
    }
    Ok(worst)
}

fn show(name: &str, plan: &Plan) -> Result<(), Failure> {
    if let Some(reason) = &plan.known.repair {
        print(&format!("in repair: {reason}; missing records are written silently, no user or group is removed"))?;
    }
    print(&format!("read {} in {:.1} s", counts(&plan.attempt), plan.seconds))?;
    for finding in &plan.attempt.findings {
        print(&format!("note: {finding}"))?;
    }
    for event in &plan.events {
        print(&text::planned(event))?;
    }
    if let Some(Contents { users, groups, memberships }) = plan.baseline {
        print(&format!(
            "first sync: a baseline of {users} users, {groups} groups, {memberships} memberships would be written as state, without events"
        ))?;
    }
    if let Some((hold, reason)) = &plan.held {
        print(&format!("held: {}. A sync would publish nothing.", reason.problem))?;
        print(&format!("release: scimtail release {name} --hold {hold}"))?;
    }
    let silent = match plan.silent_rewrites() {
        0 => String::new(),
        count => format!(" and {count} silent rewrites"),
    };
    print(&format!("{}{silent}; nothing was written", Tally::of(&plan.events).words()))
}
