//! The values that pass between the core, its inbox, its state and its listeners.

use bytes::Bytes;
use tokio::time::Instant;

use super::waiters::QueueId;
use crate::memory::index::Slot;
use crate::message::{Envelope, JobId, Name};

/// An operation that waits in the inbox until the state is locked.
pub(super) struct PendingOp {
    /// Its place among the operations of all threads.
    pub(super) id: u64,
    pub(super) op: Op,
}

pub(super) enum Op {
    Kick(Incoming),
    Ack(DeliveryTag),
}

/// A message that is about to enter the state.
pub(super) struct Incoming {
    pub(super) envelope: Envelope,
    /// Hash of the job id.
    pub(super) hash: u64,
    /// Time from which it can be delivered, unless the envelope names a later one.
    pub(super) ready_since: Instant,
}

/// Identifies one delivery of one message.
#[derive(Clone, Copy)]
pub(super) struct DeliveryTag {
    pub(super) slot: Slot,
    pub(super) serial: u64,
    pub(super) deliveries: u32,
}

/// A message as the state hands it to a listener.
pub(super) struct HandedOut {
    pub(super) tag: DeliveryTag,
    pub(super) id: JobId,
    pub(super) queue: Name,
    pub(super) queue_id: QueueId,
    pub(super) body: Bytes,
}
