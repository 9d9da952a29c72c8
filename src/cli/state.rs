//! `state`: who has what now, from the compacted topics, proven complete by the `syncs` marker.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{DONE, Failure, TRY_LATER, print};
use crate::avro::Registry;
use crate::config::{AccountConfig, Config};
use crate::directory::{Entitlement, Kind, Known, Principal, Status};
use crate::mapping::text::{clean, clock};

#[derive(Debug, Args)]
pub struct Options {
    /// What to list
    #[arg(value_enum)]
    what: What,
    /// Only these accounts [default: all]
    #[arg(long = "account", value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Form of the output [default: a table]
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Users,
    Groups,
    Memberships,
    /// Principal by group and entitlement, with names
    Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Csv,
}

/// Columns of each listing, in order.
fn columns(what: What) -> &'static [&'static str] {
    match what {
        What::Users => &["account", "id", "user_name", "display_name", "active", "email", "since"],
        What::Groups => &["account", "id", "display_name", "kind", "name", "members", "since"],
        What::Memberships => &["account", "principal_type", "principal_id", "group_id", "since"],
        What::Access => &["account", "principal", "active", "group", "kind", "name", "since"],
    }
}

pub async fn state(config: &Config, options: Options) -> Result<u8, Failure> {
    let registry = Registry::new(&config.registry_url)?;
    let mut complete = true;
    let mut rows = Vec::new();
    for account in config.select(&options.accounts)? {
        let known = super::read_state(&config.kafka, &registry, &account.account).await?;
        complete &= say_how_complete(&account.account.name, &known);
        rows.extend(list(options.what, &account, &known));
    }
    for line in render(columns(options.what), &rows, options.format) {
        print(&line)?;
    }
    Ok(if complete { DONE } else { TRY_LATER })
}

/// On standard error, so that the listing stays a listing.
fn say_how_complete(name: &str, known: &Known) -> bool {
    let (completed, latest) = (known.completed.as_ref(), known.latest.as_ref());
    let Some(completed) = completed else {
        anstream::eprintln!("{name}: no sync has completed yet; what is listed may be a part");
        return false;
    };
    let at = clock(completed.finished_at.unwrap_or(completed.started_at));
    if let Some(reason) = &known.repair {
        anstream::eprintln!("{name}: not complete: {reason}; the next sync that completes repairs it");
        return false;
    }
    let running = latest.is_some_and(|latest| latest.status == Status::Running);
    if running {
        anstream::eprintln!(
            "{name}: sync {} is being published; complete as of sync {}, {at} UTC, and part of the next",
            completed.sync + 1,
            completed.sync
        );
        return false;
    }
    anstream::eprintln!("{name}: complete as of sync {}, {at} UTC", completed.sync);
    if completed.memberships_read.is_none() {
        anstream::eprintln!(
            "{name}: memberships were not readable; they stand as of sync {}",
            completed.memberships_as_of.unwrap_or(0)
        );
    }
    true
}

fn list(what: What, account: &AccountConfig, known: &Known) -> Vec<Vec<Value>> {
    let name = &account.account.name;
    let since = |millis: i64| json!(clock(millis).split(' ').next().unwrap_or_default());
    let principals = |kind: Kind| -> BTreeMap<String, (Principal, i64)> {
        let table = known.table(kind);
        table
            .iter()
            .map(|(id, entry)| (id.to_string(), (entry.packed.unpack(id.clone()), entry.first_seen_at)))
            .collect()
    };
    let entitlement = |group: &Principal| -> Entitlement {
        let pattern = account.account.pattern.as_ref();
        pattern.zip(group.display_name.as_deref()).and_then(|(pattern, name)| pattern.decode(name)).unwrap_or_default()
    };
    let mut rows: Vec<Vec<Value>> = match what {
        What::Users => principals(Kind::User)
            .into_values()
            .map(|(user, at)| {
                vec![
                    json!(name),
                    json!(&*user.id),
                    json!(user.user_name),
                    json!(user.display_name),
                    json!(user.active),
                    json!(user.email),
                    since(at),
                ]
            })
            .collect(),
        What::Groups => principals(Kind::Group)
            .into_values()
            .map(|(group, at)| {
                let members = known.members(&group.id).map_or(0, |members| members.len());
                let Entitlement { kind, name: entitled, .. } = entitlement(&group);
                vec![
                    json!(name),
                    json!(&*group.id),
                    json!(group.display_name),
                    json!(kind),
                    json!(entitled),
                    json!(members),
                    since(at),
                ]
            })
            .collect(),
        What::Memberships => known
            .memberships()
            .map(|(group, member, membership)| {
                vec![
                    json!(name),
                    json!(member.kind.principal_type()),
                    json!(&*member.id),
                    json!(&**group),
                    since(membership.first_seen_at),
                ]
            })
            .collect(),
        What::Access => known
            .memberships()
            .map(|(group, member, membership)| {
                let principal = known.table(member.kind).principal(&member.id);
                let title = principal.as_ref().and_then(Principal::name).unwrap_or(&member.id).to_owned();
                let active = principal.and_then(|principal| principal.active);
                let group = known.table(Kind::Group).principal(group).unwrap_or_else(|| Principal::new(group.clone()));
                let Entitlement { kind, name: entitled, .. } = entitlement(&group);
                let group_name = group.display_name.clone().unwrap_or_else(|| group.id.to_string());
                vec![
                    json!(name),
                    json!(title),
                    json!(active),
                    json!(group_name),
                    json!(kind),
                    json!(entitled),
                    since(membership.first_seen_at),
                ]
            })
            .collect(),
    };
    rows.sort_by_cached_key(|row| row.iter().map(plain).collect::<Vec<_>>());
    rows
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

fn render(columns: &[&str], rows: &[Vec<Value>], format: Format) -> Vec<String> {
    match format {
        Format::Json => rows
            .iter()
            .map(|row| {
                let object: serde_json::Map<String, Value> =
                    columns.iter().zip(row).map(|(column, value)| ((*column).to_owned(), value.clone())).collect();
                Value::Object(object).to_string()
            })
            .collect(),
        Format::Csv => {
            let header = columns.join(",");
            let lines = rows.iter().map(|row| row.iter().map(|value| csv(&plain(value))).collect::<Vec<_>>().join(","));
            std::iter::once(header).chain(lines).collect()
        }
        Format::Text => {
            let cells: Vec<Vec<String>> =
                rows.iter().map(|row| row.iter().map(|value| clean(&plain(value))).collect()).collect();
            let width = |column: usize| {
                let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
                widest.max(columns[column].len())
            };
            let widths: Vec<usize> = (0..columns.len()).map(width).collect();
            let line = |row: Vec<&str>| {
                let cells: Vec<String> =
                    row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
                cells.join("  ").trim_end().to_owned()
            };
            std::iter::once(line(columns.to_vec()))
                .chain(cells.iter().map(|row| line(row.iter().map(String::as_str).collect())))
                .collect()
        }
    }
}

/// RFC 4180, and no cell that a spreadsheet would take for a formula.
fn csv(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
