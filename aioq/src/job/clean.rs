//! Removing what is remembered of jobs.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use super::Jobs;
use super::forget::forget;
use super::look::Seen;
use crate::broker::{Page, Queued};
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, JobRecord, RecordFilter, Status, Stored, put_fitting};
use crate::time::IntoDuration;

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
            true => Ok(!self.forget(vec![stored]).await?.is_empty()),
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
    /// is none; what the backend reports.
    pub async fn clean(
        &self,
        status: Status,
        older_than: impl IntoDuration,
        limit: usize,
    ) -> Result<Vec<JobId>> {
        let span = older_than.into_duration()?;
        if !status.is_terminal() {
            let message = format!("only jobs that have ended can be cleaned, not those that are {status}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let Some(store) = self.client.backend().jobs() else { return Ok(Vec::new()) };
        let now = self.client.now();
        let old = |record: &JobRecord| record.finished_at.is_none_or(|finished| now.since(finished) >= span);
        let filter = RecordFilter::new().status(status);
        let (mut gone, mut page) = (Vec::new(), Page::oldest(AT_ONCE));
        while gone.len() < limit {
            let records = store.list(&filter, page).await?;
            let read = records.len();
            let Some(last) = records.last() else { break };
            page = page.after(last.revision);
            let mut due: Vec<Stored> = records.into_iter().filter(|stored| old(&stored.record)).collect();
            // The order of the writes is that of the ends, but for the clocks of several workers.
            let none_due = due.is_empty();
            due.truncate(limit - gone.len());
            match self.forget(due).await {
                Ok(ids) => gone.extend(ids),
                Err(error) if gone.is_empty() => return Err(error),
                // What went is told.
                Err(error) => {
                    tracing::warn!(%error, "not all jobs could be cleaned");
                    break;
                }
            }
            if none_due || read < AT_ONCE {
                break;
            }
        }
        Ok(gone)
    }

    /// Removes the records of jobs that have ended, and of those whose message is still there (their worker died
    /// before it acked) the message first: without the record they would run again. Jobs that have been kicked
    /// again stay. The ids of those that went.
    async fn forget(&self, records: Vec<Stored>) -> Result<Vec<JobId>> {
        let broker = self.client.backend().broker();
        let mut queues: Vec<String> = records.iter().map(|stored| stored.record.queue.to_string()).collect();
        queues.sort_unstable();
        queues.dedup();
        let depths = broker.depths(&queues).await?;
        let empty =
            depths.iter().all(|depth| depth.ready + depth.held + depth.scheduled + depth.retrying == 0);
        let records = match empty {
            true => records,
            false => self.without_messages(records).await?,
        };
        let removed = forget(self.store()?, &records, self.client.now()).await;
        let mut gone = Vec::with_capacity(records.len());
        for (stored, removed) in records.into_iter().zip(removed) {
            if removed? {
                gone.push(stored.record.id);
            }
        }
        Ok(gone)
    }

    async fn without_messages(&self, records: Vec<Stored>) -> Result<Vec<Stored>> {
        let broker = self.client.backend().broker();
        let found = iter(records).map(|stored| async move {
            let queued = broker.find(&stored.record.id).await?;
            Ok::<_, Error>((stored, queued))
        });
        let found: Vec<_> = found.buffered(LOOKS).collect().await;
        let (mut ended, mut stale) = (Vec::new(), Vec::new());
        for found in found {
            let (stored, queued) = found?;
            if queued.as_ref().is_none_or(|queued| comes_before(queued, stored.revision)) {
                stale.extend(queued);
                ended.push(stored);
            }
        }
        for removed in broker.remove(&stale).await {
            removed?;
        }
        Ok(ended)
    }
}

/// Whether a message is of the run that a record tells the end of.
pub(super) fn comes_before(queued: &Queued, revision: u64) -> bool {
    let base = Message::open(&queued.body).ok().and_then(|message| message.supersedes);
    base.unwrap_or(0) < revision
}
