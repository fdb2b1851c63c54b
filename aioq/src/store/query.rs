//! Views of the content of a job store.

use super::{JobRecord, Status};
use crate::message::JobId;

/// A record as it is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// The record.
    pub record: JobRecord,
    /// Its revision, for a conditional write.
    pub revision: u64,
}

impl Stored {
    /// A record as it is stored.
    #[must_use]
    pub fn new(record: JobRecord, revision: u64) -> Self {
        Self { record, revision }
    }
}

/// Selects records to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watched {
    /// Records of one job, which was kicked to that queue.
    Job {
        /// The job.
        id: JobId,
        /// Its queue.
        queue: String,
    },
    /// Records of all jobs.
    All,
}

impl Watched {
    /// True if the record is selected.
    #[must_use]
    pub fn covers(&self, record: &JobRecord) -> bool {
        match self {
            Self::Job { id, .. } => record.id == *id,
            Self::All => true,
        }
    }
}

/// Selects records; all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordFilter {
    /// Records of one queue.
    pub queue: Option<String>,
    /// Records with one status.
    pub status: Option<Status>,
}

impl RecordFilter {
    /// All records.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Selects records of one queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Selects records with one status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }
}

/// Number of records with a status in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCount {
    /// The queue.
    pub queue: String,
    /// The status.
    pub status: Status,
    /// The number.
    pub count: u64,
}
