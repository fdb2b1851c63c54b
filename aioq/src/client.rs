//! The producer's side: a [`Client`] kicks calls and finds jobs.

mod current;
mod door;
mod heard;
mod holds;
mod lifecycle;

use std::fmt;
use std::future::Future;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use self::door::Door;
pub(crate) use self::door::Sent;
pub use self::door::{KickHook, KickNext, KickOptions};
use self::heard::Heard;
use self::holds::Holds;
pub(crate) use self::holds::in_handler;
pub(crate) use self::lifecycle::Handlers;
pub use self::lifecycle::Lifecycle;
use crate::backend::Backend;
use crate::broker::{Delivery, Demand, Kicked, Subscription};
use crate::codec::{Arguments, Codec};
use crate::dead_letters::DeadLetters;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::jobs::{Jobs, TaskHandle};
use crate::message::{IdGenerator, JobId, Message, UuidV7};
use crate::queues::Queues;
use crate::states::States;
use crate::store::{JobCounts, RecordLevel, Retention};
use crate::task::{Call, Task, TaskDef};
use crate::time::{MAX_SPAN, Timestamp};
use crate::workers::Workers;

/// The largest arguments and results unless somebody says otherwise: 1 MiB.
pub const DEFAULT_MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// How long a request may take unless somebody says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// What a message needs beyond its arguments: names, labels, headers.
const MESSAGE_OVERHEAD_BYTES: usize = 4 * 1024;

/// A connection to a backend, to kick calls and to look at jobs. Cheap to clone; clones are one client.
///
/// ```
/// use aioq::{Client, Memory};
///
/// #[aioq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = Client::connect(Memory::new()).await?;
/// let handle = client.kiq(add(1, 2)).await?;
/// assert!(!handle.is_ready().await?);
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    door: Door,
    hooks: Vec<Arc<dyn KickHook>>,
    codec: Codec,
    ids: Arc<dyn IdGenerator>,
    records: RecordLevel,
    retention: Retention,
    runtime: tokio::runtime::Handle,
    /// Taken by the first shutdown.
    on_shutdown: Mutex<Handlers>,
    /// The workers that run on it.
    holds: Holds,
    /// Who listens to which queue.
    heard: Heard,
    /// The latest that were counted.
    counts: Mutex<Option<JobCounts>>,
}

impl Client {
    /// Connects to a backend with the usual settings.
    ///
    /// The connection is held by tasks of the runtime that this is called on, and lasts as long as it: each
    /// `#[tokio::test]` has one of its own. A process that forks connects after it, in each process.
    ///
    /// # Errors
    /// [`Connection`](ErrorKind::Connection) or [`Deadline`](ErrorKind::Deadline) if the server cannot be
    /// reached, [`Config`](ErrorKind::Config) if it is not fit for aioq; the message says what to do.
    pub async fn connect(backend: impl Into<Backend>) -> Result<Self> {
        Self::builder(backend).connect().await
    }

    /// Connects to a backend with settings of your own.
    pub fn builder(backend: impl Into<Backend>) -> ClientBuilder {
        ClientBuilder {
            backend: backend.into(),
            hooks: Vec::new(),
            codec: Codec::default(),
            ids: Arc::new(UuidV7),
            max_payload_bytes: DEFAULT_MAX_PAYLOAD_BYTES,
            deadline: DEFAULT_DEADLINE,
            records: RecordLevel::default(),
            retention: Retention::default(),
            on_startup: Handlers::default(),
            on_shutdown: Handlers::default(),
        }
    }

    /// Kicks a call; resolves once the broker has confirmed the job.
    ///
    /// # Errors
    /// As [`Call::kiq`].
    pub async fn kiq<T: Task, S>(&self, call: Call<T, S>) -> Result<TaskHandle<T::Output>> {
        let message = call.into_message(self.0.codec, || self.0.ids.next_id(), self.now())?;
        self.kick(message).await
    }

    /// Kicks many calls at once, with one flush, and waits for every confirmation.
    ///
    /// The fate of each call, in order. Kick hooks see each message. While the broker is away, one deadline holds for
    /// all: those that were not sent by then fail at once.
    pub async fn kiq_all<T: Task, S>(
        &self,
        calls: impl IntoIterator<Item = Call<T, S>>,
    ) -> Vec<Result<TaskHandle<T::Output>>> {
        let message = |call: Call<T, S>| call.into_message(self.0.codec, || self.0.ids.next_id(), self.now());
        self.kick_all(calls.into_iter().map(message)).await
    }

    /// Kicks a task by its name, with arguments that are written as a map of names and values: for tools, and
    /// for tasks that live in another program. Nothing is checked against the task.
    ///
    /// # Errors
    /// As [`Call::kiq`].
    pub async fn kiq_by_name(
        &self,
        task: &str,
        args: &(impl Serialize + ?Sized),
        options: KickOptions,
    ) -> Result<TaskHandle<()>> {
        let arguments = Arguments::from_map(self.0.codec, args)?;
        self.kick(self.message_for(None, task, arguments, options)?).await
    }

    /// A message by name, with the options of the task where it is known.
    pub(crate) fn message_for(
        &self,
        task: Option<&TaskDef>,
        name: &str,
        arguments: Arguments,
        options: KickOptions,
    ) -> Result<Message> {
        let (defaults, id) = (task.map(TaskDef::options), || self.0.ids.next_id());
        options.into_message(name.into(), defaults, arguments, id, self.now())
    }

    /// Kicks a call from code that cannot await; blocks its thread.
    ///
    /// # Errors
    /// As [`Call::kiq`].
    pub fn kiq_blocking<T: Task, S>(&self, call: Call<T, S>) -> Result<TaskHandle<T::Output>> {
        // No thread of a forked process would run it.
        self.0.door.check_process()?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let (client, call) = (self.clone(), call.configured());
        self.0.runtime.spawn(async move {
            // The receiver is gone only if the thread gave up waiting.
            let _ = sender.send(client.kiq(call).await);
        });
        let patience = self.deadline() * 3;
        receiver.recv_timeout(patience).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => {
                    let why = "the kick was not confirmed in time, is the runtime blocked?";
                    Error::new(ErrorKind::Deadline, why)
                }
                RecvTimeoutError::Disconnected => {
                    let why =
                        "the runtime that this client connected on has ended: connect on one that lasts";
                    Error::new(ErrorKind::NotStarted, why)
                }
            })
        })
    }

    /// Kicks a message that is ready to go.
    pub(crate) async fn kick<O>(&self, message: Message) -> Result<TaskHandle<O>> {
        let Inner { door, hooks, .. } = &*self.0;
        let sent = match &hooks[..] {
            [] => door.send(message).await?,
            hooks => door.send_through(hooks, message).await?,
        };
        Ok(TaskHandle::kicked(self.clone(), sent))
    }

    /// Kicks many messages that are ready to go; those that failed earlier keep their place.
    pub(crate) async fn kick_all<O>(
        &self,
        messages: impl Iterator<Item = Result<Message>>,
    ) -> Vec<Result<TaskHandle<O>>> {
        if !self.0.hooks.is_empty() {
            let kicks = messages.map(|message| async { self.kick(message?).await });
            return futures_util::future::join_all(kicks).await;
        }
        let mut handles = Vec::with_capacity(messages.size_hint().0);
        let each = |fate: Result<Sent>| handles.push(fate.map(|sent| TaskHandle::kicked(self.clone(), sent)));
        self.0.door.send_all(messages, each).await;
        handles
    }

    /// Looks at jobs and steers them.
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        Jobs::new(self.clone())
    }

    /// Looks at queues, pauses, resumes and empties them.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues::new(self.clone())
    }

    /// Looks at the jobs that were given up.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.clone())
    }

    /// Looks at workers.
    #[must_use]
    pub fn workers(&self) -> Workers {
        Workers::new(self.clone())
    }

    /// The handle of a job that was kicked elsewhere or earlier, whose output is an `O`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job.
    pub async fn handle<O>(&self, id: impl Into<JobId>) -> Result<TaskHandle<O>> {
        let record = self.jobs().get(&id.into()).await?;
        Ok(TaskHandle::kicked(
            self.clone(),
            Sent { id: record.id, queue: record.queue, kicked: Kicked::Existing },
        ))
    }

    /// Takes the next job of these queues, or `None` after `timeout`: for tools. A worker is the better way to
    /// run jobs; here nothing extends the lease, and nobody writes a record.
    ///
    /// # Errors
    /// What the broker reports.
    pub async fn dequeue(&self, queues: &[&str], timeout: Duration) -> Result<Option<Delivery>> {
        let mut listener = self.backend().broker.listen(Subscription::new(queues.iter().copied())).await?;
        let next = tokio::time::timeout(timeout, listener.next(Demand { now: 1, prefetch: 0 })).await;
        let delivery = next.unwrap_or(Ok(Vec::new()))?.pop();
        listener.stop().await?;
        Ok(delivery)
    }

    /// Stops the workers that run on this client, runs the shutdown handlers, sends what is still on its way, and
    /// disconnects. Clones of the client stop working.
    ///
    /// A worker gives back what it has not started and lets running jobs finish within its grace period, as if it had
    /// been told to stop; this call waits for it, no longer than the grace period and ten seconds. Called by a handler
    /// of a worker, it does not wait for that.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn shutdown(&self) -> Result<()> {
        self.stop_workers().await;
        let handlers =
            std::mem::take(&mut *self.0.on_shutdown.lock().unwrap_or_else(PoisonError::into_inner));
        handlers.end(&Lifecycle::new(self.clone(), States::default())).await;
        self.backend().shutdown().await
    }

    /// The backend that the client stands on.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        self.0.door.backend()
    }

    /// How this client writes.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.0.codec
    }

    /// The largest arguments and results, in bytes.
    #[must_use]
    pub fn max_payload_bytes(&self) -> usize {
        self.0.door.max_payload_bytes()
    }

    /// How long a request may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.0.door.deadline()
    }

    /// The time now, by the clock of this process.
    pub(crate) fn now(&self) -> Timestamp {
        self.backend().now()
    }

    /// Whether the backend shares this process, so that it cannot be away.
    pub(crate) fn in_process(&self) -> bool {
        self.0.door.in_process()
    }

    pub(crate) fn known_counts(&self) -> Option<JobCounts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn remember_counts(&self, counts: JobCounts) {
        *self.0.counts.lock().unwrap_or_else(PoisonError::into_inner) = Some(counts);
    }

    /// How much this client writes down of jobs.
    #[must_use]
    pub fn records(&self) -> RecordLevel {
        self.0.records
    }

    /// How much of what ended this client keeps.
    pub fn retention(&self) -> &Retention {
        &self.0.retention
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("backend", self.backend()).finish_non_exhaustive()
    }
}

/// Sets up a [`Client`].
#[must_use = "call `connect`"]
pub struct ClientBuilder {
    backend: Backend,
    hooks: Vec<Arc<dyn KickHook>>,
    codec: Codec,
    ids: Arc<dyn IdGenerator>,
    max_payload_bytes: usize,
    deadline: Duration,
    records: RecordLevel,
    retention: Retention,
    on_startup: Handlers,
    on_shutdown: Handlers,
}

impl ClientBuilder {
    /// Stands around every kick, outside of those added later.
    pub fn hook(self, hook: impl KickHook) -> Self {
        self.shared_hook(Arc::new(hook))
    }

    pub(crate) fn shared_hook(mut self, hook: Arc<dyn KickHook>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Writes messages and results this way; both ways are read.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Draws ids this way.
    pub fn id_generator(mut self, ids: impl IdGenerator) -> Self {
        self.ids = Arc::new(ids);
        self
    }

    /// The largest arguments and results, in bytes; the broker's own limit holds as well.
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = bytes;
        self
    }

    /// How long a request may take; at most [`MAX_SPAN`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(MAX_SPAN);
        self
    }

    /// How much to write down of jobs, for the worker on this client.
    pub fn records(mut self, level: RecordLevel) -> Self {
        self.records = level;
        self
    }

    /// How much to keep of jobs that have ended, for the worker on this client and for the jobs that it calls
    /// off.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Does this when the client has connected. An error keeps it from being used.
    pub fn on_startup<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_startup.add(handler);
        self
    }

    /// Does this before the client disconnects. An error is logged.
    pub fn on_shutdown<F, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(Lifecycle) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.on_shutdown.add(handler);
        self
    }

    pub(crate) fn handlers(mut self, on_startup: Handlers, on_shutdown: Handlers) -> Self {
        (self.on_startup, self.on_shutdown) = (on_startup, on_shutdown);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(mut self) -> Result<Client> {
        if self.records == RecordLevel::None {
            self.backend = self.backend.without_jobs();
        }
        self.backend.startup().await?;
        // Asked after the startup: a server tells its limit when one connects.
        let info = self.backend.broker.info();
        let room = info.max_body_bytes.saturating_sub(MESSAGE_OVERHEAD_BYTES);
        let client = Client(Arc::new(Inner {
            door: Door::new(self.backend, &info, self.max_payload_bytes.min(room), self.deadline),
            hooks: self.hooks,
            codec: self.codec,
            ids: self.ids,
            records: self.records,
            retention: self.retention,
            runtime: tokio::runtime::Handle::current(),
            on_shutdown: Mutex::new(self.on_shutdown),
            holds: Holds::default(),
            heard: Heard::default(),
            counts: Mutex::default(),
        }));
        let started = self.on_startup.start(&Lifecycle::new(client.clone(), States::default())).await;
        if let Err(error) = started {
            // What matters is why it cannot be used.
            let _ = client.shutdown().await;
            return Err(error);
        }
        Ok(client)
    }
}
