//! Finding and changing jobs: [`Jobs`] for any job, [`TaskHandle`] for one.

mod cancel;
mod clean;
mod find;
mod handle;
mod list;
mod merge;
mod rerun;
mod tree;
mod wait;

use std::sync::Arc;
use std::time::Duration;

pub use self::handle::TaskHandle;
pub use self::list::{Cursor, JobFilter, JobList, JobsPage};
pub use self::tree::{JobTree, TreeJob};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, UniqueKey};
use crate::store::{Counts, Expect, JobCounts, JobRecord, JobStore, Stored};
use crate::time::Timestamp;
use crate::unique::{self, Keys, Tenant};

/// Finds, lists, cancels, reruns and removes jobs.
///
/// Jobs are named by their id. An unknown id is [`NotFound`](ErrorKind::NotFound). A request that
/// the state of the job does not allow returns `Ok(false)` and changes nothing.
///
/// ```
/// use aioq::store::Status;
/// use aioq::jobs::JobFilter;
/// use aioq::{Client, Memory};
///
/// #[aioq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = Client::connect(Memory::new()).await?;
/// let handle = client.kiq(add(1, 2)).await?;
///
/// let waiting = client.jobs().list(JobFilter::new().task("add"), 50).await?;
/// assert_eq!(waiting.jobs[0].status, Status::Pending);
///
/// assert!(client.jobs().cancel(handle.id()).await?);
/// assert!(!client.jobs().cancel(handle.id()).await?, "only once");
/// assert_eq!(handle.record().await?.status, Status::Cancelled);
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Jobs {
    client: Client,
}

impl Client {
    /// Finds, lists, cancels, reruns and removes jobs.
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        Jobs { client: self.clone() }
    }
}

impl Jobs {
    /// The record of a job; for a job that waits, made from its message. It exists as soon as the
    /// kick returns.
    ///
    /// A job counts as pending during the first half second of its run: it has no record yet. A
    /// debounced job that waits has the arguments of its newest kick.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) with the id if there is no such job, or its record is
    /// gone.
    pub async fn get(&self, id: &JobId) -> Result<JobRecord> {
        Ok(self.find(id).await?.record)
    }

    /// The stored record of a job with its revision; `None` for a job that waits and has no record
    /// yet.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn stored(&self, id: &JobId) -> Result<Option<Stored>> {
        match self.client.backend().jobs() {
            Some(jobs) => Ok(jobs.get(id).await?.filter(|stored| !stored.record.is_removed())),
            None => Ok(None),
        }
    }

    /// Number of jobs by status, over all recently used queues, counted at most `max_age` ago.
    /// [`Queues::list`](crate::queues::Queues::list) says which jobs the counts leave out.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn counts(&self, max_age: Duration) -> Result<JobCounts> {
        if let Some(known) = self.client.caches().counts().filter(|known| known.age() <= max_age) {
            return Ok(known);
        }
        let mut counts = Counts::new();
        for queue in self.client.queues().list().await? {
            for (status, count) in queue.counts {
                *counts.entry(status).or_default() += count;
            }
        }
        let counted = JobCounts { counts, counted_at: Timestamp::now() };
        self.client.caches().set_counts(counted.clone());
        Ok(counted)
    }

    /// Replaces the record that was read as `stored`, for tools of your own. Returns the new
    /// revision. The client's [`Retention`](crate::store::Retention) for the new status starts
    /// anew.
    ///
    /// # Errors
    /// - [`Conflict`](ErrorKind::Conflict): the record was written meanwhile; nothing has changed.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the new status cannot
    ///   [follow](crate::store::Status::next) the old one, or the record is of another job or
    ///   queue.
    pub async fn update(&self, stored: &Stored, record: JobRecord) -> Result<u64> {
        let old = &stored.record;
        let refuse = |why: String| Err(Error::new(ErrorKind::InvalidArgument, why).with_id(old.id.clone()));
        if old.id != record.id || old.queue != record.queue {
            return refuse("a record cannot move to another job or queue".to_owned());
        }
        if old.status != record.status && !old.status.next().contains(&record.status) {
            return refuse(format!("a job that is {} cannot become {}", old.status, record.status));
        }
        let ttl = self.client.retention().span(record.status);
        self.store()?.put(Arc::new(record), Expect::Revision(stored.revision), Some(ttl)).await
    }

    /// The unfinished job that holds a unique key, or the completed one whose window has not ended.
    ///
    /// [`Call::unique`](crate::tasks::Call::unique) makes the key of a call.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn unique_holder(&self, key: &UniqueKey) -> Result<Option<JobId>> {
        Keys::new(self.client.backend(), self.client.deadline()).holder_of(key).await
    }

    /// What follows from the end of a job by this client, of which this is the last record: its
    /// unique key is free, and the jobs that wait for it are released or fail.
    async fn after_end(&self, last: &JobRecord) -> Result<()> {
        if let Some(tenant) = Tenant::of(last) {
            let (kv, now) = (self.client.backend().kv(), self.client.now());
            unique::free(&**kv, tenant, last.status, now).await;
        }
        if last.awaited { Box::pin(self.client.dependencies().ended(last)).await } else { Ok(()) }
    }

    fn store(&self) -> Result<&dyn JobStore> {
        self.client.backend().jobs().map(|jobs| &**jobs).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "this client keeps no records of jobs, so there is no result to wait for: connect with another `RecordLevel`",
            )
        })
    }
}

fn not_found(id: &JobId) -> Error {
    Error::new(ErrorKind::NotFound, "no such job, or its record is gone").with_id(id.clone())
}
