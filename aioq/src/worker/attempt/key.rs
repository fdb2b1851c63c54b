//! The unique key of a job: asked for before the body starts, freed at the end.

use super::Attempt;
use crate::error::{JobError, Result};
use crate::registry::TaskDef;
use crate::store::Status;
use crate::unique::{self, Admission, Tenant};

impl Attempt<'_> {
    /// True if the job has a key that must be asked for. A job that has begun is finished without
    /// asking.
    pub(super) fn needs_key(&self) -> bool {
        self.message().unique().is_some() && !self.has_begun()
    }

    fn has_begun(&self) -> bool {
        let message = self.message();
        let was_snoozed = self.fence.last == Status::Scheduled && message.supersedes.is_some();
        message.attempt > 1 || was_snoozed || self.fence.was_admitted
    }

    /// Asks for the key of the job. False if another job has taken it: this one is recorded as
    /// cancelled.
    pub(super) async fn hold_key(&mut self, task: &TaskDef) -> Result<bool> {
        let Some(tie) = self.message().unique().cloned() else { return Ok(true) };
        let client = self.worker.client();
        let kv = client.backend().kv();
        let within = task.options.unique.map(|unique| unique.within).unwrap_or_default();
        // To the moment, unlike for a message that the broker held until it was due: a pause may be
        // shorter than the slack between two clocks.
        let is_due =
            |due| client.now() >= due || self.delivery.ready_since().is_some_and(|since| since >= due);
        let ask = || unique::admit(&**kv, &tie, self.message(), within, client.now(), is_due);
        match self.patient(ask).await? {
            Admission::Held(held) => {
                self.fence.key = Some(Box::new(held));
                Ok(true)
            }
            Admission::TakenBy(_) if !self.lease.is_current() || !self.is_newest().await? => {
                // The worker that has the job now may have closed the burst.
                tracing::debug!(id = %self.message().id, "its key was taken, left to its next holder");
                Ok(false)
            }
            Admission::TakenBy(rival) => {
                let error = JobError::new("Unique", format!("its key was taken by `{rival}`"));
                tracing::warn!(id = %self.message().id, key = %tie.key, %rival, "cancelled: another job has its unique key");
                self.cancelled(error).await?;
                Ok(false)
            }
            Admission::Replaced(newest) => {
                self.replace_unstarted(newest).await?;
                Ok(false)
            }
        }
    }

    /// Frees the key of a job that has ended with `status`, or that frees its key as it starts.
    pub(super) async fn free_key(&mut self, status: Status) {
        let client = self.worker.client();
        let (kv, now) = (client.backend().kv(), client.now());
        match (self.fence.key.take(), Tenant::of_message(self.message())) {
            (Some(held), _) => held.free(&**kv, status, now).await,
            (None, Some(tenant)) => unique::free(&**kv, tenant, status, now).await,
            (None, None) => {}
        }
    }
}
