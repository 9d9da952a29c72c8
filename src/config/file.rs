//! The configuration file as a whole.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::account::{AccountConfig, AccountSection, Defaults};
use super::explain::{ConfigError, did_you_mean, explain};
use super::kafka::KafkaSection;
use super::limits::{CONFIG_BYTES_MAX, ProcessLimits};
use super::name::{NAME_RULE, is_name};
use super::network::{NetworkSection, variable};
use super::providers::{ProviderPaths, ProviderTexts, provider_texts};
use super::registry::{RegistryConfig, RegistrySection};
use super::secret::{Purpose, Secret};
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
    pub accounts: Vec<AccountConfig>,
    /// The files that it was read from, with their texts: this file and those of `[providers]`.
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
    account: Vec<AccountSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpSection {
    /// IP address and port of the page for Prometheus, e.g. `"127.0.0.1:9464"`.
    listen: String,
    token_file: Option<PathBuf>,
}

/// The HTTP listener.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// What requests have to show.
    pub token: Option<Secret>,
}

impl PartialEq for HttpConfig {
    fn eq(&self, other: &HttpConfig) -> bool {
        let same_token = match (&self.token, &other.token) {
            (Some(one), Some(other)) => one.is_at(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.listen == other.listen && same_token
    }
}

impl HttpSection {
    fn check(self) -> Result<HttpConfig, String> {
        let HttpSection { listen, token_file } = self;
        let address: SocketAddr = listen.parse().map_err(|_| {
            format!("[http] listen = {listen:?} is not an IP address with a port; → listen = \"127.0.0.1:9464\"")
        })?;
        let token = token_file.map(|path| Secret::file(Purpose::Token, path));
        // The page has names of people.
        if token.is_none() && !address.ip().is_loopback() {
            return Err(format!(
                "[http] listen = \"{address}\" can be reached from other machines, and there is no token; \
                 → token_file, or listen = \"127.0.0.1:{}\"",
                address.port()
            ));
        }
        Ok(HttpConfig { listen: address, token })
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
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// One line with the file, the line number if it is known, the complaint and the remedy.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = read(path)?;
        let mut config = Config::parse(&path.display().to_string(), &text)?;
        config.files.insert(path.to_owned(), text);
        Ok(config)
    }

    /// Checks the text of a configuration. `file`: its name in messages; paths in `[providers]` are relative to its folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
        let parsed: File = toml::from_str(text).map_err(|error| explain(file, text, &error))?;
        parsed.check(folder(file)).map_err(|complaint| ConfigError(format!("{file}: {complaint}")))
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
    pub fn select(&self, names: &[String]) -> Result<Vec<AccountConfig>, ConfigError> {
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
    fn check(self, folder: &Path) -> Result<Config, String> {
        let providers = provider_texts(&self.providers, folder)?;
        let files = self.providers.iter().map(|(name, path)| (folder.join(path), providers[name].clone())).collect();
        let (create_topics, replication) = (self.kafka.create_topics, self.kafka.replication);
        let proxy = self.network.proxy(variable)?;
        let (kafka, kafka_files) = self.kafka.check(self.outputs.topics(), proxy.as_ref())?;
        let register = self.registry.register;
        let registry = self.registry.check(proxy.as_ref()).map_err(|complaint| format!("[registry] {complaint}"))?;
        let http = self.http.map(HttpSection::check).transpose()?;
        let memory = self.limits.memory()?;
        let mut names = HashSet::new();
        let mut accounts = Vec::new();
        for (number, section) in (1..).zip(self.account) {
            let name = section.name.clone();
            if !is_name(&name) {
                return Err(format!(
                    "[[account]] number {number}: {NAME_RULE}; → choose one for good, it is part of every key"
                ));
            }
            if !names.insert(name.clone()) {
                return Err(format!("two accounts are named `{name}`; → give each [[account]] its own name"));
            }
            let account = section
                .check(&kafka, &self.defaults, &providers, proxy.as_ref())
                .map_err(|complaint| format!("[[account]] {name}: {complaint}"))?;
            accounts.push(account);
        }
        if accounts.is_empty() {
            return Err("no [[account]] is configured".to_owned());
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
