//! The producer's side: a [`Client`] kicks calls and manages jobs.
//!
//! Each façade adds its own accessor to [`Client`] in its own file: `kiq` in `kiq.rs`, `jobs()` in
//! `jobs.rs`, `queues()` in `queues.rs`, and so on. This module knows none of them.

mod builder;
mod caches;
mod children;
mod current;
mod door;
mod flow;
mod hooks;
mod lifecycle;
mod running_workers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::builder::ClientSettings;
pub use self::builder::{ClientBuilder, DEFAULT_DEADLINE, DEFAULT_MAX_PAYLOAD_BYTES};
pub(crate) use self::caches::{Caches, Listening};
use self::children::{Generations, Unsent};
use self::door::{Door, Outage, SentBulk};
pub use self::hooks::{KickHook, KickNext, Sent};
pub(crate) use self::lifecycle::Handlers;
pub use self::lifecycle::Lifecycle;
use self::running_workers::RunningWorkers;
pub(crate) use self::running_workers::in_handler;
use futures_util::stream::{self, StreamExt as _};

use crate::backend::Backend;
use crate::broker::{Delivery, Demand, Subscription};
pub use crate::bulk::Bulk;
use crate::codec::Codec;
use crate::dependencies::Dependencies;
use crate::error::Result;
use crate::message::{IdGenerator, JobId, Message};
pub use crate::states::States;
use crate::store::{RecordLevel, Retention};
use crate::sync::Lock;
use crate::time::Timestamp;

/// Number of messages of a bulk kick that are in the hands of hooks at a time.
const AT_ONCE: usize = 64;

/// A connection to a backend: kicks calls, and finds and changes jobs, queues and workers.
///
/// Cheap to clone; clones share the connection.
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
    runtime: tokio::runtime::Handle,
    /// Empty after the first shutdown has taken them.
    on_shutdown: Lock<Handlers>,
    workers: RunningWorkers,
    caches: Caches,
}

impl From<Inner> for Client {
    fn from(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl Client {
    /// Connects to a backend with the default settings.
    ///
    /// Tasks of the current runtime hold the connection, which ends with that runtime: each
    /// `#[tokio::test]` has one of its own. A process that forks must connect after the fork, in
    /// each process.
    ///
    /// # Errors
    /// [`Connection`](crate::ErrorKind::Connection) or [`Deadline`](crate::ErrorKind::Deadline) if
    /// the server cannot be reached, [`Config`](crate::ErrorKind::Config) if it is not fit for
    /// aioq; the message says what to do.
    pub async fn connect(backend: impl Into<Backend>) -> Result<Self> {
        Self::builder(backend).connect().await
    }

    /// Connects to a backend with settings of your own.
    pub fn builder(backend: impl Into<Backend>) -> ClientBuilder {
        ClientBuilder::new(backend.into(), ClientSettings::default())
    }

    /// Takes the next job of these queues, or `None` after `timeout`: for tools.
    ///
    /// To run jobs, use a worker: here nothing extends the lease, and nothing writes a record.
    ///
    /// # Errors
    /// The errors of the broker.
    pub async fn dequeue(&self, queues: &[&str], timeout: Duration) -> Result<Option<Delivery>> {
        let mut listener = self.backend().broker.listen(Subscription::new(queues.iter().copied())).await?;
        let next = tokio::time::timeout(timeout, listener.next(Demand { now: 1, prefetch: 0 })).await;
        let delivery = next.unwrap_or(Ok(Vec::new()))?.pop();
        listener.stop().await?;
        Ok(delivery)
    }

    /// Stops the workers that run on this client, runs the shutdown handlers, sends what is not
    /// sent yet, and disconnects. Clones of the client stop working.
    ///
    /// A worker gives back the jobs that it has not started, and lets running jobs finish within
    /// its grace period, as on a signal to stop. This call waits for the worker, at most for the
    /// grace period and ten seconds. A handler of a worker may call it, too; then it does not wait
    /// for that worker.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn shutdown(&self) -> Result<()> {
        self.stop_workers().await;
        let handlers = std::mem::take(&mut *self.0.on_shutdown.lock());
        handlers.end(&Lifecycle::new(self.clone(), States::default())).await;
        self.backend().shutdown().await
    }

    /// The backend of the client.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        self.0.door.backend()
    }

    /// Encoding of the messages that this client writes.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.0.codec
    }

    /// Limit of arguments and of results, in bytes.
    #[must_use]
    pub fn max_payload_bytes(&self) -> usize {
        self.0.door.max_payload_bytes()
    }

    /// Deadline of a request.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.0.door.deadline()
    }

    /// Amount that this client records of jobs.
    #[must_use]
    pub fn records(&self) -> RecordLevel {
        self.0.records
    }

    /// Number and age of the records of ended jobs that this client keeps.
    pub fn retention(&self) -> &Retention {
        self.0.door.retention()
    }

    /// Sends a message through the hooks and the door.
    pub(crate) async fn send(&self, message: Message) -> Result<Sent> {
        let Inner { door, hooks, .. } = &*self.0;
        match &hooks[..] {
            [] => door.send(message).await,
            hooks => hooks::send_through(hooks, door, message).await,
        }
    }

    /// Sends many messages, and passes the result of each to `each`, in order. Items that are
    /// errors already keep their place. Messages that wait for others of them are sent after those.
    pub(crate) async fn send_all(
        &self,
        messages: impl Iterator<Item = Result<Message>>,
        mut each: impl FnMut(Result<Sent>),
    ) {
        let Inner { door, hooks, .. } = &*self.0;
        let mut unsent = Unsent::default();
        let mut bulk = match &hooks[..] {
            [] => {
                let noted = |fate| {
                    unsent.note(&fate);
                    each(fate);
                };
                door.send_all(messages, noted).await
            }
            _ => self.send_each(messages).await,
        };
        if !bulk.children.is_empty() {
            Box::pin(self.send_children(&mut bulk, &mut unsent)).await;
        }
        bulk.fates.into_iter().for_each(each);
    }

    /// Sends messages through the hooks, but for those that wait for others.
    async fn send_each(&self, messages: impl Iterator<Item = Result<Message>>) -> SentBulk {
        enum Step {
            Sent(Sent),
            PutAside(Message),
        }
        let mut bulk = SentBulk::default();
        let steps = messages.map(|message| async {
            match message? {
                child if child.parent_wait().is_some() => Ok(Step::PutAside(child)),
                message => self.send(message).await.map(Step::Sent),
            }
        });
        let mut steps = stream::iter(steps).buffered(AT_ONCE);
        while let Some(step) = steps.next().await {
            match step {
                Ok(Step::PutAside(child)) => bulk.put_aside(child),
                Ok(Step::Sent(sent)) => bulk.fates.push(Ok(sent)),
                Err(error) => bulk.fates.push(Err(error)),
            }
        }
        drop(steps);
        bulk
    }

    /// Sends the messages of a bulk that wait for others, parents before their children. A job
    /// whose parent in the bulk was not kicked is not sent either: kicked again, the bulk is
    /// whole. After an outage nothing more is sent.
    async fn send_children(&self, bulk: &mut SentBulk, unsent: &mut Unsent) {
        let Generations { generations, cyclic } = Generations::of(std::mem::take(&mut bulk.children));
        for (place, error) in cyclic {
            bulk.fates[place] = Err(error);
        }
        let outage = Outage::new(bulk.away);
        bulk.fates.iter().for_each(|fate| unsent.note(fate));
        for generation in generations {
            let (orphans, generation) = unsent.orphans(generation);
            for (place, error) in orphans {
                bulk.fates[place] = Err(error);
            }
            let sends = generation.into_iter().map(async |(place, message)| {
                let id = message.id.clone();
                (place, outage.unless(&id, self.send(message)).await)
            });
            let mut sent = stream::iter(sends).buffer_unordered(AT_ONCE);
            while let Some((place, fate)) = sent.next().await {
                unsent.note(&fate);
                bulk.fates[place] = fate;
            }
        }
    }

    /// Refuses a message that could not be sent, as it is now, with so many bytes more.
    pub(crate) fn check_sealed(&self, message: &Message, room: usize) -> Result<()> {
        self.0.door.check_sealed(message, room)
    }

    /// The dependencies between jobs.
    pub(crate) fn dependencies(&self) -> Dependencies<'_> {
        Dependencies::new(self.backend(), self.retention(), self.max_payload_bytes())
    }

    /// Refuses to work in a process that was forked from the one that connected.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.0.door.check_process()
    }

    pub(crate) fn next_id(&self) -> JobId {
        self.0.ids.next_id()
    }

    /// The runtime that the client connected on.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.0.runtime
    }

    /// The current time, by the clock of this process.
    pub(crate) fn now(&self) -> Timestamp {
        self.backend().now()
    }

    /// True if the backend is part of this process: then it is always there.
    pub(crate) fn in_process(&self) -> bool {
        self.0.door.in_process()
    }

    pub(crate) fn caches(&self) -> &Caches {
        &self.0.caches
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("backend", self.backend()).finish_non_exhaustive()
    }
}
