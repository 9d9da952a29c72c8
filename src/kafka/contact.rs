//! The first question to Kafka: which brokers and topics there are. It finds out whether Kafka can be reached at all.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;

use super::client::{KafkaClient, Quiet};
use super::credentials::Given;
use super::error::{Meaning, is_unreachable, meaning_of};
use crate::service::ServiceError;

/// Without an answer, if nothing says why.
pub const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Without an answer, if it is known why: another broker of the list may still answer.
const KNOWN_WAIT: Duration = Duration::from_secs(4);
/// Without an answer, if a person has to act. All brokers of a cluster are set up alike, but the first one that was
/// asked may be the one that is not.
const PERSON_WAIT: Duration = Duration::from_secs(2);
/// The first question. Each further one waits twice as long, because a large cluster answers slowly. Between two of
/// them the cause is looked at.
const QUESTION_WAIT: Duration = Duration::from_millis(500);
/// For librdkafka's lines, after each question.
const LINES_WAIT: Duration = Duration::from_millis(50);
/// For a connection to be set up, milliseconds; librdkafka's 30 s is longer than a person waits for a command.
/// `socket.connection.setup.timeout.ms` in `[kafka.properties]` wins.
pub const SETUP: (&str, &str) = ("socket.connection.setup.timeout.ms", "3000");

/// A client that asks and reads nothing.
pub struct Contact {
    client: KafkaClient,
    /// A consumer, because librdkafka's lines about connections come only to a client that is polled.
    consumer: BaseConsumer<Quiet>,
    given: Given,
}

impl Contact {
    /// # Errors
    /// A property that librdkafka does not take.
    pub fn new(client: &KafkaClient) -> Result<Contact, ServiceError> {
        let consumer = client.with(SETUP).asking(&client.brokers, "read_committed")?;
        Ok(Contact { client: client.clone(), consumer, given: Given::default() })
    }

    /// Brokers and topics, as one broker knows them. Without an answer it waits for `wait` at most, and less if it is
    /// known why there is none. Blocks.
    ///
    /// All topics are asked for at once: a question for one by name would create it if brokers create topics by
    /// themselves.
    ///
    /// # Errors
    /// No broker answers: refused if a person has to act.
    pub fn ask(&self, wait: Duration) -> Result<Metadata, ServiceError> {
        let client = &self.client;
        let began = Instant::now();
        let mut question = QUESTION_WAIT;
        let credentials = client.credentials();
        loop {
            // A contact that is kept outlives its token and its password.
            credentials.renew(self.consumer.client(), &self.given);
            match self.consumer.fetch_metadata(None, question) {
                Ok(metadata) => {
                    // What librdkafka said before is over, and must not be taken for news later.
                    drain(&self.consumer, LINES_WAIT / 10);
                    client.failures.forget();
                    return Ok(metadata);
                }
                Err(error) if is_unreachable(&error) || error.rdkafka_error_code().is_none() => {}
                Err(error) => return Err(client.explain("metadata", &error)),
            }
            drain(&self.consumer, LINES_WAIT);
            let newest = client.failures.newest();
            let known = match &newest {
                None => wait,
                Some(failed) if failed.needs_person() && !failed.is_guess() => PERSON_WAIT,
                Some(_) => KNOWN_WAIT,
            };
            let left = known.min(wait).saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(client.no_contact());
            }
            question = (question * 2).min(left);
        }
    }

    /// The partitions of a topic, or why Kafka does not show it. Blocks.
    ///
    /// # Errors
    /// No broker answers.
    pub fn ask_for(&self, topic: &str) -> Result<Result<i32, Meaning>, ServiceError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), KNOWN_WAIT);
        let metadata = metadata.map_err(|error| self.client.explain(topic, &error))?;
        let shown = metadata.topics().iter().find(|shown| shown.name() == topic);
        Ok(match shown.map(|shown| (shown.error(), shown.partitions().len() as i32)) {
            None => Err(Meaning::Missing),
            Some((None, partitions)) => Ok(partitions),
            Some((Some(code), _)) => match meaning_of(code.into()) {
                Meaning::Unreachable | Meaning::TimedOut => return Err(self.client.unreachable()),
                meaning => Err(meaning),
            },
        })
    }
}

/// Brokers and topics, as one broker knows them. Blocks.
///
/// # Errors
/// As [`Contact::ask`].
pub fn metadata(client: &KafkaClient) -> Result<Metadata, ServiceError> {
    Contact::new(client)?.ask(ANSWER_WAIT)
}

/// What one broker knows, of `host:port`. Blocks.
///
/// # Errors
/// It does not answer.
pub fn metadata_of(client: &KafkaClient, broker: &str) -> Result<Metadata, ServiceError> {
    let consumer = client.with(SETUP).asking(broker, "read_committed")?;
    consumer.fetch_metadata(None, KNOWN_WAIT).map_err(|error| client.explain("metadata", &error))
}

/// Lets librdkafka say what happened. The consumer reads nothing, so only errors and lines come.
fn drain(consumer: &BaseConsumer<Quiet>, wait: Duration) {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        drop(consumer.poll(left));
    }
}
