//! The life of a running worker, from the first fetch to the end of the last job.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument as _;

use super::Shared;
use super::fetch::{Fetcher, note_end};
use super::heartbeat::Heartbeat;
use super::overdue;
use super::pauses::Pauses;
use super::{blocked, retention, schedules, watchdog};
use crate::broker::{DEFAULT_ACK_WAIT, lease_runtime};
use crate::error::{ErrorKind, Result};
use crate::store::{Expect, JobRecord, Status};
use crate::time::clock_is_paused;

/// Counts of a worker's run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Jobs that were processed. Jobs that were given back unopened are not counted.
    pub jobs: u64,
    /// Jobs whose blocking body was still running when the worker ended. They were given back, and
    /// their threads go on until the process ends.
    pub cut_off: usize,
    /// Jobs that another worker took over while they ran here. The results of those runs were
    /// dropped.
    pub taken_over: u64,
    /// Jobs whose end could not be saved. They are delivered again after `ack_wait`.
    pub unsettled: u64,
}

/// Time that bodies get to end after they were told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(shared: &Arc<Shared>, shutdown: impl Future<Output = ()>) -> Result<Summary> {
    check_rights(shared).await?;
    let pauses = Pauses::follow(shared).await?;
    let _leases = keep_leases(shared);
    let present = Heartbeat::enter(shared).await?;
    let _tidying = retention::keep(shared);
    let _watching = watchdog::keep(shared);
    let _looking = overdue::keep(shared);
    let _sweeping = blocked::keep(shared);
    let _scheduling = schedules::keep(shared).await?;
    let (stop, stopped) = oneshot::channel();
    let fetching = fetch_until(stopped, Fetcher::new(shared), pauses);
    let mut fetching = AbortOnDrop(tokio::spawn(fetching.in_current_span()));
    let ended = tokio::select! {
        biased;
        () = shutdown => None,
        ended = &mut fetching.0 => Some(ended),
    };
    drop(stop);
    let ended = match ended {
        Some(ended) => ended,
        None => (&mut fetching.0).await,
    };
    let (mut fetcher, fetched) = match ended {
        Ok(ended) => ended,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this with it.
            Err(_) => std::future::pending().await,
        },
    };
    let cut_off = finish(shared, &mut fetcher.jobs).await;
    present.leave().await;
    fetched?;
    Ok(summary(shared, cut_off))
}

/// A revision that no store reaches.
const NO_REVISION: u64 = 1 << 53;

/// Fails if the worker's user is not permitted to write records: all jobs would run, and none would
/// end. The check is a write whose condition never holds.
async fn check_rights(shared: &Shared) -> Result<()> {
    let backend = shared.scope.client.backend();
    let Some(jobs) = backend.jobs().filter(|_| !shared.scope.client.in_process()) else { return Ok(()) };
    for queue in &shared.queues {
        let record = JobRecord::unreadable("rights".into(), queue, Status::Completed);
        let written = jobs.put(Arc::new(record), Expect::Revision(NO_REVISION), None).await;
        if let Err(error) = written
            && error.kind() == ErrorKind::Permission
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Fetches until it is told to stop.
///
/// It is a task of its own: a job that ends wakes it on the job's thread, so the next job needs no
/// other thread to wake up.
async fn fetch_until(
    stopped: oneshot::Receiver<()>,
    mut fetcher: Fetcher,
    mut pauses: Pauses,
) -> (Fetcher, Result<()>) {
    let fetched = tokio::select! {
        biased;
        _ = stopped => Ok(()),
        fetched = fetch_unpaused(&mut fetcher, &mut pauses) => fetched,
    };
    // Given back before the wait for running jobs: other workers can start them now.
    fetcher.shared.suspects.stop();
    fetcher.stop().await;
    (fetcher, fetched)
}

/// Fetches from the queues that are not paused, until the fetcher ends.
async fn fetch_unpaused(fetcher: &mut Fetcher, pauses: &mut Pauses) -> Result<()> {
    let mut crowded = fetcher.shared.scope.pool.overflowed();
    let active = pauses.active(&fetcher.shared.queues);
    fetcher.listen(&active).await?;
    announce(&fetcher.shared);
    loop {
        tokio::select! {
            biased;
            () = pauses.changed() => {}
            Ok(()) = crowded.changed() => {}
            fetched = fetcher.fetch() => return fetched,
        }
        let active = pauses.active(&fetcher.shared.queues);
        if !fetcher.listens_to(&active) {
            fetcher.stop().await;
            fetcher.listen_again(&active).await?;
        }
    }
}

/// Logs the start of the worker.
fn announce(shared: &Shared) {
    let info = shared.scope.client.backend().broker().info();
    let tasks: Vec<&str> = shared.registry.iter().map(|task| task.name()).collect();
    let ack_wait = shared.options.ack_wait.unwrap_or(DEFAULT_ACK_WAIT);
    tracing::info!(
        worker_id = %shared.scope.worker_id,
        backend = %info.address,
        queues = %shared.queues.join(","),
        tasks = %tasks.join(","),
        ?ack_wait,
        concurrency = shared.options.concurrency,
        "worker started"
    );
}

pub(super) async fn drain(shared: &Arc<Shared>) -> Result<Summary> {
    let _leases = keep_leases(shared);
    let present = Heartbeat::enter(shared).await?;
    let mut fetcher = Fetcher::new(shared);
    let drained = match fetcher.listen(&shared.queues).await {
        Ok(()) => fetcher.fetch_until_idle().await,
        Err(error) => Err(error),
    };
    fetcher.stop().await;
    present.leave().await;
    drained?;
    Ok(summary(shared, 0))
}

/// The counts since the last summary.
fn summary(shared: &Shared, cut_off: usize) -> Summary {
    let taken_over = shared.taken_over.swap(0, Ordering::Relaxed);
    let jobs = shared.jobs.swap(0, Ordering::Relaxed);
    let unsettled = shared.unsettled.swap(0, Ordering::Relaxed);
    let cut_off = cut_off + shared.cut_off.swap(0, Ordering::Relaxed);
    Summary { jobs, cut_off, taken_over, unsettled }
}

/// Extends leases until the guard is dropped, on threads that bodies cannot block.
fn keep_leases(shared: &Arc<Shared>) -> AbortOnDrop {
    spawn_beside(shared, Arc::clone(&shared.leases).keep())
}

/// Spawns work that must go on while bodies block their threads: on the lease runtime. In memory,
/// and in a test with a paused clock, it stays on this runtime.
pub(super) fn spawn_beside(shared: &Shared, task: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
    AbortOnDrop(if stays_here(shared) { tokio::spawn(task) } else { lease_runtime().spawn(task) })
}

/// True if work must stay on this runtime, because another one would have another clock.
pub(super) fn stays_here(shared: &Shared) -> bool {
    shared.scope.client.in_process() || clock_is_paused()
}

/// Runs work that must go on while bodies block their threads, where [`spawn_beside`] spawns it.
pub(super) async fn run_beside<T, F>(shared: &Shared, work: F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    if stays_here(shared) {
        return work.await;
    }
    let (sender, receiver) = oneshot::channel();
    let _working = spawn_beside(shared, async {
        // The receiver is gone if the worker was dropped.
        let _ = sender.send(work.await);
    });
    match receiver.await {
        Ok(done) => done,
        // The runtime is shutting down, and this with it.
        Err(_) => std::future::pending().await,
    }
}

/// A spawned task that ends with its owner.
pub(super) struct AbortOnDrop<T = ()>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets running jobs end within the grace period, tells the rest to stop, and drops what is left.
/// The number of bodies that were cut off.
async fn finish(shared: &Shared, jobs: &mut JoinSet<()>) -> usize {
    if all_ended(jobs, shared.options.grace).await {
        return 0;
    }
    tracing::warn!(jobs = jobs.len(), "the grace period is over, giving running jobs back");
    shared.leases.shut_down();
    if all_ended(jobs, STOP_PATIENCE).await { 0 } else { jobs.len() }
}

async fn all_ended(jobs: &mut JoinSet<()>, patience: Duration) -> bool {
    let ended = async {
        while let Some(ended) = jobs.join_next().await {
            note_end(ended);
        }
    };
    tokio::time::timeout(patience, ended).await.is_ok()
}
