//! The stores: [`JobStore`] for jobs, [`KvStore`] for small shared state.

mod counts;
mod fit;
mod forget;
mod query;
mod record;
mod retention;
mod status;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

pub use self::counts::{Counts, JobCounts};
pub(crate) use self::fit::put_fitting;
pub(crate) use self::forget::forget;
pub use self::query::{RecordCount, RecordFilter, Stored, Watched};
pub(crate) use self::record::History;
pub use self::record::{AttemptError, JobRecord, LogLine, Progress};
pub use self::retention::{RecordLevel, Retention};
pub use self::status::Status;
pub use crate::broker::{Expect, Order, Page};
use crate::error::Result;
use crate::message::JobId;
use crate::time::Timestamp;

/// Stores the records of jobs: one per job id, written conditionally.
///
/// A waiting job has no record; its message takes that place. A short job gets one record, at its
/// end.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Connects. Idempotent.
    async fn startup(&self) -> Result<()>;

    /// Disconnects. Idempotent.
    async fn shutdown(&self) -> Result<()>;

    /// The record of a job with its revision. An unreadable record is returned as by
    /// [`list`](Self::list).
    async fn get(&self, id: &JobId) -> Result<Option<Stored>>;

    /// Writes the record of a job. Returns its revision once the write is confirmed. Revisions of
    /// one id rise, also across a removal.
    ///
    /// With [`Expect::Absent`] there must be no record of that id, with [`Expect::Revision`] the
    /// record must have that revision. Otherwise the write fails with
    /// [`Conflict`](crate::ErrorKind::Conflict) and changes nothing. All writers of an id name the
    /// same queue.
    ///
    /// The record expires after `ttl`; `None` keeps it.
    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64>;

    /// The records that a filter selects, by revision: the order of their latest writes.
    ///
    /// Positions of the page are revisions. A page with fewer rows than its limit is the last one.
    /// The cost depends on the length of the page, not on the number of records.
    ///
    /// An unreadable record is listed as [`unreadable`](JobRecord::unreadable), with the values
    /// that the store knows.
    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>>;

    /// Number of records of these queues, by status. Zeros are left out.
    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>>;

    /// Removes these records, unless they were written again since. Returns true for each that was
    /// removed.
    async fn remove(&self, records: &[Stored]) -> Vec<Result<bool>>;

    /// Removes older records of the job, soon.
    ///
    /// For stores that keep the records of an id under several keys: a writer may have died before
    /// it removed the older one. Errors are not reported, because the newest record counts. The
    /// default does nothing.
    fn drop_older(&self, _stored: &Stored) {}

    /// Removes the oldest records of a status, over all queues, until `keep` are left. Returns the
    /// number of removed records.
    ///
    /// With `before`, a record stays if its job ended at that time or later. A store that knows the
    /// time of a record's latest write may go by that.
    async fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64>;

    /// A stream of the records of `watched` that are put after this call returned, in the order of
    /// the writes.
    ///
    /// A caller that reads a record right after this call, through the same store, misses no write
    /// in between. Writes during a broken connection may be lost: a caller that waits for a record
    /// reads it again now and then. A refused write is never seen. The stream ends at shutdown;
    /// dropping it ends the watch.
    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>>;
}

/// Stores small shared state by key: workers, pauses, cancel requests, locks.
///
/// A key is text of at most 256 bytes, made of parts joined by `.`. It may contain any character;
/// backends escape those that they cannot use.
///
/// A `get` or `scan` that begins after a write was confirmed, to any client, returns that write or
/// a later one. Of concurrent writes that expect the same revision exactly one is confirmed.
#[async_trait]
pub trait KvStore: Send + Sync + 'static {
    /// Connects. Idempotent.
    async fn startup(&self) -> Result<()>;

    /// Disconnects. Idempotent.
    async fn shutdown(&self) -> Result<()>;

    /// The value of a key, with its revision.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// The values of many keys, in the order of the keys; as [`get`](Self::get) of each.
    ///
    /// A store that can read many keys with one request has a method of its own for that.
    async fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Entry>>> {
        let gets = (0..keys.len()).map(|index| self.get(&keys[index]));
        stream::iter(gets).buffered(GETS_AT_ONCE).try_collect().await
    }

    /// Writes the value of a key. Returns its revision. Otherwise as [`JobStore::put`].
    ///
    /// The store counts the TTL by its own clock, from the write on, and the key does not expire
    /// earlier: a worker counts as alive while a key exists that it writes again and again. A key
    /// that is overwritten exists at any time in between.
    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<u64>;

    /// Removes a key, if `expect` holds. Returns true if it was there. Expecting a revision of an
    /// absent key is a [`Conflict`](crate::ErrorKind::Conflict).
    async fn delete(&self, key: &str, expect: Expect) -> Result<bool>;

    /// All keys with this prefix, in order. The prefix is empty or ends with `.`. The cost depends
    /// on the number of these keys, not on that of all keys.
    async fn scan(&self, prefix: &str) -> Result<Vec<Entry>>;

    /// A stream of the changes of keys with this prefix, after this call returned. The expiry of a
    /// key is not a change.
    ///
    /// A change is told within a second. Changes of one key come in the order of their revisions. A
    /// client may watch a thousand prefixes at a time.
    ///
    /// Changes during a broken connection may be lost. Callers that need all of them also call
    /// `scan` periodically.
    async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, KvChange>>;
}

/// Number of keys that a store reads at a time, each with a request of its own.
const GETS_AT_ONCE: usize = 64;

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
    /// The changed key.
    pub(crate) fn into_key(self) -> String {
        match self {
            Self::Put(entry) => entry.key,
            Self::Deleted(key) => key,
        }
    }
}
