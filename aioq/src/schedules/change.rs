//! Changes of schedules by people and programs.

use serde::Serialize;

use super::entry::{self, ScheduleEntry, Source, StoredSchedule};
use super::trigger::Timing;
use super::{Schedule, Schedules};
use crate::codec::Arguments;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::TaskHandle;
use crate::message::{JobId, Message};
use crate::registry::TaskDef;
use crate::store::Expect;
use crate::task::{Call, KickOptions, Task};
use crate::time::Timestamp;

/// The stored message of a schedule has this id. Each of its jobs gets an id of its own.
const PLACEHOLDER: &str = "schedule";

/// Bytes that the ticks of a schedule take at most, in the entry that holds its message, too.
const ROOM_FOR_TICKS: usize = 32 * 1024;

/// What putting a schedule has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Put {
    /// There was no schedule of that id.
    Created,
    /// There was another one, which has changed: from now on it ticks as it was put.
    Changed,
    /// The same one was there.
    Same,
}

impl Schedules {
    /// Makes a schedule, or changes the one of that id. An id has at most 100 bytes.
    ///
    /// Each tick kicks the call, with its options; `ttl` counts from the tick. The first tick comes
    /// after the call. A changed schedule ticks anew from now on; pausing it survives, and the job
    /// of a tick that was fired stays.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): the schedule never ticks, its time has
    ///   passed, its zone is unknown, or the call has options that cannot repeat: an id, a time, a
    ///   delay, parents, debouncing.
    /// - [`Conflict`](ErrorKind::Conflict): the schedule is in the code of a task.
    /// - [`Encode`](ErrorKind::Encode), [`TooLarge`](ErrorKind::TooLarge): as for a kick.
    pub async fn put<T: Task, S>(&self, id: &str, schedule: Schedule, call: Call<T, S>) -> Result<Put> {
        self.put_message(id, schedule, self.client.message_of(call)?).await
    }

    /// [`put`](Self::put) for a task by its name, with its arguments as a map of names and values:
    /// for tools, and for tasks of another program.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_by_name(
        &self,
        id: &str,
        schedule: Schedule,
        task: &str,
        args: &(impl Serialize + ?Sized),
        options: KickOptions,
    ) -> Result<Put> {
        let arguments = Arguments::from_map(self.client.codec(), args)?;
        let message = self.client.message_by_name(task, arguments, options, None)?;
        self.put_message(id, schedule, message).await
    }

    pub(crate) async fn put_message(&self, id: &str, schedule: Schedule, message: Message) -> Result<Put> {
        entry::check_id(id)?;
        let kv = &**self.client.backend().kv();
        let now = self.client.now();
        let wanted = self.entry_of(schedule, message, Source::Api, now)?;
        loop {
            let found = entry::find(kv, id).await?;
            if let Some(found) = &found
                && !found.entry.is_removed
                && found.entry.source == Source::Code
                && self.is_in_code(id).await?
            {
                return Err(in_code(found, "cannot be put"));
            }
            let (entry, expect, put) = match found {
                Some(found) if found.entry.is_removed => {
                    let new = wanted.clone().after_removed(found.entry);
                    (new, Expect::Revision(found.revision), Put::Created)
                }
                Some(found) if found.entry.is_like(&wanted) && found.entry.source == Source::Api => {
                    return Ok(Put::Same);
                }
                Some(found) => {
                    (found.entry.changed_to(&wanted), Expect::Revision(found.revision), Put::Changed)
                }
                None => (wanted.clone(), Expect::Absent, Put::Created),
            };
            // Also if it is in the second of the last tick: the job of that one has its id.
            if let Timing::At { micros } = entry.timing
                && micros <= entry.last.as_micros()
            {
                let why = format!("the time of the schedule has passed: {}", Timestamp::from_micros(micros));
                return Err(Error::new(ErrorKind::InvalidArgument, why));
            }
            if entry::put(kv, id, &entry, expect).await?.is_some() {
                return Ok(put);
            }
        }
    }

    /// The entry of a new schedule.
    pub(super) fn entry_of(
        &self,
        schedule: Schedule,
        mut message: Message,
        source: Source,
        now: Timestamp,
    ) -> Result<ScheduleEntry> {
        let (timing, missed, overlap) = schedule.checked(now)?;
        check_repeatable(&message)?;
        let ttl = message.expires_at.map(|expiry| expiry.since(message.kicked_at.unwrap_or(now)));
        let unique_within = message.unique().map(|unique| unique.terms.within).unwrap_or_default();
        message.id = JobId::from(PLACEHOLDER);
        (message.kicked_at, message.expires_at) = (None, None);
        self.client.check_sealed(&message, ROOM_FOR_TICKS)?;
        Ok(ScheduleEntry {
            message: message.seal().body,
            ttl,
            unique_within,
            source,
            timing,
            missed,
            overlap,
            paused_at: None,
            last: now,
            floor: now,
            ring: Vec::new(),
            counts: Default::default(),
            by: None,
            ended_at: None,
            renewed_at: (source == Source::Code).then_some(now),
            orphaned_at: None,
            is_removed: false,
        })
    }

    /// Stops the ticks of a schedule. What ticks meanwhile is neither run nor missed. False if it
    /// is paused already, or has ended.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for an unknown id; the errors of the backend.
    pub async fn pause(&self, id: &str) -> Result<bool> {
        self.change(id, |entry, now| {
            let can_pause = entry.paused_at.is_none() && entry.ended_at.is_none();
            can_pause.then(|| entry.paused_at = Some(now)).is_some()
        })
        .await
    }

    /// Lets a paused schedule tick again, from now on. False if it is not paused.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for an unknown id; the errors of the backend.
    pub async fn resume(&self, id: &str) -> Result<bool> {
        self.change(id, |entry, now| {
            let was_paused = entry.paused_at.take().is_some();
            if was_paused {
                entry.last = entry.last.max(now);
                entry.end_if_over(now);
            }
            was_paused
        })
        .await
    }

    /// Changes a schedule, unless `change` returns false.
    async fn change(&self, id: &str, change: impl Fn(&mut ScheduleEntry, Timestamp) -> bool) -> Result<bool> {
        loop {
            let StoredSchedule { mut entry, revision, .. } = self.stored(id).await?;
            if !change(&mut entry, self.client.now()) {
                return Ok(false);
            }
            let kv = &**self.client.backend().kv();
            if entry::put(kv, id, &entry, Expect::Revision(revision)).await?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Removes a schedule. The jobs that it has kicked stay.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): there is none.
    /// - [`Conflict`](ErrorKind::Conflict): the schedule is in the code of a task, and a worker
    ///   with that code lives. Pause it instead.
    pub async fn remove(&self, id: &str) -> Result<()> {
        loop {
            let found = self.stored(id).await?;
            if found.entry.source == Source::Code && self.is_in_code(id).await? {
                return Err(in_code(&found, "cannot be removed"));
            }
            let removed = ScheduleEntry { is_removed: true, ..found.entry };
            let kv = &**self.client.backend().kv();
            if entry::put(kv, id, &removed, Expect::Revision(found.revision)).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Kicks the job of a schedule now, besides its ticks, also while it is paused.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for an unknown id; the errors of
    /// [`Client::kiq`](crate::Client::kiq).
    pub async fn run(&self, id: &str) -> Result<TaskHandle<()>> {
        let found = self.stored(id).await?;
        let message = found.entry.message_for(id, None, self.client.next_id(), self.client.now())?;
        self.client.kick(message).await
    }

    /// True if a living worker has the schedule in its code.
    pub(super) async fn is_in_code(&self, id: &str) -> Result<bool> {
        Ok(self.client.workers().schedules_in_code().await?.contains(id))
    }
}

impl ScheduleEntry {
    /// The same schedule, changed: its ticks count from now on.
    pub(super) fn changed_to(self, wanted: &Self) -> Self {
        // A period that stays keeps its beat.
        let timing = if self.timing.is_like(&wanted.timing) { self.timing } else { wanted.timing.clone() };
        Self {
            timing,
            last: entry::end_of_second(self.last.max(wanted.last)),
            floor: self.floor,
            paused_at: self.paused_at,
            ring: self.ring,
            counts: self.counts,
            by: self.by,
            ..wanted.clone()
        }
    }
}

/// Refuses a call that cannot be repeated.
fn check_repeatable(message: &Message) -> Result<()> {
    let is_debounced = message.unique().is_some_and(|unique| unique.terms.debounce.is_some());
    let option = if message.supersedes.is_some() {
        "an id of its own: the id of each job names the tick"
    } else if message.run_at.is_some() {
        "a delay or a time: the schedule says when it runs"
    } else if message.parent_wait().is_some() {
        "parents: they end once"
    } else if is_debounced {
        "debouncing: each tick runs by itself"
    } else {
        return Ok(());
    };
    let why = format!("task `{}`: a scheduled call cannot have {option}", message.task);
    Err(Error::new(ErrorKind::InvalidArgument, why))
}

fn in_code(found: &StoredSchedule, what: &str) -> Error {
    let task = Message::open(&found.entry.message).map(|message| message.task).unwrap_or_default();
    let why = format!("schedule `{}` {what}: it is in the code of task `{task}`; pause it instead", found.id);
    Error::new(ErrorKind::Conflict, why)
}

/// The message of the schedule of a task's attribute.
pub(super) fn message_of_task(task: &TaskDef, codec: crate::codec::Codec, now: Timestamp) -> Result<Message> {
    let arguments = crate::codec::ArgsEncoder::new(codec).finish();
    let id = || JobId::from(PLACEHOLDER);
    Message::first_attempt(task.name().into(), arguments, KickOptions::new(), Some(task.options()), id, now)
}
