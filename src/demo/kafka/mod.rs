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
mod group_requests;
mod log;
mod shared;

use std::io;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use shared::{Shared, Trap};

pub use shared::Caught;

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
