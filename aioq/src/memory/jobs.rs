//! [`JobStore`] in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use tokio::time::Instant;

use super::Guarded;
use super::table::{Slot, Table};
use super::watch::{self, Watchable, Watchers};
use crate::broker::Expect;
use crate::error::Result;
use crate::message::JobId;
use crate::store::{JobRecord, JobStore, Stored, Watched};

/// Records whose time has passed that one write takes out: more than it adds, so that they get fewer.
const SWEPT_PER_WRITE: usize = 8;
/// How many records a watcher of all jobs may fall behind before it loses the oldest.
const BACKLOG: usize = 4096;
/// The same for the watcher of one job, who wants the latest.
const BACKLOG_OF_JOB: usize = 16;

#[derive(Clone)]
pub(super) struct MemoryJobs(Arc<Guarded<Records>>);

impl MemoryJobs {
    pub(super) fn new(max_ended: usize) -> Self {
        Self(Guarded::new(Records::new(max_ended)))
    }

    pub(super) fn keep_at_most(&self, ended: usize) {
        self.0.lock().content.max_ended = ended;
    }
}

#[async_trait]
impl JobStore for MemoryJobs {
    async fn startup(&self) -> Result<()> {
        self.0.startup();
        Ok(())
    }

    async fn shutdown(&self) -> Result<()> {
        watch::shutdown(&self.0);
        Ok(())
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        let found = self.0.with(|records| records.get(id))?;
        // Cloned outside of the lock.
        Ok(found.map(|(record, revision)| Stored::new(Arc::unwrap_or_clone(record), revision)))
    }

    async fn put(&self, record: JobRecord, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let record = Arc::new(record);
        self.0.with(|records| records.put(record, expect, ttl))?
    }

    async fn remove(&self, id: &JobId) -> Result<bool> {
        self.0.with(|records| records.remove(id))
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        let (topic, backlog) = match watched {
            Watched::Job { id, .. } => (Some(id), BACKLOG_OF_JOB),
            Watched::All => (None, BACKLOG),
        };
        let receiver = self.0.with(|records| records.watchers.subscribe(topic.clone(), backlog))?;
        Ok(watch::stream(self.0.clone(), topic, receiver).map(Arc::unwrap_or_clone).boxed())
    }
}

/// The records of all jobs.
struct Records {
    table: Table<JobId, Arc<JobRecord>>,
    /// The jobs by the revision of their record, which is the order of their latest changes. Two maps, because
    /// only the records of ended jobs make room for others.
    open: BTreeMap<u64, JobId>,
    ended: BTreeMap<u64, JobId>,
    max_ended: usize,
    /// By job; those of all jobs under `None`.
    watchers: Watchers<Option<JobId>, Arc<JobRecord>>,
}

impl Records {
    fn new(max_ended: usize) -> Self {
        Self {
            table: Table::new(),
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            max_ended,
            watchers: Watchers::new(),
        }
    }

    fn get(&self, id: &JobId) -> Option<(Arc<JobRecord>, u64)> {
        let slot = self.table.get(id, Instant::now())?;
        Some((slot.value.clone(), slot.revision))
    }

    fn put(&mut self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let now = Instant::now();
        self.table.check(&record.id, expect, now)?;
        let (revision, old) = self.table.put(record.id.clone(), record.clone(), ttl, now);
        if let Some(old) = old {
            self.unlist(&old);
        }
        self.listed(&record).insert(revision, record.id.clone());
        self.tell(&record);
        self.make_room(now);
        Ok(revision)
    }

    fn remove(&mut self, id: &JobId) -> bool {
        let live = self.table.get(id, Instant::now()).is_some();
        if let Some(slot) = self.table.remove(id) {
            self.unlist(&slot);
        }
        live
    }

    fn listed(&mut self, record: &JobRecord) -> &mut BTreeMap<u64, JobId> {
        match record.status.is_terminal() {
            true => &mut self.ended,
            false => &mut self.open,
        }
    }

    fn unlist(&mut self, slot: &Slot<Arc<JobRecord>>) {
        self.listed(&slot.value).remove(&slot.revision);
    }

    fn tell(&self, record: &Arc<JobRecord>) {
        if !self.watchers.is_empty() {
            self.watchers.send(&None, record);
            self.watchers.send(&Some(record.id.clone()), record);
        }
    }

    fn make_room(&mut self, now: Instant) {
        for _ in 0..SWEPT_PER_WRITE {
            match self.table.pop_expired(now) {
                Some((_, slot)) => self.unlist(&slot),
                None => break,
            }
        }
        while self.ended.len() > self.max_ended
            && let Some((_, id)) = self.ended.pop_first()
        {
            self.table.remove(&id);
        }
    }
}

impl Watchable for Records {
    type Topic = Option<JobId>;
    type Change = Arc<JobRecord>;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change> {
        &mut self.watchers
    }
}
