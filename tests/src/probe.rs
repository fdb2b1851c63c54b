//! A state that test bodies report to and wait for: [`Probe`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore};

/// Counts runs, and holds bodies until the test lets them go.
#[derive(Clone)]
pub struct Probe {
    runs: Arc<AtomicU32>,
    attempts: Arc<Mutex<Vec<u32>>>,
    /// Notified when a body begins.
    pub started: Arc<Notify>,
    /// Holds bodies that wait for a permit.
    pub gate: Arc<Semaphore>,
    /// Notified when a body has ended or was dropped.
    pub dropped: Arc<Notify>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            runs: Arc::default(),
            attempts: Arc::default(),
            started: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            dropped: Arc::default(),
        }
    }
}

impl Probe {
    /// Counts a run that begins as this attempt; the number of runs so far.
    pub fn run(&self, attempt: u32) -> u32 {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
        let runs = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        self.started.notify_one();
        runs
    }

    /// Number of runs.
    #[must_use]
    pub fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    /// The attempt of each run, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<u32> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this number of runs has begun.
    ///
    /// # Panics
    /// They do not begin in time.
    pub async fn until_runs(&self, runs: u32) {
        crate::until("the bodies run", async || self.runs() >= runs).await;
    }
}
