//! A worker of the test.

use std::time::Duration;

use aioq::worker::{Summary, WorkerOptions};
use aioq::{App, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Time that a worker that stops waits for its bodies.
const GRACE: Duration = Duration::from_secs(1);

/// A worker that lives.
pub(crate) struct Live {
    pub(crate) id: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Summary>>,
}

impl Live {
    pub(crate) async fn start(app: App, ack_wait: Duration, options: WorkerOptions) -> Self {
        // Crashes are no poison here.
        let options = options.ack_wait(ack_wait).grace(GRACE).max_crashes(1_000);
        let worker = app.worker_options(options).worker().await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let id = worker.id().to_owned();
        let task = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        Self { id, stop, task }
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }

    /// Ends it without a word to anybody.
    pub(crate) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}
