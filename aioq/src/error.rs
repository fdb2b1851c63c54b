//! What can go wrong: [`Error`] for the caller of aioq, [`TaskError`] for the body of a task.

mod job;
mod reason;
mod task;

use std::borrow::Cow;
use std::fmt;

pub use self::job::JobError;
pub use self::reason::Reason;
pub use self::task::{AfterFailure, BoxError, TaskError, TaskResult};
use crate::message::JobId;

/// The result of everything that talks to a broker or a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with a [kind](ErrorKind) for programs and a sentence for people.
///
/// ```
/// use aioq::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "no such job").with_id("42".into());
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.to_string(), "job `42`: no such job");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    id: Option<JobId>,
    job: Option<JobError>,
    source: Option<BoxError>,
}

/// What a program can tell errors apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong or missing; the message says which one.
    Config,
    /// `.kiq()` found no client: none in scope and none installed.
    NoClient,
    /// The backend is used before `startup` or after `shutdown`.
    NotStarted,
    /// The server cannot be reached, or the connection broke.
    Connection,
    /// The server did not answer within the deadline. The outcome is unknown; a kick may be repeated
    /// under the same id.
    Deadline,
    /// The backend has no room: the storage of the server, of the account, or of a stream is full. Nothing was
    /// stored; the same works once there is room.
    StorageFull,
    /// The server does not permit it to this user; the message names the subject. It takes a change of the rights to
    /// help, so nothing is tried again.
    Permission,
    /// The message or the result is larger than the limit; nothing was sent.
    TooLarge,
    /// An argument or an option does not fit; nothing was sent.
    InvalidArgument,
    /// No task of that name is registered here.
    UnknownTask,
    /// A value could not be encoded.
    Encode,
    /// Bytes could not be decoded.
    Decode,
    /// There is no job under that id: it never existed, or its record is gone.
    NotFound,
    /// The job has not ended yet.
    NotReady,
    /// The job was not started in time and was given up.
    Expired,
    /// The job ended as failed; [`Error::job_error`] tells how.
    JobFailed,
    /// The job was cancelled.
    Cancelled,
    /// A conditional write lost: somebody else wrote first.
    Conflict,
    /// The backend cannot do this, or was set up without it.
    Unsupported,
    /// Anything else the backend reports.
    Backend,
}

impl Error {
    /// An error of `kind`; the message is a lowercase sentence without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), id: None, job: None, source: None }))
    }

    /// The same error, about this job.
    #[must_use]
    pub fn with_id(mut self, id: JobId) -> Self {
        self.0.id = Some(id);
        self
    }

    /// The same error, caused by `source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, with more said in front: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message).into();
        self
    }

    pub(crate) fn with_job_error(mut self, job: JobError) -> Self {
        self.0.job = Some(job);
        self
    }

    /// What a program can tell errors apart by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the backend was away, too slow or full, so that the same may work later.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connection | ErrorKind::Deadline | ErrorKind::StorageFull)
    }

    /// The job that the error is about. On a kick that was not confirmed, the id that a repeated kick
    /// should use.
    #[must_use]
    pub fn id(&self) -> Option<&JobId> {
        self.0.id.as_ref()
    }

    /// How the job failed, for [`ErrorKind::JobFailed`].
    #[must_use]
    pub fn job_error(&self) -> Option<&JobError> {
        self.0.job.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.0.id {
            write!(f, "job `{id}`: ")?;
        }
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The source's own text is part of this one's, so its cause comes next.
        self.0.source.as_ref().and_then(|source| source.source())
    }
}

/// Foreign text as an error message quotes it: cut after 64 bytes.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    const MAX_BYTES: usize = 64;

    if text.len() <= MAX_BYTES {
        return text.into();
    }
    let end = (0..=MAX_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end]).into()
}
