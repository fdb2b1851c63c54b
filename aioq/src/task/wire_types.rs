//! Encoding and decoding of the arguments of a task, for generated code.
//!
//! The bounds of a type are checked only where its constant is made. So a type that does not fit
//! gives one error, at the place where it is written.

use crate::codec::{ArgsEncoder, ArgsReader};
use crate::error::{Result, TaskResult};
use crate::task::TaskArgument;

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
