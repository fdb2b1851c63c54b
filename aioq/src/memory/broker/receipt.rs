//! [`Receipt`] in memory. A delivery whose lease was taken back changes nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::core::Core;
use super::ops::DeliveryTag;
use super::queues::Leases;
use super::waiters::QueueId;
use crate::broker::{Receipt, Replaced};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, JobId};

/// The values that all deliveries of a listener share.
pub(super) struct ListenerShared {
    pub(super) core: Arc<Core>,
    pub(super) leases: Leases,
}

pub(super) struct MemoryReceipt {
    pub(super) shared: Arc<ListenerShared>,
    pub(super) id: JobId,
    pub(super) queue: QueueId,
    pub(super) tag: DeliveryTag,
}

#[async_trait]
impl Receipt for MemoryReceipt {
    fn ack_wait(&self) -> Duration {
        self.shared.leases.ack_wait(self.queue)
    }

    async fn ack(&self) -> Result<()> {
        self.shared.core.ack(self.tag)
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.shared.core.with(|state| state.release(&self.tag, delay))
    }

    async fn extend(&self) -> Result<()> {
        self.shared.core.with(|state| state.extend(&self.tag))
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        if next.id != self.id {
            let message = format!("a message of job `{}` cannot replace a message of another job", next.id);
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_id(self.id.clone()));
        }
        self.shared.core.with(|state| state.replace(&self.tag, next))
    }

    async fn is_newest(&self) -> Result<bool> {
        self.shared.core.with(|state| state.is_newest(&self.tag))
    }
}
