//! Schedules as people and programs see them.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::Schedules;
use super::entry::{self, Source, StoredSchedule, TickCounts, job_id};
use super::plan::grace;
use super::trigger::{Timing, Trigger};
use crate::codec::Arguments;
use crate::error::Result;
use crate::message::{JobId, Message, Name};
use crate::task::{Missed, Overlap};
use crate::time::Timestamp;

/// A schedule, what has become of its ticks, and those to come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScheduleView {
    /// Id of the schedule.
    pub id: String,
    /// Name of its task.
    pub task: Name,
    /// Queue of its jobs.
    pub queue: Name,
    /// Arguments of its jobs.
    pub arguments: Arguments,
    /// When it ticks.
    pub when: When,
    /// What becomes of ticks for which no worker was there in time.
    pub missed: Missed,
    /// What becomes of a tick while the job of the tick before has not ended.
    pub overlap: Overlap,
    /// Where it comes from.
    pub source: Source,
    /// Whether it ticks.
    pub state: ScheduleState,
    /// All ticks up to this time are settled.
    pub settled_until: Timestamp,
    /// The newest ticks that were fired, the oldest first: at least 16, if there were as many.
    pub recent: Vec<TickJob>,
    /// Numbers of ticks since it was made.
    pub counts: TickCounts,
    /// Worker that has fired the newest tick.
    pub fired_by: Option<Name>,
    trigger: Option<Trigger>,
}

/// When a schedule ticks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum When {
    /// At the times of a cron expression in a time zone.
    #[non_exhaustive]
    Cron {
        /// The expression.
        expression: String,
        /// Name of the time zone.
        zone: String,
    },
    /// Every so often.
    Every(Duration),
    /// Once.
    At(Timestamp),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron { expression, .. } => f.pad(expression),
            Self::Every(period) => f.pad(&format!("every {}", humantime::format_duration(*period))),
            Self::At(time) => f.pad(&format!("at {time}")),
        }
    }
}

/// Whether a schedule ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ScheduleState {
    /// It ticks.
    Active,
    /// It was paused.
    Paused,
    /// Its only tick is over. It is listed for seven days.
    Ended,
    /// It is from the code of a task, and no living worker has that code. It does not tick, and is
    /// forgotten seven days after the last worker had it.
    Orphaned,
}

impl ScheduleState {
    /// The word for it, as on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
            Self::Orphaned => "orphaned",
        }
    }
}

/// A tick that was fired, and its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TickJob {
    /// Nominal time of the tick.
    pub tick: Timestamp,
    /// Id of its job.
    pub job: JobId,
}

impl ScheduleView {
    fn of(stored: StoredSchedule, in_code: &HashSet<String>) -> Self {
        let StoredSchedule { id, entry, .. } = stored;
        let is_orphaned = entry.source == Source::Code && !in_code.contains(&*id);
        let state = match () {
            () if entry.ended_at.is_some() => ScheduleState::Ended,
            () if is_orphaned => ScheduleState::Orphaned,
            () if entry.paused_at.is_some() => ScheduleState::Paused,
            () => ScheduleState::Active,
        };
        let message =
            Message::open(&entry.message).unwrap_or_else(|_| Message::unreadable("".into(), Name::default()));
        let job = |fired: &entry::Fired| TickJob { tick: fired.tick, job: job_id(&id, fired.tick) };
        Self {
            task: message.task,
            queue: message.queue,
            arguments: message.arguments,
            missed: entry.missed,
            overlap: entry.overlap,
            source: entry.source,
            state,
            settled_until: entry.last,
            recent: entry.ring.iter().map(job).collect(),
            counts: entry.counts,
            fired_by: entry.by,
            trigger: entry.timing.trigger().ok(),
            when: entry.timing.into(),
            id: id.into(),
        }
    }

    /// The next ticks, at most `count`. A schedule that is paused has those that it would have if
    /// it were resumed now.
    #[must_use]
    pub fn next(&self, count: usize) -> Vec<Timestamp> {
        let after = match self.state {
            ScheduleState::Ended | ScheduleState::Orphaned => return Vec::new(),
            ScheduleState::Paused => self.settled_until.max(Timestamp::now()),
            ScheduleState::Active => self.settled_until,
        };
        self.trigger.iter().flat_map(|trigger| trigger.ticks(after)).take(count).collect()
    }

    /// The tick that should have been fired by now, but for a worker; `None` if there is none.
    #[must_use]
    pub fn overdue(&self, now: Timestamp) -> Option<Timestamp> {
        let trigger = self.trigger.as_ref().filter(|_| self.state == ScheduleState::Active)?;
        let next = trigger.next(self.settled_until)?;
        (now.since(next) > grace(trigger, next)).then_some(next)
    }
}

impl From<Timing> for When {
    fn from(timing: Timing) -> Self {
        match timing {
            Timing::Cron { expression, zone } => Self::Cron { expression, zone },
            Timing::Every { micros, .. } => Self::Every(Duration::from_micros(micros)),
            Timing::At { micros } => Self::At(Timestamp::from_micros(micros)),
        }
    }
}

/// Chooses schedules; all, if it says nothing.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ScheduleFilter {
    task: Option<Name>,
    state: Option<ScheduleState>,
}

impl ScheduleFilter {
    /// All schedules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this task.
    pub fn task(mut self, task: impl Into<Name>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// Those in this state.
    pub fn state(mut self, state: ScheduleState) -> Self {
        self.state = Some(state);
        self
    }

    fn fits(&self, view: &ScheduleView) -> bool {
        self.task.as_ref().is_none_or(|task| *task == view.task)
            && self.state.is_none_or(|state| state == view.state)
    }
}

impl Schedules {
    /// A schedule.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown id; the errors of the backend.
    pub async fn get(&self, id: &str) -> Result<ScheduleView> {
        let stored = self.stored(id).await?;
        Ok(ScheduleView::of(stored, &self.client.workers().schedules_in_code().await?))
    }

    /// All schedules that the filter chooses, by id.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn list(&self, filter: ScheduleFilter) -> Result<Vec<ScheduleView>> {
        let stored = entry::all(&**self.client.backend().kv()).await?;
        let in_code = self.client.workers().schedules_in_code().await?;
        let mut views: Vec<ScheduleView> = stored
            .into_iter()
            .map(|stored| ScheduleView::of(stored, &in_code))
            .filter(|view| filter.fits(view))
            .collect();
        views.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(views)
    }
}
