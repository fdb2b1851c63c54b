//! Counter that tells when all jobs have run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::sync::Lock;

/// Counts jobs until all have run. Cheap to clone.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let tally = aioq::bench::Tally::of(2);
/// tally.count();
/// tally.count();
/// tally.full().await;
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Tally(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: Instant,
    wanted: usize,
    count: AtomicUsize,
    all: Notify,
    /// Waiting time of each job, if it is recorded.
    starts: Option<Lock<Vec<Duration>>>,
}

impl Tally {
    /// A tally that is full after `wanted` jobs.
    #[must_use]
    pub fn of(wanted: usize) -> Self {
        Self::new(wanted, None)
    }

    /// A tally that also records the time from the kick of each job to its start.
    #[must_use]
    pub fn with_starts(wanted: usize) -> Self {
        Self::new(wanted, Some(Lock::default()))
    }

    fn new(wanted: usize, starts: Option<Lock<Vec<Duration>>>) -> Self {
        let (epoch, count, all) = (Instant::now(), AtomicUsize::new(0), Notify::new());
        Self(Arc::new(Inner { epoch, wanted, count, all, starts }))
    }

    /// Records the start of a job that was kicked at `kicked`, a time of [`now`](Self::now).
    pub fn started(&self, kicked: u64) {
        if let Some(starts) = &self.0.starts {
            let waited = Duration::from_nanos(self.now().saturating_sub(kicked));
            starts.lock().push(waited);
        }
    }

    /// Counts a job.
    pub fn count(&self) {
        if self.0.count.fetch_add(1, Ordering::AcqRel) + 1 == self.0.wanted {
            // The permit stays for a waiter that comes later.
            self.0.all.notify_one();
        }
    }

    /// Resolves when the tally is full. For one waiter.
    pub async fn full(&self) {
        self.0.all.notified().await;
    }

    /// Nanoseconds on the clock that all jobs of one tally share.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes the recorded times from kick to start: those since the last call.
    #[must_use]
    pub fn starts(&self) -> Vec<Duration> {
        let starts = self.0.starts.as_ref();
        starts.map(|starts| std::mem::take(&mut *starts.lock())).unwrap_or_default()
    }
}
