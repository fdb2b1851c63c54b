//! The message of the next run, in place of the delivered one.

use std::sync::Arc;

use super::super::Attempt;
use crate::broker::{Expect, Replaced};
use crate::error::{Error, ErrorKind, JobError, Reason, Result};
use crate::fault::{Fault, point};
use crate::store::{JobRecord, Status, put_fitting};
use crate::unique::{self, Tenant};

impl Attempt<'_> {
    /// Replaces the delivered message by the one that `record` announces: the last step of a retry
    /// or a snooze, also if the worker that wrote the record died before it.
    pub(in crate::worker::attempt) async fn kick_successor(
        &self,
        record: &JobRecord,
        revision: u64,
    ) -> Result<()> {
        let message = self.message();
        let mut next = message.clone();
        next.attempt = message.attempt + u32::from(record.status == Status::Retrying);
        next.run_at = record.run_at;
        if record.status == Status::Retrying && self.has_retry_limit_in_time() {
            let failed_at = record.errors.last().map(|error| error.at);
            next.first_failed_at = message.first_failed_at.or(failed_at);
        }
        // The job was started in time.
        next.expires_at = None;
        // Without a store there is no record to come after.
        next.supersedes = self.worker.jobs().map(|_| revision).or(message.supersedes);
        let next = next.seal();
        match self.saving(|| self.delivery.replace(next.clone())).await {
            Ok(Replaced::Done) => {
                point(Fault::Acked);
                Ok(())
            }
            Ok(Replaced::Lost) => {
                tracing::debug!(id = %message.id, "the next attempt was in the queue already");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                Box::pin(self.give_up_successor(record, revision, &error)).await
            }
            Err(error) => Err(error),
        }
    }

    /// True if the retries of the task end some time after the first failure.
    fn has_retry_limit_in_time(&self) -> bool {
        self.task.is_some_and(|task| task.options.retry.retry_for.is_some())
    }

    /// Fails a job whose next message is too large for the broker: it can never run again.
    async fn give_up_successor(&self, announced: &JobRecord, revision: u64, too_large: &Error) -> Result<()> {
        let why = format!("cannot run again: {too_large}");
        tracing::error!(id = %announced.id, task = %announced.task, why, "failed");
        let mut record = announced.clone();
        let last = announced.errors.last().map(|error| error.reason);
        record.reason = Some(last.filter(|_| announced.status == Status::Retrying).unwrap_or(Reason::Error));
        match &mut record.error {
            Some(error) => error.push_cause(&why),
            None => record.error = Some(Box::new(JobError::new("TooLarge", why))),
        }
        record.status = Status::Failed;
        (record.run_at, record.finished_at) = (None, Some(self.worker.client().now()));
        record.dead_lettered = true;
        record.message = Some(self.delivery.body().clone());
        self.worker.ended.count(record.status);
        let ttl = self.worker.client().retention().span(record.status);
        let record = Arc::new(record);
        if let Some(jobs) = self.worker.jobs() {
            let expect = Expect::Revision(revision);
            let put = || put_fitting(&**jobs, Arc::clone(&record), expect, Some(ttl));
            match self.saving(put).await {
                // A client has cancelled the job, or another worker came here first.
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
                written => written?,
            };
        }
        if let Some(tenant) = Tenant::of_message(self.message()) {
            let client = self.worker.client();
            unique::free(&**client.backend().kv(), tenant, Status::Failed, client.now()).await;
        }
        if record.awaited {
            self.settle_dependents(&record).await;
        }
        self.delivery.ack().await
    }
}
