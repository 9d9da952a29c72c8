//! `check`: tests credentials, directories, Kafka, the registry and the HTTP listener. Prints one line for each fact,
//! with its remedy, and publishes nothing: what it writes to try a right is aborted.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures::stream::{self, StreamExt};
use serde::Serialize;
use tracing::Instrument;

mod account;
mod by_id;
mod kafka;
mod listener;
mod okta;
mod record;
mod report;
mod settings;

use super::failure::{Exit, Failure};
use super::output::{Format, account_width, print, print_document};
use super::read::read_states;
use crate::avro::schema;
use crate::config::{AccountConfig, Config};
use crate::connect;
use crate::directory::{Known, Problem, SyncStatus};
use crate::kafka::topics::{Cluster, Found, found};
use crate::log::Topic;
use crate::scim::tape::Tape;
use crate::service::ServiceError;
use crate::shards::spans;
use crate::transport::file::NamedFile;
use record::{Record, Written};
use report::{Finding, Report, Verdict};

/// Accounts whose directories are read at the same time.
const ACCOUNTS_AT_ONCE: usize = 8;

#[derive(Debug, Args)]
pub struct Options {
    /// Accounts to check, besides Kafka and the registry [default: all]
    accounts: Vec<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Also write a recording of the directories that can be sent: requests and answers, with ids, names and addresses
    /// replaced. The file must not exist
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// A check as JSON. docs/json.md describes the fields.
#[derive(Debug, Serialize)]
struct Document {
    accounts: Vec<Checked>,
    kafka: Checked,
    registry: Checked,
    /// The HTTP listener, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Checked>,
    /// The recording, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: Option<Written>,
    problems: usize,
    held: usize,
    exit_code: u8,
}

/// What was found of one subject.
#[derive(Debug, Serialize)]
struct Checked {
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// Where it was asked.
    address: String,
    exit_code: u8,
    findings: Vec<Finding>,
}

impl Checked {
    fn of(address: &str, report: Report) -> Checked {
        let exit_code = report.exit.code();
        Checked { account: None, provider: None, address: address.to_owned(), exit_code, findings: report.findings }
    }
}

/// Counts the findings of all subjects.
#[derive(Debug)]
struct Sum {
    problems: usize,
    held: usize,
    exit: Exit,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.problems += report.count(Verdict::Fail);
        self.held += report.count(Verdict::Held);
        self.exit = self.exit.or(report.exit);
    }

    /// `3 accounts, Kafka and the registry: 2 problems, 1 held`.
    fn line(&self, accounts: usize) -> String {
        let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let problems = if self.problems == 0 { "no problem".to_owned() } else { counted(self.problems, "problem") };
        let held = if self.held == 0 { String::new() } else { format!(", {} held", self.held) };
        format!("{}, Kafka and the registry: {problems}{held}", counted(accounts, "account"))
    }
}

pub async fn check(config: &Config, options: Options) -> Result<Exit, Failure> {
    let accounts = config.select(&options.accounts)?;
    let record = options.record.as_deref().map(Record::begin).transpose()?;
    let width = account_width(config);
    // Text is printed as soon as it is known, so that a person sees how far the check has come.
    let say = |heading: String, report: &Report| match options.format {
        Format::Text => std::iter::once(heading).chain(report.lines()).try_for_each(|line| print(&line)),
        Format::Json => Ok(()),
    };
    let mut sum = Sum { problems: 0, held: 0, exit: Exit::Done };
    let cluster = found(&config.kafka).await;
    let mut known = known(config, &accounts, &cluster).await;
    let tapes: Vec<Option<Tape>> = accounts.iter().map(|_| record.as_ref().map(Record::tape)).collect();
    let of_accounts = accounts.iter().map(|account| (account, known.remove(&account.account.name)));
    let checks = of_accounts.zip(&tapes).map(|((account, known), tape)| Box::pin(check_account(account, known, tape)));
    // In the order of the configuration, whichever directory answers first.
    let mut checks = stream::iter(checks.collect::<Vec<_>>()).buffered(ACCOUNTS_AT_ONCE);
    let mut checked = Vec::new();
    while let Some((account, report)) = checks.next().await {
        let (name, provider) = (&account.account.name, &account.account.provider);
        say(format!("{name:width$}  {provider:10}  {}", account.base_url), &report)?;
        sum.add(&report);
        let of = Checked::of(account.base_url.as_str(), report);
        checked.push(Checked { account: Some(name.clone()), provider: Some(provider.clone()), ..of });
    }
    let mut kafka = Report::default();
    kafka::check(config, cluster, &mut kafka).await;
    say(format!("{:width$}  {}", "kafka", config.kafka.brokers), &kafka)?;
    sum.add(&kafka);
    let mut registry = Report::default();
    check_registry(config, &mut registry).await;
    say(format!("{:width$}  {}", "registry", config.registry.url), &registry)?;
    sum.add(&registry);
    let mut http = None;
    if let Some(configured) = &config.http {
        let (address, mut report) = (configured.listen.to_string(), Report::default());
        listener::check(configured, &mut report).await;
        say(format!("{:width$}  {address}", "http"), &report)?;
        sum.add(&report);
        http = Some(Checked::of(&address, report));
    }
    let recording = match record {
        None => None,
        Some(record) => Some(record.write(accounts.iter().zip(tapes.iter().flatten()))?),
    };
    match options.format {
        Format::Text => {
            print(&sum.line(accounts.len()))?;
            recording.iter().flat_map(Written::lines).try_for_each(|line| print(&line))?;
        }
        Format::Json => print_document(&Document {
            accounts: checked,
            kafka: Checked::of(&config.kafka.brokers, kafka),
            registry: Checked::of(&config.registry.url, registry),
            http,
            recording,
            problems: sum.problems,
            held: sum.held,
            exit_code: sum.exit.code(),
        })?,
    }
    Ok(sum.exit)
}

/// `known`: what Kafka holds of the account, if that can be read. `tape`: where its requests are written down.
async fn check_account<'a>(
    account: &'a Arc<AccountConfig>,
    known: Option<Result<Known, Problem>>,
    tape: &Option<Tape>,
) -> (&'a Arc<AccountConfig>, Report) {
    let mut report = Report::default();
    match known {
        // The account is not synced until a person acts, so its directory does not matter yet.
        Some(Err(problem)) => report.fail("state", &problem, Exit::Configuration),
        known => {
            let known = known.and_then(Result::ok).unwrap_or_else(|| nothing(account));
            let checking = account::check(account, &known, tape.as_ref(), &mut report);
            checking.instrument(spans::account(&account.account.name)).await;
        }
    }
    (account, report)
}

/// What Kafka holds of the accounts, by name, so that they are checked as a sync would read them. Empty if Kafka or the
/// registry cannot be read: the checks that follow report why, and the directories are read as for a first sync.
async fn known(
    config: &Config,
    accounts: &[Arc<AccountConfig>],
    cluster: &Result<Cluster, ServiceError>,
) -> HashMap<String, Result<Known, Problem>> {
    let exists = |topic: &Found| matches!(topic, Found::Exists(_));
    let there = cluster.as_ref().is_ok_and(|cluster| cluster.topics.iter().any(exists));
    let Ok(registry) = connect::registry(&config.registry) else { return HashMap::new() };
    if !there {
        return HashMap::new();
    }
    let accounts: Vec<_> = accounts.iter().map(|config| config.account.clone()).collect();
    read_states(&config.kafka, &registry, &accounts).await.unwrap_or_default()
}

/// The state of an account that was never synced.
fn nothing(account: &AccountConfig) -> Known {
    let mut known = Known::default();
    known.latest = Some(SyncStatus::initial(account.account.settings(), 0));
    known
}

/// The URL of the registry as its messages name it.
fn bare_url(config: &Config) -> &str {
    config.registry.url.trim_end_matches('/')
}

/// Names the proxy on the way to the registry, credentials in plain text, and files that too many users of this machine
/// may read or write.
fn say_way_to_registry(config: &Config, report: &mut Report) {
    let registry = &config.registry;
    if let Some(proxy) = registry.proxy() {
        report.ok("proxy", &format!("through {proxy}"));
    }
    if registry.sends_secret_in_plain_text() {
        report.note("plaintext", "the credentials leave this machine unencrypted; → https:// in registry.url");
    }
    for exposure in registry.files().filter_map(NamedFile::exposure) {
        report.note("files", &exposure);
    }
}

async fn check_registry(config: &Config, report: &mut Report) {
    let bare = |error: &ServiceError| error.problem().clone().without(&format!("registry {}", bare_url(config)));
    say_way_to_registry(config, report);
    let registry = match connect::registry(&config.registry) {
        Ok(registry) => registry,
        Err(error) => return report.fail("network", &bare(&error), Exit::from(&error)),
    };
    match registry.probe().await {
        Ok(()) => {}
        Err(error) => return report.fail("reach", &bare(&error), Exit::from(&error)),
    }
    let mut known = 0;
    for topic in Topic::ALL {
        let subject = schema::subject(&config.kafka.topic_prefix, topic);
        match registry.look_up(&subject, schema::text(topic)).await {
            Ok(found) => known += usize::from(found.is_some()),
            Err(error) if error.is_refused() => return report.fail("schemas", error.problem(), Exit::Configuration),
            Err(error) => return report.fail("reach", &bare(&error), Exit::Unreachable),
        }
    }
    match known {
        6 => report.ok("schemas", "6 of 6 subjects"),
        _ if config.register => report.note("schemas", &format!("{known} of 6 subjects: `run` registers the rest")),
        _ => report.fail(
            "schemas",
            &Problem::new(format!("{known} of 6 subjects and registry.register = false"))
                .with_remedy("scimtail schemas --print"),
            Exit::Configuration,
        ),
    }
}
