//! The jobs that are measured, and how to know that all have run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aioq::task;
use tokio::sync::Notify;

/// The queue of all jobs.
pub(crate) const QUEUE: &str = "bench";

/// The text that every job carries.
pub(crate) const TEXT: &str = "0123456789abcdef0123456789abcdef";

/// Does nothing but count.
#[task(name = "bench.noop", queue = "bench")]
pub(crate) async fn noop(number: u64, text: &str, #[inject] tally: &Tally) {
    std::hint::black_box((number, text));
    tally.count();
}

/// Notes how long after its kick it starts; `number` is when it was kicked, see [`Tally::now`].
#[task(name = "bench.stamp", queue = "bench")]
pub(crate) async fn stamp(number: u64, text: &str, #[inject] tally: &Tally) {
    std::hint::black_box(text);
    tally.started(number);
    tally.count();
}

/// Counts jobs until all have run.
#[derive(Clone)]
pub(crate) struct Tally(Arc<Inner>);

struct Inner {
    epoch: Instant,
    wanted: usize,
    count: AtomicUsize,
    all: Notify,
    starts: Mutex<Vec<Duration>>,
}

impl Tally {
    /// A tally that is full after that many jobs.
    pub(crate) fn of(wanted: usize) -> Self {
        Self(Arc::new(Inner {
            epoch: Instant::now(),
            wanted,
            count: AtomicUsize::new(0),
            all: Notify::new(),
            starts: Mutex::default(),
        }))
    }

    /// One more job.
    pub(crate) fn count(&self) {
        if self.0.count.fetch_add(1, Ordering::AcqRel) + 1 == self.0.wanted {
            // One permit stays for whoever waits later.
            self.0.all.notify_one();
        }
    }

    /// Resolves once the tally is full; for one waiter.
    pub(crate) async fn full(&self) {
        self.0.all.notified().await;
    }

    /// Nanoseconds on the clock that all jobs of one tally share.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A job that was kicked then starts now.
    pub(crate) fn started(&self, kicked: u64) {
        let waited = Duration::from_nanos(self.now().saturating_sub(kicked));
        self.0.starts.lock().unwrap_or_else(PoisonError::into_inner).push(waited);
    }

    /// How long each job waited for its start.
    pub(crate) fn starts(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.0.starts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
