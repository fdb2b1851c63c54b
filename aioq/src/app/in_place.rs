//! Running jobs in place, in the process that kicks them.

use async_trait::async_trait;

use crate::client::{KickHook, KickNext, Sent};
use crate::error::Result;
use crate::message::Message;
use crate::worker::Worker;

/// A hook that runs all jobs in the queue after each kick.
pub(super) struct InPlace {
    worker: Worker,
}

impl InPlace {
    pub(super) fn new(worker: Worker) -> Self {
        Self { worker }
    }
}

#[async_trait]
impl KickHook for InPlace {
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent> {
        let sent = next.run(message).await?;
        self.worker.drain().await?;
        Ok(sent)
    }
}
