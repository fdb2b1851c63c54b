//! Conversion of the return value of a body.

use std::marker::PhantomData;

use crate::error::{TaskError, TaskResult};

/// The parts of a `Result`, by name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Result`",
    label = "a task marked `fallible`, or whose return type is called `Result`, returns a `std::result::Result`"
)]
pub trait Fallible {
    /// The success.
    type Ok;
    /// The failure.
    type Err;
}

impl<T, E> Fallible for Result<T, E> {
    type Ok = T;
    type Err = E;
}

/// An error that a task can return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a task",
    label = "needs `std::error::Error`, `Send` and `Sync`",
    note = "implement `std::error::Error` for it, or return `aioq::BoxError`, which `?` makes of every such error"
)]
pub trait TaskFailure: Into<TaskError> {}

#[diagnostic::do_not_recommend]
impl<E: Into<TaskError>> TaskFailure for E {}

/// Any error of a body as a [`TaskError`].
#[doc(hidden)]
pub fn fallible<T, E: TaskFailure>(output: Result<T, E>) -> TaskResult<T> {
    output.map_err(Into::into)
}

/// As [`fallible`]; a failure is only retried if `when` returns true. A body that snoozes or
/// cancels has not failed.
#[doc(hidden)]
pub fn fallible_when<T, E: TaskFailure>(
    output: Result<T, E>,
    when: impl FnOnce(&E) -> bool,
) -> TaskResult<T> {
    output.map_err(|error| {
        let again = when(&error);
        let error = error.into();
        if again || !error.is_failure() { error } else { error.into_fatal() }
    })
}

/// Tells a `Result` from other types, behind any alias. The inherent constant wins where it exists.
#[doc(hidden)]
pub struct ResultProbe<T>(PhantomData<T>);

impl<T, E> ResultProbe<Result<T, E>> {
    /// True: the type is a `Result`.
    pub const IS_RESULT: bool = true;
}

/// See [`ResultProbe`].
#[doc(hidden)]
pub trait IsNotResult {
    /// False: the type is not a `Result`.
    const IS_RESULT: bool = false;
}

impl<T> IsNotResult for ResultProbe<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::AfterFailure;
    use std::time::Duration;

    #[test]
    fn a_predicate_on_errors_decides_on_failures_alone() {
        let after = |error, when: bool| {
            fallible_when(Err::<(), _>(error), |_: &TaskError| when).unwrap_err().after_failure()
        };
        let hour = Duration::from_secs(3600);
        for when in [true, false] {
            assert_eq!(after(TaskError::snooze(hour), when), AfterFailure::Snooze(hour));
            assert_eq!(after(TaskError::cancel("no longer wanted"), when), AfterFailure::Cancel);
        }
        assert_eq!(after(TaskError::new("no"), true), AfterFailure::Policy);
        assert_eq!(after(TaskError::retry_in(hour, "no"), true), AfterFailure::RetryIn(hour));
        assert_eq!(after(TaskError::retry_in(hour, "no"), false), AfterFailure::Fatal);
    }
}
