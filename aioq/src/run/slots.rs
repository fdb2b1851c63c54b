//! The slots of async bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::sync::Lock;

/// The most bodies that wait for other jobs with their slot lent. Each of them is kept in memory,
/// with its lease.
const MAX_LENT: usize = 10_000;

/// Counts the async bodies that run at once.
///
/// A body that waits for another job lends its slot and takes one again before it goes on. It then
/// comes before new jobs.
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    /// Bodies that have lent their slots.
    lent: AtomicUsize,
    /// Bodies that could go on and have no slot.
    wanted: AtomicUsize,
}

impl Slots {
    /// `size` slots.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(size.min(Semaphore::MAX_PERMITS))),
            lent: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
        }
    }

    /// The number of free slots.
    pub(crate) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// A slot for a new job, if one is free that no body waits for.
    pub(crate) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Resolves when a slot is free.
    pub(crate) async fn freed(&self) {
        // The semaphore is never closed.
        let _ = self.free.acquire().await;
    }

    /// The number of bodies that have lent their slots.
    pub(crate) fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// True if a body could go on and has no slot.
    pub(crate) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Counts a body as one that lends its slot; `None` if too many do.
    pub(crate) fn lend(self: &Arc<Self>) -> Option<LentSlot> {
        let lent = LentSlot(Arc::clone(self));
        (self.lent.fetch_add(1, Ordering::Relaxed) < MAX_LENT).then_some(lent)
    }

    /// A slot for a body that has lent or given up its own, first come, first served. Never `None`:
    /// the semaphore is not closed.
    pub(crate) async fn reacquire(self: Arc<Self>) -> Option<OwnedSemaphorePermit> {
        let _wanted = WantedSlot::count(&self);
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

/// A lent slot. Dropping it ends the loan.
pub(crate) struct LentSlot(Arc<Slots>);

impl Drop for LentSlot {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A slot that a body waits for. Dropping it ends the wait.
struct WantedSlot<'a>(&'a Slots);

impl<'a> WantedSlot<'a> {
    fn count(slots: &'a Slots) -> Self {
        slots.wanted.fetch_add(1, Ordering::Relaxed);
        Self(slots)
    }
}

impl Drop for WantedSlot<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Limits a warning to one a minute.
#[derive(Default)]
pub(crate) struct OncePerMinute(Lock<Option<Instant>>);

impl OncePerMinute {
    const PAUSE: Duration = Duration::from_secs(60);

    /// True if the last warning is a minute old; counts this one as the last then.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| last.elapsed() >= Self::PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
