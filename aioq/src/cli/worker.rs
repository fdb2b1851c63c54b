//! The command `worker`: runs jobs until a signal.

use std::time::Duration;

use clap::Args;

use super::check::{unknown_tasks, unknown_tasks_warning};
use super::out;
use super::queues::{parse_queue, strange};
use super::signals::Signals;
use crate::app::{App, Exit};
use crate::error::BoxError;
use crate::time::parse_duration;

#[derive(Args)]
pub(super) struct WorkerArgs {
    /// Queues to consume, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "QUEUES", env = "AIOQ_QUEUES", value_parser = parse_queue)]
    queues: Option<Vec<String>>,
    /// Async jobs to run at once
    #[arg(long, value_name = "N", env = "AIOQ_CONCURRENCY")]
    concurrency: Option<usize>,
    /// Blocking jobs to run at once
    #[arg(long, value_name = "N", env = "AIOQ_BLOCKING_THREADS")]
    blocking_threads: Option<usize>,
    /// Time after which the jobs of a worker that died come again; one value per queue
    #[arg(long, value_parser = parse_duration, value_name = "TIME", env = "AIOQ_ACK_WAIT")]
    ack_wait: Option<Duration>,
    /// Time that running jobs get to finish when the worker is told to stop
    #[arg(long, value_parser = parse_duration, value_name = "TIME", env = "AIOQ_GRACE")]
    grace: Option<Duration>,
    /// Fail a job as poison after N deaths of its process while it ran alone among suspects
    #[arg(long, value_name = "N", env = "AIOQ_MAX_CRASHES")]
    max_crashes: Option<u32>,
    /// Time for which jobs with an unknown task or unfit arguments are left to a newer release
    #[arg(long, value_parser = parse_duration, value_name = "TIME", env = "AIOQ_PATIENCE")]
    patience: Option<Duration>,
    /// End once no job is ready and none runs
    #[arg(long)]
    burst: bool,
    /// Fire no schedules; another worker or the command `scheduler` has to
    #[arg(long)]
    no_scheduler: bool,
}

pub(super) async fn run(app: App, args: WorkerArgs) -> Result<Exit, BoxError> {
    let options = args.options(&app);
    run_until_signal(app.worker_options(options)).await
}

/// Runs the worker of an app until a signal.
pub(super) async fn run_until_signal(app: App) -> Result<Exit, BoxError> {
    // Registered first, so that a signal during the start is not lost.
    let mut signals = Signals::new()?;
    let worker = tokio::select! {
        worker = app.worker() => worker?,
        () = signals.next() => return Ok(Exit::Done),
    };
    let client = worker.client().clone();
    for warning in strange(&client, worker.registry(), worker.queues()).await {
        tracing::warn!("{warning}");
    }
    // The worker starts even if the queues cannot be read.
    let found = unknown_tasks(&client, worker.registry(), worker.queues()).await.unwrap_or_default();
    if let Some(warning) = unknown_tasks_warning(&found) {
        tracing::warn!("{warning}");
    }
    let shutdown = async move {
        signals.next().await;
        out::tell(
            "stopping: takes no new jobs and waits for the running ones; a second signal ends it at once",
        );
        tokio::spawn(async move {
            signals.another().await;
            std::process::exit(1);
        });
    };
    // Spawned onto a runtime thread: tasks that it spawns in turn go to that thread's own queue.
    let ended = tokio::spawn(worker.run(shutdown)).await;
    // Also after an error: the shutdown sends the last acks.
    let closed = client.shutdown().await;
    let summary = ended??;
    if let Err(error) = closed {
        tracing::warn!(%error, "shutdown failed after the last jobs; their messages come again and are skipped");
    }
    tracing::info!(
        jobs = summary.jobs,
        cut_off = summary.cut_off,
        taken_over = summary.taken_over,
        unsettled = summary.unsettled,
        "worker stopped"
    );
    Ok(if summary.cut_off == 0 { Exit::Done } else { Exit::Failed })
}

impl WorkerArgs {
    /// The options of the code, overridden by these arguments.
    fn options(self, app: &App) -> crate::worker::WorkerOptions {
        let mut options = app.options().clone();
        options.queues = self.queues.or(options.queues);
        options.concurrency = self.concurrency.unwrap_or(options.concurrency);
        options.blocking_threads = self.blocking_threads.unwrap_or(options.blocking_threads);
        options.ack_wait = self.ack_wait.or(options.ack_wait);
        options.grace = self.grace.unwrap_or(options.grace);
        options.max_crashes = self.max_crashes.unwrap_or(options.max_crashes);
        options.patience = self.patience.or(options.patience);
        options.burst |= self.burst;
        options.schedules &= !self.no_scheduler;
        options
    }
}
