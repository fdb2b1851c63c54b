//! Claims: the conditional write that says which worker starts a job.

use std::sync::Arc;

use super::Attempt;
use super::settle::running_ttl;
use crate::broker::Expect;
use crate::error::{ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::store::{JobRecord, JobStore, Status, put_fitting};

impl Attempt<'_> {
    /// Writes that this worker starts the job now. False if another worker was first.
    pub(super) async fn claim(&mut self) -> Result<bool> {
        let Some(jobs) = self.worker.jobs() else { return Ok(true) };
        let started_at = self.worker.client().now();
        let mut record = Arc::new(self.running_record(started_at));
        let mut written = self.put_claim(&**jobs, &record, self.fence.expect).await;
        if is_conflict(&written) {
            let stored = self.patient(|| jobs.get(&self.message().id)).await?;
            if let Some(replaceable) = self.replaceable(stored).await? {
                self.fence.replace(replaceable);
                record = Arc::new(self.running_record(started_at));
                written = self.put_claim(&**jobs, &record, self.fence.expect).await;
            }
        }
        let revision = if is_conflict(&written) {
            let stored = self.patient(|| jobs.get(&self.message().id)).await?;
            // A claim of this worker's own whose confirmation was lost would count as a start.
            stored.filter(|stored| is_same_start(&stored.record, &record)).map(|stored| stored.revision)
        } else {
            Some(written?)
        };
        let Some(revision) = revision else {
            tracing::debug!(id = %self.message().id, "another worker claimed the job first");
            return Ok(false);
        };
        self.fence.expect = Expect::Revision(revision);
        self.fence.last = Status::Running;
        point(Fault::Claimed);
        Ok(true)
    }

    async fn put_claim(&self, jobs: &dyn JobStore, record: &Arc<JobRecord>, expect: Expect) -> Result<u64> {
        let ttl = running_ttl(self.delivery.ack_wait());
        let mut is_repeated = false;
        let put = move || {
            let is_doubtful = std::mem::replace(&mut is_repeated, true) && expect == Expect::Absent;
            async move {
                if is_doubtful {
                    // The first try took long, and the check of the message is as old.
                    self.delivery.check_is_newest().await?;
                }
                put_fitting(jobs, Arc::clone(record), expect, Some(ttl)).await
            }
        };
        self.saving(put).await
    }
}

fn is_conflict<T>(written: &Result<T>) -> bool {
    written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict)
}

fn is_same_start(one: &JobRecord, other: &JobRecord) -> bool {
    let start = |record: &JobRecord| (record.worker_id.clone(), record.started_at, record.attempt);
    one.status == other.status && start(one) == start(other)
}
