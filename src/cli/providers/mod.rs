//! `providers`: how each vendor's directory is read, with the source of every fact, on the terminal or as
//! `docs/providers.md`.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use clap::Args;

mod evidence;
mod page;
mod provider;

use super::failure::{Exit, Failure};
use super::output::print;
use super::table::{Cell, Table, room};
use crate::config::{Config, ProviderTexts};
use crate::scim::layers::{Fact, names};
use crate::scim::profile::{Auth, Profile};
use provider::Provider;

pub use page::{REGENERATE, markdown};

#[derive(Debug, Args)]
pub struct Options {
    /// Show every field of this provider [default: a table of all]
    name: Option<String>,
    /// Do not cut the table to the width of the terminal
    #[arg(long)]
    wide: bool,
    /// Print docs/providers.md
    #[arg(long, conflicts_with = "name")]
    markdown: bool,
}

/// `config`: the configuration file; `None` without one.
///
/// # Errors
/// The configuration cannot be used, or the provider is unknown.
pub fn providers(config: Option<&Path>, options: &Options) -> Result<Exit, Failure> {
    if options.markdown {
        // The page is about the shipped profiles only, so the configuration does not matter.
        print(markdown()?.trim_end())?;
        return Ok(Exit::Done);
    }
    let texts = config.map(Config::providers).transpose()?.unwrap_or_default();
    match &options.name {
        Some(name) => one(name, &texts)?,
        None => all(&texts, options.wide)?,
    }
    Ok(Exit::Done)
}

const HEADING: Style = Style::new().bold();
const DEFAULT: Style = Style::new().dimmed();
const UNVERIFIED: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const NAME: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const NOTE: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));

fn all(texts: &ProviderTexts, wide: bool) -> Result<(), Failure> {
    const COLUMNS: [&str; 8] = ["provider", "vendor", "auth", "paging", "rows", "inactive", "memberships", "removal"];
    let mut table = Table::new(COLUMNS.map(|name| Cell::new(name).styled(HEADING)));
    for name in names(texts) {
        let provider = Provider::read(name, texts)?;
        if provider.profile.unreadable.is_some() {
            let empty = || Cell::new("");
            let [title, cannot] = [provider.value("title"), "cannot be read"].map(Cell::new);
            table.row([Cell::new(name).styled(NAME), title, empty(), empty(), empty(), empty(), cannot, empty()]);
            continue;
        }
        let value = |field: &str| Cell::new(provider.value(field));
        let memberships = if provider.profile.groups { value("memberships") } else { Cell::new("no groups") };
        let means = provider.profile.removal_means.as_ref().map_or_else(String::new, |means| format!(", {means}"));
        table.row([
            Cell::new(name).styled(NAME),
            value("title"),
            value("auth"),
            value("paging"),
            value("page_size"),
            value("inactive"),
            memberships,
            Cell::new(&format!("{}{means}", provider.value("removal_proof"))),
        ]);
    }
    table.lines(room(wide)).iter().try_for_each(|line| print(line))
}

/// The source of a longer value is printed on a line of its own.
const VALUE_WIDTH: usize = 36;

fn one(name: &str, texts: &ProviderTexts) -> Result<(), Failure> {
    let provider = Provider::read(name, texts)?;
    let width = provider.facts.iter().map(|fact| fact.field.len()).max().unwrap_or(0);
    print(&format!("{NAME}{name}{NAME:#}  {}", provider.profile.title))?;
    for fact in provider.facts.iter().filter(|fact| fact.field != "title") {
        let (value, source) = (fact.value.as_deref().unwrap_or("-"), source(fact, &provider.profile));
        let style = match (fact.default || fact.value.is_none(), source.starts_with("unverified")) {
            (true, _) => DEFAULT,
            (_, true) => UNVERIFIED,
            _ => Style::new(),
        };
        let source = format!("{style}{source}{style:#}");
        let field = fact.field;
        if value.chars().count() > VALUE_WIDTH {
            print(&format!("  {field:width$}  {value}"))?;
            print(&format!("  {:width$}  {:VALUE_WIDTH$}  {source}", "", ""))?;
        } else {
            print(&format!("  {field:width$}  {value:VALUE_WIDTH$}  {source}"))?;
        }
    }
    for note in &provider.profile.notes {
        print(&format!("  {NOTE}note{NOTE:#}  {:10}  {}", note.topic, note.text))?;
    }
    if provider.profile.unreadable.is_some() {
        return Ok(());
    }
    print("")?;
    for line in provider.example().lines() {
        print(line)?;
    }
    Ok(())
}

/// The source of a fact, in words for people.
fn source(fact: &Fact, profile: &Profile) -> String {
    let said = fact.source.as_deref();
    match (&fact.value, fact.field) {
        (None, "base_url") => "set by the account".to_owned(),
        (None, "token_url") if profile.auth == Auth::Oauth2 => "set by the account".to_owned(),
        (None, _) => "not set".to_owned(),
        (Some(_), _) if fact.default && profile.name != "generic" => {
            said.map_or_else(|| "safe default (generic)".to_owned(), |said| format!("safe default (generic): {said}"))
        }
        (Some(_), _) => said.unwrap_or("no source").to_owned(),
    }
}
