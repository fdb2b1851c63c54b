//! Removing what is remembered of jobs.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use super::Jobs;
use super::find::Seen;
use crate::broker::{Page, Queued};
use crate::bulk::Bulk;
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::message::{JobId, Message};
use crate::store::forget;
use crate::store::{Expect, JobRecord, RecordFilter, Status, Stored, put_fitting};
use crate::time::{IntoDuration, check_span};

/// How many records to remove at once.
const AT_ONCE: usize = 1_000;

/// How many messages to look for at a time.
const LOOKS: usize = 256;

impl Jobs {
    /// Forgets a job: one that has ended at once, one that waits after it was [cancelled](Self::cancel). False
    /// for one that runs: [`abort`](Self::abort) it first.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel).
    pub async fn remove(&self, id: &JobId) -> Result<bool> {
        let seen = self.look(id).await?;
        if seen.has_expired_unseen() {
            self.expire(seen).await?;
        } else if !seen.record.status.is_terminal() && !self.cancel(id).await? {
            return Ok(false);
        }
        let Some(stored) = self.stored(id).await? else {
            // Without records, a cancelled job is gone.
            return Ok(true);
        };
        match stored.record.status.is_terminal() {
            true => {
                let mut bulk = Bulk::<Vec<JobId>>::default();
                self.forget(vec![stored], &mut bulk).await?;
                match bulk.errors.pop() {
                    Some(error) => Err(error),
                    None => Ok(!bulk.done.is_empty()),
                }
            }
            false => Ok(false),
        }
    }

    /// Records that a job expired while it waits, as the worker that gets its message would.
    pub(super) async fn expire(&self, seen: Seen) -> Result<()> {
        let Seen { mut record, queued, revision } = seen;
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
            match put_fitting(&**jobs, Arc::new(record), expect, Some(ttl)).await {
                // A worker has seen it.
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
                other => other?,
            };
        }
        let messages: Vec<Queued> = queued.into_iter().collect();
        self.client.backend().broker().remove(&messages).await.into_iter().try_for_each(|gone| gone.map(drop))
    }

    /// Whether the message of a job is still the newest one: a job without a record may have none yet, or none any more.
    pub(super) async fn is_unchanged(&self, queued: Option<&Queued>) -> Result<bool> {
        let Some(queued) = queued else { return Ok(true) };
        let now = self.client.backend().broker().find(&queued.id).await?;
        Ok(now.is_some_and(|now| now.revision == queued.revision))
    }

    /// Forgets jobs that ended with that status at least so long ago, the oldest first, at most `limit`; their
    /// ids.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a status of jobs that have not ended, or a span that
    /// is none; what the backend reports when it cannot be reached. Part of the jobs may be forgotten then.
    pub async fn clean(
        &self,
        status: Status,
        older_than: impl IntoDuration,
        limit: usize,
    ) -> Result<Bulk<Vec<JobId>>> {
        let span = check_span("the age", older_than.into_duration()?)?;
        if !status.is_terminal() {
            let message = format!("only jobs that have ended can be cleaned, not those that are {status}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let Some(store) = self.client.backend().jobs() else { return Ok(Bulk::default()) };
        let now = self.client.now();
        let old = |record: &JobRecord| record.finished_at.is_none_or(|finished| now.since(finished) >= span);
        let filter = RecordFilter::new().status(status);
        let (mut bulk, mut page) = (Bulk::<Vec<JobId>>::default(), Page::oldest(AT_ONCE));
        while bulk.done.len() < limit {
            let records = store.list(&filter, page).await?;
            let read = records.len();
            let Some(last) = records.last() else { break };
            page = page.after(last.revision);
            let mut due: Vec<Stored> = records.into_iter().filter(|stored| old(&stored.record)).collect();
            // The order of the writes is that of the ends, but for the clocks of several workers.
            let none_due = due.is_empty();
            due.truncate(limit - bulk.done.len());
            self.forget(due, &mut bulk).await?;
            if none_due || read < AT_ONCE {
                break;
            }
        }
        Ok(bulk)
    }

    /// Removes the records of jobs that have ended, and of those whose message is still there (their worker died
    /// before it acked) the message first: without the record they would run again. Jobs that have been kicked
    /// again stay.
    async fn forget(&self, records: Vec<Stored>, bulk: &mut Bulk<Vec<JobId>>) -> Result<()> {
        let broker = self.client.backend().broker();
        let mut queues: Vec<String> = records.iter().map(|stored| stored.record.queue.to_string()).collect();
        queues.sort_unstable();
        queues.dedup();
        let depths = broker.depths(&queues).await?;
        let empty =
            depths.iter().all(|depth| depth.ready + depth.held + depth.scheduled + depth.retrying == 0);
        let records = match empty {
            true => records,
            false => self.without_messages(records, bulk).await?,
        };
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
        let found: Vec<_> = found.buffered(LOOKS).collect().await;
        let (mut ended, mut stale, mut with_stale) = (Vec::new(), Vec::new(), Vec::new());
        for (stored, queued) in found {
            match queued {
                Ok(None) => ended.push(stored),
                Ok(Some(queued)) if comes_before(&queued, stored.revision) => {
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

/// Whether a message is of the run that a record tells the end of.
pub(super) fn comes_before(queued: &Queued, revision: u64) -> bool {
    let base = Message::open(&queued.body).ok().and_then(|message| message.supersedes);
    base.unwrap_or(0) < revision
}
