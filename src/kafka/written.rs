//! Up to where each topic of a partition is written, and what it means when a topic ends before that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::{Positions, Topic};

/// The offset after the last record of each topic in the partition, as far as the shard's owner knows. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Positions>>);

impl Written {
    pub fn up_to(&self) -> Positions {
        self.lock().clone()
    }

    /// Moves each topic's offset up to at least that of `positions`.
    pub fn raise(&self, positions: &Positions) {
        let mut written = self.lock();
        for (topic, position) in positions {
            let end = written.entry(*topic).or_default();
            *end = (*end).max(*position);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first topic that ends, or takes a record, before the offset up to which it is written: it is another topic by
/// the same name.
pub fn recreated(written: &Positions, now: &Positions) -> Option<Topic> {
    now.iter().find(|(topic, offset)| written.get(topic).is_some_and(|end| *offset < end)).map(|(topic, _)| *topic)
}

/// The sentence about a topic that [`recreated`] found.
pub fn recreated_in_words(topic: &str) -> String {
    format!("{topic} ends before what was written to it: it was deleted or recreated, or the brokers lost records")
}
