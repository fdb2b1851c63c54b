//! Rerunning a job that failed, expired or was cancelled: [`Jobs::retry`].

use std::sync::Arc;
use std::time::Duration;

use super::Jobs;
use crate::broker::{Expect, Queued};
use crate::dependencies::BlockedAgain;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message};
use crate::store::{JobRecord, Status, Stored, put_fitting};
use crate::time::Timestamp;

/// Tries to kick while the message of the run that has just ended is still there.
const TRIES: u32 = 8;

/// Lifetime of the `pending` record of a rerun: longer than any write of the earlier run is on its
/// way.
const PENDING_TTL: Duration = Duration::from_secs(3600);

impl Jobs {
    /// Reruns a job that failed, expired or was cancelled, on the queue that it was kicked to. Its
    /// attempts count from 1 again. Its record keeps the failures, the log and the progress of the
    /// earlier runs.
    ///
    /// False if the job is in another state, or another client reran it first. A job that is
    /// removed at the same time may still run.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Conflict`](ErrorKind::Conflict): another job holds its unique key.
    /// - [`Unsupported`](ErrorKind::Unsupported): its message was unreadable, or too large to be
    ///   kept.
    pub async fn retry(&self, id: &JobId) -> Result<bool> {
        let found = self.find(id).await?;
        if found.has_expired_unrecorded() {
            self.expire(found).await?;
        }
        let Some(stored) = self.stored(id).await? else {
            // The job waits, or has just started to run.
            return Ok(false);
        };
        if stored.record.was_held_by_parents() {
            return Box::pin(self.block_again(stored)).await;
        }
        let Some(message) = rerun_message(&stored, self.client.now())? else { return Ok(false) };
        let kicked_at = message.kicked_at;
        let waiting = JobRecord::waiting(&message, stored.record);
        if !self.kick_rerun(message, stored.revision).await? {
            return Ok(false);
        }
        let newer = self.stored(id).await?.filter(|newest| newest.revision > stored.revision);
        if newer.is_some_and(|newer| newer.record.kicked_at != kicked_at) {
            // A rerun by another client has ended since the lookup: no worker runs our message.
            self.remove_own_message(id, kicked_at).await?;
            return Ok(false);
        }
        // A late write of the earlier run expects that there is no record; the `pending` record
        // refuses it. If this write fails, the old record stays until the first write of the rerun
        // replaces it.
        let expect = Expect::Revision(stored.revision);
        let waiting = put_fitting(self.store()?, Arc::new(waiting), expect, Some(PENDING_TTL)).await;
        if let Err(error) = waiting {
            tracing::debug!(%id, %error, "could not mark a job as pending; the record of its earlier run stays until the rerun writes");
        }
        Ok(true)
    }

    /// Reruns a job that ended while it waited for its parents: it waits for them anew.
    async fn block_again(&self, stored: Stored) -> Result<bool> {
        let dependencies = self.client.dependencies();
        match dependencies.block_again(stored, self.client.now()).await? {
            BlockedAgain::Yes => Ok(true),
            BlockedAgain::ChangedMeanwhile => Ok(false),
            BlockedAgain::For { id, parent, fate } => {
                let why = format!("its parent `{parent}` {fate}: rerun that");
                Err(Error::new(ErrorKind::Conflict, why).with_id(id))
            }
        }
    }

    /// Removes a message that was kicked too late, unless a worker has dropped it already.
    async fn remove_own_message(&self, id: &JobId, kicked_at: Option<Timestamp>) -> Result<()> {
        let broker = self.client.backend().broker();
        let queued = broker.find(id).await?;
        let ours = |queued: &Queued| Message::open(&queued.body).is_ok_and(|own| own.kicked_at == kicked_at);
        let ours: Vec<Queued> = queued.into_iter().filter(ours).collect();
        broker.remove(&ours).await.into_iter().try_for_each(|gone| gone.map(drop))
    }

    /// Kicks the message of a rerun. The message of the ended run may still be in the broker, if
    /// its ack is on its way or was lost; it is removed. False if another client was first.
    async fn kick_rerun(&self, message: Message, revision: u64) -> Result<bool> {
        let broker = self.client.backend().broker();
        for _ in 0..TRIES {
            let sent = self.client.send(message.clone()).await?;
            if !sent.existing {
                return Ok(true);
            }
            if sent.id != message.id {
                let why = format!("job `{}` has its unique key; rerun it once that job has ended", sent.id);
                return Err(Error::new(ErrorKind::Conflict, why).with_id(message.id));
            }
            let queued = broker.find(&message.id).await?;
            if queued.as_ref().is_some_and(|queued| !queued.is_older_than(revision)) {
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

/// The message of a rerun; `None` if the state of the job does not allow one.
fn rerun_message(stored: &Stored, now: Timestamp) -> Result<Option<Message>> {
    let Stored { record, revision } = stored;
    if !record.status.is_terminal() || !record.status.next().contains(&Status::Pending) {
        return Ok(None);
    }
    let opened = record.message.as_ref().map(Message::open);
    let Some(Ok(mut message)) = opened else {
        let why = "cannot run again: its message was unreadable, or too large to be kept with its record; kick the task anew";
        return Err(Error::new(ErrorKind::Unsupported, why).with_id(record.id.clone()));
    };
    message.attempt = 1;
    // Also tells this rerun from one that another client started at the same time.
    message.kicked_at = Some(now);
    message.run_at = None;
    message.expires_at = None;
    message.first_failed_at = None;
    let ties = message.ties_mut();
    // A rerun of a debounced job belongs to no burst.
    ties.unique = ties.unique.take().filter(|unique| unique.version.is_none());
    // Jobs may wait for the rerun that failed for the run before, or that were kicked since.
    ties.awaited = true;
    // The worker runs the message only if no newer record than this one exists.
    message.supersedes = Some(*revision);
    Ok(Some(message))
}
