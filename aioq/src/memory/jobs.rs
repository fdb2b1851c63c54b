//! [`JobStore`] in memory.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use futures_util::stream::{BoxStream, StreamExt};

use super::Guarded;
use super::page::Gathering;
use super::records::{Entry, PARTS, Records, Room, Write};
use super::series::{Series, Slot};
use super::watch::{self, Watchable, Watchers};
use crate::broker::{Expect, Page};
use crate::error::Result;
use crate::message::JobId;
use crate::store::{JobRecord, JobStore, RecordCount, RecordFilter, Status, Stored, Watched};

/// How many records a watcher of all jobs may fall behind before it loses the oldest.
const BACKLOG: usize = 4096;
/// The same for the watcher of one job, who wants the latest.
const BACKLOG_OF_JOB: usize = 4;

/// The records of all jobs, divided by id.
#[derive(Clone)]
pub(super) struct MemoryJobs(Arc<Parts>);

struct Parts {
    parts: [Arc<Guarded<Records>>; PARTS],
    hasher: RandomState,
    room: Arc<Room>,
    /// Who watches all jobs, and whether anybody does.
    watchers: Arc<Guarded<OfAll>>,
    watched: AtomicBool,
}

/// The watchers of all jobs.
#[derive(Default)]
struct OfAll(Watchers<(), Arc<JobRecord>>);

impl Watchable for OfAll {
    type Topic = ();
    type Change = Arc<JobRecord>;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change> {
        &mut self.0
    }
}

impl MemoryJobs {
    pub(super) fn new(max_ended: usize) -> Self {
        let room = Room::for_ended(max_ended);
        Self(Arc::new(Parts {
            parts: std::array::from_fn(|part| Guarded::new(Records::new(part, Arc::clone(&room)))),
            hasher: RandomState::default(),
            room,
            watchers: Guarded::new(OfAll::default()),
            watched: AtomicBool::new(false),
        }))
    }

    pub(super) fn keep_at_most(&self, ended: usize) {
        self.0.room.set(ended);
    }
}

impl Parts {
    /// The part that an id falls to, and the hash of the id.
    fn part(&self, id: &JobId) -> (&Arc<Guarded<Records>>, u64) {
        let hash = self.hasher.hash_one(id);
        // The lowest bits and the highest ones place it within the part.
        (&self.parts[(hash >> 32) as usize % PARTS], hash)
    }

    fn put(&self, record: Arc<JobRecord>, expect: Expect, ttl: Option<Duration>) -> Result<u64> {
        let (part, hash) = self.part(&record.id);
        let ended = record.status.is_terminal();
        let told = self.watched.load(Ordering::Acquire).then(|| Arc::clone(&record));
        let written = part.with(|records| {
            let written = records.put(Write { record, hash, expect, ttl })?;
            // While it is locked: of one job, each change comes after the one before.
            told.iter().for_each(|record| self.tell(record));
            Ok(written)
        })??;
        if let Some(max) = self.room.few().filter(|_| ended) {
            self.make_room(max);
        }
        // Outside of the lock: what it frees, others need not wait for.
        drop(written.gone);
        Ok(written.revision)
    }

    fn tell(&self, record: &Arc<JobRecord>) {
        let guard = self.watchers.lock();
        guard.content.0.send(&(), record);
        if guard.content.0.is_empty() {
            self.watched.store(false, Ordering::Release);
        }
    }

    /// Makes room until at most so many ended jobs are left.
    fn make_room(&self, max: usize) {
        let ended: usize = self.parts.iter().map(|part| part.lock().content.ended()).sum();
        for _ in max..ended {
            // Dropped outside of the lock.
            drop(self.pop_ended());
        }
    }

    /// Takes out the record of the job that ended first.
    fn pop_ended(&self) -> Option<Entry> {
        let firsts = self.parts.iter().filter_map(|part| Some((part.lock().content.first_ended()?, part)));
        let (_, part) = firsts.min_by_key(|(revision, _)| *revision)?;
        part.lock().content.pop_ended()
    }

    /// One look at all parts: records are cloned only of those that the page shows.
    fn list(&self, filter: &RecordFilter, page: Page) -> Result<Vec<(u64, Arc<JobRecord>)>> {
        // What is swept out is dropped outside of the locks.
        let (mut gone, mut page) = (Vec::new(), Gathering::new(page));
        let mut guards: Vec<_> = self.parts.iter().map(|part| part.lock()).collect();
        for (part, guard) in guards.iter_mut().enumerate() {
            let records = guard.started()?;
            gone.extend(records.sweep());
            records.gather(filter, |slot| (part, slot), &mut page);
        }
        let record = |(revision, (part, slot)): (u64, (usize, Slot))| {
            guards[part].content.record(slot).map(|record| (revision, record))
        };
        let shown = page.finish().filter_map(record).collect();
        drop(guards);
        Ok(shown)
    }

    fn remove(&self, id: &JobId, revision: u64) -> Result<bool> {
        let (part, hash) = self.part(id);
        let gone = part.with(|records| records.remove(id, hash, revision))?;
        Ok(gone.is_some())
    }

    fn trim(&self, status: Status, keep: u64) -> Result<u64> {
        let filter = RecordFilter::new().status(status);
        let mut count = 0;
        for part in &self.parts {
            count += Self::sweep(part, |records| records.rows(&filter).map(Series::len).sum::<usize>())?;
        }
        let surplus = count.saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
        if surplus == 0 {
            return Ok(0);
        }
        let oldest = self.list(&filter, Page::oldest(surplus))?;
        let gone = oldest.into_iter().map(|(revision, record)| self.remove(&record.id, revision));
        gone.map(|gone| gone.map(u64::from)).sum()
    }

    fn counts(&self, queues: &[String]) -> Result<Vec<RecordCount>> {
        let mut counts = vec![BTreeMap::new(); queues.len()];
        for part in &self.parts {
            Self::sweep(part, |records| {
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

    /// Looks at a part when all that has expired is gone from it.
    fn sweep<R>(part: &Guarded<Records>, look: impl FnOnce(&mut Records) -> R) -> Result<R> {
        // What it sweeps out is dropped outside of the lock.
        let (seen, _gone) = part.with(|records| {
            let gone = records.sweep();
            (look(records), gone)
        })?;
        Ok(seen)
    }
}

#[async_trait]
impl JobStore for MemoryJobs {
    async fn startup(&self) -> Result<()> {
        self.0.parts.iter().for_each(|part| part.startup());
        self.0.watchers.startup();
        Ok(())
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.parts.iter().for_each(|part| watch::shutdown(part));
        watch::shutdown(&self.0.watchers);
        Ok(())
    }

    async fn get(&self, id: &JobId) -> Result<Option<Stored>> {
        let (part, hash) = self.0.part(id);
        let found = part.with(|records| records.get(id, hash))?;
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

    async fn trim(&self, status: Status, keep: u64) -> Result<u64> {
        self.0.trim(status, keep)
    }

    async fn watch(&self, watched: Watched) -> Result<BoxStream<'static, JobRecord>> {
        let changes = match watched {
            Watched::Job { id, .. } => {
                let (part, _) = self.0.part(&id);
                let receiver = part.with(|records| records.watchers.subscribe(id.clone(), BACKLOG_OF_JOB))?;
                watch::stream(Arc::clone(part), id, receiver)
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
