//! Jobs that wait for several others.

use std::fmt;
use std::marker::PhantomData;

use super::Flow;
use super::branches::Branches;
use super::takes::{IntoFlow, Takes};
use crate::error::JobError;
use crate::task::{Call, Task};

/// Several jobs, flows or handles, for a job that waits for all of them: a list of one kind, or a
/// tuple of up to eight.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be joined",
    label = "neither a list nor a tuple of calls, flows and handles",
    note = "join a `Vec` or an array of one kind, or a tuple of up to eight of any kinds"
)]
pub trait Parents {
    /// What the next job takes: a list of outputs, or each output.
    type Out;
    /// The same, each as the `Result` of its job.
    type Settled;

    /// The jobs so far.
    #[doc(hidden)]
    fn into_branches(self) -> Branches;
}

/// Several jobs that the next one waits for: made by [`join`].
#[must_use = "a join does nothing until a job follows, with `.then()`"]
pub struct Join<Out, Settled> {
    branches: Branches,
    types: PhantomData<fn() -> (Out, Settled)>,
}

/// Joins jobs: the next one waits for all of them, and takes their outputs, of a list as one
/// `Vec`, of a tuple each by itself.
///
/// ```standalone_crate
/// # use aioq::prelude::*;
/// use aioq::flow::join;
///
/// #[task]
/// async fn square(n: i64) -> i64 {
///     n * n
/// }
///
/// #[task]
/// async fn total(squares: Vec<i64>) -> i64 {
///     squares.iter().sum()
/// }
///
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// # let worker = App::new(Memory::new()).worker().await?;
/// # let client = worker.client().clone();
/// # let running = tokio::spawn(worker.run(std::future::pending()));
/// let squares: Vec<_> = (1..=10).map(square).collect();
/// let handle = client.kiq_flow(join(squares).then(total)).await?;
/// assert_eq!(handle.result().await?, 385);
/// # running.abort();
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
pub fn join<P: Parents>(parents: P) -> Join<P::Out, P::Settled> {
    Join { branches: parents.into_branches(), types: PhantomData }
}

impl<Out, Settled> Join<Out, Settled> {
    /// Runs the next job with the outputs of these. If one does not complete, the next one
    /// [fails](crate::error::Reason::Dependency).
    pub fn then<N: Takes<Out>>(self, next: N) -> Flow<N::Task> {
        self.branches.then(next)
    }

    /// Runs the next job once all of these have ended, with the output or the error of each.
    pub fn then_settled<N: Takes<Settled>>(self, next: N) -> Flow<N::Task> {
        self.branches.then_settled(next)
    }

    /// Runs another call once all of these have ended. It takes nothing from them.
    pub fn finally<N: Task, S>(self, next: Call<N, S>) -> Flow<N> {
        self.branches.finally(next)
    }
}

impl<Out, Settled> fmt::Debug for Join<Out, Settled> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join").finish_non_exhaustive()
    }
}

impl<P: IntoFlow> Parents for Vec<P> {
    type Out = (Vec<P::Output>,);
    type Settled = (Vec<Result<P::Output, JobError>>,);

    fn into_branches(self) -> Branches {
        Branches::list(self.into_iter().map(P::into_branches))
    }
}

impl<P: IntoFlow, const N: usize> Parents for [P; N] {
    type Out = (Vec<P::Output>,);
    type Settled = (Vec<Result<P::Output, JobError>>,);

    fn into_branches(self) -> Branches {
        Branches::list(self.into_iter().map(P::into_branches))
    }
}

macro_rules! tuples {
    ($($($parent:ident $index:tt)+;)*) => {
        $(
            impl<$($parent: IntoFlow),+> Parents for ($($parent,)+) {
                type Out = ($($parent::Output,)+);
                type Settled = ($(Result<$parent::Output, JobError>,)+);

                fn into_branches(self) -> Branches {
                    Branches::tuple([$(self.$index.into_branches()),+])
                }
            }
        )*
    };
}

tuples! {
    A 0;
    A 0 B 1;
    A 0 B 1 C 2;
    A 0 B 1 C 2 D 3;
    A 0 B 1 C 2 D 3 E 4;
    A 0 B 1 C 2 D 3 E 4 F 5;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
}
