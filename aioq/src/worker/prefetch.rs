//! What a worker has in buffer, and who works it off: a runner takes one job after the other, so that short jobs stream
//! without a fetch, a spawn and a wake-up for each.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Shared;
use super::options::MIN_ACK_WAIT;
use crate::broker::Delivery;
use crate::run::Reservation;

/// Deliveries that wait for a runner. They are soon started or given back, so their leases are not extended.
#[derive(Default)]
pub(super) struct PrefetchBuffer {
    batches: Mutex<VecDeque<Batch>>,
    /// How many there are.
    count: AtomicUsize,
    /// So few that it is time to fetch more.
    few: AtomicUsize,
    /// Runners that are at work: those that wait for something are not.
    at_work: AtomicUsize,
    /// A runner waits, or has ended, or there are few: somebody is to look.
    news: Notify,
}

/// Deliveries that were fetched at once.
struct Batch {
    deliveries: std::vec::IntoIter<Delivery>,
    at: Instant,
    /// If they were reservation for places of blocking jobs.
    reservation: Option<Reservation>,
}

impl Iterator for Batch {
    type Item = Fetched;

    fn next(&mut self) -> Option<Fetched> {
        let delivery = self.deliveries.next()?;
        Some(Fetched {
            delivery,
            at: self.at,
            reservation: self.reservation.as_mut().map(Reservation::split_one),
        })
    }
}

/// A delivery and when it was fetched.
pub(super) struct Fetched {
    pub(super) delivery: Delivery,
    pub(super) at: Instant,
    /// If it was reservation for a place of a blocking job. To be dropped when it has ended.
    pub(super) reservation: Option<Reservation>,
}

impl Fetched {
    /// Whether another worker may have it soon, or has it. A listener that had prefetched it extended its lease up to
    /// a third of `ack_wait` before it handed it out.
    fn is_stale(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.at);
        age >= MIN_ACK_WAIT / 2 && age >= self.delivery.receipt.ack_wait() / 2
    }
}

impl PrefetchBuffer {
    /// Adds what was fetched now, for places of blocking jobs or not. When only `few` are left, it is time to fetch
    /// more.
    pub(super) fn add(&self, deliveries: Vec<Delivery>, reservation: Option<Reservation>, few: usize) {
        let mut batches = self.lock();
        let left = self.count() + deliveries.len();
        batches.push_back(Batch { deliveries: deliveries.into_iter(), at: Instant::now(), reservation });
        self.few.store(few, Ordering::Relaxed);
        // Before anybody looks who is at work: whoever is so no more by then sees it.
        self.count.store(left, Ordering::SeqCst);
    }

    /// The next one to start, and how many are left.
    pub(super) fn take(&self, now: Instant) -> Option<(Fetched, usize)> {
        let mut batches = self.lock();
        let mut left = self.count();
        while let Some(batch) = batches.front_mut() {
            let Some(next) = batch.next() else {
                batches.pop_front();
                continue;
            };
            left -= 1;
            self.count.store(left, Ordering::SeqCst);
            // One that was left too long comes back by itself.
            if !next.is_stale(now) {
                return Some((next, left));
            }
        }
        None
    }

    /// All that there is.
    pub(super) fn take_all(&self) -> Vec<Fetched> {
        let mut batches = self.lock();
        self.count.store(0, Ordering::SeqCst);
        let now = Instant::now();
        std::mem::take(&mut *batches).into_iter().flatten().filter(|fetched| !fetched.is_stale(now)).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether it is time to fetch more.
    pub(super) fn is_low(&self) -> bool {
        self.count() <= self.few.load(Ordering::Relaxed)
    }

    /// When the one was fetched that waits longest.
    pub(super) fn since(&self) -> Option<Instant> {
        self.lock().iter().find(|batch| batch.deliveries.len() > 0).map(|batch| batch.at)
    }

    /// How many runners are at work.
    pub(super) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::SeqCst)
    }

    /// Resolves when a runner waits or has ended, or few are left, since it was waited for last.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Batch>> {
        // Nothing panics while it is locked.
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who takes one job after the other. It counts as at work from its making to its end, but while it waits.
pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    at_work: bool,
}

impl Runner {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let mut runner = Self { shared: Arc::clone(shared), at_work: false };
        runner.set_at_work(true);
        runner
    }

    fn set_at_work(&mut self, at_work: bool) {
        if std::mem::replace(&mut self.at_work, at_work) == at_work {
            return;
        }
        let buffer = &self.shared.prefetched;
        match at_work {
            true => _ = buffer.at_work.fetch_add(1, Ordering::SeqCst),
            false => {
                buffer.at_work.fetch_sub(1, Ordering::SeqCst);
                // Another runner may take its place.
                if buffer.count() > 0 {
                    buffer.news.notify_one();
                }
            }
        }
    }

    /// The next job to start. Waits for a moment if it is time to fetch more.
    pub(super) async fn next(&self, now: Instant) -> Option<Fetched> {
        if self.shared.storage.is_full() {
            return None;
        }
        let buffer = &self.shared.prefetched;
        let (next, left) = buffer.take(now)?;
        if left == buffer.few.load(Ordering::Relaxed) {
            // Here and now, as others still have something to do.
            buffer.news.notify_one();
            yield_now().await;
        }
        Some(next)
    }

    /// Runs a job. While it waits for something, this runner is not at work.
    pub(super) async fn run<F: Future>(&mut self, mut job: Pin<&mut F>) -> F::Output {
        poll_fn(|context| {
            self.set_at_work(true);
            let polled = job.as_mut().poll(context);
            if polled.is_pending() {
                self.set_at_work(false);
            }
            polled
        })
        .await
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.set_at_work(false);
        self.shared.prefetched.news.notify_one();
    }
}
