//! A part of the records of all jobs, without locks and without waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::clock;
use super::page::Gathering;
use super::ranked::Ranked;
use super::series::{Series, Slot, slot};
use super::stamp::Stamps;
use super::table::check;
use super::timers::Timers;
use super::watch::{Watchable, Watchers};
use crate::broker::Expect;
use crate::error::Result;
use crate::message::{JobId, Name};
use crate::store::{JobRecord, RecordFilter, Status};
use crate::threads::CachePadded;

/// Records whose time has passed that one write takes out: more than it adds, so that they get fewer.
const SWEPT_PER_WRITE: usize = 8;

/// The most entries of ended jobs whose record has gone, for each one whose record has not.
const STALE_PER_ENDED: usize = 2;

/// Into how many parts the records are divided, so that threads seldom want the same lock.
pub(super) const PARTS: usize = 16;

/// Some of the records: those of the ids that fall to this part.
pub(super) struct Records {
    entries: Slab<Entry>,
    by_id: HashTable<Slot>,
    /// The records of each queue, by status, then by revision, which is the order of their latest changes.
    queues: Vec<Ranked<Status>>,
    queue_numbers: HashMap<Name, usize, RandomState>,
    /// When records vanish.
    ends: Timers,
    /// How many of them will.
    ending: usize,
    /// The jobs that have ended in the order in which they did, with the revision of their last record. Those
    /// whose record has gone or changed stay until they are in the way.
    ended: VecDeque<(u64, Slot)>,
    ended_now: usize,
    /// How many of them the room of all parts knows of.
    ended_told: usize,
    room: Arc<Room>,
    stamps: Stamps,
    /// Of single jobs.
    pub(super) watchers: Watchers<JobId, Arc<JobRecord>>,
}

/// A record.
pub(super) struct Entry {
    record: Arc<JobRecord>,
    /// Of its id.
    hash: u64,
    /// The number of its queue.
    queue: usize,
    revision: u64,
    ends_at: Option<Instant>,
}

/// Records that have gone, to be dropped.
pub(super) type Gone = SmallVec<[Entry; 2]>;

/// How a record is to be written.
pub(super) struct Write {
    pub(super) record: Arc<JobRecord>,
    /// Of its id.
    pub(super) hash: u64,
    pub(super) expect: Expect,
    pub(super) ttl: Option<Duration>,
}

/// A write that was done.
pub(super) struct Written {
    pub(super) revision: u64,
    pub(super) gone: Gone,
}

/// How many ended jobs all parts may hold together. Few enough are looked at one by one, by whoever sees all parts.
pub(super) struct Room {
    max: AtomicUsize,
    /// What the parts have told. Each keeps a few to itself as long as there is room.
    used: CachePadded<AtomicUsize>,
}

/// The most ended jobs that are looked at one by one.
const FEW: usize = 1024;

impl Room {
    pub(super) fn for_ended(max: usize) -> Arc<Self> {
        Arc::new(Self { max: AtomicUsize::new(max), used: CachePadded::default() })
    }

    pub(super) fn set(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// How many there may be, if they are few.
    pub(super) fn few(&self) -> Option<usize> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max <= FEW)
    }

    /// How many a part may keep to itself.
    fn untold(&self, used: usize, max: usize) -> usize {
        let few = (max / FEW).min(16);
        if used + few * PARTS <= max { few } else { 0 }
    }
}

impl Records {
    /// Part number `part` of all records.
    pub(super) fn new(part: usize, room: Arc<Room>) -> Self {
        Self {
            entries: Slab::new(),
            by_id: HashTable::new(),
            queues: Vec::new(),
            queue_numbers: HashMap::default(),
            ends: Timers::default(),
            ending: 0,
            ended: VecDeque::new(),
            ended_now: 0,
            ended_told: 0,
            room,
            stamps: Stamps::of(part),
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

    /// The entry of that slot, unless its time has passed.
    fn live(&self, slot: Slot, now: Instant) -> Option<&Entry> {
        self.entries.get(slot as usize).filter(|entry| entry.ends_at.is_none_or(|end| end > now))
    }

    pub(super) fn put(&mut self, write: Write) -> Result<Written> {
        let clock = std::time::Instant::now();
        let now = clock::at(clock);
        let Write { record, hash, expect, ttl } = write;
        let old = self.slot(&record.id, hash);
        let found = old.and_then(|slot| self.live(slot, now)).map(|entry| entry.revision);
        check(record.id.as_str(), expect, found)?;
        let mut gone = Gone::new();
        let revision = self.stamps.next(clock);
        let queue = self.queue(&record.queue);
        let entry = Entry { record, hash, queue, revision, ends_at: None };
        let slot = match old {
            Some(slot) => {
                gone.push(self.exchange(slot, entry));
                slot
            }
            None => self.insert(entry),
        };
        self.enlist(slot, ttl, now);
        gone.extend(std::iter::from_fn(|| self.pop_expired(now)).take(SWEPT_PER_WRITE));
        self.make_room(&mut gone);
        Ok(Written { revision, gone })
    }

    /// Tells how many jobs have ended, and takes out the first of them if all parts together have too many.
    fn make_room(&mut self, gone: &mut Gone) {
        let (max, used) = (self.room.max.load(Ordering::Relaxed), self.room.used.load(Ordering::Relaxed));
        if max > FEW {
            while self.ended_now > 1 && used + self.ended_now > max + self.ended_told {
                match self.pop_ended() {
                    Some(entry) => gone.push(entry),
                    None => break,
                }
            }
        }
        if self.ended_now > self.ended_told + self.room.untold(used, max) {
            self.room.used.fetch_add(self.ended_now - self.ended_told, Ordering::Relaxed);
            self.ended_told = self.ended_now;
        }
    }

    /// One job that has ended less.
    fn leave_room(&mut self) {
        self.ended_now -= 1;
        if self.ended_now < self.ended_told {
            self.room.used.fetch_sub(self.ended_told - self.ended_now, Ordering::Relaxed);
            self.ended_told = self.ended_now;
        }
    }

    /// The number of that queue.
    fn queue(&mut self, name: &Name) -> usize {
        if let Some(number) = self.queue_numbers.get(name) {
            return *number;
        }
        self.queues.push(Ranked::default());
        self.queue_numbers.insert(name.clone(), self.queues.len() - 1);
        self.queues.len() - 1
    }

    fn insert(&mut self, entry: Entry) -> Slot {
        let hash = entry.hash;
        let slot = slot(self.entries.insert(entry));
        let entries = &self.entries;
        self.by_id.insert_unique(hash, slot, |slot| entries[*slot as usize].hash);
        slot
    }

    fn exchange(&mut self, slot: Slot, entry: Entry) -> Entry {
        let old = std::mem::replace(&mut self.entries[slot as usize], entry);
        self.unlist(&old);
        old
    }

    /// Notes a new entry wherever it may be looked for.
    fn enlist(&mut self, slot: Slot, ttl: Option<Duration>, now: Instant) {
        let entry = &mut self.entries[slot as usize];
        let (record, revision) = (&entry.record, entry.revision);
        self.queues[entry.queue].insert(record.status, revision, slot);
        if record.status.is_terminal() {
            self.ended_now += 1;
            self.ended.push_back((revision, slot));
        }
        if !self.watchers.is_empty() {
            self.watchers.send(&record.id, record);
        }
        if let Some(ttl) = ttl {
            entry.ends_at = Some(self.ends.add(now, ttl, slot));
            self.ending += 1;
        }
        self.tidy();
    }

    /// Forgets the notes on an entry that goes.
    fn unlist(&mut self, entry: &Entry) {
        let record = &entry.record;
        self.queues[entry.queue].remove(record.status, entry.revision);
        if record.status.is_terminal() {
            self.leave_room();
        }
        self.ending -= usize::from(entry.ends_at.is_some());
    }

    /// Forgets notes that say nothing any more, if they are the most.
    fn tidy(&mut self) {
        let entries = &self.entries;
        self.ends.tidy(self.ending, |slot, at| ends_at(entries, slot, at));
        if self.ended.len() > 1024 + (1 + STALE_PER_ENDED) * self.ended_now {
            self.ended.retain(|(revision, slot)| is(entries, *slot, *revision));
        }
    }

    /// Removes a record.
    pub(super) fn remove(&mut self, id: &JobId, hash: u64, revision: u64) -> Option<Entry> {
        let slot = self.slot(id, hash)?;
        self.live(slot, Instant::now()).filter(|entry| entry.revision == revision)?;
        Some(self.take_out(slot))
    }

    fn take_out(&mut self, slot: Slot) -> Entry {
        let entry = self.entries.remove(slot as usize);
        if let Ok(found) = self.by_id.find_entry(entry.hash, |other| *other == slot) {
            found.remove();
        }
        self.unlist(&entry);
        entry
    }

    /// Takes out a record whose time has passed, if there is one.
    fn pop_expired(&mut self, now: Instant) -> Option<Entry> {
        let entries = &self.entries;
        let slot = self.ends.pop(now, |slot, at| ends_at(entries, slot, at))?;
        Some(self.take_out(slot))
    }

    /// Takes out the record of the job that ended first.
    pub(super) fn pop_ended(&mut self) -> Option<Entry> {
        self.first_ended()?;
        let (_, slot) = self.ended.pop_front()?;
        Some(self.take_out(slot))
    }

    /// The revision of the job that ended first.
    pub(super) fn first_ended(&mut self) -> Option<u64> {
        while let Some((revision, slot)) = self.ended.front() {
            if is(&self.entries, *slot, *revision) {
                return Some(*revision);
            }
            self.ended.pop_front();
        }
        None
    }

    /// Gathers what a page may need, after a [`sweep`](Self::sweep).
    pub(super) fn gather<T>(&self, filter: &RecordFilter, show: impl Fn(Slot) -> T, page: &mut Gathering<T>) {
        self.rows(filter).for_each(|row| row.gather(&show, page));
    }

    /// The record in that slot.
    pub(super) fn record(&self, slot: Slot) -> Option<Arc<JobRecord>> {
        Some(Arc::clone(&self.entries.get(slot as usize)?.record))
    }

    /// The rows of those that a filter lets through.
    pub(super) fn rows(&self, filter: &RecordFilter) -> impl Iterator<Item = &Series> {
        let queue = filter.queue.as_deref();
        let queues = match queue {
            Some(queue) => self.rows_of(queue),
            None => &self.queues[..],
        };
        let rows = queues.iter().flat_map(Ranked::rows);
        rows.filter(|(status, _)| filter.status.is_none_or(|wanted| wanted == *status)).map(|(_, row)| row)
    }

    fn rows_of(&self, queue: &str) -> &[Ranked<Status>] {
        self.queue_numbers.get(queue).map_or(&[], |number| std::slice::from_ref(&self.queues[*number]))
    }

    /// How many records a queue has, by status.
    pub(super) fn counts(&self, queue: &str) -> impl Iterator<Item = (Status, usize)> {
        let rows = self.rows_of(queue).iter().flat_map(Ranked::rows);
        rows.map(|(status, row)| (status, row.len()))
    }

    /// How many jobs have ended.
    pub(super) fn ended(&self) -> usize {
        self.ended_now
    }

    /// Takes out all records whose time has passed.
    pub(super) fn sweep(&mut self) -> Vec<Entry> {
        let now = Instant::now();
        std::iter::from_fn(|| self.pop_expired(now)).collect()
    }
}

/// Whether the entry in that slot vanishes then.
fn ends_at(entries: &Slab<Entry>, slot: Slot, at: Instant) -> bool {
    entries.get(slot as usize).is_some_and(|entry| entry.ends_at == Some(at))
}

/// Whether the entry in that slot is that one.
fn is(entries: &Slab<Entry>, slot: Slot, revision: u64) -> bool {
    entries.get(slot as usize).is_some_and(|entry| entry.revision == revision)
}

impl Watchable for Records {
    type Topic = JobId;
    type Change = Arc<JobRecord>;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change> {
        &mut self.watchers
    }
}
