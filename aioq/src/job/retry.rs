//! Running a job again that has ended badly.

use std::time::Duration;

use super::Jobs;
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::store::{Status, Stored};

/// How often, and how long apart, a retry waits for the message of the run that has just ended to be gone.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

impl Jobs {
    /// Runs a job again that failed, expired or was cancelled: on the queue that it was kicked to, with its
    /// attempts counted from 1. False if it is in another state, or somebody else was first.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound): no such job, or its record is gone.
    pub async fn retry(&self, id: &JobId) -> Result<bool> {
        let Some(stored) = self.stored(id).await? else {
            // It may wait, or be running in its first moments; or there is no such job.
            return self.get(id).await.map(|_| false);
        };
        let Some(message) = again(&stored) else { return Ok(false) };
        let kicked = self.kick_again(message, stored.revision).await?;
        if kicked {
            // The message tells of the job now. Should this fail, the first write of the run replaces the record.
            let removed = self.store()?.remove(&[stored]).await;
            if let Some(Err(error)) = removed.into_iter().next() {
                tracing::debug!(%id, %error, "the record of the earlier run stays for now");
            }
        }
        Ok(kicked)
    }

    /// Kicks the successor of a job that has ended, whose message may still be there for a moment.
    async fn kick_again(&self, message: Message, revision: u64) -> Result<bool> {
        for _ in 0..TRIES {
            if !self.client.kick::<()>(message.clone()).await?.existing() {
                return Ok(true);
            }
            let queued = self.client.backend().broker().find(&message.id).await?;
            let newer = queued.and_then(|queued| Message::open(&queued.body).ok());
            if newer.is_some_and(|newer| newer.supersedes.unwrap_or(0) >= revision) {
                return Ok(false);
            }
            let newest = self.stored(&message.id).await?.map(|stored| stored.revision);
            if newest != Some(revision) {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }
}

/// The message that runs a job again, if its record allows it.
fn again(stored: &Stored) -> Option<Message> {
    if !stored.record.status.next().contains(&Status::Pending) || !stored.record.status.is_terminal() {
        return None;
    }
    let mut message = Message::open(stored.record.message.as_ref()?).ok()?;
    message.attempt = 1;
    message.run_at = None;
    message.expires_at = None;
    // The worker then expects that record, or none, and nobody else's.
    message.supersedes = Some(stored.revision);
    Some(message)
}
