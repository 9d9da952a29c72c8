//! The one writer of a shard: a thread that owns the producer and takes one batch after the other.

use std::thread;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::kafka::TransactionalProducer;
use crate::pipeline::{Batch, CommitError, Ended, Log, Positions};

/// Batches waiting for the writer; each account has at most one under way, so more would only hide delay.
const QUEUE: usize = 64;

/// Of one batch, the first included, while each is aborted cleanly.
const TRIES: u32 = 3;

struct Job {
    batch: Batch,
    reply: oneshot::Sender<Result<Positions, CommitError>>,
}

/// Handle to the writer; the thread ends when the last handle is gone or the acquisition ended.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// The second half resolves when the writer has ended and its producer is gone.
    pub fn start(producer: TransactionalProducer, acquisition: u64) -> (Writer, oneshot::Receiver<()>) {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (ended, has_ended) = oneshot::channel();
        thread::spawn(move || {
            let (_ended, producer) = (ended, producer);
            while let Some(Job { batch, reply }) = queue.blocking_recv() {
                let result = if batch.acquisition == acquisition {
                    commit(&producer, &batch)
                } else {
                    // A diff against yesterday's known would double events.
                    let reason = "the batch was computed under another acquisition".to_owned();
                    Err(CommitError::Ended(Ended { fenced: false, reason }))
                };
                let over = matches!(result, Err(CommitError::Ended(_)));
                // Whoever waits may be gone: then nobody applies, and the acquisition is ending anyway.
                drop(reply.send(result));
                if over {
                    return;
                }
            }
        });
        (Writer { jobs }, has_ended)
    }
}

/// An aborted batch is redone: nothing of it is visible, and its ids and sequences are its own.
fn commit(producer: &TransactionalProducer, batch: &Batch) -> Result<Positions, CommitError> {
    for _ in 1..TRIES {
        match producer.commit(batch) {
            Err(CommitError::Aborted(reason)) => warn!(reason, "transaction aborted; trying it again"),
            result => return result,
        }
    }
    producer.commit(batch)
}

impl Log for Writer {
    async fn commit(&self, batch: Batch) -> Result<Positions, CommitError> {
        let over = || CommitError::Ended(Ended { fenced: false, reason: "the shard's writer has ended".to_owned() });
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { batch, reply }).await.map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }
}
