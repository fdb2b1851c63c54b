//! The places of blocking jobs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How many blocking jobs run at once, and those that wait for a place. While they wait they keep no slot from an
/// async job, as long as there is room for them.
pub(crate) struct Pool {
    /// How many places there are.
    size: usize,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// So many of them need no slot.
    room: usize,
    /// More than so many are a crowd.
    crowd: usize,
    /// The queues whose jobs have ever made one.
    crowded: watch::Sender<BTreeSet<String>>,
    /// Jobs that were taken for a place and have not ended; they may be on their way to it.
    taken: AtomicUsize,
}

/// Jobs that were taken for places in a pool.
pub(crate) struct Taken {
    pool: Arc<Pool>,
    jobs: usize,
}

impl Taken {
    /// One of them.
    pub(crate) fn one(&mut self) -> Self {
        let jobs = self.jobs.min(1);
        self.jobs -= jobs;
        Self { pool: Arc::clone(&self.pool), jobs }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.pool.taken.fetch_sub(self.jobs, Ordering::Relaxed);
    }
}

impl Pool {
    /// So many places. More than `crowd` jobs that wait for one are a crowd; there is room for `room` without a slot.
    pub(crate) fn new(places: usize, crowd: usize, room: usize) -> Self {
        Self {
            size: places,
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            room,
            crowd,
            crowded: watch::Sender::default(),
            taken: AtomicUsize::new(0),
        }
    }

    /// Notes that so many jobs were taken for a place.
    pub(crate) fn take(self: &Arc<Self>, jobs: usize) -> Taken {
        self.taken.fetch_add(jobs, Ordering::Relaxed);
        Taken { pool: Arc::clone(self), jobs }
    }

    /// Places that nobody has or was taken for, less the jobs that wait for one.
    pub(crate) fn free(&self) -> isize {
        let less =
            |places: usize, jobs: &AtomicUsize| places as isize - jobs.load(Ordering::Relaxed) as isize;
        less(self.places.available_permits(), &self.waiting).min(less(self.size, &self.taken))
    }

    /// The queues whose jobs have ever been a crowd here.
    pub(crate) fn crowded(&self) -> watch::Receiver<BTreeSet<String>> {
        self.crowded.subscribe()
    }

    /// Whether there has been a crowd of any queue.
    pub(crate) fn was_crowded(&self) -> bool {
        !self.crowded.borrow().is_empty()
    }

    /// Whether more may wait without being a crowd.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.crowd
    }

    /// Jobs that were taken for a place and have not ended.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Jobs that hold no slot: those that have a place, and those that wait for one as far as there is room.
    pub(crate) fn without_slot(&self) -> usize {
        let placed = self.size.saturating_sub(self.places.available_permits());
        placed + self.waiting.load(Ordering::Relaxed).min(self.room)
    }

    /// A place, if one is free.
    pub(super) fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Gets in line for a place with a job of that queue.
    pub(super) fn wait(&self, queue: &str) -> Waiting<'_> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before >= self.crowd {
            self.crowded.send_if_modified(|crowded| crowded.insert(queue.to_owned()));
        }
        Waiting { pool: self, has_room: before < self.room }
    }
}

/// A job that waits for a place.
pub(super) struct Waiting<'a> {
    pool: &'a Pool,
    /// It needs no slot meanwhile.
    pub(super) has_room: bool,
}

impl Waiting<'_> {
    /// The place, as soon as it has one.
    pub(super) async fn enter(self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pool.places).acquire_owned().await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
