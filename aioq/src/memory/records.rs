//! [`JobStore`] in memory.

mod capacity;
mod partition;

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use futures_util::stream::{BoxStream, StreamExt};

use self::capacity::Capacity;
use self::partition::{Partition, Put, RecordEntry};
use super::Guarded;
use super::index::{OrderedSlots, PageBuilder, Slot};
use super::watch::{self, Watchable, Watchers};
use crate::broker::{Expect, Page};
use crate::error::Result;
use crate::message::JobId;
use crate::store::{JobRecord, JobStore, RecordCount, RecordFilter, Status, Stored, Watched};
use crate::time::Timestamp;

/// Records that a watcher of all jobs may fall behind before it loses the oldest.
const BACKLOG: usize = 4096;
/// Records that a watcher of one job may fall behind. It wants the latest.
const BACKLOG_OF_JOB: usize = 4;

/// Number of partitions: threads seldom contend on the lock of one.
const PARTITIONS: usize = 16;

/// Number of records to remove at a time. They are found under the locks of all partitions.
const TRIMMED_AT_ONCE: usize = 4096;

/// The records of all jobs, partitioned by job id.
#[derive(Clone)]
pub(super) struct MemoryRecords(Arc<Partitions>);

struct Partitions {
    partitions: [Arc<Guarded<Partition>>; PARTITIONS],
    hasher: RandomState,
    capacity: Arc<Capacity>,
    /// Watchers of all jobs. `watched` is true while there are any.
    watchers: Arc<Guarded<AllJobs>>,
    watched: AtomicBool,
}

/// The watchers of all jobs.
#[derive(Default)]
struct AllJobs(Watchers<(), Arc<JobRecord>>);

impl Watchable for AllJobs {
    type Topic = ();
    type Change = Arc<JobRecord>;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change> {
        &mut self.0
    }
}

impl MemoryRecords {
    pub(super) fn new(max_ended: usize) -> Self {
        let capacity = Arc::new(Capacity::new(max_ended));
        Self(Arc::new(Partitions {
            partitions: std::array::from_fn(|index| {
                Guarded::new(Partition::new(index, Arc::clone(&capacity)))
            }),
            hasher: RandomState::default(),
            capacity,
            watchers: Guarded::new(AllJobs::default()),
            watched: AtomicBool::new(false),
        }))
    }

    pub(super) fn keep_at_most(&self, ended: usize) {
        self.0.capacity.set(ended);
    }
}

impl Partitions {
    /// The partition of an id, and the hash of the id.
    fn partition(&self, id: &JobId) -> (&Arc<Guarded<Partition>>, u64) {
        let hash = self.hasher.hash_one(id);
        // The hash tables of a partition use the lowest and the highest bits.
        (&self.partitions[(hash >> 32) as usize % PARTITIONS], hash)
    }

    fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let (partition, hash) = self.partition(&record.id);
        let ended = record.status.is_terminal();
        let published = self.watched.load(Ordering::Acquire).then(|| Arc::clone(&record));
        let written = partition.with(|records| {
            let written = records.put(Put { record, hash, expect, ttl })?;
            // Under the lock, so that the changes of one job are published in order.
            published.iter().for_each(|record| self.publish(record));
            Ok(written)
        })??;
        if let Some(max) = self.capacity.exact().filter(|_| ended) {
            self.evict(max);
        }
        // Dropped after the lock is released, so that other threads do not wait for the
        // deallocation.
        drop(written.removed);
        Ok(written.revision)
    }

    fn publish(&self, record: &Arc<JobRecord>) {
        let guard = self.watchers.lock();
        guard.content.0.send(&(), record);
        if guard.content.0.is_empty() {
            self.watched.store(false, Ordering::Release);
        }
    }

    /// Removes the jobs that ended first until at most `max` are left.
    fn evict(&self, max: usize) {
        let ended: usize = self.partitions.iter().map(|partition| partition.lock().content.ended()).sum();
        for _ in max..ended {
            // Dropped outside of the lock.
            drop(self.pop_ended());
        }
    }

    /// Removes the record of the job that ended first.
    fn pop_ended(&self) -> Option<RecordEntry> {
        let firsts = self
            .partitions
            .iter()
            .filter_map(|partition| Some((partition.lock().content.first_ended()?, partition)));
        let (_, partition) = firsts.min_by_key(|(revision, _)| *revision)?;
        partition.lock().content.pop_ended()
    }

    /// Lists under the locks of all partitions. Only the records on the page are cloned.
    fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<(u64, Arc<JobRecord>)>> {
        // Expired records are dropped after the locks are released.
        let (mut gone, mut page) = (Vec::new(), PageBuilder::new(page));
        let mut guards: Vec<_> = self.partitions.iter().map(|partition| partition.lock()).collect();
        for (partition, guard) in guards.iter_mut().enumerate() {
            let records = guard.started()?;
            gone.extend(records.sweep());
            records.add_to_page(filter, |slot| (partition, slot), &mut page);
        }
        let record = |(revision, (partition, slot)): (u64, (usize, Slot))| {
            guards[partition].content.record(slot).map(|record| (revision, record))
        };
        let shown = page.finish().filter_map(record).collect();
        drop(guards);
        Ok(shown)
    }

    fn remove(&self, id: &JobId, revision: u64) -> Result<bool> {
        let (partition, hash) = self.partition(id);
        let gone = partition.with(|records| records.remove(id, hash, revision))?;
        Ok(gone.is_some())
    }

    fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64> {
        let filter = RecordFilter::new().status(status);
        let mut count = 0;
        for partition in &self.partitions {
            count += Self::sweep(partition, |records| {
                records.rows(&filter).map(OrderedSlots::len).sum::<usize>()
            })?;
        }
        let mut surplus = count.saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
        let mut gone = 0;
        while surplus > 0 {
            let limit = surplus.min(TRIMMED_AT_ONCE);
            let mut oldest = self.list(&filter, Page::oldest(limit))?;
            if let Some(before) = before {
                let ended_later = |record: &JobRecord| record.finished_at.is_some_and(|end| end >= before);
                let old = oldest.iter().position(|(_, record)| ended_later(record));
                oldest.truncate(old.unwrap_or(oldest.len()));
            }
            for (revision, record) in &oldest {
                gone += u64::from(self.remove(&record.id, *revision)?);
            }
            if oldest.len() < limit {
                break;
            }
            surplus -= limit;
        }
        Ok(gone)
    }

    fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        let mut counts = vec![BTreeMap::new(); queues.len()];
        for partition in &self.partitions {
            Self::sweep(partition, |records| {
                for (queue, counts) in queues.iter().zip(&mut counts) {
                    for (status, count) in records.counts(queue) {
                        *counts.entry(status).or_insert(0) += count as u64;
                    }
                }
            })?;
        }
        let counts = queues.iter().zip(counts).flat_map(|(queue, counts)| {
            let count = |(status, count)| RecordCount { queue: queue.clone(), status, count };
            counts.into_iter().filter(|(status, count)| *status != Status::Unknown && *count > 0).map(count)
        });
        Ok(counts.collect())
    }

    /// Removes the expired records of a partition, then reads it.
    fn sweep<R>(partition: &Guarded<Partition>, read: impl FnOnce(&mut Partition) -> R) -> Result<R> {
        // Expired records are dropped after the lock is released.
        let (seen, _gone) = partition.with(|records| {
            let gone = records.sweep();
            (read(records), gone)
        })?;
        Ok(seen)
    }
}

#[async_trait]
impl JobStore for MemoryRecords {
    async fn startup(&self) -> Result<()> {
        self.0.partitions.iter().for_each(|partition| partition.startup());
        self.0.watchers.startup();
        Ok(())
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.partitions.iter().for_each(|partition| watch::shutdown(partition));
        watch::shutdown(&self.0.watchers);
        Ok(())
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        let (partition, hash) = self.0.partition(id);
        let found = partition.with(|records| records.get(id, hash))?;
        // Cloned outside of the lock.
        Ok(found.map(|(record, revision)| Stored::new(Arc::unwrap_or_clone(record), revision)))
    }

    async fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        self.0.put(record, expect, ttl)
    }

    async fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<Stored>> {
        let found = self.0.list(filter, page)?;
        // Cloned outside of the locks.
        let stored = |(revision, record)| Stored::new(Arc::unwrap_or_clone(record), revision);
        Ok(found.into_iter().map(stored).collect())
    }

    async fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        self.0.counts(queues)
    }

    async fn remove(&self, wanted: &[Stored]) -> Vec<Result<bool>> {
        wanted.iter().map(|wanted| self.0.remove(&wanted.record.id, wanted.revision)).collect()
    }

    async fn trim(&self, status: Status, keep: u64, before: Option<Timestamp>) -> Result<u64> {
        self.0.trim(status, keep, before)
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        let changes = match watched {
            Watched::Job { id, .. } => {
                let (partition, _) = self.0.partition(&id);
                let receiver =
                    partition.with(|records| records.watchers.subscribe(id.clone(), BACKLOG_OF_JOB))?;
                watch::stream(Arc::clone(partition), id, receiver)
            }
            Watched::All => {
                let watchers = &self.0.watchers;
                let receiver = watchers.with(|all| {
                    self.0.watched.store(true, Ordering::Release);
                    all.0.subscribe((), BACKLOG)
                })?;
                watch::stream(Arc::clone(watchers), (), receiver)
            }
        };
        Ok(changes.map(Arc::unwrap_or_clone).boxed())
    }
}
