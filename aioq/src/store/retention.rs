//! Retention of job records.

use std::time::Duration;

use super::Status;
use crate::time::{MAX_SPAN, Timestamp};

/// Limits on the age and the number of records of ended jobs. A record goes when it exceeds either.
///
/// A record that exceeds the number alone stays for a minute after the end of its job, see
/// [`min_age`](Self::min_age): a fast queue does not remove results before their readers come. Ten
/// times the number are kept at most.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    completed: Duration,
    failed: Duration,
    max_completed: u64,
    max_failed: u64,
    min_age: Duration,
}

/// The most records that are kept because they are young, as a multiple of the number to keep.
const MOST: u64 = 10;

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Retention {
    /// Completed jobs: 24 h, 100,000. All others: 7 d, 10,000 of each status.
    fn default() -> Self {
        Self {
            completed: DAY,
            failed: 7 * DAY,
            max_completed: 100_000,
            max_failed: 10_000,
            min_age: Duration::from_secs(60),
        }
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

    /// Sets the time that an ended job is kept although there are more than
    /// [`max_completed`](Self::max_completed) or [`max_failed`](Self::max_failed); one minute
    /// unless set. Records beyond ten times these numbers are removed at any age.
    ///
    /// The backend in memory has a limit of its own, which counts in any case:
    /// [`Memory::max_records`](crate::Memory::max_records).
    pub fn min_age(mut self, span: Duration) -> Self {
        self.min_age = span.min(MAX_SPAN);
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

    /// The number of jobs with this status that are kept, whatever their age.
    pub(crate) fn most(&self, status: Status) -> u64 {
        if self.min_age.is_zero() { self.count(status) } else { self.count(status).saturating_mul(MOST) }
    }

    /// Jobs that ended before this time are removed beyond the [`count`](Self::count).
    pub(crate) fn old(&self, now: Timestamp) -> Timestamp {
        let span = i64::try_from(self.min_age.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(now.as_micros().saturating_sub(span))
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
