//! Firing the ticks of one schedule that are due: kick the job, then settle the tick.
//!
//! Nobody is elected, so any number of schedulers may do this for a tick at the same time. The id
//! of the job names the tick, so one kick of it makes a job. A kick that comes very late, after
//! that job is over and forgotten, is found out by the worker that starts the job: see
//! [`admission`](super::admission).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Schedules;
use super::entry::{self, StoredSchedule, job_id};
use super::plan::{Plan, plan};
use super::trigger::{Timing, Trigger};
use crate::error::{ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::{JobId, Message, Name};
use crate::store::{Expect, Status};
use crate::task::Overlap;
use crate::time::Timestamp;
use crate::workers::WorkerInfo;

/// Age of a look at the entry from which on no kick follows it. A kick is on its way for a few
/// seconds at most; the ring knows the ticks of five minutes.
const LOOKED_LATELY: Duration = Duration::from_secs(5);

/// The trigger of a timing, which takes time to make.
#[derive(Clone)]
pub(super) struct KnownTrigger {
    pub(super) timing: Timing,
    pub(super) trigger: Arc<Trigger>,
}

/// What a look at a schedule has found.
pub(super) enum Found {
    /// The newest state; no tick is due by it.
    Schedule(Box<StoredSchedule>),
    /// It was removed.
    Removed,
    /// It is from the code of other workers, and none of those lives.
    LeftAlone,
}

impl KnownTrigger {
    pub(super) fn of(timing: &Timing) -> Result<Self> {
        Ok(Self { timing: timing.clone(), trigger: Arc::new(timing.trigger()?) })
    }
}

impl Schedules {
    /// Fires the ticks of a schedule that are due, as the scheduler `by`. `known` is its trigger
    /// as it was last seen.
    pub(super) async fn fire_due(&self, id: &str, by: &Name, known: &KnownTrigger) -> Result<Found> {
        let kv = &**self.client.backend().kv();
        'look: loop {
            let looked = (Instant::now(), self.client.now());
            let Some(mut stored) = entry::get(kv, id).await? else { return Ok(Found::Removed) };
            let trigger = match stored.entry.timing == known.timing {
                true => Arc::clone(&known.trigger),
                false => Arc::new(stored.entry.timing.trigger()?),
            };
            loop {
                let now = self.client.now();
                let Some(planned) = plan(&stored.entry, &trigger, now) else {
                    return Ok(Found::Schedule(Box::new(stored)));
                };
                let settled = match planned {
                    Plan::Miss { last, missed } => {
                        let mut entry = stored.entry.clone();
                        entry.counts.missed += missed;
                        entry.settle(last, None, now);
                        entry
                    }
                    Plan::Fire { tick, missed } => {
                        let is_old =
                            looked.0.elapsed() > LOOKED_LATELY || now.since(looked.1) > LOOKED_LATELY;
                        if is_old {
                            continue 'look;
                        }
                        self.fire(&stored, tick, missed, by).await?
                    }
                };
                let Some(revision) = entry::put(kv, id, &settled, Expect::Revision(stored.revision)).await?
                else {
                    // Another scheduler or a worker has settled it, or the schedule has changed.
                    continue 'look;
                };
                stored = StoredSchedule { entry: settled, revision, ..stored };
            }
        }
    }

    /// Kicks the job of a tick. Returns the entry that settles the tick.
    async fn fire(
        &self,
        stored: &StoredSchedule,
        tick: Timestamp,
        missed: u64,
        by: &Name,
    ) -> Result<entry::ScheduleEntry> {
        let now = self.client.now();
        let mut settled = stored.entry.clone();
        settled.counts.missed += missed;
        settled.by = Some(by.clone());
        if settled.overlap == Overlap::Skip
            && let Some(before) = settled.ring.last().map(|fired| fired.tick).filter(|before| *before < tick)
            && self.is_unfinished(&job_id(&stored.id, before)).await?
        {
            settled.counts.skipped += 1;
            settled.settle(tick, None, now);
            return Ok(settled);
        }
        let id = job_id(&stored.id, tick);
        let message = stored.entry.message_for(&stored.id, Some(tick), id.clone(), now)?;
        let sent = self.client.send(message).await;
        point(Fault::Ticked);
        match sent {
            Ok(sent) if sent.id != id => {
                // Another job holds the unique key of the task.
                settled.counts.skipped += 1;
                settled.settle(tick, None, now);
            }
            Ok(sent) if sent.existing => {
                tracing::debug!(%id, "the job of this tick is there already");
                let kicked_at = self.kicked_at(&id).await?.unwrap_or(now);
                settled.settle(tick, Some(kicked_at), now);
            }
            Ok(_) => settled.settle(tick, Some(now), now),
            Err(error) if is_lasting(error.kind()) => {
                tracing::error!(schedule = %stored.id, %tick, %error, "a tick could not be kicked, and counts as missed");
                settled.counts.missed += 1;
                settled.settle(tick, None, now);
            }
            Err(error) => return Err(error),
        }
        Ok(settled)
    }

    /// Time of the kick of a job that exists.
    async fn kicked_at(&self, id: &JobId) -> Result<Option<Timestamp>> {
        let backend = self.client.backend();
        if let Some(queued) = backend.broker().find(id).await?
            && let Ok(message) = Message::open(&queued.body)
        {
            return Ok(message.kicked_at);
        }
        let Some(jobs) = backend.jobs() else { return Ok(None) };
        Ok(jobs.get(id).await?.and_then(|stored| stored.record.kicked_at))
    }

    /// True if a job waits, runs, or waits for a retry. One that no worker has any more is over:
    /// its message was acked before it ran, and its worker died.
    async fn is_unfinished(&self, id: &JobId) -> Result<bool> {
        let backend = self.client.backend();
        if backend.broker().find(id).await?.is_some() {
            return Ok(true);
        }
        let Some(jobs) = backend.jobs() else { return Ok(false) };
        let record = jobs.get(id).await?.map(|stored| stored.record);
        let Some(record) = record.filter(|record| !record.is_removed()) else { return Ok(false) };
        match record.status {
            Status::Running => {
                let own = |worker: &WorkerInfo| record.worker_id.as_deref() == Some(&worker.worker_id);
                let workers = self.client.workers().list().await?;
                Ok(workers.iter().any(|worker| worker.is_alive() && own(worker)))
            }
            Status::Blocked => Ok(true),
            // A job that waits has a message. Without one it was lost.
            _ => Ok(false),
        }
    }
}

/// True if a kick that fails like this will always fail.
fn is_lasting(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidArgument | ErrorKind::TooLarge | ErrorKind::Encode)
}

/// When a schedule is due, as far as a copy of its entry tells.
pub(super) fn due_at(stored: &StoredSchedule, trigger: &Trigger) -> Option<Timestamp> {
    if stored.entry.is_at_rest() {
        return None;
    }
    trigger.next(stored.entry.last)
}
