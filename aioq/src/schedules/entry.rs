//! The entry of a schedule in the shared state: what to run and when, and what has become of its
//! ticks.
//!
//! Both are in one entry, so a change of the schedule and the settling of a tick exclude each
//! other: each is a write that expects the revision that it has read.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::trigger::Timing;
use crate::codec::Codec;
use crate::error::{Error, ErrorKind, Result, excerpt};
use crate::message::{JobId, Message, Name, Terms, Tick};
use crate::store::{Entry, Expect, KvStore};
use crate::task::{Missed, Overlap};
use crate::time::Timestamp;

/// Prefix of the entries; the id of the schedule follows.
pub(crate) const SCHEDULES: &str = "schedule.";

/// Longest id of a schedule, in bytes. The id of its jobs adds `@` and a time, and has at most 128.
const MAX_ID_BYTES: usize = 100;

/// Time for which the schedule of a task's attribute is kept after the last worker has renewed it,
/// and one that has ended is listed.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// Time for which the entry of a removed schedule is kept. Clocks are less apart.
const REMOVED_TTL: Duration = Duration::from_secs(600);

/// Number of settled ticks that an entry keeps at least.
const RING: usize = 16;

/// Time for which an entry keeps its settled ticks. A kick is on its way for two minutes at most,
/// and two clocks are as far apart.
const RING_SPAN: Duration = Duration::from_secs(300);

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScheduleEntry {
    /// The message of its jobs, sealed under a placeholder for their ids, without times.
    #[serde(with = "crate::codec::as_bytes")]
    pub(crate) message: Bytes,
    /// Time from a tick after which a job that has not started expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<Duration>,
    /// How its jobs take their unique key.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub(crate) unique_within: Duration,
    pub(crate) source: Source,
    pub(crate) timing: Timing,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused_at: Option<Timestamp>,
    /// All ticks up to this one are settled.
    #[serde(with = "micros")]
    pub(crate) last: Timestamp,
    /// Ticks before this one have left the ring.
    #[serde(with = "micros")]
    pub(crate) floor: Timestamp,
    /// The newest ticks that were fired, the oldest first.
    #[serde(with = "ring")]
    pub(crate) ring: Vec<Fired>,
    pub(crate) counts: TickCounts,
    /// Worker that fired the newest tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<Name>,
    /// Time at which a schedule that ticks once has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<Timestamp>,
    /// Time at which a worker that has the schedule in its code has written the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renewed_at: Option<Timestamp>,
    /// Time at which a worker found that no living one had the schedule in its code any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) orphaned_at: Option<Timestamp>,
    /// True if the schedule was removed. The entry stays for a while: a new schedule of this id,
    /// made by a client whose clock is behind, takes over which ticks are settled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_removed: bool,
}

/// Where a schedule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Source {
    /// The attribute of a task.
    Code,
    /// [`Schedules::put`](super::Schedules::put).
    Api,
}

/// A tick that was fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fired {
    pub(crate) tick: Timestamp,
    /// Time of the kick of the message that stands for the tick.
    pub(crate) kicked_at: Timestamp,
}

/// Numbers of ticks by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TickCounts {
    /// Ticks for which a job was kicked.
    pub fired: u64,
    /// Ticks that were not run, because the job of the tick before had not ended.
    pub skipped: u64,
    /// Ticks for which no worker was there in time. After a day without workers, a lower bound.
    pub missed: u64,
}

/// A schedule with its revision.
#[derive(Clone, Debug)]
pub(crate) struct StoredSchedule {
    pub(crate) id: Box<str>,
    pub(crate) entry: ScheduleEntry,
    pub(crate) revision: u64,
}

impl ScheduleEntry {
    /// Settles all ticks up to `tick`; with `kicked_at`, a message of that time stands for the
    /// tick.
    pub(super) fn settle(&mut self, tick: Timestamp, kicked_at: Option<Timestamp>, now: Timestamp) {
        self.last = tick;
        if let Some(kicked_at) = kicked_at {
            self.counts.fired += 1;
            self.note(Fired { tick, kicked_at }, now);
        }
        self.end_if_over(now);
    }

    /// Ends a schedule whose only tick is settled.
    pub(super) fn end_if_over(&mut self, now: Timestamp) {
        if let Timing::At { micros } = self.timing
            && micros <= self.last.as_micros()
        {
            self.ended_at = Some(now);
        }
    }

    /// Adds a tick to the ring, in its place, and forgets the oldest ones.
    pub(super) fn note(&mut self, fired: Fired, now: Timestamp) {
        let place = self.ring.partition_point(|earlier| earlier.tick < fired.tick);
        self.ring.insert(place, fired);
        let spare = self.ring.len().saturating_sub(RING);
        let newest = self.ring.last().map_or(fired.tick, |newest| newest.tick);
        // Many ticks of long ago may be fired in a moment.
        let is_old =
            |fired: &&Fired| now.since(fired.kicked_at) > RING_SPAN && newest.since(fired.tick) > RING_SPAN;
        let old = self.ring.iter().take(spare).take_while(is_old).count();
        if let Some(newest_old) = self.ring.drain(..old).next_back() {
            self.floor = self.floor.max(Timestamp::from_micros(newest_old.tick.as_micros() + 1));
        }
    }

    /// The kick that stands for a tick.
    pub(super) fn fired(&self, tick: Timestamp) -> Option<Fired> {
        self.ring.iter().find(|fired| fired.tick == tick).copied()
    }

    /// The entry of a new schedule, in the place of a removed one: no tick comes again.
    pub(super) fn after_removed(self, removed: Self) -> Self {
        let last = end_of_second(self.last.max(removed.last));
        Self { last, floor: removed.floor, ring: removed.ring, ..self }
    }

    /// True if the schedule fires no tick: it is paused, has ended, or is orphaned.
    pub(super) fn is_at_rest(&self) -> bool {
        self.paused_at.is_some() || self.ended_at.is_some() || self.orphaned_at.is_some()
    }

    /// True if both run the same, at the same times.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let spec = |entry: &Self| {
            (entry.message.clone(), entry.ttl, entry.unique_within, entry.missed, entry.overlap)
        };
        spec(self) == spec(other) && self.timing.is_like(&other.timing)
    }

    /// The message of the job for a tick.
    ///
    /// # Errors
    /// [`Decode`](ErrorKind::Decode): the entry was written by a newer version.
    pub(super) fn message_for(
        &self,
        schedule: &str,
        tick: Option<Timestamp>,
        id: JobId,
        now: Timestamp,
    ) -> Result<Message> {
        let mut message = Message::open(&self.message)?;
        message.id = id;
        message.kicked_at = Some(now);
        message.run_at = tick;
        message.expires_at = self.ttl.map(|ttl| tick.unwrap_or(now) + ttl);
        // Only one job of this id is ever kicked.
        message.supersedes = tick.map(|_| 0);
        let ties = message.ties_mut();
        ties.tick = Some(Tick { schedule: schedule.into(), at: tick });
        if let Some(unique) = &mut ties.unique {
            unique.terms = Terms { within: self.unique_within, debounce: None };
        }
        Ok(message)
    }

    /// Lifetime of the entry in the store.
    fn ttl(&self) -> Option<Duration> {
        if self.is_removed {
            return Some(REMOVED_TTL);
        }
        (self.source == Source::Code || self.ended_at.is_some()).then_some(KEPT_FOR)
    }
}

/// The id of the job for a tick: the schedule's, `@`, and the second of the tick in UTC.
pub(super) fn job_id(schedule: &str, tick: Timestamp) -> JobId {
    format!("{schedule}@{}", second_of(tick)).into()
}

/// The last moment of a second. The first tick of a changed schedule is later than the second of
/// the last tick before: jobs of two ticks of one second would have one id.
pub(super) fn end_of_second(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(second_of(time).as_micros() + 999_999)
}

fn second_of(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros().div_euclid(1_000_000) * 1_000_000)
}

/// Checks the id of a schedule.
pub(super) fn check_id(id: &str) -> Result<()> {
    match id.len() {
        1..=MAX_ID_BYTES => Ok(()),
        length => {
            let id = excerpt(id);
            let why = format!("the id of a schedule has 1 to {MAX_ID_BYTES} bytes, `{id}` has {length}");
            Err(Error::new(ErrorKind::InvalidArgument, why))
        }
    }
}

fn key(id: &str) -> String {
    format!("{SCHEDULES}{id}")
}

/// The schedule of an entry; `None` if a newer version wrote it. It may have been removed.
pub(super) fn read(entry: &Entry) -> Option<StoredSchedule> {
    let id = entry.key.strip_prefix(SCHEDULES)?;
    match Codec::MessagePack.decode(&entry.value) {
        Ok(read) => Some(StoredSchedule { id: id.into(), entry: read, revision: entry.revision }),
        Err(error) => {
            tracing::warn!(%id, %error, "a schedule cannot be read; was it made by a newer version?");
            None
        }
    }
}

/// A schedule that is there.
pub(super) async fn get(kv: &dyn KvStore, id: &str) -> Result<Option<StoredSchedule>> {
    Ok(find(kv, id).await?.filter(|stored| !stored.entry.is_removed))
}

/// A schedule that is there, or was removed lately.
pub(super) async fn find(kv: &dyn KvStore, id: &str) -> Result<Option<StoredSchedule>> {
    Ok(kv.get(&key(id)).await?.as_ref().and_then(read))
}

/// All schedules, by id.
pub(super) async fn all(kv: &dyn KvStore) -> Result<Vec<StoredSchedule>> {
    let found = kv.scan(SCHEDULES).await?;
    Ok(found.iter().filter_map(read).filter(|stored| !stored.entry.is_removed).collect())
}

/// Writes a schedule. `None` if `expect` does not hold.
pub(super) async fn put(
    kv: &dyn KvStore,
    id: &str,
    entry: &ScheduleEntry,
    expect: Expect,
) -> Result<Option<u64>> {
    let mut value = Vec::new();
    Codec::MessagePack.encode_into(entry, &mut value)?;
    match kv.put(&key(id), Bytes::from(value), expect, entry.ttl()).await {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ring as a list of numbers: the first tick in microseconds since 1970, each later one since
/// the one before, and after each the time from it to its kick.
mod ring {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Fired;
    use crate::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(ring: &[Fired], serializer: S) -> Result<S::Ok, S::Error> {
        let (mut numbers, mut before) = (Vec::with_capacity(2 * ring.len()), 0);
        for Fired { tick, kicked_at } in ring {
            numbers.extend([tick.as_micros() - before, kicked_at.as_micros() - tick.as_micros()]);
            before = tick.as_micros();
        }
        numbers.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Fired>, D::Error> {
        let numbers = Vec::<i64>::deserialize(deserializer)?;
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(D::Error::custom("a tick without the time of its kick"));
        }
        let mut tick = 0_i64;
        let fired = |[since, kicked]: &[i64; 2]| {
            tick = tick.wrapping_add(*since);
            let kicked_at = Timestamp::from_micros(tick.wrapping_add(*kicked));
            Fired { tick: Timestamp::from_micros(tick), kicked_at }
        };
        Ok(pairs.iter().map(fired).collect())
    }
}

/// Times as microseconds since 1970, which are shorter than text.
mod micros {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.as_micros())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_micros)
    }
}
