//! `[kafka]`: brokers, topics and properties of librdkafka.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use url::Url;

use super::explain::is_word;
use super::name::is_topic_prefix;
use super::secret::{Purpose, Secret};
use crate::kafka::KafkaClient;
use crate::kafka::cause::Failures;
use crate::kafka::client::SecretProperty;
use crate::log::Topic;
use crate::transport::file::NamedFile;

/// The largest number of partitions of a topic.
const PARTITIONS_MAX: i32 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSection {
    brokers: Vec<String>,
    #[serde(default = "default_prefix")]
    topic_prefix: String,
    #[serde(default = "default_partitions")]
    partitions: i32,
    #[serde(default = "default_create_topics")]
    pub create_topics: bool,
    /// -1: the default of the brokers.
    #[serde(default = "default_replication")]
    pub replication: i32,
    #[serde(default)]
    allow_plaintext: bool,
    #[serde(default)]
    properties: BTreeMap<String, toml::Value>,
    #[serde(default)]
    secrets: BTreeMap<String, SecretPlace>,
}

/// Where the value of a property is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretPlace {
    env: Option<String>,
    file: Option<PathBuf>,
}

/// Properties of librdkafka that are secrets.
const SECRET_PROPERTIES: [&str; 6] = [
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

fn default_prefix() -> String {
    "scim".to_owned()
}

fn default_partitions() -> i32 {
    12
}

fn default_replication() -> i32 {
    -1
}

fn default_create_topics() -> bool {
    true
}

impl KafkaSection {
    /// `outputs`: the topics of `[outputs]`.
    ///
    /// # Errors
    /// The first wrong key, with the remedy. Never repeats a value that may hold a credential.
    pub fn check(self, outputs: Vec<Topic>) -> Result<(KafkaClient, Vec<NamedFile>), String> {
        if self.brokers.is_empty() {
            return Err("[kafka] brokers is empty; → brokers = [\"localhost:9092\"]".to_owned());
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(format!("[kafka] partitions must be between 1 and {PARTITIONS_MAX}"));
        }
        if !is_topic_prefix(&self.topic_prefix) {
            return Err("[kafka] topic_prefix may hold letters, digits, `.`, `_` and `-`".to_owned());
        }
        // Messages about Kafka name the brokers, so they must not hold a credential.
        if self.brokers.iter().any(|broker| broker.contains(['@', '?', '#']) || broker.contains(char::is_whitespace)) {
            return Err("[kafka] brokers has more than host:port; \
                        → credentials are \"sasl.username\" in [kafka.properties] and \"sasl.password\" in [kafka.secrets]"
                .to_owned());
        }
        let properties: BTreeMap<String, String> =
            self.properties.into_iter().map(property).collect::<Result<_, String>>()?;
        let protocol = properties.get("security.protocol").map_or("plaintext", String::as_str);
        // Credentials in plain text are worse than none.
        let is_plain = ["plaintext", "sasl_plaintext"].iter().any(|plain| protocol.eq_ignore_ascii_case(plain));
        let remote = self.brokers.iter().find(|broker| !is_local_broker(broker));
        if let Some(broker) = remote.filter(|_| is_plain && !self.allow_plaintext) {
            return Err(format!(
                "[kafka] {broker} is reached in plain text; \
                 → \"security.protocol\" = \"ssl\" or \"sasl_ssl\" in [kafka.properties], or allow_plaintext = true"
            ));
        }
        let secrets: BTreeMap<String, Secret> = self
            .secrets
            .into_iter()
            .map(|(name, place)| secret(&name, place).map(|secret| (name, secret)))
            .collect::<Result<_, String>>()?;
        if let Some(name) = secrets.keys().find(|name| properties.contains_key(*name)) {
            return Err(format!(
                "`{name}` is in [kafka.properties] and in [kafka.secrets]; → remove it from [kafka.properties]"
            ));
        }
        let files = secrets.values().filter_map(Secret::named_file).cloned().collect();
        let client = KafkaClient {
            secrets: secrets.into_iter().map(|(name, secret)| (name, read_again(secret))).collect(),
            brokers: self.brokers.join(","),
            topic_prefix: self.topic_prefix,
            partitions: self.partitions,
            properties,
            outputs,
            failures: Failures::default(),
        };
        Ok((client, files))
    }
}

/// The place of the secret of one property.
fn secret(name: &str, place: SecretPlace) -> Result<Secret, String> {
    if !is_word(name) {
        return Err("[kafka.secrets] has a name that is not that of a property; \
                    → \"sasl.password\" = { file = \"…\" }"
            .to_owned());
    }
    match (place.env, place.file) {
        (Some(variable), None) => {
            Secret::env(Purpose::KafkaProperty, &variable).map_err(|text| format!("[kafka.secrets] {name}: {text}"))
        }
        (None, Some(path)) => Ok(Secret::file(Purpose::KafkaProperty, path)),
        (None, None) | (Some(_), Some(_)) => {
            Err(format!("[kafka.secrets] {name} takes one place; → {{ file = \"…\" }} or {{ env = \"…\" }}"))
        }
    }
}

fn read_again(secret: Secret) -> SecretProperty {
    SecretProperty { place: secret.to_string(), read: Arc::new(move || secret.read()) }
}

/// Secrets that are in the configuration itself.
pub fn secrets_in_plain_sight(client: &KafkaClient) -> impl Iterator<Item = &'static str> {
    SECRET_PROPERTIES.into_iter().filter(|name| client.properties.contains_key(*name))
}

/// A property of librdkafka as text.
fn property((name, value): (String, toml::Value)) -> Result<(String, String), String> {
    if !is_word(&name) {
        return Err("[kafka.properties] has a name that is not that of a property; \
                    → \"name\" = \"value\", e.g. \"security.protocol\" = \"sasl_ssl\""
            .to_owned());
    }
    match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
        // Without quotes, a name with dots is that of nested tables.
        toml::Value::Table(_) | toml::Value::Array(_) | toml::Value::Datetime(_) => Err(format!(
            "[kafka.properties] {name} is not a text, a number, true or false; \
             → put the whole name in quotes, e.g. \"security.protocol\" = \"sasl_ssl\""
        )),
    }
}

/// True for a broker on the loopback interface.
fn is_local_broker(broker: &str) -> bool {
    Url::parse(&format!("kafka://{broker}")).is_ok_and(|url| match url.host_str() {
        Some(host) => {
            host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    })
}
