//! Kafka's error codes: what each of them means here, and the sentence that says so. Nothing else compares codes.

use rdkafka::error::{KafkaError as Error, RDKafkaErrorCode as Code};

use crate::directory::Problem;

/// What an error means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// No broker answers, or the partition has no leader yet: later it may work.
    Unreachable,
    /// A bounded wait ended without an answer: as [`Meaning::Unreachable`].
    TimedOut,
    /// The topic or its partition does not exist.
    Missing,
    /// The topic to create exists already.
    AlreadyExists,
    /// The brokers do not take the number of replicas of a new topic: more than have registered, or a number that they
    /// never take.
    ReplicasRefused,
    /// The log does not have the offset that is to be read next. It had it when reading began.
    OutOfLog,
    /// The record cannot be written as it is. Writing it again changes nothing.
    RecordRefused,
    /// The user may not read or write the topic.
    TopicRefused,
    /// The user may not be a member of the consumer group.
    GroupRefused,
    /// A producer with a newer producer epoch took over, or the broker gave the transaction up.
    Fenced,
    /// A record was not acknowledged in time.
    Expired,
    /// librdkafka took the record back because its transaction cannot go on. The cause is another error.
    Purged,
    /// librdkafka's queue has no room for the record yet.
    QueueFull,
    /// Anything else.
    Other,
}

/// The remedy for a missing right.
pub const PERMIT: &str = "scimtail topics --print";

/// The problem of a missing right: `operation` as in Kafka's ACLs, `on`: what it is missing on.
pub fn not_permitted(operation: &str, on: &str) -> Problem {
    Problem::new(format!("{operation} is not permitted on {on} (ACL)")).with_remedy(PERMIT)
}

/// The table: code → meaning, sentence, remedy. `None` for a code that has no sentence of its own.
fn entry(code: Code) -> Option<(Meaning, &'static str, Option<&'static str>)> {
    use Meaning::*;
    Some(match code {
        Code::BrokerTransportFailure => (Unreachable, "the connection to a broker failed", None),
        Code::AllBrokersDown => (Unreachable, "no broker answers", None),
        // Of a connection, which librdkafka sets up again. Its line about it says whether a person has to act.
        Code::Authentication | Code::SaslAuthenticationFailed => {
            (Unreachable, "Kafka refuses the credentials (SASL)", None)
        }
        Code::SSL => (Unreachable, "the TLS connection to a broker failed", None),
        Code::Resolve => (Unreachable, "the host name of a broker is unknown", None),
        // A topic that was just created, or a leader that moves: "not yet" rather than "no".
        Code::LeaderNotAvailable | Code::NotLeaderForPartition => {
            (Unreachable, "the partition has no leader at the moment", None)
        }
        // Brokers that start, end or leave. librdkafka and Kafka's protocol call these errors passing ones.
        Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::NodeUpdate
        | Code::RebootstrapRequired
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::KafkaStorageError
        | Code::ListenerNotFound
        | Code::NotController
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable => {
            (Unreachable, "a broker starts, ends or changes its part at the moment", None)
        }
        Code::WaitingForCoordinator
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator => (Unreachable, "the coordinator moves or starts at the moment", None),
        Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue | Code::WaitCache | Code::Retry => {
            (TimedOut, "no answer in time", None)
        }
        Code::ThrottlingQuotaExceeded => (TimedOut, "the brokers throttle this user", None),
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => {
            (Missing, "a topic or its partition does not exist", Some("scimtail topics"))
        }
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
            (OutOfLog, "the log does not have the offset that is to be read next", None)
        }
        Code::TopicAlreadyExists => (AlreadyExists, "the topic exists already", None),
        Code::InvalidReplicationFactor => {
            (ReplicasRefused, "the brokers do not take this number", Some("another kafka.replication"))
        }
        Code::TopicAuthorizationFailed => (TopicRefused, "access to a topic is not permitted (ACL)", Some(PERMIT)),
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => (
            RecordRefused,
            "a record is larger than Kafka takes",
            Some("raise max.message.bytes of the topics to 1048588 or more"),
        ),
        Code::InvalidRecord => (RecordRefused, "the broker refuses a record as invalid", None),
        Code::GroupAuthorizationFailed => (GroupRefused, "the consumer group is not permitted (ACL)", Some(PERMIT)),
        // These mean "another producer epoch", no matter which flags they carry.
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId => {
            (Fenced, "another producer took this shard over (or the broker gave its transaction up)", None)
        }
        Code::MessageTimedOut => (
            Expired,
            "a record was not acknowledged in time",
            Some("check the brokers and that enough replicas are up (min.insync.replicas)"),
        ),
        Code::PurgeQueue | Code::PurgeInflight => (Purged, "a record was taken back with its transaction", None),
        Code::QueueFull => (QueueFull, "the queue of records is full", None),
        Code::TransactionalIdAuthorizationFailed => {
            (Other, "the transactional.id is not permitted (ACL)", Some(PERMIT))
        }
        Code::ClusterAuthorizationFailed => (Other, "idempotent writing is not permitted (ACL)", Some(PERMIT)),
        Code::UnsupportedFeature | Code::UnsupportedVersion => (Other, "this Kafka does not offer it", None),
        Code::InvalidTransactionTimeout => (
            Other,
            "transactions may not live that long here",
            Some("lower transaction.timeout.ms in [kafka.properties]"),
        ),
        _ => return None,
    })
}

/// What a code means; for answers that are a code and no more.
pub fn meaning_of(code: Code) -> Meaning {
    entry(code).map_or(Meaning::Other, |(meaning, _, _)| meaning)
}

/// What an error means. An error without a code is [`Meaning::Other`].
pub fn meaning(error: &Error) -> Meaning {
    error.rdkafka_error_code().map_or(Meaning::Other, meaning_of)
}

/// No broker answers, rather than one that says no.
pub fn is_unreachable(error: &Error) -> bool {
    matches!(meaning(error), Meaning::Unreachable | Meaning::TimedOut)
}

/// The same call may be made again, and goes on with what is under way.
pub fn is_retriable(error: &Error) -> bool {
    match error {
        Error::Transaction(error) => error.is_retriable(),
        // rdkafka flushes before it commits; the transaction is still open.
        Error::Flush(code) => meaning_of(*code) == Meaning::TimedOut,
        _ => false,
    }
}

/// The producer can do nothing more.
pub fn is_fatal(error: &Error) -> bool {
    meaning(error) == Meaning::Fenced || matches!(error, Error::Transaction(error) if error.is_fatal())
}

/// The sentence for a code; for a code without one its name, e.g. `UnknownProducerId`.
pub fn code_in_words(code: Code) -> Problem {
    match entry(code) {
        Some((_, what, Some(remedy))) => Problem::new(what).with_remedy(remedy),
        Some((_, what, None)) => Problem::new(what),
        None => Problem::new(format!("{code:?}")),
    }
}

/// The sentence for an error, without librdkafka's names of its clients.
pub fn in_words(error: &Error) -> Problem {
    // librdkafka repeats the value that it refuses, which may be a password: only the name of the property is passed
    // on.
    if let Error::ClientConfig(_, _, name, _) = error {
        return Problem::new(format!("librdkafka does not take the property `{name}` or its value"));
    }
    match error.rdkafka_error_code() {
        Some(code) => code_in_words(code),
        None => Problem::new(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    /// The errors of Kafka's protocol that are retriable (org.apache.kafka.common.protocol.Errors) and that an answer to
    /// a question can be; those of records and memberships are elsewhere. Negative numbers are librdkafka's.
    const PASSING: [RDKafkaRespErr; 24] = {
        use RDKafkaRespErr::*;
        [
            RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
            RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            RD_KAFKA_RESP_ERR_NOT_CONTROLLER,
            RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
            RD_KAFKA_RESP_ERR_LISTENER_NOT_FOUND,
            RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
            RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
            RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_PREFERRED_LEADER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_ELIGIBLE_LEADERS_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR__DESTROY_BROKER,
            RD_KAFKA_RESP_ERR__WAIT_COORD,
            RD_KAFKA_RESP_ERR__NODE_UPDATE,
            RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE,
            RD_KAFKA_RESP_ERR__RETRY,
        ]
    };

    #[test]
    fn no_error_that_passes_by_itself_is_a_refusal() {
        for code in PASSING {
            let error = Error::MetadataFetch(code.into());
            assert!(is_unreachable(&error), "{code:?}: {}", in_words(&error));
        }
    }
}
