//! Which answer of a broker leads to which outcome of a transaction. The errors are injected into librdkafka's mock
//! cluster. It knows neither fencing nor isolation: tests on a real broker show the view of readers (`outcomes.rs`,
//! `broker.rs`, `group_commit.rs`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey::{self, AddPartitionsToTxn, EndTxn, InitProducerId, Produce};
use rdkafka::types::RDKafkaRespErr::{self, *};
use scimtail::kafka::cause::Failures;
use scimtail::kafka::producer::NotCommitted;
use scimtail::kafka::read::{ReadRecord, read_to_end};
use scimtail::kafka::{KafkaClient, TransactionalProducer};
use scimtail::log::{Batch, Headers, Positions, Record, Topic};
use scimtail::service::ServiceError;
use tokio_util::sync::CancellationToken;

const BROKERS: i32 = 2;
/// Bound on the wait until a producer can be used again.
const WAIT: Duration = Duration::from_secs(30);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> (Cluster, KafkaClient) {
    let cluster = MockCluster::new(BROKERS).expect("a mock cluster");
    for topic in Topic::ALL {
        cluster.create_topic(&topic.name("mock"), 1, 1).expect("a topic");
    }
    // Short, because some errors are repeated until the message or the transaction times out. A topic that may not be
    // written also stays so until librdkafka looks again (five minutes by default).
    let properties = [
        ("message.timeout.ms", "3000"),
        ("transaction.timeout.ms", "4000"),
        ("topic.metadata.refresh.interval.ms", "200"),
    ];
    let client = client(cluster.bootstrap_servers(), &properties);
    (cluster, client)
}

/// A client of one partition, with these properties of librdkafka.
pub fn client(brokers: String, properties: &[(&str, &str)]) -> KafkaClient {
    KafkaClient {
        brokers,
        topic_prefix: "mock".to_owned(),
        partitions: 1,
        outputs: Vec::new(),
        properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        secrets: BTreeMap::new(),
        tokens: None,
        failures: Failures::default(),
    }
}

fn fence(client: &KafkaClient) -> Result<TransactionalProducer, String> {
    let connected = TransactionalProducer::connect(client, 0).map_err(|error| error.to_string())?;
    connected.fence(&CancellationToken::new()).map_err(|error| error.to_string())
}

fn record(topic: Topic) -> Record {
    Record { topic, key: "acme".to_owned(), value: Some(vec![0; 100]), headers: Headers::default() }
}

fn batch() -> Batch {
    let closing = |_: &Positions| Ok(vec![record(Topic::Syncs)]);
    Batch { acquisition: 1, records: vec![record(Topic::Events), record(Topic::Users)], closing: Box::new(closing) }
}

/// One whose transaction must be aborted.
fn without_closing_records() -> Batch {
    Batch { closing: Box::new(|_: &Positions| Err("it has no marker".to_owned())), ..batch() }
}

fn in_words(result: Result<Vec<Positions>, NotCommitted>) -> String {
    match result {
        Ok(_) => "committed".to_owned(),
        Err(NotCommitted::Refused(reason)) => format!("refused: {reason}"),
        Err(NotCommitted::Aborted(reason)) => format!("aborted: {reason}"),
        Err(NotCommitted::Ended(ended)) if ended.is_fenced() => format!("fenced: {}", ended.reason),
        Err(NotCommitted::Ended(ended)) => format!("ended: {}", ended.reason),
    }
}

/// The outcome of a transaction whose requests of one kind are answered with these errors first. Each case has a
/// separate cluster and producer, and one transaction behind it.
fn outcomes(api: RDKafkaApiKey, batch: fn() -> Batch, cases: &[(&[RDKafkaRespErr], &str)], expected: Expect) {
    let mut text = String::new();
    for (errors, name) in cases {
        let (cluster, client) = cluster();
        let producer = fence(&client).expect("the shard");
        producer.commit(&[self::batch()]).expect("it commits");
        cluster.request_errors(api, errors);
        let outcome = producer.commit(&[batch()]);
        let goes_on = !matches!(outcome, Err(NotCommitted::Ended(_)));
        // Which request is refused, and so which topic, is chance.
        let topics = ["mock.events, mock.users", "mock.users", "mock.events"];
        let words = topics.iter().fold(in_words(outcome), |words, topic| words.replace(topic, "TOPICS"));
        text.push_str(&format!("{name}: {words}\n"));
        if goes_on {
            cluster.clear_request_errors(api);
            let deadline = Instant::now() + WAIT;
            loop {
                match producer.commit(&[self::batch()]) {
                    Ok(_) => break,
                    Err(error) => assert!(Instant::now() < deadline, "{name}: it cannot be used again: {error:?}"),
                }
            }
        }
    }
    expected.assert_eq(&text);
}

fn case(error: &'static RDKafkaRespErr, name: &'static str) -> (&'static [RDKafkaRespErr], &'static str) {
    (std::slice::from_ref(error), name)
}

/// Brokers list a new topic a moment before the leaders of its partitions serve it, and a leader that has just become
/// one may not know its end. The beginning and the end are asked for one after the other: an error may come to one of
/// them alone.
#[test]
fn an_end_that_a_leader_does_not_know_yet_hides_no_record() {
    let passing = [
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ];
    for error in passing {
        for errors in [vec![error], vec![error; 2], vec![error; 3], vec![RD_KAFKA_RESP_ERR_NO_ERROR, error]] {
            let (cluster, client) = cluster();
            fence(&client).expect("the shard").commit(&[batch()]).expect("it commits");
            cluster.request_errors(RDKafkaApiKey::ListOffsets, &errors);
            let mut read = 0;
            let each = |_: ReadRecord<'_>| {
                read += 1;
                Ok(())
            };
            let outcome = read_to_end(&client, &[&[Topic::Users]], &[0], each, |_| Ok(()));
            assert!(outcome.is_ok() && read == 1, "{errors:?}: {read} records, {outcome:?}");
        }
    }
}

/// A restore that begins again has the whole log, so that no person has to act.
#[test]
fn a_log_that_loses_its_start_while_it_is_read_is_no_refusal() {
    let (cluster, client) = cluster();
    fence(&client).expect("the shard").commit(&[batch()]).expect("it commits");
    let read = || read_to_end(&client, &[&[Topic::Users]], &[0], |_| Ok(()), |_| Ok(()));
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    match read() {
        Err(ServiceError::Unreachable(problem)) => assert!(problem.what.contains("the log does not have"), "{problem}"),
        other => panic!("{other:?}"),
    }
    cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    read().expect("it has a start again");
}

#[test]
fn a_fence_waits_for_its_coordinator_and_is_refused_in_words() {
    let mut text = String::new();
    for (error, name) in [
        (RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, "coordinator loading"),
        (RD_KAFKA_RESP_ERR_NOT_COORDINATOR, "coordinator moved"),
        (RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, "concurrent transactions"),
        (RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "id not authorised"),
        (RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "cluster not authorised"),
        (RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT, "timeout above the broker's"),
    ] {
        let (cluster, client) = cluster();
        cluster.request_errors(InitProducerId, &[error, error]);
        let outcome = match fence(&client) {
            Ok(producer) => in_words(producer.commit(&[batch()])),
            Err(error) => error.replace(&client.brokers, "…"),
        };
        text.push_str(&format!("{name}: {outcome}\n"));
    }
    expect![[r#"
        coordinator loading: committed
        coordinator moved: committed
        concurrent transactions: committed
        id not authorised: kafka …: the transactional.id is not permitted (ACL); → scimtail topics --print
        cluster not authorised: kafka …: idempotent writing is not permitted (ACL); → scimtail topics --print
        timeout above the broker's: kafka …: transactions may not live that long here; → lower transaction.timeout.ms in [kafka.properties]
    "#]].assert_eq(&text);
}

#[test]
fn registering_partitions_is_repeated_or_aborts_or_ends() {
    outcomes(
        AddPartitionsToTxn,
        batch,
        &[
            case(&RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, "coordinator loading"),
            case(&RD_KAFKA_RESP_ERR_NOT_COORDINATOR, "coordinator moved"),
            case(&RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, "concurrent transactions"),
            case(&RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "topic not authorised"),
            case(&RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "id not authorised"),
            case(&RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "another epoch"),
            case(&RD_KAFKA_RESP_ERR_PRODUCER_FENCED, "fenced"),
            case(&RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, "invalid state"),
        ],
        expect![[r#"
            coordinator loading: committed
            coordinator moved: committed
            concurrent transactions: committed
            topic not authorised: refused: the transaction was aborted: Write is not permitted on TOPICS (ACL); → scimtail topics --print
            id not authorised: ended: Kafka refuses this producer: the transactional.id is not permitted (ACL); → scimtail topics --print
            another epoch: fenced: another producer took this shard over (or the broker gave its transaction up)
            fenced: fenced: another producer took this shard over (or the broker gave its transaction up)
            invalid state: ended: Kafka refuses this producer: InvalidTransactionalState
        "#]],
    );
}

#[test]
fn producing_is_repeated_or_aborts_or_ends() {
    const NOT_ENOUGH: RDKafkaRespErr = RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    outcomes(
        Produce,
        batch,
        &[
            case(&RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, "leader moved"),
            case(&RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, "timed out at the broker"),
            (&[NOT_ENOUGH, NOT_ENOUGH], "not enough replicas for a moment"),
            (&[NOT_ENOUGH; 200], "not enough replicas for good"),
            case(&RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "too large"),
            case(&RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "topic not authorised"),
            case(&RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, "producer forgotten"),
            case(&RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "another epoch"),
            case(&RD_KAFKA_RESP_ERR_PRODUCER_FENCED, "fenced"),
        ],
        expect![[r#"
            leader moved: committed
            timed out at the broker: committed
            not enough replicas for a moment: committed
            not enough replicas for good: aborted: the transaction was aborted: a record was not acknowledged in time; → check the brokers and that enough replicas are up (min.insync.replicas)
            too large: refused: the transaction was aborted: a record is larger than Kafka takes; → raise max.message.bytes of the topics to 1048588 or more
            topic not authorised: refused: the transaction was aborted: Write is not permitted on TOPICS (ACL); → scimtail topics --print
            producer forgotten: aborted: the transaction was aborted: UnknownProducerId
            another epoch: fenced: another producer took this shard over (or the broker gave its transaction up)
            fenced: fenced: another producer took this shard over (or the broker gave its transaction up)
        "#]],
    );
}

/// From the call of commit on, an error that librdkafka calls abortable is an unknown outcome to us: the broker may
/// have committed.
#[test]
fn ending_a_transaction_is_repeated_or_its_outcome_is_unknown() {
    outcomes(
        EndTxn,
        batch,
        &[
            case(&RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, "coordinator loading"),
            case(&RD_KAFKA_RESP_ERR_NOT_COORDINATOR, "coordinator moved"),
            case(&RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, "no coordinator"),
            case(&RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, "concurrent transactions"),
            (&[RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 200], "coordinator loading for good"),
            case(&RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING, "abortable: id expired"),
            case(&RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, "abortable: producer forgotten"),
            case(&RD_KAFKA_RESP_ERR_UNKNOWN, "abortable: unknown"),
            case(&RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "id not authorised"),
            case(&RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, "invalid state"),
            case(&RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, "another epoch"),
            case(&RD_KAFKA_RESP_ERR_PRODUCER_FENCED, "fenced"),
        ],
        expect![[r#"
            coordinator loading: committed
            coordinator moved: committed
            no coordinator: committed
            concurrent transactions: committed
            coordinator loading for good: ended: the outcome of a commit is unknown: no answer in time
            abortable: id expired: ended: the outcome of a commit is unknown: InvalidProducerIdMapping
            abortable: producer forgotten: ended: the outcome of a commit is unknown: UnknownProducerId
            abortable: unknown: ended: the outcome of a commit is unknown: Unknown
            id not authorised: ended: the outcome of a commit is unknown: the transactional.id is not permitted (ACL); → scimtail topics --print
            invalid state: ended: the outcome of a commit is unknown: InvalidTransactionalState
            another epoch: fenced: another producer took this shard over (or the broker gave its transaction up)
            fenced: fenced: another producer took this shard over (or the broker gave its transaction up)
        "#]],
    );
}

#[test]
fn an_abort_that_is_not_ok_ends_the_acquisition() {
    outcomes(
        EndTxn,
        without_closing_records,
        &[
            case(&RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, "coordinator loading"),
            case(&RD_KAFKA_RESP_ERR_NOT_COORDINATOR, "coordinator moved"),
            case(&RD_KAFKA_RESP_ERR_UNKNOWN, "unknown"),
            case(&RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, "invalid state"),
            case(&RD_KAFKA_RESP_ERR_PRODUCER_FENCED, "fenced"),
        ],
        expect![[r#"
            coordinator loading: refused: the transaction was aborted: it has no marker
            coordinator moved: refused: the transaction was aborted: it has no marker
            unknown: ended: it has no marker; the transaction could not be aborted: Unknown
            invalid state: ended: it has no marker; the transaction could not be aborted: InvalidTransactionalState
            fenced: fenced: another producer took this shard over (or the broker gave its transaction up)
        "#]],
    );
}

#[test]
fn a_coordinator_that_moves_to_another_broker_is_followed() {
    let (cluster, client) = cluster();
    let producer = fence(&client).expect("the shard");
    for broker in [2, 1, 2] {
        cluster.coordinator(MockCoordinator::Transaction("mock-shard-0".to_owned()), broker).expect("it moves");
        assert_eq!(in_words(producer.commit(&[batch()])), "committed", "on broker {broker}");
    }
}
