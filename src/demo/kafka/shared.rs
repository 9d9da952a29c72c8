//! What the connections of the embedded Kafka share.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::cluster::Cluster;

/// A request waits no longer than this for records or for members.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// A transaction whose commit was asked for, and is never answered.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// The records of the transaction in the topic that was named.
    pub records: i64,
}

/// Which commit is to be caught.
pub struct Trap {
    pub topic: String,
    pub records_min: i64,
    pub caught: oneshot::Sender<Caught>,
}

/// What connections share.
pub struct Shared {
    pub address: SocketAddr,
    pub cluster: Mutex<Cluster>,
    pub trap: Mutex<Option<Trap>>,
    /// Counts changes, so that a request can wait for one.
    pub changes: watch::Sender<u64>,
    /// Milliseconds since 1970-01-01 UTC.
    pub now: fn() -> i64,
}

impl Shared {
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        // A panic while it was locked left plain data behind.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
