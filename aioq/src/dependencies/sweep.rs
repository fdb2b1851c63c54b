//! Repair of what no message reminds of: a kick that died half way, a parent whose end nobody
//! settled, because it was purged or ended by a worker that does not know of dependencies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Dependencies;
use super::edge::{self, EdgeState, StoredEdge};
use crate::error::{ErrorKind, JobError, Reason, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, JobRecord, JobStore, Page, RecordFilter, Status, Stored, put_fitting};
use crate::time::Timestamp;
use crate::unique::{self, Tenant};

/// Number of records to read at a time.
const PAGE: usize = 500;

/// Age of a job up to which its kick may still be at work.
const YOUNG: Duration = Duration::from_secs(60);

impl Dependencies<'_> {
    /// Looks at all jobs that wait for others: their parents, their expiry, their edges.
    pub(crate) async fn sweep(self) -> Result<()> {
        for status in [Status::Blocked, Status::Pending] {
            let mut records = Records::new(status);
            while let Some(found) = records.next_page(self.jobs()?).await? {
                for stored in found {
                    let id = stored.record.id.clone();
                    pass_over(&id, self.repair(stored).await)?;
                }
            }
        }
        Ok(())
    }

    /// Fails awaited jobs that neither the broker nor one of the workers `alive` has. Their
    /// messages were acked before they ran, and their workers died.
    pub(crate) async fn sweep_running(self, alive: &HashSet<String>) -> Result<()> {
        let mut records = Records::new(Status::Running);
        while let Some(found) = records.next_page(self.jobs()?).await? {
            for Stored { record, revision } in found {
                let has_worker = record.worker_id.as_deref().is_some_and(|worker| alive.contains(worker));
                if record.awaited && !has_worker {
                    let id = record.id.clone();
                    pass_over(&id, self.fail_orphan(record, revision).await)?;
                }
            }
        }
        Ok(())
    }

    async fn fail_orphan(self, mut record: JobRecord, revision: u64) -> Result<()> {
        if self.backend.broker.find(&record.id).await?.is_some() {
            return Ok(());
        }
        let why = "its worker died while it ran, and its message was acked before";
        record.status = Status::Failed;
        record.reason = Some(Reason::Error);
        record.error = Some(Box::new(JobError::new("WorkerLost", why)));
        record.dead_lettered = true;
        self.end(record, revision).await
    }

    /// Repairs one job, if it waits for others.
    async fn repair(self, Stored { record, revision }: Stored) -> Result<()> {
        let now = self.backend.now();
        let age = |kicked_at: Timestamp| (kicked_at <= now).then(|| now.since(kicked_at));
        let is_young = record.kicked_at.and_then(age).is_some_and(|age| age < YOUNG);
        let waits = record.status == Status::Blocked || record.is_released();
        if record.awaited && !waits && !is_young && record.needs_message() {
            // A note on a job that was dropped before the note came.
            if self.backend.broker.find(&record.id).await?.is_none() {
                self.drop_note(&record, revision).await?;
            }
            return Ok(());
        }
        let Some(message) = record.message.as_ref().filter(|_| waits && !is_young) else { return Ok(()) };
        let Ok(message) = Message::open(message) else { return Ok(()) };
        if record.is_released() {
            if self.backend.broker.find(&record.id).await?.is_none() {
                self.kick_again(message, &record, revision).await?;
            }
        } else if message.has_expired_unstarted(now) {
            self.expire(record, revision).await?;
        } else {
            self.tie(&record, false).await?;
        }
        Ok(())
    }

    /// Takes an awaited job as dropped, unless its record has changed since.
    async fn drop_note(self, record: &JobRecord, revision: u64) -> Result<()> {
        let newest = self.jobs()?.get(&record.id).await?;
        if newest.is_some_and(|newest| newest.revision == revision) {
            self.dropped(&record.id).await?;
        }
        Ok(())
    }

    /// Kicks a job that was released, unless its record has changed since.
    async fn kick_again(self, message: Message, record: &JobRecord, revision: u64) -> Result<()> {
        let newest = self.jobs()?.get(&record.id).await?;
        if newest.is_none_or(|newest| newest.revision != revision) {
            return Ok(());
        }
        tracing::warn!(id = %record.id, "its parents are done and its message was missing, kicked again");
        self.kick(message, revision).await?;
        self.remove_edges(record).await
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
