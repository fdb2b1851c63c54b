//! A look at one job, from both sides.

use super::{Jobs, merge, not_found};
use crate::broker::Queued;
use crate::error::Result;
use crate::message::{JobId, Message};
use crate::store::{JobRecord, Status, Stored};

/// How often to look at a job that moves, and at one that is nowhere.
const LOOKS: usize = 6;
const LOOKS_AT_NOTHING: usize = 2;

/// A job as it was found.
pub(super) struct Seen {
    /// What is known of it.
    pub(super) record: JobRecord,
    /// Its message, if it is in the broker.
    pub(super) queued: Option<Queued>,
    /// The revision of its record, if it has one.
    pub(super) revision: Option<u64>,
}

impl Seen {
    /// Whether the job expired while it waits, and no worker has seen it yet.
    pub(super) fn has_expired_unseen(&self) -> bool {
        let recorded = self.queued.as_ref().is_none_or(|queued| {
            self.revision.is_some_and(|revision| super::clean::comes_before(queued, revision))
        });
        self.record.status == Status::Expired && !recorded
    }
}

impl Jobs {
    /// What is known of a job, and where.
    pub(super) async fn look(&self, id: &JobId) -> Result<Seen> {
        // A job moves from the queue to its record and back while it is looked for, so the queue is asked
        // before and after: it cannot be missed by both.
        let mut seen_nothing = 0;
        for _ in 0..LOOKS {
            let queued = self.client.backend().broker().find(id).await?;
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
                return Ok(Seen { record, queued, revision });
            }
            seen_nothing += 1;
            if seen_nothing == LOOKS_AT_NOTHING {
                break;
            }
        }
        Err(not_found(id))
    }

    /// Whether the message is of a job that was removed, or kicked anew, before the record was looked at. What is written
    /// over that record then would be taken for the end of a job that nobody has looked at.
    async fn is_torn(&self, queued: &Queued, stored: &Stored) -> Result<bool> {
        let Ok(message) = Message::open(&queued.body) else { return Ok(false) };
        let record = &stored.record;
        Ok(if stored.revision <= message.supersedes.unwrap_or(0) {
            false
        } else if record.kicked_at == message.kicked_at {
            // Such a message runs nowhere.
            record.is_removed()
        } else {
            !self.is_unchanged(Some(queued)).await?
        })
    }
}
