//! Connection settings shared by every Kafka client of the process.

use std::collections::BTreeMap;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use tracing::debug;

use crate::log::Topic;

/// How long librdkafka does not fetch after its queue was full. A reader takes the 100,000 records of a full queue in a
/// quarter of a second, and with librdkafka's 1,000 ms then waits for the rest of it: more than half of a long read.
const FETCH_BACKOFF: (&str, &str) = ("fetch.queue.backoff.ms", "10");

/// How long librdkafka waits at most before a reader connects again. With its 10 s, a reader that lost its broker once more
/// while that was starting knows for so long of none.
const RECONNECT_BACKOFF: (&str, &str) = ("reconnect.backoff.max.ms", "1000");

/// Where Kafka is and how scimtail's topics are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaClient {
    pub brokers: String,
    pub topic_prefix: String,
    pub partitions: i32,
    /// Of [`Topic::OUTPUTS`], those that are written.
    pub outputs: Vec<Topic>,
    /// librdkafka properties as configured; they win over ours except where correctness depends on ours.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// Nobody answers: try later.
    #[error("{0}")]
    Unreachable(String),
    /// It answers and says no: a person has to act.
    #[error("{0}")]
    Refused(String),
}

/// Sends librdkafka's own lines to our log, where they are debugging detail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: rdkafka::error::KafkaError, _reason: &str) {
        debug!(%error, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

impl KafkaClient {
    pub fn topic(&self, topic: Topic) -> String {
        topic.name(&self.topic_prefix)
    }

    /// All topics there have to be.
    pub fn topics(&self) -> Vec<Topic> {
        [&Topic::ALL[..], &self.outputs].concat()
    }

    pub fn partition_of(&self, account: &str) -> i32 {
        super::partition_of(account, self.partitions)
    }

    /// Configured properties, then `ours`, on which correctness depends.
    pub fn config(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Metrics pushed to the broker would name this client to whoever runs it: off unless asked for.
        config.set("enable.metrics.push", "false");
        // A topic that is gone is a fact to report. A producer would ask the broker for a new one by its name, with
        // whatever settings it has for that.
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
    pub fn reader(&self, isolation: &str) -> Result<BaseConsumer<Quiet>, KafkaError> {
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
        config
            .create_with_context(Quiet)
            .map_err(|error| KafkaError::Refused(format!("[kafka.properties] {}", in_words(&error))))
    }

    pub fn unreachable(&self) -> KafkaError {
        KafkaError::Unreachable(format!(
            "kafka {}: no broker answers; → check kafka.brokers, [kafka.properties] and that Kafka runs",
            self.brokers
        ))
    }
}

/// What librdkafka says, without its client names.
pub fn in_words(error: &rdkafka::error::KafkaError) -> String {
    // librdkafka repeats the value it does not take, which may be a password: only the name is passed on.
    if let rdkafka::error::KafkaError::ClientConfig(_, _, name, _) = error {
        return format!("librdkafka does not take the property `{name}` or its value");
    }
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => {
            "the transactional.id is not permitted (ACL); → scimtail topics --print".to_owned()
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            "access to a topic is not permitted (ACL); → scimtail topics --print".to_owned()
        }
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
            "the consumer group is not permitted (ACL); → scimtail topics --print".to_owned()
        }
        Some(RDKafkaErrorCode::ClusterAuthorizationFailed) => {
            "idempotent writing is not permitted (ACL); → scimtail topics --print".to_owned()
        }
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge) => {
            "a record is larger than Kafka takes; → raise max.message.bytes of the topics to 1048588 or more".to_owned()
        }
        Some(RDKafkaErrorCode::MessageTimedOut) => {
            "a record was not acknowledged in time; → check the brokers and that enough replicas are up (min.insync.replicas)"
                .to_owned()
        }
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition,
        ) => "a topic or its partition does not exist; → scimtail topics".to_owned(),
        Some(RDKafkaErrorCode::OperationTimedOut) => "no answer in time".to_owned(),
        Some(RDKafkaErrorCode::InvalidTransactionTimeout) => {
            "transactions may not live that long here; → lower transaction.timeout.ms in [kafka.properties]".to_owned()
        }
        Some(RDKafkaErrorCode::SaslAuthenticationFailed) => "Kafka refuses the credentials (SASL)".to_owned(),
        Some(code) => format!("{code:?}"),
        None => error.to_string(),
    }
}

/// Errors that mean "nobody answers" rather than "no".
pub fn is_transport(error: &rdkafka::error::KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::LeaderNotAvailable
                // A topic just created, or a leader that moves: not yet, rather than no.
                | RDKafkaErrorCode::NotLeaderForPartition
        )
    )
}
