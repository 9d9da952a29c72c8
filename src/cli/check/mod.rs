//! `check`: "Test API Credentials". One line a fact, with what to do; writes nothing.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;

mod account;

use super::{CONFIGURATION, DONE, Failure, UNREACHABLE, print};
use crate::avro::{Registry, registry::RegistryError, schema};
use crate::config::Config;
use crate::kafka::topics::{partition_counts, verify};
use crate::record::Topic;

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

    /// The remedy after `; →` or `; ` goes on a line of its own.
    fn fail(&mut self, topic: &str, text: &str, refused: bool) -> Result<(), Failure> {
        self.problems += 1;
        self.refused |= refused;
        let (what, remedy) = text.split_once("; ").unwrap_or((text, ""));
        line(AnsiColor::Red, "FAIL", topic, what)?;
        if !remedy.is_empty() {
            print(&format!("{:20}→ {}", "", remedy.trim_start_matches("→ ")))?;
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
    for account in &accounts {
        print(&format!("{:width$}  {:10}  {}", account.account.name, account.account.provider, account.base_url))?;
        let checking = tokio::time::timeout(DIRECTORY_WAIT, account::check(account, &mut report));
        if let Ok(result) = checking.await {
            result?;
        } else {
            report.fail(
                "reach",
                &format!("no complete answer within {} s; → try again, or ask the vendor", DIRECTORY_WAIT.as_secs()),
                false,
            )?;
        }
    }
    print(&format!("{:width$}  {}", "kafka", config.kafka.brokers))?;
    check_kafka(config, &mut report).await?;
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

async fn check_kafka(config: &Config, report: &mut Report) -> Result<(), Failure> {
    let (text, refused) = match partition_counts(&config.kafka).await {
        Err(error) => (error.to_string(), matches!(error, crate::kafka::KafkaError::Refused(_))),
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
            Err(error) => (error.to_string(), matches!(error, crate::kafka::KafkaError::Refused(_))),
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
        Err(RegistryError::Unreachable(text)) => return report.fail("reach", &bare(&text), false),
        Err(RegistryError::Refused(text)) => return report.fail("reach", &bare(&text), true),
    }
    let mut known = 0;
    for topic in Topic::ALL {
        let subject = schema::subject(&config.kafka.topic_prefix, topic);
        match registry.look_up(&subject, schema::text(topic)).await {
            Ok(found) => known += usize::from(found.is_some()),
            Err(RegistryError::Unreachable(text)) => return report.fail("reach", &bare(&text), false),
            Err(error) => return report.fail("schemas", &error.to_string(), true),
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
