//! A partition of the records: no locks, no waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::capacity::Capacity;
use crate::broker::Expect;
use crate::error::Result;
use crate::memory::clock;
use crate::memory::index::{OrderedSlots, PageBuilder, RankedSlots, Slot, slot};
use crate::memory::ordered_ids::OrderedIds;
use crate::memory::table::check;
use crate::memory::timers::Timers;
use crate::memory::watch::{Watchable, Watchers};
use crate::message::{JobId, Name};
use crate::store::{JobRecord, RecordFilter, Status};

/// Expired records removed per write. More than one, so that a backlog shrinks.
const SWEPT_PER_WRITE: usize = 8;

/// Stale entries of `ended` per live one, above which it is compacted.
const STALE_PER_ENDED: usize = 2;

/// The records of the job ids that fall into this partition.
pub(super) struct Partition {
    entries: Slab<RecordEntry>,
    by_id: HashTable<Slot>,
    /// The records of each queue by status, then by revision: the order of their latest changes.
    queues: Vec<RankedSlots<Status>>,
    queue_numbers: HashMap<Name, usize, RandomState>,
    /// Ends of TTLs.
    ends: Timers,
    /// Number of records with a TTL.
    ending: usize,
    /// Ended jobs in the order of their ends, with the revision of their last record. May hold
    /// stale entries of removed or changed records.
    ended: VecDeque<(u64, Slot)>,
    live_ended: usize,
    capacity: Arc<Capacity>,
    ids: OrderedIds,
    /// Watchers of single jobs.
    pub(super) watchers: Watchers<JobId, Arc<JobRecord>>,
}

/// A record with its place in the indexes.
pub(super) struct RecordEntry {
    record: Arc<JobRecord>,
    /// Hash of the job id.
    hash: u64,
    /// Index of the queue.
    queue: usize,
    revision: u64,
    ends_at: Option<Instant>,
}

/// Removed records, which the caller drops outside of the lock.
pub(super) type Removed = SmallVec<[RecordEntry; 2]>;

/// A write, as [`JobStore::put`](crate::store::JobStore::put) has it.
pub(super) struct Put {
    pub(super) record: Arc<JobRecord>,
    /// Hash of the job id.
    pub(super) hash: u64,
    pub(super) expect: Expect,
    pub(super) ttl: Option<Duration>,
}

/// Result of a write.
pub(super) struct Written {
    pub(super) revision: u64,
    pub(super) removed: Removed,
}

impl Partition {
    /// Partition number `index`.
    pub(super) fn new(index: usize, capacity: Arc<Capacity>) -> Self {
        Self {
            entries: Slab::new(),
            by_id: HashTable::new(),
            queues: Vec::new(),
            queue_numbers: HashMap::default(),
            ends: Timers::default(),
            ending: 0,
            ended: VecDeque::new(),
            live_ended: 0,
            capacity,
            ids: OrderedIds::new(index),
            watchers: Watchers::default(),
        }
    }

    pub(super) fn get(&self, id: &JobId, hash: u64) -> Option<(Arc<JobRecord>, u64)> {
        let entry = self.live(self.slot(id, hash)?, Instant::now())?;
        Some((Arc::clone(&entry.record), entry.revision))
    }

    fn slot(&self, id: &JobId, hash: u64) -> Option<Slot> {
        self.by_id.find(hash, |slot| self.entries[*slot as usize].record.id == *id).copied()
    }

    /// The entry in that slot, unless it has expired.
    fn live(&self, slot: Slot, now: Instant) -> Option<&RecordEntry> {
        self.entries.get(slot as usize).filter(|entry| entry.ends_at.is_none_or(|end| end > now))
    }

    pub(super) fn put(&mut self, put: Put) -> Result<Written> {
        let clock = std::time::Instant::now();
        let now = clock::at(clock);
        let Put { record, hash, expect, ttl } = put;
        let old = self.slot(&record.id, hash);
        let found = old.and_then(|slot| self.live(slot, now)).map(|entry| entry.revision);
        check(record.id.as_str(), expect, found)?;
        let mut removed = Removed::new();
        let revision = self.ids.next(clock);
        let queue = self.queue(&record.queue);
        let entry = RecordEntry { record, hash, queue, revision, ends_at: None };
        let slot = match old {
            Some(slot) => {
                removed.push(self.replace(slot, entry));
                slot
            }
            None => self.insert(entry),
        };
        self.add_to_indexes(slot, ttl, now);
        removed.extend(std::iter::from_fn(|| self.pop_expired(now)).take(SWEPT_PER_WRITE));
        self.evict(&mut removed);
        Ok(Written { revision, removed })
    }

    /// Removes the jobs that ended first, if this partition holds more than its share.
    fn evict(&mut self, removed: &mut Removed) {
        let Some(limit) = self.capacity.per_partition() else { return };
        while self.live_ended > limit {
            match self.pop_ended() {
                Some(entry) => removed.push(entry),
                None => break,
            }
        }
    }

    /// Index of the queue of that name.
    fn queue(&mut self, name: &Name) -> usize {
        if let Some(number) = self.queue_numbers.get(name) {
            return *number;
        }
        self.queues.push(RankedSlots::default());
        self.queue_numbers.insert(name.clone(), self.queues.len() - 1);
        self.queues.len() - 1
    }

    fn insert(&mut self, entry: RecordEntry) -> Slot {
        let hash = entry.hash;
        let slot = slot(self.entries.insert(entry));
        let entries = &self.entries;
        self.by_id.insert_unique(hash, slot, |slot| entries[*slot as usize].hash);
        slot
    }

    fn replace(&mut self, slot: Slot, entry: RecordEntry) -> RecordEntry {
        let old = std::mem::replace(&mut self.entries[slot as usize], entry);
        self.remove_from_indexes(&old);
        old
    }

    /// Adds a new entry to the indexes, and publishes it.
    fn add_to_indexes(&mut self, slot: Slot, ttl: Option<Duration>, now: Instant) {
        let entry = &mut self.entries[slot as usize];
        let (record, revision) = (&entry.record, entry.revision);
        self.queues[entry.queue].insert(record.status, revision, slot);
        if record.status.is_terminal() {
            self.live_ended += 1;
            self.ended.push_back((revision, slot));
        }
        if !self.watchers.is_empty() {
            self.watchers.send(&record.id, record);
        }
        if let Some(ttl) = ttl {
            entry.ends_at = Some(self.ends.add(now, ttl, slot));
            self.ending += 1;
        }
        self.compact();
    }

    /// Removes an entry from the indexes.
    fn remove_from_indexes(&mut self, entry: &RecordEntry) {
        let record = &entry.record;
        self.queues[entry.queue].remove(record.status, entry.revision);
        if record.status.is_terminal() {
            self.live_ended -= 1;
        }
        self.ending -= usize::from(entry.ends_at.is_some());
    }

    /// Drops the stale entries of the indexes, if they are the majority.
    fn compact(&mut self) {
        let entries = &self.entries;
        self.ends.tidy(self.ending, |slot, at| expires_at(entries, slot, at));
        if self.ended.len() > 1024 + (1 + STALE_PER_ENDED) * self.live_ended {
            self.ended.retain(|(revision, slot)| is_current(entries, *slot, *revision));
        }
    }

    /// Removes a record, if it has that revision.
    pub(super) fn remove(&mut self, id: &JobId, hash: u64, revision: u64) -> Option<RecordEntry> {
        let slot = self.slot(id, hash)?;
        self.live(slot, Instant::now()).filter(|entry| entry.revision == revision)?;
        Some(self.remove_slot(slot))
    }

    fn remove_slot(&mut self, slot: Slot) -> RecordEntry {
        let entry = self.entries.remove(slot as usize);
        if let Ok(found) = self.by_id.find_entry(entry.hash, |other| *other == slot) {
            found.remove();
        }
        self.remove_from_indexes(&entry);
        entry
    }

    /// Removes a record that has expired, if there is one.
    fn pop_expired(&mut self, now: Instant) -> Option<RecordEntry> {
        let entries = &self.entries;
        let slot = self.ends.pop(now, |slot, at| expires_at(entries, slot, at))?;
        Some(self.remove_slot(slot))
    }

    /// Removes the record of the job that ended first.
    pub(super) fn pop_ended(&mut self) -> Option<RecordEntry> {
        self.first_ended()?;
        let (_, slot) = self.ended.pop_front()?;
        Some(self.remove_slot(slot))
    }

    /// Revision of the job that ended first.
    pub(super) fn first_ended(&mut self) -> Option<u64> {
        while let Some((revision, slot)) = self.ended.front() {
            if is_current(&self.entries, *slot, *revision) {
                return Some(*revision);
            }
            self.ended.pop_front();
        }
        None
    }

    /// Adds the records of a page. The caller calls [`sweep`](Self::sweep) first.
    pub(super) fn add_to_page<T>(
        &self,
        filter: &RecordFilter,
        show: impl Fn(Slot) -> T,
        page: &mut PageBuilder<T>,
    ) {
        self.rows(filter).for_each(|row| row.add_to_page(&show, page));
    }

    /// The record in that slot.
    pub(super) fn record(&self, slot: Slot) -> Option<Arc<JobRecord>> {
        Some(Arc::clone(&self.entries.get(slot as usize)?.record))
    }

    /// The rows that a filter selects.
    pub(super) fn rows(&self, filter: &RecordFilter) -> impl Iterator<Item = &OrderedSlots> {
        let queue = filter.queue.as_deref();
        let queues = match queue {
            Some(queue) => self.rows_of(queue),
            None => &self.queues[..],
        };
        let rows = queues.iter().flat_map(RankedSlots::rows);
        rows.filter(|(status, _)| filter.status.is_none_or(|wanted| wanted == *status)).map(|(_, row)| row)
    }

    fn rows_of(&self, queue: &str) -> &[RankedSlots<Status>] {
        self.queue_numbers.get(queue).map_or(&[], |number| std::slice::from_ref(&self.queues[*number]))
    }

    /// Number of records of a queue, by status.
    pub(super) fn counts(&self, queue: &str) -> impl Iterator<Item = (Status, usize)> {
        let rows = self.rows_of(queue).iter().flat_map(RankedSlots::rows);
        rows.map(|(status, row)| (status, row.len()))
    }

    /// Number of ended jobs.
    pub(super) fn ended(&self) -> usize {
        self.live_ended
    }

    /// Removes all expired records.
    pub(super) fn sweep(&mut self) -> Vec<RecordEntry> {
        let now = Instant::now();
        std::iter::from_fn(|| self.pop_expired(now)).collect()
    }
}

/// True if the entry in that slot expires at `at`.
fn expires_at(entries: &Slab<RecordEntry>, slot: Slot, at: Instant) -> bool {
    entries.get(slot as usize).is_some_and(|entry| entry.ends_at == Some(at))
}

/// True if the entry in that slot has that revision.
fn is_current(entries: &Slab<RecordEntry>, slot: Slot, revision: u64) -> bool {
    entries.get(slot as usize).is_some_and(|entry| entry.revision == revision)
}

impl Watchable for Partition {
    type Topic = JobId;
    type Change = Arc<JobRecord>;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change> {
        &mut self.watchers
    }
}
