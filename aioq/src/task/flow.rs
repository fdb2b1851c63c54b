//! Flows: jobs that take the results of others.

mod branches;
mod join;
mod step;
mod takes;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task;

pub use self::branches::Branches;
use self::branches::Node;
pub use self::join::{Join, Parents, join};
pub use self::step::Step;
pub use self::takes::{IntoFlow, Rest, Takes, TakesFirst};
use super::{Call, Configured, KickOptions, Task};
use crate::codec::Codec;
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::time::Timestamp;

/// Jobs that wait for each other, of which the last one is a `T`: made by `then` of a call, and
/// kicked as one.
///
/// Options set on a flow are those of its last job. A flow starts once all its jobs are known to
/// the backend, so a crash in the middle of its kick starts none of them.
///
/// ```standalone_crate
/// # use aioq::prelude::*;
/// #[task]
/// async fn fetch(url: &str) -> String {
///     format!("<h1>{url}</h1>")
/// }
///
/// #[task]
/// async fn title(page: String) -> Option<String> {
///     Some(page.strip_prefix("<h1>")?.strip_suffix("</h1>")?.to_owned())
/// }
///
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// # let worker = App::new(Memory::new()).worker().await?;
/// # let client = worker.client().clone();
/// # let running = tokio::spawn(worker.run(std::future::pending()));
/// let handle = client.kiq_flow(fetch("https://a.example").then(title)).await?;
/// assert_eq!(handle.result().await?.as_deref(), Some("https://a.example"));
/// # running.abort();
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
#[must_use = "a flow does nothing until it is kicked with `.kiq()`"]
pub struct Flow<T: Task> {
    /// The jobs before the last one, parents before their children.
    before: Vec<Arc<Node>>,
    last: Node,
    task: PhantomData<fn() -> T>,
}

/// A part of a flow that several jobs wait for: clones are the same jobs.
pub struct Shared<T: Task> {
    branches: Branches,
    task: PhantomData<fn() -> T>,
}

impl<T: Task> Flow<T> {
    fn new(before: Vec<Arc<Node>>, last: Node) -> Self {
        Self { before, last, task: PhantomData }
    }

    /// Lets several jobs wait for the last one of this flow.
    pub fn shared(self) -> Shared<T> {
        Shared { branches: self.into_branches(), task: PhantomData }
    }

    /// Replaces all options of the last job.
    pub fn options(self, options: KickOptions) -> Self {
        self.with(|_| options)
    }

    pub(super) fn with(mut self, change: impl FnOnce(KickOptions) -> KickOptions) -> Self {
        self.last.options = change(std::mem::take(&mut self.last.options));
        self
    }

    /// The messages of all jobs, parents before their children.
    pub(crate) fn into_messages(
        self,
        codec: Codec,
        new_id: impl FnMut() -> JobId,
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        branches::messages(self.before.iter().map(|node| &**node).chain([&self.last]), codec, new_id, now)
    }
}

/// Declares how jobs follow on a job with an output.
macro_rules! goes_on {
    ($(impl[$($generics:tt)*] $type:ty, $output:ty;)*) => {
        $(impl<$($generics)*> $type {
            /// Runs the next job with the output of this one: a task that takes it, as `parse`, or
            /// as `parse::with(..)` if it has further parameters. If this job does not complete,
            /// the next one [fails](crate::error::Reason::Dependency).
            pub fn then<N>(self, next: N) -> $crate::task::flow::Flow<N::Task>
            where
                N: $crate::task::flow::Takes<($output,)>,
            {
                $crate::task::flow::IntoFlow::into_branches(self).then(next)
            }

            /// Runs the next job whatever becomes of this one, with its output or its error.
            pub fn then_settled<N>(self, next: N) -> $crate::task::flow::Flow<N::Task>
            where
                N: $crate::task::flow::Takes<(Result<$output, $crate::error::JobError>,)>,
            {
                $crate::task::flow::IntoFlow::into_branches(self).then_settled(next)
            }

            /// Runs another call whatever becomes of this job. It takes nothing from it.
            pub fn finally<N: $crate::task::Task, S2>(
                self,
                next: $crate::task::Call<N, S2>,
            ) -> $crate::task::flow::Flow<N> {
                $crate::task::flow::IntoFlow::into_branches(self).finally(next)
            }
        })*
    };
}
pub(crate) use goes_on;

goes_on! {
    impl[T: Task, S] Call<T, S>, T::Output;
    impl[T: Task] Flow<T>, T::Output;
    impl[T: Task] Shared<T>, T::Output;
}

impl<T: Task, S> Call<T, S> {
    /// Lets several jobs wait for this one.
    pub fn shared(self) -> Shared<T> {
        Shared { branches: self.into_branches(), task: PhantomData }
    }
}

/// A flow that can be awaited. None is; the trait exists for its error message.
#[diagnostic::on_unimplemented(
    message = "a flow cannot be awaited: its jobs run in workers",
    label = "kick it with `.kiq().await`"
)]
pub trait AwaitableFlow<T> {}

/// Never applies. The compiler then reports that no flow is [`AwaitableFlow`], and not a missing
/// future.
impl<T: Task> Future for Flow<T>
where
    Configured: AwaitableFlow<T>,
{
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<T::Output> {
        task::Poll::Pending
    }
}

impl<T: Task, S> IntoFlow for Call<T, S> {
    type Output = T::Output;

    fn into_branches(self) -> Branches {
        let (args, options) = self.into_parts();
        Branches::root(Step::with_all::<T>(args), options)
    }
}

impl<T: Task> IntoFlow for Flow<T> {
    type Output = T::Output;

    fn into_branches(self) -> Branches {
        Branches::of(self.before, self.last)
    }
}

impl<T: Task> IntoFlow for Shared<T> {
    type Output = T::Output;

    fn into_branches(self) -> Branches {
        self.branches
    }
}

impl<T: Task> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { branches: self.branches.clone(), task: PhantomData }
    }
}

impl<T: Task> fmt::Debug for Flow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("last", &T::NAME)
            .field("before", &self.before.len())
            .finish_non_exhaustive()
    }
}

impl<T: Task> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("last", &T::NAME).finish_non_exhaustive()
    }
}
