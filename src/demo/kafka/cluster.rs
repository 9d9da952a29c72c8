//! What the embedded Kafka holds: topics, producers and their transactions, groups and their offsets. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::code::Code;
use super::group::Group;
use super::log::{Partition, batches};

/// A topic, with the settings that it was created with.
pub struct Topic {
    pub settings: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
}

/// A producer with a `transactional.id`.
struct Producer {
    id: i64,
    epoch: i16,
    /// The partitions of its open transaction.
    touched: BTreeSet<(String, i32)>,
}

#[derive(Default)]
pub struct Cluster {
    pub topics: BTreeMap<String, Topic>,
    pub groups: BTreeMap<String, Group>,
    /// By group, topic and partition.
    pub offsets: BTreeMap<(String, String, i32), i64>,
    producers: BTreeMap<String, Producer>,
    producer_ids: i64,
}

impl Cluster {
    /// # Errors
    /// The topic exists.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        settings: BTreeMap<String, String>,
    ) -> Result<(), Code> {
        if self.topics.contains_key(name) {
            return Err(Code::TopicAlreadyExists);
        }
        let partitions = (0..partitions.max(1)).map(|_| Partition::default()).collect();
        self.topics.insert(name.to_owned(), Topic { settings, partitions });
        Ok(())
    }

    /// # Errors
    /// There is none.
    pub fn partition(&self, topic: &str, partition: i32) -> Result<&Partition, Code> {
        let found = self.topics.get(topic).zip(usize::try_from(partition).ok());
        found.and_then(|(topic, index)| topic.partitions.get(index)).ok_or(Code::UnknownTopicOrPartition)
    }

    fn partition_mut(&mut self, topic: &str, partition: i32) -> Result<&mut Partition, Code> {
        let found = self.topics.get_mut(topic).zip(usize::try_from(partition).ok());
        found.and_then(|(topic, index)| topic.partitions.get_mut(index)).ok_or(Code::UnknownTopicOrPartition)
    }

    /// Gives a producer its id and epoch. With a `transactional.id` this fences the one before it, and aborts what that
    /// one left open.
    pub fn init_producer(&mut self, transactional_id: Option<&str>, now: i64) -> (i64, i16) {
        let Some(name) = transactional_id else {
            self.producer_ids += 1;
            return (self.producer_ids, 0);
        };
        self.finish(name, false, now);
        let ids = &mut self.producer_ids;
        let producer = self.producers.entry(name.to_owned()).or_insert_with(|| {
            *ids += 1;
            Producer { id: *ids, epoch: -1, touched: BTreeSet::new() }
        });
        if producer.epoch == i16::MAX {
            *ids += 1;
            (producer.id, producer.epoch) = (*ids, -1);
        }
        producer.epoch += 1;
        (producer.id, producer.epoch)
    }

    fn producer(&mut self, name: &str, id: i64, epoch: i16) -> Result<&mut Producer, Code> {
        let found = self.producers.get_mut(name).filter(|producer| producer.id == id);
        let producer = found.ok_or(Code::InvalidProducerIdMapping)?;
        if producer.epoch == epoch { Ok(producer) } else { Err(Code::InvalidProducerEpoch) }
    }

    /// Adds a partition to the open transaction of a producer.
    ///
    /// # Errors
    /// The producer is fenced, or there is no such partition.
    pub fn touch(&mut self, name: &str, id: i64, epoch: i16, topic: &str, partition: i32) -> Result<(), Code> {
        self.partition(topic, partition)?;
        self.producer(name, id, epoch)?.touched.insert((topic.to_owned(), partition));
        Ok(())
    }

    /// The records that the open transaction of a producer has written to a topic; 0 if it has not touched it.
    pub fn open_records(&self, name: &str, topic: &str) -> i64 {
        let touched = self.producers.get(name).into_iter().flat_map(|producer| &producer.touched);
        let in_topic = touched.filter(|(touched, _)| touched == topic);
        in_topic
            .filter_map(|(topic, partition)| self.partition(topic, *partition).ok())
            .map(|partition| partition.end() - partition.stable())
            .sum()
    }

    /// Ends the open transaction of a producer.
    ///
    /// # Errors
    /// The producer is fenced.
    pub fn end_transaction(&mut self, name: &str, id: i64, epoch: i16, committed: bool, now: i64) -> Result<(), Code> {
        self.producer(name, id, epoch)?;
        self.finish(name, committed, now);
        Ok(())
    }

    fn finish(&mut self, name: &str, committed: bool, now: i64) {
        let Some(producer) = self.producers.get_mut(name) else { return };
        let (id, epoch, touched) = (producer.id, producer.epoch, std::mem::take(&mut producer.touched));
        for (topic, partition) in touched {
            if let Ok(partition) = self.partition_mut(&topic, partition) {
                partition.end_transaction(id, epoch, committed, now);
            }
        }
    }

    /// Appends what a producer sent. Returns the first offset.
    ///
    /// # Errors
    /// The producer is fenced, the transaction does not know the partition, or the bytes are no batches.
    pub fn append(&mut self, name: Option<&str>, topic: &str, partition: i32, sent: Bytes) -> Result<i64, Code> {
        self.partition(topic, partition)?;
        let mut first = None;
        for (header, bytes) in batches(sent)? {
            if header.transactional {
                let name = name.ok_or(Code::InvalidTransactionState)?;
                let producer = self.producer(name, header.producer, header.epoch)?;
                if !producer.touched.contains(&(topic.to_owned(), partition)) {
                    return Err(Code::InvalidTransactionState);
                }
            }
            let at = self.partition_mut(topic, partition)?.append(header, bytes)?;
            first.get_or_insert(at);
        }
        first.ok_or(Code::CorruptMessage)
    }
}
