//! The types of a flow: which task can follow on which jobs.

use std::fmt;

use super::branches::Branches;
use super::step::Step;
use crate::codec::ArgsEncoder;
use crate::error::Result;
use crate::task::{Call, Task};

/// What a job can follow on: a call, a flow, a shared part of one, a handle.
pub trait IntoFlow {
    /// Output of the last job.
    type Output;

    /// The jobs so far.
    #[doc(hidden)]
    fn into_branches(self) -> Branches;
}

/// A task that takes the outputs of the jobs before it, `In`: the name of the task, whose
/// parameters that travel are these, or `task::with(..)`, which gives all others.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not take what the jobs before it return",
    label = "its parameters must be what they return: `{In}`",
    note = "give the name of the task, as `then(parse)`, or `then(parse::with(..))` if it has further parameters"
)]
pub trait Takes<In> {
    /// The task.
    type Task: Task;

    /// The task and its other arguments.
    #[doc(hidden)]
    fn into_step(self) -> Step;
}

/// A task that takes more than one argument, so that the first one may come from another job.
/// Implemented by `#[task]`.
pub trait TakesFirst: Task {
    /// Type of the first argument.
    type First;
    /// The other arguments.
    type Rest: Send + 'static;

    /// Encodes the other arguments by name.
    ///
    /// # Errors
    /// As [`Task::encode`].
    fn encode_rest(rest: &Self::Rest, out: &mut ArgsEncoder) -> Result<()>;
}

/// A task with all its arguments but the first: made by `task::with(..)`, for `then`.
#[must_use = "give it to `then` of a call or a flow"]
pub struct Rest<T: TakesFirst>(T::Rest);

impl<T: TakesFirst> Rest<T> {
    #[doc(hidden)]
    pub fn new(rest: T::Rest) -> Self {
        Self(rest)
    }
}

impl<T: TakesFirst> fmt::Debug for Rest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("task", &T::NAME).finish_non_exhaustive()
    }
}

impl<T: TakesFirst<First = A>, A> Takes<(A,)> for Rest<T> {
    type Task = T;

    fn into_step(self) -> Step {
        Step::with_rest::<T>(self.0)
    }
}

/// The constructor of a task tells the types of its arguments. It is never called.
macro_rules! constructors {
    ($($($argument:ident)+;)*) => {
        $(
            #[diagnostic::do_not_recommend]
            impl<F, T: Task, $($argument),+> Takes<($($argument,)+)> for F
            where
                F: FnOnce($($argument),+) -> Call<T>,
            {
                type Task = T;

                fn into_step(self) -> Step {
                    Step::without::<T, F>()
                }
            }
        )*
    };
}

constructors! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E G;
    A B C D E G H;
    A B C D E G H I;
}
