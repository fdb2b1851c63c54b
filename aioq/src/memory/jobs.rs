//! [`JobStore`] in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use futures_util::stream::{BoxStream, StreamExt};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Guarded;
use super::page::{cut, positions, take};
use super::table::{Slot, Table};
use super::watch::{self, Watchable, Watchers};
use crate::broker::{Expect, Page};
use crate::error::Result;
use crate::message::{JobId, Name};
use crate::store::{JobRecord, JobStore, RecordCount, RecordFilter, Status, Stored, Watched};

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

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        // What it replaced or made room for is dropped outside of the lock.
        self.0.with(|records| records.put(record, expect, ttl))?.map(|(revision, _)| revision)
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        let found = self.0.with(|records| records.list(filter, page))?;
        // Cloned outside of the lock.
        let stored = |(revision, record)| Stored::new(Arc::unwrap_or_clone(record), revision);
        Ok(found.into_iter().map(stored).collect())
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        self.0.with(|records| records.counts(queues))
    }

    async fn remove(&self, wanted: &[Stored]) -> Vec<Result<bool>> {
        let remove =
            |wanted: &Stored| self.0.with(|records| records.remove(&wanted.record.id, wanted.revision));
        wanted.iter().map(|wanted| remove(wanted).map(|gone| gone.is_some())).collect()
    }

    async fn trim(&self, status: Status, keep: u64) -> Result<u64> {
        self.0.with(|records| records.trim(status, keep))
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
    /// The jobs of each queue, by status.
    lists: HashMap<Name, Lists, RandomState>,
    /// The jobs that have ended in the order in which they did, with the revision of their last record. Those
    /// whose record has gone or changed stay until they are in the way.
    ended: VecDeque<(u64, JobId)>,
    ended_now: usize,
    max_ended: usize,
    /// By job; those of all jobs under `None`.
    watchers: Watchers<Option<JobId>, Arc<JobRecord>>,
}

/// Records that have gone, to be dropped.
type Gone = SmallVec<[Slot<Arc<JobRecord>>; 2]>;

/// By status, the jobs by the revision of their record, which is the order of their latest changes.
type Lists = [BTreeMap<u64, JobId>; Status::ALL.len() + 1];

/// The most entries of ended jobs whose record has gone, for each one whose record has not.
const STALE_PER_ENDED: usize = 2;

impl Records {
    fn new(max_ended: usize) -> Self {
        Self {
            table: Table::new(),
            lists: HashMap::default(),
            ended: VecDeque::new(),
            ended_now: 0,
            max_ended,
            watchers: Watchers::default(),
        }
    }

    fn get(&self, id: &JobId) -> Option<(Arc<JobRecord>, u64)> {
        let slot = self.table.get(id, Instant::now())?;
        Some((slot.value.clone(), slot.revision))
    }

    fn put(&mut self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<(u64, Gone)> {
        let now = Instant::now();
        self.table.check(&record.id, expect, now)?;
        let (revision, old) = self.table.put(record.id.clone(), record.clone(), ttl, now);
        let mut gone = Gone::from_iter(old);
        gone.iter().for_each(|old| self.unlist(old));
        self.enlist(&record, revision);
        self.tell(&record);
        self.make_room(now, &mut gone);
        Ok((revision, gone))
    }

    fn remove(&mut self, id: &JobId, revision: u64) -> Option<Slot<Arc<JobRecord>>> {
        let now = Instant::now();
        self.table.get(id, now).filter(|slot| slot.revision == revision)?;
        let slot = self.table.remove(id)?;
        self.unlist(&slot);
        Some(slot)
    }

    fn list(&self, filter: &RecordFilter, page: Page) -> Vec<(u64, Arc<JobRecord>)> {
        let now = Instant::now();
        let mut rows = Vec::new();
        for list in self.lists_of(filter) {
            let live = list.range(positions(page)).filter_map(|(revision, id)| {
                let slot = self.table.get(id, now)?;
                Some((*revision, &slot.value))
            });
            take(page, live, &mut rows);
        }
        cut(page, &mut rows);
        rows.into_iter().map(|(revision, record)| (revision, Arc::clone(record))).collect()
    }

    fn lists_of(&self, filter: &RecordFilter) -> impl Iterator<Item = &BTreeMap<u64, JobId>> {
        let queue = filter.queue.as_deref();
        let queues = self.lists.iter().filter(move |(name, _)| queue.is_none_or(|queue| **name == *queue));
        let status = filter.status;
        queues.flat_map(move |(_, lists)| match status {
            Some(status) => std::slice::from_ref(&lists[status as usize]),
            None => &lists[..],
        })
    }

    fn counts(&mut self, queues: &[String]) -> Vec<RecordCount> {
        // What has expired is not there.
        while self.pop_expired(Instant::now()).is_some() {}
        let mut counts = Vec::new();
        for queue in queues {
            let Some(lists) = self.lists.get(&**queue) else { continue };
            for status in Status::ALL {
                let count = lists[status as usize].len() as u64;
                if count > 0 {
                    counts.push(RecordCount { queue: queue.clone(), status, count });
                }
            }
        }
        counts
    }

    fn trim(&mut self, status: Status, keep: u64) -> u64 {
        while self.pop_expired(Instant::now()).is_some() {}
        let filter = RecordFilter::new().status(status);
        let count: usize = self.lists_of(&filter).map(BTreeMap::len).sum();
        let surplus = count.saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
        if surplus == 0 {
            return 0;
        }
        for (revision, record) in self.list(&filter, Page::oldest(surplus)) {
            self.remove(&record.id, revision);
        }
        surplus as u64
    }

    fn enlist(&mut self, record: &Arc<JobRecord>, revision: u64) {
        if !self.lists.contains_key(&*record.queue) {
            self.lists.insert(record.queue.clone(), Lists::default());
        }
        if let Some(lists) = self.lists.get_mut(&*record.queue) {
            lists[record.status as usize].insert(revision, record.id.clone());
        }
        if record.status.is_terminal() {
            self.ended_now += 1;
            self.ended.push_back((revision, record.id.clone()));
        }
    }

    fn unlist(&mut self, slot: &Slot<Arc<JobRecord>>) {
        let record = &slot.value;
        if let Some(lists) = self.lists.get_mut(&*record.queue) {
            lists[record.status as usize].remove(&slot.revision);
        }
        self.ended_now -= usize::from(record.status.is_terminal());
    }

    fn tell(&self, record: &Arc<JobRecord>) {
        if !self.watchers.is_empty() {
            self.watchers.send(&None, record);
            self.watchers.send(&Some(record.id.clone()), record);
        }
    }

    fn make_room(&mut self, now: Instant, gone: &mut Gone) {
        gone.extend(std::iter::from_fn(|| self.pop_expired(now)).take(SWEPT_PER_WRITE));
        while self.ended_now > self.max_ended
            && let Some((revision, id)) = self.ended.pop_front()
        {
            gone.extend(self.remove(&id, revision));
        }
        if self.ended.len() > 1024 + (1 + STALE_PER_ENDED) * self.ended_now {
            let table = &self.table;
            self.ended
                .retain(|(revision, id)| table.get(id, now).is_some_and(|slot| slot.revision == *revision));
        }
    }

    /// Takes out a record whose time has passed, if there is one.
    fn pop_expired(&mut self, now: Instant) -> Option<Slot<Arc<JobRecord>>> {
        let (_, slot) = self.table.pop_expired(now)?;
        self.unlist(&slot);
        Some(slot)
    }
}

impl Watchable for Records {
    type Topic = Option<JobId>;
    type Change = Arc<JobRecord>;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change> {
        &mut self.watchers
    }
}
