//! Finding one job: its message in the broker and its record in the store, read consistently.

use super::{Jobs, merge, not_found};
use crate::broker::Queued;
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::store::{JobRecord, Status, Stored};
use crate::unique;

/// Tries to find a job that moves between the queue and its record.
const TRIES: usize = 6;
/// Lookups without a result after which there is no such job.
const EMPTY_TRIES: usize = 2;

/// A job that was found.
pub(super) struct Found {
    /// Everything that is known of the job, merged from message and record.
    pub(super) record: JobRecord,
    /// Its message, if it is in the broker; of a debounced job, the newest one.
    pub(super) queued: Option<Queued>,
    /// The revision of its record, if it has one.
    pub(super) revision: Option<u64>,
}

impl Found {
    /// True if the job expired while it waited, and no worker has recorded that yet.
    pub(super) fn has_expired_unrecorded(&self) -> bool {
        let is_recorded = self
            .queued
            .as_ref()
            .is_none_or(|queued| self.revision.is_some_and(|revision| queued.is_older_than(revision)));
        self.record.status == Status::Expired && !is_recorded
    }
}

impl Queued {
    /// True if the message comes before a record: it is of the run whose end the record tells.
    pub(super) fn is_older_than(&self, revision: u64) -> bool {
        Message::base_revision_of(&self.body) < revision
    }
}

impl Jobs {
    /// Finds a job, its message and its record.
    pub(super) async fn find(&self, id: &JobId) -> Result<Found> {
        // A job may move from the queue to its record, or back, between the two reads. So a miss is
        // followed by another lookup.
        let mut empty_tries = 0;
        for _ in 0..TRIES {
            let queued = match self.client.backend().broker().find(id).await? {
                Some(queued) => Some(self.with_newest_message(queued).await?),
                None => None,
            };
            let stored = match self.client.backend().jobs() {
                Some(jobs) => jobs.get(id).await?,
                None => None,
            };
            if let (Some(queued), Some(stored)) = (&queued, &stored)
                && self.is_torn(queued, stored).await?
            {
                continue;
            }
            let revision = stored.as_ref().map(|stored| stored.revision);
            if let Some(record) = merge::merge(queued.clone(), stored, self.client.now()) {
                return Ok(Found { record, queued, revision });
            }
            empty_tries += 1;
            if empty_tries == EMPTY_TRIES {
                break;
            }
        }
        Err(not_found(id))
    }

    /// A message in the broker, with the newest arguments of a debounced job.
    async fn with_newest_message(&self, mut queued: Queued) -> Result<Queued> {
        if let Ok(message) = Message::open(&queued.body)
            && let Some(newest) = unique::newest(&**self.client.backend().kv(), &message).await?
        {
            queued.body = newest.seal().body;
        }
        Ok(queued)
    }

    /// True if the message and the record are of two different jobs: the job of the message was
    /// removed, or kicked anew, before the record was read. Writing over that record would end a
    /// job that was not looked at.
    async fn is_torn(&self, queued: &Queued, stored: &Stored) -> Result<bool> {
        let Ok(message) = Message::open(&queued.body) else { return Ok(false) };
        let record = &stored.record;
        Ok(if stored.revision <= message.base_revision() {
            false
        } else if record.kicked_at == message.kicked_at {
            // A message whose job was removed is not run.
            record.is_removed()
        } else {
            !self.is_unchanged(Some(queued)).await?
        })
    }

    /// True if the message of a job is still its newest one. A job without a record may not have
    /// one yet, or not have one any more; this tells the two apart.
    pub(super) async fn is_unchanged(&self, queued: Option<&Queued>) -> Result<bool> {
        let Some(queued) = queued else { return Ok(true) };
        let newest = self.client.backend().broker().find(&queued.id).await?;
        Ok(newest.is_some_and(|newest| newest.revision == queued.revision))
    }
}
