//! `[kafka]`: brokers, topics and properties of librdkafka.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use url::Url;

use super::explain::is_word;
#[cfg(feature = "msk-iam")]
use super::msk_iam::MskIamSection;
use super::name::is_topic_prefix;
use super::network::ProxyConfig;
use super::oauth::OauthSection;
use super::secret::{Purpose, Secret};
use crate::kafka::KafkaClient;
use crate::kafka::cause::Failures;
use crate::kafka::client::OAUTHBEARER;
use crate::kafka::credentials::SecretProperty;
#[cfg(not(feature = "msk-iam"))]
use crate::kafka::oauth::Tokens;
use crate::log::Topic;
use crate::transport::file::NamedFile;

/// The largest number of partitions of a topic.
const PARTITIONS_MAX: i32 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSection {
    /// Brokers to begin with, each `host:port`.
    brokers: Vec<String>,
    /// Prefix of all topics, subjects and transactional ids, and the id of the consumer group. 1 to 200 letters, digits,
    /// `.`, `_` and `-`.
    #[serde(default = "default_prefix")]
    topic_prefix: String,
    /// Partition count of every topic. It never changes in place; a mismatch is refused.
    #[serde(default = "default_partitions")]
    partitions: i32,
    /// `false`: topics are only verified.
    #[serde(default = "default_create_topics")]
    pub create_topics: bool,
    /// Replication factor of created topics. `-1` is 3 on three brokers or more, and the default of the brokers on fewer.
    /// On three brokers or more two replicas acknowledge each record (`min.insync.replicas`), unless it is 1.
    #[serde(default = "default_replication")]
    pub replication: i32,
    /// Permits plain text to brokers off loopback.
    #[serde(default)]
    allow_plaintext: bool,
    /// Properties of librdkafka, passed on unchanged, e.g. `"security.protocol"`. `"transaction.timeout.ms"` (60 s) is how
    /// long a service waits for the end of a commit before it starts over.
    #[serde(default)]
    properties: BTreeMap<String, toml::Value>,
    /// Properties of librdkafka whose values are secrets, read again for each new connection:
    /// `"sasl.password" = { file = "…" }` or `{ env = "…" }`.
    #[serde(default)]
    secrets: BTreeMap<String, SecretPlace>,
    oauth: Option<OauthSection>,
    msk_iam: Option<MskIamSection>,
}

/// Without the feature, its keys are refused.
#[cfg(not(feature = "msk-iam"))]
#[derive(Debug, Deserialize)]
struct MskIamSection {}

#[cfg(not(feature = "msk-iam"))]
impl MskIamSection {
    fn check(self) -> Result<Tokens, String> {
        Err("is not part of this build; → build with --features msk-iam".to_owned())
    }
}

/// Where the value of a property is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretPlace {
    env: Option<String>,
    file: Option<PathBuf>,
}

/// Properties of librdkafka that are secrets.
const SECRET_PROPERTIES: [&str; 4] = ["sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password"];

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
    /// `outputs`: the topics of `[outputs]`; `proxy`: the one on the way to a token endpoint, unless it names another.
    ///
    /// # Errors
    /// The first wrong key, with the remedy. Never repeats a value that may hold a credential.
    pub fn check(
        self,
        outputs: Vec<Topic>,
        proxy: Option<&ProxyConfig>,
    ) -> Result<(KafkaClient, Vec<NamedFile>), String> {
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
        let mut files: Vec<NamedFile> = secrets.values().filter_map(Secret::named_file).cloned().collect();
        let (section, tokens) = match (self.oauth, self.msk_iam) {
            (Some(_), Some(_)) => {
                return Err("[kafka.oauth] and [kafka.msk_iam] are both given; → remove one of them".to_owned());
            }
            (Some(oauth), None) => {
                let checked = oauth.check(proxy).map_err(|complaint| format!("[kafka.oauth] {complaint}"))?;
                files.extend(checked.files().cloned());
                (Some("[kafka.oauth]"), Some(checked.tokens()))
            }
            (None, Some(msk_iam)) => {
                let tokens = msk_iam.check().map_err(|complaint| format!("[kafka.msk_iam] {complaint}"))?;
                (Some("[kafka.msk_iam]"), Some(tokens))
            }
            (None, None) => (None, None),
        };
        takes_tokens(&properties, &secrets, section)?;
        let client = KafkaClient {
            secrets: secrets.into_iter().map(|(name, secret)| (name, read_again(secret))).collect(),
            brokers: self.brokers.join(","),
            topic_prefix: self.topic_prefix,
            partitions: self.partitions,
            properties,
            tokens,
            outputs,
            failures: Failures::default(),
        };
        Ok((client, files))
    }
}

/// Refuses tokens that no client would use, and clients without the tokens that they need.
fn takes_tokens(
    properties: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, Secret>,
    section: Option<&str>,
) -> Result<(), String> {
    // librdkafka's own tokens need libcurl, which is not built in, or are unsigned.
    let is_of_tokens = |name: &&String| name.contains("sasl.oauthbearer.");
    if let Some(name) = properties.keys().chain(secrets.keys()).find(is_of_tokens) {
        return Err(format!(
            "`{name}` has no use here; → token_url, client_id and client_secret_file in [kafka.oauth]"
        ));
    }
    let mechanism = ["sasl.mechanism", "sasl.mechanisms"].iter().find_map(|name| properties.get(*name));
    let is_bearer = mechanism.is_some_and(|mechanism| mechanism.eq_ignore_ascii_case(OAUTHBEARER));
    let protocol = properties.get("security.protocol").map_or("", String::as_str);
    let has_sasl = ["sasl_ssl", "sasl_plaintext"].iter().any(|sasl| protocol.eq_ignore_ascii_case(sasl));
    match (section, mechanism) {
        (None, Some(_)) if is_bearer => Err(format!(
            "\"sasl.mechanism\" = \"{OAUTHBEARER}\" needs tokens; \
             → token_url, client_id and client_secret_file in [kafka.oauth]"
        )),
        (Some(section), Some(_)) if !is_bearer => Err(format!(
            "{section} has no use with another \"sasl.mechanism\"; \
             → \"sasl.mechanism\" = \"{OAUTHBEARER}\", or remove {section}"
        )),
        (Some(section), _) if !has_sasl => Err(format!(
            "{section} has no use without SASL; → \"security.protocol\" = \"sasl_ssl\" in [kafka.properties]"
        )),
        _ => Ok(()),
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
