//! The workers that run on a client. Its shutdown waits for them.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use super::Client;

tokio::task_local! {
    /// Set in the handlers of a worker. A shutdown must not wait for the worker that waits for the
    /// handler.
    static IN_HANDLER: ();
}

/// Time beyond their grace period that workers get to end.
const MARGIN: Duration = Duration::from_secs(10);

/// The workers that run on a client.
#[derive(Default)]
pub(super) struct RunningWorkers {
    running: watch::Sender<Running>,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct Running {
    workers: usize,
    /// Longest grace period of all workers so far.
    grace: Duration,
}

/// Keeps a client connected until dropped: its shutdown waits, but not for ever.
pub(crate) struct Hold(Client);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.workers.running.send_modify(|running| running.workers -= 1);
    }
}

impl Client {
    /// Keeps the client connected for a worker with this grace period.
    pub(crate) fn hold(&self, grace: Duration) -> Hold {
        self.0.workers.running.send_modify(|running| {
            running.workers += 1;
            running.grace = running.grace.max(grace);
        });
        Hold(self.clone())
    }

    /// Resolves when the client is to be shut down.
    pub(crate) async fn closing(&self) {
        // Never an error: the client itself owns the sender.
        let _ = self.0.workers.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Tells the workers on this client to stop, and waits until they have ended.
    pub(super) async fn stop_workers(&self) {
        self.0.workers.closing.send_replace(true);
        if IN_HANDLER.try_with(|()| ()).is_ok() {
            return;
        }
        let mut running = self.0.workers.running.subscribe();
        let limit = running.borrow().grace.saturating_add(MARGIN);
        let ended = running.wait_for(|running| running.workers == 0);
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!(
                "the client disconnects while a worker still runs on it: its jobs come back after ack_wait"
            );
        }
    }
}

/// Runs handlers of a worker. A shutdown of its client by them does not wait for the worker.
pub(crate) fn in_handler<F: Future>(handlers: F) -> impl Future<Output = F::Output> {
    IN_HANDLER.scope((), handlers)
}
