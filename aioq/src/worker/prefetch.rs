//! The buffer of fetched deliveries, and the runners that empty it.
//!
//! A runner takes one job after another. Short jobs stream without a fetch, a spawn and a wake-up
//! for each of them.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Shared;
use super::options::MIN_ACK_WAIT;
use crate::broker::Delivery;
use crate::run::Reservation;
use crate::sync::Lock;

/// Deliveries that wait for a runner. They are soon started or given back, so their leases are not
/// extended.
#[derive(Default)]
pub(super) struct PrefetchBuffer {
    batches: Lock<VecDeque<Batch>>,
    /// Number of buffered deliveries.
    count: AtomicUsize,
    /// Number of deliveries at which the fetcher is woken to fetch more.
    few: AtomicUsize,
    /// Runners that do not wait for anything.
    at_work: AtomicUsize,
    /// Notified when a runner waits or ends, or when the buffer is low.
    news: Notify,
}

/// Deliveries of one fetch.
struct Batch {
    deliveries: std::vec::IntoIter<Delivery>,
    at: Instant,
    /// Present if they were fetched for threads.
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

/// A delivery, and the moment of its fetch.
pub(super) struct Fetched {
    pub(super) delivery: Delivery,
    pub(super) at: Instant,
    /// Present if it was fetched for a thread. Kept until the job has ended.
    pub(super) reservation: Option<Reservation>,
}

impl Fetched {
    /// True if another worker may have the job soon, or has it.
    ///
    /// A listener that had prefetched the delivery may have extended its lease up to a third of
    /// `ack_wait` before it handed it out.
    fn is_stale(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.at);
        age >= MIN_ACK_WAIT / 2 && age >= self.delivery.receipt.ack_wait() / 2
    }
}

impl PrefetchBuffer {
    /// Adds the deliveries of a fetch. The fetcher is woken when only `few` are left.
    pub(super) fn add(&self, deliveries: Vec<Delivery>, reservation: Option<Reservation>, few: usize) {
        let mut batches = self.batches.lock();
        let left = self.count() + deliveries.len();
        batches.push_back(Batch { deliveries: deliveries.into_iter(), at: Instant::now(), reservation });
        self.few.store(few, Ordering::Relaxed);
        // Stored before `at_work` is read (SeqCst): a runner that stops working in between sees the
        // new count.
        self.count.store(left, Ordering::SeqCst);
    }

    /// The next delivery to start, and the number of deliveries left.
    pub(super) fn take(&self, now: Instant) -> Option<(Fetched, usize)> {
        let mut batches = self.batches.lock();
        let mut left = self.count();
        while let Some(batch) = batches.front_mut() {
            let Some(next) = batch.next() else {
                batches.pop_front();
                continue;
            };
            left -= 1;
            self.count.store(left, Ordering::SeqCst);
            // The message of a stale delivery comes again by itself.
            if !next.is_stale(now) {
                return Some((next, left));
            }
        }
        None
    }

    /// Takes all deliveries out.
    pub(super) fn take_all(&self) -> Vec<Fetched> {
        let mut batches = self.batches.lock();
        self.count.store(0, Ordering::SeqCst);
        let now = Instant::now();
        std::mem::take(&mut *batches).into_iter().flatten().filter(|fetched| !fetched.is_stale(now)).collect()
    }

    /// Number of buffered deliveries.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// True if it is time to fetch more.
    pub(super) fn is_low(&self) -> bool {
        self.count() <= self.few.load(Ordering::Relaxed)
    }

    /// The moment at which the oldest delivery was fetched.
    pub(super) fn since(&self) -> Option<Instant> {
        self.batches.lock().iter().find(|batch| batch.deliveries.len() > 0).map(|batch| batch.at)
    }

    /// Number of runners that do not wait for anything.
    pub(super) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::SeqCst)
    }

    /// Resolves when, since the last call, a runner has begun to wait or ended, or the buffer has
    /// become low.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

/// A task that runs jobs one after another. It counts as at work, except while it waits.
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
        if at_work {
            buffer.at_work.fetch_add(1, Ordering::SeqCst);
            return;
        }
        buffer.at_work.fetch_sub(1, Ordering::SeqCst);
        // Another runner can take its place.
        if buffer.count() > 0 {
            buffer.news.notify_one();
        }
    }

    /// The next job to start. Yields to the fetcher if it is time to fetch more.
    pub(super) async fn next(&self, now: Instant) -> Option<Fetched> {
        if self.shared.storage.is_full() {
            return None;
        }
        let buffer = &self.shared.prefetched;
        let (next, left) = buffer.take(now)?;
        if left == buffer.few.load(Ordering::Relaxed) {
            // On this thread, while the other runners still have jobs.
            buffer.news.notify_one();
            yield_now().await;
        }
        Some(next)
    }

    /// Runs a job. While the job waits, this runner is not at work.
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
