//! [`Message`], one attempt of a job, and [`Envelope`], a message sealed for a broker.

mod id;
mod label;
mod name;
mod priority;
mod ties;

use std::time::Duration;

use bytes::Bytes;

pub(crate) use self::id::check_id;
pub use self::id::{IdGenerator, JobId, UuidV7};
pub use self::label::{Label, Labels};
pub(crate) use self::label::{check_labels, is_reserved};

pub use self::name::Name;
pub use self::priority::Priority;
pub(crate) use self::ties::{MAX_SENT_PARENTS, ParentWait, Take, TakeOf, Terms};
pub use self::ties::{OnParentFailure, Tick, Ties, UniqueKey, UniqueTie};
use crate::codec::ArgsEncoder;
pub use crate::codec::{Arguments, Codec, Payload};
use crate::error::{Error, ErrorKind, Result, excerpt};
use crate::time::Timestamp;

/// The queue of a task that names no other.
pub const DEFAULT_QUEUE: &str = "default";

/// Maximum length of a queue name and of a job id, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Maximum length of a task name, in bytes.
pub const MAX_TASK_NAME_BYTES: usize = 255;

/// Maximum number of labels of a message. The name of each has up to [`MAX_NAME_BYTES`]; their
/// values count towards the limit of the whole message.
pub const MAX_LABELS: usize = 128;

/// One attempt of a job, decoded. On the wire it is a taskiq message, so Python can kick and run it
/// too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Id of the job.
    pub id: JobId,
    /// Name of the task.
    pub task: Name,
    /// Queue of the job.
    pub queue: Name,
    /// Priority within the queue.
    pub priority: Priority,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Retries after the first attempt; `None` for the task's own number.
    pub max_retries: Option<u32>,
    /// Time limit of one attempt; `None` for the task's own.
    pub timeout: Option<Duration>,
    /// Time of the kick; for a job that was rerun by hand, the time of that request.
    pub kicked_at: Option<Timestamp>,
    /// Earliest time to run it.
    pub run_at: Option<Timestamp>,
    /// Time from which the job is not started any more.
    pub expires_at: Option<Timestamp>,
    /// Time of the first failure, from which a task's `retry_for` counts. Set only on retries of
    /// such a task.
    pub first_failed_at: Option<Timestamp>,
    /// Revision of the record that this message follows; 0 for none. A worker reads the record
    /// before it runs such a message. A newer record means that the message is stale.
    pub supersedes: Option<u64>,
    /// Ties to other things; most messages have none.
    pub ties: Option<Box<Ties>>,
    /// Labels of the user.
    pub labels: Labels,
    /// Encoded arguments.
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
            ties: None,
            labels: Labels::new(),
            arguments,
        }
    }

    /// A stand-in for an unreadable message, with the values that the broker knows.
    pub(crate) fn unreadable(id: JobId, queue: impl Into<Name>) -> Self {
        let arguments = ArgsEncoder::new(Codec::default()).finish();
        Self { queue: queue.into(), ..Self::new(id, Name::from_static(""), arguments) }
    }

    /// True if the job expired before its first attempt started.
    pub(crate) fn has_expired_unstarted(&self, now: Timestamp) -> bool {
        self.attempt == 1 && self.expires_at.is_some_and(|time| time <= now)
    }

    /// The unique key of the job.
    pub(crate) fn unique(&self) -> Option<&UniqueTie> {
        self.ties.as_ref()?.unique.as_ref()
    }

    /// The jobs that must have ended before this one.
    pub(crate) fn parents(&self) -> &[JobId] {
        self.ties.as_ref().map_or(&[], |ties| &ties.parents)
    }

    /// How a new job waits for its parents; `None` if it has none, or waits for them no longer.
    pub(crate) fn parent_wait(&self) -> Option<&ParentWait> {
        self.ties.as_ref()?.wait.as_ref()
    }

    /// True if other jobs are known to wait for the end of this one.
    pub(crate) fn is_awaited(&self) -> bool {
        self.ties.as_ref().is_some_and(|ties| ties.awaited)
    }

    /// The ties, for a change.
    pub(crate) fn ties_mut(&mut self) -> &mut Ties {
        self.ties.get_or_insert_default()
    }

    /// The record revision that the message comes after; 0 stands for no record.
    pub(crate) fn base_revision(&self) -> u64 {
        self.supersedes.unwrap_or(0)
    }
}

/// A sealed message: the values that a broker reads, and the encoded rest.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Envelope {
    /// Id of the job.
    pub id: JobId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Queue of the job.
    pub queue: Name,
    /// Priority within the queue.
    pub priority: Priority,
    /// Earliest time to deliver it.
    pub not_before: Option<Timestamp>,
    /// Time from which the job is not started any more. Brokers deliver an expired message as any
    /// other; the worker records it as expired.
    pub expires_at: Option<Timestamp>,
    /// The encoded [`Message`].
    pub body: Bytes,
}

impl Envelope {
    /// An envelope around any bytes, for tests of brokers.
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

/// Checks a queue name: 1 to [`MAX_NAME_BYTES`] bytes of any text. Backends escape the characters
/// that they cannot use.
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
