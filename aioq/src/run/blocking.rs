//! The threads of blocking bodies.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// The most bodies that wait for other jobs with their thread lent. Each of them keeps a thread of
/// the runtime, which has 512.
const MAX_LENT: usize = 256;

/// Counts the blocking bodies that run at once, and the jobs that wait for a thread.
///
/// A queue is *exclusive* if all of its tasks are blocking: the worker fetches from it only as many
/// jobs as get a thread soon. Blocking jobs of the other, mixed queues are *overflow* while they
/// wait. Too many of them stop the fetching from their queue.
pub(crate) struct BlockingPool {
    /// The number of threads.
    size: usize,
    /// One permit per free thread.
    threads: Arc<Semaphore>,
    exclusive_queues: HashSet<&'static str>,
    /// Jobs that wait for a thread.
    waiting: AtomicUsize,
    /// Jobs that may wait for a thread without keeping an async slot.
    waiting_limit: usize,
    /// Waiting jobs of mixed queues.
    overflow: AtomicUsize,
    /// Waiting jobs of mixed queues above which nothing more is fetched from those queues.
    overflow_limit: usize,
    /// Mixed queues that have ever passed the limit.
    overflowed: watch::Sender<BTreeSet<String>>,
    /// Jobs that were fetched for a thread and have not ended, on their way to it or on it.
    reserved: AtomicUsize,
    /// The line for a thread. A body that takes a thread again bypasses it.
    line: Semaphore,
    /// Bodies that have lent their threads.
    lent: AtomicUsize,
    /// Bodies of exclusive queues that have lent their threads.
    lent_exclusive: AtomicUsize,
    /// Notified when a body lends its thread: another job may have room.
    lent_changed: Notify,
}

/// Jobs that were fetched for threads of a pool. Dropping it ends the reservation.
pub(crate) struct Reservation {
    pool: Arc<BlockingPool>,
    jobs: usize,
}

impl Reservation {
    /// Splits off the reservation of one job.
    pub(crate) fn split_one(&mut self) -> Self {
        let jobs = self.jobs.min(1);
        self.jobs -= jobs;
        Self { pool: Arc::clone(&self.pool), jobs }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.reserved.fetch_sub(self.jobs, Ordering::Relaxed);
    }
}

impl BlockingPool {
    /// A pool of `size` threads.
    pub(crate) fn new(
        size: usize,
        exclusive_queues: HashSet<&'static str>,
        overflow_limit: usize,
        waiting_limit: usize,
    ) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self {
            size,
            threads: Arc::new(Semaphore::new(size)),
            exclusive_queues,
            waiting: AtomicUsize::new(0),
            waiting_limit,
            overflow: AtomicUsize::new(0),
            overflow_limit,
            overflowed: watch::Sender::default(),
            reserved: AtomicUsize::new(0),
            line: Semaphore::new(1),
            lent: AtomicUsize::new(0),
            lent_exclusive: AtomicUsize::new(0),
            lent_changed: Notify::new(),
        }
    }

    /// The number of threads, and the number of threads on which bodies run.
    pub(crate) fn size_and_busy(&self) -> (usize, usize) {
        (self.size, self.size.saturating_sub(self.threads.available_permits()))
    }

    /// Counts a body of a job of `queue` as one that lends its thread; `None` if too many do.
    pub(crate) fn lend(self: &Arc<Self>, queue: &str) -> Option<LentThread> {
        let is_exclusive = self.is_exclusive(queue);
        self.lent_exclusive.fetch_add(usize::from(is_exclusive), Ordering::Relaxed);
        let lent = LentThread { pool: Arc::clone(self), is_exclusive };
        (self.lent.fetch_add(1, Ordering::Relaxed) < MAX_LENT).then_some(lent)
    }

    /// Resolves when a thread was lent since the last call.
    pub(crate) async fn thread_lent(&self) {
        self.lent_changed.notified().await;
    }

    /// Wakes the fetcher after a body has lent its thread.
    pub(crate) fn notify_lent(&self) {
        self.lent_changed.notify_one();
    }

    /// A thread for a body that has lent its own. Never `None`: the semaphore is not closed.
    pub(crate) async fn reacquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.threads).acquire_owned().await.ok()
    }

    /// Reserves threads for jobs that were fetched for them.
    pub(crate) fn reserve(self: &Arc<Self>, jobs: usize) -> Reservation {
        self.reserved.fetch_add(jobs, Ordering::Relaxed);
        Reservation { pool: Arc::clone(self), jobs }
    }

    /// Threads that are neither taken nor reserved, less the jobs that wait for one.
    pub(crate) fn free(&self) -> isize {
        let less =
            |threads: usize, jobs: &AtomicUsize| threads as isize - jobs.load(Ordering::Relaxed) as isize;
        // A body that has lent its thread still counts as reserved.
        let all = self.size + self.lent_exclusive.load(Ordering::Relaxed);
        less(self.threads.available_permits(), &self.waiting).min(less(all, &self.reserved))
    }

    /// The mixed queues that have ever had too many waiting jobs.
    pub(crate) fn overflowed(&self) -> watch::Receiver<BTreeSet<String>> {
        self.overflowed.subscribe()
    }

    /// True if the queue is mixed and has ever had too many waiting jobs.
    pub(crate) fn has_overflowed(&self, queue: &str) -> bool {
        self.overflowed.borrow().contains(queue)
    }

    /// True if all tasks of the queue are blocking.
    pub(crate) fn is_exclusive(&self, queue: &str) -> bool {
        self.exclusive_queues.contains(queue)
    }

    /// True if one more job of a mixed queue may wait.
    pub(crate) fn accepts_overflow(&self) -> bool {
        self.overflow.load(Ordering::Relaxed) < self.overflow_limit
    }

    /// Jobs that were fetched for a thread and have not ended.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Jobs that hold no async slot: on a thread, with a lent thread, or waiting within the limit.
    pub(crate) fn without_slot(&self) -> usize {
        let (_, busy) = self.size_and_busy();
        busy + self.lent.load(Ordering::Relaxed)
            + self.waiting.load(Ordering::Relaxed).min(self.waiting_limit)
    }

    /// A thread, if one is free.
    pub(crate) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.threads).try_acquire_owned().ok()
    }

    /// Queues a job of `queue` for a thread.
    pub(crate) fn wait(&self, queue: &str) -> Waiter<'_> {
        let needs_no_slot = self.waiting.fetch_add(1, Ordering::Relaxed) < self.waiting_limit;
        let is_overflow = !self.is_exclusive(queue);
        if is_overflow && self.overflow.fetch_add(1, Ordering::Relaxed) >= self.overflow_limit {
            self.overflowed.send_if_modified(|overflowed| overflowed.insert(queue.to_owned()));
        }
        Waiter { pool: self, needs_no_slot, is_overflow }
    }
}

/// A job that waits for a thread. Dropping it leaves the line.
pub(crate) struct Waiter<'a> {
    pool: &'a BlockingPool,
    /// True if the job may give up its async slot while it waits.
    pub(crate) needs_no_slot: bool,
    is_overflow: bool,
}

impl Waiter<'_> {
    /// A thread, as soon as it is this job's turn.
    pub(crate) async fn acquire(self) -> Option<OwnedSemaphorePermit> {
        let _first_in_line = self.pool.line.acquire().await;
        Arc::clone(&self.pool.threads).acquire_owned().await.ok()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        self.pool.overflow.fetch_sub(usize::from(self.is_overflow), Ordering::Relaxed);
    }
}

/// A lent thread. Dropping it ends the loan.
pub(crate) struct LentThread {
    pool: Arc<BlockingPool>,
    is_exclusive: bool,
}

impl Drop for LentThread {
    fn drop(&mut self) {
        self.pool.lent.fetch_sub(1, Ordering::Relaxed);
        self.pool.lent_exclusive.fetch_sub(usize::from(self.is_exclusive), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_exclusive_queues_are_no_overflow_however_many_wait() {
        let pool = BlockingPool::new(1, HashSet::from(["own"]), 1, 2);
        let thread = pool.try_acquire();
        assert!(thread.is_some() && pool.try_acquire().is_none());
        let own: Vec<_> = (0..3).map(|_| pool.wait("own")).collect();
        assert!(pool.accepts_overflow() && !pool.has_overflowed("own"));
        let first = pool.wait("other");
        assert!(!pool.accepts_overflow() && !pool.has_overflowed("other"));
        let second = pool.wait("other");
        drop((first, second));
        assert!(pool.accepts_overflow() && pool.has_overflowed("other"), "it is remembered");
        let need_no_slot: Vec<_> = own.iter().map(|waiter| waiter.needs_no_slot).collect();
        assert_eq!((need_no_slot, pool.without_slot()), (vec![true, true, false], 3));
    }

    #[test]
    fn a_thread_is_free_only_if_it_is_neither_taken_nor_reserved() {
        let pool = Arc::new(BlockingPool::new(2, HashSet::new(), 1, 1));
        let mut reserved = pool.reserve(3);
        assert_eq!((pool.free(), pool.reserved()), (-1, 3));
        let one = reserved.split_one();
        drop(reserved);
        assert_eq!((pool.free(), pool.reserved()), (1, 1));
        drop(one);
        let _thread = pool.try_acquire();
        assert_eq!((pool.free(), pool.reserved()), (1, 0));
    }
}
