//! Taking deliveries: a slot, a fetch, a job started or in prefetched.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, try_join_all};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::Shared;
use super::prefetch::{Fetched, PrefetchBuffer, Runner};
use super::rate::JobRate;
use super::runner::work;
use crate::broker::{Delivery, Demand, Listener, Subscription};
use crate::error::{Error, Result};
use crate::run::BlockingPool;
use crate::workers::WorkerInfo;

/// The most deliveries to take at once.
const BATCH: usize = 256;

/// How long deliveries may wait in prefetched for a slot, before other workers get them.
const HAND_PATIENCE: Duration = Duration::from_millis(250);

/// How long deliveries may wait in prefetched for a runner while there are slots.
const RUNNER_PATIENCE: Duration = Duration::from_millis(5);

/// How long an idle worker in burst mode waits before it asks whether anything is left.
const BURST_PATIENCE: Duration = Duration::from_millis(50);

/// How long the last acks may be on their way, which the broker counts as held until then.
const ACKS_ON_THEIR_WAY: Duration = Duration::from_millis(500);

/// How long to wait before listening is tried again.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// Takes deliveries and runs them. Dropping it drops the jobs that run.
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    /// By the kind of their queues.
    sources: [Source; 3],
    /// Of the jobs that take slots, and of those that are taken for threads.
    rate: JobRate,
    blocking_rate: JobRate,
    /// Which source is the first to be asked.
    turn: usize,
    /// The runners.
    pub(super) jobs: JoinSet<()>,
    /// As many runners are at work as there are threads, unless jobs keep them for long.
    threads: usize,
    /// Since when nothing but jobs in the hands of others is left, and when that was last looked into.
    held_elsewhere: Option<(Instant, Instant)>,
}

/// Queues of async jobs, and those of both kinds.
const MAIN: usize = 0;
/// Queues of both kinds whose blocking jobs have once been too many: nothing is taken while they are.
const CROWDED: usize = 1;
/// Queues whose tasks all are blocking: as many are taken as there are threads for.
const BLOCKING: usize = 2;

/// Where deliveries of one kind of queues come from.
#[derive(Default)]
struct Source {
    /// The queues that it listens to.
    queues: Vec<String>,
    /// None if there are no queues, or all of them are paused.
    listener: Option<Box<dyn Listener>>,
}

impl Source {
    async fn listen(&mut self, shared: &Shared, queues: Vec<String>) -> Result<()> {
        if !queues.is_empty() {
            let mut subscription = Subscription::new(queues.iter().cloned());
            subscription.ack_wait = shared.options.ack_wait;
            self.listener = Some(shared.scope.client.backend().broker().listen(subscription).await?);
        }
        self.queues = queues;
        Ok(())
    }

    /// Whether it listens to these queues, and to no others.
    fn listens_to(&self, queues: &[String]) -> bool {
        self.queues == queues && self.listener.is_some() != queues.is_empty()
    }

    /// The next deliveries, if there is a demand. Cancel safe.
    async fn next(&mut self, demand: Option<Demand>) -> Result<Vec<Delivery>> {
        match (&mut self.listener, demand) {
            (Some(listener), Some(demand)) => listener.next(demand).await,
            _ => std::future::pending().await,
        }
    }

    async fn stop(&mut self) {
        if let Some(mut listener) = self.listener.take()
            && let Err(error) = listener.stop().await
        {
            tracing::warn!(%error, "what was fetched could not be given back, it comes back after ack_wait");
        }
    }
}

impl Fetcher {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        Self {
            shared: Arc::clone(shared),
            sources: Default::default(),
            rate: JobRate::default(),
            blocking_rate: JobRate::default(),
            turn: MAIN,
            jobs: JoinSet::new(),
            threads,
            held_elsewhere: None,
        }
    }

    /// Listens to these queues from now on.
    pub(super) async fn listen(&mut self, queues: &[String]) -> Result<()> {
        let (shared, kinds) = (&self.shared, self.by_kind(queues));
        let listening =
            self.sources.iter_mut().zip(kinds).map(|(source, queues)| source.listen(shared, queues));
        try_join_all(listening).await.map(drop)
    }

    /// Whether it listens to these queues, each in its place.
    pub(super) fn listens_to(&self, queues: &[String]) -> bool {
        let kinds = self.by_kind(queues);
        self.sources.iter().zip(&kinds).all(|(source, queues)| source.listens_to(queues))
    }

    /// Divides queues by their kinds.
    fn by_kind(&self, queues: &[String]) -> [Vec<String>; 3] {
        let pool = &self.shared.scope.pool;
        let mut kinds: [Vec<String>; 3] = Default::default();
        for queue in queues {
            let kind = match (pool.is_exclusive(queue), pool.has_overflowed(queue)) {
                (true, _) => BLOCKING,
                (false, true) => CROWDED,
                (false, false) => MAIN,
            };
            kinds[kind].push(queue.clone());
        }
        if kinds[MAIN].is_empty() {
            // They hold up nobody but themselves, and need not be listened to anew.
            kinds.swap(MAIN, CROWDED);
        }
        kinds
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
        give_back_prefetched(&self.shared).await;
        join_all(self.sources.iter_mut().map(Source::stop)).await;
    }

    /// The queues that it listens to.
    fn queues(&self) -> Vec<String> {
        self.sources.iter().flat_map(|source| &source.queues).cloned().collect()
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
        if !error.is_outage() {
            return Err(error);
        }
        tracing::warn!(%error, "nothing can be fetched for now, listening anew");
        self.stop().await;
        tokio::time::sleep(LISTEN_PAUSE).await;
        self.listen_again(&self.queues()).await
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
        if !self.jobs.is_empty() || self.shared.prefetched.count() > 0 || self.shared.leases.count() > 0 {
            return Ok(false);
        }
        if !self.is_listening() {
            return Ok(true);
        }
        let depths = match self.shared.scope.client.backend().broker().depths(&self.queues()).await {
            Err(error) if error.is_outage() => return Ok(false),
            depths => depths?,
        };
        // Asked again after the answer: a job may have been handed over meanwhile.
        if depths.iter().any(|depth| depth.ready > 0) || self.shared.leases.count() > 0 {
            self.held_elsewhere = None;
            return Ok(false);
        }
        if self.shared.options.burst {
            return self.leaves(depths.iter().map(|depth| depth.held).sum()).await;
        }
        Ok(true)
    }

    /// Whether a burst may end while so many jobs are in the hands of others. Those of a live worker are left to it,
    /// those of workers that are gone come back.
    async fn leaves(&mut self, held: u64) -> Result<bool> {
        if held == 0 {
            return Ok(true);
        }
        let now = Instant::now();
        let (since, looked) = self.held_elsewhere.get_or_insert((now, now));
        if looked.elapsed() < ACKS_ON_THEIR_WAY {
            return Ok(false);
        }
        let is_first_look = since == looked;
        *looked = now;
        let Shared { scope, queues, .. } = &*self.shared;
        let workers = match scope.client.workers().list().await {
            Err(error) if error.is_outage() => return Ok(false),
            workers => workers?,
        };
        let is_other = |worker: &&WorkerInfo| worker.is_alive() && *worker.worker_id != *scope.worker_id;
        let others = workers.iter().filter(is_other);
        if others.flat_map(|worker| &worker.queues).any(|queue| queues.contains(queue)) {
            tracing::warn!(jobs = held, "other workers hold jobs of these queues, which are left to them");
            return Ok(true);
        }
        if is_first_look {
            tracing::info!(
                jobs = held,
                "waiting for jobs of workers that are gone, until their leases are over"
            );
        }
        Ok(false)
    }

    /// Whether it listens: not while all queues are paused, nor just before it listens anew.
    pub(super) fn is_listening(&self) -> bool {
        self.sources.iter().any(|source| source.listener.is_some())
    }

    /// Waits for deliveries, and sees to it that they are run. False once the listener is closed.
    ///
    /// Cancel safe: deliveries are in prefetched without a pause after they came.
    async fn fetch_once(&mut self) -> Result<bool> {
        if !self.is_listening() {
            return std::future::pending().await;
        }
        let Self { shared, sources, rate, blocking_rate, turn, jobs, threads, .. } = self;
        reap(jobs);
        start_runners(shared, jobs, *threads);
        let Shared { prefetched, options, scope, storage, .. } = &**shared;
        let is_full = storage.is_full();
        let slots = &scope.slots;
        let (count, vacant) = (prefetched.count(), slots.free());
        let without_slot = slots.lent() + scope.pool.without_slot();
        let all = count + options.concurrency.saturating_sub(vacant) + without_slot;
        let prefetch = rate.prefetch(all.saturating_sub(scope.pool.reserved()), options.max_prefetch);
        // The other half is fetched by the listener while these are worked off.
        let ahead = (prefetch / 2).min(BATCH);
        let free = vacant.min(BATCH);
        let demand = Demand { now: (free + ahead).saturating_sub(count), prefetch: prefetch - ahead };
        let fetches = !is_full && free > 0 && demand.now > 0 && prefetched.is_low();
        let for_crowded = Some(demand).filter(|_| scope.pool.accepts_overflow());
        // Where nothing else is listened to.
        let all_crowded = sources[MAIN].queues.first().is_some_and(|queue| scope.pool.has_overflowed(queue));
        let demands = match fetches {
            true => [
                if all_crowded { for_crowded } else { Some(demand) },
                for_crowded,
                demand_for_threads(&scope.pool, blocking_rate, options.max_prefetch),
            ],
            false => [None; 3],
        };
        let patience = if free > 0 && !is_full { RUNNER_PATIENCE } else { HAND_PATIENCE };
        tokio::select! {
            biased;
            (kind, deliveries) = next(sources, demands, *turn) => {
                let deliveries = deliveries?;
                if deliveries.is_empty() {
                    return Ok(false);
                }
                *turn = kind + 1;
                let taken = match kind {
                    BLOCKING => {
                        blocking_rate.took(deliveries.len());
                        // Counted before anybody can take one.
                        Some(scope.pool.reserve(deliveries.len()))
                    }
                    _ => {
                        rate.took(deliveries.len());
                        None
                    }
                };
                prefetched.add(deliveries, taken, ahead / 2);
                start_runners(shared, jobs, *threads);
            }
            () = prefetched.news() => {}
            () = storage.has_room(), if is_full => {}
            () = slots.freed(), if free == 0 => {}
            () = scope.pool.thread_lent() => {}
            () = too_long(prefetched, patience) => if free == 0 || storage.is_full() {
                let [slots, threads] = give_back_prefetched(shared).await;
                rate.gave_back(slots);
                blocking_rate.gave_back(threads);
            } else {
                // The runners that are at work seem not to come back soon.
                start_runners(shared, jobs, usize::MAX);
            },
        }
        Ok(true)
    }
}

/// What may be handed out as blocking jobs get their threads; `None` while none is free.
fn demand_for_threads(pool: &BlockingPool, rate: &mut JobRate, max_prefetch: usize) -> Option<Demand> {
    let prefetch = rate.prefetch(pool.reserved(), max_prefetch);
    let waiting = (prefetch / 2).min(BATCH);
    let now = pool.free().saturating_add_unsigned(waiting);
    let now = usize::try_from(now).ok().filter(|now| *now > 0)?;
    Some(Demand { now: now.min(BATCH), prefetch: prefetch - waiting })
}

/// What the first source that has something hands out, and which one it is; they are asked from that of `turn` on.
/// Cancel safe.
async fn next(
    sources: &mut [Source; 3],
    demands: [Option<Demand>; 3],
    turn: usize,
) -> (usize, Result<Vec<Delivery>>) {
    let [main, crowded, blocking] = sources;
    let main = pin!(main.next(demands[MAIN]));
    let crowded = pin!(crowded.next(demands[CROWDED]));
    let blocking = pin!(blocking.next(demands[BLOCKING]));
    let mut nexts = [main, crowded, blocking];
    poll_fn(|context| {
        let kinds = (turn..turn + 3).map(|kind| kind % 3);
        let mut polls = kinds.map(|kind| nexts[kind].as_mut().poll(context).map(|next| (kind, next)));
        polls.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Starts runners for what is in prefetched, until so many are at work or there is no slot.
fn start_runners(shared: &Arc<Shared>, jobs: &mut JoinSet<()>, at_work: usize) {
    while shared.prefetched.count() > 0
        && !shared.storage.is_full()
        && shared.prefetched.at_work() < at_work
        && let Some(slot) = shared.scope.slots.try_take()
        && let Some((first, _)) = shared.prefetched.take(Instant::now())
    {
        // Bodies and layers kick through this worker's client.
        jobs.spawn(shared.scope.client.scope(work(Runner::new(shared), first, slot)));
    }
}

/// Resolves when something has waited in prefetched for so long.
async fn too_long(prefetched: &PrefetchBuffer, patience: Duration) {
    match prefetched.since() {
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

/// Gives back what waits in prefetched: how much of it was to take slots, and how much was taken for threads.
async fn give_back_prefetched(shared: &Shared) -> [usize; 2] {
    let prefetched = shared.prefetched.take_all();
    let for_threads = prefetched.iter().filter(|fetched| fetched.reservation.is_some()).count();
    let given_back = [prefetched.len() - for_threads, for_threads];
    let release = |fetched: Fetched| async move { fetched.delivery.receipt.release(Duration::ZERO).await };
    for released in join_all(prefetched.into_iter().map(release)).await {
        if let Err(error) = released {
            tracing::warn!(%error, "a job could not be given back, it comes back after ack_wait");
        }
    }
    given_back
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_a_listener_listens_to_no_queue() {
        let queues = ["mail".to_owned()];
        // As it is when listening anew was given up half way.
        let source = Source { queues: queues.to_vec(), listener: None };
        assert!(!source.listens_to(&queues));
        assert!(Source::default().listens_to(&[]));
    }
}
