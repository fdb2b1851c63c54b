//! [`Receipt`] in memory. A loan that was taken back moves nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Guarded;
use super::places::AckWait;
use super::state::{Loan, State};
use crate::broker::{Receipt, Replaced};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Envelope;

pub(super) struct MemoryReceipt {
    broker: Arc<Guarded<State>>,
    loan: Loan,
    ack_wait: Arc<AckWait>,
}

impl MemoryReceipt {
    pub(super) fn new(broker: Arc<Guarded<State>>, loan: Loan, ack_wait: Arc<AckWait>) -> Self {
        Self { broker, loan, ack_wait }
    }
}

#[async_trait]
impl Receipt for MemoryReceipt {
    fn ack_wait(&self) -> Duration {
        self.ack_wait.get()
    }

    async fn ack(&self) -> Result<()> {
        self.broker.with(|state| state.ack(&self.loan)).map(drop)
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.broker.with(|state| state.release(&self.loan, delay))
    }

    async fn extend(&self) -> Result<()> {
        self.broker.with(|state| state.extend(&self.loan))
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        if next.id != self.loan.id {
            let message = format!("a message of job `{}` cannot take its place", next.id);
            return Err(Error::new(ErrorKind::InvalidArgument, message).with_id(self.loan.id.clone()));
        }
        self.broker.with(|state| state.replace(&self.loan, next))
    }

    async fn is_newest(&self) -> Result<bool> {
        self.broker.with(|state| state.is_newest(&self.loan))
    }
}
