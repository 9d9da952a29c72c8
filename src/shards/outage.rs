//! An outage of Kafka or of the schema registry: said once when it lasts, and once when it is over.
//!
//! Without this, the service would only show that its syncs stop. Shards notice an outage one by one, each in its own
//! words, and a service without a shard does not notice it at all.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

use crate::avro::Registry;
use crate::directory::Problem;
use crate::kafka::KafkaClient;
use crate::kafka::blocking::blocking;
use crate::kafka::contact::Contact;
use crate::telemetry::Metric;

/// Between two questions to Kafka.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two questions to the registry, which a service in peace hardly needs.
const REGISTRY_LOOK_EVERY: Duration = Duration::from_secs(30);
/// For the answer to one question.
const ANSWER_WAIT: Duration = Duration::from_secs(4);
/// A shorter one is the restart of a broker, and not said.
const OUTAGE_MIN: Duration = Duration::from_secs(10);

/// What is known of a service.
#[derive(Debug, Default)]
struct Outage {
    /// When it first did not answer, and whether that was said.
    since: Option<(Instant, bool)>,
}

/// What is to be said after a question.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// It does not answer since so long.
    Begins(Duration),
    /// It answers again, after so long.
    Ends(Duration),
}

impl Outage {
    /// Takes the outcome of a question.
    fn take(&mut self, answered: bool, now: Instant) -> Option<Said> {
        if answered {
            let (since, said) = self.since.take()?;
            return said.then_some(Said::Ends(now - since));
        }
        let (since, said) = self.since.get_or_insert((now, false));
        let lasts = now - *since;
        if *said || lasts < OUTAGE_MIN {
            return None;
        }
        *said = true;
        Some(Said::Begins(lasts))
    }
}

/// Asks Kafka until it is cancelled. `answers` is false while Kafka does not answer.
pub async fn of_kafka(client: KafkaClient, answers: watch::Sender<bool>) {
    let mut outage = Outage::default();
    let mut contact: Option<Contact> = None;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let (asking, client_here) = (contact.take(), client.clone());
        let asked = blocking(move || {
            // A new client after a failure, because a credential may have changed.
            let contact = asking.map_or_else(|| Contact::new(&client_here), Ok)?;
            contact.ask(ANSWER_WAIT).map(|_| contact)
        });
        let problem = match asked.await {
            Ok(answering) => {
                contact = Some(answering);
                None
            }
            Err(error) => Some(error.problem().clone()),
        };
        answers.send_replace(problem.is_none());
        Metric::KafkaUp.set(if problem.is_none() { 1.0 } else { 0.0 }, []);
        say("Kafka", "syncs wait for it", outage.take(problem.is_none(), Instant::now()), problem.as_ref());
    }
}

/// Asks the registry until it is cancelled.
pub async fn of_registry(registry: Registry) {
    let mut outage = Outage::default();
    let mut looks = interval(REGISTRY_LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let problem = registry.probe().await.err().map(|error| error.problem().clone());
        Metric::RegistryUp.set(if problem.is_none() { 1.0 } else { 0.0 }, []);
        say(
            "the schema registry",
            "shards that start or move wait for it",
            outage.take(problem.is_none(), Instant::now()),
            problem.as_ref(),
        );
    }
}

fn say(service: &str, follows: &str, said: Option<Said>, problem: Option<&Problem>) {
    match said {
        Some(Said::Begins(lasts)) => {
            let reason = problem.map(ToString::to_string).unwrap_or_default();
            error!(service, reason, since_s = lasts.as_secs(), "{service} cannot be used; {follows}");
        }
        Some(Said::Ends(lasted)) => info!(service, outage_s = lasted.as_secs(), "{service} can be used again"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_when_it_lasts_and_once_when_it_ends() {
        let mut outage = Outage::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let said: Vec<Option<Said>> =
            [(true, 0), (false, 5), (false, 10), (false, 15), (false, 20), (true, 25), (true, 30)]
                .into_iter()
                .map(|(answered, seconds)| outage.take(answered, at(seconds)))
                .collect();
        let (begins, ends) = (Said::Begins(Duration::from_secs(10)), Said::Ends(Duration::from_secs(20)));
        assert_eq!(said, [None, None, None, Some(begins), None, Some(ends), None]);
    }

    #[test]
    fn the_restart_of_a_broker_is_not_said() {
        let mut outage = Outage::default();
        let began = Instant::now();
        assert_eq!(outage.take(false, began), None);
        assert_eq!(outage.take(false, began + OUTAGE_MIN - Duration::from_secs(1)), None);
        assert_eq!(outage.take(true, began + OUTAGE_MIN), None);
    }
}
