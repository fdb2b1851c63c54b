//! Taking deliveries: a slot, a fetch, a job started or in hand.

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
use super::hand::{Fetched, Hand, Runner};
use super::process::work;
use crate::broker::{Delivery, Demand, Listener, Subscription};
use crate::context::Pool;
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
    /// By the kind of their queues.
    sources: [Source; 3],
    /// Which source is the first to be asked.
    turn: usize,
    /// The runners.
    pub(super) jobs: JoinSet<()>,
    /// As many runners are at work as there are threads, unless jobs keep them for long.
    threads: usize,
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
    pace: Pace,
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

    /// What it may hand out as blocking jobs get their threads; `None` while none is free.
    fn demand_for_threads(&mut self, pool: &Pool, max_prefetch: usize) -> Option<Demand> {
        self.listener.as_ref()?;
        let prefetch = self.pace.prefetch(pool.taken(), max_prefetch);
        let waiting = (prefetch / 2).min(BATCH);
        let now = pool.free().saturating_add_unsigned(waiting);
        let now = usize::try_from(now).ok().filter(|now| *now > 0)?;
        Some(Demand { now: now.min(BATCH), prefetch: prefetch - waiting })
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
        let sources = Default::default();
        Self { shared: Arc::clone(shared), sources, turn: MAIN, jobs: JoinSet::new(), threads }
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
        self.sources.iter().zip(&kinds).all(|(source, queues)| source.queues == *queues)
            && self.is_listening()
    }

    /// Divides queues by their kinds.
    fn by_kind(&self, queues: &[String]) -> [Vec<String>; 3] {
        let crowds = self.shared.scope.pool.crowded();
        let crowds = crowds.borrow();
        let mut kinds: [Vec<String>; 3] = Default::default();
        for queue in queues {
            let kind = match queue {
                _ if self.shared.blocking_queues.contains(queue.as_str()) => BLOCKING,
                _ if crowds.contains(queue) => CROWDED,
                _ => MAIN,
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
        give_back_hand(&self.shared).await;
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
        if !self.jobs.is_empty() || self.shared.hand.count() > 0 || self.shared.held.count() > 0 {
            return Ok(false);
        }
        let depths = match self.shared.scope.client.backend().broker().depths(&self.queues()).await {
            Err(error) if error.is_outage() => return Ok(false),
            depths => depths?,
        };
        // Asked again after the answer: a job may have been handed over meanwhile.
        Ok(depths.iter().all(|depth| depth.ready == 0) && self.shared.held.count() == 0)
    }

    /// Whether it listens: not while all queues are paused, nor just before it listens anew.
    pub(super) fn is_listening(&self) -> bool {
        self.sources.iter().any(|source| source.listener.is_some())
    }

    /// Waits for deliveries, and sees to it that they are run. False once the listener is closed.
    ///
    /// Cancel safe: deliveries are in hand without a pause after they came.
    async fn fetch_once(&mut self) -> Result<bool> {
        if !self.is_listening() {
            return std::future::pending().await;
        }
        let Self { shared, sources, turn, jobs, threads } = self;
        reap(jobs);
        start_runners(shared, jobs, *threads);
        let Shared { hand, slots, options, scope, .. } = &**shared;
        let (count, vacant) = (hand.count(), slots.available_permits());
        let all = count + options.concurrency.saturating_sub(vacant) + scope.pool.without_slot();
        let prefetch =
            sources[MAIN].pace.prefetch(all.saturating_sub(scope.pool.taken()), options.max_prefetch);
        // The other half is fetched by the listener while these are worked off.
        let in_hand = (prefetch / 2).min(BATCH);
        let free = vacant.min(BATCH);
        let demand = Demand { now: (free + in_hand).saturating_sub(count), prefetch: prefetch - in_hand };
        let fetches = free > 0 && demand.now > 0 && hand.is_low();
        let for_crowded = Some(demand).filter(|_| scope.pool.has_room());
        let all_crowded = sources[CROWDED].queues.is_empty() && scope.pool.was_crowded();
        let demands = match fetches {
            true => [
                if all_crowded { for_crowded } else { Some(demand) },
                for_crowded,
                sources[BLOCKING].demand_for_threads(&scope.pool, options.max_prefetch),
            ],
            false => [None; 3],
        };
        let patience = if free > 0 { RUNNER_PATIENCE } else { HAND_PATIENCE };
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
                        sources[BLOCKING].pace.took(deliveries.len());
                        // Counted before anybody can take one.
                        Some(scope.pool.take(deliveries.len()))
                    }
                    _ => {
                        sources[MAIN].pace.took(deliveries.len());
                        None
                    }
                };
                hand.add(deliveries, taken, in_hand / 2);
                start_runners(shared, jobs, *threads);
            }
            () = hand.news() => {}
            _ = slots.acquire(), if free == 0 => {}
            () = too_long(hand, patience) => match free {
                0 => give_back_hand(shared).await,
                // The runners that are at work seem not to come back soon.
                _ => start_runners(shared, jobs, usize::MAX),
            },
        }
        Ok(true)
    }
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
    for released in join_all(hand.into_iter().map(release)).await {
        if let Err(error) = released {
            tracing::warn!(%error, "a job could not be given back, it comes back after ack_wait");
        }
    }
}

/// How fast jobs are worked off, to hold as much ready as is soon started.
struct Pace {
    /// Since when the ones are counted that end, and how many had ended by then.
    since: Instant,
    ended: u64,
    /// For how long they are counted.
    span: Duration,
    taken: u64,
    per_second: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), ended: 0, span: Self::FIRST, taken: 0, per_second: 0.0 }
    }
}

impl Pace {
    /// How long jobs are counted at first, and after a rest: each time twice as long, so that the pace of short ones
    /// is soon known, while long ones that begin together are not taken for short ones when they end together.
    const FIRST: Duration = Duration::from_millis(5);
    /// How long they are counted at most.
    const LAST: Duration = Duration::from_millis(100);

    fn took(&mut self, jobs: usize) {
        self.taken += jobs as u64;
    }

    /// How many jobs to hold ready: what the pace makes of [`PREFETCH_SPAN`]. `open` are those that were taken and
    /// have not ended.
    fn prefetch(&mut self, open: usize, max: usize) -> usize {
        let now = Instant::now();
        let span = now - self.since;
        if span >= self.span {
            let all = self.taken.saturating_sub(open as u64);
            let ended = all.saturating_sub(self.ended);
            self.per_second = ended as f64 / span.as_secs_f64();
            self.span = if ended == 0 && open == 0 { Self::FIRST } else { (self.span * 2).min(Self::LAST) };
            (self.since, self.ended) = (now, all);
        }
        ((self.per_second * PREFETCH_SPAN.as_secs_f64()) as usize).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 512;

    /// Lets so much time pass, and then so many jobs be taken, of which some are still open.
    async fn after(pace: &mut Pace, ms: u64, taken: usize, open: usize) -> usize {
        tokio::time::advance(Duration::from_millis(ms)).await;
        pace.took(taken);
        pace.prefetch(open, MAX)
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_of_short_jobs_is_known_after_a_few_milliseconds() {
        let mut pace = Pace::default();
        assert_eq!(after(&mut pace, 1, 100, 100).await, 0);
        assert_eq!(after(&mut pace, 5, 400, 100).await, MAX);
        // So it is after a rest.
        assert_eq!(after(&mut pace, 5_000, 0, 0).await, 1);
        assert_eq!(after(&mut pace, 5_000, 0, 0).await, 0);
        assert_eq!(after(&mut pace, 5, 500, 0).await, MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn long_jobs_that_end_together_are_not_taken_for_short_ones() {
        let mut pace = Pace::default();
        let mut most = 0;
        // A hundred at once, each of 100 ms: the half of them is 50 ms of work.
        for time in 1..2_000 {
            let taken = if time % 100 == 1 { 100 } else { 0 };
            most = most.max(after(&mut pace, 1, taken, 100).await);
        }
        assert!((50..=100).contains(&most), "{most}");
    }
}
