//! The loop: take a slot, fetch, hand over.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Shared;
use super::heartbeat::Heartbeat;
use super::held::Why;
use super::process::process;
use crate::broker::{DEFAULT_ACK_WAIT, Demand, Listener, Subscription, lease_runtime};
use crate::error::{Error, ErrorKind, Result};

/// How a worker ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Jobs that were taken.
    pub taken: u64,
    /// Jobs whose blocking body was still running when the patience was over.
    pub cut_off: usize,
}

/// The most deliveries to take at once.
const BATCH: usize = 256;

/// How much work to hold ready.
const PREFETCH_SPAN: Duration = Duration::from_millis(50);

/// How long an idle worker in burst mode waits before it asks whether anything is left.
const BURST_PATIENCE: Duration = Duration::from_millis(50);

/// How long bodies that were told to stop may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(shared: &Arc<Shared>, shutdown: impl Future<Output = ()>) -> Result<Summary> {
    let mut listener = listen(shared).await?;
    let _leases = keep_leases(shared);
    let heartbeat = Heartbeat::start(shared).await?;
    announce(shared);
    let mut pace = Pace::default();
    let fetched = tokio::select! {
        biased;
        () = shutdown => Ok(()),
        fetched = fetch(shared, &mut *listener, &mut pace) => fetched,
    };
    // Given back before the running jobs are waited for: others can start them now.
    let stopped = listener.stop().await;
    let cut_off = finish(shared).await;
    heartbeat.stop().await;
    fetched.and(stopped)?;
    Ok(Summary { taken: pace.taken, cut_off })
}

/// The start line: what runs here.
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
    let mut listener = listen(shared).await?;
    let _leases = keep_leases(shared);
    let mut pace = Pace::default();
    let drained = fetch_until_idle(shared, &mut *listener, &mut pace).await;
    listener.stop().await?;
    drained?;
    Ok(Summary { taken: pace.taken, cut_off: 0 })
}

async fn listen(shared: &Shared) -> Result<Box<dyn Listener>> {
    let mut subscription = Subscription::new(shared.queues.iter().cloned());
    subscription.ack_wait = shared.options.ack_wait;
    shared.scope.client.backend().broker().listen(subscription).await
}

/// Extends leases, away from what bodies may block, until the guard is dropped.
fn keep_leases(shared: &Arc<Shared>) -> AbortOnDrop {
    let keep = Arc::clone(&shared.held).keep();
    let in_process = shared.scope.client.backend().broker().info().in_process;
    AbortOnDrop(if in_process { tokio::spawn(keep) } else { lease_runtime().spawn(keep) })
}

/// A spawned task that ends with its owner.
pub(super) struct AbortOnDrop(pub(super) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn fetch(shared: &Arc<Shared>, listener: &mut dyn Listener, pace: &mut Pace) -> Result<()> {
    if shared.options.burst {
        return fetch_until_idle(shared, listener, pace).await;
    }
    loop {
        if !fetch_once(shared, listener, pace).await? {
            return Ok(());
        }
    }
}

/// Takes what there is until nothing is ready and nothing runs.
async fn fetch_until_idle(shared: &Arc<Shared>, listener: &mut dyn Listener, pace: &mut Pace) -> Result<()> {
    loop {
        // Ready already, as in memory: no need to wait for it to prove idle.
        let fetched = match fetch_once(shared, listener, pace).now_or_never() {
            Some(fetched) => Some(fetched),
            None => tokio::time::timeout(BURST_PATIENCE, fetch_once(shared, listener, pace)).await.ok(),
        };
        match fetched {
            Some(Ok(true)) => {}
            Some(Ok(false)) => return Ok(()),
            Some(Err(error)) => return Err(error),
            None if is_idle(shared).await? => return Ok(()),
            None => {}
        }
    }
}

async fn is_idle(shared: &Shared) -> Result<bool> {
    if !shared.jobs.is_empty() {
        return Ok(false);
    }
    let depths = shared.scope.client.backend().broker().depths(&shared.queues).await?;
    // Asked again after the answer: a job may have been handed over meanwhile.
    Ok(depths.iter().all(|depth| depth.ready == 0) && shared.jobs.is_empty())
}

/// Waits for a free slot, then for deliveries, and hands them over. False once the listener is closed.
///
/// Cancel safe: deliveries are handed over without a pause after they came.
async fn fetch_once(shared: &Arc<Shared>, listener: &mut dyn Listener, pace: &mut Pace) -> Result<bool> {
    let mut slots = free_slots(shared).await?;
    let prefetch = pace.prefetch(shared.options.max_prefetch);
    let deliveries = listener.next(Demand { now: slots.num_permits(), prefetch }).await?;
    if deliveries.is_empty() {
        return Ok(false);
    }
    pace.took(deliveries.len());
    for delivery in deliveries {
        // The listener hands out no more than was asked for.
        let Some(slot) = slots.split(1) else { break };
        shared.jobs.spawn(process(Arc::clone(shared), delivery, slot));
    }
    Ok(true)
}

/// All slots that are free, at least one, at most a batch.
async fn free_slots(shared: &Shared) -> Result<OwnedSemaphorePermit> {
    let closed = |_| Error::new(ErrorKind::Backend, "the worker is closed");
    let mut slots = Arc::clone(&shared.slots).acquire_owned().await.map_err(closed)?;
    let more = shared.slots.available_permits().min(BATCH - 1);
    if let Ok(more) = Arc::clone(&shared.slots).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
        slots.merge(more);
    }
    Ok(slots)
}

/// Lets running jobs end within the grace period, then tells the rest to stop; how many did not.
async fn finish(shared: &Shared) -> usize {
    shared.jobs.close();
    if tokio::time::timeout(shared.options.grace, shared.jobs.wait()).await.is_ok() {
        return 0;
    }
    tracing::warn!(jobs = shared.jobs.len(), "the grace period is over, giving running jobs back");
    shared.held.stop_all(Why::Shutdown);
    match tokio::time::timeout(STOP_PATIENCE, shared.jobs.wait()).await {
        Ok(()) => 0,
        Err(_) => shared.jobs.len(),
    }
}

/// How fast jobs are taken, to hold as much ready as is soon worked off.
#[derive(Default)]
struct Pace {
    taken: u64,
    since: Option<Instant>,
    taken_since: u64,
    per_second: f64,
}

impl Pace {
    /// The span over which the rate is measured.
    const SPAN: Duration = Duration::from_millis(100);

    fn took(&mut self, jobs: usize) {
        self.taken += jobs as u64;
        self.taken_since += jobs as u64;
    }

    /// How many jobs to hold ready: what the rate makes of [`PREFETCH_SPAN`].
    fn prefetch(&mut self, max: usize) -> usize {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let span = now - since;
        if span >= Self::SPAN {
            self.per_second = self.taken_since as f64 / span.as_secs_f64();
            (self.since, self.taken_since) = (Some(now), 0);
        }
        ((self.per_second * PREFETCH_SPAN.as_secs_f64()) as usize).min(max)
    }
}
