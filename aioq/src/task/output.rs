//! What a body returns, as the worker takes it.

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

/// Any error of a body as a [`TaskError`].
#[doc(hidden)]
pub fn fallible<T, E: Into<TaskError>>(output: Result<T, E>) -> TaskResult<T> {
    output.map_err(Into::into)
}

/// The same, never retried unless `when` says so.
#[doc(hidden)]
pub fn fallible_when<T, E: Into<TaskError>>(
    output: Result<T, E>,
    when: impl FnOnce(&E) -> bool,
) -> TaskResult<T> {
    output.map_err(|error| match when(&error) {
        true => error.into(),
        false => error.into().into_fatal(),
    })
}

/// Tells whether a type is a `Result`, behind whatever alias. The inherent constant wins where it exists.
#[doc(hidden)]
pub struct ResultProbe<T>(PhantomData<T>);

impl<T, E> ResultProbe<Result<T, E>> {
    /// It is one.
    pub const IS_RESULT: bool = true;
}

/// See [`ResultProbe`].
#[doc(hidden)]
pub trait IsNotResult {
    /// It is none.
    const IS_RESULT: bool = false;
}

impl<T> IsNotResult for ResultProbe<T> {}
