//! The fetch loop: it fetches deliveries as slots and threads become free, and starts runners for
//! them.

mod plan;
mod source;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, try_join_all};
use smallvec::SmallVec;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use self::plan::{Load, Plan, QueueKind, plan};
use self::source::Source;
use super::Shared;
use super::prefetch::{Fetched, PrefetchBuffer, Runner};
use super::rate::JobRate;
use super::runner::work;
use crate::broker::Delivery;
use crate::error::{Error, Result};
use crate::workers::WorkerInfo;

/// Time that buffered deliveries wait for a slot before other workers get them.
const SLOT_PATIENCE: Duration = Duration::from_millis(250);

/// Time that buffered deliveries wait for a runner while there are free slots.
const RUNNER_PATIENCE: Duration = Duration::from_millis(5);

/// Time after which an idle worker in burst mode asks the broker if any job is left.
const BURST_PATIENCE: Duration = Duration::from_millis(50);

/// Time that the last acks may be on their way. The broker counts their jobs as held until then.
const ACKS_ON_THEIR_WAY: Duration = Duration::from_millis(500);

/// Pause before the next try to listen.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// Fetches deliveries and runs them. Dropping it drops the running jobs.
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    /// One source for each kind of queues that this worker has.
    sources: Vec<Source>,
    /// Rates of the jobs in slots, and of the jobs that were fetched for threads.
    rate: JobRate,
    blocking_rate: JobRate,
    /// Index of the source that is polled first.
    turn: usize,
    /// The runners.
    pub(super) jobs: JoinSet<()>,
    /// Number of runners to keep at work: one per thread of the runtime.
    threads: usize,
    /// Set while only jobs of other workers are left: since when, and the last check of these
    /// workers.
    held_elsewhere: Option<(Instant, Instant)>,
}

impl Fetcher {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        Self {
            shared: Arc::clone(shared),
            sources: Vec::new(),
            rate: JobRate::default(),
            blocking_rate: JobRate::default(),
            turn: 0,
            jobs: JoinSet::new(),
            threads,
            held_elsewhere: None,
        }
    }

    /// Listens to these queues from now on.
    pub(super) async fn listen(&mut self, queues: &[String]) -> Result<()> {
        let sources = self.by_kind(queues).into_iter().map(|(kind, queues)| Source::new(kind, queues));
        self.sources = sources.collect();
        let listening = self.sources.iter_mut().map(|source| source.listen(&self.shared));
        try_join_all(listening).await.map(drop)
    }

    /// True if the sources listen to exactly these queues, each to those of its kind.
    pub(super) fn listens_to(&self, queues: &[String]) -> bool {
        let kinds = self.by_kind(queues);
        self.sources.len() == kinds.len()
            && self
                .sources
                .iter()
                .zip(&kinds)
                .all(|(source, (kind, queues))| source.listens_to(*kind, queues))
    }

    /// The queues by kind.
    fn by_kind(&self, queues: &[String]) -> BTreeMap<QueueKind, Vec<String>> {
        let pool = &self.shared.scope.pool;
        let mut kinds = BTreeMap::<_, Vec<String>>::new();
        for queue in queues {
            let kind = match (pool.is_exclusive(queue), pool.has_overflowed(queue)) {
                (true, _) => QueueKind::Blocking,
                (false, true) => QueueKind::Overflowed,
                (false, false) => QueueKind::Async,
            };
            kinds.entry(kind).or_default().push(queue.clone());
        }
        if !kinds.contains_key(&QueueKind::Async)
            && let Some(overflowed) = kinds.remove(&QueueKind::Overflowed)
        {
            // Without other queues they delay only themselves, and need no new listener.
            kinds.insert(QueueKind::Async, overflowed);
        }
        kinds
    }

    /// The queues of a kind.
    fn queues_of(&self, kind: QueueKind) -> &[String] {
        self.sources.iter().find(|source| source.kind == kind).map_or(&[], |source| &source.queues)
    }

    /// Listens to these queues as soon as the backend is reachable.
    pub(super) async fn listen_again(&mut self, queues: &[String]) -> Result<()> {
        loop {
            match self.listen(queues).await {
                Err(error) if error.is_outage() => {
                    tracing::warn!(%error, "cannot listen, retrying");
                    tokio::time::sleep(LISTEN_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Stops listening, and gives back the jobs that were not started. A job that cannot be given
    /// back comes again after `ack_wait`.
    pub(super) async fn stop(&mut self) {
        // The buffer first: stopping the listeners may take as long as the server does not answer.
        give_back_prefetched(&self.shared).await;
        join_all(self.sources.iter_mut().map(Source::stop)).await;
    }

    /// The queues that the sources listen to.
    fn queues(&self) -> Vec<String> {
        self.sources.iter().flat_map(|source| &source.queues).cloned().collect()
    }

    /// Fetches until the listeners are closed, or in burst mode until no job is left.
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

    /// Listens anew after an outage. No outage ends a worker.
    async fn recover(&mut self, error: Error) -> Result<()> {
        if !error.is_outage() {
            return Err(error);
        }
        tracing::warn!(%error, "fetch failed, reconnecting the listener");
        self.stop().await;
        tokio::time::sleep(LISTEN_PAUSE).await;
        self.listen_again(&self.queues()).await
    }

    /// Fetches until no job is ready and no job runs.
    pub(super) async fn fetch_until_idle(&mut self) -> Result<()> {
        loop {
            // In memory, jobs are there at once: the wait is not needed.
            let fetched = match self.fetch_once().now_or_never() {
                Some(fetched) => Some(fetched),
                None => tokio::time::timeout(BURST_PATIENCE, self.fetch_once()).await.ok(),
            };
            match fetched {
                Some(Ok(true)) => {}
                Some(Ok(false)) => return Ok(()),
                Some(Err(error)) => self.recover(error).await?,
                None if self.is_idle().await? => match self.fetch_once().now_or_never() {
                    // The delivery was on its way while the broker was asked.
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
        // Other calls may share this worker; their jobs count too.
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
        // Checked again after the answer: a job may have been handed over meanwhile.
        if depths.iter().any(|depth| depth.ready > 0) || self.shared.leases.count() > 0 {
            self.held_elsewhere = None;
            return Ok(false);
        }
        if self.shared.options.burst {
            return self.leaves(depths.iter().map(|depth| depth.held).sum()).await;
        }
        Ok(true)
    }

    /// True if a burst may end although other workers hold `held` jobs. The jobs of a live worker
    /// are left to it. Those of workers that are gone come again.
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

    /// True if any source listens: not while all queues are paused, nor just before it listens
    /// anew.
    pub(super) fn is_listening(&self) -> bool {
        self.sources.iter().any(|source| source.listener.is_some())
    }

    /// Waits for deliveries, and has them run. False once the listener is closed.
    ///
    /// Cancel safe: deliveries enter the buffer in the poll in which they arrive.
    async fn fetch_once(&mut self) -> Result<bool> {
        if !self.is_listening() {
            return std::future::pending().await;
        }
        reap(&mut self.jobs);
        start_runners(&self.shared, &mut self.jobs, self.threads);
        let load = self.load();
        let plan = plan(load);
        let shared = Arc::clone(&self.shared);
        let Shared { prefetched, scope, storage, .. } = &*shared;
        let can_start = load.free_slots > 0 && !load.is_full;
        let patience = if can_start { RUNNER_PATIENCE } else { SLOT_PATIENCE };
        tokio::select! {
            biased;
            (source, deliveries) = next(&mut self.sources, &plan, self.turn) => {
                let deliveries = deliveries?;
                if deliveries.is_empty() {
                    return Ok(false);
                }
                self.received(source, deliveries, plan.low_water);
            }
            () = prefetched.news() => {}
            () = storage.has_room(), if load.is_full => {}
            () = scope.slots.freed(), if load.free_slots == 0 => {}
            () = scope.pool.thread_lent() => {}
            () = too_long(prefetched, patience) => if load.free_slots == 0 || storage.is_full() {
                let [slots, threads] = give_back_prefetched(&shared).await;
                self.rate.gave_back(slots);
                self.blocking_rate.gave_back(threads);
            } else {
                // The runners at work will not be back soon.
                start_runners(&shared, &mut self.jobs, usize::MAX);
            },
        }
        Ok(true)
    }

    /// Measures the load of the worker.
    fn load(&mut self) -> Load {
        let Shared { prefetched, options, scope, storage, .. } = &*self.shared;
        let (slots, pool) = (&scope.slots, &scope.pool);
        let (buffered, free_slots, reserved) = (prefetched.count(), slots.free(), pool.reserved());
        let started = options.concurrency.saturating_sub(free_slots) + slots.lent() + pool.without_slot();
        let open = (buffered + started).saturating_sub(reserved);
        let first = self.queues_of(QueueKind::Async).first();
        let only_overflowed = first.is_some_and(|queue| pool.has_overflowed(queue));
        let has_blocking = !self.queues_of(QueueKind::Blocking).is_empty();
        Load {
            buffered,
            is_low: prefetched.is_low(),
            is_full: storage.is_full(),
            free_slots,
            free_threads: pool.free(),
            prefetch: self.rate.prefetch(open, options.max_prefetch),
            // Measuring reads the clock: only for queues that need it.
            blocking_prefetch: if has_blocking {
                self.blocking_rate.prefetch(reserved, options.max_prefetch)
            } else {
                0
            },
            accepts_overflow: pool.accepts_overflow(),
            only_overflowed,
        }
    }

    /// Takes the deliveries of a source into the buffer, and starts runners for them.
    fn received(&mut self, source: usize, deliveries: Vec<Delivery>, low_water: usize) {
        self.turn = source + 1;
        let shared = &self.shared;
        let reservation = if self.sources[source].kind == QueueKind::Blocking {
            self.blocking_rate.took(deliveries.len());
            // Reserved before a runner can take one.
            Some(shared.scope.pool.reserve(deliveries.len()))
        } else {
            self.rate.took(deliveries.len());
            None
        };
        shared.prefetched.add(deliveries, reservation, low_water);
        start_runners(shared, &mut self.jobs, self.threads);
    }
}

/// The deliveries of the first source that has some, and its index. The sources are polled from
/// `turn` on. Cancel safe.
async fn next(sources: &mut [Source], plan: &Plan, turn: usize) -> (usize, Result<Vec<Delivery>>) {
    // Few workers have queues of more than three kinds: this allocates nothing.
    let mut nexts = SmallVec::<[_; 3]>::new();
    for (index, source) in sources.iter_mut().enumerate() {
        let next = plan.demand(source.kind).and_then(|demand| source.next(demand));
        nexts.extend(next.map(|next| (index, next)));
    }
    let first = nexts.iter().position(|(index, _)| *index >= turn).unwrap_or(0);
    nexts.rotate_left(first);
    poll_fn(|context| {
        let mut polls =
            nexts.iter_mut().map(|(index, next)| next.poll_unpin(context).map(|next| (*index, next)));
        polls.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Starts runners for the buffered deliveries, until `at_work` runners work or no slot is free.
fn start_runners(shared: &Arc<Shared>, jobs: &mut JoinSet<()>, at_work: usize) {
    while shared.prefetched.count() > 0
        && !shared.storage.is_full()
        && shared.prefetched.at_work() < at_work
        && let Some(slot) = shared.scope.slots.try_take()
        && let Some((first, _)) = shared.prefetched.take(Instant::now())
    {
        // Bodies and middlewares kick through this worker's client.
        jobs.spawn(shared.scope.client.scope(work(Runner::new(shared), first, slot)));
    }
}

/// Resolves when a delivery has waited in the buffer for `patience`.
async fn too_long(prefetched: &PrefetchBuffer, patience: Duration) {
    match prefetched.since() {
        Some(since) => tokio::time::sleep_until(since + patience).await,
        None => std::future::pending().await,
    }
}

/// Removes the runners that have ended.
fn reap(jobs: &mut JoinSet<()>) {
    while let Some(ended) = jobs.try_join_next() {
        note_end(ended);
    }
}

/// Logs a panic of the framework itself. A body's panic is caught where it runs.
pub(super) fn note_end(ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a job could not be settled, it will be delivered again");
    }
}

/// Gives back the buffered deliveries. The number of those for slots, and of those for threads.
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
