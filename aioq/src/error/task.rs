//! [`TaskError`]: the error that a body returns, and the worker's reaction to it.

use std::fmt;
use std::time::Duration;

use crate::error::{JobError, Reason};
use crate::time::{IntoDuration, MAX_SPAN};

/// Any error, type erased.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Result of a task that tells the worker how to react to its error.
pub type TaskResult<T> = std::result::Result<T, TaskError>;

/// An error of an attempt, with the worker's reaction to it.
///
/// `?` turns any error into one that follows the task's `retry(..)`. The constructors choose
/// another reaction.
///
/// ```
/// use aioq::{TaskError, TaskResult};
///
/// fn parse(text: &str) -> TaskResult<u8> {
///     if text.is_empty() {
///         return Err(TaskError::fatal("nothing to parse"));
///     }
///     Ok(text.parse::<u8>()?)
/// }
/// assert_eq!(parse("7").unwrap(), 7);
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// assert!(parse("").unwrap_err().is_fatal());
/// ```
pub struct TaskError(Box<Inner>);

struct Inner {
    after: AfterFailure,
    reason: Reason,
    error: JobError,
    source: BoxError,
}

/// The worker's reaction to an attempt that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterFailure {
    /// Follow the task's `retry(..)`.
    Policy,
    /// Retry after this long, while retries are left.
    RetryIn(Duration),
    /// Never retry.
    Fatal,
    /// Run the same attempt again after this long; no attempt is spent.
    Snooze(Duration),
    /// End the job as cancelled.
    Cancel,
}

impl TaskError {
    /// Fails the attempt; the task's `retry(..)` decides what follows.
    pub fn new<E: Into<BoxError>>(error: E) -> Self {
        Self::with_after::<E>(AfterFailure::Policy, error)
    }

    /// Fails the attempt and retries after `delay`, while the task has retries left.
    ///
    /// A `delay` that is not a duration fails the job for good. One beyond [`MAX_SPAN`] is cut to
    /// it.
    pub fn retry_in<E: Into<BoxError>>(delay: impl IntoDuration, error: E) -> Self {
        match delay.into_duration() {
            Ok(delay) => Self::with_after::<E>(AfterFailure::RetryIn(delay.min(MAX_SPAN)), error),
            Err(bad) => Self::fatal(bad),
        }
    }

    /// Fails the job for good, regardless of its `retry(..)`.
    pub fn fatal<E: Into<BoxError>>(error: E) -> Self {
        Self::with_after::<E>(AfterFailure::Fatal, error)
    }

    /// Runs the attempt again after `delay`. Spends no attempt.
    ///
    /// A `delay` that is not a duration fails the job for good. One beyond [`MAX_SPAN`] is cut to
    /// it.
    pub fn snooze(delay: impl IntoDuration) -> Self {
        match delay.into_duration() {
            Ok(delay) => {
                Self::with_after::<String>(AfterFailure::Snooze(delay.min(MAX_SPAN)), "snoozed".to_owned())
            }
            Err(bad) => Self::fatal(bad),
        }
    }

    /// Ends the job as cancelled, with `why` as its error message.
    pub fn cancel(why: impl Into<String>) -> Self {
        Self::with_after::<String>(AfterFailure::Cancel, why.into())
    }

    fn with_after<E: Into<BoxError>>(after: AfterFailure, error: E) -> Self {
        let source = error.into();
        Self(Box::new(Inner { after, reason: Reason::Error, error: JobError::of::<E>(&*source), source }))
    }

    /// An error with only a description, as after a panic or a timeout.
    pub(crate) fn described(after: AfterFailure, reason: Reason, error: JobError) -> Self {
        let source = error.message.clone().into();
        Self(Box::new(Inner { after, reason, error, source }))
    }

    /// Kind of the failure: an error that the body returned, a panic, a timeout, bad arguments.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The worker's reaction.
    #[must_use]
    pub fn after_failure(&self) -> AfterFailure {
        self.0.after
    }

    /// The same error, never retried.
    #[must_use]
    pub fn into_fatal(mut self) -> Self {
        self.0.after = AfterFailure::Fatal;
        self
    }

    /// True if the attempt failed; false for a snooze and a cancel.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self.0.after, AfterFailure::Snooze(_) | AfterFailure::Cancel)
    }

    /// True if the job is not retried, regardless of its `retry(..)`.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.0.after == AfterFailure::Fatal
    }

    /// The error as the record stores it.
    #[must_use]
    pub fn job_error(&self) -> &JobError {
        &self.0.error
    }

    /// The error that the body returned, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.source.downcast_ref()
    }

    pub(crate) fn into_job_error(self) -> JobError {
        self.0.error
    }

    /// Replaces the error that the body returned, and returns it.
    pub(crate) fn take_source(&mut self) -> BoxError {
        std::mem::replace(&mut self.0.source, Box::new(Taken))
    }

    /// Marks the error as a panic of a value that the body left, when it was dropped.
    pub(crate) fn set_panicked(&mut self, message: &str) {
        self.0.reason = Reason::Panic;
        self.0.error.push_cause(&format!("panicked when it was dropped: {message}"));
    }
}

/// Placeholder for an error that was taken out.
#[derive(Debug)]
struct Taken;

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the error was dropped")
    }
}

impl std::error::Error for Taken {}

impl<E: Into<BoxError>> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.error.fmt(f)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskError")
            .field("after", &self.0.after)
            .field("reason", &self.0.reason)
            .field("error", &self.0.error)
            .finish()
    }
}
