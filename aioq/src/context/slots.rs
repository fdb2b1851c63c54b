//! The slots of async bodies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The most bodies of a worker that wait for other jobs without a slot: each of them is kept in memory, with its lease.
const MAX_LENT: usize = 10_000;

/// How many async bodies run at once. One that waits for another job lends its slot, and takes one again before it goes
/// on; whoever takes one again comes before new jobs.
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    /// Bodies that have lent theirs.
    lent: AtomicUsize,
    /// Bodies that are to go on and have none.
    wanted: AtomicUsize,
}

impl Slots {
    /// So many slots.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(size.min(Semaphore::MAX_PERMITS))),
            lent: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
        }
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// A slot for a new job, if one is free that nobody waits for.
    pub(crate) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Resolves when one is free.
    pub(crate) async fn freed(&self) {
        // Never closed.
        let _ = self.free.acquire().await;
    }

    /// How many bodies have lent theirs.
    pub(crate) fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// Whether a body that is to go on has none.
    pub(crate) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Notes that a body lends its slot; `None` if too many have.
    pub(super) fn lend(self: &Arc<Self>) -> Option<LentSlot> {
        let lent = LentSlot(Arc::clone(self));
        (self.lent.fetch_add(1, Ordering::Relaxed) < MAX_LENT).then_some(lent)
    }

    /// A slot for a body that has lent or given up its own, in the order in which they ask. `None` never comes: they are not closed.
    pub(crate) async fn take_again(self: Arc<Self>) -> Option<OwnedSemaphorePermit> {
        let _wanted = Wanted::note(&self);
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

/// A slot is lent as long as this lives.
pub(super) struct LentSlot(Arc<Slots>);

impl Drop for LentSlot {
    fn drop(&mut self) {
        self.0.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A slot is wanted as long as this lives.
struct Wanted<'a>(&'a Slots);

impl<'a> Wanted<'a> {
    fn note(slots: &'a Slots) -> Self {
        slots.wanted.fetch_add(1, Ordering::Relaxed);
        Self(slots)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is said at most once a minute.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    const PAUSE: Duration = Duration::from_secs(60);

    /// Whether it is time to say it, which is noted.
    pub(super) fn is_due(&self) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|said| said.elapsed() >= Self::PAUSE);
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}
