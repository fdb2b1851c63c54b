//! The loop: take a slot, fetch, hand over.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Shared;
use super::hand::Fetched;
use super::pauses::Pauses;
use super::presence::Presence;
use super::process::work;
use super::retention;
use crate::broker::{DEFAULT_ACK_WAIT, Demand, Listener, Subscription, lease_runtime};
use crate::error::{Error, ErrorKind, Result};
use crate::time::clock_is_paused;

/// How a worker ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Jobs that were taken.
    pub taken: u64,
    /// Jobs whose blocking body was still running when the patience was over.
    pub cut_off: usize,
    /// Jobs that another worker took over while they ran here: what came of those runs was dropped.
    pub taken_over: u64,
}

/// The most deliveries to take at once.
const BATCH: usize = 256;

/// How much work to hold ready.
const PREFETCH_SPAN: Duration = Duration::from_millis(50);

/// How long deliveries may wait in hand for a job to end, before other workers get them.
const HAND_PATIENCE: Duration = Duration::from_millis(250);

/// How long an idle worker in burst mode waits before it asks whether anything is left.
const BURST_PATIENCE: Duration = Duration::from_millis(50);

/// How long to wait before listening is tried again.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// How long bodies that were told to stop may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(shared: &Arc<Shared>, shutdown: impl Future<Output = ()>) -> Result<Summary> {
    let pauses = Pauses::follow(shared).await?;
    let _leases = keep_leases(shared);
    let present = Presence::enter(shared).await?;
    let _tidying = retention::keep(shared);
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
    Ok(fetcher.summary(cut_off))
}

/// Fetches until it is told to stop. A task of its own: a job that ends wakes it on the thread that it ran on, and
/// no other thread need be woken for the next one.
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
    // Given back before the running jobs are waited for: others can start them now.
    fetcher.stop().await;
    (fetcher, fetched)
}

/// Fetches from the queues that are not paused, until there is nothing to fetch any more.
async fn fetch_unpaused(fetcher: &mut Fetcher, pauses: &mut Pauses) -> Result<()> {
    let mut active = pauses.active(&fetcher.shared.queues);
    fetcher.listen(&active).await?;
    announce(&fetcher.shared);
    loop {
        tokio::select! {
            biased;
            () = pauses.changed() => {}
            fetched = fetcher.fetch() => return fetched,
        }
        let now = pauses.active(&fetcher.shared.queues);
        // It does not listen if it was just about to listen anew.
        if now != active || fetcher.listening.is_none() {
            active = now;
            fetcher.stop().await;
            fetcher.listen_again(&active).await?;
        }
    }
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
    let _leases = keep_leases(shared);
    let present = Presence::enter(shared).await?;
    let mut fetcher = Fetcher::new(shared);
    let drained = match fetcher.listen(&shared.queues).await {
        Ok(()) => fetcher.fetch_until_idle().await,
        Err(error) => Err(error),
    };
    fetcher.stop().await;
    present.leave().await;
    drained?;
    Ok(fetcher.summary(0))
}

/// Extends leases, away from what bodies may block, until the guard is dropped.
fn keep_leases(shared: &Arc<Shared>) -> AbortOnDrop {
    spawn_beside(shared, Arc::clone(&shared.held).keep())
}

/// Spawns what must go on while bodies block their threads: on the runtime of the leases, or in memory and where a
/// test has paused the clock on this one.
pub(super) fn spawn_beside(shared: &Shared, task: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
    AbortOnDrop(if stays_here(shared) { tokio::spawn(task) } else { lease_runtime().spawn(task) })
}

/// Whether there is one clock for all: the time of another runtime would be another time.
fn stays_here(shared: &Shared) -> bool {
    shared.scope.client.in_process() || clock_is_paused()
}

/// Runs what must not depend on bodies that block their threads, where [`spawn_beside`] would.
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
        // Nobody waits any more if the worker was dropped.
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

/// Takes deliveries and runs them. Dropping it drops the jobs that run.
struct Fetcher {
    shared: Arc<Shared>,
    /// The queues that it listens to, and the listener; none while all queues are paused.
    listening: Option<(Vec<String>, Box<dyn Listener>)>,
    jobs: JoinSet<()>,
    pace: Pace,
}

impl Fetcher {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), listening: None, jobs: JoinSet::new(), pace: Pace::default() }
    }

    fn summary(&self, cut_off: usize) -> Summary {
        let taken_over = self.shared.taken_over.swap(0, Ordering::Relaxed);
        let taken = self.shared.taken.swap(0, Ordering::Relaxed);
        Summary { taken, cut_off, taken_over }
    }

    /// Listens to these queues from now on.
    async fn listen(&mut self, queues: &[String]) -> Result<()> {
        if queues.is_empty() {
            return Ok(());
        }
        let mut subscription = Subscription::new(queues.iter().cloned());
        subscription.ack_wait = self.shared.options.ack_wait;
        let listener = self.shared.scope.client.backend().broker().listen(subscription).await?;
        self.listening = Some((queues.to_vec(), listener));
        Ok(())
    }

    /// Listens to these queues as soon as the backend lets it.
    async fn listen_again(&mut self, queues: &[String]) -> Result<()> {
        loop {
            match self.listen(queues).await {
                Err(error) if error.is_outage() => {
                    tracing::warn!(%error, "cannot listen for now, trying on");
                    tokio::time::sleep(LISTEN_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Stops listening, and gives back what was not started. What cannot be given back comes back by itself.
    async fn stop(&mut self) {
        // First what would be started next: to stop may take as long as a server does not answer.
        give_back_hand(&self.shared).await;
        if let Some((_, mut listener)) = self.listening.take()
            && let Err(error) = listener.stop().await
        {
            tracing::warn!(%error, "what was fetched could not be given back, it comes back after ack_wait");
        }
    }

    /// Takes what comes until the listener is closed, or in burst mode until nothing is left.
    async fn fetch(&mut self) -> Result<()> {
        if self.shared.options.burst {
            return self.fetch_until_idle().await;
        }
        loop {
            match self.fetch_once().await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Listens anew after an outage: none ends a worker.
    async fn recover(&mut self, error: Error) -> Result<()> {
        let Some((queues, _)) = self.listening.as_ref().filter(|_| error.is_outage()) else {
            return Err(error);
        };
        let queues = queues.clone();
        tracing::warn!(%error, "nothing can be fetched for now, listening anew");
        self.stop().await;
        tokio::time::sleep(LISTEN_PAUSE).await;
        self.listen_again(&queues).await
    }

    /// Takes what there is until nothing is ready and nothing runs.
    async fn fetch_until_idle(&mut self) -> Result<()> {
        loop {
            // Ready already, as in memory: no need to wait for it to prove idle.
            let fetched = match self.fetch_once().now_or_never() {
                Some(fetched) => Some(fetched),
                None => tokio::time::timeout(BURST_PATIENCE, self.fetch_once()).await.ok(),
            };
            match fetched {
                Some(Ok(true)) => {}
                Some(Ok(false)) => return Ok(()),
                Some(Err(error)) => self.recover(error).await?,
                None if self.is_idle().await? => match self.fetch_once().now_or_never() {
                    // It was on its way while the broker was asked.
                    Some(Ok(true)) => {}
                    Some(Err(error)) => self.recover(error).await?,
                    Some(Ok(false)) | None => return Ok(()),
                },
                None => {}
            }
        }
    }

    async fn is_idle(&mut self) -> Result<bool> {
        reap(&mut self.jobs);
        // Also the jobs of other calls that share this worker.
        if !self.jobs.is_empty() || self.shared.held.count() > 0 {
            return Ok(false);
        }
        let Some((queues, _)) = &self.listening else { return Ok(true) };
        let depths = match self.shared.scope.client.backend().broker().depths(queues).await {
            Err(error) if error.is_outage() => return Ok(false),
            depths => depths?,
        };
        // Asked again after the answer: a job may have been handed over meanwhile.
        Ok(depths.iter().all(|depth| depth.ready == 0) && self.shared.held.count() == 0)
    }

    /// Waits for a free slot, then for deliveries, and hands them over. False once the listener is closed.
    ///
    /// Cancel safe: deliveries are handed over without a pause after they came.
    async fn fetch_once(&mut self) -> Result<bool> {
        let Some((_, listener)) = &mut self.listening else { return std::future::pending().await };
        let mut slots = slots_in_time(&self.shared).await?;
        reap(&mut self.jobs);
        // Whoever ended a job has looked already, unless it had no slot of its own any more.
        while let Some(fetched) = self.shared.hand.take() {
            start(&self.shared, &mut self.jobs, fetched, &mut slots);
            if slots.num_permits() == 0 {
                return Ok(true);
            }
        }
        let prefetch = self.pace.prefetch(self.shared.options.max_prefetch);
        // The other half is fetched by the listener while these are worked off.
        let in_hand = (prefetch / 2).min(BATCH);
        let demand = Demand { now: slots.num_permits() + in_hand, prefetch: prefetch - in_hand };
        let deliveries = listener.next(demand).await?;
        if deliveries.is_empty() {
            return Ok(false);
        }
        self.pace.took(deliveries.len());
        let at = Instant::now();
        let mut fetched = deliveries.into_iter().map(|delivery| Fetched { delivery, at });
        let first: Vec<Fetched> = fetched.by_ref().take(slots.num_permits()).collect();
        // Before any is started: who ends first looks here.
        self.shared.hand.add(fetched);
        for fetched in first {
            start(&self.shared, &mut self.jobs, fetched, &mut slots);
        }
        Ok(true)
    }
}

/// Starts a job in one of these slots.
fn start(shared: &Arc<Shared>, jobs: &mut JoinSet<()>, fetched: Fetched, slots: &mut OwnedSemaphorePermit) {
    if let Some(slot) = slots.split(1) {
        let work = work(Arc::clone(shared), fetched, slot);
        // Bodies and layers kick through this worker's client.
        jobs.spawn(shared.scope.client.scope(work));
    }
}

/// Forgets the jobs that have ended.
fn reap(jobs: &mut JoinSet<()>) {
    while let Some(ended) = jobs.try_join_next() {
        note_end(ended);
    }
}

/// A body's panic is caught where it runs; one that arrives here is a fault of the framework.
fn note_end(ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a job could not be settled, it will be delivered again");
    }
}

/// Free slots; what waits in hand for one does not wait long.
async fn slots_in_time(shared: &Shared) -> Result<OwnedSemaphorePermit> {
    let slots = free_slots(shared);
    let Some(since) = shared.hand.since() else { return slots.await };
    let mut slots = std::pin::pin!(slots);
    match tokio::time::timeout_at(since + HAND_PATIENCE, &mut slots).await {
        Ok(slots) => slots,
        Err(_) => {
            give_back_hand(shared).await;
            slots.await
        }
    }
}

/// Gives back what waits in hand.
async fn give_back_hand(shared: &Shared) {
    let hand = shared.hand.take_all();
    let release = |fetched: Fetched| async move { fetched.delivery.receipt.release(Duration::ZERO).await };
    for released in futures_util::future::join_all(hand.into_iter().map(release)).await {
        if let Err(error) = released {
            tracing::warn!(%error, "a job could not be given back, it comes back after ack_wait");
        }
    }
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

/// Lets running jobs end within the grace period, then tells the rest to stop, then drops them; how many bodies
/// were cut off.
async fn finish(shared: &Shared, jobs: &mut JoinSet<()>) -> usize {
    if all_ended(jobs, shared.options.grace).await {
        return 0;
    }
    tracing::warn!(jobs = jobs.len(), "the grace period is over, giving running jobs back");
    shared.held.shut_down();
    match all_ended(jobs, STOP_PATIENCE).await {
        true => 0,
        false => jobs.len(),
    }
}

async fn all_ended(jobs: &mut JoinSet<()>, patience: Duration) -> bool {
    let ended = async {
        while let Some(ended) = jobs.join_next().await {
            note_end(ended);
        }
    };
    tokio::time::timeout(patience, ended).await.is_ok()
}

/// How fast jobs are taken, to hold as much ready as is soon worked off.
#[derive(Default)]
struct Pace {
    since: Option<Instant>,
    taken_since: u64,
    per_second: f64,
}

impl Pace {
    /// The span over which the rate is measured.
    const SPAN: Duration = Duration::from_millis(100);

    fn took(&mut self, jobs: usize) {
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
