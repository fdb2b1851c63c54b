//! The seams that remember: [`JobStore`] for jobs, [`KvStore`] for small shared state.

mod counts;
mod fit;
mod forget;
mod look;
mod record;
mod retention;
mod status;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use self::counts::{Counts, JobCounts};
pub(crate) use self::fit::put_fitting;
pub(crate) use self::forget::forget;
pub use self::look::{RecordCount, RecordFilter, Stored, Watched};
pub(crate) use self::record::History;
pub use self::record::{AttemptError, JobRecord, LogLine, Progress};
pub use self::retention::{RecordLevel, Retention};
pub use self::status::Status;
pub use crate::broker::{Expect, Order, Page};
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

    /// The record of a job and its revision; one that cannot be read as [`list`](Self::list) tells it.
    async fn get(&self, id: &JobId) -> Result<Option<Stored>>;

    /// Writes the record of a job, and returns its revision once the write is confirmed. Revisions of one id
    /// grow, also over a removal.
    ///
    /// With [`Expect::Absent`] no record of that id must exist, with [`Expect::Revision`] the newest one must
    /// be that; otherwise the error is [`Conflict`](crate::ErrorKind::Conflict) and nothing changes. All
    /// writers of an id name the same queue.
    ///
    /// The record vanishes after `ttl`; `None` keeps it.
    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64>;

    /// The records that a filter lets through, by their revision: the order of their latest writes. A page with
    /// fewer rows than its limit is the last one; its positions are revisions. Costs about as much as the page
    /// is long, however many records there are.
    ///
    /// A record that cannot be read is listed as [`unreadable`](JobRecord::unreadable), with what the store
    /// itself knows of it.
    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>>;

    /// How many records these queues have, by status; those that are not zero.
    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>>;

    /// Removes these records, as they were read: one that was written again meanwhile stays. For each, whether
    /// it went.
    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>>;

    /// Removes soon what may be left of earlier records of the job: whoever wrote over them may have died before they
    /// were gone. A failure shows nowhere, as the newest record counts. For stores that keep them under other keys; the
    /// default does nothing.
    fn drop_older(&self, _stored: &Stored) {}

    /// Removes the oldest records of a status, over all queues, until no more than `keep` are left; how many
    /// went.
    async fn trim(&self, status: Status, keep: u64) -> Result<u64>;

    /// Every record of `watched` that is put after this call returned, in the order of the writes.
    ///
    /// Who reads the record of a job right after watching it, through the same store, misses nothing in between.
    /// A broken connection may lose some: who waits for a record reads it again now and then. A refused write
    /// is never seen. Dropping the stream ends the watch, and so does a shutdown.
    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>>;
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
    ///
    /// The TTL is counted by the clock of the store, from the write on, whatever the clocks of its clients say, and the
    /// key does not vanish before: whether a worker lives is known by such a key, which the worker writes again and
    /// again. A key that is written over is there at any time.
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

impl KvChange {
    /// The key that has changed.
    pub(crate) fn into_key(self) -> String {
        match self {
            Self::Put(entry) => entry.key,
            Self::Deleted(key) => key,
        }
    }
}
