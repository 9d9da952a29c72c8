//! Connection settings shared by every Kafka client of the process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as Error;
use secrecy::{ExposeSecret, SecretString};
use tracing::debug;

use super::cause::{Cause, FailedConnection, Failures};
use super::certificate::{self, Trusted};
use super::credentials::{Credentials, Given, SecretProperty};
use super::error::{Meaning, PERMIT, in_words, is_unreachable, meaning, meaning_of};
use super::oauth::Tokens;
use super::partition::partition_of;
use crate::directory::Problem;
use crate::log::Topic;
use crate::service::ServiceError;

/// How long librdkafka does not fetch after its queue was full. A reader takes the 100,000 records of a full queue in a
/// quarter of a second. With librdkafka's 1,000 ms it then waits for more than half of the time of a long read.
const FETCH_BACKOFF: (&str, &str) = ("fetch.queue.backoff.ms", "10");

/// How much a reader holds that is not yet read, in KiB. librdkafka's 64 MiB stay with the process long after a restore,
/// and make none faster.
const FETCH_QUEUE: (&str, &str) = ("queued.max.messages.kbytes", "16384");

/// How soon librdkafka connects again after a broken connection, at first. It lets half of this pass between any two
/// connections of a client, also between the bootstrap server and the first broker. With librdkafka's 100 ms, each new
/// client takes 50 to 100 ms longer to begin.
const FIRST_RECONNECT: (&str, &str) = ("reconnect.backoff.ms", "20");

/// How long librdkafka waits at most before a reader connects again. With librdkafka's 10 s, a reader that loses its
/// broker a second time, while the broker is starting, has no broker for so long.
const RECONNECT_BACKOFF: (&str, &str) = ("reconnect.backoff.max.ms", "1000");

/// Where the certificates of CAs are, unless configured. The OpenSSL that is built in knows no folder of the system;
/// librdkafka then looks at the usual places.
const CA_PROBE: (&str, &str) = ("ssl.ca.location", "probe");

/// The SASL mechanism of clients with tokens (RFC 7628).
pub const OAUTHBEARER: &str = "OAUTHBEARER";

/// For Kafka to say why it does not show a topic.
const NAME_WAIT: Duration = Duration::from_secs(5);

fn missing(name: &str) -> Problem {
    Problem::new(format!("{name} does not exist")).with_remedy("scimtail topics --create")
}

/// The problem of a topic that this user may not describe.
pub fn hidden(name: &str) -> Problem {
    Problem::new(format!("topic {name} may not be described (ACL), so that it is not known whether it exists"))
        .with_remedy(PERMIT)
}

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
    /// Properties whose values are secrets. They win over `properties`.
    pub secrets: BTreeMap<String, SecretProperty>,
    /// For SASL OAUTHBEARER.
    pub tokens: Option<Tokens>,
    /// Why connections of the clients that are made from this one fail.
    pub failures: Failures,
}

/// Sends librdkafka's own lines to our log, at the level `debug`, and keeps why connections fail.
#[derive(Clone, Debug, Default)]
pub struct Quiet {
    failures: Failures,
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.failures.take(facility, message);
        // Lines hold what servers say.
        debug!(facility, message = %message.escape_debug(), "librdkafka");
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

    /// The same with a property of librdkafka, unless it is configured.
    pub fn with(&self, (name, value): (&str, &str)) -> KafkaClient {
        let mut client = self.clone();
        client.properties.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        client
    }

    pub fn partition_of(&self, account: &str) -> i32 {
        partition_of(account, self.partitions)
    }

    /// Configured properties, then `ours`, on which correctness depends.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn config(&self, ours: &[(&str, &str)]) -> Result<ClientConfig, ServiceError> {
        // Before librdkafka does it, which lets OpenSSL free what it has when the process exits. Threads of librdkafka
        // may still use it then, and the process would end by a signal (SIGSEGV), although its work is done.
        openssl_sys::init();
        let mut config = ClientConfig::new();
        // Metrics that are pushed to the broker would name this client to the broker's operator: off unless configured.
        config.set("enable.metrics.push", "false");
        // A topic that is gone is a fact to report. A producer would ask the broker for a new one of the same name,
        // with the broker's default settings.
        config.set("allow.auto.create.topics", "false");
        // By this name brokers show, count and limit it.
        config.set("client.id", format!("scimtail-{}", self.topic_prefix));
        // librdkafka takes one source of CAs only.
        if ["ssl.ca.location", "ssl.ca.pem", "ssl.ca.certificate.stores"]
            .iter()
            .all(|name| self.property(name).is_none() && !self.secrets.contains_key(*name))
        {
            config.set(CA_PROBE.0, CA_PROBE.1);
        }
        if self.tokens.is_some() {
            config.set("sasl.mechanism", OAUTHBEARER);
        }
        config.set(FIRST_RECONNECT.0, FIRST_RECONNECT.1);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for (name, secret) in &self.secrets {
            let value =
                (secret.read)().map_err(|text| ServiceError::refused(format!("[kafka.secrets] \"{name}\": {text}")))?;
            config.set(name, value.expose_secret());
        }
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in ours {
            config.set(*name, *value);
        }
        // librdkafka decides by `debug` which lines of that level there are; without it there are none.
        let debugs = self.properties.contains_key("debug");
        // Some lines about failed connections have the level of information.
        config.set_log_level(if debugs { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        Ok(config)
    }

    /// A consumer that is told what to read; it joins no group and commits nothing.
    ///
    /// # Errors
    /// A property that librdkafka does not take, or no token is issued.
    pub fn reader(&self, isolation: &str) -> Result<BaseConsumer<Quiet>, ServiceError> {
        let mut config = self.config(&[
            ("isolation.level", isolation),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            // A position outside the log is a fact to report, not to skip over.
            ("auto.offset.reset", "error"),
            ("group.id", &format!("{}-reader", self.topic_prefix)),
        ])?;
        for (name, value) in [FETCH_BACKOFF, FETCH_QUEUE, RECONNECT_BACKOFF] {
            if !self.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        self.consumer(&config)
    }

    /// A consumer of the group that neither joins it nor reads.
    ///
    /// # Errors
    /// A property that librdkafka does not take, or no token is issued.
    pub fn reader_of(&self, group: &str) -> Result<BaseConsumer<Quiet>, ServiceError> {
        let config = self.config(&[("group.id", group), ("enable.auto.commit", "false")])?;
        self.consumer(&config)
    }

    /// A consumer that asks `brokers` and reads nothing. It names no group, because librdkafka would look for the
    /// group's coordinator, and rdkafka would wait for a tenth of a second when the consumer ends.
    ///
    /// # Errors
    /// A property that librdkafka does not take, or no token is issued.
    pub fn asking(&self, brokers: &str, isolation: &str) -> Result<BaseConsumer<Quiet>, ServiceError> {
        let mut config = self.config(&[("isolation.level", isolation)])?;
        config.set("bootstrap.servers", brokers);
        config.remove("group.id");
        self.consumer(&config)
    }

    fn consumer(&self, config: &ClientConfig) -> Result<BaseConsumer<Quiet>, ServiceError> {
        let made = config.create_with_context(self.context());
        let consumer: BaseConsumer<Quiet> = made.map_err(|error| KafkaClient::misconfigured(&error))?;
        self.credentials().give(consumer.client(), &Given::default())?;
        Ok(consumer)
    }

    /// Where the credentials of a client come from that may change while it lives.
    pub fn credentials(&self) -> Credentials {
        const LOGIN: [&str; 2] = ["sasl.username", "sasl.password"];
        let fixed = |name: &str| {
            let value = SecretString::from(self.property(name)?.to_owned());
            Some(SecretProperty { place: name.to_owned(), read: Arc::new(move || Ok(value.clone())) })
        };
        let part = |name: &str| self.secrets.get(name).cloned().or_else(|| fixed(name));
        let changes = LOGIN.iter().any(|name| self.secrets.contains_key(*name));
        let login = part(LOGIN[0]).zip(part(LOGIN[1])).filter(|_| changes);
        Credentials { tokens: self.tokens.clone(), login }
    }

    /// The context of a client that does nothing but ask.
    pub fn context(&self) -> Quiet {
        Quiet { failures: self.failures.clone() }
    }

    /// No broker answers: says why, if that is known. Whatever the cause, Kafka answered once, and may do so again.
    pub fn unreachable(&self) -> ServiceError {
        if let Some(failure) = self.tokens.as_ref().and_then(Tokens::failure) {
            return ServiceError::Unreachable(failure.problem().clone());
        }
        let problem = self.failures.newest().map(|failed| failed.problem(self.mechanism()));
        ServiceError::Unreachable(problem.unwrap_or_else(|| {
            Problem::new(format!("kafka {}: no broker answers", self.brokers))
                .with_remedy("check kafka.brokers, [kafka.properties] and that Kafka runs")
        }))
    }

    /// No broker answers the first question: as [`KafkaClient::unreachable`], but refused if a person has to act. Asks
    /// the broker what is wrong with its certificate, if that is the cause. Blocks for a few seconds at most.
    pub fn no_contact(&self) -> ServiceError {
        if let Some(failure) = self.tokens.as_ref().and_then(Tokens::failure) {
            return failure;
        }
        let Some(failed) = self.failures.newest().filter(FailedConnection::needs_person) else {
            return self.unreachable();
        };
        let trusted = self.trusted().filter(|_| failed.cause == Cause::Certificate);
        let certificate = trusted.and_then(|trusted| certificate::problem(&failed.broker, trusted));
        let certificate = certificate.map(|problem| problem.of(&format!("kafka {}", failed.broker)));
        ServiceError::Refused(certificate.unwrap_or_else(|| failed.problem(self.mechanism())))
    }

    fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// The SASL mechanism. librdkafka knows it by two names, and its default is GSSAPI.
    fn mechanism(&self) -> &str {
        if self.tokens.is_some() {
            return OAUTHBEARER;
        }
        self.property("sasl.mechanism").or(self.property("sasl.mechanisms")).unwrap_or("GSSAPI")
    }

    /// The CAs that connections trust; `None` if only librdkafka can tell.
    fn trusted(&self) -> Option<Trusted<'_>> {
        if self.secrets.keys().any(|name| name.starts_with("ssl.ca")) {
            return None;
        }
        match (self.property("ssl.ca.pem"), self.property("ssl.ca.location")) {
            (Some(pem), _) => Some(Trusted::Pem(pem)),
            (None, Some(path)) if path != CA_PROBE.1 => (!Path::new(path).is_dir()).then_some(Trusted::File(path)),
            _ => Some(Trusted::System),
        }
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

    /// As [`KafkaClient::explain`], for a topic. librdkafka calls a topic missing that this user may not describe, so
    /// Kafka is asked for it by its name. Blocks.
    pub fn explain_topic(&self, asking: &BaseConsumer<Quiet>, name: &str, error: &Error) -> ServiceError {
        if meaning(error) != Meaning::Missing {
            return self.explain(name, error);
        }
        let Ok(metadata) = asking.fetch_metadata(Some(name), NAME_WAIT) else { return self.unreachable() };
        let code = metadata.topics().iter().find(|topic| topic.name() == name).and_then(|topic| topic.error());
        match code.map(|code| meaning_of(code.into())) {
            Some(Meaning::TopicRefused) => self.refused(hidden(name)),
            Some(Meaning::Missing) => self.refused(missing(name)),
            _ => self.unreachable(),
        }
    }

    /// The error of a call that concerns `what`: a topic by its name, or what was done.
    pub fn explain(&self, what: &str, error: &Error) -> ServiceError {
        // A client that has lost its brokers forgets topics too, so a topic is missing only while brokers answer.
        let forgotten = meaning(error) == Meaning::Missing && self.failures.newest().is_some();
        if is_unreachable(error) || forgotten {
            return self.unreachable();
        }
        self.refused(match meaning(error) {
            Meaning::Missing => missing(what),
            _ => in_words(error).of(what),
        })
    }
}

/// The version of the library behind all clients.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
