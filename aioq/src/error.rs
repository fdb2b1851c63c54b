//! Errors: [`Error`] for callers of aioq, [`TaskError`] for the body of a task.

mod job;
mod reason;
mod task;

use std::borrow::Cow;
use std::fmt;

pub use self::job::JobError;
pub use self::reason::Reason;
pub use self::task::{AfterFailure, BoxError, TaskError, TaskResult};
use crate::message::JobId;

/// Result of an operation on a broker or a store.
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

/// Kind of an [`Error`], for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong or missing. The message names it.
    Config,
    /// `.kiq()` found no client: none in scope and none installed.
    NoClient,
    /// The backend is used before `startup` or after `shutdown`.
    NotStarted,
    /// The server cannot be reached, or the connection broke.
    Connection,
    /// The server did not answer within the deadline. The outcome is unknown; the kick can be
    /// repeated under the same id.
    Deadline,
    /// The storage of the server, the account or a stream is full. Nothing was stored. The same
    /// call succeeds once there is space.
    StorageFull,
    /// The server does not permit the request to this user. The message names the subject. An
    /// administrator has to change the rights, so the request is not repeated.
    Permission,
    /// The message or the result is larger than the limit. Nothing was sent.
    TooLarge,
    /// An argument or an option is invalid. Nothing was sent.
    InvalidArgument,
    /// No task of that name is registered in this program.
    UnknownTask,
    /// A value could not be encoded.
    Encode,
    /// Bytes could not be decoded.
    Decode,
    /// There is no job under that id: it never existed, or its record is gone.
    NotFound,
    /// The job has not ended yet.
    NotReady,
    /// The job expired before it was started.
    Expired,
    /// The job failed. [`Error::job_error`] is its error.
    JobFailed,
    /// The job was cancelled.
    Cancelled,
    /// A conditional write was refused: another writer was first.
    Conflict,
    /// The backend does not support this, or was set up without it.
    Unsupported,
    /// Any other error of the backend.
    Backend,
}

impl Error {
    /// An error of `kind`; the message is a lowercase sentence without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), id: None, job: None, source: None }))
    }

    /// The same error, with the id of its job.
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

    /// The same error, with a prefix: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message).into();
        self
    }

    pub(crate) fn with_job_error(mut self, job: JobError) -> Self {
        self.0.job = Some(job);
        self
    }

    /// The kind of the error, for programs.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if the backend was unreachable, too slow or full: the same call may succeed later.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connection | ErrorKind::Deadline | ErrorKind::StorageFull)
    }

    /// The job of the error. On a kick that was not confirmed, the id to use when the kick is
    /// repeated.
    #[must_use]
    pub fn id(&self) -> Option<&JobId> {
        self.0.id.as_ref()
    }

    /// The error of the job, for [`ErrorKind::JobFailed`].
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
        // The message already contains the source's text, so the chain continues with its cause.
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
