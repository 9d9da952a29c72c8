//! `providers`: how each vendor's directory is read, with the source of every fact; as `docs/providers.md` too.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::{CONFIG_FILE, CONFIGURATION, DONE, Failure, print};
use crate::config::{self, Config, ProviderTexts};
use crate::scim::layers::{Fact, facts, names};
use crate::scim::profile::{
    AbsentActive, Auth, EmptyMembers, Inactive, Memberships, Operation, Paging, Profile, RemovalProof,
};

#[derive(Debug, Args)]
pub struct Options {
    /// Show every field of this provider [default: a table of all]
    name: Option<String>,
    /// Print docs/providers.md
    #[arg(long, conflicts_with = "name")]
    markdown: bool,
}

pub fn providers(config: &Path, options: &Options) -> Result<u8, Failure> {
    if options.markdown {
        // The page is about the shipped profiles, wherever it is printed.
        print(markdown()?.trim_end())?;
        return Ok(DONE);
    }
    // This command is for those who have no configuration yet, too.
    let texts = match config.exists() || config != Path::new(CONFIG_FILE) {
        true => Config::providers(config)?,
        false => ProviderTexts::new(),
    };
    match &options.name {
        Some(name) => one(name, &texts)?,
        None => all(&texts)?,
    }
    Ok(DONE)
}

/// A profile with its fields as they stand in TOML.
struct Provider {
    profile: Profile,
    facts: Vec<Fact>,
}

impl Provider {
    fn read(name: &str, texts: &ProviderTexts) -> Result<Provider, Failure> {
        let wrong = |text: String| Failure::new(CONFIGURATION, text);
        Ok(Provider {
            profile: config::provider(name, texts).map_err(wrong)?,
            facts: facts(name, texts).map_err(wrong)?,
        })
    }

    fn value(&self, field: &str) -> &str {
        self.facts.iter().find(|fact| fact.field == field).and_then(|fact| fact.value.as_deref()).unwrap_or("-")
    }

    /// An account of this provider for the configuration file.
    fn example(&self) -> String {
        let name = &self.profile.name;
        let variable = name.to_uppercase().replace(['-', '.'], "_");
        let mut lines =
            vec!["[[account]]".to_owned(), format!("name = \"acme-{name}\""), format!("provider = \"{name}\"")];
        if self.profile.base_url.is_none() {
            let url = self.profile.template("base_url").unwrap_or("https://acme.example/scim/v2");
            lines.push(format!("base_url = \"{url}\""));
        }
        match self.profile.auth {
            Auth::Bearer | Auth::ApiKey => lines.push(format!("token_env = \"{variable}_SCIM_TOKEN\"")),
            Auth::Basic => {
                lines.push("username = \"…\"".to_owned());
                lines.push(format!("password_env = \"{variable}_SCIM_PASSWORD\""));
            }
            Auth::Oauth2 => {
                lines.push("client_id = \"…\"".to_owned());
                lines.push(format!("client_secret_env = \"{variable}_CLIENT_SECRET\""));
                if self.profile.token_url.is_none() {
                    let url = self.profile.template("token_url").unwrap_or("https://acme.example/oauth2/token");
                    lines.push(format!("token_url = \"{url}\""));
                }
            }
        }
        if lines.len() < 5 {
            lines.push("interval = \"5m\"".to_owned());
        }
        lines.join("\n")
    }
}

const HEADING: Style = Style::new().bold();
const DEFAULT: Style = Style::new().dimmed();
const UNVERIFIED: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const NAME: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const NOTE: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));

/// Pads before colouring: escapes have no width.
fn painted(style: Style, text: &str, width: usize) -> String {
    format!("{style}{text:width$}{style:#}")
}

fn all(texts: &ProviderTexts) -> Result<(), Failure> {
    const COLUMNS: [&str; 8] = ["provider", "vendor", "auth", "paging", "rows", "inactive", "memberships", "removal"];
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for name in names(texts) {
        let provider = Provider::read(name, texts)?;
        let value = |field: &str| provider.value(field).to_owned();
        let memberships = if provider.profile.groups { value("memberships") } else { "no groups".to_owned() };
        let means = provider.profile.removal_means.as_ref().map_or_else(String::new, |means| format!(", {means}"));
        rows.push([
            name.to_owned(),
            value("title"),
            value("auth"),
            value("paging"),
            value("page_size"),
            value("inactive"),
            memberships,
            format!("{}{means}", value("removal_proof")),
        ]);
    }
    let widths: Vec<usize> =
        (0..COLUMNS.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    // Nothing follows the last column: spaces there would only wrap.
    let width = |column| if column + 1 < COLUMNS.len() { widths[column] } else { 0 };
    for (line, row) in rows.iter().enumerate() {
        let cell = |(column, text): (usize, &String)| match (line, column) {
            (0, _) => painted(HEADING, text, width(column)),
            (_, 0) => painted(NAME, text, width(column)),
            _ => painted(Style::new(), text, width(column)),
        };
        print(&row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  "))?;
    }
    Ok(())
}

/// A longer value pushes its source to a line of its own.
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
        let source = painted(style, &source, 0);
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
    print("")?;
    for line in provider.example().lines() {
        print(line)?;
    }
    Ok(())
}

/// Where a fact comes from, in words for people.
fn source(fact: &Fact, profile: &Profile) -> String {
    let said = fact.source.as_deref();
    match (&fact.value, fact.field) {
        (None, "base_url") => "the account has to say".to_owned(),
        (None, "token_url") if profile.auth == Auth::Oauth2 => "the account has to say".to_owned(),
        (None, _) => "not set".to_owned(),
        (Some(_), _) if fact.default && profile.name != "generic" => {
            said.map_or_else(|| "safe default (generic)".to_owned(), |said| format!("safe default (generic): {said}"))
        }
        (Some(_), _) => said.unwrap_or("no source").to_owned(),
    }
}

/// How the page of [`markdown`] is made; the test that compares it says this too.
pub const REGENERATE: &str = "cargo run -- providers --markdown > docs/providers.md";

/// `docs/providers.md`: for each shipped profile what is read, what cannot be read, and the source of each.
///
/// # Errors
/// A shipped profile that does not parse.
pub fn markdown() -> Result<String, Failure> {
    let texts = ProviderTexts::new();
    let providers =
        names(&texts).into_iter().map(|name| Provider::read(name, &texts)).collect::<Result<Vec<_>, _>>()?;
    let mut page = format!(
        "<!-- Generated from src/scim/providers/*.toml by `{REGENERATE}`; do not edit. -->\n\n{INTRODUCTION}\n"
    );
    for provider in &providers {
        let Provider { profile, facts } = provider;
        let value = |field: &str| {
            let default = facts.iter().any(|fact| fact.field == field && fact.default);
            if default { format!("*{}*", provider.value(field)) } else { provider.value(field).to_owned() }
        };
        let memberships = if profile.groups { value("memberships") } else { "no groups".to_owned() };
        page.push_str(&format!(
            "| [{name}](#{name}) | {} | {} | {} | {} | {memberships} | {} |\n",
            profile.title,
            value("auth"),
            value("paging"),
            value("inactive"),
            profile.removal_means.as_deref().unwrap_or("*removed*"),
            name = profile.name,
        ));
    }
    for provider in &providers {
        page.push_str(&section(provider));
    }
    Ok(page)
}

const INTRODUCTION: &str = "\
# Providers

What is read from each vendor's directory, what cannot be read, and where that is known from. *Safe default*, or
just italics: nobody documented it, so it is as in `generic`. **unverified**: general knowledge or second-hand. Sources
of what a table calls a note stand below it.

`scimtail check` shows what an endpoint really does, `scimtail providers NAME` every field and an account to begin with.
`[account.profile]` overrides single fields for an account, `[providers]` adds and replaces whole profiles.

| provider | vendor | credential | paging | inactive users | memberships | a vanished user is |
|---|---|---|---|---|---|---|";

fn section(provider: &Provider) -> String {
    let Provider { profile, .. } = provider;
    let mut text = format!(
        "\n## {}\n\n{}. Where the credential is: {}.\n\n| what | how | source |\n|---|---|---|\n",
        profile.name, profile.title, profile.token_hint
    );
    let rows = rows(profile);
    for Row { topic, how, fields } in &rows {
        let notes = profile.notes.iter().filter(|note| note.topic == *topic || beside(topic).contains(&&*note.topic));
        let notes: Vec<&str> = notes.map(|note| note.text.as_str()).collect();
        let mut sources = cited(provider, fields);
        sources.extend((!notes.is_empty()).then(|| "note".to_owned()));
        let how: Vec<&str> = [how.as_str()].into_iter().chain(notes).collect();
        text.push_str(&line(topic, &how.join("; "), &sources.join("; ")));
    }
    let told = |note: &str| rows.iter().any(|row| row.topic == note || beside(row.topic).contains(&note));
    // What cannot be read stands last.
    for last in [false, true] {
        for note in profile.notes.iter().filter(|note| !told(&note.topic) && (note.topic == "not read") == last) {
            let topic = if last { "**not read**" } else { note.topic.as_str() };
            text.push_str(&line(topic, &note.text, "note"));
        }
    }
    let source = |field: &str| marked(profile.sources.get(field).map_or("no source", String::as_str));
    text.push_str(&format!("\nCredential: {}.", source("token_hint")));
    if !profile.notes.is_empty() {
        text.push_str(&format!(" Notes: {}.", source("notes")));
    }
    text.push('\n');
    text
}

fn line(topic: &str, how: &str, source: &str) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    format!("| {} | {} | {} |\n", cell(topic), cell(how), cell(source))
}

/// Topics of notes that belong to a row of another name.
fn beside(topic: &str) -> &'static [&'static str] {
    match topic {
        "address" => &["base_url"],
        "credential" => &["token_url", "token"],
        _ => &[],
    }
}

/// The sources of those fields that the vendor's profile sets itself; else whether a default holds.
fn cited(provider: &Provider, fields: &[&str]) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    let facts = || provider.facts.iter().filter(|fact| fields.contains(&fact.field));
    for source in facts().filter(|fact| !fact.default).filter_map(|fact| fact.source.as_deref()) {
        if !sources.iter().any(|known| known == source) {
            sources.push(marked(source));
        }
    }
    if sources.is_empty() && facts().any(|fact| fact.default) {
        sources.push("*safe default*".to_owned());
    }
    sources
}

fn marked(source: &str) -> String {
    source.replace("unverified", "**unverified**")
}

/// One line of a vendor's table: what is read, and the fields that say so.
struct Row {
    topic: &'static str,
    how: String,
    fields: Vec<&'static str>,
}

fn rows(profile: &Profile) -> Vec<Row> {
    let row = |topic, fields: &[&'static str], how: String| Row { topic, how, fields: fields.to_vec() };
    let mut rows = vec![
        row(
            "address",
            &["base_url"],
            profile.base_url.as_ref().map_or_else(|| "`base_url` of the account".to_owned(), |url| format!("`{url}`")),
        ),
        row("credential", &["auth", "auth_header", "auth_prefix", "token_url", "scope"], credential(profile)),
        row("users", &["users_path"], format!("all that `{}` lists", profile.users_path)),
        row("inactive", &["inactive", "absent_active"], inactive(profile)),
    ];
    if profile.groups {
        rows.extend([
            row("groups", &["groups_path", "groups"], format!("all that `{}` lists", profile.groups_path)),
            row("members", &["memberships", "empty_members", "member_cap"], members(profile)),
            row("nested", &["filter_is_direct"], nested(profile)),
        ]);
    } else {
        rows.push(row("groups", &["groups"], "none are read".to_owned()));
    }
    rows.extend([
        row("removal", &["removal_proof", "removal_means"], removal(profile)),
        row("paging", &["paging", "page_size", "trust_total"], paging(profile)),
        row("limits", &["rate_limits"], limits(profile)),
    ]);
    if let Some(pattern) = &profile.group_pattern {
        rows.push(row("entitlement", &["group_pattern"], format!("group names `{pattern}`")));
    }
    rows
}

fn credential(profile: &Profile) -> String {
    match profile.auth {
        Auth::Bearer => "bearer token".to_owned(),
        Auth::Basic => "username and password".to_owned(),
        Auth::ApiKey if profile.auth_prefix.is_empty() => format!("API key alone in `{}`", profile.auth_header),
        Auth::ApiKey => format!("API key behind `{}` in `{}`", profile.auth_prefix, profile.auth_header),
        Auth::Oauth2 => {
            let from = profile.token_url.as_ref().map_or("`token_url` of the account".to_owned(), |u| format!("`{u}`"));
            let scope = profile.scope.as_ref().map_or_else(String::new, |scope| format!(", scope `{scope}`"));
            format!("OAuth2 client credentials, tokens from {from}{scope}")
        }
    }
}

fn inactive(profile: &Profile) -> String {
    let stay = match profile.inactive {
        Inactive::Listed => "read where they are listed, with `active` false",
        Inactive::Hidden => "lists leave them out, GET by id finds them",
        Inactive::Removed => "not read: they are gone from lists",
    };
    match profile.absent_active {
        AbsentActive::Unknown => stay.to_owned(),
        AbsentActive::True => format!("{stay}; a user without `active` is active"),
        AbsentActive::False => format!("{stay}; a user without `active` is disabled"),
    }
}

fn members(profile: &Profile) -> String {
    let how = match profile.memberships {
        Memberships::Auto => "`members` in the list of groups, else in GET of each group",
        Memberships::List => "`members` in the list of groups",
        Memberships::Get => "`members` in GET of each group",
        Memberships::GroupsFilter => "a list of users filtered by `groups.value`, for each group",
        Memberships::MembersFilter => "a list of groups filtered by `members.value`, for each user",
        Memberships::User => "`groups` of each user",
        Memberships::Never => "not read",
    };
    let in_group = matches!(profile.memberships, Memberships::Auto | Memberships::List | Memberships::Get);
    let empty = match profile.empty_members {
        EmptyMembers::None if in_group => "; a group without `members` has none",
        EmptyMembers::Unknown if in_group => "; if no group shows any, memberships are unknown",
        _ => "",
    };
    let cap = profile.member_cap.map(|cap| format!("; exactly {cap} members may be a cut-off list: unknown"));
    format!("{how}{empty}{}", cap.unwrap_or_default())
}

fn nested(profile: &Profile) -> String {
    let text = match (profile.memberships, profile.filter_is_direct) {
        (Memberships::Auto | Memberships::List | Memberships::Get, _) => {
            "direct members; a group among them is read as a member of its own type"
        }
        (Memberships::GroupsFilter | Memberships::MembersFilter, true) => {
            "direct members; a group inside a group is not shown"
        }
        (Memberships::GroupsFilter | Memberships::MembersFilter, false) => {
            "direct and indirect members are not told apart; a group inside a group is not shown"
        }
        (Memberships::User, _) => "direct or indirect as the user's `groups` say; a group inside a group is not shown",
        (Memberships::Never, _) => "not read",
    };
    text.to_owned()
}

fn removal(profile: &Profile) -> String {
    let proof = match profile.removal_proof {
        RemovalProof::Get => "proven by GET by id, where that works",
        RemovalProof::Absence => "proven by absence from several complete walks",
    };
    let means = profile.removal_means.as_ref().map(|means| format!("; a vanished user is {means}"));
    format!("{proof}{}", means.unwrap_or_default())
}

fn paging(profile: &Profile) -> String {
    let how = match profile.paging {
        Paging::Auto => "`startIndex`, or cursors where the server offers them",
        Paging::Index => "`startIndex`",
        Paging::Cursor => "cursors, or `startIndex` where the server offers none",
        Paging::CursorForced => "cursors only",
        Paging::None => return "none: one answer holds everything".to_owned(),
    };
    let total = if profile.trust_total { "" } else { "; `totalResults` is not relied on" };
    format!("{how}; {} rows a page{total}", profile.page_size)
}

fn limits(profile: &Profile) -> String {
    if profile.rate_limits.is_empty() {
        return "no number is known; 429 and `Retry-After` are obeyed".to_owned();
    }
    let texts = profile.rate_limits.iter().map(|limit| {
        let of = match limit.of {
            None => "all requests",
            Some(Operation::ListUsers) => "list of users",
            Some(Operation::ListGroups) => "list of groups",
            Some(Operation::GetUser) => "GET of a user",
            Some(Operation::GetGroup) => "GET of a group",
        };
        format!("{of}: {} in {} s", limit.requests, limit.per.as_secs())
    });
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_every_provider_is_an_account_that_the_configuration_accepts() {
        const REST: &str = "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:8081\"\n";
        let texts = ProviderTexts::new();
        for name in names(&texts) {
            let provider = Provider::read(name, &texts).unwrap();
            let example = provider.example();
            assert!(example.lines().count() >= 5, "{example}");
            Config::parse("scimtail.toml", &format!("{REST}{example}\n")).unwrap();
        }
    }

    #[test]
    fn topics_of_notes_fit_the_column_that_check_gives_them() {
        let texts = ProviderTexts::new();
        for name in names(&texts) {
            for note in Provider::read(name, &texts).unwrap().profile.notes {
                assert!(note.topic.len() <= "entitlement".len(), "{name}: {}", note.topic);
                assert!(!note.text.contains('\n') && !note.text.ends_with('.'), "{name}: {}", note.text);
            }
        }
    }
}
