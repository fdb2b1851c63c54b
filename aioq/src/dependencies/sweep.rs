//! Repair of what no message reminds of: a kick that died half way, a parent whose end nobody
//! settled, because it was purged or ended by a worker that does not know of dependencies.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Dependencies;
use super::edge::{self, EdgeState, StoredEdge};
use crate::error::{ErrorKind, JobError, Reason, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, JobRecord, JobStore, Page, RecordFilter, Status, Stored, put_fitting};
use crate::unique::{self, Tenant};

/// Number of records to read at a time.
const PAGE: usize = 500;

/// Age of a job up to which its kick may still be at work.
const YOUNG: Duration = Duration::from_secs(60);

impl Dependencies<'_> {
    /// Looks at all jobs that wait for others: their parents, their expiry, their edges.
    pub(crate) async fn sweep(self) -> Result<()> {
        // A parent that was dropped ends the wait of all its children at once; each child by itself
        // would wait for its message to appear.
        for status in [Status::Pending, Status::Blocked] {
            let mut records = Records::new(status);
            while let Some(found) = records.next_page(self.jobs()?).await? {
                for stored in found {
                    let id = stored.record.id.clone();
                    let repaired = match status {
                        Status::Blocked => self.repair_blocked(stored).await,
                        _ => self.repair_pending(stored).await,
                    };
                    pass_over(&id, repaired)?;
                }
            }
        }
        Ok(())
    }

    /// The awaited jobs that run, but for those that the broker has messages of. Their messages
    /// were acked before they ran.
    pub(crate) async fn running_without_message(self) -> Result<Vec<Stored>> {
        let mut running = Vec::new();
        let mut records = Records::new(Status::Running);
        while let Some(found) = records.next_page(self.jobs()?).await? {
            for stored in found.into_iter().filter(|stored| stored.record.awaited) {
                if self.backend.broker.find(&stored.record.id).await?.is_none() {
                    running.push(stored);
                }
            }
        }
        Ok(running)
    }

    /// Fails a running job whose worker died and whose message was acked before it ran.
    pub(crate) async fn fail_orphan(self, Stored { mut record, revision }: Stored) -> Result<()> {
        let why = "its worker died while it ran, and its message was acked before";
        record.status = Status::Failed;
        record.reason = Some(Reason::Error);
        record.error = Some(Box::new(JobError::new("WorkerLost", why)));
        record.dead_lettered = true;
        let id = record.id.clone();
        pass_over(&id, self.end(record, revision).await)
    }

    /// Kicks a released job whose message is missing, and ends the wait for a parent that was
    /// dropped before the note came that it is awaited.
    async fn repair_pending(self, Stored { record, revision }: Stored) -> Result<()> {
        let is_released = record.is_released();
        let is_noted = record.awaited && record.needs_message();
        if !is_released && !is_noted {
            return Ok(());
        }
        if self.is_young(&record) || self.backend.broker.find(&record.id).await?.is_some() {
            return Ok(());
        }
        let newest = self.jobs()?.get(&record.id).await?;
        if newest.is_none_or(|newest| newest.revision != revision) {
            return Ok(());
        }
        if !is_released {
            return self.dropped(&record.id).await;
        }
        let Some(Ok(message)) = record.message.as_ref().map(Message::open) else { return Ok(()) };
        tracing::warn!(id = %record.id, "its parents are done and its message was missing, kicked again");
        self.kick(message, revision).await?;
        self.remove_edges(&record).await
    }

    /// Ties a blocked job to its parents again, or ends it if it has expired.
    async fn repair_blocked(self, Stored { record, revision }: Stored) -> Result<()> {
        if self.is_young(&record) {
            return Ok(());
        }
        let message = record.message.as_ref().and_then(|message| Message::open(message).ok());
        if message.is_some_and(|message| message.has_expired_unstarted(self.backend.now())) {
            return self.expire(record, revision).await;
        }
        self.tie(&record, false).await
    }

    /// True if the kick of a job may still be at work.
    fn is_young(self, record: &JobRecord) -> bool {
        let now = self.backend.now();
        record.kicked_at.is_some_and(|kicked_at| kicked_at <= now && now.since(kicked_at) < YOUNG)
    }

    /// Records that a job expired while it waited for its parents.
    async fn expire(self, mut record: JobRecord, revision: u64) -> Result<()> {
        record.status = Status::Expired;
        record.reason = Some(Reason::Expired);
        record.dead_lettered = true;
        self.end(record, revision).await
    }

    /// Writes the last record of a job that no worker has, unless it has changed, and settles the
    /// edges of the jobs that wait for it.
    async fn end(self, mut record: JobRecord, revision: u64) -> Result<()> {
        record.finished_at = Some(self.backend.now());
        let ttl = self.retention.span(record.status);
        let record = Arc::new(record);
        let put = put_fitting(self.jobs()?, Arc::clone(&record), Expect::Revision(revision), Some(ttl));
        match put.await {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
            written => written?,
        };
        if let Some(tenant) = Tenant::of(&record) {
            unique::free(&*self.backend.kv, tenant, record.status, self.backend.now()).await;
        }
        if record.awaited { self.ended(&record).await } else { Ok(()) }
    }

    /// Looks at all edges: removes those of jobs that wait no longer, and revives jobs that failed
    /// for a parent that has completed since.
    pub(crate) async fn sweep_edges(self) -> Result<()> {
        let mut by_child: HashMap<JobId, Vec<StoredEdge>> = HashMap::new();
        for found in edge::all(&*self.backend.kv).await? {
            by_child.entry(found.edge.child.clone()).or_default().push(found);
        }
        for (child, edges) in by_child {
            pass_over(&child, self.repair_edges(&child, edges).await)?;
        }
        Ok(())
    }

    /// Looks at the edges of one job.
    async fn repair_edges(self, child: &JobId, edges: Vec<StoredEdge>) -> Result<()> {
        match self.jobs()?.get(child).await?.map(|stored| stored.record) {
            Some(record) if record.failed_for_parent() => {
                if edges.iter().all(|found| found.edge.state != EdgeState::Bad) {
                    self.tie(&record, false).await?;
                }
            }
            // A rerun of a job that ended while it waited needs them.
            Some(record) if record.is_held_by_parents() || record.was_held_by_parents() => {}
            Some(record) if record.is_released() => {}
            _ => {
                for found in edges {
                    edge::remove(&*self.backend.kv, &found.edge.parent, child).await?;
                }
            }
        }
        Ok(())
    }
}

/// All records with a status, page by page, the oldest first.
struct Records {
    filter: RecordFilter,
    /// `None` after the last page.
    page: Option<Page>,
}

impl Records {
    fn new(status: Status) -> Self {
        Self { filter: RecordFilter::new().status(status), page: Some(Page::oldest(PAGE)) }
    }

    async fn next_page(&mut self, jobs: &dyn JobStore) -> Result<Option<Vec<Stored>>> {
        let Some(page) = self.page else { return Ok(None) };
        let found = jobs.list(&self.filter, page).await?;
        let last = found.last().filter(|_| found.len() == PAGE);
        self.page = last.map(|last| page.after(last.revision));
        Ok(Some(found))
    }
}

/// Logs the error of one job, so that the sweep goes on with the next one. An outage ends it.
fn pass_over(id: &JobId, looked: Result<()>) -> Result<()> {
    match looked {
        Err(error) if !error.is_outage() => {
            tracing::warn!(%id, %error, "a job that waits for others could not be looked at; the next sweep tries again");
            Ok(())
        }
        looked => looked,
    }
}
