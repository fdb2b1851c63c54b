//! Deliveries, and the operations on them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::message::{Envelope, JobId, Name};
use crate::time::Timestamp;

/// A message that one worker holds until it acks, releases or replaces it, or until `ack_wait`
/// passes.
pub struct Delivery {
    /// Id of the job, known to the broker even if the body is not a message.
    pub id: JobId,
    /// Queue of the message.
    pub queue: Name,
    /// The encoded message. It may be invalid.
    pub body: Bytes,
    /// Number of deliveries of this message, this one included.
    pub deliveries: u32,
    /// Operations on the delivery.
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

/// The operations of a worker on a delivery it holds, like the receipt handle of SQS.
///
/// A receipt does not prove that the lease still holds. Before an act that needs certainty the
/// worker writes the record of the job, conditionally.
#[async_trait]
pub trait Receipt: Send + Sync + 'static {
    /// Lease of the delivery without an extension. The current value, which can change while the
    /// message is held.
    fn ack_wait(&self) -> Duration;

    /// Removes the message. Returns once the ack is on its way, in order with earlier requests.
    /// [`Broker::shutdown`](super::Broker::shutdown) flushes it.
    async fn ack(&self) -> Result<()>;

    /// Gives the message back, to be delivered again after `delay`. Best effort: a broker that
    /// restarts may deliver it earlier.
    async fn release(&self, delay: Duration) -> Result<()>;

    /// Extends the lease by another `ack_wait`.
    ///
    /// Called on [`lease_runtime`](super::lease_runtime) unless the broker is [in
    /// process](super::BrokerInfo::in_process), so it must not depend on the runtime that received
    /// the delivery.
    async fn extend(&self) -> Result<()>;

    /// Replaces this message with `next`, which has the same id, and so acks it.
    ///
    /// Atomic for other clients: one of the two messages is in the broker at any time. Returns
    /// [`Replaced::Lost`] if this message is not the newest of its id any more.
    async fn replace(&self, next: Envelope) -> Result<Replaced>;

    /// True if this is the newest message of its id.
    async fn is_newest(&self) -> Result<bool>;

    /// Time at which the broker made the message ready, by the broker's clock, if known.
    ///
    /// Used for a message that arrives too early by the worker's clock: the broker's clock may be
    /// the right one. `None`, the default, makes the worker's clock decide.
    fn ready_since(&self) -> Option<Timestamp> {
        None
    }

    /// Time to wait before the job is taken over from its last holder.
    ///
    /// `Some` right after the broker was unreachable: the holder may be alive and merely unable to
    /// extend its lease. `None`, the default: an expired lease is proof enough.
    fn holder_unheard(&self) -> Option<Duration> {
        None
    }
}

/// Result of a [`Receipt::replace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The successor is in the broker.
    Done,
    /// This message was not the newest any more. Nothing was added.
    Lost,
}
