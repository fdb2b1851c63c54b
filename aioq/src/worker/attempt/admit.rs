//! Admission: whether the body may run, by the message and the record.
//!
//! The first delivery of a fresh job reads no record. Every other delivery does, and every
//! redelivery claims the job by a conditional write before the body starts, because an earlier
//! holder may still be alive. The rare paths are boxed to keep the common future small.

use std::time::Duration;

use super::super::runner::SlotTurn;
use super::super::suspects::{is_suspect, wait_for_turn};
use super::super::unfit;
use super::Attempt;
use super::fence::Fence;
use crate::broker::Expect;
use crate::error::Result;
use crate::message::Message;
use crate::registry::TaskDef;
use crate::store::{History, JobRecord, Status, Stored};
use crate::task::AckMode;

/// A job that comes earlier than this before its time is on time: clocks do not agree better.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// The longest time for which a job that came too early is put back. Then it is checked again.
const LONGEST_PUT_BACK: Duration = Duration::from_secs(3600);

impl Attempt<'_> {
    /// Decides if the job may start. False if the delivery was settled instead: refused, put off,
    /// or left to another worker.
    pub(super) async fn admit(&mut self, task: &TaskDef, turn: &mut SlotTurn) -> Result<bool> {
        let is_repeated = self.delivery.deliveries() > 1;
        // The check comes before the start where the start writes, or cannot be taken back.
        if (is_repeated || task.options.ack == AckMode::OnReceive)
            && let Some(delay) = self.left_to_newer_release(task)
        {
            self.put_back_untouched(delay).await?;
            return Ok(false);
        }
        if let Some(left) = self.left_until_due() {
            tracing::debug!(id = %self.message().id, ?left, "came before its time, put back");
            self.put_back_untouched(left).await?;
            return Ok(false);
        }
        let Message { supersedes, ties, .. } = self.message();
        let is_fresh = !is_repeated && supersedes.is_none() && ties.is_none();
        if !is_fresh && !Box::pin(self.read_record()).await? {
            return Ok(false);
        }
        if self.fence.started_at.is_some() && task.options.ack == AckMode::OnReceive {
            // The ack of the earlier start was lost. Such a job never runs twice.
            Box::pin(self.drop_unrun("it was started before")).await?;
            return Ok(false);
        }
        if self.stands_for_tick() && !Box::pin(self.ask_for_tick()).await? {
            return Ok(false);
        }
        // The key comes before the expiry: a debounced job may have a newer message, which expires
        // later.
        if self.needs_key() && !Box::pin(self.hold_key(task)).await? {
            return Ok(false);
        }
        if self.has_expired() {
            Box::pin(self.expire()).await?;
            return Ok(false);
        }
        let max_crashes = self.worker.options.max_crashes;
        if self.fence.solo >= max_crashes {
            Box::pin(self.fail_as_poison()).await?;
            return Ok(false);
        }
        if is_suspect(self.fence.starts, max_crashes) && !Box::pin(self.wait_as_suspect(turn)).await? {
            return Ok(false);
        }
        let has_key = self.fence.key.is_some();
        let frees_key = has_key && task.options.unique.is_some_and(|unique| unique.until_start);
        let is_debounced = task.options.unique.is_some_and(|unique| unique.debounce.is_some());
        let ends_burst = match self.message().unique() {
            Some(tie) => has_key && tie.version.is_some(),
            // The newest message of a burst that has ended takes the place of its first one, and
            // has no key any more. See `Burst::run_now`.
            None => is_debounced,
        };
        // Another job may take the key from now on. The claim tells a redelivery that this one has
        // begun, so it runs without asking again. A late end by another worker, which found the key
        // taken, is refused.
        if (is_repeated || frees_key || ends_burst) && !Box::pin(self.claim()).await? {
            return Ok(false);
        }
        if frees_key {
            Box::pin(self.free_key(Status::Running)).await;
        }
        Ok(true)
    }

    /// Time for which a job whose arguments do not fit its task is left to workers of a newer
    /// release; `None` if the arguments fit, or the time is up.
    pub(super) fn left_to_newer_release(&self, task: &TaskDef) -> Option<Duration> {
        let why = unfit::check(task, self.message())?;
        unfit::leave_to_newer(self.worker, self.message(), &why)
    }

    /// Time until the job is due; `None` if it is due.
    ///
    /// The job is due if either the worker's clock or the broker's clock says so. One wrong clock
    /// delays no job.
    fn left_until_due(&self) -> Option<Duration> {
        let run_at = self.message().run_at?;
        let left = run_at.since(self.worker.client().now());
        let is_due_at_broker =
            || self.delivery.ready_since().is_some_and(|since| run_at.since(since) <= CLOCK_SLACK);
        (left > CLOCK_SLACK && !is_due_at_broker()).then(|| left.min(LONGEST_PUT_BACK))
    }

    /// True if the job has expired. A job expires only before its first start.
    fn has_expired(&self) -> bool {
        let message = self.message();
        let is_late = message.expires_at.is_some_and(|time| time <= self.worker.client().now());
        is_late && message.attempt == 1 && self.fence.started_at.is_none()
    }

    /// Waits until no other suspect runs in this process. False if the job was given back.
    async fn wait_as_suspect(&mut self, turn: &mut SlotTurn) -> Result<bool> {
        let (id, starts) = (self.delivery.id(), self.fence.starts);
        match wait_for_turn(self.worker, id, self.delivery.deliveries(), starts, turn).await {
            Ok(turn) => {
                self.fence.take_turn(turn);
                Ok(true)
            }
            Err(delay) => {
                tracing::debug!(%id, ?delay, "may kill its process as the one that runs, given back");
                if self.lease.is_current() {
                    self.put_back_untouched(delay).await?;
                }
                Ok(false)
            }
        }
    }

    /// Reads the job's record into the fence. False if the delivery was settled.
    async fn read_record(&mut self) -> Result<bool> {
        let is_repeated = self.delivery.deliveries() > 1;
        if is_repeated && self.worker.leases.runs(self.message()) {
            // The server was away for longer than the lease. The holder is here, and settles it.
            tracing::debug!(id = %self.delivery.id(), "delivered again while it runs here, left alone");
            return Ok(false);
        }
        let Some(jobs) = self.worker.jobs() else { return Ok(true) };
        let stored = self.patient(|| jobs.get(self.delivery.id())).await?;
        if is_repeated && let Some(stored) = &stored {
            jobs.drop_older(stored);
        }
        // Read after the record: what was found, or nothing, may be left of a job that is run
        // again.
        if (is_repeated || self.is_of_another_job(stored.as_ref()))
            && !self.patient(|| self.delivery.is_newest()).await?
        {
            return self.drop_unrun("the job was removed, or a newer message of it is in the queue").await;
        }
        match stored {
            None => self.fence = Fence { starts: self.untraced_starts(), ..Fence::fresh() },
            Some(Stored { record, revision }) => return self.judge_record(record, revision).await,
        }
        Ok(true)
    }

    /// Starts of a job whose record tells none.
    ///
    /// A first start whose process died soon left no trace. A delivery that was given back
    /// unstarted looks the same. It counts as a start, but never as one that was alone.
    fn untraced_starts(&self) -> u32 {
        self.delivery.deliveries().min(2)
    }

    /// True if the record may be of another job than the message. A first delivery that was long on
    /// its way may be of a job that was removed, and the record of one that was kicked anew under
    /// its id.
    fn is_of_another_job(&self, stored: Option<&Stored>) -> bool {
        let message = self.message();
        let base = message.base_revision();
        stored.is_some_and(|Stored { record, revision }| {
            *revision > base && !record.status.is_terminal() && !record.precedes(message)
        })
    }

    /// Takes the record that was found into the fence. False if it settles the delivery.
    async fn judge_record(&mut self, record: JobRecord, revision: u64) -> Result<bool> {
        let message = self.message();
        let expect = Expect::Revision(revision);
        let base = message.base_revision();
        if revision <= base || record.precedes(message) {
            // The record that the message comes after: of a waiting job, of the attempt before, or
            // of a job run again.
            let (last, starts) = (record.status, self.untraced_starts());
            self.fence = Fence { expect, last, starts, history: History::of(record), ..Fence::fresh() };
            return Ok(true);
        }
        if record.is_unstarted() {
            // A job was removed, while this message was on its way or before.
            if record.kicked_at == message.kicked_at {
                return self.drop_unrun("the job was removed").await;
            }
            self.fence = Fence { expect, starts: self.untraced_starts(), ..Fence::fresh() };
            return Ok(true);
        }
        match record.status {
            status if status.is_terminal() => {
                if self.message().unique().is_some() {
                    Box::pin(self.free_key(status)).await;
                }
                if record.awaited {
                    Box::pin(self.settle_dependents(&record)).await;
                }
                self.drop_unrun("the job has ended already").await
            }
            _ if record.attempt > message.attempt => self.drop_unrun("a later attempt runs").await,
            Status::Retrying | Status::Scheduled => {
                self.kick_successor(&record, revision).await?;
                Ok(false)
            }
            status => {
                if status == Status::Running
                    && let Some(delay) = self.left_to_holder(&record)
                {
                    let id = self.delivery.id();
                    tracing::debug!(%id, ?delay, "its worker may be alive, left to it for a while");
                    self.put_back_untouched(delay).await?;
                    return Ok(false);
                }
                self.fence = Fence {
                    expect,
                    last: status,
                    starts: record.starts.saturating_add(1),
                    solo: record.solo,
                    // A worker that gave the job back before it began has kept this.
                    started_at: record.started_at,
                    was_admitted: true,
                    history: History::of(record),
                    ..Fence::fresh()
                };
                Ok(true)
            }
        }
    }

    /// Time for which a job is left to the worker that runs it according to the record.
    fn left_to_holder(&self, record: &JobRecord) -> Option<Duration> {
        let runs_elsewhere = record.worker_id.as_ref() != Some(&self.worker.scope.worker_id);
        self.delivery.holder_unheard().filter(|_| runs_elsewhere)
    }
}
