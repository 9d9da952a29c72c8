//! What the demo reads back from Kafka, as any consumer can.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use rdkafka::topic_partition_list::Offset;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::avro::Decoder;
use crate::avro::wire::{ChangeEvent, SyncStatus};
use crate::kafka::blocking::blocking;
use crate::kafka::read::{follow, read_from};
use crate::log::Topic;
use crate::service::ServiceError;
use crate::shards::Services;

/// Records that were read back from Kafka and are not printed yet.
const BACKLOG: usize = 1_024;

pub enum Seen {
    Event(Box<ChangeEvent>),
    /// The marker of a completed sync.
    Completed(Box<SyncStatus>),
    /// The record of the newest attempt, which may have been held or have failed.
    Attempt(Box<SyncStatus>),
}

/// Follows events and syncs in these partitions from the beginning, until `ended`.
pub fn follow_all(services: &Services, partitions: &BTreeSet<i32>, ended: &CancellationToken) -> mpsc::Receiver<Seen> {
    let (sender, seen) = mpsc::channel(BACKLOG);
    for topic in [Topic::Events, Topic::Syncs] {
        let (kafka, sender, ended) = (services.kafka.clone(), sender.clone(), ended.clone());
        let mut decoder = Decoder::of_writer(services.codec.ids, services.registry.clone());
        let from: Vec<(i32, Offset)> = partitions.iter().map(|partition| (*partition, Offset::Beginning)).collect();
        tokio::task::spawn_blocking(move || {
            follow(&kafka, topic, &from, drop, |record| {
                let found = record.and_then(|record| {
                    let marker = record.key.is_some_and(|key| !key.contains(&b'/'));
                    Some(match (topic, marker) {
                        (Topic::Events, _) => Seen::Event(Box::new(decoder.decode(topic, record.value?).ok()?)),
                        (_, true) => Seen::Completed(Box::new(decoder.decode(topic, record.value?).ok()?)),
                        (_, false) => Seen::Attempt(Box::new(decoder.decode(topic, record.value?).ok()?)),
                    })
                });
                let closed = found.is_some_and(|found| sender.blocking_send(found).is_err());
                Ok(if closed || ended.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
        });
    }
    seen
}

/// What the events of one account are, all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    pub events: i64,
    pub newest: i64,
    /// Numbers that no event has.
    pub missing: i64,
    /// Events whose number or id another one has.
    pub doubled: i64,
}

/// Counts numbers and ids, in any order.
fn order(events: &[(i64, String)]) -> Order {
    let numbers: BTreeSet<i64> = events.iter().map(|(number, _)| *number).collect();
    let ids: BTreeSet<&str> = events.iter().map(|(_, id)| id.as_str()).collect();
    let newest = numbers.last().copied().unwrap_or(0);
    let different = numbers.len().min(ids.len()) as i64;
    let events = events.len() as i64;
    Order { events, newest, missing: newest - numbers.len() as i64, doubled: events - different }
}

/// Reads all events of the partitions again with a new reader. The order of each account, by name.
pub async fn orders(services: &Services, partitions: &BTreeSet<i32>) -> Result<BTreeMap<String, Order>, ServiceError> {
    let (kafka, registry, ids) = (services.kafka.clone(), services.registry.clone(), services.codec.ids);
    let from: Vec<(i32, Offset)> = partitions.iter().map(|partition| (*partition, Offset::Beginning)).collect();
    blocking(move || {
        let mut decoder = Decoder::of_writer(ids, registry);
        let mut events: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
        read_from(&kafka, Topic::Events, &from, |record| {
            let Some(value) = record.value else { return Ok(()) };
            let event: ChangeEvent = decoder
                .decode(Topic::Events, value)
                .map_err(|complaint| ServiceError::refused(format!("{}: {complaint}", record.address())))?;
            events.entry(event.account).or_default().push((event.sequence, event.event_id));
            Ok(())
        })?;
        Ok(events.into_iter().map(|(account, events)| (account, order(&events))).collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_there_twice_is_counted() {
        let of = |events: &[(i64, &str)]| {
            order(&events.iter().map(|(number, id)| (*number, (*id).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Order::default());
        assert_eq!(of(&[(1, "a"), (2, "b")]), Order { events: 2, newest: 2, missing: 0, doubled: 0 });
        assert_eq!(of(&[(1, "a"), (3, "c")]), Order { events: 2, newest: 3, missing: 1, doubled: 0 });
        assert_eq!(of(&[(1, "a"), (1, "a")]), Order { events: 2, newest: 1, missing: 0, doubled: 1 });
        assert_eq!(of(&[(1, "a"), (2, "a")]), Order { events: 2, newest: 2, missing: 0, doubled: 1 });
    }
}
