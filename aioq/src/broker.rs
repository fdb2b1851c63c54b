//! The seam that moves messages: [`Broker`], [`Listener`], [`Receipt`].

mod finding;
mod inspect;
mod lease_runtime;
mod receipt;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use self::finding::{Finding, Level};
pub use self::inspect::{Order, Page, QueueDepth, Queued, QueuedFilter, Waiting};
pub use self::lease_runtime::{lease_runtime, on_lease_runtime};
pub use self::receipt::{Delivery, Receipt, Replaced};
use crate::error::Result;
use crate::message::{Envelope, JobId};

/// Moves sealed messages from producers to workers.
///
/// A backend implements this trait, [`JobStore`](crate::store::JobStore) and
/// [`KvStore`](crate::store::KvStore). All other parts of aioq use these three.
/// `testing::conformance` tests an implementation.
///
/// Every broker guarantees:
/// - **One newest message per job.** The broker has at most one current message of a job. A message
///   that was [replaced](Receipt::replace) never becomes current again.
/// - **At least once.** A confirmed kick is delivered until it is acked, replaced or removed.
/// - **One lease.** A delivery is hidden from other workers for `ack_wait`. Unless it is acked,
///   released or [extended](Receipt::extend) by then, it is delivered again, with a higher
///   `deliveries`.
/// - Every request has a deadline, after which it fails with
///   [`Deadline`](crate::ErrorKind::Deadline).
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Name, address and limits of the broker. Available before `startup`.
    fn info(&self) -> BrokerInfo;

    /// Connects, and declares what the broker needs. Idempotent. Before it, all other methods fail
    /// with [`NotStarted`](crate::ErrorKind::NotStarted).
    async fn startup(&self) -> Result<()>;

    /// Sends buffered data and disconnects. Idempotent. A later `startup` connects again.
    async fn shutdown(&self) -> Result<()>;

    /// Stores one message. Returns once the broker has confirmed it.
    ///
    /// With [`Expect::Absent`] the message is refused as [`Kicked::Existing`] if a message of the
    /// same id is in any queue of the broker. With [`Expect::Any`] the caller knows the id to be
    /// new, and the broker need not check it; a repeated kick of the same envelope must not add a
    /// second message, and may return either result. [`Expect::Revision`] has no meaning here.
    async fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked>;

    /// Stores many messages. Returns their results in order.
    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>>;

    /// Starts receiving from queues, which need not exist yet.
    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>>;

    /// The newest message of a job, waiting or held.
    async fn find(&self, id: &JobId) -> Result<Option<Queued>>;

    /// The messages that a filter selects, ready, held or delayed, by their
    /// [position](Queued::position).
    ///
    /// A page with fewer rows than its limit is the last one. The cost depends on the length of the
    /// page, not on the number of messages.
    async fn list(&self, filter: &QueuedFilter, page: Page) -> Result<Vec<Queued>>;

    /// Removes these messages, even held ones, but not their successors. Returns true for each that
    /// was there.
    ///
    /// The holder of a removed message is not notified. Its receipt changes nothing any more, and
    /// its `replace` returns [`Lost`](Replaced::Lost).
    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>>;

    /// The queues that were kicked to or listened to, in the order of their names. A queue that was
    /// unused for a month may be missing.
    async fn queues(&self) -> Result<Vec<String>>;

    /// Number of messages in each of these queues; zeros for an unknown queue.
    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>>;

    /// A stream of the messages that any client kicks after this call returned.
    ///
    /// Best effort: kicks during a broken connection are lost. Kicks that were refused as
    /// [`Existing`](Kicked::Existing) and successors by [`replace`](Receipt::replace) may be
    /// included. Costs producers nothing while nobody watches. The stream ends at shutdown;
    /// dropping it ends the watch.
    async fn watch(&self) -> Result<BoxStream<'static, Queued>>;

    /// Delivers messages that are overdue and were not delivered, and returns their number.
    ///
    /// For brokers that can lose track of a delayed message, for example when their storage is full
    /// at its time. One worker at a time calls this: at its start, when storage is free again, and
    /// every five minutes, or less often if it takes long. The default finds none.
    async fn recover_overdue(&self) -> Result<u64> {
        Ok(0)
    }

    /// Findings for the operator of this broker and its stores: the cost of losing a process,
    /// power, a disk or a machine; settings that lose or stop jobs; limits that are near. At least
    /// one.
    ///
    /// Changes nothing except for a trial write that it removes at once. May take a few seconds.
    async fn examine(&self) -> Result<Vec<Finding>>;
}

/// The receiving end of a [`Broker::listen`], owned by one worker.
///
/// Dropped without [`stop`](Self::stop), its prefetched messages come back after `ack_wait`.
#[async_trait]
pub trait Listener: Send {
    /// The next deliveries in the broker's order: at least one, at most `demand.now`. Waits while
    /// there are none. Returns an empty list once the listener is stopped.
    ///
    /// The listener may prefetch up to `demand.prefetch` further deliveries for the next call. It
    /// extends their leases until it hands them out, and never hands out one whose lease has ended.
    /// If it is not called for a second, it releases them: its worker is busy, and other workers
    /// may be free.
    ///
    /// Cancel safe: dropping the future loses no message.
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>>;

    /// Stops receiving, and releases the prefetched deliveries at once. Idempotent. Deliveries that
    /// were handed out stay valid.
    async fn stop(&mut self) -> Result<()>;
}

/// Number of deliveries that a worker can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Deliveries to hand out now, at least 1.
    pub now: usize,
    /// Deliveries to prefetch beyond those.
    pub prefetch: usize,
}

/// Description of a broker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BrokerInfo {
    /// Name of the kind: `memory`, `nats`.
    pub name: &'static str,
    /// Address, without passwords.
    pub address: String,
    /// Maximum size of a body, in bytes.
    pub max_body_bytes: usize,
    /// True if producers and workers share this process and its clock. Leases are then kept on the
    /// worker's own runtime, otherwise on [`lease_runtime`], which a body cannot block. In a test
    /// that has paused tokio's clock (feature `testing`) leases always follow that clock.
    pub in_process: bool,
}

impl BrokerInfo {
    /// A broker called `name` at `address`, in another process, without a size limit.
    #[must_use]
    pub fn new(name: &'static str, address: impl Into<String>) -> Self {
        Self { name, address: address.into(), max_body_bytes: usize::MAX, in_process: false }
    }

    /// Maximum size of a body, in bytes.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Marks the broker as one in this process, with its clock.
    #[must_use]
    pub fn in_process(mut self) -> Self {
        self.in_process = true;
        self
    }
}

/// Queues that a worker listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// The queues, without repetition.
    pub queues: Vec<String>,
    /// Lease of a delivery: the time it stays hidden from other workers without an extension.
    ///
    /// One value per queue: its first listener sets it; `None` takes the value that is set, or 30
    /// s. More than [`MAX_ACK_WAIT`] is refused or cut to it.
    pub ack_wait: Option<Duration>,
}

impl Subscription {
    /// Listens to these queues, with the `ack_wait` that they have.
    pub fn new<Q: Into<String>>(queues: impl IntoIterator<Item = Q>) -> Self {
        Self { queues: queues.into_iter().map(Into::into).collect(), ack_wait: None }
    }

    /// Sets the `ack_wait`.
    #[must_use]
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = Some(ack_wait);
        self
    }
}

/// Default of [`Subscription::ack_wait`].
pub const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// Maximum of [`Subscription::ack_wait`]: a day.
pub const MAX_ACK_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Precondition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No precondition.
    Any,
    /// There is no value.
    Absent,
    /// The value has this revision.
    Revision(u64),
}

/// Result of a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kicked {
    /// The message was added.
    New,
    /// A message of that id was there already. Nothing was added.
    Existing,
}
