//! Settlements without a run: refused, expired, cancelled, given back.

use std::time::Duration;

use super::super::Attempt;
use super::super::fence::Fence;
use super::running_ttl;
use crate::broker::{Expect, Replaced};
use crate::cancel;
use crate::error::{Error, JobError, Reason, Result};
use crate::fault::{Fault, point};
use crate::message::Envelope;
use crate::store::{History, Status, Stored};

use super::super::super::unfit::leave_to_newer;

impl Attempt<'_> {
    /// Fails a delivery whose bytes are no message.
    pub(in crate::worker::attempt) async fn refuse_undecodable(mut self, error: Error) -> Result<()> {
        self.refuse(Reason::Undecodable, JobError::new("Undecodable", error.to_string())).await
    }

    /// Fails a job of a task that this program does not have, or leaves it to a newer release.
    pub(in crate::worker::attempt) async fn refuse_unknown_task(mut self) -> Result<()> {
        let error = self.worker.registry.unknown(&self.message().task);
        if let Some(delay) = leave_to_newer(self.worker, self.message(), &error) {
            return self.delivery.release(delay).await;
        }
        self.refuse(Reason::UnknownTask, JobError::new("UnknownTask", error.to_string())).await
    }

    /// Fails a job that cannot be run: the record, the dead letter, the ack.
    async fn refuse(&mut self, reason: Reason, error: JobError) -> Result<()> {
        tracing::error!(id = %self.delivery.id(), %reason, %error, "cannot be run");
        let Some(fence) = self.fence_of_refusal().await? else {
            // The job ended elsewhere, or a newer message of it is in the queue.
            return self.delivery.ack().await;
        };
        self.fence = fence;
        let mut record = self.failure(reason, error);
        if reason == Reason::Undecodable {
            record.arguments = None;
        }
        self.end(record).await
    }

    /// The condition of a refusal; `None` if the job has got further meanwhile.
    async fn fence_of_refusal(&self) -> Result<Option<Fence>> {
        let absent = Fence::unstarted(Expect::Absent, Status::Pending);
        let Some(jobs) = self.worker.jobs() else { return Ok(Some(absent)) };
        let base = self.message().base_revision();
        let stored = self.patient(|| jobs.get(self.delivery.id())).await?;
        // Checked after the read: a removed job has no record either.
        if !self.is_newest().await? {
            return Ok(None);
        }
        Ok(match stored {
            None => Some(absent),
            Some(Stored { record, revision }) if revision > base && record.status.is_terminal() => None,
            Some(Stored { record, revision }) => {
                let (expect, last) = (Expect::Revision(revision), record.status);
                Some(Fence { history: History::of(record), ..Fence::unstarted(expect, last) })
            }
        })
    }

    /// Expires a job that was not started in time.
    pub(in crate::worker::attempt) async fn expire(&mut self) -> Result<()> {
        let mut record = self.record(Status::Expired);
        record.reason = Some(Reason::Expired);
        record.dead_lettered = true;
        record.message = Some(self.delivery.body().clone());
        self.end(record).await
    }

    /// Ends a job that was cancelled before it started.
    pub(in crate::worker::attempt) async fn cancel_unstarted(&mut self) -> Result<()> {
        let message = self.message();
        tracing::debug!(id = %message.id, task = %message.task, "cancelled before it started");
        self.cancelled(cancel::cancelled_before_start()).await
    }

    /// Replaces the message of a debounced job that has not started.
    pub(in crate::worker::attempt) async fn replace_unstarted(&mut self, next: Envelope) -> Result<()> {
        match self.saving(|| self.delivery.replace(next.clone())).await? {
            Replaced::Done => point(Fault::Acked),
            Replaced::Lost => {
                tracing::debug!(id = %self.message().id, "the newest message of the job was in the queue already");
            }
        }
        Ok(())
    }

    /// Fails a job whose process died each time.
    pub(in crate::worker::attempt) async fn fail_as_poison(&mut self) -> Result<()> {
        let (died, solo) = (self.fence.starts.saturating_sub(1), self.fence.solo);
        let error = JobError::new(
            "Poison",
            format!(
                "its process died each of the {died} times that its body was started, {solo} of them with no other \
                 suspect beside it"
            ),
        );
        let message = self.message();
        tracing::error!(id = %message.id, task = %message.task, %error, "failed as poison");
        let record = self.failure(Reason::Poison, error);
        self.end(record).await
    }

    /// Acks a message that must not run.
    pub(in crate::worker::attempt) async fn drop_unrun(&self, why: &str) -> Result<bool> {
        let (id, deliveries) = (self.delivery.id(), self.delivery.deliveries());
        tracing::debug!(%id, deliveries, why, "dropped without running");
        self.delivery.ack().await?;
        Ok(false)
    }

    /// Gives back a job of which nothing was written: it comes again after `delay`.
    pub(in crate::worker::attempt) async fn put_back_untouched(&self, delay: Duration) -> Result<()> {
        self.delivery.release(delay).await
    }

    /// Gives back an admitted job that was not started.
    pub(in crate::worker::attempt) async fn give_back(&mut self) -> Result<()> {
        // Nothing was written of a first delivery.
        if self.delivery.deliveries() == 1 && self.lease.is_current() {
            self.delivery.release(Duration::ZERO).await
        } else {
            self.release(Duration::ZERO).await
        }
    }

    /// Gives back an admitted job whose lease may have ended. Without a record and a lease it comes
    /// again by itself.
    pub(in crate::worker::attempt) async fn give_back_missed(&mut self) -> Result<()> {
        if self.delivery.deliveries() == 1 && !self.lease.is_current() {
            return Ok(());
        }
        self.give_back().await
    }

    /// Gives back a job whose body did nothing: another worker runs the same attempt, not before
    /// `delay`.
    pub(super) async fn put_back(&mut self, delay: Duration) -> Result<()> {
        match self.fence.last {
            Status::Running => self.release(delay).await,
            // Nothing was written of it yet.
            _ if self.lease.is_current() => self.delivery.release(delay).await,
            _ => Ok(()),
        }
    }

    /// Gives back a job that was told to stop: another worker runs the same attempt, not before
    /// `delay`.
    pub(super) async fn release(&mut self, delay: Duration) -> Result<()> {
        let lease_is_current = self.lease.is_current();
        let mut record = self.record(Status::Pending);
        record.finished_at = None;
        // This start has ended, so it is no sign of poison.
        record.starts = self.fence.starts.saturating_sub(1);
        record.started_at = self.started_at().or(self.fence.started_at);
        record.solo = self.fence.solo;
        let ttl = running_ttl(self.delivery.ack_wait());
        let written = self.write(record.into(), ttl).await?;
        // Releasing an expired lease would take the job from its next holder.
        if written.is_some() && lease_is_current {
            self.delivery.release(delay).await?;
        }
        Ok(())
    }
}
