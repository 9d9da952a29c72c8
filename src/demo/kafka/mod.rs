//! A Kafka in this process, reached over loopback by any client: one broker, everything in memory.
//!
//! The demo kills scimtail in the middle of a transaction and shows that no reader sees a part of it. So this Kafka has
//! what that rests on: transactions with markers, fencing, the last stable offset, and aborted transactions in the
//! answer to a fetch. It has no replication, no compaction and no disk. librdkafka's mock cluster has none of the
//! former: a reader of it sees what was never committed.

mod cluster;
mod code;
mod connection;
mod group;
mod log;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use cluster::Cluster;

/// A transaction whose commit was asked for, and is never answered.
#[derive(Clone, Copy, Debug)]
pub struct Caught {
    /// The records of the transaction in the topic that was named.
    pub records: i64,
}

/// Which commit is to be caught.
struct Trap {
    topic: String,
    records_min: i64,
    caught: oneshot::Sender<Caught>,
}

/// What connections share.
struct Shared {
    address: SocketAddr,
    cluster: Mutex<Cluster>,
    trap: Mutex<Option<Trap>>,
    /// Counts changes, so that a request can wait for one.
    changes: watch::Sender<u64>,
    /// Milliseconds since 1970-01-01 UTC.
    now: fn() -> i64,
}

impl Shared {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        // A panic while it was locked left plain data behind.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// A running Kafka; it ends when this is dropped.
pub struct EmbeddedKafka {
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

impl EmbeddedKafka {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(now: fn() -> i64) -> io::Result<EmbeddedKafka> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            cluster: Mutex::default(),
            trap: Mutex::default(),
            changes: watch::Sender::new(0),
            now,
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(EmbeddedKafka { shared, _accepting: accepting })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// Catches the next commit of a transaction that has written at least `records_min` records to `topic`: its records
    /// are there, the commit is asked for, and nothing is answered any more. Resolves at that moment.
    pub fn catch_commit(&self, topic: &str, records_min: i64) -> oneshot::Receiver<Caught> {
        let (caught, receiver) = oneshot::channel();
        *self.shared.trap() = Some(Trap { topic: topic.to_owned(), records_min, caught });
        receiver
    }
}

/// Serves connections until it is dropped, and they with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection::serve(stream, Arc::clone(&shared)))),
                // E.g. too many open files: the next one may go.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
