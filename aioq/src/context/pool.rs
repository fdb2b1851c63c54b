//! The places of blocking jobs.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// How many blocking jobs run at once, and those that wait for a place. While they wait they keep no slot from an
/// async job, as long as there is room for them.
pub(crate) struct Pool {
    /// How many places there are.
    size: usize,
    places: Arc<Semaphore>,
    /// The queues whose jobs all need a place: of them no more are taken than get one soon.
    own: HashSet<&'static str>,
    waiting: AtomicUsize,
    /// So many of them need no slot.
    room: usize,
    /// Of those that wait, the ones from other queues.
    others: AtomicUsize,
    /// More than so many of those are a crowd.
    crowd: usize,
    /// The queues whose jobs have ever made one.
    crowded: watch::Sender<BTreeSet<String>>,
    /// Jobs that were taken for a place and have not ended; they may be on their way to it.
    taken: AtomicUsize,
    /// Whoever waits for a place waits here first, but for the bodies that had one before: those come first.
    door: Semaphore,
    /// Bodies that have lent their places, and the ones of them from queues of its own.
    lent: AtomicUsize,
    lent_own: AtomicUsize,
    /// A place was lent: there may be room for another job.
    news: Notify,
}

/// The most bodies that wait for other jobs without a place: each of them keeps a thread of the runtime, which has 512.
const MAX_LENT: usize = 256;

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
    /// So many places, for jobs of queues of its `own` and others. More than `crowd` of the others that wait are a
    /// crowd; there is room for `room` jobs that wait without a slot.
    pub(crate) fn new(places: usize, own: HashSet<&'static str>, crowd: usize, room: usize) -> Self {
        let most = places.min(Semaphore::MAX_PERMITS);
        Self {
            size: most,
            places: Arc::new(Semaphore::new(most)),
            own,
            waiting: AtomicUsize::new(0),
            room,
            others: AtomicUsize::new(0),
            crowd,
            crowded: watch::Sender::default(),
            taken: AtomicUsize::new(0),
            door: Semaphore::new(1),
            lent: AtomicUsize::new(0),
            lent_own: AtomicUsize::new(0),
            news: Notify::new(),
        }
    }

    /// How many places there are, and how many of them bodies have.
    pub(crate) fn size_and_busy(&self) -> (usize, usize) {
        (self.size, self.size.saturating_sub(self.places.available_permits()))
    }

    /// Notes that a body of a job of that queue lends its place; `None` if too many have.
    pub(super) fn lend(self: &Arc<Self>, queue: &str) -> Option<LentPlace> {
        let is_own = self.owns(queue);
        self.lent_own.fetch_add(usize::from(is_own), Ordering::Relaxed);
        let lent = LentPlace { pool: Arc::clone(self), is_own };
        (self.lent.fetch_add(1, Ordering::Relaxed) < MAX_LENT).then_some(lent)
    }

    /// Resolves when a place was lent since it was waited for last.
    pub(crate) async fn lent_one(&self) {
        self.news.notified().await;
    }

    /// Says that a place which is noted as lent is free.
    pub(super) fn tell_lent(&self) {
        self.news.notify_one();
    }

    /// A place for a body that has lent its own. `None` never comes: they are not closed.
    pub(super) async fn take_again(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
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
        // Those that have lent their places have not ended.
        let all = self.size + self.lent_own.load(Ordering::Relaxed);
        less(self.places.available_permits(), &self.waiting).min(less(all, &self.taken))
    }

    /// The queues whose jobs have ever been a crowd here.
    pub(crate) fn crowded(&self) -> watch::Receiver<BTreeSet<String>> {
        self.crowded.subscribe()
    }

    /// Whether the jobs of that queue have ever been a crowd.
    pub(crate) fn was_crowded_by(&self, queue: &str) -> bool {
        self.crowded.borrow().contains(queue)
    }

    /// Whether all jobs of that queue need a place.
    pub(crate) fn owns(&self, queue: &str) -> bool {
        self.own.contains(queue)
    }

    /// Whether more jobs of other queues may wait without being a crowd.
    pub(crate) fn has_room(&self) -> bool {
        self.others.load(Ordering::Relaxed) < self.crowd
    }

    /// Jobs that were taken for a place and have not ended.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Jobs that hold no slot: those that have a place or have lent it, and those that wait for one as far as there is room.
    pub(crate) fn without_slot(&self) -> usize {
        let (_, placed) = self.size_and_busy();
        placed + self.lent.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed).min(self.room)
    }

    /// A place, if one is free.
    pub(super) fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Gets in line for a place with a job of that queue.
    pub(super) fn wait(&self, queue: &str) -> Waiting<'_> {
        let has_room = self.waiting.fetch_add(1, Ordering::Relaxed) < self.room;
        let is_other = !self.owns(queue);
        if is_other && self.others.fetch_add(1, Ordering::Relaxed) >= self.crowd {
            self.crowded.send_if_modified(|crowded| crowded.insert(queue.to_owned()));
        }
        Waiting { pool: self, has_room, is_other }
    }
}

/// A job that waits for a place.
pub(super) struct Waiting<'a> {
    pool: &'a Pool,
    /// It needs no slot meanwhile.
    pub(super) has_room: bool,
    is_other: bool,
}

impl Waiting<'_> {
    /// The place, as soon as it has one.
    pub(super) async fn enter(self) -> Option<OwnedSemaphorePermit> {
        let _door = self.pool.door.acquire().await;
        Arc::clone(&self.pool.places).acquire_owned().await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        self.pool.others.fetch_sub(usize::from(self.is_other), Ordering::Relaxed);
    }
}

/// A place is lent as long as this lives.
pub(super) struct LentPlace {
    pool: Arc<Pool>,
    is_own: bool,
}

impl Drop for LentPlace {
    fn drop(&mut self) {
        self.pool.lent.fetch_sub(1, Ordering::Relaxed);
        self.pool.lent_own.fetch_sub(usize::from(self.is_own), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_its_own_queues_are_no_crowd_however_many_wait() {
        let pool = Pool::new(1, HashSet::from(["own"]), 1, 2);
        let place = pool.try_enter();
        assert!(place.is_some() && pool.try_enter().is_none());
        let own: Vec<_> = (0..3).map(|_| pool.wait("own")).collect();
        assert!(pool.has_room() && !pool.was_crowded_by("own"));
        let first = pool.wait("other");
        assert!(!pool.has_room() && !pool.was_crowded_by("other"));
        let second = pool.wait("other");
        drop((first, second));
        assert!(pool.has_room() && pool.was_crowded_by("other"), "it is remembered");
        let have_room: Vec<_> = own.iter().map(|waiting| waiting.has_room).collect();
        assert_eq!((have_room, pool.without_slot()), (vec![true, true, false], 3));
    }

    #[test]
    fn a_place_is_free_only_for_whom_nobody_was_taken() {
        let pool = Arc::new(Pool::new(2, HashSet::new(), 1, 1));
        let mut taken = pool.take(3);
        assert_eq!((pool.free(), pool.taken()), (-1, 3));
        let one = taken.one();
        drop(taken);
        assert_eq!((pool.free(), pool.taken()), (1, 1));
        drop(one);
        let _place = pool.try_enter();
        assert_eq!((pool.free(), pool.taken()), (1, 0));
    }
}
