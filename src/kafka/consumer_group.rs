//! Membership in the consumer group that spreads the shards: the member that gets a partition of `syncs` gets its
//! shard.
//!
//! **Safety argument.** The group decides which instance *should* own a shard. The fence alone decides which instance
//! *may* write to it. So the group has to be prompt, not exact. A rebalance waits until a shard that is given away has
//! stopped, because its next owner then finds nothing open. The wait is bounded, because the next owner fences a shard
//! that hangs anyway. The consumer never reads a record and never commits an offset: its partitions are paused as soon
//! as they are assigned, and it exists only for the membership. A thread of its own polls it and does nothing else, so
//! that no shard can keep this instance from staying a member. If no broker answers for long, a new client takes the
//! place of the member. The old one first gives everything up, so an instance is never two members.

use std::convert::Infallible;
use std::sync::mpsc::{self as blocking, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError as Error;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::client::{KafkaClient, Quiet};
use super::credentials::Given;
use super::error::{Meaning, in_words, is_unreachable, meaning};
use super::read::NEW_CLIENT_AFTER;
use crate::failpoint::{self, Point};
use crate::log::Topic;
use crate::service::ServiceError;

/// A member that is silent so long is dead and its shards move, milliseconds. A restart after a crash waits so long
/// too. `session.timeout.ms` in `[kafka.properties]` wins.
const SESSION_TIMEOUT_MS: &str = "15000";
/// Five of them fit into a session, milliseconds. `heartbeat.interval.ms` in `[kafka.properties]` wins.
const HEARTBEAT_INTERVAL_MS: &str = "3000";
/// A member that does not poll so long leaves, and a rebalance waits so long for a member that does not rejoin,
/// milliseconds. It is longer than any wait of the polling thread. `max.poll.interval.ms` in `[kafka.properties]` wins.
const MAX_POLL_INTERVAL_MS: &str = "60000";
/// How long a rebalance waits for the shards that are given away. It is longer than a shard waits for its last commit,
/// and shorter than the whole shutdown.
pub const REVOKE_WAIT: Duration = Duration::from_secs(7);
/// Moves that wait to be followed. Their receiver never waits for a shard.
pub const MOVES: usize = 16;
/// How soon the thread notices that it shall leave.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// For a broker to answer that it is there.
const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// The shortest time between two lines about the same error.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What a rebalance changes for this member. A rebalance is cooperative: shards that are not named stay as they are.
#[derive(Debug)]
pub enum Move {
    Assigned(Vec<i32>),
    /// To be stopped; the rebalance waits for that while [`Pending`] is held.
    Revoked(Vec<i32>, Pending),
    /// Another instance may own them already: to be dropped at once.
    Lost(Vec<i32>),
}

/// A rebalance that waits, for a bounded time, until the last clone of this is dropped.
#[derive(Clone, Debug)]
pub struct Pending {
    _waited_for: blocking::Sender<Infallible>,
}

/// Joins the group and follows it on a thread of its own until `leave`. Moves come through `moves`; the answer
/// resolves when this member has left.
///
/// # Errors
/// A property that librdkafka does not take. The answer: the group is over for this member, a person has to act.
pub fn join(
    client: &KafkaClient,
    moves: mpsc::Sender<Move>,
    leave: CancellationToken,
) -> Result<oneshot::Receiver<ServiceError>, ServiceError> {
    let mut member = Member::new(client, moves.clone())?;
    let (over, is_over) = oneshot::channel();
    let client = client.clone();
    thread::spawn(move || {
        let fatal = loop {
            let end = follow(&client, &member, &leave);
            // Leaving is a revocation of everything: it waits until the shards have stopped, then tells the group.
            drop(member);
            match end {
                End::Left => break None,
                End::Over(error) => break Some(error),
                End::Unanswered => {
                    info!("no broker has answered for a minute; joining the consumer group with a new client")
                }
            }
            match joined_again(&client, &moves, &leave) {
                Some(new) => member = new,
                None => break None,
            }
        };
        if let Some(error) = fatal {
            // If nothing waits for the answer any more, the process ends anyway.
            drop(over.send(error));
        }
    });
    Ok(is_over)
}

/// A client that is a member.
struct Member {
    consumer: BaseConsumer<Follower>,
    given: Given,
}

impl Member {
    fn new(client: &KafkaClient, moves: mpsc::Sender<Move>) -> Result<Member, ServiceError> {
        let mut config = client.config(&[
            ("group.id", &client.topic_prefix),
            ("group.protocol", "classic"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "false"),
            // Nothing is ever read; from the end there is also nothing to fetch before the pause.
            ("auto.offset.reset", "latest"),
        ])?;
        for (name, value) in [
            ("session.timeout.ms", SESSION_TIMEOUT_MS),
            ("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS),
            ("max.poll.interval.ms", MAX_POLL_INTERVAL_MS),
        ] {
            if !client.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        let consumer: BaseConsumer<Follower> = config
            .create_with_context(Follower { moves, quiet: client.context() })
            .map_err(|error| KafkaClient::misconfigured(&error))?;
        let given = Given::default();
        client.credentials().give(consumer.client(), &given)?;
        consumer.subscribe(&[&client.topic(Topic::Syncs)]).map_err(|error| KafkaClient::misconfigured(&error))?;
        Ok(Member { consumer, given })
    }
}

/// `None` if it is to leave. A secret that cannot be read ends no service that already runs: it is tried again.
fn joined_again(client: &KafkaClient, moves: &mpsc::Sender<Move>, leave: &CancellationToken) -> Option<Member> {
    let mut complained: Option<Instant> = None;
    while !leave.is_cancelled() {
        match Member::new(client, moves.clone()) {
            Ok(member) => return Some(member),
            Err(error) if complained.is_none_or(|at| at.elapsed() > COMPLAINT_INTERVAL) => {
                complained = Some(Instant::now());
                warn!(reason = error.to_string(), "the consumer group cannot be joined");
            }
            Err(_) => {}
        }
        thread::sleep(POLL_WAIT);
    }
    None
}

/// Why a member is none any more.
enum End {
    /// It was told to leave.
    Left,
    /// The group is over for this instance.
    Over(ServiceError),
    /// No broker answers for longer than [`NEW_CLIENT_AFTER`].
    Unanswered,
}

fn follow(client: &KafkaClient, member: &Member, leave: &CancellationToken) -> End {
    let Member { consumer, given } = member;
    let mut complaint: Option<(Error, Instant)> = None;
    // Since when no broker answers.
    let mut lost: Option<Instant> = None;
    let (credentials, topic) = (client.credentials(), client.topic(Topic::Syncs));
    while !leave.is_cancelled() {
        credentials.renew(consumer.client(), given);
        match consumer.poll(POLL_WAIT) {
            // A record that was fetched before the pause is dropped.
            None | Some(Ok(_)) => {}
            Some(Err(error)) if is_over(consumer, &error) => {
                return End::Over(client.explain("the consumer group", &error));
            }
            Some(Err(error)) if is_unreachable(&error) => {
                debug!(%error, "librdkafka");
                lost.get_or_insert_with(Instant::now);
            }
            Some(Err(error)) => {
                let repeated = complaint.as_ref().is_some_and(|(last, at)| {
                    last.rdkafka_error_code() == error.rdkafka_error_code() && at.elapsed() < COMPLAINT_INTERVAL
                });
                if !repeated {
                    warn!(
                        group = client.topic_prefix,
                        reason = in_words(&error).to_string(),
                        "the consumer group has a problem"
                    );
                    complaint = Some((error, Instant::now()));
                }
            }
        }
        if let Some(since) = lost {
            // A lost connection may be one of several.
            if consumer.client().fetch_metadata(Some(&topic), ANSWER_WAIT).is_ok() {
                lost = None;
            } else if since.elapsed() > NEW_CLIENT_AFTER {
                return End::Unanswered;
            }
        }
    }
    End::Left
}

/// A person has to act. A right that is taken away from a member that has shards may come back before they are lost.
fn is_over(consumer: &BaseConsumer<Follower>, error: &Error) -> bool {
    let has_none = || consumer.assignment().is_ok_and(|partitions| partitions.count() == 0);
    matches!(error, Error::MessageConsumptionFatal(_)) || (meaning(error) == Meaning::GroupRefused && has_none())
}

/// Passes on what librdkafka says while it is polled.
struct Follower {
    moves: mpsc::Sender<Move>,
    quiet: Quiet,
}

impl ClientContext for Follower {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: Error, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ConsumerContext for Follower {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let partitions = numbers(list);
        if partitions.is_empty() {
            return;
        }
        // The session is over, and with it every claim: another instance may be fencing right now.
        if consumer.assignment_lost() {
            failpoint::hit(Point::LostBefore);
            warn!(?partitions, "shards lost: the session in the consumer group ended");
            self.pass(Move::Lost(partitions));
            return;
        }
        failpoint::hit(Point::RevokedBefore);
        info!(?partitions, "shards given away");
        // librdkafka gives the partitions up only when this returns. Heartbeats go on meanwhile.
        let (waited_for, stopped) = blocking::channel();
        self.pass(Move::Revoked(partitions.clone(), Pending { _waited_for: waited_for }));
        match stopped.recv_timeout(REVOKE_WAIT) {
            Err(RecvTimeoutError::Timeout) => {
                warn!(?partitions, "a shard did not stop in time; its next owner fences it");
            }
            Err(RecvTimeoutError::Disconnected) => {}
            Ok(never) => match never {},
        }
        failpoint::hit(Point::RevokedAfter);
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(list) = rebalance else { return };
        if let Err(error) = consumer.pause(list) {
            warn!(
                reason = in_words(&error).to_string(),
                "partitions of the group could not be paused; what they bring is dropped"
            );
        }
        let partitions = numbers(list);
        if !partitions.is_empty() {
            failpoint::hit(Point::AssignedBefore);
            info!(?partitions, "shards assigned");
            self.pass(Move::Assigned(partitions));
        }
    }
}

impl Follower {
    fn pass(&self, change: Move) {
        // If nothing follows the moves any more, the process ends, and the fence protects what it leaves.
        drop(self.moves.blocking_send(change));
    }
}

fn numbers(list: &TopicPartitionList) -> Vec<i32> {
    let mut partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
    partitions.sort_unstable();
    partitions
}
