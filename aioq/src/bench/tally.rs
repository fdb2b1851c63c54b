//! How to know that all jobs have run.

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
    /// How long each job waited, if that is asked for.
    starts: Option<Lock<Vec<Duration>>>,
}

impl Tally {
    /// A tally that is full after that many jobs.
    #[must_use]
    pub fn of(wanted: usize) -> Self {
        Self::new(wanted, None)
    }

    /// The same, which also notes how long each job waited for its start.
    #[must_use]
    pub fn with_starts(wanted: usize) -> Self {
        Self::new(wanted, Some(Lock::default()))
    }

    fn new(wanted: usize, starts: Option<Lock<Vec<Duration>>>) -> Self {
        let (epoch, count, all) = (Instant::now(), AtomicUsize::new(0), Notify::new());
        Self(Arc::new(Inner { epoch, wanted, count, all, starts }))
    }

    /// A job starts whose number is the time of its kick, by [`now`](Self::now).
    pub fn started(&self, kicked: u64) {
        if let Some(starts) = &self.0.starts {
            let waited = Duration::from_nanos(self.now().saturating_sub(kicked));
            starts.lock().push(waited);
        }
    }

    /// One more job.
    pub fn count(&self) {
        if self.0.count.fetch_add(1, Ordering::AcqRel) + 1 == self.0.wanted {
            // One permit stays for whoever waits later.
            self.0.all.notify_one();
        }
    }

    /// Resolves once the tally is full; for one waiter.
    pub async fn full(&self) {
        self.0.all.notified().await;
    }

    /// Nanoseconds on the clock that all jobs of one tally share.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// How long each job waited for its start, since this was asked for the last time.
    #[must_use]
    pub fn starts(&self) -> Vec<Duration> {
        let starts = self.0.starts.as_ref();
        starts.map(|starts| std::mem::take(&mut *starts.lock())).unwrap_or_default()
    }
}
