//! `check`: "Test API Credentials". One line a fact, with what to do; writes nothing.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use tokio::time::Instant;

use super::{CONFIGURATION, DONE, Failure, UNREACHABLE, print};
use crate::avro::{Registry, registry::RegistryError, schema};
use crate::config::{AccountConfig, Config};
use crate::connect::Connection;
use crate::directory::Kind;
use crate::kafka::topics::{partition_counts, verify};
use crate::pipeline::{Answer, Directory};
use crate::record::Topic;
use crate::scim::client::refusal;
use crate::scim::{ReadError, ScimDirectory, error, wire};

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
        let checking = tokio::time::timeout(DIRECTORY_WAIT, check_account(account, &mut report));
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

async fn check_account(account: &AccountConfig, report: &mut Report) -> Result<(), Failure> {
    let directory = match Connection::new(account, crate::schedule::now_millis).directory() {
        Ok(directory) => directory,
        Err(error) => return report.fail("token", &error.text, true),
    };
    let started = Instant::now();
    let users = match first_page(&directory, Kind::User).await {
        Ok(page) => page,
        Err((error, reached)) => {
            if reached {
                report.ok("reach", &format!("answers in {} ms", started.elapsed().as_millis()))?;
            }
            let topic = match error.code {
                error::UNREACHABLE | error::REDIRECTED => "reach",
                error::REFUSED => "token",
                _ => "users",
            };
            let hint =
                if error.code == error::NOT_A_LIST { "; → check base_url: it usually ends in /scim/v2" } else { "" };
            return report.fail(topic, &format!("{}{hint}", error.text), is_refusal(&error));
        }
    };
    report.ok(
        "reach",
        &format!("{}, answers in {} ms", account.base_url.scheme().to_uppercase(), started.elapsed().as_millis()),
    )?;
    let selects = if account.profile.base_url.is_some() { "; the token selects the account" } else { "" };
    report.ok("token", &format!("accepted{selects}"))?;
    report.ok("users", &listed(&users))?;
    if users.unreadable_active > 0 {
        let text = format!(
            "active is not stated for {} of {} users on the first page: their state stays unknown",
            users.unreadable_active, users.rows
        );
        report.note("users", &text)?;
    }
    match first_page(&directory, Kind::Group).await {
        Ok(groups) => {
            let members = match (groups.rows, groups.members) {
                (0, _) => "",
                (_, 0) => ", no members shown on the first page",
                _ => ", members in the list",
            };
            report.ok("groups", &format!("{}{members}", listed(&groups)))?;
        }
        Err((error, _)) => report.fail("groups", &error.text, is_refusal(&error))?,
    }
    if let Some(id) = &users.first {
        match directory.get(Kind::User, id).await {
            Answer::Found(_) => report.ok("get", "users are found by id: removals can be proven")?,
            _ => {
                report.note("get", "users are not found by id: what is missing stays, shown in removals_suppressed")?
            }
        }
    }
    // An account that is configured needs no templates of its URLs any more.
    let templates = ["base_url", "token_url"];
    for note in account.profile.notes.iter().filter(|note| !templates.contains(&note.topic.as_str())) {
        report.note(&note.topic, &note.text)?;
    }
    Ok(())
}

/// True where a person has to act; false where trying later may help.
fn is_refusal(error: &ReadError) -> bool {
    !matches!(error.code, error::UNREACHABLE | error::UNAVAILABLE)
}

struct FirstPage {
    rows: usize,
    total: Option<u64>,
    members: usize,
    unreadable_active: usize,
    first: Option<crate::directory::Id>,
}

fn listed(page: &FirstPage) -> String {
    match page.total {
        Some(total) => format!("{total} listed, index paging"),
        None => format!("{} on the first page, no total stated", page.rows),
    }
}

/// The flag says whether the server answered at all.
async fn first_page(directory: &ScimDirectory, kind: Kind) -> Result<FirstPage, (ReadError, bool)> {
    let client = &directory.client;
    let query = [("startIndex", "1".to_owned()), ("count", client.profile().page_size.to_string())];
    let reply = client.get(client.url(&[client.profile().path(kind)], &query)).await.map_err(|error| (error, false))?;
    if reply.status.as_u16() != 200 {
        return Err((refusal(reply.status, client.profile()), true));
    }
    let list = wire::split_list(&reply.body).map_err(|error| (error, true))?;
    let mut page =
        FirstPage { rows: list.rows.len(), total: list.total, members: 0, unreadable_active: 0, first: None };
    for row in &list.rows {
        let resource = wire::read_resource(kind, &row.bytes, &directory.reading).map_err(|error| (error, true))?;
        page.members += resource.members.len();
        page.unreadable_active += usize::from(resource.principal.active.is_none());
        page.first.get_or_insert(resource.principal.id);
    }
    Ok(page)
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
                report
                    .ok("topics", &format!("6 of 6, {} partitions, policies as expected", config.kafka.partitions))?;
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
    let mut known = 0;
    for topic in Topic::ALL {
        let subject = schema::subject(&config.kafka.topic_prefix, topic);
        match registry.look_up(&subject, schema::text(topic)).await {
            Ok(found) => known += usize::from(found.is_some()),
            Err(RegistryError::Unreachable(text)) => {
                let text = text.strip_prefix(&format!("registry {} ", registry.url())).unwrap_or(&text).to_owned();
                return report.fail("reach", &text, false);
            }
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
