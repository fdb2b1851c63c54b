//! A runner: a spawned task that processes one delivery after another.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::Shared;
use super::attempt::{self, Unsettled};
use super::leases::LeaseHolder;
use super::prefetch::{Fetched, Runner};
use crate::broker::Delivery;
use crate::context::RunScope;
use crate::message::Name;
use crate::run::Reservation;

/// Processes a delivery, and then buffered ones, one after another. `slot` is the runner's place
/// among the async jobs.
pub(super) async fn work(mut runner: Runner, first: Fetched, slot: OwnedSemaphorePermit) {
    let worker = Arc::clone(&runner.shared);
    let mut cache = RunnerCache::new(&worker);
    let mut holder = worker.leases.holder();
    let mut turn = SlotTurn { slot: Some(slot), reservation: None, ended: first.at };
    let mut next = Some(first);
    while let Some(fetched) = next {
        cache.prepare(&fetched.delivery);
        {
            // Pinned in place: the future is large to move.
            let job = pin!(process(&worker, &cache, &mut holder, fetched, &mut turn));
            runner.run(job).await;
        }
        // Jobs that never wait would keep the thread to themselves.
        consume_budget().await;
        // Without a slot the runner must not start another job. A waiting body comes before a new
        // job.
        if turn.slot.is_none() || worker.scope.slots.are_wanted() {
            return;
        }
        next = runner.next(turn.ended).await;
    }
}

/// Processes one delivery, and holds its lease meanwhile.
async fn process(
    worker: &Shared,
    cache: &RunnerCache<'_>,
    holder: &mut LeaseHolder<'_>,
    Fetched { delivery, at, reservation }: Fetched,
    turn: &mut SlotTurn,
) {
    turn.reservation = reservation;
    let lease = holder.hold(&delivery, at);
    let settled = attempt::process(worker, cache, Unsettled::new(&delivery), &lease, turn).await;
    if let Err(error) = settled {
        worker.count_unsettled();
        tracing::error!(id = %delivery.id, %error, "could not be settled, its message comes again after ack_wait");
    }
    turn.reservation = None;
}

/// Slot, reservation and time that a job takes over from the job before it.
pub(super) struct SlotTurn {
    /// The async slot, unless the job has given it up.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// The reservation of a thread, if the job was fetched for one.
    reservation: Option<Reservation>,
    /// The end of the last job.
    pub(super) ended: Instant,
}

impl SlotTurn {
    /// Gives up the slot or the thread for which the job was fetched.
    pub(super) fn give_up(&mut self) {
        (self.slot, self.reservation) = (None, None);
    }
}

/// A runner's copies of shared values.
///
/// From the second job on the runner has its own `Arc<RunScope>`, so that processors do not contend
/// on one reference count.
pub(super) struct RunnerCache<'a> {
    worker: &'a Shared,
    pub(super) scope: Arc<RunScope>,
    /// The queue of the current job.
    pub(super) queue: Name,
    jobs: u64,
}

impl<'a> RunnerCache<'a> {
    fn new(worker: &'a Shared) -> Self {
        Self { worker, scope: Arc::clone(&worker.scope), queue: Name::default(), jobs: 0 }
    }

    fn prepare(&mut self, delivery: &Delivery) {
        if self.jobs == 1 {
            self.scope = Arc::new(self.scope.copied());
        }
        if self.queue != delivery.queue {
            self.queue = Name::from(delivery.queue.as_str());
        }
        self.jobs += 1;
    }
}

impl Drop for RunnerCache<'_> {
    fn drop(&mut self) {
        self.worker.jobs.fetch_add(self.jobs, Ordering::Relaxed);
    }
}
