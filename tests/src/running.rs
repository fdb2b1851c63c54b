//! A worker in the process of the test: [`Running`].

use std::sync::Arc;

use aioq::worker::Summary;
use aioq::{App, Client, Result, Worker};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::patience::soon;

/// A worker that runs until the test stops it.
pub struct Running {
    /// Its client.
    pub client: Client,
    stop: Arc<Notify>,
    ended: JoinHandle<Result<Summary>>,
}

impl Running {
    /// Starts the worker of an app.
    ///
    /// # Panics
    /// The app refuses to make one.
    pub async fn start(app: App) -> Self {
        Self::of(app.worker().await.expect("the app makes a worker"))
    }

    /// Lets a worker run.
    #[must_use]
    pub fn of(worker: Worker) -> Self {
        let (client, stop) = (worker.client().clone(), Arc::new(Notify::new()));
        let told = Arc::clone(&stop);
        let ended = tokio::spawn(worker.run(async move { told.notified().await }));
        Self { client, stop, ended }
    }

    /// Tells it to stop, and waits for nothing.
    pub fn tell_to_stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// It does not end in time, or fails.
    pub async fn ended(self) -> Summary {
        soon(self.ended).await.expect("the worker does not panic").expect("the worker ends well")
    }

    /// Tells it to stop, and waits until it has ended.
    ///
    /// # Panics
    /// It does not end in time, or fails.
    pub async fn stop(self) -> Summary {
        self.tell_to_stop();
        self.ended().await
    }

    /// Ends it as a crash would: nothing is given back, nothing is written.
    pub fn crash(self) {
        self.ended.abort();
    }
}
