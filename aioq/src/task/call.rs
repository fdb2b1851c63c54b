//! A task bound to arguments, not yet sent.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task;

use crate::client::Client;
use crate::client::KickOptions;
use crate::codec::{ArgsEncoder, Codec};
use crate::error::Result;
use crate::jobs::TaskHandle;
use crate::message::{JobId, Label, Message, Name};
use crate::task::{RunHere, Task};
use crate::time::{IntoDuration, IntoTimestamp, Timestamp};

/// A task bound to arguments: what calling an annotated function returns.
///
/// Nothing happens until it is kicked with [`kiq`](Self::kiq) (a worker runs it) or awaited (the body runs here,
/// as the plain function would). A call with options can only be kicked: a body that runs here has no queue, no
/// delay and no retries, so awaiting such a call does not compile.
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
/// `S` is [`Plain`], or [`WorkerOnly`] for a task with `#[inject]` parameters, until the first option is set, and
/// [`Configured`] from then on. Code that sets options only in some cases collects them in [`KickOptions`] and gives
/// them to [`options`](Self::options).
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

/// A call that may be awaited. None with options is; the trait is there to say so.
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

    /// Kicks to this queue instead of the task's own.
    pub fn queue(self, queue: impl Into<Name>) -> Call<T, Configured> {
        self.with(|options| options.queue(queue))
    }

    /// 0 to 9, lower first; 5 unless the task says otherwise.
    pub fn priority(self, priority: u8) -> Call<T, Configured> {
        self.with(|options| options.priority(priority))
    }

    /// Runs no earlier than this long after the kick: a [`Duration`](std::time::Duration) or text like `"5m"`.
    pub fn delay(self, delay: impl IntoDuration) -> Call<T, Configured> {
        self.with(|options| options.delay(delay))
    }

    /// Runs no earlier than then.
    pub fn at(self, time: impl IntoTimestamp) -> Call<T, Configured> {
        self.with(|options| options.at(time))
    }

    /// Expires if it has not been started this long after it was due.
    pub fn ttl(self, ttl: impl IntoDuration) -> Call<T, Configured> {
        self.with(|options| options.ttl(ttl))
    }

    /// One attempt may take this long.
    pub fn timeout(self, timeout: impl IntoDuration) -> Call<T, Configured> {
        self.with(|options| options.timeout(timeout))
    }

    /// Retries after the first run; how long to wait is up to the task.
    pub fn retries(self, max: u32) -> Call<T, Configured> {
        self.with(|options| options.retries(max))
    }

    /// Adds a label, which the body, middlewares and tools can read.
    pub fn label(self, name: impl Into<String>, value: impl Into<Label>) -> Call<T, Configured> {
        self.with(|options| options.label(name, value))
    }

    /// Kicks under an id of your choice: if a job of that id exists, nothing is added, and the handle is that
    /// job's ([`TaskHandle::existing`]). The id is free again once that job's record is gone.
    pub fn id(self, id: impl Into<JobId>) -> Call<T, Configured> {
        self.with(|options| options.id(id))
    }

    /// Sets all options at once, in place of those that were set before.
    pub fn options(self, options: KickOptions) -> Call<T, Configured> {
        self.with(|_| options)
    }

    pub(crate) fn configured(self) -> Call<T, Configured> {
        self.with(|options| options)
    }

    fn with(self, change: impl FnOnce(KickOptions) -> KickOptions) -> Call<T, Configured> {
        Call { args: self.args, options: change(self.options), state: PhantomData }
    }

    /// Kicks the call through the client in scope (inside a worker, the worker's), or else the installed one.
    ///
    /// Resolves once the broker has confirmed the job.
    ///
    /// # Errors
    /// - [`NoClient`](crate::ErrorKind::NoClient): no client is in scope and none is installed.
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument), [`Encode`](crate::ErrorKind::Encode),
    ///   [`TooLarge`](crate::ErrorKind::TooLarge): the call cannot be sent as it is; nothing was.
    /// - [`Connection`](crate::ErrorKind::Connection), [`Deadline`](crate::ErrorKind::Deadline): not confirmed in time. The
    ///   error carries the id, and kicking again under it is safe.
    /// - [`StorageFull`](crate::ErrorKind::StorageFull): the broker has no room; the error says what is full.
    pub async fn kiq(self) -> Result<TaskHandle<T::Output>> {
        Client::current()?.kiq(self).await
    }

    /// [`kiq`](Self::kiq) for code that cannot await, such as the body of a blocking task. Blocks its thread
    /// until the broker has confirmed the job, so it is not for async code.
    ///
    /// # Errors
    /// As [`kiq`](Self::kiq).
    pub fn kiq_blocking(self) -> Result<TaskHandle<T::Output>> {
        Client::current()?.kiq_blocking(self)
    }

    /// The message to send, kicked `now`, with `id` unless the call has one of its own.
    pub(crate) fn into_message(
        self,
        codec: Codec,
        id: impl FnOnce() -> JobId,
        now: Timestamp,
    ) -> Result<Message> {
        let mut encoder = ArgsEncoder::new(codec);
        let encoded = T::encode(&self.args, &mut encoder);
        encoded.map_err(|error| error.context(format_args!("task `{}`", T::NAME)))?;
        self.options.into_message(Name::from_static(T::NAME), Some(&T::OPTIONS), encoder.finish(), id, now)
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

/// Never: no call with options is `Awaitable`. The compiler then says so, instead of that there is no future.
impl<T: Task> Future for Call<T, Configured>
where
    Configured: Awaitable<T>,
{
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<T::Output> {
        task::Poll::Pending
    }
}

/// Never: a task with `#[inject]` parameters is not [`RunHere`]. The compiler then says so.
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
