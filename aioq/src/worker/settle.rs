//! What follows from a run: the record first, conditionally, then the message. The only place that acks.
//!
//! Saved before acking: a crash between the two finds the record on the redelivery, and does not run again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::admit::{self, Fence};
use super::leases::Lease;
use super::storage::Unsaved;
use crate::broker::{Delivery, Expect, Receipt, Replaced};
use crate::cancel;
use crate::codec::Payload;
use crate::context::Report;
use crate::error::{Error, ErrorKind, JobError, Reason, Result, TaskError};
use crate::fault::{Fault, point};
use crate::message::{Labels, Message, Name};
use crate::middleware::Outcome;
use crate::store::{AttemptError, JobRecord, JobStore, RecordLevel, Status, Stored, put_fitting};
use crate::task::{AckMode, TaskDef};
use crate::time::{MAX_SPAN, Timestamp};

/// A run that has ended, or has not begun: what is known for its settlement.
pub(super) struct Settlement<'a> {
    pub(super) shared: &'a Shared,
    pub(super) worker_id: &'a Name,
    pub(super) delivery: &'a Delivery,
    pub(super) message: &'a Message,
    pub(super) task: Option<&'a TaskDef>,
    /// What the body said of itself.
    pub(super) report: Option<&'a Report>,
    pub(super) fence: Fence,
    /// Of a run that was started.
    pub(super) lease: Option<&'a Lease<'a>>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) took: Duration,
    /// When the run ended; without one, when its settlement began.
    pub(super) ended_at: Instant,
    /// Acked before its record is written.
    pub(super) acked: AtomicBool,
    /// While its running record cannot be written for want of room.
    pub(super) unsaved: Option<Unsaved<'a>>,
}

/// How long the record of a waiting job outlives the moment that the job is due.
const WAITING_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// How long the record of a running job outlives its last renewal.
pub(super) fn running_ttl(ack_wait: Duration) -> Duration {
    ack_wait.saturating_mul(10).max(Duration::from_secs(3600))
}

impl Settlement<'_> {
    /// Settles a run by its outcome.
    pub(super) async fn outcome(self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Done(payload) => self.done(payload).await,
            // Boxed, so that the future of a job that succeeds stays small.
            Outcome::Failed(error) => Box::pin(self.failed(error)).await,
            Outcome::Retry { after, error } => Box::pin(self.retry(after, error)).await,
            Outcome::Snooze { after } => Box::pin(self.snooze(after)).await,
            Outcome::Cancelled { why } => Box::pin(self.cancelled(why)).await,
        }
    }

    fn done(self, payload: Payload) -> impl Future<Output = Result<()>> {
        let mut record = self.record(Status::Completed);
        let limit = self.shared.scope.client.max_payload_bytes();
        let arguments = record.arguments.as_ref().map_or(0, |arguments| arguments.len());
        if arguments + payload.as_bytes().len() > limit {
            record.arguments = None;
        }
        record.result = Some(payload);
        if self.shared.scope.client.records() == RecordLevel::Results {
            (record.arguments, record.labels) = (None, Labels::new());
        }
        self.end(record)
    }

    async fn failed(self, error: TaskError) -> Result<()> {
        let reason = error.reason();
        let record = self.failure(reason, error.into_job_error());
        self.end(record).await
    }

    /// The record of a job that is given up, with what it takes to kick it again.
    fn failure(&self, reason: Reason, error: JobError) -> JobRecord {
        let mut record = self.record(Status::Failed);
        record.push_error(self.attempt_error(reason, &error));
        record.error = Some(Box::new(error));
        record.reason = Some(reason);
        record.dead_lettered = true;
        record.message = Some(self.delivery.body.clone());
        record
    }

    async fn cancelled(self, why: TaskError) -> Result<()> {
        self.called_off(why.into_job_error()).await
    }

    /// Ends a job that was called off.
    pub(super) async fn called_off(self, why: JobError) -> Result<()> {
        let mut record = self.record(Status::Cancelled);
        record.error = Some(Box::new(why));
        record.message = Some(self.delivery.body.clone());
        self.end(record).await
    }

    /// Writes the last record of the job, then acks. The record is shared before the first await: a future that
    /// held it whole would be large.
    fn end(self, record: JobRecord) -> impl Future<Output = Result<()>> {
        let own = self.task.and_then(|task| task.options.kept_for(record.status));
        self.shared.ended.count(record.status);
        let ttl = own.unwrap_or_else(|| self.shared.scope.client.retention().span(record.status));
        let record = Arc::new(record);
        async move {
            let ack = self.task.map_or(AckMode::OnSave, |task| task.options.ack);
            if ack == AckMode::AfterRun {
                // Asked before: afterwards, no message is the newest.
                if self.is_doubtful(self.ended_at) && !Box::pin(self.is_newest()).await? {
                    self.taken_over();
                    return Ok(());
                }
                self.acked.store(true, Ordering::Relaxed);
                self.delivery.receipt.ack().await?;
                point(Fault::Acked);
            }
            let ours = self.write(record, ttl).await?.is_some();
            if ack == AckMode::OnSave && ours {
                point(Fault::Saved);
                self.delivery.receipt.ack().await?;
                point(Fault::Acked);
            }
            // Otherwise it is acked already, or another worker's to ack.
            Ok(())
        }
    }

    async fn retry(self, after: Duration, error: TaskError) -> Result<()> {
        let reason = error.reason();
        let error = error.into_job_error();
        let mut record = self.record(Status::Retrying);
        record.push_error(self.attempt_error(reason, &error));
        record.error = Some(Box::new(error));
        record.finished_at = None;
        self.put_off(record, after).await
    }

    async fn snooze(self, after: Duration) -> Result<()> {
        let mut record = self.record(Status::Scheduled);
        record.finished_at = None;
        self.put_off(record, after).await
    }

    /// Writes when the job runs again, then puts the message for it in the place of this one.
    async fn put_off(self, mut record: JobRecord, after: Duration) -> Result<()> {
        // A layer of the user's own may say anything.
        let after = after.min(MAX_SPAN);
        record.run_at = Some(self.now() + after);
        let record = Arc::new(record);
        let written = self.write(Arc::clone(&record), after.saturating_add(WAITING_MARGIN)).await?;
        match written {
            Some(revision) => {
                point(Fault::Announced);
                finish_move(self.shared, self.delivery, self.message, &record, revision).await
            }
            None => Ok(()),
        }
    }

    /// Gives back a job of which nothing was done: another worker runs the same attempt, not before `delay`.
    pub(super) async fn put_back(self, delay: Duration) -> Result<()> {
        match self.fence.last {
            Status::Running => self.release(delay).await,
            // Nothing was written of it yet.
            _ if self.lease.is_some_and(Lease::is_current) => self.delivery.receipt.release(delay).await,
            _ => Ok(()),
        }
    }

    /// Gives back a job that was told to stop: another worker runs the same attempt, not before `delay`.
    pub(super) async fn release(self, delay: Duration) -> Result<()> {
        let lease_is_current = self.lease.is_some_and(Lease::is_current);
        let mut record = self.record(Status::Pending);
        record.finished_at = None;
        // This start has ended, so it does not speak for poison.
        record.starts = self.fence.starts.saturating_sub(1);
        record.started_at = self.started_at.or(self.fence.started_at);
        record.solo = self.fence.solo;
        let ttl = running_ttl(self.delivery.receipt.ack_wait());
        match self.write(Arc::new(record), ttl).await? {
            // A release of a lease that is over would take the job from its next holder.
            Some(_) if lease_is_current => self.delivery.receipt.release(delay).await,
            _ => Ok(()),
        }
    }

    /// The time now, by the clock of this worker.
    fn now(&self) -> Timestamp {
        self.shared.scope.client.now()
    }

    fn record(&self, status: Status) -> JobRecord {
        let mut record = JobRecord::of(self.message, status);
        let task_retries = self.task.map_or(0, |task| task.options.retry.max);
        record.max_retries = self.message.max_retries.unwrap_or(task_retries);
        record.started_at = self.started_at;
        record.finished_at =
            Some(self.started_at.map_or_else(|| self.now(), |started_at| started_at + self.took));
        record.execution_time = self.took;
        record.worker_id = Some(self.worker_id.clone());
        if let Some(history) = &self.fence.history {
            history.fill(&mut record);
            if status == Status::Completed {
                // That of a run that failed says nothing of it.
                record.progress = None;
            }
        }
        if let Some(report) = self.report {
            report.fill(&mut record);
        }
        record
    }

    fn attempt_error(&self, reason: Reason, error: &JobError) -> AttemptError {
        AttemptError {
            attempt: self.message.attempt,
            at: self.now(),
            worker_id: Some(self.worker_id.clone()),
            reason,
            error: error.clone(),
        }
    }

    /// Writes the record if the job is still ours; its revision, or `None` if another worker has it.
    async fn write(&self, record: Arc<JobRecord>, ttl: Duration) -> Result<Option<u64>> {
        let Some(jobs) = self.shared.scope.client.backend().jobs() else { return Ok(Some(0)) };
        if !self.fence.last.leads_to(record.status) {
            let message = format!("a job that is {} cannot become {}", self.fence.last, record.status);
            return Err(Error::new(ErrorKind::Conflict, message).with_id(record.id.clone()));
        }
        let written = if self.is_doubtful(self.ended_at) && !Box::pin(self.is_newest()).await? {
            Err(not_newest())
        } else {
            jobs.put(Arc::clone(&record), self.fence.expect, Some(ttl)).await
        };
        let written = match written {
            Ok(revision) => Ok(Some(revision)),
            Err(refused) => Box::pin(self.write_after_all(&**jobs, record, ttl, refused)).await,
        };
        if let (Ok(Some(_)), Some(unsaved)) = (&written, &self.unsaved) {
            unsaved.saved();
        }
        written
    }

    /// Writes the record although the first write failed, if that can be.
    ///
    /// A record that is too large is written without what can be spared: a job must be able to end.
    async fn write_after_all(
        &self,
        jobs: &dyn JobStore,
        record: Arc<JobRecord>,
        ttl: Duration,
        refused: Error,
    ) -> Result<Option<u64>> {
        let receipt = &self.delivery.receipt;
        let put = async |record: &Arc<JobRecord>, expect| {
            let put = async || {
                if expect == Expect::Absent && self.is_doubtful(Instant::now()) {
                    check_is_newest(receipt).await?;
                }
                put_fitting(jobs, Arc::clone(record), expect, Some(ttl)).await
            };
            saving(self.shared, receipt, put).await
        };
        let mut written = match refused.kind() {
            ErrorKind::TooLarge => put(&record, self.fence.expect).await,
            _ if refused.is_outage() => put(&record, self.fence.expect).await,
            _ => Err(refused),
        };
        if kind(&written) == Some(ErrorKind::Conflict) {
            match self.newest(jobs).await? {
                Newest::Own(stored) if stored.record.status == record.status => {
                    return Ok(Some(stored.revision));
                }
                Newest::Own(stored) => written = put(&record, Expect::Revision(stored.revision)).await,
                Newest::Before(expect) => written = put(&record, expect).await,
                Newest::Others => {}
            }
        }
        match written {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                // Whoever called it off was faster, or another worker has it.
                if record.status != Status::Cancelled {
                    self.taken_over();
                }
                Ok(None)
            }
            written => written.map(Some),
        }
    }

    /// Whether the job may have ended elsewhere at that time, and its record may be gone since: then a write that
    /// expects no record would pass, and tell of a job that was removed, or hide one that was kicked under its id. Of
    /// a run whose lease holds nobody else can end the job, so hardly any run asks further. Once it is acked, its
    /// message proves nothing any more.
    fn is_doubtful(&self, at: Instant) -> bool {
        let acked = self.acked.load(Ordering::Relaxed);
        !acked && self.fence.expect == Expect::Absent && is_doubtful(self.lease, at)
    }

    /// Whether no newer message of the job is there, and this one was not removed.
    async fn is_newest(&self) -> Result<bool> {
        patient(&self.delivery.receipt, || self.delivery.receipt.is_newest()).await
    }

    fn taken_over(&self) {
        let Message { id, task, .. } = self.message;
        self.shared.taken_over.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%id, %task, "another worker took the job over, what came of this run is dropped");
    }
}

/// What is found where a conditional write was refused.
pub(super) enum Newest {
    /// A write of this very run, whose confirmation was lost.
    Own(Box<Stored>),
    /// What the job comes after, in place of the record of the run before: see [`in_place`].
    Before(Expect),
    /// What another worker wrote, or a client.
    Others,
}

impl Settlement<'_> {
    /// Who wrote the newest record.
    pub(super) async fn newest(&self, jobs: &dyn JobStore) -> Result<Newest> {
        let stored = patient(&self.delivery.receipt, || jobs.get(&self.message.id)).await?;
        if self.fence.came_after_one(self.message)
            && let Some(expect) = in_place(&self.delivery.receipt, self.message, stored.as_ref()).await?
        {
            return Ok(Newest::Before(expect));
        }
        let Some(stored) = stored else { return Ok(Newest::Others) };
        let record = &stored.record;
        let own = record.worker_id.as_deref() == Some(&*self.shared.scope.worker_id)
            && record.attempt == self.message.attempt
            && self.started_at.is_some()
            && record.started_at == self.started_at;
        Ok(if own { Newest::Own(Box::new(stored)) } else { Newest::Others })
    }
}

/// What a message may write over in place of the record that it comes after: that it waits, or what is left of a record
/// that was removed while the job was run again. `None` if anything else is there.
pub(super) async fn in_place(
    receipt: &Arc<dyn Receipt>,
    message: &Message,
    stored: Option<&Stored>,
) -> Result<Option<Expect>> {
    let expect = match stored {
        Some(Stored { record, revision }) if record.is_waiting(message) => {
            return Ok(Some(Expect::Revision(*revision)));
        }
        Some(Stored { record, revision }) if record.is_removed_before(message) => Expect::Revision(*revision),
        Some(_) => return Ok(None),
        None => Expect::Absent,
    };
    // So looks also what is left of the job itself, or of one that was kicked under its id since.
    Ok(patient(receipt, || receipt.is_newest()).await?.then_some(expect))
}

/// Whether a job whose lease this is may be another's by that time. Without a lease it was not started, and may have
/// been called off and removed meanwhile.
pub(super) fn is_doubtful(lease: Option<&Lease<'_>>, at: Instant) -> bool {
    lease.is_none_or(|lease| !lease.is_current_at(at))
}

/// Checks before a write that expects no record that there is none because nothing ended the job.
///
/// # Errors
/// [`Conflict`](ErrorKind::Conflict) if the message is not the newest of its job any more.
pub(super) async fn check_is_newest(receipt: &Arc<dyn Receipt>) -> Result<()> {
    if receipt.is_newest().await? { Ok(()) } else { Err(not_newest()) }
}

fn not_newest() -> Error {
    Error::new(ErrorKind::Conflict, "the message is not the newest of its job any more")
}

fn kind<T>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

/// Puts the message that `record` announces in the place of the delivered one: the last step of a retry or a
/// snooze, also when the worker that wrote the record died before it.
pub(super) async fn finish_move(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    record: &JobRecord,
    revision: u64,
) -> Result<()> {
    let mut next = message.clone();
    next.attempt = message.attempt + u32::from(record.status == Status::Retrying);
    next.run_at = record.run_at;
    if record.status == Status::Retrying && has_time_limit(shared, message) {
        let failed_at = record.errors.last().map(|error| error.at);
        next.first_failed_at = message.first_failed_at.or(failed_at);
    }
    // It was started in time.
    next.expires_at = None;
    // Without a store there is no record to come after.
    next.supersedes = shared.scope.client.backend().jobs().map(|_| revision).or(message.supersedes);
    let next = next.seal();
    match saving(shared, &delivery.receipt, || delivery.receipt.replace(next.clone())).await {
        Ok(Replaced::Done) => {
            point(Fault::Acked);
            Ok(())
        }
        Ok(Replaced::Lost) => {
            tracing::debug!(id = %message.id, "the next attempt was in the queue already");
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::TooLarge => {
            Box::pin(give_up_move(shared, delivery, record, revision, &error)).await
        }
        Err(error) => Err(error),
    }
}

/// Fails a job whose next message is too large for the broker: it can never run again.
async fn give_up_move(
    shared: &Shared,
    delivery: &Delivery,
    announced: &JobRecord,
    revision: u64,
    too_large: &Error,
) -> Result<()> {
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
    (record.run_at, record.finished_at) = (None, Some(shared.scope.client.now()));
    record.dead_lettered = true;
    record.message = Some(delivery.body.clone());
    shared.ended.count(record.status);
    let ttl = shared.scope.client.retention().span(record.status);
    if let Some(jobs) = shared.scope.client.backend().jobs() {
        let record = Arc::new(record);
        let put = || put_fitting(&**jobs, Arc::clone(&record), Expect::Revision(revision), Some(ttl));
        match saving(shared, &delivery.receipt, put).await {
            // Somebody called it off, or came here first.
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
            written => written?,
        };
    }
    delivery.receipt.ack().await
}

/// Whether the retries of a job end some time after its first failure.
fn has_time_limit(shared: &Shared, message: &Message) -> bool {
    shared.registry.find(&message.task).is_some_and(|task| task.options.retry.retry_for.is_some())
}

/// Fails a job that cannot be run: the record, the dead letter, the ack.
pub(super) async fn refuse(
    shared: &Shared,
    delivery: &Delivery,
    message: Option<&Message>,
    reason: Reason,
    error: JobError,
) -> Result<()> {
    tracing::error!(id = %delivery.id, %reason, %error, "cannot be run");
    let Some((expect, last)) = newest_for_refusal(shared, delivery).await? else {
        // It ended elsewhere, or a newer message of it is in the queue.
        return delivery.receipt.ack().await;
    };
    let fence = Fence::unstarted(expect, last);
    let unreadable;
    let message = match message {
        Some(message) => message,
        None => {
            unreadable = Message::unreadable(delivery.id.clone(), delivery.queue.clone());
            &unreadable
        }
    };
    let settlement = Settlement::unstarted(shared, delivery, message, fence);
    let mut record = settlement.failure(reason, error);
    if reason == Reason::Undecodable {
        record.arguments = None;
    }
    settlement.end(record).await
}

/// Expires a job that was not started in time.
pub(super) async fn expire(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    fence: Fence,
) -> Result<()> {
    let settlement = Settlement::unstarted(shared, delivery, message, fence);
    let mut record = settlement.record(Status::Expired);
    record.reason = Some(Reason::Expired);
    record.dead_lettered = true;
    record.message = Some(delivery.body.clone());
    settlement.end(record).await
}

/// Ends a job that was called off before it started.
pub(super) async fn call_off(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    fence: Fence,
) -> Result<()> {
    tracing::debug!(id = %message.id, task = %message.task, "called off before it started");
    Settlement::unstarted(shared, delivery, message, fence).called_off(cancel::called_off()).await
}

/// Gives back a job that was admitted and not started.
pub(super) async fn give_back(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    fence: Fence,
    lease: &Lease<'_>,
) -> Result<()> {
    match delivery.deliveries {
        // Nothing was written of it yet.
        1 if lease.is_current() => delivery.receipt.release(Duration::ZERO).await,
        _ => {
            let unstarted = Settlement::unstarted(shared, delivery, message, fence);
            Settlement { lease: Some(lease), ..unstarted }.release(Duration::ZERO).await
        }
    }
}

/// Fails a job whose process died each time.
pub(super) async fn poison(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    fence: Fence,
) -> Result<()> {
    let (died, solo) = (fence.starts.saturating_sub(1), fence.solo);
    let error = JobError::new(
        "Poison",
        format!(
            "its process died each of the {died} times that its body was started, {solo} of them with no other \
             suspect beside it"
        ),
    );
    tracing::error!(id = %message.id, task = %message.task, %error, "poison");
    let settlement = Settlement::unstarted(shared, delivery, message, fence);
    let record = settlement.failure(Reason::Poison, error);
    settlement.end(record).await
}

impl<'a> Settlement<'a> {
    fn unstarted(shared: &'a Shared, delivery: &'a Delivery, message: &'a Message, fence: Fence) -> Self {
        Self {
            shared,
            worker_id: &shared.scope.worker_id,
            delivery,
            message,
            task: None,
            report: None,
            fence,
            lease: None,
            started_at: None,
            took: Duration::ZERO,
            ended_at: Instant::now(),
            acked: AtomicBool::new(false),
            unsaved: None,
        }
    }
}

/// What the record of a job that is refused is conditional on; `None` if the job has got further meanwhile.
async fn newest_for_refusal(shared: &Shared, delivery: &Delivery) -> Result<Option<(Expect, Status)>> {
    let none = (Expect::Absent, Status::Pending);
    let Some(jobs) = shared.scope.client.backend().jobs() else { return Ok(Some(none)) };
    let base = Message::open(&delivery.body).ok().and_then(|message| message.supersedes).unwrap_or(0);
    let stored = patient(&delivery.receipt, || jobs.get(&delivery.id)).await?;
    // Asked afterwards: no record is also what is left of a job that was removed.
    if !patient(&delivery.receipt, || delivery.receipt.is_newest()).await? {
        return Ok(None);
    }
    Ok(match stored {
        None => Some(none),
        Some(Stored { record, revision }) if revision > base && record.status.is_terminal() => None,
        Some(Stored { record, revision }) => Some((Expect::Revision(revision), record.status)),
    })
}

/// The first and the longest pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Tries again while the server is away: a run that has ended is worth waiting for. The worker ends the wait by
/// dropping the future when its grace period is over; the job then comes back after `ack_wait`.
pub(super) async fn patient<T, F>(receipt: &Arc<dyn Receipt>, request: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let tell = |error: &Error| tracing::warn!(%error, "the backend does not answer, trying again");
    patient_with(receipt, request, tell).await
}

/// As [`patient`], for a request that stores something: while there is no room, the worker starts nothing.
pub(super) async fn saving<T, F>(
    shared: &Shared,
    receipt: &Arc<dyn Receipt>,
    request: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut unsaved = None;
    let tell = |error: &Error| {
        if error.kind() == ErrorKind::StorageFull {
            unsaved.get_or_insert_with(|| shared.storage.wait(error));
        } else {
            tracing::warn!(%error, "the backend does not answer, trying again");
        }
    };
    let done = patient_with(receipt, request, tell).await;
    if let Some(unsaved) = unsaved {
        unsaved.saved();
    }
    done
}

async fn patient_with<T, F>(
    receipt: &Arc<dyn Receipt>,
    mut request: impl FnMut() -> F,
    mut tell: impl FnMut(&Error),
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match request().await {
            Err(error) if error.is_outage() => {
                tell(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE).min(receipt.ack_wait());
            }
            other => return other,
        }
    }
}

/// The record of a job that still runs, by the fence of its run.
pub(super) fn still_running(settlement: &Settlement<'_>) -> JobRecord {
    let started_at = settlement.started_at.unwrap_or_else(|| settlement.now());
    let mut record = admit::running(settlement.shared, settlement.message, &settlement.fence, started_at);
    if let Some(report) = settlement.report {
        report.fill(&mut record);
    }
    record
}
