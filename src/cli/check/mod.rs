//! `check`: tests credentials, directories, Kafka and the registry. Prints one line for each fact, with its remedy, and
//! publishes nothing: what it writes to try a right is aborted.

use std::collections::HashMap;

use clap::Args;
use tracing::Instrument;

mod account;
mod kafka;
mod report;
mod settings;

use super::failure::{Exit, Failure};
use super::output::{account_width, print};
use super::read::read_states;
use crate::avro::schema;
use crate::config::{AccountConfig, Config};
use crate::connect;
use crate::directory::{Known, Problem, SyncStatus};
use crate::kafka::topics::{Cluster, Found, found};
use crate::log::Topic;
use crate::service::ServiceError;
use crate::shards::spans;
use crate::transport::file::NamedFile;
use report::{Gravity, Report};

#[derive(Debug, Args)]
pub struct Options {
    /// Accounts to check, besides Kafka and the registry [default: all]
    accounts: Vec<String>,
}

pub async fn check(config: &Config, options: Options) -> Result<Exit, Failure> {
    let accounts = config.select(&options.accounts)?;
    let width = account_width(config);
    let mut report = Report::default();
    let cluster = found(&config.kafka).await;
    let mut known = known(config, &accounts, &cluster).await;
    for account in &accounts {
        print(&format!("{:width$}  {:10}  {}", account.account.name, account.account.provider, account.base_url))?;
        match known.remove(&account.account.name) {
            // The account is not synced until a person acts, so its directory does not matter yet.
            Some(Err(problem)) => report.fail("state", &problem, Gravity::Refused)?,
            known => {
                let known = known.and_then(Result::ok).unwrap_or_else(|| nothing(account));
                let checking = account::check(account, &known, &mut report);
                checking.instrument(spans::account(&account.account.name)).await?;
            }
        }
    }
    print(&format!("{:width$}  {}", "kafka", config.kafka.brokers))?;
    kafka::check(config, cluster, &mut report).await?;
    print(&format!("{:width$}  {}", "registry", config.registry.url))?;
    check_registry(config, &mut report).await?;
    report.end()
}

/// What Kafka holds of the accounts, by name, so that they are checked as a sync would read them. Empty if Kafka or the
/// registry cannot be read: the checks that follow report why, and the directories are read as for a first sync.
async fn known(
    config: &Config,
    accounts: &[AccountConfig],
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
fn say_way_to_registry(config: &Config, report: &Report) -> Result<(), Failure> {
    let registry = &config.registry;
    if let Some(proxy) = registry.proxy() {
        report.ok("proxy", &format!("through {proxy}"))?;
    }
    if registry.sends_secret_in_plain_text() {
        report.note("plaintext", "the credentials leave this machine unencrypted; → https:// in registry.url")?;
    }
    for exposure in registry.files().filter_map(NamedFile::exposure) {
        report.note("files", &exposure)?;
    }
    Ok(())
}

async fn check_registry(config: &Config, report: &mut Report) -> Result<(), Failure> {
    let bare = |error: &ServiceError| error.problem().clone().without(&format!("registry {}", bare_url(config)));
    say_way_to_registry(config, report)?;
    let registry = match connect::registry(&config.registry) {
        Ok(registry) => registry,
        Err(error) => return report.fail("network", &bare(&error), Gravity::of(&error)),
    };
    match registry.probe().await {
        Ok(()) => {}
        Err(error) => return report.fail("reach", &bare(&error), Gravity::of(&error)),
    }
    let mut known = 0;
    for topic in Topic::ALL {
        let subject = schema::subject(&config.kafka.topic_prefix, topic);
        match registry.look_up(&subject, schema::text(topic)).await {
            Ok(found) => known += usize::from(found.is_some()),
            Err(error) if error.is_refused() => return report.fail("schemas", error.problem(), Gravity::Refused),
            Err(error) => return report.fail("reach", &bare(&error), Gravity::Unreachable),
        }
    }
    match known {
        6 => report.ok("schemas", "6 of 6 subjects"),
        _ if config.register => report.note("schemas", &format!("{known} of 6 subjects: `run` registers the rest")),
        _ => report.fail(
            "schemas",
            &Problem::new(format!("{known} of 6 subjects and registry.register = false"))
                .with_remedy("scimtail schemas --print"),
            Gravity::Refused,
        ),
    }
}
