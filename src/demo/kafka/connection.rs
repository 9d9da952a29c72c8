//! One connection: requests in, answers out, in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes, decode_request_header_from_buffer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::code::{Code, code_of};
use super::group_requests::{
    commit_offsets, describe_groups, fetch_offsets, heartbeat, join_group, leave_group, list_groups, sync_group,
};
use super::shared::{Caught, Shared, WAIT_MAX};

/// The requests that are answered, each with the newest version of it.
const APIS: [(ApiKey, i16); 19] = [
    (ApiKey::Produce, 8),
    (ApiKey::Fetch, 11),
    (ApiKey::ListOffsets, 5),
    (ApiKey::Metadata, 8),
    (ApiKey::OffsetCommit, 7),
    (ApiKey::OffsetFetch, 5),
    (ApiKey::FindCoordinator, 2),
    (ApiKey::JoinGroup, 3),
    (ApiKey::Heartbeat, 3),
    (ApiKey::LeaveGroup, 2),
    (ApiKey::SyncGroup, 3),
    (ApiKey::DescribeGroups, 4),
    (ApiKey::ListGroups, 2),
    (ApiKey::ApiVersions, 3),
    (ApiKey::CreateTopics, 4),
    (ApiKey::InitProducerId, 1),
    (ApiKey::AddPartitionsToTxn, 1),
    (ApiKey::EndTxn, 1),
    (ApiKey::DescribeConfigs, 2),
];
const BROKER: BrokerId = BrokerId(1);
/// Bytes of a request; scimtail sends messages of one million bytes at most.
const REQUEST_BYTES_MAX: usize = 32 << 20;
const READ_COMMITTED: i8 = 1;
/// In a question for offsets: the first one, the last one.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const RESOURCE_TOPIC: i8 = 2;
/// Where a setting comes from: the topic has it of its own.
const OF_TOPIC: i8 = 1;

/// Serves requests until the client closes the connection or sends something else.
pub async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    drop(stream.set_nodelay(true));
    while let Some(request) = next(&mut stream).await {
        match answer(&shared, request).await {
            Some(Answer::Bytes(bytes)) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            // The client waits for an answer that never comes, until it is killed.
            Some(Answer::Never) => {
                drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
                return;
            }
            None => return,
        }
    }
}

async fn next(stream: &mut TcpStream) -> Option<Bytes> {
    let length = usize::try_from(stream.read_i32().await.ok()?).ok()?;
    if length > REQUEST_BYTES_MAX {
        return None;
    }
    let mut request = vec![0; length];
    stream.read_exact(&mut request).await.ok()?;
    Some(request.into())
}

enum Answer {
    Bytes(Bytes),
    Never,
}

/// `None`: not a request that this Kafka knows.
async fn answer(shared: &Arc<Shared>, mut request: Bytes) -> Option<Answer> {
    if request.len() < 4 {
        return None;
    }
    let header = decode_request_header_from_buffer(&mut request).ok()?;
    let (version, id) = (header.request_api_version, header.correlation_id);
    let key = ApiKey::try_from(header.request_api_key).ok()?;
    let newest = APIS.iter().find(|(known, _)| *known == key)?.1;
    if version > newest {
        // A client that asks in a newer version is told the versions in the oldest form.
        return (key == ApiKey::ApiVersions)
            .then(|| encoded(id, key, 0, &versions().with_error_code(Code::UnsupportedVersion as i16)))
            .flatten();
    }
    let body = &mut request;
    match key {
        ApiKey::ApiVersions => encoded(id, key, version, &versions()),
        ApiKey::Metadata => {
            let asked = MetadataRequest::decode(body, version).ok()?;
            encoded(id, key, version, &metadata(shared, &asked, version))
        }
        ApiKey::Produce => {
            let sent = ProduceRequest::decode(body, version).ok()?;
            let acknowledged = sent.acks != 0;
            let answer = produce(shared, sent);
            if acknowledged { encoded(id, key, version, &answer) } else { Some(Answer::Bytes(Bytes::new())) }
        }
        ApiKey::Fetch => {
            let asked = FetchRequest::decode(body, version).ok()?;
            encoded(id, key, version, &fetch(shared, &asked).await)
        }
        ApiKey::ListOffsets => {
            let asked = ListOffsetsRequest::decode(body, version).ok()?;
            encoded(id, key, version, &list_offsets(shared, &asked))
        }
        ApiKey::FindCoordinator => {
            let address = shared.address;
            let answer = FindCoordinatorResponse::default()
                .with_node_id(BROKER)
                .with_host(StrBytes::from_string(address.ip().to_string()))
                .with_port(i32::from(address.port()));
            encoded(id, key, version, &answer)
        }
        ApiKey::CreateTopics => {
            let asked = CreateTopicsRequest::decode(body, version).ok()?;
            encoded(id, key, version, &create_topics(shared, &asked))
        }
        ApiKey::DescribeConfigs => {
            let asked = DescribeConfigsRequest::decode(body, version).ok()?;
            encoded(id, key, version, &describe_configs(shared, &asked))
        }
        ApiKey::InitProducerId => {
            let asked = InitProducerIdRequest::decode(body, version).ok()?;
            let name = asked.transactional_id.as_ref().map(|name| name.as_str());
            let (producer, epoch) = shared.cluster().init_producer(name, (shared.now)());
            shared.changed();
            let answer =
                InitProducerIdResponse::default().with_producer_id(ProducerId(producer)).with_producer_epoch(epoch);
            encoded(id, key, version, &answer)
        }
        ApiKey::AddPartitionsToTxn => {
            let asked = AddPartitionsToTxnRequest::decode(body, version).ok()?;
            encoded(id, key, version, &add_partitions(shared, &asked))
        }
        ApiKey::EndTxn => {
            let asked = EndTxnRequest::decode(body, version).ok()?;
            if asked.committed && is_caught(shared, &asked) {
                return Some(Answer::Never);
            }
            let (name, producer) = (asked.transactional_id.as_str(), asked.producer_id.0);
            let now = (shared.now)();
            let ended = shared.cluster().end_transaction(name, producer, asked.producer_epoch, asked.committed, now);
            shared.changed();
            encoded(id, key, version, &EndTxnResponse::default().with_error_code(code_of(&ended)))
        }
        ApiKey::JoinGroup => {
            let asked = JoinGroupRequest::decode(body, version).ok()?;
            encoded(id, key, version, &join_group(shared, asked, version).await)
        }
        ApiKey::SyncGroup => {
            let asked = SyncGroupRequest::decode(body, version).ok()?;
            encoded(id, key, version, &sync_group(shared, asked).await)
        }
        ApiKey::Heartbeat => {
            let asked = HeartbeatRequest::decode(body, version).ok()?;
            encoded(id, key, version, &heartbeat(shared, &asked))
        }
        ApiKey::LeaveGroup => {
            let asked = LeaveGroupRequest::decode(body, version).ok()?;
            encoded(id, key, version, &leave_group(shared, &asked))
        }
        ApiKey::ListGroups => encoded(id, key, version, &list_groups(shared)),
        ApiKey::DescribeGroups => {
            let asked = DescribeGroupsRequest::decode(body, version).ok()?;
            encoded(id, key, version, &describe_groups(shared, &asked))
        }
        ApiKey::OffsetCommit => {
            let asked = OffsetCommitRequest::decode(body, version).ok()?;
            encoded(id, key, version, &commit_offsets(shared, &asked))
        }
        ApiKey::OffsetFetch => {
            let asked = OffsetFetchRequest::decode(body, version).ok()?;
            encoded(id, key, version, &fetch_offsets(shared, &asked))
        }
        _ => None,
    }
}

fn encoded(id: i32, key: ApiKey, version: i16, answer: &impl Encodable) -> Option<Answer> {
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(id);
    header.encode(&mut bytes, key.response_header_version(version)).ok()?;
    answer.encode(&mut bytes, version).ok()?;
    let length = i32::try_from(bytes.len() - 4).ok()?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Some(Answer::Bytes(bytes.freeze()))
}

fn versions() -> ApiVersionsResponse {
    let version = |(key, newest): &(ApiKey, i16)| {
        let oldest = key.valid_versions().min;
        api_versions_response::ApiVersion::default()
            .with_api_key(*key as i16)
            .with_min_version(oldest)
            .with_max_version(*newest)
    };
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(version).collect())
}

fn metadata(shared: &Shared, asked: &MetadataRequest, version: i16) -> MetadataResponse {
    use metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
    let cluster = shared.cluster();
    let address = shared.address;
    let broker = MetadataResponseBroker::default()
        .with_node_id(BROKER)
        .with_host(StrBytes::from_string(address.ip().to_string()))
        .with_port(i32::from(address.port()));
    let described = |name: &str| {
        let topic = MetadataResponseTopic::default().with_name(Some(topic_name(name)));
        let Some(found) = cluster.topics.get(name) else {
            return topic.with_error_code(Code::UnknownTopicOrPartition as i16);
        };
        let partition = |index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BROKER)
                .with_leader_epoch(-1)
                .with_replica_nodes(vec![BROKER])
                .with_isr_nodes(vec![BROKER])
        };
        topic.with_partitions((0..found.partitions.len() as i32).map(partition).collect())
    };
    // In the oldest version, no topic means all topics.
    let all = asked.topics.as_ref().is_none_or(|topics| version == 0 && topics.is_empty());
    let topics = if all {
        cluster.topics.keys().map(|name| described(name)).collect()
    } else {
        let names = asked.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
        names.map(|name| described(name)).collect()
    };
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_static_str("scimtail-demo")))
        .with_controller_id(BROKER)
        .with_topics(topics)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn produce(shared: &Shared, sent: ProduceRequest) -> ProduceResponse {
    use produce_response::{PartitionProduceResponse, TopicProduceResponse};
    let mut cluster = shared.cluster();
    let name = sent.transactional_id.as_ref().map(|name| name.to_string());
    let mut responses = Vec::new();
    for topic in sent.topic_data {
        let mut partitions = Vec::new();
        for data in topic.partition_data {
            let appended = cluster.append(name.as_deref(), &topic.name, data.index, data.records.unwrap_or_default());
            partitions.push(
                PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_error_code(code_of(&appended))
                    .with_base_offset(appended.unwrap_or(-1))
                    .with_log_append_time_ms(-1),
            );
        }
        responses.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    drop(cluster);
    shared.changed();
    ProduceResponse::default().with_responses(responses)
}

/// Answers as soon as there is a record, and without one when the client's wait is over.
async fn fetch(shared: &Shared, asked: &FetchRequest) -> FetchResponse {
    let mut changes = shared.changes.subscribe();
    let wait = Duration::from_millis(u64::try_from(asked.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let until = Instant::now() + wait;
    loop {
        changes.mark_unchanged();
        let (answer, news) = fetch_now(shared, asked);
        if news || timeout_at(until, changes.changed()).await.is_err() {
            return answer;
        }
    }
}

fn fetch_now(shared: &Shared, asked: &FetchRequest) -> (FetchResponse, bool) {
    use fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
    let cluster = shared.cluster();
    let committed = asked.isolation_level == READ_COMMITTED;
    let mut left = usize::try_from(asked.max_bytes).unwrap_or(0);
    let mut news = false;
    let mut responses = Vec::new();
    for topic in &asked.topics {
        let mut partitions = Vec::new();
        for wanted in &topic.partitions {
            let data = PartitionData::default().with_partition_index(wanted.partition);
            let bytes_max = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(left);
            let found = cluster.partition(&topic.topic, wanted.partition);
            let fetched = found.and_then(|found| found.fetch(wanted.fetch_offset, committed, bytes_max));
            let data = data.with_error_code(code_of(&fetched));
            news |= fetched.as_ref().map_or(true, |fetched| !fetched.records.is_empty());
            let data = match (found, fetched) {
                (Ok(found), Ok(fetched)) => {
                    left = left.saturating_sub(fetched.records.len());
                    let aborted = |one: &super::log::Aborted| {
                        AbortedTransaction::default()
                            .with_producer_id(ProducerId(one.producer))
                            .with_first_offset(one.first)
                    };
                    data.with_high_watermark(found.end())
                        .with_last_stable_offset(found.stable())
                        .with_log_start_offset(0)
                        .with_aborted_transactions(Some(fetched.aborted.iter().map(aborted).collect()))
                        .with_records(Some(fetched.records))
                }
                _ => data.with_high_watermark(-1).with_records(Some(Bytes::new())),
            };
            partitions.push(data);
        }
        responses.push(FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions));
    }
    (FetchResponse::default().with_responses(responses), news)
}

fn list_offsets(shared: &Shared, asked: &ListOffsetsRequest) -> ListOffsetsResponse {
    use list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
    let cluster = shared.cluster();
    let committed = asked.isolation_level == READ_COMMITTED;
    let topic = |topic: &list_offsets_request::ListOffsetsTopic| {
        let partition = |wanted: &list_offsets_request::ListOffsetsPartition| {
            let found = cluster.partition(&topic.name, wanted.partition_index);
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code_of(&found))
                .with_leader_epoch(-1)
                .with_timestamp(-1);
            let Ok(found) = found else { return answer.with_offset(-1) };
            match wanted.timestamp {
                EARLIEST => answer.with_offset(0),
                LATEST => answer.with_offset(if committed { found.stable() } else { found.end() }),
                timestamp => match found.offset_at(timestamp) {
                    Some((offset, newest)) => answer.with_offset(offset).with_timestamp(newest),
                    None => answer.with_offset(-1),
                },
            }
        };
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(topic.partitions.iter().map(partition).collect())
    };
    ListOffsetsResponse::default().with_topics(asked.topics.iter().map(topic).collect())
}

fn create_topics(shared: &Shared, asked: &CreateTopicsRequest) -> CreateTopicsResponse {
    use create_topics_response::CreatableTopicResult;
    let mut cluster = shared.cluster();
    let mut results = Vec::new();
    for topic in &asked.topics {
        let setting = |one: &create_topics_request::CreatableTopicConfig| {
            Some((one.name.to_string(), one.value.as_ref()?.to_string()))
        };
        let settings = topic.configs.iter().filter_map(setting).collect();
        let created = match asked.validate_only {
            true if cluster.topics.contains_key(topic.name.as_str()) => Err(Code::TopicAlreadyExists),
            true => Ok(()),
            false => cluster.create_topic(&topic.name, topic.num_partitions, settings),
        };
        results.push(CreatableTopicResult::default().with_name(topic.name.clone()).with_error_code(code_of(&created)));
    }
    drop(cluster);
    shared.changed();
    CreateTopicsResponse::default().with_topics(results)
}

fn describe_configs(shared: &Shared, asked: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    use describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
    let cluster = shared.cluster();
    let described = |resource: &describe_configs_request::DescribeConfigsResource| {
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let topic = cluster.topics.get(resource.resource_name.as_str());
        let Some(topic) = topic.filter(|_| resource.resource_type == RESOURCE_TOPIC) else {
            return answer.with_error_code(Code::UnknownTopicOrPartition as i16);
        };
        let setting = |(name, value): (&String, &String)| {
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
                .with_config_source(OF_TOPIC)
        };
        answer.with_configs(topic.settings.iter().map(setting).collect())
    };
    DescribeConfigsResponse::default().with_results(asked.resources.iter().map(described).collect())
}

fn add_partitions(shared: &Shared, asked: &AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    use add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult};
    let mut cluster = shared.cluster();
    let name = asked.v3_and_below_transactional_id.as_str();
    let (producer, epoch) = (asked.v3_and_below_producer_id.0, asked.v3_and_below_producer_epoch);
    let mut results = Vec::new();
    for topic in &asked.v3_and_below_topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let touched = cluster.touch(name, producer, epoch, &topic.name, *partition);
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(code_of(&touched))
        });
        let partitions = partitions.collect();
        results.push(
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(partitions),
        );
    }
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results)
}

/// True if this commit is the one that is waited for; what waits for it is told.
fn is_caught(shared: &Shared, asked: &EndTxnRequest) -> bool {
    let mut trap = shared.trap();
    let Some(set) = &*trap else { return false };
    let records = shared.cluster().open_records(&asked.transactional_id, &set.topic);
    if records < set.records_min {
        return false;
    }
    trap.take().is_some_and(|set| set.caught.send(Caught { records }).is_ok())
}
