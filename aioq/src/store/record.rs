//! The record of a job.

mod json;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Status;
use crate::codec::{Arguments, Payload};
use crate::error::{JobError, Reason};
use crate::message::{JobId, Labels, Message, Name, OnParentFailure, Priority, Take, UniqueKey};
use crate::time::Timestamp;

/// The record of a job: its call, its progress, its result.
///
/// Encoded, it is a taskiq result with additional fields, so Python reads it too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobRecord {
    /// Id of the job.
    pub id: JobId,
    /// Name of the task; empty if the message was unreadable.
    pub task: Name,
    /// Queue of the job.
    pub queue: Name,
    /// The arguments; `None` if they were dropped because the record was too large.
    pub arguments: Option<Arguments>,
    /// Labels of the user.
    pub labels: Labels,
    /// Priority within the queue.
    pub priority: Priority,
    /// Status of the job.
    pub status: Status,
    /// Number of the current or last attempt, from 1; 0 for a job that was
    /// [removed](Self::is_removed).
    pub attempt: u32,
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// Time of the kick; for a job that was rerun by hand, the time of that request.
    pub kicked_at: Option<Timestamp>,
    /// Time at which it is or was due.
    pub run_at: Option<Timestamp>,
    /// Start of the last run.
    pub started_at: Option<Timestamp>,
    /// End of the job.
    pub finished_at: Option<Timestamp>,
    /// Duration of the last run.
    pub execution_time: Duration,
    /// Worker of the last run.
    pub worker_id: Option<Name>,
    /// Result; only for a completed job.
    pub result: Option<Payload>,
    /// Error of the job.
    pub error: Option<Box<JobError>>,
    /// Reason for an end without a result.
    pub reason: Option<Reason>,
    /// Failures of all attempts, also of those before a rerun by hand, oldest first. The first and
    /// the latest are kept.
    pub errors: Vec<AttemptError>,
    /// Progress that the body reported; until it reports any, the progress of the run before.
    pub progress: Option<Box<Progress>>,
    /// Log lines of all runs, oldest first. The latest are kept.
    pub logs: Vec<LogLine>,
    /// Jobs that this one waits for, or waited for: its parents.
    pub depends_on: Vec<JobId>,
    /// What becomes of the job when one of its parents does not complete.
    pub on_parent_failure: OnParentFailure,
    /// Delay of a blocked job after the end of its last parent.
    pub delay: Duration,
    /// The arguments of a blocked job that are results of its parents.
    pub(crate) takes: Box<[Take]>,
    /// True if the job is in the dead letters.
    pub dead_lettered: bool,
    /// Starts of this attempt without an end. More than one means that workers died while it ran.
    pub starts: u32,
    /// Number of those starts during which no other suspect ran in the process: proofs against this
    /// job.
    pub solo: u32,
    /// True if other jobs wait for the end of this one.
    pub awaited: bool,
    /// The unique key of the job.
    pub unique_key: Option<UniqueKey>,
    /// The sealed message, for a job that may be kicked again.
    pub message: Option<Bytes>,
    /// Encoded fields that a newer version wrote. Each later record of the job keeps them.
    pub(crate) other: Vec<(Box<str>, Bytes)>,
}

impl JobRecord {
    /// Maximum number of failures in a record.
    pub const MAX_ERRORS: usize = 10;

    /// Maximum size of the failures in a record, in bytes.
    pub const MAX_ERRORS_BYTES: usize = 32 * 1024;

    /// Maximum number of log lines in a record.
    pub const MAX_LOGS: usize = 50;

    /// Maximum length of a log line and of the note of a progress, in bytes. Longer text is cut.
    pub const MAX_LOG_BYTES: usize = 512;

    /// The record of a job, from its message.
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
            depends_on: message.parents().to_vec(),
            on_parent_failure: message.parent_wait().map(|wait| wait.on_failure).unwrap_or_default(),
            delay: Duration::ZERO,
            takes: Box::default(),
            dead_lettered: false,
            starts: 0,
            solo: 0,
            awaited: message.is_awaited(),
            unique_key: message.unique().map(|unique| unique.key.clone()),
            message: None,
            other: Vec::new(),
        }
    }

    /// The record of a job whose message is unreadable.
    #[must_use]
    pub fn unreadable(id: JobId, queue: impl Into<Name>, status: Status) -> Self {
        Self { arguments: None, ..Self::of(&Message::unreadable(id, queue), status) }
    }

    /// The record of a job that waits for a rerun. Replaces the record of the run before.
    pub(crate) fn waiting(message: &Message, before: Self) -> Self {
        let mut waiting = Self::of(message, Status::Pending);
        if let Some(history) = History::of(before) {
            history.fill(&mut waiting);
        }
        waiting
    }

    /// The record that replaces the record of a removed job for a while. It makes a late write of a
    /// run of that job fail, which expects no record.
    pub(crate) fn removed(record: &Self) -> Self {
        let unreadable = Self::unreadable(record.id.clone(), record.queue.clone(), Status::Pending);
        Self { kicked_at: record.kicked_at, attempt: 0, ..unreadable }
    }

    /// True if the job was removed. Everywhere but in the store such a record counts as absent; the
    /// next kick under that id follows it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.attempt == 0 && self.is_unstarted()
    }

    /// True if the record only says that this message waits, and no worker has started it.
    pub(crate) fn is_waiting(&self, message: &Message) -> bool {
        self.is_unstarted() && (self.kicked_at, self.attempt) == (message.kicked_at, message.attempt)
    }

    /// True if the record is the one that this message comes after: it says that the message waits,
    /// or it announced the message as the next run. It may have been written again since, with a
    /// note of a client in it.
    pub(crate) fn precedes(&self, message: &Message) -> bool {
        let announces = match self.status {
            Status::Retrying => self.attempt.checked_add(1) == Some(message.attempt),
            Status::Scheduled => self.attempt == message.attempt && self.run_at == message.run_at,
            _ => return self.is_waiting(message),
        };
        announces && self.kicked_at == message.kicked_at
    }

    /// Takes over what others have noted on an earlier record of the job.
    pub(crate) fn adopt_notes(&mut self, earlier: &Self) {
        self.awaited |= earlier.awaited;
        self.other.clone_from(&earlier.other);
    }

    /// True if the record is of a removed job, and the message is of another kick of its id.
    pub(crate) fn is_removed_before(&self, message: &Message) -> bool {
        self.is_removed() && self.kicked_at != message.kicked_at
    }

    /// True if the job waits for a rerun. A job that a worker gave back counts as started.
    pub(crate) fn is_unstarted(&self) -> bool {
        self.status == Status::Pending && self.worker_id.is_none()
    }

    /// True if the jobs that this one waited for have ended, and its message is about to be kicked:
    /// the record holds that message.
    pub(crate) fn is_released(&self) -> bool {
        self.is_unstarted() && self.attempt > 0 && self.message.is_some()
    }

    /// Adds a failure. The first and the latest ones are kept.
    pub fn push_error(&mut self, error: AttemptError) {
        self.errors.push(error);
        let size = |errors: &[AttemptError]| errors.iter().map(|error| error.error.size()).sum::<usize>();
        while self.errors.len() > 2
            && (self.errors.len() > Self::MAX_ERRORS || size(&self.errors) > Self::MAX_ERRORS_BYTES)
        {
            self.errors.remove(1);
        }
    }

    /// Adds a log line. The latest ones are kept.
    pub fn push_log(logs: &mut Vec<LogLine>, mut line: LogLine) {
        Self::cut(&mut line.line);
        logs.push(line);
        let surplus = logs.len().saturating_sub(Self::MAX_LOGS);
        logs.drain(..surplus);
    }

    /// Cuts text of the body to [`MAX_LOG_BYTES`](Self::MAX_LOG_BYTES).
    pub(crate) fn cut(text: &mut String) {
        if text.len() > Self::MAX_LOG_BYTES {
            let end = (0..=Self::MAX_LOG_BYTES).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text.shrink_to_fit();
        }
    }
}

/// Failures, progress and log of the runs so far, and what others have noted on the record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    errors: Vec<AttemptError>,
    progress: Option<Box<Progress>>,
    logs: Vec<LogLine>,
    depends_on: Vec<JobId>,
    on_parent_failure: OnParentFailure,
    awaited: bool,
    other: Vec<(Box<str>, Bytes)>,
}

impl History {
    /// The history in a record; `None` if it is empty.
    pub(crate) fn of(record: JobRecord) -> Option<Box<Self>> {
        let JobRecord { errors, progress, logs, depends_on, on_parent_failure, awaited, other, .. } = record;
        let history = Self { errors, progress, logs, depends_on, on_parent_failure, awaited, other };
        (history != Self::default()).then(|| Box::new(history))
    }

    /// Copies the history into the record of a later run.
    pub(crate) fn fill(&self, record: &mut JobRecord) {
        record.errors.clone_from(&self.errors);
        record.progress.clone_from(&self.progress);
        record.logs.clone_from(&self.logs);
        if !self.depends_on.is_empty() {
            // The message carries only the first ones.
            record.depends_on.clone_from(&self.depends_on);
            record.on_parent_failure = self.on_parent_failure;
        }
        record.awaited |= self.awaited;
        record.other.clone_from(&self.other);
    }
}

/// A failed attempt in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Time of the failure.
    pub at: Timestamp,
    /// Worker of the attempt.
    pub worker_id: Option<Name>,
    /// Reason of the failure.
    pub reason: Reason,
    /// Error of the attempt.
    pub error: JobError,
}

/// Progress that a body reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Note on the current step.
    pub note: Option<String>,
}

/// A log line of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Time of the line.
    pub at: Timestamp,
    /// Text of the line.
    pub line: String,
}
