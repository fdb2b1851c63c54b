//! A task with its arguments, not sent yet.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task;

use super::{KickOptions, RunHere, Task};

/// A task with its arguments: the return value of an annotated function.
///
/// A call does nothing until it is kicked with [`kiq`](Self::kiq) (a worker runs it) or awaited
/// (the body runs here, like a plain function). A call with options can only be kicked: a body that
/// runs here has no queue, no delay and no retries, so awaiting such a call does not compile.
///
/// ```
/// #[aioq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(add(1, 2).await, 3);
/// # });
/// ```
///
/// `S` is [`Plain`], or [`WorkerOnly`] for a task with `#[inject]` parameters, until the first
/// option is set, and [`Configured`] from then on. Code that sets options only in some cases
/// collects them in [`KickOptions`] and gives them to [`options`](Self::options).
#[must_use = "a call does nothing until it is kicked with `.kiq()` or awaited"]
pub struct Call<T: Task, S = <T as Task>::Bare> {
    args: T::Args,
    options: KickOptions,
    state: PhantomData<fn() -> S>,
}

/// A [`Call`] without options: it can be kicked or awaited.
#[derive(Clone, Copy, Debug)]
pub struct Plain(());

/// A [`Call`] without options of a task that only a worker can run: it can be kicked.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOnly(());

/// A [`Call`] with options: it can be kicked.
#[derive(Clone, Copy, Debug)]
pub struct Configured(());

/// A call that can be awaited. No call with options is one; the trait exists for its error message.
#[diagnostic::on_unimplemented(
    message = "a call with options cannot be awaited: it would run here, at once, and without them",
    label = "kick it with `.kiq().await`",
    note = "to run the body here, await the call without options"
)]
pub trait Awaitable<T> {}

impl<T: Task, S> Call<T, S> {
    #[doc(hidden)]
    pub fn new(args: T::Args) -> Self {
        Self { args, options: KickOptions::new(), state: PhantomData }
    }

    /// Replaces all options.
    pub fn options(self, options: KickOptions) -> Call<T, Configured> {
        self.with(|_| options)
    }

    pub(crate) fn configured(self) -> Call<T, Configured> {
        self.with(|options| options)
    }

    pub(super) fn with(self, change: impl FnOnce(KickOptions) -> KickOptions) -> Call<T, Configured> {
        Call { args: self.args, options: change(self.options), state: PhantomData }
    }

    /// The arguments and the options.
    pub(crate) fn into_parts(self) -> (T::Args, KickOptions) {
        (self.args, self.options)
    }
}

impl<T: RunHere> IntoFuture for Call<T, Plain> {
    type Output = T::Return;
    type IntoFuture = Pin<Box<dyn Future<Output = T::Return> + Send>>;

    /// Runs the body here.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(T::run_here(self.args))
    }
}

/// Never applies: no call with options is `Awaitable`. The compiler then reports that, and not a
/// missing future.
impl<T: Task> Future for Call<T, Configured>
where
    Configured: Awaitable<T>,
{
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<T::Output> {
        task::Poll::Pending
    }
}

/// Never applies: a task with `#[inject]` parameters is not [`RunHere`]. The compiler then reports
/// that.
impl<T: RunHere> Future for Call<T, WorkerOnly> {
    type Output = T::Return;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<T::Return> {
        task::Poll::Pending
    }
}

impl<T: Task, S> Clone for Call<T, S>
where
    T::Args: Clone,
{
    fn clone(&self) -> Self {
        Self { args: self.args.clone(), options: self.options.clone(), state: PhantomData }
    }
}

impl<T: Task, S> fmt::Debug for Call<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("task", &T::NAME).field("options", &self.options).finish_non_exhaustive()
    }
}
