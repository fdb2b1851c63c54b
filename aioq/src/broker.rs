//! The seam that moves messages: [`Broker`], [`Listener`], [`Receipt`].

mod finding;
mod look;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use self::finding::{Finding, Level};
pub use self::look::{Order, Page, QueueDepth, Queued, QueuedFilter, Waiting};
use crate::error::Result;
use crate::message::{Envelope, JobId, Name};
use crate::time::Timestamp;

/// Moves sealed messages from producers to workers.
///
/// A backend implements this, [`JobStore`](crate::store::JobStore) and [`KvStore`](crate::store::KvStore);
/// everything else of aioq is written on the three. `testing::conformance` proves an implementation.
///
/// What every broker promises:
/// - **One newest message per job.** A job is in the broker as at most one current message; a message that
///   was [replaced](Receipt::replace) is never current again.
/// - **At least once.** A confirmed kick is delivered until it is acked, replaced or removed.
/// - **One lease.** A delivery is hidden from others for `ack_wait`; if it is not acked, released or
///   [extended](Receipt::extend) by then, it is delivered again, with a higher `deliveries`.
/// - Every request has a deadline; passing it is an error of kind [`Deadline`](crate::ErrorKind::Deadline).
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// What this broker is and where its limits lie. Answers before `startup` too.
    fn info(&self) -> BrokerInfo;

    /// Connects and declares what the broker needs. Idempotent; everything else fails with
    /// [`NotStarted`](crate::ErrorKind::NotStarted) before it.
    async fn startup(&self) -> Result<()>;

    /// Sends what is still buffered and disconnects. Idempotent. A later `startup` connects anew.
    async fn shutdown(&self) -> Result<()>;

    /// Hands over one message; resolves once the broker has confirmed that it keeps it.
    ///
    /// With [`Expect::Absent`] the message is refused as [`Kicked::Existing`] if any message of the same id
    /// is in the broker, whatever its queue. With [`Expect::Any`] the id is known to be new: the broker need
    /// not look, but a repeated kick of the same envelope must not make a second message; it may be answered
    /// either way. [`Expect::Revision`] means nothing here.
    async fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked>;

    /// Hands over many messages at once; the fate of each, in order.
    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>>;

    /// Starts receiving from queues; they need not exist yet.
    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>>;

    /// The newest message of a job that waits in the broker or is being worked on.
    async fn find(&self, id: &JobId) -> Result<Option<Queued>>;

    /// The messages that a filter lets through, whether they are ready, held, or wait for their time, by their
    /// [position](Queued::position). A page with fewer rows than its limit is the last one. Costs about as much
    /// as the page is long, however many messages there are.
    async fn list(&self, filter: &QueuedFilter, page: Page) -> Result<Vec<Queued>>;

    /// Removes these very messages, not their successors, also if somebody holds them; for each, whether it was
    /// there. A holder is not told: what its receipt does from then on changes nothing, and its replace is
    /// [`Lost`](Replaced::Lost).
    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>>;

    /// The queues that something was kicked to or that were listened to, in the order of their names. One that
    /// nobody used for a month may be forgotten.
    async fn queues(&self) -> Result<Vec<String>>;

    /// How much is in each of these queues; zeros for a queue that nobody used.
    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>>;

    /// Every message that is kicked after this call returned, by whomever, as well as can be: a broken
    /// connection loses some, and a kick that was refused as [`Existing`](Kicked::Existing) may be among them.
    /// Successors by [`replace`](Receipt::replace) may be among them, too. It costs producers nothing while nobody
    /// watches. Dropping the stream ends the watch, and so does a shutdown.
    async fn watch(&self) -> Result<BoxStream<'static, Queued>>;

    /// Finds messages whose time came a while ago and that nobody was given, and has them delivered; how many. For a
    /// broker that may lose sight of them, as when it had no room at that moment. Of all workers one calls this when it
    /// starts, when there is room again, and every five minutes, or more rarely if it takes long. The default finds none.
    async fn recover_overdue(&self) -> Result<u64> {
        Ok(0)
    }

    /// What an operator should know of this broker and its stores: what the loss of a process, of power, of a
    /// disk or of a machine would cost, which settings lose or stop jobs, which limits are near. At least one
    /// finding. It looks and changes nothing but for a trial write that is gone at once, and may take a few seconds.
    async fn examine(&self) -> Result<Vec<Finding>>;
}

/// The receiving end of a [`Broker::listen`], owned by one worker. Dropping it stops it the hard way: what it
/// held comes back after `ack_wait`.
#[async_trait]
pub trait Listener: Send {
    /// The next deliveries in the broker's order: at least one, at most `demand.now`; none once the listener
    /// is stopped. Waits as long as there is nothing.
    ///
    /// The listener may hold up to `demand.prefetch` further deliveries ready for the next call. It keeps their
    /// leases itself until it hands them out, and never hands out one whose lease has passed. One that is not
    /// called for a second or longer gives them back: its worker is full, others may not be.
    ///
    /// Cancel safe: dropping the future loses no message.
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>>;

    /// Stops receiving and gives back at once what was prefetched and not handed out. Idempotent; deliveries
    /// that were handed out stay valid.
    async fn stop(&mut self) -> Result<()>;
}

/// How many deliveries a worker can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Deliveries to hand out now, at least 1.
    pub now: usize,
    /// Deliveries to hold ready beyond those.
    pub prefetch: usize,
}

/// One message on loan: it is this holder's until it is acked, released, replaced, or `ack_wait` passes.
pub struct Delivery {
    /// The job, as the broker knows it; it holds even if the body is no message.
    pub id: JobId,
    /// The queue it came from.
    pub queue: Name,
    /// The encoded message, not necessarily a valid one.
    pub body: Bytes,
    /// How often this message has been delivered, this time included: 1 is the first.
    pub deliveries: u32,
    /// What to do with it.
    pub receipt: Arc<dyn Receipt>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

/// The holder's side of a delivery. Nothing here proves that the lease still holds: who must know, writes the
/// job's record first, conditionally.
#[async_trait]
pub trait Receipt: Send + Sync + 'static {
    /// How long this delivery stays hidden without an extension: the value in force now, which may change
    /// while it is held.
    fn ack_wait(&self) -> Duration;

    /// The job is done with: the message is removed. Returns once the ack is on its way, in order with what
    /// was sent before; [`Broker::shutdown`] flushes it.
    async fn ack(&self) -> Result<()>;

    /// Gives the message back, to be delivered again after `delay` (best effort: a broker that restarts may
    /// deliver it earlier).
    async fn release(&self, delay: Duration) -> Result<()>;

    /// Holds the message for another `ack_wait`. Called on [`lease_runtime`] unless the broker is
    /// [in process](BrokerInfo::in_process), so it must not depend on the runtime that received the delivery.
    async fn extend(&self) -> Result<()>;

    /// Puts `next`, which has the same id, in the place of this message, and acks this one: one step as seen
    /// from outside, and never neither. [`Replaced::Lost`] if this message is no longer the newest of its id.
    async fn replace(&self, next: Envelope) -> Result<Replaced>;

    /// Whether this is still the newest message of its id.
    async fn is_newest(&self) -> Result<bool>;

    /// When the broker made the message ready to be delivered, by its own clock, if it knows. Asked of a message that
    /// comes before its time by the clock of the worker: the broker's clock may be the one that is right. `None`, the
    /// default, means that the worker's counts.
    fn ready_since(&self) -> Option<Timestamp> {
        None
    }

    /// Whether the broker was away just before: whoever held the message may be alive then, and could not say so.
    /// A worker that finds such a job running elsewhere leaves it alone for the time that this returns, to look
    /// again if it still comes. `None`, the default, means that a lease which has passed says enough.
    fn holder_unheard(&self) -> Option<Duration> {
        None
    }
}

/// What a broker is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BrokerInfo {
    /// `memory`, `nats`.
    pub name: &'static str,
    /// Where it is, without passwords.
    pub address: String,
    /// The largest body it takes, in bytes.
    pub max_body_bytes: usize,
    /// Producers and workers share this process and its clock. Leases are then kept on the worker's own
    /// runtime; otherwise on a thread that a body cannot block, unless a test has paused tokio's clock (feature
    /// `testing`): then everything stays on that clock.
    pub in_process: bool,
}

impl BrokerInfo {
    /// A broker called `name` at `address`, in another process, without a limit of its own.
    #[must_use]
    pub fn new(name: &'static str, address: impl Into<String>) -> Self {
        Self { name, address: address.into(), max_body_bytes: usize::MAX, in_process: false }
    }

    /// The largest body it takes, in bytes.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Producers and workers share this process and its clock.
    #[must_use]
    pub fn in_process(mut self) -> Self {
        self.in_process = true;
        self
    }
}

/// What a worker wants to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// The queues, without repetition.
    pub queues: Vec<String>,
    /// How long a delivery stays hidden from others without an extension. One value per queue: the first
    /// listener of a queue sets it, `None` adopts what is set, or 30 s. More
    /// than [`MAX_ACK_WAIT`] is refused or cut down to that.
    pub ack_wait: Option<Duration>,
}

impl Subscription {
    /// Wants these queues, with the `ack_wait` that they have.
    pub fn new<Q: Into<String>>(queues: impl IntoIterator<Item = Q>) -> Self {
        Self { queues: queues.into_iter().map(Into::into).collect(), ack_wait: None }
    }

    /// Wants deliveries to stay hidden that long.
    #[must_use]
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = Some(ack_wait);
        self
    }
}

/// How long a delivery stays hidden unless somebody says otherwise.
pub const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// The longest that a delivery stays hidden: a day.
pub const MAX_ACK_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// Nothing is there.
    Absent,
    /// That revision is there.
    Revision(u64),
}

/// What became of a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kicked {
    /// The message is in the broker.
    New,
    /// A message of that id was there already; nothing was added.
    Existing,
}

/// What became of a [`Receipt::replace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The successor is in the broker.
    Done,
    /// This message was not the newest any more; nothing was added.
    Lost,
}

/// The runtime on a thread of its own where leases are extended, so that a task body which blocks its thread
/// cannot cost a job its lease. A broker opens the connection that [`Receipt::extend`] uses here.
///
/// Workers also give their signs of life there, and hear there what they must not start: of a
/// [`KvStore`](crate::store::KvStore), those requests. A store that is told apart by its connections asks
/// [`on_lease_runtime`] which one to use.
///
/// One for the process; it lives as long as the process.
#[must_use]
pub fn lease_runtime() -> &'static tokio::runtime::Handle {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Handle> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let run = move || {
            ON_LEASE_RUNTIME.set(true);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("the system grants one more event queue");
            // The receiver waits below, so the handle arrives.
            let _ = sender.send(runtime.handle().clone());
            runtime.block_on(std::future::pending::<()>());
        };
        std::thread::Builder::new()
            .name("aioq-lease".to_owned())
            .spawn(run)
            .expect("the system grants one more thread");
        receiver.recv().expect("the lease thread says hello first")
    })
}

thread_local! {
    static ON_LEASE_RUNTIME: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether the caller runs on [`lease_runtime`], and so must not wait for what a task body may block.
#[must_use]
pub fn on_lease_runtime() -> bool {
    ON_LEASE_RUNTIME.get()
}
