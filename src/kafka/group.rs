//! Which instances there are, as the consumer group that spreads the shards has it.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::client::KafkaClient;
use super::error::is_unreachable;
use crate::service::ServiceError;

/// For the brokers to describe the group.
const GROUP_WAIT: Duration = Duration::from_secs(10);

/// The members of the group, and the shards that it assigns to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Instances that are members.
    pub instances: usize,
    /// The address of the owner of each shard, by partition.
    pub owners: HashMap<i32, String>,
}

/// Asks Kafka for the group. `None` if Kafka does not list it. Then no instance has run for a while, or this user may
/// not describe it; Kafka does not say which. Blocks.
///
/// # Errors
/// No broker answers.
pub fn describe(client: &KafkaClient) -> Result<Option<Group>, ServiceError> {
    let asking = client.asking(&client.brokers, "read_committed")?;
    let name = &client.topic_prefix;
    let listed = match asking.fetch_group_list(Some(name), GROUP_WAIT) {
        Ok(listed) => listed,
        Err(error) if is_unreachable(&error) => return Err(client.unreachable()),
        Err(_) => return Ok(None),
    };
    let Some(info) = listed.groups().iter().find(|info| info.name() == name) else { return Ok(None) };
    let mut group = Group { instances: info.members().len(), owners: HashMap::new() };
    for member in info.members() {
        // The broker writes an address as Java does, with a slash in front.
        let host = member.client_host().trim_start_matches('/');
        for partition in member.assignment().and_then(partitions).unwrap_or_default() {
            group.owners.insert(partition, host.to_owned());
        }
    }
    Ok(Some(group))
}

/// The partitions of an assignment, as consumers of all languages encode it (Kafka's `ConsumerProtocolAssignment`):
/// version (int16), then topics (array of string and array of int32), then what else there is. `None` if it is cut off.
fn partitions(mut bytes: &[u8]) -> Option<Vec<i32>> {
    let bytes = &mut bytes;
    let _version = take::<2>(bytes)?;
    let mut partitions = Vec::new();
    for _ in 0..length(bytes)? {
        let name = usize::from(u16::from_be_bytes(take(bytes)?));
        *bytes = bytes.get(name..)?;
        for _ in 0..length(bytes)? {
            partitions.push(i32::from_be_bytes(take(bytes)?));
        }
    }
    Some(partitions)
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(take(bytes)?)).ok()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_as_consumers_write_it() {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 10];
        bytes.extend(b"scim.syncs");
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 7, 255, 255, 255, 255]);
        assert_eq!(partitions(&bytes), Some(vec![3, 7]));
        assert_eq!(partitions(&[0, 1, 0, 0, 0, 0, 255, 255, 255, 255]), Some(vec![]), "a member without a shard");
        assert_eq!(partitions(&[]), None, "a member that is joining");
        assert_eq!(partitions(&bytes[..20]), None);
        assert_eq!(partitions(&[0, 1, 127, 255, 255, 255]), None, "a number that the bytes do not hold");
    }
}
