//! `[kafka]`: brokers, topics and properties of librdkafka.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use url::Url;

use super::explain::is_word;
use super::name::is_topic_prefix;
use crate::kafka::KafkaClient;
use crate::log::Topic;

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

fn default_create_topics() -> bool {
    true
}

impl KafkaSection {
    /// `outputs`: the topics of `[outputs]`.
    ///
    /// # Errors
    /// The first wrong key, with the remedy. Never repeats a value that may hold a credential.
    pub fn check(self, outputs: Vec<Topic>) -> Result<KafkaClient, String> {
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
                        → credentials are \"sasl.username\" and \"sasl.password\" in [kafka.properties]"
                .to_owned());
        }
        let properties: BTreeMap<String, String> =
            self.properties.into_iter().map(property).collect::<Result<_, String>>()?;
        let protocol = properties.get("security.protocol").map_or("plaintext", String::as_str);
        let remote = self.brokers.iter().find(|broker| !is_local_broker(broker));
        if let Some(broker) = remote.filter(|_| protocol.eq_ignore_ascii_case("plaintext") && !self.allow_plaintext) {
            return Err(format!(
                "[kafka] {broker} is reached in plain text; \
                 → \"security.protocol\" = \"ssl\" or \"sasl_ssl\" in [kafka.properties], or allow_plaintext = true"
            ));
        }
        Ok(KafkaClient {
            brokers: self.brokers.join(","),
            topic_prefix: self.topic_prefix,
            partitions: self.partitions,
            properties,
            outputs,
        })
    }
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
