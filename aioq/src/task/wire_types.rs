//! What the generated code knows of the types of a task: how they are encoded and decoded.
//!
//! The bounds of a type are asked for where its constant is made, and nowhere else. So a type that does not fit
//! gives one error, at the place where it is written.

use crate::codec::{ArgsEncoder, ArgsReader, Payload};
use crate::context::Context;
use crate::error::{Result, TaskResult};
use crate::task::{TaskArgument, TaskOutput};

/// Encodes and decodes one parameter.
pub struct ArgumentType<T> {
    encode: fn(&mut ArgsEncoder, &str, &T) -> Result<()>,
    required: fn(&mut ArgsReader<'_>, usize) -> TaskResult<T>,
    optional: fn(&mut ArgsReader<'_>, usize) -> TaskResult<Option<T>>,
}

/// The type of a parameter.
#[doc(hidden)]
pub const fn argument_type<T: TaskArgument>() -> ArgumentType<T> {
    ArgumentType {
        encode: |out, name, value| out.arg(name, value),
        required: |reader, index| reader.required(index),
        optional: |reader, index| reader.optional(index),
    }
}

impl<T> ArgumentType<T> {
    /// Adds an argument to those that travel.
    ///
    /// # Errors
    /// As [`ArgsEncoder::arg`].
    pub fn encode(&self, out: &mut ArgsEncoder, name: &str, value: &T) -> Result<()> {
        (self.encode)(out, name, value)
    }

    /// Reads the argument of parameter `index`.
    ///
    /// # Errors
    /// As [`ArgsReader::required`].
    pub fn required(&self, reader: &mut ArgsReader<'_>, index: usize) -> TaskResult<T> {
        (self.required)(reader, index)
    }

    /// Reads the argument of parameter `index`, or makes its default.
    ///
    /// # Errors
    /// As [`ArgsReader::optional`].
    pub fn or_else(
        &self,
        reader: &mut ArgsReader<'_>,
        index: usize,
        default: impl FnOnce() -> T,
    ) -> TaskResult<T> {
        Ok((self.optional)(reader, index)?.unwrap_or_else(default))
    }
}

/// Encodes what a body returned.
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
