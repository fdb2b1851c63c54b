//! Taking deliveries: a slot, a fetch, a job started or in hand.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::Shared;
use super::hand::{Fetched, Hand, Runner};
use super::process::work;
use crate::broker::{Demand, Listener, Subscription};
use crate::error::{Error, Result};

/// The most deliveries to take at once.
const BATCH: usize = 256;

/// How much work to hold ready.
const PREFETCH_SPAN: Duration = Duration::from_millis(50);

/// How long deliveries may wait in hand for a slot, before other workers get them.
const HAND_PATIENCE: Duration = Duration::from_millis(250);

/// How long deliveries may wait in hand for a runner while there are slots.
const RUNNER_PATIENCE: Duration = Duration::from_millis(5);

/// How long an idle worker in burst mode waits before it asks whether anything is left.
const BURST_PATIENCE: Duration = Duration::from_millis(50);

/// How long to wait before listening is tried again.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// Takes deliveries and runs them. Dropping it drops the jobs that run.
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    /// The queues that it listens to, and the listener; none while all queues are paused.
    listening: Option<(Vec<String>, Box<dyn Listener>)>,
    /// The runners.
    pub(super) jobs: JoinSet<()>,
    pace: Pace,
    /// As many runners are at work as there are threads, unless jobs keep them for long.
    threads: usize,
}

impl Fetcher {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        let (jobs, pace) = (JoinSet::new(), Pace::default());
        Self { shared: Arc::clone(shared), listening: None, jobs, pace, threads }
    }

    /// Listens to these queues from now on.
    pub(super) async fn listen(&mut self, queues: &[String]) -> Result<()> {
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
    pub(super) async fn listen_again(&mut self, queues: &[String]) -> Result<()> {
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
    pub(super) async fn stop(&mut self) {
        // First what would be started next: to stop may take as long as a server does not answer.
        give_back_hand(&self.shared).await;
        if let Some((_, mut listener)) = self.listening.take()
            && let Err(error) = listener.stop().await
        {
            tracing::warn!(%error, "what was fetched could not be given back, it comes back after ack_wait");
        }
    }

    /// Takes what comes until the listener is closed, or in burst mode until nothing is left.
    pub(super) async fn fetch(&mut self) -> Result<()> {
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
    pub(super) async fn fetch_until_idle(&mut self) -> Result<()> {
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
        if !self.jobs.is_empty() || self.shared.hand.count() > 0 || self.shared.held.count() > 0 {
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

    /// Whether it listens: not while all queues are paused, nor just before it listens anew.
    pub(super) fn is_listening(&self) -> bool {
        self.listening.is_some()
    }

    /// Waits for deliveries, and sees to it that they are run. False once the listener is closed.
    ///
    /// Cancel safe: deliveries are in hand without a pause after they came.
    async fn fetch_once(&mut self) -> Result<bool> {
        let Some((_, listener)) = &mut self.listening else { return std::future::pending().await };
        reap(&mut self.jobs);
        start_runners(&self.shared, &mut self.jobs, self.threads);
        let Shared { hand, slots, options, .. } = &*self.shared;
        let prefetch = self.pace.prefetch(options.max_prefetch);
        // The other half is fetched by the listener while these are worked off.
        let in_hand = (prefetch / 2).min(BATCH);
        let (count, free) = (hand.count(), slots.available_permits().min(BATCH));
        let demand = Demand { now: (free + in_hand).saturating_sub(count), prefetch: prefetch - in_hand };
        let patience = if free > 0 { RUNNER_PATIENCE } else { HAND_PATIENCE };
        tokio::select! {
            biased;
            deliveries = listener.next(demand), if free > 0 && demand.now > 0 && hand.is_low() => {
                let deliveries = deliveries?;
                if deliveries.is_empty() {
                    return Ok(false);
                }
                self.pace.took(deliveries.len());
                hand.add(deliveries, in_hand / 2);
                start_runners(&self.shared, &mut self.jobs, self.threads);
            }
            () = hand.news() => {}
            _ = slots.acquire(), if free == 0 => {}
            () = too_long(hand, patience) => match free {
                0 => give_back_hand(&self.shared).await,
                // The runners that are at work seem not to come back soon.
                _ => start_runners(&self.shared, &mut self.jobs, usize::MAX),
            },
        }
        Ok(true)
    }
}

/// Starts runners for what is in hand, until so many are at work or there is no slot.
fn start_runners(shared: &Arc<Shared>, jobs: &mut JoinSet<()>, at_work: usize) {
    while shared.hand.count() > 0
        && shared.hand.at_work() < at_work
        && let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned()
        && let Some((first, _)) = shared.hand.take(Instant::now())
    {
        // Bodies and layers kick through this worker's client.
        jobs.spawn(shared.scope.client.scope(work(Runner::new(shared), first, slot)));
    }
}

/// Resolves when something has waited in hand for so long.
async fn too_long(hand: &Hand, patience: Duration) {
    match hand.since() {
        Some(since) => tokio::time::sleep_until(since + patience).await,
        None => std::future::pending().await,
    }
}

/// Forgets the jobs that have ended.
fn reap(jobs: &mut JoinSet<()>) {
    while let Some(ended) = jobs.try_join_next() {
        note_end(ended);
    }
}

/// A body's panic is caught where it runs; one that arrives here is a fault of the framework.
pub(super) fn note_end(ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a job could not be settled, it will be delivered again");
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
