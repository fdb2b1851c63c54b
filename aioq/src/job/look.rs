//! A look at one job, from both sides.

use super::{Jobs, not_found, view};
use crate::broker::Queued;
use crate::error::Result;
use crate::message::JobId;
use crate::store::{JobRecord, Status};

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
        for _ in 0..2 {
            let queued = self.client.backend().broker().find(id).await?;
            let stored = match self.client.backend().jobs() {
                Some(jobs) => jobs.get(id).await?,
                None => None,
            };
            let revision = stored.as_ref().map(|stored| stored.revision);
            if let Some(record) = view::merge(queued.clone(), stored, self.client.now()) {
                return Ok(Seen { record, queued, revision });
            }
        }
        Err(not_found(id))
    }
}
