//! Running a job again that has ended badly.

use std::sync::Arc;
use std::time::Duration;

use super::Jobs;
use super::clean::comes_before;
use crate::broker::{Expect, Queued};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message};
use crate::store::{JobRecord, Status, Stored, put_fitting};
use crate::time::Timestamp;

/// How often a kick is tried against the message of the run that has just ended.
const TRIES: u32 = 8;

/// How long it is kept in mind that a job waits to be run again: longer than any write is on its way.
const WAITING_KEPT: Duration = Duration::from_secs(3600);

impl Jobs {
    /// Runs a job again that failed, expired or was cancelled: on the queue that it was kicked to, with its
    /// attempts counted from 1. False if it is in another state, or somebody else was first. Its record keeps the
    /// failures, the log and the progress of the runs before. One that is removed in that very moment may run.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Unsupported`](ErrorKind::Unsupported): its message is not kept, because it was unreadable or too large.
    pub async fn retry(&self, id: &JobId) -> Result<bool> {
        let seen = self.look(id).await?;
        if seen.has_expired_unseen() {
            self.expire(seen).await?;
        }
        let Some(stored) = self.stored(id).await? else {
            // It waits, or is running in its first moments.
            return Ok(false);
        };
        let Some(message) = again(&stored, self.client.now())? else { return Ok(false) };
        let kicked_at = message.kicked_at;
        let waiting = JobRecord::waiting(&message, stored.record);
        if !self.kick_again(message, stored.revision).await? {
            return Ok(false);
        }
        let newer = self.stored(id).await?.filter(|newest| newest.revision > stored.revision);
        if newer.is_some_and(|newer| newer.record.kicked_at != kicked_at) {
            // Somebody else's retry has come to its end since this one looked: no worker runs the message.
            self.take_back(id, kicked_at).await?;
            return Ok(false);
        }
        // The message tells of the job now, and no write of the earlier run that is still on its way finds the place
        // empty. Should this fail, the first write of the run replaces the record.
        let expect = Expect::Revision(stored.revision);
        let waiting = put_fitting(self.store()?, Arc::new(waiting), expect, Some(WAITING_KEPT)).await;
        if let Err(error) = waiting {
            tracing::debug!(%id, %error, "the record of the earlier run stays for now");
        }
        Ok(true)
    }

    /// Removes a message that was kicked too late, unless a worker has dropped it already.
    async fn take_back(&self, id: &JobId, kicked_at: Option<Timestamp>) -> Result<()> {
        let broker = self.client.backend().broker();
        let queued = broker.find(id).await?;
        let ours = |queued: &Queued| Message::open(&queued.body).is_ok_and(|own| own.kicked_at == kicked_at);
        let ours: Vec<Queued> = queued.into_iter().filter(ours).collect();
        broker.remove(&ours).await.into_iter().try_for_each(|gone| gone.map(drop))
    }

    /// Kicks the successor of a job that has ended. The message of the run that ended may still be there, if its
    /// ack is on its way or was lost.
    async fn kick_again(&self, message: Message, revision: u64) -> Result<bool> {
        let broker = self.client.backend().broker();
        for _ in 0..TRIES {
            if !self.client.kick::<()>(message.clone()).await?.existing() {
                return Ok(true);
            }
            let queued = broker.find(&message.id).await?;
            if queued.as_ref().is_some_and(|queued| !comes_before(queued, revision)) {
                return Ok(false);
            }
            let newest = self.stored(&message.id).await?.map(|stored| stored.revision);
            if newest != Some(revision) {
                return Ok(false);
            }
            for removed in broker.remove(&queued.into_iter().collect::<Vec<_>>()).await {
                removed?;
            }
        }
        Ok(false)
    }
}

/// The message that runs a job again, if its state allows it.
fn again(stored: &Stored, now: Timestamp) -> Result<Option<Message>> {
    let Stored { record, revision } = stored;
    if !record.status.is_terminal() || !record.status.next().contains(&Status::Pending) {
        return Ok(None);
    }
    let opened = record.message.as_ref().map(Message::open);
    let Some(Ok(mut message)) = opened else {
        let why = "cannot run again: its message was unreadable, or too large to be kept with its record";
        return Err(Error::new(ErrorKind::Unsupported, why).with_id(record.id.clone()));
    };
    message.attempt = 1;
    // It also tells this retry from one that somebody else began at the same time.
    message.kicked_at = Some(now);
    message.run_at = None;
    message.expires_at = None;
    message.first_failed_at = None;
    // The worker then expects that record, or none, and nobody else's.
    message.supersedes = Some(*revision);
    Ok(Some(message))
}
