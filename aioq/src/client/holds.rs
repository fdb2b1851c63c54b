//! Workers that run on a client: its shutdown waits for them.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use super::Client;

tokio::task_local! {
    /// In a handler of a worker, for which that worker would wait in turn.
    static IN_HANDLER: ();
}

/// How much longer than their grace period workers may take.
const MARGIN: Duration = Duration::from_secs(10);

/// The workers that run on a client.
#[derive(Default)]
pub(super) struct Holds {
    running: watch::Sender<Running>,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct Running {
    workers: usize,
    /// The longest grace period that one of them ever had.
    grace: Duration,
}

/// A client stays connected as long as this lives, unless it takes too long.
pub(crate) struct Hold(Client);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.holds.running.send_modify(|running| running.workers -= 1);
    }
}

impl Client {
    /// Keeps the client connected for a worker with that grace period.
    pub(crate) fn hold(&self, grace: Duration) -> Hold {
        self.0.holds.running.send_modify(|running| {
            running.workers += 1;
            running.grace = running.grace.max(grace);
        });
        Hold(self.clone())
    }

    /// Resolves when the client is to be shut down.
    pub(crate) async fn closing(&self) {
        // The sender is the client's own.
        let _ = self.0.holds.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Tells the workers on this client to stop, and waits until they have.
    pub(super) async fn stop_workers(&self) {
        self.0.holds.closing.send_replace(true);
        if IN_HANDLER.try_with(|()| ()).is_ok() {
            return;
        }
        let mut running = self.0.holds.running.subscribe();
        let patience = running.borrow().grace.saturating_add(MARGIN);
        let ended = running.wait_for(|running| running.workers == 0);
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!(
                "a worker still runs on a client that is shut down: its jobs come back after ack_wait"
            );
        }
    }
}

/// Runs handlers of a worker. A shutdown of its client from there does not wait for it.
pub(crate) fn in_handler<F: Future>(handlers: F) -> impl Future<Output = F::Output> {
    IN_HANDLER.scope((), handlers)
}
