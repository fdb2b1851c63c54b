//! The worker's side of an annotated function, for generated code.

use std::future::Future;

use super::Location;
use crate::codec::{Arguments, Payload};
use crate::context::{Context, Need};
use crate::error::TaskResult;
use crate::task::{Task, TaskOutput};

/// A task as a worker sees it. Implemented by `#[task]`.
pub trait RunTask: Task {
    /// True if the body is a plain `fn`, which runs on the blocking pool.
    const BLOCKING: bool;
    /// Place of its definition.
    const LOCATION: Location;
    /// Needs of the injected parameters.
    const NEEDS: &'static [Need];

    /// Decodes the arguments and drops them.
    ///
    /// # Errors
    /// A fatal error that names the argument.
    fn check(arguments: &Arguments) -> TaskResult<()>;

    /// Decodes, injects, runs the body, encodes.
    fn run(ctx: Context) -> impl Future<Output = TaskResult<Payload>> + Send;
}

/// Encodes the output of a body.
pub struct OutputType<T> {
    encode: fn(&Context, &T) -> TaskResult<Payload>,
}

/// The type of a result.
#[doc(hidden)]
pub const fn output_type<T: TaskOutput>() -> OutputType<T> {
    OutputType { encode: |ctx, value| ctx.output(value) }
}

impl<T> OutputType<T> {
    /// Encodes a result.
    ///
    /// # Errors
    /// As [`Context::output`].
    pub fn encode(&self, ctx: &Context, value: &T) -> TaskResult<Payload> {
        (self.encode)(ctx, value)
    }
}
