//! `check`: "Test API Credentials". One line a fact, with what to do; writes nothing.

use std::collections::HashMap;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;

mod account;
mod settings;

use super::{CONFIGURATION, DONE, Failure, UNREACHABLE, print};
use crate::avro::{Registry, schema};
use crate::config::{AccountConfig, Config};
use crate::directory::{Known, SyncStatus};
use crate::kafka::topics::{partition_counts, verify};
use crate::log::Topic;
use crate::service::ServiceError;

/// A check is for people: it answers soon.
const DIRECTORY_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Options {
    /// Accounts to check beside Kafka and the registry [default: all]
    accounts: Vec<String>,
}

/// Lines printed, problems counted, and what they mean for the exit code.
#[derive(Default)]
struct Report {
    problems: usize,
    /// Something answered and said no: 78, else 69.
    refused: bool,
}

impl Report {
    fn ok(&self, topic: &str, text: &str) -> Result<(), Failure> {
        line(AnsiColor::Green, "ok", topic, text)
    }

    fn note(&self, topic: &str, text: &str) -> Result<(), Failure> {
        line(AnsiColor::Cyan, "note", topic, text)
    }

    /// The remedy after `; →` goes on a line of its own.
    fn fail(&mut self, topic: &str, text: &str, refused: bool) -> Result<(), Failure> {
        self.problems += 1;
        self.refused |= refused;
        let (what, remedy) = text.split_once("; →").unwrap_or((text, ""));
        line(AnsiColor::Red, "FAIL", topic, what)?;
        if !remedy.is_empty() {
            print(&format!("{:20}→ {}", "", remedy.trim_start()))?;
        }
        Ok(())
    }
}

fn line(color: AnsiColor, label: &str, topic: &str, text: &str) -> Result<(), Failure> {
    let style = Style::new().fg_color(Some(color.into()));
    print(&format!("  {style}{label:4}{style:#}  {topic:10}  {text}"))
}

pub async fn check(config: &Config, options: Options) -> Result<u8, Failure> {
    let accounts = config.select(&options.accounts)?;
    let width = super::account_width(config);
    let mut report = Report::default();
    let counts = partition_counts(&config.kafka).await;
    let mut known = known(config, &accounts, &counts).await;
    for account in &accounts {
        print(&format!("{:width$}  {:10}  {}", account.account.name, account.account.provider, account.base_url))?;
        match known.remove(&account.account.name) {
            // Nothing of it is synced before a person acts, whatever its directory says.
            Some(Err(Failure { text, .. })) => report.fail("state", &text, true)?,
            Some(Ok(known)) => account::check(account, &known, &mut report).await?,
            None => account::check(account, &nothing(account), &mut report).await?,
        }
    }
    print(&format!("{:width$}  {}", "kafka", config.kafka.brokers))?;
    check_kafka(config, counts, &mut report).await?;
    print(&format!("{:width$}  {}", "registry", config.registry_url))?;
    check_registry(config, &mut report).await?;
    match report.problems {
        0 => Ok(DONE),
        problems => {
            print(&format!("{problems} {}", if problems == 1 { "problem" } else { "problems" }))?;
            Ok(if report.refused { CONFIGURATION } else { UNREACHABLE })
        }
    }
}

/// What Kafka holds of the accounts, so that they are checked as a sync would read them. Where it cannot be read, what
/// follows says why, and the directories are read as for the first time.
async fn known(
    config: &Config,
    accounts: &[AccountConfig],
    counts: &Result<Vec<Option<i32>>, ServiceError>,
) -> HashMap<String, Result<Known, Failure>> {
    let there = counts.as_ref().is_ok_and(|counts| counts.iter().any(Option::is_some));
    let Ok(registry) = Registry::new(&config.registry_url) else { return HashMap::new() };
    if !there {
        return HashMap::new();
    }
    let accounts: Vec<_> = accounts.iter().map(|config| config.account.clone()).collect();
    super::read_states(&config.kafka, &registry, &accounts).await.unwrap_or_default()
}

/// Of an account that was never synced.
fn nothing(account: &AccountConfig) -> Known {
    let mut known = Known::default();
    known.latest = Some(SyncStatus::initial(account.account.settings(), 0));
    known
}

async fn check_kafka(
    config: &Config,
    counts: Result<Vec<Option<i32>>, ServiceError>,
    report: &mut Report,
) -> Result<(), Failure> {
    let (text, refused) = match counts {
        Err(error) => (error.to_string(), error.is_refused()),
        Ok(counts) if counts.iter().all(Option::is_none) && config.create_topics => {
            report.ok("reach", "a broker answers")?;
            return report.note("topics", "none of the six exists yet: `run` creates them");
        }
        Ok(_) => match verify(&config.kafka).await {
            Ok(differences) => {
                report.ok(
                    "topics",
                    &format!(
                        "{0} of {0}, {1} partitions, policies as expected",
                        config.kafka.topics().len(),
                        config.kafka.partitions
                    ),
                )?;
                for difference in differences {
                    let text = format!(
                        "{}: {}={}, readers are promised {}",
                        difference.topic, difference.setting, difference.found, difference.expected
                    );
                    report.note("topics", &text)?;
                }
                return Ok(());
            }
            Err(error) => (error.to_string(), error.is_refused()),
        },
    };
    let what = text.strip_prefix(&format!("kafka {}: ", config.kafka.brokers)).unwrap_or(&text);
    report.fail(if refused { "topics" } else { "reach" }, what, refused)
}

async fn check_registry(config: &Config, report: &mut Report) -> Result<(), Failure> {
    let registry = match Registry::new(&config.registry_url) {
        Ok(registry) => registry,
        Err(error) => return report.fail("reach", &error.to_string(), true),
    };
    let bare = |text: &str| {
        let bare = text.strip_prefix(&format!("registry {}", registry.url())).unwrap_or(text);
        bare.trim_start_matches([':', ' ']).to_owned()
    };
    match registry.probe().await {
        Ok(()) => {}
        Err(error) => return report.fail("reach", &bare(&error.to_string()), error.is_refused()),
    }
    let mut known = 0;
    for topic in Topic::ALL {
        let subject = schema::subject(&config.kafka.topic_prefix, topic);
        match registry.look_up(&subject, schema::text(topic)).await {
            Ok(found) => known += usize::from(found.is_some()),
            Err(error) if error.is_refused() => return report.fail("schemas", &error.to_string(), true),
            Err(error) => return report.fail("reach", &bare(&error.to_string()), false),
        }
    }
    match known {
        6 => report.ok("schemas", "6 of 6 subjects"),
        _ if config.register => report.note("schemas", &format!("{known} of 6 subjects: `run` registers the rest")),
        _ => report.fail(
            "schemas",
            &format!("{known} of 6 subjects and registry.register = false; → scimtail schemas --print"),
            true,
        ),
    }
}
