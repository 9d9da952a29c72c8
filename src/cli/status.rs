//! `status`: how each account stands, from the topics alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, timeout};

use super::failure::{Exit, Failure};
use super::output::{print, print_json, reader_is_gone};
use super::read::read_states;
use super::services::readable;
use super::table::{Cell, Table, room, width};
use crate::account::Account;
use crate::avro::{Decoder, Registry};
use crate::config::{AccountConfig, Config};
use crate::connect;
use crate::directory::Problem;
use crate::duration::in_words;
use crate::kafka::blocking::blocking;
use crate::kafka::group::{self, Group};
use crate::mapping::text::clean;
use crate::overview::{
    self, AllSeen, Following, Label, Owner, Seen, Standing, is_doubtful, overview, read_all, summary,
};
use crate::schedule::now_millis;

/// With `--watch`: between two looks if nothing changes, because the table says how long ago things were.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// With `--watch`: between two tables while changes come in.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// With `--watch`: for the first table.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// With `--watch`: between two looks at the records of accounts that may be stopped.
const DOUBT_EVERY: Duration = Duration::from_secs(60);
/// Clears the screen of a terminal, and goes to its first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[3J\u{1b}[H";

#[derive(Debug, Args)]
pub struct Options {
    /// Only these accounts [default: all]
    #[arg(value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Show changes as they come, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Do not cut the table to the width of the terminal
    #[arg(long)]
    wide: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people, and what to do
    Text,
    /// One JSON object an account, each on a line
    Json,
}

pub async fn status(config: &Config, options: Options) -> Result<Exit, Failure> {
    let mut accounts = config.select(&options.accounts)?;
    let mut names = std::collections::HashSet::new();
    accounts.retain(|config| names.insert(config.account.name.clone()));
    let registry = connect::registry(&config.registry)?;
    readable(&config.kafka, &registry).await?;
    if options.watch {
        return watch(config, &registry, accounts, &options).await;
    }
    let (mut seen, group) = look(config, &registry, &accounts).await?;
    let doubtful = doubtful(&accounts, &seen, group.as_ref());
    for (name, problem) in stopped(config, &registry, &doubtful).await? {
        seen.entry(name).or_default().stop(problem);
    }
    let now = now_millis();
    let standings = overview(&accounts, &seen, group.as_ref(), now);
    show(&standings, &options, now)?;
    Ok(exit(&standings))
}

fn exit(standings: &[Standing]) -> Exit {
    if standings.iter().any(|standing| standing.needs_person) { Exit::TryLater } else { Exit::Done }
}

/// What `syncs` and the consumer group say now.
async fn look(
    config: &Config,
    registry: &Registry,
    accounts: &[Arc<AccountConfig>],
) -> Result<(AllSeen, Option<Group>), Failure> {
    let mut decoder = Decoder::of_reader(registry.clone());
    let (kafka, accounts) = (config.kafka.clone(), accounts.to_vec());
    let reading = move || Ok((read_all(&kafka, &mut decoder, &accounts)?, group::describe(&kafka)?));
    Ok(blocking(reading).await?)
}

/// Accounts that have an owner and do not sync.
fn doubtful(accounts: &[Arc<AccountConfig>], seen: &AllSeen, group: Option<&Group>) -> Vec<Arc<Account>> {
    let now = now_millis();
    let nothing = Seen::default();
    let doubtful = accounts.iter().filter(|config| {
        let owner = Owner::of(config.account.partition, group);
        is_doubtful(config, seen.get(&config.account.name).unwrap_or(&nothing), &owner, now)
    });
    doubtful.map(|config| config.account.clone()).collect()
}

/// Those of the doubtful accounts that are stopped, and why. Only their records can tell, and `syncs` has none of them,
/// so they are read as their owner reads them.
async fn stopped(
    config: &Config,
    registry: &Registry,
    doubtful: &[Arc<Account>],
) -> Result<BTreeMap<String, Problem>, Failure> {
    if doubtful.is_empty() {
        return Ok(BTreeMap::new());
    }
    let states = read_states(&config.kafka, registry, doubtful).await?;
    Ok(states.into_iter().filter_map(|(name, state)| Some((name, state.err()?))).collect())
}

/// Draws the table again at each change.
async fn watch(
    config: &Config,
    registry: &Registry,
    accounts: Vec<Arc<AccountConfig>>,
    options: &Options,
) -> Result<Exit, Failure> {
    let terminal = io::stdout().is_terminal();
    let following = Following::start(&config.kafka, registry, accounts, now_millis());
    following.first(FIRST_WAIT).await;
    let mut changes = following.changes();
    let mut drawn = None;
    let (mut are_stopped, mut doubted) = (BTreeMap::new(), None::<Instant>);
    loop {
        let (facts, now) = (following.now(), now_millis());
        if let Some(mut seen) = facts.seen {
            let doubtful = doubtful(&following.accounts, &seen, facts.group.as_ref());
            if doubted.is_none_or(|at| at.elapsed() >= DOUBT_EVERY) {
                // If Kafka cannot be read, the thread that follows `syncs` says so.
                are_stopped = stopped(config, registry, &doubtful).await.unwrap_or_default();
                doubted = Some(Instant::now());
            }
            for account in doubtful {
                if let Some(problem) = are_stopped.get(&account.name) {
                    seen.entry(account.name.clone()).or_default().stop(problem.clone());
                }
            }
            let standings = overview(&following.accounts, &seen, facts.group.as_ref(), now);
            let content = (standings, facts.problem.clone());
            // A terminal shows how time passes. A pipe gets what is new.
            if terminal || drawn.as_ref() != Some(&content) {
                if terminal && options.format == Format::Text {
                    print(CLEAR)?;
                }
                show(&content.0, options, now)?;
                if let Some(problem) = &content.1 {
                    anstream::eprintln!("what is shown may be old: {}", clean(problem));
                }
                drawn = Some(content);
            }
        }
        if reader_is_gone() {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(DRAW_EVERY).await;
        drop(timeout(LOOK_EVERY, changes.changed()).await);
    }
}

fn show(standings: &[Standing], options: &Options, now: i64) -> Result<(), Failure> {
    if options.format == Format::Json {
        return standings.iter().try_for_each(|standing| print_json(&overview::json(standing).to_string()));
    }
    let room = room(options.wide);
    for line in table(standings, now).lines(room) {
        print(&line)?;
    }
    print(&format!("\n{}", summary(standings)))?;
    for standing in standings {
        for line in more(standing) {
            print(&line)?;
        }
    }
    not_included(standings).iter().try_for_each(|line| print(line))
}

fn table(standings: &[Standing], now: i64) -> Table {
    let mut table = Table::new(["account", "status", "last", "next", "users", "groups", "members", "owner"]);
    for standing in standings {
        let counts = standing.counts;
        let number = |count: Option<Option<i64>>| match count {
            None => "–".to_owned(),
            Some(None) => "unread".to_owned(),
            Some(Some(count)) => count.to_string(),
        };
        let owner = match &standing.owner {
            Owner::Instance(host) => host.clone(),
            Owner::Unassigned | Owner::NoInstance => "none".to_owned(),
            Owner::Unknown => "?".to_owned(),
        };
        let next =
            standing.next_at.map_or("–".to_owned(), |at| if at <= now { "due".to_owned() } else { time(now, at) });
        table.row([
            Cell::new(&standing.account),
            Cell::new(standing.label.as_str()).styled(style(standing)),
            Cell::new(&standing.completed.map_or("never".to_owned(), |(_, at)| time(at, now))),
            Cell::new(&next),
            Cell::new(&number(counts.map(|counts| counts.users))),
            Cell::new(&number(counts.map(|counts| counts.groups))),
            Cell::new(&number(counts.map(|counts| counts.memberships))),
            Cell::new(&owner),
        ]);
    }
    table
}

/// What the vendors' SCIM does not show, once for each provider.
fn not_included(standings: &[Standing]) -> Vec<String> {
    let said = standings.iter().filter(|standing| !standing.not_included.is_empty());
    let said: BTreeSet<(&str, String)> =
        said.map(|standing| (standing.provider.as_str(), standing.not_included.join(", "))).collect();
    if said.is_empty() {
        return Vec::new();
    }
    let widest = said.iter().map(|(provider, _)| width(provider)).max().unwrap_or(0);
    let lines = said.iter().map(|(provider, what)| {
        let space = " ".repeat(widest - width(provider));
        format!("  {}:{space} {}", clean(provider), clean(what))
    });
    let heading = "\nComplete for what SCIM shows; not included:".to_owned();
    std::iter::once(heading).chain(lines).collect()
}

fn time(from: i64, to: i64) -> String {
    in_words(Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0)))
}

fn style(standing: &Standing) -> Style {
    let color = match standing.label {
        _ if standing.needs_person => AnsiColor::Red,
        Label::Connected => AnsiColor::Green,
        Label::Syncing | Label::Paused => AnsiColor::Cyan,
        _ => AnsiColor::Yellow,
    };
    Style::new().fg_color(Some(color.into()))
}

/// Why an account is not connected, and the commands for that; what its newest completed sync found.
fn more(standing: &Standing) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = &standing.reason {
        let label = standing.label.as_str().to_lowercase();
        lines.push(format!("\n{}  {label}: {}", clean(&standing.account), clean(reason)));
        let purposes = standing.steps.iter().map(|step| width(step.purpose) + 1).max().unwrap_or(0);
        for step in &standing.steps {
            let space = " ".repeat(purposes - width(step.purpose));
            lines.push(format!("  {}:{space} {}", step.purpose, step.command));
        }
    }
    lines
}
