//! Retention of job records.

use std::time::Duration;

use super::Status;
use crate::time::MAX_SPAN;

/// Limits on the age and the number of records of ended jobs. A record goes when it exceeds either.
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

    /// Sets the time that completed jobs are kept, at most [`MAX_SPAN`]. A task can override it
    /// with `keep`.
    pub fn completed(mut self, span: Duration) -> Self {
        self.completed = span.min(MAX_SPAN);
        self
    }

    /// Sets the time that failed, expired and cancelled jobs are kept, at most [`MAX_SPAN`]. A task
    /// can override it with `keep_failed`.
    pub fn failed(mut self, span: Duration) -> Self {
        self.failed = span.min(MAX_SPAN);
        self
    }

    /// Sets the number of completed jobs that are kept, over all queues. The oldest are removed
    /// first. There may be more for a while, until a worker removes them.
    pub fn max_completed(mut self, jobs: u64) -> Self {
        self.max_completed = jobs;
        self
    }

    /// Sets the number of failed, of expired and of cancelled jobs that are kept, each over all
    /// queues.
    pub fn max_failed(mut self, jobs: u64) -> Self {
        self.max_failed = jobs;
        self
    }

    /// The time that a job with this status is kept.
    #[must_use]
    pub fn span(&self, status: Status) -> Duration {
        match status {
            Status::Completed => self.completed,
            _ => self.failed,
        }
    }

    /// The number of jobs with this status that are kept.
    #[must_use]
    pub fn count(&self, status: Status) -> u64 {
        match status {
            Status::Completed => self.max_completed,
            _ => self.max_failed,
        }
    }
}

/// Amount of data that is recorded of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordLevel {
    /// Nothing: no results, no history, nothing to wait for. After a lost lease or a crash at the
    /// wrong moment a job may run again although it had ended, and two runs may both take effect.
    None,
    /// The end of a job: its result or error, and the data to rerun a failed job. No record while
    /// it runs, and no arguments and labels of completed jobs.
    Results,
    /// Everything.
    #[default]
    Full,
}
