//! [`Receipt`] in memory. A loan that was taken back moves nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::desk::Desk;
use super::places::Leases;
use super::seats::QueueId;
use super::state::Loan;
use crate::broker::{Receipt, Replaced};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, JobId};

/// Where the deliveries of one listener come from.
pub(super) struct Source {
    pub(super) desk: Arc<Desk>,
    pub(super) leases: Leases,
}

pub(super) struct MemoryReceipt {
    pub(super) source: Arc<Source>,
    pub(super) id: JobId,
    pub(super) queue: QueueId,
    pub(super) loan: Loan,
}

#[async_trait]
impl Receipt for MemoryReceipt {
    fn ack_wait(&self) -> Duration {
        self.source.leases.ack_wait(self.queue)
    }

    async fn ack(&self) -> Result<()> {
        self.source.desk.ack(self.loan)
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.source.desk.with(|state| state.release(&self.loan, delay))
    }

    async fn extend(&self) -> Result<()> {
        self.source.desk.with(|state| state.extend(&self.loan))
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        if next.id != self.id {
            let message = format!("a message of job `{}` cannot take its place", next.id);
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_id(self.id.clone()));
        }
        self.source.desk.with(|state| state.replace(&self.loan, next))
    }

    async fn is_newest(&self) -> Result<bool> {
        self.source.desk.with(|state| state.is_newest(&self.loan))
    }
}
