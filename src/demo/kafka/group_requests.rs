//! The requests that concern a consumer group: who is a member, what each was assigned, and the group's offsets.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, timeout_at};

use super::code::{Code, code_of};
use super::group::Join;
use super::shared::{Shared, WAIT_MAX};

/// How soon a member that waits for others notices that one of them is gone.
const GROUP_LOOK: Duration = Duration::from_millis(200);
/// Of groups of consumers.
const PROTOCOL_TYPE: &str = "consumer";

pub async fn join_group(shared: &Shared, asked: JoinGroupRequest, version: i16) -> JoinGroupResponse {
    let millis = |millis: i32| Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(WAIT_MAX);
    let session = millis(asked.session_timeout_ms);
    let rebalance = if version == 0 { session } else { millis(asked.rebalance_timeout_ms) };
    let protocols = asked.protocols.iter().map(|one| (one.name.to_string(), one.metadata.clone())).collect();
    let group = asked.group_id.to_string();
    let refused = |code: Code| {
        JoinGroupResponse::default().with_error_code(code as i16).with_protocol_name(Some(StrBytes::default()))
    };
    let join = Join { protocols, session, rebalance };
    let entered =
        shared.cluster().groups.entry(group.clone()).or_default().enter(&asked.member_id, join, Instant::now());
    let member = match entered {
        Ok(member) => member,
        Err(code) => return refused(code),
    };
    shared.changed();
    let joined = wait(shared, || {
        let mut cluster = shared.cluster();
        cluster.groups.get_mut(&group).and_then(|group| group.joined(&member, Instant::now()))
    });
    let Some(joined) = joined.await else { return refused(Code::RebalanceInProgress) };
    shared.changed();
    let listed = |(id, metadata): (String, Bytes)| {
        join_group_response::JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(id))
            .with_metadata(metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol)))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_member_id(StrBytes::from_string(member))
        .with_members(joined.members.into_iter().map(listed).collect())
}

pub async fn sync_group(shared: &Shared, asked: SyncGroupRequest) -> SyncGroupResponse {
    let (group, member) = (asked.group_id.to_string(), asked.member_id.to_string());
    if !asked.assignments.is_empty() {
        let assignments = asked.assignments.iter().map(|one| (one.member_id.to_string(), one.assignment.clone()));
        let assignments = assignments.collect();
        if let Some(group) = shared.cluster().groups.get_mut(&group) {
            group.assign(assignments);
        }
        shared.changed();
    }
    let assigned = wait(shared, || {
        let mut cluster = shared.cluster();
        let Some(group) = cluster.groups.get_mut(&group) else { return Some(Err(Code::UnknownMemberId)) };
        group.assigned(&member, asked.generation_id, Instant::now()).transpose()
    });
    match assigned.await.unwrap_or(Err(Code::RebalanceInProgress)) {
        Ok(assignment) => SyncGroupResponse::default().with_assignment(assignment),
        Err(code) => SyncGroupResponse::default().with_error_code(code as i16),
    }
}

pub fn heartbeat(shared: &Shared, asked: &HeartbeatRequest) -> HeartbeatResponse {
    let mut cluster = shared.cluster();
    let group = cluster.groups.entry(asked.group_id.to_string()).or_default();
    let beat = group.beat(&asked.member_id, asked.generation_id, Instant::now());
    HeartbeatResponse::default().with_error_code(code_of(&beat))
}

pub fn leave_group(shared: &Shared, asked: &LeaveGroupRequest) -> LeaveGroupResponse {
    if let Some(group) = shared.cluster().groups.get_mut(asked.group_id.as_str()) {
        group.leave(&asked.member_id, Instant::now());
    }
    shared.changed();
    LeaveGroupResponse::default()
}

pub fn list_groups(shared: &Shared) -> ListGroupsResponse {
    let listed = |name: &String| {
        list_groups_response::ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(name.clone())))
            .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
    };
    ListGroupsResponse::default().with_groups(shared.cluster().groups.keys().map(listed).collect())
}

/// A group that is not there is a dead one, as with Apache Kafka.
pub fn describe_groups(shared: &Shared, asked: &DescribeGroupsRequest) -> DescribeGroupsResponse {
    use describe_groups_response::{DescribedGroup, DescribedGroupMember};
    let mut cluster = shared.cluster();
    let host = StrBytes::from_string(format!("/{}", shared.address.ip()));
    let described = |name: &GroupId| {
        let described = DescribedGroup::default().with_group_id(name.clone());
        let Some(group) = cluster.groups.get_mut(name.as_str()) else {
            return described.with_group_state(StrBytes::from_static_str("Dead"));
        };
        let member = |(id, assignment): (String, Bytes)| {
            DescribedGroupMember::default()
                .with_member_id(StrBytes::from_string(id))
                .with_client_host(host.clone())
                .with_member_assignment(assignment)
        };
        described
            .with_group_state(StrBytes::from_static_str("Stable"))
            .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
            .with_members(group.members(Instant::now()).into_iter().map(member).collect())
    };
    DescribeGroupsResponse::default().with_groups(asked.groups.iter().map(described).collect())
}

/// Asks after each change until there is an answer; `None` if there is none in time.
async fn wait<T>(shared: &Shared, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let mut changes = shared.changes.subscribe();
    let until = Instant::now() + WAIT_MAX;
    loop {
        changes.mark_unchanged();
        if let Some(answer) = ask() {
            return Some(answer);
        }
        let now = Instant::now();
        if now >= until {
            return None;
        }
        // A member that is gone makes no change: looking again notices it.
        drop(timeout_at(until.min(now + GROUP_LOOK), changes.changed()).await);
    }
}

pub fn commit_offsets(shared: &Shared, asked: &OffsetCommitRequest) -> OffsetCommitResponse {
    use offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    let mut cluster = shared.cluster();
    let mut topics = Vec::new();
    for topic in &asked.topics {
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            let key = (asked.group_id.to_string(), topic.name.to_string(), partition.partition_index);
            cluster.offsets.insert(key, partition.committed_offset);
            partitions.push(OffsetCommitResponsePartition::default().with_partition_index(partition.partition_index));
        }
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    OffsetCommitResponse::default().with_topics(topics)
}

pub fn fetch_offsets(shared: &Shared, asked: &OffsetFetchRequest) -> OffsetFetchResponse {
    use offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic};
    let cluster = shared.cluster();
    let topic = |topic: &offset_fetch_request::OffsetFetchRequestTopic| {
        let partition = |index: &i32| {
            let key = (asked.group_id.to_string(), topic.name.to_string(), *index);
            OffsetFetchResponsePartition::default()
                .with_partition_index(*index)
                .with_committed_offset(cluster.offsets.get(&key).copied().unwrap_or(-1))
                .with_committed_leader_epoch(-1)
                .with_metadata(Some(StrBytes::default()))
        };
        OffsetFetchResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(topic.partition_indexes.iter().map(partition).collect())
    };
    OffsetFetchResponse::default().with_topics(asked.topics.iter().flatten().map(topic).collect())
}
