//! What is remembered of a job.

mod json;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Status;
use crate::codec::{Arguments, Payload};
use crate::error::{JobError, Reason};
use crate::message::{JobId, Labels, Message, Name, Priority};
use crate::time::Timestamp;

/// The record of a job: what it is, how far it got, what came of it.
///
/// Encoded, it is a taskiq result with fields of our own, so Python reads it too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// The name of its task; empty if its message could not be read.
    pub task: Name,
    /// The queue it was kicked to.
    pub queue: Name,
    /// The arguments; `None` if they were left out because they were too large.
    pub arguments: Option<Arguments>,
    /// The user's labels.
    pub labels: Labels,
    /// Its place in the queue.
    pub priority: Priority,
    /// How far it is.
    pub status: Status,
    /// The run it is at, from 1; 0 of a job that was [removed](Self::is_removed).
    pub attempt: u32,
    /// Retries after the first run.
    pub max_retries: u32,
    /// When it was kicked; of a job that was run again by hand, when that was asked for.
    pub kicked_at: Option<Timestamp>,
    /// When it is or was due.
    pub run_at: Option<Timestamp>,
    /// When its last run started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How long the last run took.
    pub execution_time: Duration,
    /// The worker of its last run.
    pub worker_id: Option<Name>,
    /// What it returned; only of a completed job.
    pub result: Option<Payload>,
    /// How it failed.
    pub error: Option<Box<JobError>>,
    /// Why it ended without a result.
    pub reason: Option<Reason>,
    /// The failures of this and of earlier attempts, also of those before it was run again by hand, oldest first; the
    /// first and the latest are kept.
    pub errors: Vec<AttemptError>,
    /// How far the body says it is; until it says so, how far the run before it got.
    pub progress: Option<Box<Progress>>,
    /// What the body wrote down in all its runs, oldest first; the latest lines are kept.
    pub logs: Vec<LogLine>,
    /// Jobs that it waits for.
    pub depends_on: Vec<JobId>,
    /// Whether it is in the dead letters.
    pub dead_lettered: bool,
    /// Starts of this attempt that have not ended: more than one means that workers died on it.
    pub starts: u32,
    /// Those of them that had no other suspect beside them in their process: proofs that it was this job.
    pub solo: u32,
    /// The sealed message, kept where the job may be kicked again.
    pub message: Option<Bytes>,
}

impl JobRecord {
    /// How many failures a record keeps at most: the first and the latest.
    pub const MAX_ERRORS: usize = 10;

    /// How large the history of failures gets at most, in bytes: a record must always fit.
    pub const MAX_ERRORS_BYTES: usize = 32 * 1024;

    /// How many lines of log a record keeps at most: the latest.
    pub const MAX_LOGS: usize = 50;

    /// The longest line of log, and the longest note of a progress, in bytes; the rest is cut off.
    pub const MAX_LOG_BYTES: usize = 512;

    /// The record of a job as its message tells it.
    #[must_use]
    pub fn of(message: &Message, status: Status) -> Self {
        Self {
            task: message.task.clone(),
            arguments: Some(message.arguments.clone()),
            labels: message.labels.clone(),
            priority: message.priority,
            attempt: message.attempt,
            max_retries: message.max_retries.unwrap_or(0),
            kicked_at: message.kicked_at,
            run_at: message.run_at,
            id: message.id.clone(),
            queue: message.queue.clone(),
            status,
            started_at: None,
            finished_at: None,
            execution_time: Duration::ZERO,
            worker_id: None,
            result: None,
            error: None,
            reason: None,
            errors: Vec::new(),
            progress: None,
            logs: Vec::new(),
            depends_on: Vec::new(),
            dead_lettered: false,
            starts: 0,
            solo: 0,
            message: None,
        }
    }

    /// The record of a job whose message tells nothing.
    #[must_use]
    pub fn unreadable(id: JobId, queue: impl Into<Name>, status: Status) -> Self {
        Self { arguments: None, ..Self::of(&Message::unreadable(id, queue), status) }
    }

    /// The record of a job that is run again, in the place of that of the run before: this message waits.
    pub(crate) fn waiting(message: &Message, before: Self) -> Self {
        let mut waiting = Self::of(message, Status::Pending);
        if let Some(history) = History::of(before) {
            history.fill(&mut waiting);
        }
        waiting
    }

    /// What takes the place of the record of a job that is removed, for a while: no write of a run of it that is
    /// still on its way then finds that there is no record.
    pub(crate) fn removed(record: &Self) -> Self {
        let unreadable = Self::unreadable(record.id.clone(), record.queue.clone(), Status::Pending);
        Self { kicked_at: record.kicked_at, attempt: 0, ..unreadable }
    }

    /// Whether the job was removed. To everybody but the store it is as if there were no record; the next kick under
    /// that id comes after it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.attempt == 0 && self.is_unstarted()
    }

    /// Whether it says that this message waits, and was not started by any worker.
    pub(crate) fn is_waiting(&self, message: &Message) -> bool {
        self.is_unstarted() && (self.kicked_at, self.attempt) == (message.kicked_at, message.attempt)
    }

    /// Whether it is what is left of a job that was removed, and this message is of another kick than that one.
    pub(crate) fn is_removed_before(&self, message: &Message) -> bool {
        self.is_removed() && self.kicked_at != message.kicked_at
    }

    /// Whether it is of a job that waits to be run again; one that a worker gave back was started.
    pub(crate) fn is_unstarted(&self) -> bool {
        self.status == Status::Pending && self.worker_id.is_none()
    }

    /// Adds a failure to the history, which keeps the first and the latest ones.
    pub fn push_error(&mut self, error: AttemptError) {
        self.errors.push(error);
        let size = |errors: &[AttemptError]| errors.iter().map(|error| error.error.size()).sum::<usize>();
        while self.errors.len() > 2
            && (self.errors.len() > Self::MAX_ERRORS || size(&self.errors) > Self::MAX_ERRORS_BYTES)
        {
            self.errors.remove(1);
        }
    }

    /// Adds a line to a log, which keeps the latest ones.
    pub fn push_log(logs: &mut Vec<LogLine>, mut line: LogLine) {
        Self::cut(&mut line.line);
        logs.push(line);
        let surplus = logs.len().saturating_sub(Self::MAX_LOGS);
        logs.drain(..surplus);
    }

    /// Cuts a text of the body's to [`MAX_LOG_BYTES`](Self::MAX_LOG_BYTES).
    pub(crate) fn cut(text: &mut String) {
        if text.len() > Self::MAX_LOG_BYTES {
            let end = (0..=Self::MAX_LOG_BYTES).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text.shrink_to_fit();
        }
    }
}

/// What the runs of a job so far have left in its record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct History {
    errors: Vec<AttemptError>,
    progress: Option<Box<Progress>>,
    logs: Vec<LogLine>,
}

impl History {
    /// That of a record; `None` if there is nothing in it.
    pub(crate) fn of(record: JobRecord) -> Option<Box<Self>> {
        let JobRecord { errors, progress, logs, .. } = record;
        let empty = errors.is_empty() && progress.is_none() && logs.is_empty();
        (!empty).then(|| Box::new(Self { errors, progress, logs }))
    }

    /// Writes it into a record of a later run.
    pub(crate) fn fill(&self, record: &mut JobRecord) {
        record.errors.clone_from(&self.errors);
        record.progress.clone_from(&self.progress);
        record.logs.clone_from(&self.logs);
    }
}

/// A failed attempt, for the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// Which run it was, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: Timestamp,
    /// Where it ran.
    pub worker_id: Option<Name>,
    /// Why it failed.
    pub reason: Reason,
    /// How it failed.
    pub error: JobError,
}

/// How far a body says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What it is at.
    pub note: Option<String>,
}

/// A line that a body wrote down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// What.
    pub line: String,
}
