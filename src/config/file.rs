//! The configuration file as a whole.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::account::{AccountConfig, AccountSection, Defaults, Shared};
use super::account_files;
use super::explain::{ConfigError, did_you_mean, explain, line_at};
use super::http::{HttpConfig, HttpSection};
use super::kafka::KafkaSection;
use super::limits::{CONFIG_BYTES_MAX, ProcessLimits};
use super::name::{NAME_RULE, is_name};
use super::network::{NetworkSection, variable};
use super::providers::{ProviderPaths, ProviderTexts, provider_texts};
use super::registry::{RegistryConfig, RegistrySection};
use crate::kafka::KafkaClient;
use crate::log::Topic;
use crate::transport::file::{NamedFile, read_text};

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub kafka: KafkaClient,
    /// Files of `[kafka.secrets]` and `[kafka.oauth]`.
    pub kafka_files: Vec<NamedFile>,
    pub create_topics: bool,
    /// The replication factor of new topics; -1: the default of the brokers.
    pub replication: i32,
    pub registry: RegistryConfig,
    pub register: bool,
    pub accounts: Vec<Arc<AccountConfig>>,
    /// The files that it was read from, with their texts: this file, those of `[providers]` and those of `accounts.d`.
    pub files: BTreeMap<PathBuf, String>,
    /// The HTTP listener; `None` without one.
    pub http: Option<HttpConfig>,
    /// Bytes of memory of the process; `None` if they are chosen at start.
    pub memory: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kafka: KafkaSection,
    registry: RegistrySection,
    #[serde(default)]
    network: NetworkSection,
    #[serde(default)]
    defaults: Defaults,
    http: Option<HttpSection>,
    #[serde(default)]
    limits: ProcessLimits,
    #[serde(default)]
    outputs: OutputsSection,
    /// Path of the TOML file of a profile, relative to the folder of this file. A shipped profile of that name is replaced.
    #[serde(default)]
    providers: ProviderPaths,
    #[serde(default)]
    account: Vec<Spanned<AccountSection>>,
}

/// An `[[account]]` and its place.
struct Placed {
    section: AccountSection,
    file: String,
    line: usize,
}

impl Placed {
    fn all(sections: Vec<Spanned<AccountSection>>, file: &str, text: &str) -> Vec<Placed> {
        let placed = |section: Spanned<AccountSection>| {
            let line = line_at(text, section.span().start);
            Placed { section: section.into_inner(), file: file.to_owned(), line }
        };
        sections.into_iter().map(placed).collect()
    }
}

/// `[outputs.ocsf]`, `[outputs.ecs]`: events as JSON in their own topics. The sections have no keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputsSection {
    /// `[outputs.ocsf]`, a section without keys, adds the topic `scim.events.ocsf`: OCSF 1.8.0.
    ocsf: Option<OutputSection>,
    /// `[outputs.ecs]`, a section without keys, adds the topic `scim.events.ecs`: Elastic Common Schema.
    ecs: Option<OutputSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputSection {}

impl OutputsSection {
    fn topics(&self) -> Vec<Topic> {
        let named = [(&self.ocsf, Topic::EventsOcsf), (&self.ecs, Topic::EventsEcs)];
        named.into_iter().filter(|(section, _)| section.is_some()).map(|(_, topic)| topic).collect()
    }
}

impl Config {
    /// Reads and checks a configuration file, and the files of `accounts.d` beside it.
    ///
    /// # Errors
    /// One line with the file, the line number if it is known, the complaint and the remedy.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = read(path)?;
        let mut beside = BTreeMap::new();
        for (path, text) in account_files::read(&account_files::folder_of(path))? {
            let text = text.map_err(|error| account_files::unreadable(&path, &error))?;
            beside.insert(path, text);
        }
        let mut config = Config::merged(&path.display().to_string(), &text, &beside)?;
        config.files.append(&mut beside);
        config.files.insert(path.to_owned(), text);
        Ok(config)
    }

    /// Checks the text of a configuration. `file`: its name in messages; paths in `[providers]` are relative to its folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
        Config::merged(file, text, &BTreeMap::new())
    }

    /// `beside`: the files of `accounts.d`.
    fn merged(file: &str, text: &str, beside: &BTreeMap<PathBuf, String>) -> Result<Config, ConfigError> {
        let mut parsed: File = toml::from_str(text).map_err(|error| explain(file, text, &error))?;
        let mut accounts = Placed::all(std::mem::take(&mut parsed.account), file, text);
        for (path, text) in beside {
            let name = path.display().to_string();
            accounts.extend(Placed::all(account_files::parse(&name, text)?, &name, text));
        }
        parsed.check(file, accounts)
    }

    /// Reads only `[providers]` of a configuration file.
    ///
    /// # Errors
    /// As [`Config::load`], for syntax and `[providers]`.
    pub fn providers(path: &Path) -> Result<ProviderTexts, ConfigError> {
        #[derive(Deserialize)]
        struct Only {
            #[serde(default)]
            providers: ProviderPaths,
        }
        let (file, text) = (path.display().to_string(), read(path)?);
        let only: Only = toml::from_str(&text).map_err(|error| explain(&file, &text, &error))?;
        provider_texts(&only.providers, folder(&file)).map_err(|complaint| ConfigError(format!("{file}: {complaint}")))
    }

    /// True if both differ in accounts only. Any other change takes a restart.
    pub fn has_services_of(&self, other: &Config) -> bool {
        self.kafka == other.kafka
            && self.create_topics == other.create_topics
            && self.replication == other.replication
            && self.registry == other.registry
            && self.register == other.register
            && self.http == other.http
            && self.memory == other.memory
    }

    /// The accounts of these names; all if there are no names.
    ///
    /// # Errors
    /// A name is not configured; names the nearest one that is.
    pub fn select(&self, names: &[String]) -> Result<Vec<Arc<AccountConfig>>, ConfigError> {
        if names.is_empty() {
            return Ok(self.accounts.clone());
        }
        names
            .iter()
            .map(|name| {
                let known = || self.accounts.iter().map(|config| config.account.name.as_str());
                self.accounts.iter().find(|config| config.account.name == *name).cloned().ok_or_else(|| {
                    ConfigError(format!("no account `{name}` is configured{}", did_you_mean(name, known())))
                })
            })
            .collect()
    }
}

impl File {
    /// `placed`: all accounts, in the order in which commands show them.
    fn check(self, file: &str, placed: Vec<Placed>) -> Result<Config, ConfigError> {
        let here = |complaint: String| ConfigError(format!("{file}: {complaint}"));
        let folder = folder(file);
        let providers = provider_texts(&self.providers, folder).map_err(here)?;
        let files = self.providers.iter().map(|(name, path)| (folder.join(path), providers[name].clone())).collect();
        let (create_topics, replication) = (self.kafka.create_topics, self.kafka.replication);
        let proxy = self.network.proxy(variable).map_err(here)?;
        let (kafka, kafka_files) = self.kafka.check(self.outputs.topics(), proxy.as_ref()).map_err(here)?;
        let register = self.registry.register;
        let registry =
            self.registry.check(proxy.as_ref()).map_err(|complaint| here(format!("[registry] {complaint}")))?;
        let http = self.http.map(HttpSection::check).transpose().map_err(here)?;
        let memory = self.limits.memory().map_err(here)?;
        if placed.is_empty() {
            return Err(here("no [[account]] is configured; → add one here, or a file of accounts.d".to_owned()));
        }
        let mut places: HashMap<String, String> = HashMap::new();
        let (mut accounts, mut shared) = (Vec::new(), Shared::default());
        for Placed { section, file, line } in placed {
            let (name, place) = (section.name.clone(), format!("{file}:{line}"));
            let there = |complaint: String| ConfigError(format!("{place}: {complaint}"));
            if !is_name(&name) {
                return Err(there(format!("[[account]]: {NAME_RULE}; → choose one for good, it is part of every key")));
            }
            if let Some(other) = places.get(&name) {
                return Err(there(format!(
                    "two accounts are named `{name}`, the other one is at {other}; → give each [[account]] its own name"
                )));
            }
            let account = section
                .check(&kafka, &self.defaults, &providers, proxy.as_ref(), &mut shared)
                .map_err(|complaint| there(format!("[[account]] {name}: {complaint}")))?;
            places.insert(name, place);
            accounts.push(Arc::new(account));
        }
        Ok(Config { kafka, kafka_files, create_topics, replication, registry, register, accounts, files, http, memory })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    read_text(path, CONFIG_BYTES_MAX).map_err(|error| {
        ConfigError(format!("{}: cannot be read ({}); → scimtail --config FILE", path.display(), error.kind()))
    })
}

fn folder(file: &str) -> &Path {
    Path::new(file).parent().unwrap_or(Path::new(""))
}
