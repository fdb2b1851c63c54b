//! What a worker has in hand beyond its slots: whoever ends a job starts the next one from here, so that short jobs
//! stream without a fetch, a spawn and a wake-up for each.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::broker::Delivery;

/// Deliveries that wait for the end of a job. They are soon started or given back, so their leases are not extended.
#[derive(Default)]
pub(super) struct Hand(Mutex<VecDeque<Fetched>>);

/// A delivery and when it was fetched.
pub(super) struct Fetched {
    pub(super) delivery: Delivery,
    pub(super) at: Instant,
}

impl Fetched {
    /// Whether another worker may have it soon, or has it. A listener that had prefetched it extended its lease up to
    /// a third of `ack_wait` before it handed it out.
    fn is_stale(&self) -> bool {
        self.at.elapsed() >= self.delivery.receipt.ack_wait() / 2
    }
}

impl Hand {
    /// Adds what was fetched.
    pub(super) fn add(&self, fetched: impl Iterator<Item = Fetched>) {
        self.lock().extend(fetched);
    }

    /// The next one to start.
    pub(super) fn take(&self) -> Option<Fetched> {
        let mut hand = self.lock();
        // One that was left too long comes back by itself.
        std::iter::from_fn(|| hand.pop_front()).find(|fetched| !fetched.is_stale())
    }

    /// All that there is.
    pub(super) fn take_all(&self) -> Vec<Fetched> {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter().filter(|fetched| !fetched.is_stale()).collect()
    }

    /// When the one was fetched that waits longest.
    pub(super) fn since(&self) -> Option<Instant> {
        self.lock().front().map(|fetched| fetched.at)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Fetched>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
