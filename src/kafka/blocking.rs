//! Where librdkafka's calls run: they block, so they must not run on the runtime's own threads.
//!
//! Each of them runs in the caller's span, so that what it logs names the shard and the account.

use tokio::sync::oneshot;
use tracing::Span;

use crate::service::ServiceError;

/// Runs a short call on a thread of the runtime that may block.
///
/// # Errors
/// Those of `work`, or [`ServiceError::Cancelled`] when its thread ended without a result.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let span = Span::current();
    let result = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    result.unwrap_or_else(|_| Err(cut_off()))
}

/// As [`blocking`], for work that lasts as long as the shard is owned. It gets a thread of its own, because the threads
/// of the runtime are bounded and the short calls of all shards share them.
///
/// # Errors
/// As [`blocking`].
pub async fn on_its_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let span = Span::current();
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || drop(done.send(span.in_scope(work))));
    result.await.unwrap_or_else(|_| Err(cut_off()))
}

/// Ends a client of rdkafka on a thread of its own. Some of them wait there for a tenth of a second, and nothing waits
/// for them.
pub fn aside(client: impl Send + 'static) {
    std::thread::spawn(move || drop(client));
}

fn cut_off() -> ServiceError {
    ServiceError::cancelled("a Kafka call was cut off")
}
