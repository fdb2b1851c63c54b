//! Settlement: the record first, conditionally, then the message. Nothing else acks.
//!
//! Saved before acking: a crash between the two finds the record on the redelivery, and does not
//! run the job again.

mod refuse;
mod successor;
mod unsettled;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub(in crate::worker) use self::unsettled::Unsettled;
use self::write::Written;
pub(super) use self::write::{Newest, Replaceable};
use super::super::tally::Kind;
use super::Attempt;
use super::run::End;
use crate::cancel;
use crate::codec::Payload;
use crate::error::{JobError, Reason, Result, TaskError};
use crate::fault::{Fault, point};
use crate::message::{Labels, Message};
use crate::middleware::Outcome;
use crate::registry::TaskDef;
use crate::run::StopReason;
use crate::store::{AttemptError, JobRecord, RecordLevel, Status};
use crate::task::AckMode;
use crate::time::MAX_SPAN;

/// Time for which the record of a waiting job outlives the moment at which the job is due.
const WAITING_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// Shortest time for which the last record of a job with parents is kept. A server that is killed
/// may bring back the record before one that it has just expired: that a blocked job waits, or is
/// to be sent.
const LEAST_AFTER_PARENTS: Duration = Duration::from_secs(5 * 60);

/// Time for which the record of a running job outlives its last renewal.
pub(super) fn running_ttl(ack_wait: Duration) -> Duration {
    ack_wait.saturating_mul(10).max(Duration::from_secs(3600))
}

impl Attempt<'_> {
    /// Settles a run by its end.
    pub(super) async fn settle(&mut self, task: &TaskDef, end: End) -> Result<()> {
        match end {
            End::Outcome(Outcome::Failed(error)) if error.reason() == Reason::BadArguments => {
                Box::pin(self.settle_unfit(task, error)).await
            }
            End::Outcome(outcome) => self.settle_outcome(task, outcome).await,
            End::Stopped(reason) => Box::pin(self.settle_stopped(task, reason)).await,
            End::CutOff(reason) => {
                let settled = Box::pin(self.settle_stopped(task, reason)).await;
                self.worker.count_cut_off();
                settled
            }
            End::TakenOver => Ok(()),
        }
    }

    /// Settles a run by its outcome, and counts it.
    async fn settle_outcome(&mut self, task: &TaskDef, outcome: Outcome) -> Result<()> {
        let kind = Kind::of(&outcome);
        match outcome {
            Outcome::Done(payload) => self.done(payload).await?,
            // Boxed to keep the future of a job that succeeds small.
            Outcome::Failed(error) => Box::pin(self.failed(error)).await?,
            Outcome::Retry { after, error } => Box::pin(self.retry(after, error)).await?,
            Outcome::Snooze { after } => Box::pin(self.snooze(after)).await?,
            Outcome::Cancelled { why } => Box::pin(self.cancelled(why.into_job_error())).await?,
        }
        if let Some(kind) = kind {
            self.worker.tally.count(task, kind);
        }
        Ok(())
    }

    /// Settles a run whose body could not read its arguments.
    async fn settle_unfit(&mut self, task: &TaskDef, error: TaskError) -> Result<()> {
        let is_acked = task.options.ack == AckMode::OnReceive;
        // If the arguments fit the task, the body has read something else.
        if !is_acked && let Some(delay) = self.left_to_newer_release(task) {
            return self.put_back(delay).await;
        }
        let Message { id, task: name, .. } = self.message();
        tracing::error!(%id, task = %name, reason = %error.reason(), %error, "failed");
        self.settle_outcome(task, Outcome::Failed(error)).await
    }

    /// Settles a run that was told to stop.
    async fn settle_stopped(&mut self, task: &TaskDef, reason: StopReason) -> Result<()> {
        match reason {
            StopReason::Aborted | StopReason::Cancelled => self.cancelled(cancel::aborted()).await,
            // The message is acked, and the job never runs twice: it ends here.
            StopReason::Shutdown if task.options.ack == AckMode::OnReceive => {
                let error = TaskError::fatal("the worker stopped before the job ended");
                self.settle_outcome(task, Outcome::Failed(error)).await
            }
            StopReason::Shutdown => self.release(Duration::ZERO).await,
        }
    }

    fn done(&mut self, payload: Payload) -> impl Future<Output = Result<()>> {
        let mut record = self.record(Status::Completed);
        let client = self.worker.client();
        let arguments = record.arguments.as_ref().map_or(0, |arguments| arguments.len());
        if arguments + payload.as_bytes().len() > client.max_payload_bytes() {
            record.arguments = None;
        }
        record.result = Some(payload);
        if client.records() == RecordLevel::Results {
            (record.arguments, record.labels) = (None, Labels::new());
        }
        self.end(record)
    }

    async fn failed(&mut self, error: TaskError) -> Result<()> {
        let reason = error.reason();
        let record = self.failure(reason, error.into_job_error());
        self.end(record).await
    }

    /// The record of a job that is given up. It holds the message, to kick it again.
    fn failure(&self, reason: Reason, error: JobError) -> JobRecord {
        let mut record = self.record(Status::Failed);
        record.push_error(self.attempt_error(reason, &error));
        record.error = Some(Box::new(error));
        record.reason = Some(reason);
        record.dead_lettered = true;
        record.message = Some(self.delivery.body().clone());
        record
    }

    /// Ends a job that was cancelled.
    pub(super) async fn cancelled(&mut self, why: JobError) -> Result<()> {
        let mut record = self.record(Status::Cancelled);
        record.error = Some(Box::new(why));
        record.message = Some(self.delivery.body().clone());
        self.end(record).await
    }

    /// Writes the last record of the job, then acks.
    ///
    /// The record is shared before the first await: a future that held it whole would be large.
    fn end(&mut self, record: JobRecord) -> impl Future<Output = Result<()>> {
        let kept_for = self.task.and_then(|task| task.options.kept_for(record.status));
        let mut ttl = kept_for.unwrap_or_else(|| self.worker.client().retention().span(record.status));
        if !record.depends_on.is_empty() {
            ttl = ttl.max(LEAST_AFTER_PARENTS);
        }
        let status = record.status;
        self.worker.ended.count(status);
        let record = Arc::new(record);
        async move {
            let ack = if self.timing.is_some() { self.task.map(|task| task.options.ack) } else { None };
            let ack = ack.unwrap_or(AckMode::OnSave);
            if ack == AckMode::AfterRun && !self.ack_after_run().await? {
                return Ok(());
            }
            let written = self.write(Arc::clone(&record), ttl).await?;
            let is_ours = written.is_some();
            // A message that is acked already, or is another worker's, is left alone.
            let is_to_ack = ack == AckMode::OnSave && is_ours;
            if is_to_ack {
                point(Fault::Saved);
            }
            if is_ours && self.message().unique().is_some() {
                Box::pin(self.free_key(status)).await;
            }
            if written.is_some_and(|written| written.awaited) {
                Box::pin(self.settle_dependents(&record)).await;
            }
            if is_to_ack {
                self.ack().await?;
                point(Fault::Acked);
            }
            Ok(())
        }
    }

    /// Releases or fails the jobs that wait for the end of this one, however long the server is
    /// away. Another error is left to the sweep: a redelivery would meet it again.
    pub(super) async fn settle_dependents(&self, last: &JobRecord) {
        let dependencies = self.worker.client().dependencies();
        if let Err(error) = self.saving(|| dependencies.ended(last)).await {
            let Message { id, task, .. } = self.message();
            tracing::error!(%id, %task, %error, "jobs that wait for its end were not told; a worker looks for them every few minutes");
        }
    }

    /// Acks a message whose record is written afterwards. False if the job is another worker's.
    async fn ack_after_run(&mut self) -> Result<bool> {
        // Checked before the ack: after it, no message is the newest.
        if self.is_doubtful() && !Box::pin(self.is_newest()).await? {
            self.count_taken_over(TAKEN_OVER);
            return Ok(false);
        }
        self.ack().await?;
        point(Fault::Acked);
        Ok(true)
    }

    /// Acks a message before its body starts. False if another worker has claimed the job.
    pub(super) async fn ack_on_receive(&mut self) -> Result<bool> {
        // After the ack, only the record says that the job exists.
        if !self.claim().await? {
            return Ok(false);
        }
        self.delivery.ack().await?;
        point(Fault::Acked);
        Ok(true)
    }

    async fn ack(&mut self) -> Result<()> {
        self.acked = true;
        self.delivery.ack().await
    }

    async fn retry(&mut self, after: Duration, error: TaskError) -> Result<()> {
        let reason = error.reason();
        let error = error.into_job_error();
        let mut record = self.record(Status::Retrying);
        record.push_error(self.attempt_error(reason, &error));
        record.error = Some(Box::new(error));
        record.finished_at = None;
        self.put_off(record, after).await
    }

    async fn snooze(&mut self, after: Duration) -> Result<()> {
        let mut record = self.record(Status::Scheduled);
        record.finished_at = None;
        self.put_off(record, after).await
    }

    /// Writes when the job runs again, then replaces the message by the one for that run.
    async fn put_off(&mut self, mut record: JobRecord, after: Duration) -> Result<()> {
        // A user's middleware may return any span.
        let after = after.min(MAX_SPAN);
        record.run_at = Some(self.worker.client().now() + after);
        let record = Arc::new(record);
        let ttl = after.saturating_add(WAITING_MARGIN);
        if let Some(Written { revision, .. }) = self.write(Arc::clone(&record), ttl).await? {
            point(Fault::Announced);
            self.kick_successor(&record, revision).await?;
        }
        Ok(())
    }

    fn record(&self, status: Status) -> JobRecord {
        let message = self.message();
        let mut record = JobRecord::of(message, status);
        let task_retries = self.task.map_or(0, |task| task.options.retry.max);
        let started_at = self.started_at();
        record.max_retries = message.max_retries.unwrap_or(task_retries);
        record.started_at = started_at;
        record.execution_time = self.execution_time();
        record.finished_at = Some(match started_at {
            Some(started_at) => started_at + record.execution_time,
            None => self.worker.client().now(),
        });
        record.worker_id = Some(self.ctx.worker_name().clone());
        if let Some(history) = &self.fence.history {
            history.fill(&mut record);
            if status == Status::Completed {
                // The progress of an earlier, failed run says nothing of this one.
                record.progress = None;
            }
        }
        if started_at.is_some() {
            self.ctx.report().fill(&mut record);
        }
        record
    }

    fn attempt_error(&self, reason: Reason, error: &JobError) -> AttemptError {
        AttemptError {
            attempt: self.message().attempt,
            at: self.worker.client().now(),
            worker_id: Some(self.ctx.worker_name().clone()),
            reason,
            error: error.clone(),
        }
    }

    /// Counts and logs a job that another worker has taken over.
    pub(super) fn count_taken_over(&self, why: &'static str) {
        let Message { id, task, .. } = self.message();
        self.worker.count_taken_over();
        tracing::warn!(%id, %task, "{why}");
    }
}

const TAKEN_OVER: &str = "another worker took the job over, the result of this run is dropped";
