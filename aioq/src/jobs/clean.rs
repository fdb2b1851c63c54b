//! Removing jobs: one by its id, or many by status and age.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use super::Jobs;
use super::find::Found;
use crate::broker::{Page, Queued};
use crate::bulk::Bulk;
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::message::JobId;
use crate::store::{Expect, JobRecord, RecordFilter, Status, Stored, forget, put_fitting};
use crate::time::{IntoDuration, check_span};

/// Number of records to read and remove at once.
const PAGE: usize = 1_000;

/// Number of concurrent lookups of messages.
const CONCURRENT_LOOKUPS: usize = 256;

impl Jobs {
    /// Removes a job and its record. A job that waits is [cancelled](Self::cancel) first. False for
    /// a job that runs: [`abort`](Self::abort) it first.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel).
    pub async fn remove(&self, id: &JobId) -> Result<bool> {
        let found = self.find(id).await?;
        if found.has_expired_unrecorded() {
            self.expire(found).await?;
        } else if !found.record.status.is_terminal() && !self.cancel(id).await? {
            return Ok(false);
        }
        let Some(stored) = self.stored(id).await? else {
            // Without records, cancelling has removed the job.
            return Ok(true);
        };
        if !stored.record.status.is_terminal() {
            return Ok(false);
        }
        let mut bulk = Bulk::<Vec<JobId>>::default();
        self.forget(vec![stored], &mut bulk).await?;
        match bulk.errors.pop() {
            Some(error) => Err(error),
            None => Ok(!bulk.done.is_empty()),
        }
    }

    /// Records that a job expired while it waited, as the worker that receives its message would.
    pub(super) async fn expire(&self, found: Found) -> Result<()> {
        let Found { mut record, queued, revision } = found;
        record.status = Status::Expired;
        record.reason = Some(Reason::Expired);
        record.dead_lettered = true;
        record.finished_at = Some(self.client.now());
        record.message = queued.as_ref().map(|queued| queued.body.clone());
        if let Some(jobs) = self.client.backend().jobs() {
            if revision.is_none() && !self.is_unchanged(queued.as_ref()).await? {
                return Ok(());
            }
            let expect = revision.map_or(Expect::Absent, Expect::Revision);
            let ttl = self.client.retention().span(Status::Expired);
            let record = Arc::new(record);
            match put_fitting(&**jobs, Arc::clone(&record), expect, Some(ttl)).await {
                // A worker has received the message.
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
                other => other?,
            };
            self.after_end(&record).await?;
        }
        let messages: Vec<Queued> = queued.into_iter().collect();
        self.client.backend().broker().remove(&messages).await.into_iter().try_for_each(|gone| gone.map(drop))
    }

    /// Removes jobs that ended with `status` at least `older_than` ago: the oldest first, at most
    /// `limit`. Returns their ids.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a status of jobs that have not ended, or
    /// an invalid span; the errors of the backend when it cannot be reached. Some of the jobs may
    /// be removed by then.
    pub async fn clean(
        &self,
        status: Status,
        older_than: impl IntoDuration,
        limit: usize,
    ) -> Result<Bulk<Vec<JobId>>> {
        let span = check_span("the age", older_than.into_duration()?)?;
        if !status.is_terminal() {
            let message = format!("`{status}` is not a status of ended jobs: only those can be cleaned");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let Some(store) = self.client.backend().jobs() else { return Ok(Bulk::default()) };
        let now = self.client.now();
        let old = |record: &JobRecord| record.finished_at.is_none_or(|finished| now.since(finished) >= span);
        let filter = RecordFilter::new().status(status);
        let (mut bulk, mut page) = (Bulk::<Vec<JobId>>::default(), Page::oldest(PAGE));
        while bulk.done.len() < limit {
            let records = store.list(&filter, page).await?;
            let read = records.len();
            let Some(last) = records.last() else { break };
            page = page.after(last.revision);
            let mut due: Vec<Stored> = records.into_iter().filter(|stored| old(&stored.record)).collect();
            // Records are in the order of their writes. That is the order of the ends, up to the
            // difference of the workers' clocks.
            let none_due = due.is_empty();
            due.truncate(limit - bulk.done.len());
            self.forget(due, &mut bulk).await?;
            if none_due || read < PAGE {
                break;
            }
        }
        Ok(bulk)
    }

    /// Removes the records of ended jobs. Where the message is still in the broker, because the
    /// worker died before it acked, it goes first: without the record, the job would run again.
    /// Jobs that were kicked again stay.
    async fn forget(&self, records: Vec<Stored>, bulk: &mut Bulk<Vec<JobId>>) -> Result<()> {
        let broker = self.client.backend().broker();
        let mut queues: Vec<String> = records.iter().map(|stored| stored.record.queue.to_string()).collect();
        queues.sort_unstable();
        queues.dedup();
        let depths = broker.depths(&queues).await?;
        let empty =
            depths.iter().all(|depth| depth.ready + depth.held + depth.scheduled + depth.retrying == 0);
        let records = if empty { records } else { self.without_messages(records, bulk).await? };
        let removed = forget(self.store()?, &records, self.client.now()).await;
        for (stored, removed) in records.into_iter().zip(removed) {
            match removed {
                Ok(true) => bulk.done.push(stored.record.id),
                Ok(false) => {}
                Err(error) => bulk.pass_over(error.with_id(stored.record.id))?,
            }
        }
        Ok(())
    }

    /// Removes leftover messages of these jobs. Returns the records whose job has no message any
    /// more.
    async fn without_messages(
        &self,
        records: Vec<Stored>,
        bulk: &mut Bulk<Vec<JobId>>,
    ) -> Result<Vec<Stored>> {
        let broker = self.client.backend().broker();
        let found = iter(records).map(|stored| async move {
            let queued = broker.find(&stored.record.id).await;
            (stored, queued)
        });
        let found: Vec<_> = found.buffered(CONCURRENT_LOOKUPS).collect().await;
        let (mut ended, mut stale, mut with_stale) = (Vec::new(), Vec::new(), Vec::new());
        for (stored, queued) in found {
            match queued {
                Ok(None) => ended.push(stored),
                Ok(Some(queued)) if queued.is_older_than(stored.revision) => {
                    stale.push(queued);
                    with_stale.push(stored);
                }
                Ok(Some(_)) => {}
                Err(error) => bulk.pass_over(error.with_id(stored.record.id))?,
            }
        }
        for (stored, removed) in with_stale.into_iter().zip(broker.remove(&stale).await) {
            match removed {
                Ok(_) => ended.push(stored),
                Err(error) => bulk.pass_over(error.with_id(stored.record.id))?,
            }
        }
        Ok(ended)
    }
}
