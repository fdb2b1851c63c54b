//! What is in a store of jobs, seen from outside.

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

/// Which records to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watched {
    /// Those of one job, which was kicked to that queue.
    Job {
        /// The job.
        id: JobId,
        /// Its queue.
        queue: String,
    },
    /// Those of all jobs.
    All,
}

impl Watched {
    /// Whether a record is one of those watched.
    #[must_use]
    pub fn covers(&self, record: &JobRecord) -> bool {
        match self {
            Self::Job { id, .. } => record.id == *id,
            Self::All => true,
        }
    }
}

/// Which records to list; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordFilter {
    /// Those of one queue.
    pub queue: Option<String>,
    /// Those with one status.
    pub status: Option<Status>,
}

impl RecordFilter {
    /// All records.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of one queue.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Those with one status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }
}

/// How many records of a status a queue has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordCount {
    /// The queue.
    pub queue: String,
    /// The status.
    pub status: Status,
    /// How many.
    pub count: u64,
}
