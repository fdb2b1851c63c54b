//! What is remembered of a job.

mod json;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{Arguments, Payload, wire};
use crate::error::{Error, ErrorKind, JobError, Reason, Result};
use crate::message::{JobId, Labels, Message, Priority};
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
    pub task: String,
    /// The queue it was kicked to.
    pub queue: String,
    /// The arguments; `None` if they were left out because they were too large.
    pub arguments: Option<Arguments>,
    /// The user's labels.
    pub labels: Labels,
    /// Its place in the queue.
    pub priority: Priority,
    /// How far it is.
    pub status: Status,
    /// The run it is at, from 1.
    pub attempt: u32,
    /// Retries after the first run.
    pub max_retries: u32,
    /// When it was kicked.
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
    pub worker_id: Option<String>,
    /// What it returned; only of a completed job.
    pub result: Option<Payload>,
    /// How it failed.
    pub error: Option<JobError>,
    /// Why it ended without a result.
    pub reason: Option<Reason>,
    /// The failures of earlier attempts and of this one, oldest first; the first and the latest are kept.
    pub errors: Vec<AttemptError>,
    /// How far the body says it is.
    pub progress: Option<Progress>,
    /// Jobs that it waits for.
    pub depends_on: Vec<JobId>,
    /// Whether it is in the dead letters.
    pub dead_lettered: bool,
    /// Starts of this attempt that have not ended: more than one means that workers died on it.
    pub starts: u32,
    /// The sealed message, kept where the job may be kicked again.
    pub message: Option<Bytes>,
}

impl JobRecord {
    /// How many failures a record keeps at most: the first and the latest.
    pub const MAX_ERRORS: usize = 10;

    /// How large the history of failures gets at most, in bytes: a record must always fit.
    pub const MAX_ERRORS_BYTES: usize = 32 * 1024;

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
            ..Self::unreadable(message.id.clone(), message.queue.clone(), status)
        }
    }

    /// The record of a job whose message tells nothing.
    #[must_use]
    pub fn unreadable(id: JobId, queue: impl Into<String>, status: Status) -> Self {
        Self {
            id,
            task: String::new(),
            queue: queue.into(),
            arguments: None,
            labels: Labels::new(),
            priority: Priority::default(),
            status,
            attempt: 1,
            max_retries: 0,
            kicked_at: None,
            run_at: None,
            started_at: None,
            finished_at: None,
            execution_time: Duration::ZERO,
            worker_id: None,
            result: None,
            error: None,
            reason: None,
            errors: Vec::new(),
            progress: None,
            depends_on: Vec::new(),
            dead_lettered: false,
            starts: 0,
            message: None,
        }
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

    /// Encodes the record, for backends that store bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        wire::encode_record(self)
    }

    /// Decodes a record. Fields that a newer version added are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] for anything that [`to_bytes`](Self::to_bytes) did not write.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self> {
        wire::decode_record(bytes)
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "String")]
#[non_exhaustive]
pub enum Status {
    /// Waits for its time.
    Scheduled,
    /// Waits for other jobs.
    Blocked,
    /// Waits for a worker.
    Pending,
    /// Is being run.
    Running,
    /// Failed, and waits for its next attempt.
    Retrying,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Was not started in time.
    Expired,
    /// Was called off.
    Cancelled,
    /// Something that a newer version knows.
    Unknown,
}

impl Status {
    /// All that this version knows, in the order of a job's life.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Pending,
        Self::Running,
        Self::Retrying,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// Whether a job in that status has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// The status as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Error;

    /// Reads a status, also under the names that other frameworks give it.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "scheduled" | "delayed" | "deferred" => Self::Scheduled,
            "blocked" => Self::Blocked,
            "pending" | "waiting" | "queued" => Self::Pending,
            "running" | "active" | "in_progress" => Self::Running,
            "retrying" => Self::Retrying,
            "completed" | "complete" | "success" => Self::Completed,
            "failed" | "dead" => Self::Failed,
            "expired" => Self::Expired,
            "cancelled" | "canceled" => Self::Cancelled,
            _ => {
                let known = Self::ALL.map(Self::as_str).join(", ");
                let message = format!("`{text}` is no status, expected one of {known}");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        })
    }
}

impl From<String> for Status {
    /// For records: what a newer version wrote is no error.
    fn from(text: String) -> Self {
        text.parse().unwrap_or(Self::Unknown)
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
    pub worker_id: Option<String>,
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
