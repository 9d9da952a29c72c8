//! A loopback server that ends with its owner.

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// A server that ends with its owner. Its connections end too: without that, kept-alive connections would still be served
/// after the accept loop is aborted.
pub(super) struct Server {
    _stop: oneshot::Sender<()>,
    _accepting: JoinSet<()>,
}

impl Server {
    pub(super) fn start(listener: TcpListener, router: Router) -> Self {
        let (stop, stopped) = oneshot::channel();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            axum::serve(listener, router)
                // Resolves when the sender is dropped.
                .with_graceful_shutdown(async { stopped.await.unwrap_or(()) })
                .await
                .unwrap_or(());
        });
        Self { _stop: stop, _accepting: accepting }
    }
}
