//! How much is remembered of jobs, and for how long.

use std::time::Duration;

use super::Status;
use crate::time::MAX_SPAN;

/// How long and how many records of ended jobs are kept, whichever ends first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    completed: Duration,
    failed: Duration,
    max_completed: u64,
    max_failed: u64,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Retention {
    /// Completed jobs: 24 h, 100,000. All others: 7 d, 10,000 of each status.
    fn default() -> Self {
        Self { completed: DAY, failed: 7 * DAY, max_completed: 100_000, max_failed: 10_000 }
    }
}

impl Retention {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long completed jobs and their results are kept; at most [`MAX_SPAN`]. A task may say otherwise with `keep`.
    pub fn completed(mut self, span: Duration) -> Self {
        self.completed = span.min(MAX_SPAN);
        self
    }

    /// How long failed, expired and cancelled jobs are kept; at most [`MAX_SPAN`]. A task may say otherwise with `keep_failed`.
    pub fn failed(mut self, span: Duration) -> Self {
        self.failed = span.min(MAX_SPAN);
        self
    }

    /// How many completed jobs are kept, over all queues; the oldest go first. Somewhat more may be there until
    /// a worker tidies up.
    pub fn max_completed(mut self, jobs: u64) -> Self {
        self.max_completed = jobs;
        self
    }

    /// How many failed, how many expired, and how many cancelled jobs are kept, over all queues.
    pub fn max_failed(mut self, jobs: u64) -> Self {
        self.max_failed = jobs;
        self
    }

    /// How long a job that ended like this is kept.
    #[must_use]
    pub fn span(&self, status: Status) -> Duration {
        match status {
            Status::Completed => self.completed,
            _ => self.failed,
        }
    }

    /// How many jobs that ended like this are kept.
    #[must_use]
    pub fn count(&self, status: Status) -> u64 {
        match status {
            Status::Completed => self.max_completed,
            _ => self.max_failed,
        }
    }
}

/// How much is written down of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordLevel {
    /// Nothing: no results, no history, nothing to wait for. A job whose worker loses its lease or crashes at
    /// the wrong moment runs again although it had ended, and nobody is kept from writing what another run
    /// wrote.
    None,
    /// How it ended: the result or the error, and what it takes to run a failed job again. Nothing while it
    /// runs, and no arguments and labels of completed jobs.
    Results,
    /// Everything.
    #[default]
    Full,
}
