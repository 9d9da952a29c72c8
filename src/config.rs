//! The configuration file: parsed once, before anything is connected to. Unknown keys are errors with their
//! line; credentials stand in the environment or in files, never here. Beside the defaults of
//! `SCIMTAIL_CONFIG`, `SCIMTAIL_LOG` and `USER` on the command line, only this module reads the environment.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use crate::batch::Bounds;
use crate::directory::{AttributeList, Baseline, GroupPattern, Limits};
use crate::failpoint;
use crate::kafka::KafkaClient;
use crate::pipeline::Account;
use crate::record::Topic;
use crate::scim::Scheme;
use crate::scim::address::is_loopback;
use crate::scim::profile::{self, Auth, Profile};

/// Bytes of a secret; a larger file holds none.
const SECRET_BYTES_MAX: u64 = 64 << 10;
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Everything the process needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub kafka: KafkaClient,
    pub create_topics: bool,
    /// -1: the broker's default.
    pub replication: i32,
    pub registry_url: String,
    pub register: bool,
    pub accounts: Vec<AccountConfig>,
    /// Address of the HTTP listener, if configured.
    pub http_listen: Option<String>,
}

/// One account: what a sync needs and how its directory is reached.
#[derive(Clone, Debug)]
pub struct AccountConfig {
    pub account: Account,
    pub profile: Profile,
    pub base_url: Url,
    pub scheme: Scheme,
    pub secret: Secret,
    pub allow_private: bool,
    pub interval: Duration,
}

impl AccountConfig {
    /// Whether both lead to the same syncs. The profile is compared by what it says of behaviour.
    pub fn is_same(&self, other: &AccountConfig) -> bool {
        let secret = match (&self.secret, &other.secret) {
            (Secret::Env(one), Secret::Env(other)) => one == other,
            (Secret::File(one), Secret::File(other)) => one == other,
            _ => false,
        };
        secret
            && self.scheme == other.scheme
            && self.account == other.account
            && self.base_url == other.base_url
            && self.allow_private == other.allow_private
            && self.interval == other.interval
    }
}

/// Where a secret stands; read anew for each sync and when it is refused, so that a rotated one takes effect.
#[derive(Clone, Debug)]
pub enum Secret {
    Env(String),
    File(PathBuf),
    /// Of the simulated directories of `demo` and of tests.
    Given(SecretString),
}

/// A configuration that cannot be used: one line with file, line number and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kafka: KafkaSection,
    registry: RegistrySection,
    #[serde(default)]
    defaults: Defaults,
    http: Option<HttpSection>,
    #[serde(default)]
    outputs: OutputsSection,
    #[serde(default)]
    providers: ProviderPaths,
    #[serde(default)]
    account: Vec<AccountSection>,
}

/// `[providers]`: name → a profile's TOML file, relative to the folder of the configuration.
type ProviderPaths = BTreeMap<String, PathBuf>;

/// Texts of profiles that add to the shipped ones or replace them, by name.
pub type ProviderTexts = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KafkaSection {
    brokers: Vec<String>,
    #[serde(default = "default_prefix")]
    topic_prefix: String,
    #[serde(default = "default_partitions")]
    partitions: i32,
    #[serde(default = "default_true")]
    create_topics: bool,
    #[serde(default = "default_replication")]
    replication: i32,
    #[serde(default)]
    allow_plaintext: bool,
    #[serde(default)]
    properties: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistrySection {
    url: String,
    #[serde(default = "default_true")]
    register: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpSection {
    listen: String,
}

/// `[outputs.ocsf]`, `[outputs.ecs]`: events as JSON in a topic of their own. Naming one is all there is to set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputsSection {
    ocsf: Option<OutputSection>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    interval: Option<String>,
    baseline: Option<BaselineName>,
    #[serde(default)]
    guard: GuardSection,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuardSection {
    max_ratio: Option<f64>,
    min_losses: Option<u64>,
    max_absolute: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BaselineName {
    State,
    Events,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountSection {
    name: String,
    provider: String,
    base_url: Option<String>,
    token_env: Option<String>,
    token_file: Option<PathBuf>,
    username: Option<String>,
    password_env: Option<String>,
    password_file: Option<PathBuf>,
    client_id: Option<String>,
    client_secret_env: Option<String>,
    client_secret_file: Option<PathBuf>,
    token_url: Option<String>,
    scope: Option<String>,
    interval: Option<String>,
    baseline: Option<BaselineName>,
    attributes: Option<Vec<String>>,
    group_pattern: Option<String>,
    #[serde(default)]
    guard: GuardSection,
    #[serde(default)]
    allow_private: bool,
    /// Single fields of the profile, for this account.
    #[serde(default)]
    profile: toml::Table,
}

fn default_prefix() -> String {
    "scim".to_owned()
}

fn default_partitions() -> i32 {
    12
}

fn default_replication() -> i32 {
    -1
}

fn default_true() -> bool {
    true
}

impl Config {
    /// # Errors
    /// One line that names the file, the line where there is one, the thing and the remedy.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&path.display().to_string(), &read(path)?)
    }

    /// # Errors
    /// As [`Config::load`]; `file` is its name in messages, and `[providers]` are looked for beside it.
    pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
        let parsed: File = toml::from_str(text).map_err(|error| explain(file, text, &error))?;
        parsed.check(folder(file)).map_err(|complaint| ConfigError(format!("{file}: {complaint}")))
    }

    /// What `[providers]` of a configuration adds; nothing else in the file is looked at.
    ///
    /// # Errors
    /// As [`Config::load`], as far as `[providers]` is concerned.
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

    /// The accounts named, or all of them.
    ///
    /// # Errors
    /// A name that is not configured, with the nearest one that is.
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
        let kafka = self.kafka;
        if kafka.brokers.is_empty() {
            return Err("[kafka] brokers is empty; → brokers = [\"localhost:9092\"]".to_owned());
        }
        if !(1..=10_000).contains(&kafka.partitions) {
            return Err("[kafka] partitions must be between 1 and 10000".to_owned());
        }
        let prefix_ok = !kafka.topic_prefix.is_empty()
            && kafka.topic_prefix.len() <= 200
            && kafka.topic_prefix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !prefix_ok {
            return Err("[kafka] topic_prefix may hold letters, digits, `.`, `_` and `-`".to_owned());
        }
        let properties: BTreeMap<String, String> = kafka
            .properties
            .into_iter()
            .map(|(name, value)| {
                let text = match value {
                    toml::Value::String(text) => text,
                    other => other.to_string(),
                };
                (name, text)
            })
            .collect();
        let protocol = properties.get("security.protocol").map_or("plaintext", String::as_str);
        let remote = kafka.brokers.iter().find(|broker| !is_local_broker(broker));
        if let Some(broker) = remote.filter(|_| protocol.eq_ignore_ascii_case("plaintext") && !kafka.allow_plaintext) {
            return Err(format!(
                "[kafka] {broker} would be reached in plain text; \
                 → \"security.protocol\" = \"ssl\" or \"sasl_ssl\" in [kafka.properties], or allow_plaintext = true"
            ));
        }
        let registry = Url::parse(&self.registry.url).map_err(|_| "[registry] url is not a URL".to_owned())?;
        if !matches!(registry.scheme(), "http" | "https") {
            return Err("[registry] url must begin with http:// or https://".to_owned());
        }
        if registry.username() != "" || registry.password().is_some() {
            return Err("[registry] url must not hold credentials".to_owned());
        }
        let client = KafkaClient {
            brokers: kafka.brokers.join(","),
            topic_prefix: kafka.topic_prefix,
            partitions: kafka.partitions,
            properties,
            outputs: self.outputs.topics(),
        };
        let mut names = HashSet::new();
        let mut accounts = Vec::new();
        for section in self.account {
            let name = section.name.clone();
            if !names.insert(name.clone()) {
                return Err(format!("two accounts are named `{name}`; → every [[account]] needs a name of its own"));
            }
            let account = section
                .check(&client, &self.defaults, &providers)
                .map_err(|complaint| format!("[[account]] {name}: {complaint}"))?;
            accounts.push(account);
        }
        if accounts.is_empty() {
            return Err("no [[account]] is configured".to_owned());
        }
        Ok(Config {
            kafka: client,
            create_topics: kafka.create_topics,
            replication: kafka.replication,
            registry_url: self.registry.url,
            register: self.registry.register,
            accounts,
            http_listen: self.http.map(|http| http.listen),
        })
    }
}

impl AccountSection {
    fn check(
        self,
        kafka: &KafkaClient,
        defaults: &Defaults,
        providers: &ProviderTexts,
    ) -> Result<AccountConfig, String> {
        if !is_account_name(&self.name) {
            return Err("a name is [a-z0-9][a-z0-9._-]{0,62}: it is part of every key and never changes".to_owned());
        }
        let profile = self.layered_profile(providers)?;
        let (scheme, secret) = self.credential(&profile)?;
        let base_url = self.base_url.or_else(|| profile.base_url.clone());
        let template = profile.template("base_url").unwrap_or("https://…/scim/v2");
        let base_url = base_url.ok_or_else(|| format!("base_url is missing; → base_url = \"{template}\""))?;
        let base_url = Url::parse(&base_url).map_err(|_| format!("base_url `{base_url}` is not a URL"))?;
        if base_url.scheme() != "https" && !(base_url.scheme() == "http" && is_loopback(&base_url)) {
            return Err("base_url must begin with https:// (http:// only on this machine)".to_owned());
        }
        if base_url.username() != "" || base_url.password().is_some() || base_url.query().is_some() {
            return Err("base_url must not hold credentials or a query; → token_env or token_file".to_owned());
        }
        let interval = self.interval.as_deref().or(defaults.interval.as_deref()).unwrap_or("5m");
        let interval = parse_duration(interval).map_err(|complaint| format!("interval {complaint}"))?;
        if interval < INTERVAL_MIN {
            return Err("interval must be at least 1s".to_owned());
        }
        let baseline = match self.baseline.or(defaults.baseline) {
            Some(BaselineName::Events) => Baseline::Events,
            Some(BaselineName::State) | None => Baseline::State,
        };
        let pattern = self.group_pattern.as_deref().or(profile.group_pattern.as_deref());
        let pattern = pattern.map(GroupPattern::parse).transpose()?;
        let attributes = match self.attributes {
            Some(paths) if paths.iter().any(String::is_empty) => {
                return Err("attributes holds an empty name".to_owned());
            }
            Some(paths) => AttributeList::new(paths),
            None => AttributeList::default(),
        };
        let account = Account {
            partition: kafka.partition_of(&self.name),
            topic_prefix: kafka.topic_prefix.clone(),
            provider: self.provider,
            attributes,
            pattern,
            profile_fingerprint: profile.fingerprint.clone(),
            habits: profile.habits(),
            baseline,
            batch: bounds(),
            outputs: kafka.outputs.clone(),
            limits: limits(self.guard, defaults.guard)?,
            name: self.name,
        };
        Ok(AccountConfig { account, profile, base_url, scheme, secret, allow_private: self.allow_private, interval })
    }

    /// Which keys an account needs follows from its profile's `auth`.
    fn credential(&self, profile: &Profile) -> Result<(Scheme, Secret), String> {
        let (how, keys) = match profile.auth {
            Auth::Bearer => ("a bearer token", ["token_env", "token_file"].as_slice()),
            Auth::ApiKey => ("an API key", ["token_env", "token_file"].as_slice()),
            Auth::Basic => ("a username and password", ["username", "password_env", "password_file"].as_slice()),
            Auth::Oauth2 => (
                "OAuth2 client credentials",
                ["client_id", "client_secret_env", "client_secret_file", "token_url", "scope"].as_slice(),
            ),
        };
        let taken = format!("{} takes {how}", profile.title);
        let given = [
            ("token_env", self.token_env.is_some()),
            ("token_file", self.token_file.is_some()),
            ("username", self.username.is_some()),
            ("password_env", self.password_env.is_some()),
            ("password_file", self.password_file.is_some()),
            ("client_id", self.client_id.is_some()),
            ("client_secret_env", self.client_secret_env.is_some()),
            ("client_secret_file", self.client_secret_file.is_some()),
            ("token_url", self.token_url.is_some()),
            ("scope", self.scope.is_some()),
        ];
        if let Some((stray, _)) = given.iter().find(|(key, given)| *given && !keys.contains(key)) {
            return Err(format!("{taken}: `{stray}` has no use here; → remove it, the keys are {}", keys.join(", ")));
        }
        let needed = |key: &'static str, value: Option<&str>| {
            let value = value.filter(|value| !value.trim().is_empty()).map(str::to_owned);
            value.ok_or_else(|| format!("{taken}: {key} is missing; → {key} = \"…\""))
        };
        let secret = |name: &str, variable: &Option<String>, file: &Option<PathBuf>| match (variable, file) {
            (Some(variable), None) => Ok(Secret::Env(variable.clone())),
            (None, Some(file)) => Ok(Secret::File(file.clone())),
            (None, None) => Err(format!("{taken}; → add either {name}_env or {name}_file")),
            (Some(_), Some(_)) => Err(format!("{name}_env and {name}_file are both given; → remove one")),
        };
        match profile.auth {
            Auth::Bearer => Ok((Scheme::Bearer, secret("token", &self.token_env, &self.token_file)?)),
            Auth::ApiKey => {
                let scheme = Scheme::api_key(&profile.auth_header, &profile.auth_prefix)?;
                Ok((scheme, secret("token", &self.token_env, &self.token_file)?))
            }
            Auth::Basic => {
                let scheme = Scheme::basic(&needed("username", self.username.as_deref())?)?;
                Ok((scheme, secret("password", &self.password_env, &self.password_file)?))
            }
            Auth::Oauth2 => {
                let client_id = needed("client_id", self.client_id.as_deref())?;
                let token_url = self.token_url.as_deref().or(profile.token_url.as_deref()).ok_or_else(|| {
                    let template = profile.template("token_url").unwrap_or("https://…/token");
                    format!("{taken}: token_url is missing; → token_url = \"{template}\"")
                })?;
                let token_url = Url::parse(token_url).map_err(|_| format!("token_url `{token_url}` is not a URL"))?;
                if token_url.scheme() != "https" && !(token_url.scheme() == "http" && is_loopback(&token_url)) {
                    return Err("token_url must begin with https:// (http:// only on this machine)".to_owned());
                }
                if token_url.username() != "" || token_url.password().is_some() || token_url.fragment().is_some() {
                    return Err("token_url must not hold credentials or a fragment; \
                                → client_id and client_secret_env or client_secret_file"
                        .to_owned());
                }
                // An empty scope asks for none where the profile would.
                let scope = self.scope.clone().or_else(|| profile.scope.clone()).filter(|scope| !scope.is_empty());
                let secret = secret("client_secret", &self.client_secret_env, &self.client_secret_file)?;
                Ok((Scheme::Oauth2 { client_id, token_url, scope }, secret))
            }
        }
    }
}

impl AccountSection {
    /// The provider's profile with what this account overrides.
    fn layered_profile(&self, providers: &ProviderTexts) -> Result<Profile, String> {
        let profile = provider(&self.provider, providers)?;
        if self.profile.is_empty() {
            return Ok(profile);
        }
        // By itself the provider's profile is right: what is wrong now stands in the account.
        Profile::layered(&self.provider, providers, self.profile.clone())
            .map_err(|complaint| format!("[account.profile] {}", in_profile(&self.provider, &complaint)))
    }
}

/// What one transaction may hold; a test makes it small, so that a sync of few changes takes several.
fn bounds() -> Bounds {
    let bounds = Bounds::default();
    Bounds { units: failpoint::number("batch.units").unwrap_or(bounds.units), ..bounds }
}

fn limits(own: GuardSection, defaults: GuardSection) -> Result<Limits, String> {
    let fallback = Limits::default();
    let max_ratio = own.max_ratio.or(defaults.max_ratio).unwrap_or(fallback.max_ratio);
    if !(0.0..=1.0).contains(&max_ratio) {
        return Err("guard.max_ratio is a share between 0 and 1, e.g. 0.2 for 20 %".to_owned());
    }
    Ok(Limits {
        max_ratio,
        min_losses: own.min_losses.or(defaults.min_losses).unwrap_or(fallback.min_losses),
        max_absolute: own.max_absolute.or(defaults.max_absolute).unwrap_or(fallback.max_absolute),
    })
}

fn is_account_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63 && name.starts_with(plain) && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}

fn is_local_broker(broker: &str) -> bool {
    Url::parse(&format!("kafka://{broker}")).is_ok_and(|url| match url.host_str() {
        Some(host) => {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    })
}

/// A duration with its unit: `90s`, `5m`, `1h 30m`.
///
/// # Errors
/// Says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; → a number with its unit, e.g. \"90s\", \"5m\", \"1h\"");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

impl Secret {
    /// Reads the secret as it is now, without white space around it.
    ///
    /// # Errors
    /// Names the variable or file, never its content.
    pub fn read(&self) -> Result<SecretString, String> {
        let (what, text) = match self {
            Secret::Given(secret) => return Ok(secret.clone()),
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
            Secret::Env(variable) => {
                let text = std::env::var(variable)
                    .map_err(|_| format!("environment variable {variable} is not set; → export {variable}=…"))?;
                (variable.clone(), text)
            }
            Secret::File(path) => {
                let what = format!("secret file {}", path.display());
                let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
                if size > SECRET_BYTES_MAX {
                    return Err(format!("{what} is larger than any secret"));
                }
                let text =
                    fs::read_to_string(path).map_err(|error| format!("{what} cannot be read ({})", error.kind()))?;
                (what, text)
            }
        };
        let secret = text.trim();
        if secret.is_empty() || secret.contains(char::is_control) {
            return Err(format!("{what} holds no usable secret (empty, or more than one line)"));
        }
        Ok(SecretString::from(secret.to_owned()))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| {
        ConfigError(format!("{}: cannot be read ({}); → scimtail --config FILE", path.display(), error.kind()))
    })
}

fn folder(file: &str) -> &Path {
    Path::new(file).parent().unwrap_or(Path::new(""))
}

/// Reads and checks every profile that `[providers]` names, those that no account uses too.
fn provider_texts(paths: &ProviderPaths, folder: &Path) -> Result<ProviderTexts, String> {
    let mut texts = ProviderTexts::new();
    for (name, path) in paths {
        if !is_account_name(name) {
            return Err(format!("[providers] {name}: a name is [a-z0-9][a-z0-9._-]{{0,62}}"));
        }
        let path = folder.join(path);
        let text = fs::read_to_string(&path).map_err(|error| {
            let path = path.display();
            format!("[providers] {name}: {path} cannot be read ({}); → relative to this file's folder", error.kind())
        })?;
        texts.insert(name.clone(), text);
    }
    for (name, path) in paths {
        let path = folder.join(path).display().to_string();
        let text = texts.get(name).map_or("", String::as_str);
        // First by itself: only so a syntax error has its line.
        toml::from_str::<toml::Table>(text)
            .map_err(|error| format!("[providers] {name}: {}", explain(&path, text, &error)))?;
        Profile::layered(name, &texts, toml::Table::new()).map_err(|complaint| {
            let line = line_of(text, &complaint).map_or_else(String::new, |line| format!(":{line}"));
            format!("[providers] {name}: {path}{line}: {}", in_profile(name, &complaint))
        })?;
    }
    Ok(texts)
}

/// The profile of a provider, shipped or among `texts`.
///
/// # Errors
/// Unknown name, with the nearest one there is.
pub fn provider(name: &str, texts: &ProviderTexts) -> Result<Profile, String> {
    let known = profile::names(texts);
    if !known.contains(&name) {
        let nearest = match did_you_mean(name, known.into_iter()) {
            none if none.is_empty() => ";".to_owned(),
            nearest => nearest,
        };
        return Err(format!("unknown provider `{name}`{nearest} → scimtail providers lists them"));
    }
    Profile::layered(name, texts, toml::Table::new())
}

/// A complaint about the fields of a profile, without its name and with the nearest key for an unknown one.
fn in_profile(name: &str, complaint: &str) -> String {
    let complaint = complaint.strip_prefix(&format!("profile {name}: ")).unwrap_or(complaint);
    match unknown_field(complaint) {
        Some((key, expected)) => {
            format!("unknown key `{key}`{}", did_you_mean(&key, expected.iter().map(String::as_str)))
        }
        None => complaint.to_owned(),
    }
}

/// The line that sets the first word of the complaint that is a key.
fn line_of(text: &str, complaint: &str) -> Option<usize> {
    let words = complaint.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).find_map(|word| {
        let sets = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == word);
        text.lines().position(sets).map(|index| index + 1)
    })
}

/// `file:line: message`, with the nearest key for an unknown one.
fn explain(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..offset).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let message = error.message();
    let message = match unknown_field(message) {
        Some((key, expected)) => {
            format!(
                "unknown key `{key}`{}{}",
                section(text, line),
                did_you_mean(&key, expected.iter().map(String::as_str))
            )
        }
        None => message.lines().collect::<Vec<_>>().join(" "),
    };
    ConfigError(format!("{file}:{line}: {message}"))
}

/// serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field ")?;
    let mut quoted = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    let key = quoted.next()?;
    Some((key, quoted.collect()))
}

/// ` in [[account]] name`, found from the lines around: the header above, and the name inside.
fn section(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let above = lines.get(..line.min(lines.len())).unwrap_or(&[]);
    let Some(start) = above.iter().rposition(|line| line.trim_start().starts_with('[')) else { return String::new() };
    let header = lines[start].split('#').next().unwrap_or("").trim();
    let inside = lines[start + 1..].iter().take_while(|line| !line.trim_start().starts_with('['));
    let name = inside
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "name")
        .map(|(_, value)| value.split('#').next().unwrap_or("").trim().trim_matches('"').to_owned());
    match name {
        Some(name) if is_account_name(&name) => format!(" in {header} {name}"),
        _ => format!(" in {header}"),
    }
}

fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    const SIMILAR: f64 = 0.7;
    let nearest = known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= SIMILAR);
    nearest.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[kafka]
brokers = ["localhost:9092"]
topic_prefix = "scim"
partitions = 12
create_topics = true
[kafka.properties]
"security.protocol" = "plaintext"

[registry]
url = "http://localhost:8081"
register = true

[defaults]
interval = "5m"
baseline = "state"
[defaults.guard]
max_ratio = 0.2
min_losses = 5
max_absolute = 500

[http]
listen = "127.0.0.1:9464"

[[account]]
name = "acme-stripe"
provider = "stripe"
token_env = "STRIPE_SCIM_TOKEN"

[[account]]
name = "acme-chargebee"
provider = "chargebee"
base_url = "https://acme.example/scim/v2"
token_file = "/run/secrets/chargebee"
interval = "1m"
attributes = ["userName", "displayName", "emails", "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department"]
"#;

    fn error(text: &str) -> String {
        Config::parse("scimtail.toml", text).unwrap_err().0
    }

    #[test]
    fn the_documented_example_is_accepted() {
        let config = Config::parse("scimtail.toml", GOOD).unwrap();
        assert_eq!(config.accounts.len(), 2);
        assert_eq!(config.accounts[0].base_url.as_str(), "https://access.stripe.com/scim/v2");
        assert_eq!(config.accounts[0].interval, Duration::from_secs(300));
        assert_eq!(config.accounts[1].interval, Duration::from_secs(60));
        assert_eq!(config.accounts[1].account.attributes.paths().len(), 4);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
        let text = GOOD.replace("interval = \"1m\"", "intervall = \"1m\"");
        assert_eq!(
            error(&text),
            "scimtail.toml:35: unknown key `intervall` in [[account]] acme-chargebee; did you mean `interval`?"
        );
        assert!(error(&GOOD.replace("partitions", "partitoins")).contains("did you mean `partitions`"));
    }

    #[test]
    fn each_bad_value_is_refused_with_its_remedy() {
        for (from, to, expected) in [
            ("name = \"acme-chargebee\"", "name = \"acme-stripe\"", "two accounts are named `acme-stripe`"),
            (
                "provider = \"stripe\"",
                "provider = \"strpe\"",
                "unknown provider `strpe`; did you mean `stripe`? → scimtail providers lists them",
            ),
            ("interval = \"1m\"", "interval = \"60\"", "`60` is not a duration"),
            ("interval = \"1m\"", "interval = 60", "invalid type"),
            ("name = \"acme-stripe\"", "name = \"Acme/Stripe\"", "[a-z0-9][a-z0-9._-]{0,62}"),
            (
                "provider = \"stripe\"",
                "provider = \"aws-identity-center\"",
                "→ base_url = \"https://scim.REGION.amazonaws.com/TENANT_ID/scim/v2\"",
            ),
            ("https://acme.example", "http://acme.example", "must begin with https://"),
            ("https://acme.example", "https://user:pass@acme.example", "must not hold credentials"),
            ("token_env = \"STRIPE_SCIM_TOKEN\"", "", "either token_env or token_file"),
            ("localhost:9092", "kafka.example:9092", "plain text"),
            ("max_ratio = 0.2", "max_ratio = 20", "between 0 and 1"),
            ("url = \"http://localhost:8081\"", "url = \"localhost\"", "[registry] url"),
            ("partitions = 12", "partitions = 0", "between 1 and 10000"),
            ("http://localhost:8081", "http://user:pass@localhost:8081", "[registry] url must not hold credentials"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = error(&GOOD.replacen(from, to, 1));
            assert!(error.contains(expected) && error.lines().count() == 1, "{to}: {error}");
        }
    }

    /// A configuration in a folder of its own, with the files beside it.
    fn load(text: &str, files: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files.iter().chain([&("scimtail.toml", text)]) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let loaded = Config::load(&folder.path().join("scimtail.toml"));
        loaded.map_err(|error| ConfigError(error.0.replace(&format!("{}/", folder.path().display()), "")))
    }

    const PROVIDERS: &str = "[providers]\nacme = \"acme.toml\"\nstripe = \"ours.toml\"\n";

    #[test]
    fn files_add_and_replace_profiles_and_an_account_overrides_single_fields() {
        let account = "[account.profile]\npage_size = 7\ngroups = false\n";
        let text = GOOD.replace("provider = \"chargebee\"", "provider = \"acme\"") + account + PROVIDERS;
        let acme = ("acme.toml", "title = \"Acme\"\ninactive = \"hidden\"");
        let ours = ("ours.toml", "extends = \"stripe\"\npage_size = 50");
        let config = load(&text, &[acme, ours]).unwrap();
        let profiles: Vec<&Profile> = config.accounts.iter().map(|account| &account.profile).collect();
        assert_eq!((profiles[0].page_size, profiles[0].groups), (50, true));
        assert_eq!((profiles[1].title.as_str(), profiles[1].page_size, profiles[1].groups), ("Acme", 7, false));
        assert_eq!(config.accounts[0].base_url.as_str(), "https://access.stripe.com/scim/v2");
        // What is recorded is the name, whoever provides the profile.
        assert_eq!(config.accounts[1].account.provider, "acme");
        assert_ne!(
            config.accounts[1].account.profile_fingerprint,
            provider("generic", &ProviderTexts::new()).unwrap().fingerprint
        );
    }

    #[test]
    fn a_bad_profile_is_named_with_its_file_its_line_and_the_nearest_key() {
        let ours = ("ours.toml", "extends = \"stripe\"");
        for (acme, expected) in [
            (
                "title = \"Acme\"\npagesize = 3",
                "scimtail.toml: [providers] acme: acme.toml:2: unknown key `pagesize`; did you mean `page_size`?",
            ),
            ("page_size = [\n", "scimtail.toml: [providers] acme: acme.toml:"),
            ("\npage_size = 0", "acme: acme.toml:2: page_size must be at least 1"),
            ("paging = \"magic\"", "acme: acme.toml:1: paging: unknown variant `magic`, expected one of `auto`"),
            ("extends = \"acme2\"", "acme: acme.toml: unknown provider `acme2`; there are acme, asana"),
        ] {
            let error = load(&(GOOD.to_owned() + PROVIDERS), &[("acme.toml", acme), ours]).unwrap_err().0;
            assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        }
        let missing = load(&(GOOD.to_owned() + PROVIDERS), &[ours]).unwrap_err().0;
        assert!(missing.contains("[providers] acme: acme.toml cannot be read"), "{missing}");
        let name = load(&GOOD.replace("[http]", "[providers]\n\"A/B\" = \"x\"\n[http]"), &[]).unwrap_err().0;
        assert!(name.contains("[providers] A/B: a name is"), "{name}");
    }

    #[test]
    fn a_bad_override_is_named_with_its_account_and_the_nearest_key() {
        let overridden = |line: &str| error(&format!("{GOOD}[account.profile]\n{line}\n"));
        assert_eq!(
            overridden("memberchips = \"get\""),
            "scimtail.toml: [[account]] acme-chargebee: [account.profile] unknown key `memberchips`; \
             did you mean `memberships`?"
        );
        assert!(overridden("page_size = 0").contains("acme-chargebee: [account.profile] page_size must be"));
        assert!(overridden("inactive = \"gone\"").contains("[account.profile] inactive: unknown variant `gone`"));
        assert!(overridden("extends = \"stripe\"").contains("[account.profile] unknown key `extends`"));
    }

    /// An account of a profile with this `auth`, and lines of its own.
    fn credential(auth: &str, lines: &str) -> Result<(Scheme, Secret), String> {
        let text = format!("name = \"acme\"\nprovider = \"generic\"\n{lines}");
        let section: AccountSection = toml::from_str(&text).unwrap();
        section.credential(&Profile::layered("generic", &BTreeMap::new(), toml::from_str(auth).unwrap()).unwrap())
    }

    #[test]
    fn the_keys_of_a_credential_follow_from_the_profile() {
        let api_key = "auth = \"api_key\"\nauth_header = \"X-Key\"\nauth_prefix = \"Key\"";
        let oauth2 = "auth = \"oauth2\"\ntoken_url = \"https://vendor.example/token\"\nscope = \"scim\"";
        let oauth2_keys = "client_id = \"a\"\nclient_secret_env = \"B\"\n";
        let token_url = |url: &str| Url::parse(url).unwrap();
        let scheme = |auth: &str, lines: &str| credential(auth, lines).unwrap().0;
        assert_eq!(scheme("auth = \"bearer\"", "token_env = \"A\""), Scheme::Bearer);
        assert_eq!(scheme(api_key, "token_file = \"a\""), Scheme::api_key("X-Key", "Key").unwrap());
        assert_eq!(scheme("auth = \"basic\"", "username = \"a\"\npassword_env = \"B\""), Scheme::basic("a").unwrap());
        let issued_at = |url: &str, scope: Option<&str>| Scheme::Oauth2 {
            client_id: "a".to_owned(),
            token_url: token_url(url),
            scope: scope.map(str::to_owned),
        };
        assert_eq!(scheme(oauth2, oauth2_keys), issued_at("https://vendor.example/token", Some("scim")));
        let own = format!("{oauth2_keys}token_url = \"https://acme.example/token?x=1\"\nscope = \"\"");
        assert_eq!(scheme(oauth2, &own), issued_at("https://acme.example/token?x=1", None));
        assert!(matches!(credential(oauth2, oauth2_keys).unwrap().1, Secret::Env(variable) if variable == "B"));
    }

    #[test]
    fn a_wrong_combination_of_credentials_says_what_to_add_or_remove() {
        for (auth, lines, words) in [
            ("bearer", "", "takes a bearer token; → add either token_env or token_file"),
            ("bearer", "token_env = \"A\"\ntoken_file = \"b\"", "both given; → remove one"),
            (
                "bearer",
                "token_env = \"A\"\nusername = \"b\"",
                "`username` has no use here; → remove it, the keys are token_env, token_file",
            ),
            ("api_key", "client_id = \"a\"", "takes an API key: `client_id` has no use here"),
            (
                "basic",
                "token_env = \"A\"",
                "`token_env` has no use here; → remove it, the keys are username, password_env",
            ),
            ("basic", "password_env = \"A\"", "username is missing; → username = "),
            ("basic", "username = \"a\"", "→ add either password_env or password_file"),
            ("basic", "username = \"a:b\"\npassword_env = \"C\"", "colon"),
            ("oauth2", "client_secret_env = \"A\"\ntoken_url = \"https://a.example\"", "client_id is missing"),
            (
                "oauth2",
                "client_id = \"a\"\nclient_secret_env = \"B\"",
                "token_url is missing; → token_url = \"https://",
            ),
            (
                "oauth2",
                "client_id = \"a\"\ntoken_url = \"https://a.example\"",
                "either client_secret_env or client_secret_file",
            ),
            ("oauth2", "client_id = \"a\"\ntoken_url = \"http://a.example\"", "token_url must begin with https://"),
            ("oauth2", "client_id = \"a\"\ntoken_url = \"https://a:b@a.example\"", "must not hold credentials"),
        ] {
            let error = credential(&format!("auth = \"{auth}\""), lines).unwrap_err();
            assert!(error.contains(words) && error.lines().count() == 1, "{auth}, {lines}: {error}");
        }
    }

    #[test]
    fn a_missing_secret_is_named_and_never_printed() {
        let missing = Secret::Env("SCIMTAIL_TEST_NO_SUCH_VARIABLE".into()).read().unwrap_err();
        assert!(missing.contains("SCIMTAIL_TEST_NO_SUCH_VARIABLE is not set"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "se\ncret\u{7}").unwrap();
        let unusable = Secret::File(file.path().to_owned()).read().unwrap_err();
        assert!(!unusable.contains("cret\u{7}") && unusable.contains("no usable secret"), "{unusable}");
        assert_eq!(format!("{:?}", Secret::Given("secret".to_owned().into())), "Given(SecretBox<str>([REDACTED]))");
    }
}
