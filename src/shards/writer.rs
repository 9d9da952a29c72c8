//! The one writer of a shard: a thread that owns the producer and commits all batches that wait in one transaction.
//!
//! A transaction costs a broker tens of milliseconds, however small it is; so the batches of many accounts share
//! one (group commit). **Safety argument.** Each batch keeps its own positions and its own `syncs` records, and the
//! answer to each is the outcome of its transaction: an account cannot tell whether it was alone. An aborted batch is
//! invisible, so it may be redone alone, and only a batch that fails alone fails its account's sync. An unknown outcome
//! is unknown for every batch of the transaction: it ends the acquisition, and with it everything computed under it.
//! The queue is first in, first out, and an account has at most one batch in it. So no account gets a second batch in
//! while another account waits.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{Span, warn};

use crate::kafka::TransactionalProducer;
use crate::kafka::producer::NotCommitted;
use crate::kafka::sender::BATCHES_MAX;
use crate::log::{Batch, CommitError, EndKind, Ended, Log, Positions, Record};
use crate::telemetry::Metric;

/// Batches waiting for the writer. Each account has at most one under way and holds it in memory either way: the
/// queue only has to be long enough for a transaction to find what waits.
const QUEUE: usize = 1_024;

/// Records of one transaction, `syncs` aside: 5,000 principals, each with an event and a state. A batch that is larger
/// is alone in its transaction.
const TRANSACTION_RECORDS_MAX: usize = 10_000;
/// Bytes of one transaction: keys, values and headers; `syncs` aside.
const TRANSACTION_BYTES_MAX: usize = 8 << 20;

/// Batches of one transaction. Each writes one or two `syncs` records beside its own.
const TRANSACTION_BATCHES_MAX: usize = 1_000;
const _: () = assert!(TRANSACTION_BATCHES_MAX <= BATCHES_MAX, "the producer tells them apart");

/// How long a transaction should be open at most, because its readers wait as long. Nothing is added to an open
/// transaction, so the bounds above keep it much shorter. Only Kafka can make it longer, and that is logged. The
/// transaction's life ends it for good (`kafka::producer`).
const TRANSACTION_OPEN_MAX: Duration = Duration::from_secs(10);

/// Tries of one batch that is alone in its transaction, the first included, while each is aborted cleanly.
const TRIES: u32 = 3;

type Reply = oneshot::Sender<Result<Positions, CommitError>>;

struct Job {
    batch: Batch,
    reply: Reply,
}

/// Handle to the writer; the thread ends when the last handle is gone or the acquisition ended.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    /// How the acquisition ended, for the batches that waited meanwhile: that it was fenced decides when the shard is
    /// acquired again, whichever account hears of it first.
    ended: Arc<OnceLock<Ended>>,
}

impl Writer {
    /// The second half resolves when the writer has ended and its producer is gone.
    pub fn start(producer: TransactionalProducer, acquisition: u64) -> (Writer, oneshot::Receiver<()>) {
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE);
        let (gone, has_ended) = oneshot::channel();
        let ended = Arc::new(OnceLock::new());
        let how = ended.clone();
        // What the thread logs names the shard.
        let span = Span::current();
        thread::spawn(move || {
            let _in_span = span.enter();
            let (_gone, producer) = (gone, producer);
            write(Waiting { queue, acquisition, next: None }, &how, |batches, replies| {
                commit(&producer, batches, replies)
            });
        });
        (Writer { jobs, ended }, has_ended)
    }
}

/// Commits what waits until the acquisition ends. What still waits then hears how it ended: that is said before the
/// queue is dropped.
fn write(
    mut waiting: Waiting,
    how: &OnceLock<Ended>,
    mut commit: impl FnMut(&[Batch], Vec<Reply>) -> ControlFlow<Ended>,
) {
    while let Some((batches, replies)) = waiting.take() {
        if let ControlFlow::Break(ended) = commit(&batches, replies) {
            how.get_or_init(|| ended);
            return;
        }
    }
}

/// What waits for the writer, in its order.
struct Waiting {
    queue: mpsc::Receiver<Job>,
    acquisition: u64,
    /// Taken from the queue, but too much for the transaction before.
    next: Option<Job>,
}

impl Waiting {
    /// The next transaction's batches: everything that waits now, within the bounds. Blocks until there is something;
    /// `None`: nothing more may be written. It never waits for company: nothing of a transaction is open meanwhile,
    /// and everything in it is encoded before it begins.
    fn take(&mut self) -> Option<(Vec<Batch>, Vec<Reply>)> {
        let first = match self.next.take() {
            Some(job) => job,
            None => self.queue.blocking_recv()?,
        };
        let (mut batches, mut replies) = (Vec::new(), Vec::new());
        let (mut records, mut bytes) = (0, 0);
        let mut job = Some(first);
        while let Some(Job { batch, reply }) = job {
            if batch.acquisition != self.acquisition {
                // A diff against yesterday's known would double events. The batches that wait with this one are told
                // that the writer ended.
                let reason = "the batch was computed under another acquisition".to_owned();
                drop(reply.send(Err(CommitError::Ended(Ended { kind: EndKind::Failed, reason }))));
                return None;
            }
            // If its sync was cancelled, nothing waits for the answer, and nothing of the batch is written.
            if !reply.is_closed() {
                let size = batch.records.iter().map(Record::len).sum::<usize>();
                let full = batches.len() >= TRANSACTION_BATCHES_MAX
                    || records + batch.records.len() > TRANSACTION_RECORDS_MAX
                    || bytes + size > TRANSACTION_BYTES_MAX;
                if full && !batches.is_empty() {
                    self.next = Some(Job { batch, reply });
                    break;
                }
                records += batch.records.len();
                bytes += size;
                batches.push(batch);
                replies.push(reply);
            }
            job = self.queue.try_recv().ok();
        }
        Some((batches, replies))
    }
}

/// Commits in one transaction, and logs if that took long.
fn commit_once(producer: &TransactionalProducer, batches: &[Batch]) -> Result<Vec<Positions>, NotCommitted> {
    let begun = Instant::now();
    let result = producer.commit(batches);
    let outcome = match &result {
        Ok(_) => "committed",
        Err(NotCommitted::Refused(_) | NotCommitted::Aborted(_)) => "aborted",
        Err(NotCommitted::Ended(_)) => "ended",
    };
    Metric::Transactions.add(1, [("outcome", outcome)]);
    let open = begun.elapsed();
    Metric::TransactionDuration.took(open, []);
    if open > TRANSACTION_OPEN_MAX {
        let (batches, open_s) = (batches.len(), open.as_secs());
        warn!(batches, open_s, "a transaction took long, and readers of committed records waited for it");
    }
    result
}

/// Commits the batches together, and after an abort one by one. `Break`: the acquisition ended.
fn commit(producer: &TransactionalProducer, batches: &[Batch], replies: Vec<Reply>) -> ControlFlow<Ended> {
    if batches.len() > 1 {
        match commit_once(producer, batches) {
            Ok(all) => {
                for (positions, reply) in all.into_iter().zip(replies) {
                    // The receiver may be gone: then the batch is not applied, and the acquisition is ending anyway.
                    drop(reply.send(Ok(positions)));
                }
                return ControlFlow::Continue(());
            }
            Err(NotCommitted::Refused(reason) | NotCommitted::Aborted(reason)) => {
                warn!(batches = batches.len(), reason, "transaction aborted; its batches are redone one by one");
            }
            Err(NotCommitted::Ended(ended)) => return end(replies, ended),
        }
    }
    let mut jobs = batches.iter().zip(replies);
    while let Some((batch, reply)) = jobs.next() {
        let result = commit_alone(producer, batch);
        if let Err(CommitError::Ended(ended)) = result {
            return end([reply].into_iter().chain(jobs.map(|(_, reply)| reply)), ended);
        }
        drop(reply.send(result));
    }
    ControlFlow::Continue(())
}

fn end(replies: impl IntoIterator<Item = Reply>, ended: Ended) -> ControlFlow<Ended> {
    for reply in replies {
        drop(reply.send(Err(CommitError::Ended(ended.clone()))));
    }
    ControlFlow::Break(ended)
}

/// An aborted batch is redone: nothing of it is visible, and its ids and sequences are its own.
fn commit_alone(producer: &TransactionalProducer, batch: &Batch) -> Result<Positions, CommitError> {
    let mut tries = 1;
    loop {
        match commit_once(producer, std::slice::from_ref(batch)) {
            Ok(mut positions) => return Ok(positions.pop().unwrap_or_default()),
            Err(NotCommitted::Aborted(reason)) if tries < TRIES => {
                warn!(reason, "transaction aborted; trying it again");
                tries += 1;
            }
            Err(NotCommitted::Refused(reason) | NotCommitted::Aborted(reason)) => {
                return Err(CommitError::Aborted(reason));
            }
            Err(NotCommitted::Ended(ended)) => return Err(CommitError::Ended(ended)),
        }
    }
}

impl Log for Writer {
    async fn commit(&self, batch: Batch) -> Result<Positions, CommitError> {
        let unsaid = || Ended { kind: EndKind::Failed, reason: "the shard's writer has ended".to_owned() };
        let over = || CommitError::Ended(self.ended.get().cloned().unwrap_or_else(unsaid));
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { batch, reply }).await.map_err(|_| over())?;
        answer.await.map_err(|_| over())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Headers, Topic};

    const ACQUISITION: u64 = 7;

    /// A queue in which batches of these sizes (records, bytes of each) wait, and the receivers of their answers.
    fn waiting(sizes: &[(usize, usize)]) -> (Waiting, Vec<oneshot::Receiver<Result<Positions, CommitError>>>) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let answers = sizes.iter().enumerate().map(|(number, (records, bytes))| {
            let record = Record {
                topic: Topic::Events,
                key: format!("{number:04}"),
                value: Some(vec![0; bytes - 4]),
                headers: Headers::default(),
            };
            let records = vec![record; *records];
            let (reply, answer) = oneshot::channel();
            let batch = Batch { acquisition: ACQUISITION, records, closing: Box::new(|_| Ok(Vec::new())) };
            assert!(jobs.try_send(Job { batch, reply }).is_ok(), "the queue has room");
            answer
        });
        let answers = answers.collect();
        (Waiting { queue, acquisition: ACQUISITION, next: None }, answers)
    }

    /// The numbers of the batches of each transaction until nothing waits any more.
    fn transactions(mut waiting: Waiting) -> Vec<Vec<usize>> {
        let mut all = Vec::new();
        while let Some((batches, _)) = waiting.take() {
            let number = |batch: &Batch| batch.records[0].key.parse().expect("a number");
            all.push(batches.iter().map(number).collect());
        }
        all
    }

    #[tokio::test]
    async fn a_batch_that_waits_when_the_acquisition_is_fenced_hears_that_it_was() {
        let (waiting, answers) = waiting(&[(TRANSACTION_RECORDS_MAX, 10), (1, 10)]);
        let (fenced, ended) = (Ended { kind: EndKind::Fenced, reason: "another owner".to_owned() }, Arc::default());
        let (said, how) = (fenced.clone(), Arc::clone(&ended));
        thread::spawn(move || write(waiting, &how, |_, replies| end(replies, said.clone()))).join().expect("it ends");
        let mut answers = answers.into_iter();
        let first = answers.next().expect("two batches").await.expect("an answer");
        assert_eq!(first, Err(CommitError::Ended(fenced.clone())));
        assert!(answers.next().expect("two batches").await.is_err(), "it was in no transaction");
        // The queue is gone, for a batch that waited in it as for one that comes later.
        let writer = Writer { jobs: mpsc::channel(1).0, ended };
        let later = Batch { acquisition: ACQUISITION, records: Vec::new(), closing: Box::new(|_| Ok(Vec::new())) };
        assert_eq!(writer.commit(later).await, Err(CommitError::Ended(fenced)));
    }

    #[test]
    fn what_waits_shares_a_transaction_in_its_order_within_each_bound() {
        let shared = |sizes: &[(usize, usize)]| {
            let (waiting, _answers) = waiting(sizes);
            transactions(waiting)
        };
        assert_eq!(shared(&[(1, 10), (2, 20), (3, 30)]), [vec![0, 1, 2]]);
        let half = TRANSACTION_RECORDS_MAX / 2;
        assert_eq!(shared(&[(half, 10), (half, 10), (1, 10), (1, 10)]), [vec![0, 1], vec![2, 3]]);
        let half = TRANSACTION_BYTES_MAX / 2;
        assert_eq!(shared(&[(1, half), (1, half), (1, 10)]), [vec![0, 1], vec![2]]);
        // One that is too large by itself is alone; a small one behind it does not overtake it.
        assert_eq!(shared(&[(1, 10), (1, TRANSACTION_BYTES_MAX + 1), (1, 10)]), [vec![0], vec![1], vec![2]]);
        let many = vec![(1, 10); TRANSACTION_BATCHES_MAX + 1];
        assert_eq!(shared(&many).iter().map(Vec::len).collect::<Vec<_>>(), [TRANSACTION_BATCHES_MAX, 1]);
    }

    #[test]
    fn a_batch_that_no_account_waits_for_any_more_is_not_written() {
        let (waiting, mut answers) = waiting(&[(1, 10), (1, 10), (1, 10)]);
        drop(answers.remove(1));
        assert_eq!(transactions(waiting), [vec![0, 2]]);
    }

    #[test]
    fn a_batch_of_another_acquisition_ends_the_writer_and_nothing_that_waits_with_it_is_written() {
        let (mut waiting, mut answers) = waiting(&[(1, 10), (1, 10)]);
        waiting.acquisition += 1;
        assert!(waiting.take().is_none());
        let told = answers.remove(0).try_recv().expect("an answer");
        assert!(matches!(told, Err(CommitError::Ended(Ended { kind: EndKind::Failed, .. }))), "{told:?}");
    }
}
