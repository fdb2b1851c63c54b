//! The start of a body, unless the job was told to stop meanwhile.

use tokio::time::Instant;

use super::super::runner::SlotTurn;
use super::{Attempt, Timing};
use crate::error::Result;
use crate::fault::{Fault, point};
use crate::registry::TaskDef;
use crate::run::StopReason;
use crate::task::AckMode;

impl Attempt<'_> {
    /// Starts an admitted job. False if it was given back or has ended instead.
    pub(super) async fn start(&mut self, task: &TaskDef, turn: &mut SlotTurn) -> Result<bool> {
        if !self.was_reachable().await {
            let id = &self.message().id;
            tracing::debug!(%id, "given back: this worker missed a heartbeat since the job came");
            Box::pin(self.give_back_missed()).await?;
            return Ok(false);
        }
        let is_cancelled = || self.worker.cancels.contain(self.message());
        let (name, is_blocking) = (task.shared_name(), task.is_blocking());
        match self.lease.state.start(self.message(), name, is_blocking, is_cancelled) {
            Ok(()) => {}
            Err(StopReason::Cancelled | StopReason::Aborted) => {
                Box::pin(self.cancel_unstarted()).await?;
                return Ok(false);
            }
            Err(StopReason::Shutdown) => {
                Box::pin(self.give_back()).await?;
                return Ok(false);
            }
        }
        let mut began = Instant::now();
        if !self.lease.is_current_at(began) {
            let message = self.message();
            tracing::warn!(id = %message.id, task = %message.task, "not started: its lease expired while it waited");
            Box::pin(self.give_back_missed()).await?;
            return Ok(false);
        }
        if task.options.ack == AckMode::OnReceive {
            if !Box::pin(self.ack_on_receive()).await? {
                return Ok(false);
            }
            began = Instant::now();
        }
        self.ctx.put_slot(turn.slot.take());
        self.timing = Some(Timing { started_at: self.worker.client().now(), began, ended: began });
        point(Fault::Started);
        Ok(true)
    }

    /// True if every client that sent a cancel request since the delivery came has asked this
    /// worker.
    ///
    /// Clients ask the workers whose heartbeat is young. If this worker's was not, the job may have
    /// been cancelled without a word to it; otherwise the job is delivered again.
    async fn was_reachable(&self) -> bool {
        let client = self.worker.client();
        client.in_process() || self.worker.heartbeat.confirmed(client).await <= self.lease.leased
    }
}
