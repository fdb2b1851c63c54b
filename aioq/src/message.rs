//! What travels: a [`Message`] is one attempt of a job, an [`Envelope`] is the message sealed for a broker.

mod id;
mod label;
mod name;
mod priority;

use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::id::check_id;
pub use self::id::{IdGenerator, JobId, UuidV7};
pub(crate) use self::label::check_labels;
pub use self::label::{Label, Labels};

pub use self::name::Name;
pub use self::priority::Priority;
use crate::codec::{ArgsEncoder, Arguments, Codec};
use crate::error::{Error, ErrorKind, Result, excerpt};
use crate::time::Timestamp;

/// The queue of a task that names none.
pub const DEFAULT_QUEUE: &str = "default";

/// The longest queue name and job id, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The longest name of a task, in bytes.
pub const MAX_TASK_NAME_BYTES: usize = 255;

/// How many labels a message has at most. The name of each has up to [`MAX_NAME_BYTES`]; how long their values are is
/// up to the limit of the whole message.
pub const MAX_LABELS: usize = 128;

/// One attempt of a job, readable. On the wire it is a taskiq message, so Python can kick and run it too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The job.
    pub id: JobId,
    /// The name of its task.
    pub task: Name,
    /// The queue it was kicked to.
    pub queue: Name,
    /// Its place among the messages of its queue.
    pub priority: Priority,
    /// Which run this is, from 1.
    pub attempt: u32,
    /// Retries after the first run; `None` leaves it to the task.
    pub max_retries: Option<u32>,
    /// How long one attempt may take; `None` leaves it to the task.
    pub timeout: Option<Duration>,
    /// When the producer kicked the job; of one that is run again by hand, when that was asked for.
    pub kicked_at: Option<Timestamp>,
    /// Not to be run before.
    pub run_at: Option<Timestamp>,
    /// Worthless from then on, if it has not been started.
    pub expires_at: Option<Timestamp>,
    /// When its first attempt failed; of retries whose task limits the time for them (`retry_for`), which is counted
    /// from then on.
    pub first_failed_at: Option<Timestamp>,
    /// The record revision of this id that the message comes after (0: none). A worker reads the record
    /// before it runs such a message: a newer one means that the message is stale.
    pub supersedes: Option<u64>,
    /// Labels of the user's own.
    pub labels: Labels,
    /// The arguments, still encoded.
    pub arguments: Arguments,
}

impl Message {
    /// The first attempt of job `id`: task `task` with `arguments`, on the default queue.
    #[must_use]
    pub fn new(id: JobId, task: impl Into<Name>, arguments: Arguments) -> Self {
        Self {
            id,
            task: task.into(),
            queue: Name::from_static(DEFAULT_QUEUE),
            priority: Priority::default(),
            attempt: 1,
            max_retries: None,
            timeout: None,
            kicked_at: None,
            run_at: None,
            expires_at: None,
            first_failed_at: None,
            supersedes: None,
            labels: Labels::new(),
            arguments,
        }
    }

    /// A stand-in for one that cannot be read: all that the broker knows of it.
    pub(crate) fn unreadable(id: JobId, queue: impl Into<Name>) -> Self {
        let arguments = ArgsEncoder::new(Codec::default()).finish();
        Self { queue: queue.into(), ..Self::new(id, Name::from_static(""), arguments) }
    }

    /// Whether it is too late for a job that never started.
    pub(crate) fn has_expired_unstarted(&self, now: Timestamp) -> bool {
        self.attempt == 1 && self.expires_at.is_some_and(|time| time <= now)
    }
}

/// A sealed message: what a broker has to know, readable, and the rest as bytes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Envelope {
    /// The job.
    pub id: JobId,
    /// Which run of it, from 1.
    pub attempt: u32,
    /// The queue to put it in.
    pub queue: Name,
    /// Its place in the queue.
    pub priority: Priority,
    /// Not to be delivered before.
    pub not_before: Option<Timestamp>,
    /// Worthless from then on. Brokers keep such a message; the worker that gets it records it as expired.
    pub expires_at: Option<Timestamp>,
    /// The encoded [`Message`].
    pub body: Bytes,
}

impl Envelope {
    /// An envelope around bytes that need not be a message, for brokers' tests.
    #[must_use]
    pub fn new(id: JobId, queue: impl Into<Name>, body: impl Into<Bytes>) -> Self {
        Self {
            id,
            attempt: 1,
            queue: queue.into(),
            priority: Priority::default(),
            not_before: None,
            expires_at: None,
            body: body.into(),
        }
    }
}

/// Checks the name of a task.
pub(crate) fn check_task_name(task: &str) -> Result<()> {
    match task.len() {
        1..=MAX_TASK_NAME_BYTES => Ok(()),
        length => {
            let task = excerpt(task);
            let why = format!("a task name has 1 to {MAX_TASK_NAME_BYTES} bytes, `{task}` has {length}");
            Err(Error::new(ErrorKind::InvalidArgument, why))
        }
    }
}

/// Checks a queue name: 1 to [`MAX_NAME_BYTES`] bytes; any characters, backends escape what they must.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for an empty or too long name.
pub fn check_queue_name(queue: &str) -> Result<()> {
    match queue.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        length => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("a queue name has 1 to {MAX_NAME_BYTES} bytes, `{}` has {length}", excerpt(queue)),
        )),
    }
}
