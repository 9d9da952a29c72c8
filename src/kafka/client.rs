//! Connection settings shared by every Kafka client of the process.

use std::collections::BTreeMap;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError as Error;
use tracing::debug;

use super::error::{Meaning, in_words, is_unreachable, meaning};
use super::partition::partition_of;
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

/// How long librdkafka does not fetch after its queue was full. A reader takes the 100,000 records of a full queue in a
/// quarter of a second. With librdkafka's 1,000 ms it then waits for more than half of the time of a long read.
const FETCH_BACKOFF: (&str, &str) = ("fetch.queue.backoff.ms", "10");

/// How long librdkafka waits at most before a reader connects again. With librdkafka's 10 s, a reader that loses its
/// broker a second time, while the broker is starting, has no broker for so long.
const RECONNECT_BACKOFF: (&str, &str) = ("reconnect.backoff.max.ms", "1000");

/// The address of Kafka, and the names of scimtail's topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaClient {
    pub brokers: String,
    pub topic_prefix: String,
    pub partitions: i32,
    /// The topics of [`Topic::OUTPUTS`] that are written.
    pub outputs: Vec<Topic>,
    /// librdkafka properties as configured. They win over ours unless correctness depends on ours.
    pub properties: BTreeMap<String, String>,
}

/// Sends librdkafka's own lines to our log, at the level `debug`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: Error, _reason: &str) {
        debug!(%error, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

impl KafkaClient {
    pub fn topic(&self, topic: Topic) -> String {
        topic.name(&self.topic_prefix)
    }

    /// All topics that have to exist.
    pub fn topics(&self) -> Vec<Topic> {
        [&Topic::ALL[..], &self.outputs].concat()
    }

    pub fn partition_of(&self, account: &str) -> i32 {
        partition_of(account, self.partitions)
    }

    /// Configured properties, then `ours`, on which correctness depends.
    pub fn config(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Metrics that are pushed to the broker would name this client to the broker's operator: off unless configured.
        config.set("enable.metrics.push", "false");
        // A topic that is gone is a fact to report. A producer would ask the broker for a new one of the same name,
        // with the broker's default settings.
        config.set("allow.auto.create.topics", "false");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in ours {
            config.set(*name, *value);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// A consumer that is told what to read; it joins no group and commits nothing.
    ///
    /// # Errors
    /// A property that librdkafka does not take.
    pub fn reader(&self, isolation: &str) -> Result<BaseConsumer<Quiet>, ServiceError> {
        let mut config = self.config(&[
            ("isolation.level", isolation),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            // A position outside the log is a fact to report, not to skip over.
            ("auto.offset.reset", "error"),
            ("group.id", &format!("{}-reader", self.topic_prefix)),
        ]);
        for (name, value) in [FETCH_BACKOFF, RECONNECT_BACKOFF] {
            if !self.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        config.create_with_context(Quiet).map_err(|error| KafkaClient::misconfigured(&error))
    }

    /// No broker answers.
    pub fn unreachable(&self) -> ServiceError {
        let problem = Problem::new(format!("kafka {}: no broker answers", self.brokers));
        let remedy = "check kafka.brokers, [kafka.properties] and that Kafka runs";
        ServiceError::Unreachable(problem.with_remedy(remedy))
    }

    /// Kafka answers, and what it answers needs a person.
    pub fn refused(&self, problem: impl Into<Problem>) -> ServiceError {
        ServiceError::Refused(problem.into().of(&format!("kafka {}", self.brokers)))
    }

    /// Why librdkafka cannot be started with `[kafka.properties]`.
    pub fn misconfigured(error: &Error) -> ServiceError {
        let problem = in_words(error);
        ServiceError::Refused(Problem { what: format!("[kafka.properties] {}", problem.what), ..problem })
    }

    /// The error of a call that concerns `what`: a topic by its name, or what was done.
    pub fn explain(&self, what: &str, error: &Error) -> ServiceError {
        if is_unreachable(error) {
            return self.unreachable();
        }
        self.refused(match meaning(error) {
            Meaning::Missing => Problem::new(format!("{what} does not exist")).with_remedy("scimtail topics --create"),
            _ => in_words(error).of(what),
        })
    }
}
