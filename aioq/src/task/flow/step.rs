//! A task of a flow, with the arguments that are known before its kick.

use std::any::type_name;
use std::fmt;

use super::super::{Task, TaskOptions};
use super::takes::TakesFirst;
use crate::codec::{ArgsEncoder, Arguments, Codec, Param};
use crate::error::Result;
use crate::sync::Lock;

/// A task with the arguments that it does not take from other jobs.
pub struct Step {
    pub(super) task: &'static str,
    /// Path of the task in the program.
    path: &'static str,
    pub(super) options: &'static TaskOptions,
    pub(super) params: &'static [Param],
    /// True if it was named by something else than its constructor.
    pub(super) is_misnamed: bool,
    arguments: Box<dyn Encode>,
}

impl Step {
    /// A task with all its arguments.
    pub(super) fn with_all<T: Task>(args: T::Args) -> Self {
        Self::new::<T>(All::<T>(Lock::new(args)))
    }

    /// A task whose arguments all come from other jobs. `F` is the function that names it.
    pub(super) fn without<T: Task, F>() -> Self {
        Self { is_misnamed: !is_constructor::<T, F>(), ..Self::new::<T>(Nothing) }
    }

    /// A task whose first argument comes from another job.
    pub(super) fn with_rest<T: TakesFirst>(rest: T::Rest) -> Self {
        Self::new::<T>(AllButFirst::<T>(Lock::new(rest)))
    }

    fn new<T: Task>(arguments: impl Encode + 'static) -> Self {
        Self {
            task: T::NAME,
            path: type_name::<T>(),
            options: &T::OPTIONS,
            params: T::PARAMS,
            is_misnamed: false,
            arguments: Box::new(arguments),
        }
    }

    /// The task as code names it.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit("::").next().unwrap_or(self.path)
    }

    pub(super) fn encode(&self, codec: Codec) -> Result<Arguments> {
        let mut out = ArgsEncoder::new(codec);
        let encoded = self.arguments.encode(&mut out);
        encoded.map_err(|error| error.context(format_args!("task `{}`", self.task)))?;
        Ok(out.finish())
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("task", &self.task).finish_non_exhaustive()
    }
}

/// True if a function is the constructor of the task, which has the same path. Another function or
/// a closure would never be called, and what it does to the arguments would be lost.
fn is_constructor<T: Task, F>() -> bool {
    let after = type_name::<F>().strip_prefix(type_name::<T>());
    after.is_some_and(|rest| rest.is_empty() || rest.starts_with('<') || rest.starts_with("::<"))
}

/// Arguments that are encoded at the kick, when the codec is known.
trait Encode: Send + Sync {
    fn encode(&self, out: &mut ArgsEncoder) -> Result<()>;
}

/// All arguments of a task. The lock lets them be shared without being `Sync`.
struct All<T: Task>(Lock<T::Args>);

impl<T: Task> Encode for All<T> {
    fn encode(&self, out: &mut ArgsEncoder) -> Result<()> {
        T::encode(&self.0.lock(), out)
    }
}

/// All arguments of a task but the first one.
struct AllButFirst<T: TakesFirst>(Lock<T::Rest>);

impl<T: TakesFirst> Encode for AllButFirst<T> {
    fn encode(&self, out: &mut ArgsEncoder) -> Result<()> {
        T::encode_rest(&self.0.lock(), out)
    }
}

struct Nothing;

impl Encode for Nothing {
    fn encode(&self, _out: &mut ArgsEncoder) -> Result<()> {
        Ok(())
    }
}
