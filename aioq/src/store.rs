//! The seams that remember: [`JobStore`] for jobs, [`KvStore`] for small shared state.

mod record;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use self::record::{AttemptError, JobRecord, Progress, Status};
pub use crate::broker::Expect;
use crate::error::Result;
use crate::message::JobId;

/// Remembers what became of jobs: one record per id, written conditionally.
///
/// A job that waits has no record: its message is the record. A short job gets one record, when it ends.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Connects. Idempotent.
    async fn startup(&self) -> Result<()>;

    /// Disconnects. Idempotent.
    async fn shutdown(&self) -> Result<()>;

    /// The record of a job and its revision.
    async fn get(&self, id: &JobId) -> Result<Option<Stored>>;

    /// Writes the record of a job, and returns its revision once the write is confirmed. Revisions of one id
    /// grow, also over a removal.
    ///
    /// With [`Expect::Absent`] no record of that id must exist, with [`Expect::Revision`] the newest one must
    /// be that; otherwise the error is [`Conflict`](crate::ErrorKind::Conflict) and nothing changes. All
    /// writers of an id name the same queue.
    ///
    /// The record vanishes after `ttl`; `None` keeps it.
    async fn put(&self, record: JobRecord, expect: Expect, ttl: Option<Duration>) -> Result<u64>;

    /// Removes the record of a job; whether there was one.
    async fn remove(&self, id: &JobId) -> Result<bool>;

    /// Every record of `watched` that is put after this call returned, in the order of the writes.
    ///
    /// A broken connection may lose some: who waits for a record reads it again now and then. A refused write
    /// is never seen. Dropping the stream ends the watch, and so does a shutdown.
    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>>;
}

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

/// Remembers small shared state by key: workers, pauses, cancels, limits, locks, schedules.
///
/// Keys are text of at most 256 bytes, made of parts joined by `.`; any characters, backends escape what they
/// must.
#[async_trait]
pub trait KvStore: Send + Sync + 'static {
    /// Connects. Idempotent.
    async fn startup(&self) -> Result<()>;

    /// Disconnects. Idempotent.
    async fn shutdown(&self) -> Result<()>;

    /// The value of a key and its revision.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// Writes the value of a key, and returns its revision. Otherwise as [`JobStore::put`].
    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64>;

    /// Removes a key, if `expect` holds; whether it was there. Expecting a revision of a key that is not there is
    /// a [`Conflict`](crate::ErrorKind::Conflict).
    async fn delete(&self, key: &str, expect: Expect) -> Result<bool>;

    /// All keys that start with `prefix`, in the order of the keys. The prefix ends with `.` or is empty.
    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>>;

    /// Every change of a key that starts with `prefix`, after this call returned. A key that vanishes by its
    /// TTL is not a change. A broken connection may lose some: who must not miss one scans now and then.
    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>>;
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Its revision, for a conditional write.
    pub revision: u64,
}

impl Entry {
    /// A key with its value.
    #[must_use]
    pub fn new(key: impl Into<String>, value: Bytes, revision: u64) -> Self {
        Self { key: key.into(), value, revision }
    }
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvChange {
    /// The key has this value now.
    Put(Entry),
    /// The key is gone.
    Deleted(String),
}
