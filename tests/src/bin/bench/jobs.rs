//! The jobs that are measured, and workers for them.

use std::time::Duration;

use aioq::bench::{QUEUE, TEXT, Tally};
use aioq::tasks::Call;
use aioq::worker::WorkerOptions;
use aioq::{App, Backend, Client, Error, Result, Worker, task};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Does nothing but count.
#[task(name = "bench.noop", queue = "bench")]
pub(crate) async fn noop(number: u64, text: &str, #[inject] tally: &Tally) {
    std::hint::black_box(text);
    tally.started(number);
    tally.count();
}

/// The same, without a promise: its message is gone before it runs.
#[task(name = "bench.bare", queue = "bench", ack = "on_receive")]
pub(crate) async fn bare(number: u64, text: &str, #[inject] tally: &Tally) {
    noop::call(number, text, tally).await;
}

/// Told when a body of [`wait`](fn@wait) has started.
pub(crate) static WAITS: Notify = Notify::const_new();

/// Waits to be stopped.
#[task(name = "bench.wait", queue = "bench")]
pub(crate) async fn wait() {
    WAITS.notify_one();
    std::future::pending::<()>().await;
}

/// A job with that number.
pub(crate) fn job(number: usize) -> Call<noop> {
    noop(number as u64, TEXT)
}

/// Kicks many jobs at once.
pub(crate) async fn kick_all(client: &Client, jobs: usize) -> Result<()> {
    client.kiq_all((0..jobs).map(job)).await.into_iter().try_for_each(|kicked| kicked.map(drop))
}

/// An app whose worker takes from the queue `bench`.
pub(crate) fn app(backend: Backend, tally: &Tally) -> App {
    App::new(backend).worker_options(WorkerOptions::new().queues([QUEUE])).state(tally.clone())
}

/// A worker that runs until it is stopped.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    client: Client,
    ended: JoinHandle<Result<()>>,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(worker: Worker) -> Self {
        let (stop, stopped) = oneshot::channel();
        let client = worker.client().clone();
        let until = async {
            // An error says that nobody will stop it any more.
            let _ = stopped.await;
        };
        let ended = tokio::spawn(async move { worker.run(until).await.map(drop) });
        Self { stop, client, ended }
    }

    /// Stops it, and waits for its end. Its client is still to be shut down: in memory, that ends
    /// it for everybody.
    pub(crate) async fn stop(self) -> Result<Client> {
        drop(self.stop);
        self.ended.await.unwrap_or_else(|error| Err(died(&error)))?;
        Ok(self.client)
    }
}

fn died(error: &tokio::task::JoinError) -> Error {
    Error::new(aioq::ErrorKind::Backend, format!("a worker died: {error}"))
}

/// The middle of many spans, in microseconds.
pub(crate) fn middle_us(spans: &[Duration]) -> Option<f64> {
    aioq::bench::percentile_us(spans, 0.5)
}
