//! The producer's side of a task: its traits, its options, and its calls.

mod call;
mod first_attempt;
pub(crate) mod flow;
mod kick_options;
mod options;
mod output;
mod retry_policy;
mod schedule_options;
mod wire_types;

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::call::{Call, Configured, Plain, WorkerOnly};
pub use self::kick_options::{IntoParents, KickOptions};
pub use self::options::{AckMode, ConstLabel, TaskOptions, UniqueOptions};
pub use self::output::{Fallible, IsNotResult, ResultProbe, fallible, fallible_when};
pub use self::retry_policy::{Backoff, RetryPolicy};
pub(crate) use self::schedule_options::ConstWhen;
pub use self::schedule_options::{Missed, Overlap, ScheduleOptions};
pub use self::wire_types::{ArgumentType, argument_type};
use crate::codec::{ArgsEncoder, Param};
use crate::error::Result;

/// A task as a producer sees it: a name, typed arguments, an output. Implemented by `#[task]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no task",
    note = "annotate the function with `#[aioq::task]`"
)]
pub trait Task: Sized + Send + 'static {
    /// The name that messages carry.
    const NAME: &'static str;
    /// Options of the attribute.
    const OPTIONS: TaskOptions;
    /// Parameters whose arguments are in the message.
    const PARAMS: &'static [Param];
    /// Arguments in the message, in the order of the parameters.
    type Args: Send + 'static;
    /// Output of a successful run.
    type Output: Send + 'static;
    /// The state of a [`Call`](crate::task::Call) without options: [`Plain`](crate::task::Plain),
    /// or [`WorkerOnly`](crate::task::WorkerOnly) if a worker gives some of the parameters.
    type Bare;

    /// Encodes the arguments by name.
    ///
    /// # Errors
    /// Kind [`Encode`](crate::ErrorKind::Encode), naming the argument.
    fn encode(args: &Self::Args, out: &mut ArgsEncoder) -> Result<()>;
}

/// A task that runs without a worker: nothing is injected. Implemented by `#[task]`.
#[diagnostic::on_unimplemented(
    message = "a call to `{Self}` cannot be awaited: its `#[inject]` parameters come from a worker",
    label = "kick it with `.kiq().await`",
    note = "to run the body here, give it everything: `{Self}::call(..)`"
)]
pub trait RunHere: Task {
    /// Return type of the function.
    type Return: Send + 'static;

    /// Runs the body, as the plain function would.
    fn run_here(args: Self::Args) -> impl Future<Output = Self::Return> + Send;
}

/// A type that can be an argument of a task.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a task: it does not travel",
    label = "mark it `#[inject]` if it comes from the worker",
    note = "an argument needs `Serialize`, `DeserializeOwned` and `Send`: derive `serde::Serialize` and `serde::Deserialize`"
)]
pub trait TaskArgument: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> TaskArgument for T {}

/// A type that a task can return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task: it cannot be stored",
    label = "needs `Serialize` and `Send`",
    note = "derive `serde::Serialize` for it"
)]
pub trait TaskOutput: Serialize + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + Send + 'static> TaskOutput for T {}

/// Runs a blocking body that was awaited directly.
#[doc(hidden)]
pub async fn blocking_here<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(body).await {
        Ok(value) => value,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and drops this future.
            Err(_) => std::future::pending().await,
        },
    }
}
