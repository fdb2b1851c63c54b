//! The run of a body, and the running record of one that lasts.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::super::Shared;
use super::super::leases::Lease;
use super::super::runner::SlotTurn;
use super::Attempt;
use super::settle::{Newest, running_ttl};
use crate::broker::{Expect, MAX_ACK_WAIT};
use crate::error::{ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::Message;
use crate::middleware::{self, Outcome, catch_panic};
use crate::registry::TaskDef;
use crate::run::StopReason;
use crate::store::{RecordLevel, Status, put_fitting};

/// A job that lasts longer than this gets a running record.
const SHORT: Duration = Duration::from_millis(500);

/// Time after which the log says that a body goes on although it was told to stop. It doubles each
/// time, up to the longest.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_PATIENCE: Duration = Duration::from_secs(3600);

/// Time that such a body gets when the worker ends, before its job is given back.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// Pause before a running record is written again that the full storage has refused.
const FULL_PAUSE: Duration = Duration::from_secs(2);

/// The end of a run.
pub(super) enum End {
    Outcome(Outcome),
    /// The run was told to stop. An async body was dropped.
    Stopped(StopReason),
    /// The run was told to stop, and its blocking body goes on although the worker ends.
    CutOff(StopReason),
    /// Another worker has the job. The body was dropped.
    TakenOver,
}

/// What a write of the running record showed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Noted {
    /// The job is still this worker's.
    Ours,
    /// A client has written the record beside it, which is to be written again.
    Again,
    /// Another worker has the job.
    TakenOver,
}

/// A write of the running record, under way.
type RecordWrite<'a> = BoxFuture<'a, Result<u64>>;

impl<'a> Attempt<'a> {
    /// Runs the body of a started job.
    pub(super) async fn run(&mut self, task: &TaskDef, turn: &mut SlotTurn) -> Result<End> {
        let end = self.run_body(task).await?;
        point(Fault::Ran);
        turn.ended = Instant::now();
        turn.slot = self.ctx.take_slot();
        if let Some(timing) = &mut self.timing {
            timing.ended = turn.ended;
        }
        Ok(end)
    }

    async fn run_body(&mut self, task: &TaskDef) -> Result<End> {
        let (worker, lease) = (self.worker, self.lease);
        let mut body = pin!(Some(middleware::run(task, self.ctx.clone(), &worker.layers)));
        match futures_util::poll!(poll_body(worker, lease, body.as_mut())) {
            Poll::Ready(outcome) => Ok(end_of(outcome, lease)),
            // Boxed to keep the future of a short job small.
            Poll::Pending => Box::pin(self.run_on(task, body)).await,
        }
    }

    /// Goes on with a body that has begun. If it lasts, keeps a running record.
    async fn run_on<F: Future<Output = Outcome>>(
        &mut self,
        task: &TaskDef,
        mut body: Pin<&mut Option<F>>,
    ) -> Result<End> {
        let (worker, lease, ctx) = (self.worker, self.lease, self.ctx.clone());
        let keeps_record = worker.jobs().is_some() && worker.client().records() == RecordLevel::Full;
        let mut written_at = Instant::now();
        let mut write_at = written_at + SHORT;
        let mut write: Option<RecordWrite<'a>> = None;
        // True while the body has reported something that is not in the record yet.
        let mut has_news = false;
        let end = loop {
            tokio::select! {
                biased;
                outcome = poll_body(worker, lease, body.as_mut()) => break end_of(outcome, lease),
                reason = lease.state.stopped() => {
                    break if task.is_blocking() {
                        // A thread cannot be dropped: its body is told, and waited for.
                        let waiting = self.wait_for_stop(poll_body(worker, lease, body.as_mut()));
                        match Box::pin(waiting).await {
                            Some(outcome) => end_of(outcome, lease),
                            None => End::CutOff(reason),
                        }
                    } else {
                        // Before anything is written, which may take long.
                        self.drop_body(body.as_mut());
                        End::Stopped(reason)
                    };
                }
                written = pending_or(&mut write) => {
                    write = None;
                    match Box::pin(self.note_running_record(written)).await? {
                        Noted::Ours => {}
                        Noted::Again => {
                            write = self.write_running_record();
                            continue;
                        }
                        Noted::TakenOver => {
                            lease.state.interrupt();
                            return Ok(End::TakenOver);
                        }
                    }
                    written_at = Instant::now();
                    write_at = written_at + self.time_to_next_record(has_news);
                }
                () = ctx.report().news(), if keeps_record => {
                    has_news = true;
                    write_at = write_at.min(written_at + SHORT);
                }
                () = tokio::time::sleep_until(write_at), if keeps_record && write.is_none() => {
                    self.fence.end_turn();
                    has_news = false;
                    write = self.write_running_record();
                }
            }
        };
        // The last write of the record comes after this one, and needs its revision.
        if let Some(write) = write {
            let written = write.await;
            if Box::pin(self.note_running_record(written)).await? == Noted::TakenOver {
                return Ok(End::TakenOver);
            }
        }
        Ok(end)
    }

    fn time_to_next_record(&self, has_news: bool) -> Duration {
        if has_news {
            SHORT
        } else if self.unsaved.is_some() {
            FULL_PAUSE
        } else {
            self.delivery.ack_wait().min(MAX_ACK_WAIT)
        }
    }

    /// Drops an async body. A panic in the drop does not fail the job.
    fn drop_body<F>(&self, body: Pin<&mut Option<F>>) {
        if let Some(panic) = catch_panic::drop_in_place(body) {
            let Message { id, task, .. } = self.message();
            tracing::error!(%id, %task, panic, "the body panicked when it was dropped");
        }
    }

    fn write_running_record(&self) -> Option<RecordWrite<'a>> {
        let (delivery, lease, expect) = (self.delivery, self.lease, self.fence.expect);
        let ttl = running_ttl(delivery.ack_wait());
        let mut record = self.running_record(self.started_at()?);
        self.ctx.report().fill(&mut record);
        let jobs = self.worker.jobs()?;
        Some(Box::pin(async move {
            if expect == Expect::Absent && !lease.is_current_at(Instant::now()) {
                delivery.check_is_newest().await?;
            }
            put_fitting(&**jobs, Arc::new(record), expect, Some(ttl)).await
        }))
    }

    /// Waits for a blocking body that was told to stop; `None` if the worker ends before the body.
    async fn wait_for_stop(&self, mut run: impl Future<Output = Outcome> + Unpin) -> Option<Outcome> {
        let Message { id, task, .. } = self.message();
        let told_at = Instant::now();
        let mut pause = PATIENCE;
        let worker_ends = async {
            self.lease.state.worker_ended().await;
            tokio::time::sleep(END_PATIENCE).await;
        };
        let mut worker_ends = pin!(worker_ends);
        loop {
            tokio::select! {
                biased;
                outcome = &mut run => return Some(outcome),
                () = &mut worker_ends => break,
                () = tokio::time::sleep(pause) => {
                    pause = (pause * 2).min(LONGEST_PATIENCE);
                    let age = told_at.elapsed();
                    tracing::warn!(
                        %id, %task, ?age,
                        "still running although it was told to stop: blocking bodies must check `ctx.is_cancelled()`"
                    );
                }
            }
        }
        tracing::warn!(%id, %task, "its body goes on although the worker ends, the job is given back");
        None
    }

    /// Takes note of a write of the running record.
    ///
    /// An outage of the backend does not stop the job.
    async fn note_running_record(&mut self, written: Result<u64>) -> Result<Noted> {
        let revision = match written {
            Ok(revision) => {
                if let Some(unsaved) = self.unsaved.take() {
                    unsaved.saved();
                }
                revision
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let Some(jobs) = self.worker.jobs() else { return Ok(Noted::Ours) };
                match self.newest(&**jobs).await? {
                    // An earlier write of this run whose confirmation was lost.
                    Newest::Own(stored) => stored.revision,
                    Newest::Before(found) => {
                        self.fence.replace(found);
                        return Ok(Noted::Again);
                    }
                    Newest::Others => {
                        self.count_taken_over("another worker took the job over, it is cancelled here");
                        return Ok(Noted::TakenOver);
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                let worker = self.worker;
                self.unsaved.get_or_insert_with(|| worker.storage.wait(&error));
                return Ok(Noted::Ours);
            }
            Err(error) => {
                tracing::debug!(%error, "the running record could not be written");
                return Ok(Noted::Ours);
            }
        };
        self.fence.expect = Expect::Revision(revision);
        self.fence.last = Status::Running;
        if let Some(turn) = &mut self.fence.turn {
            turn.give_way();
        }
        Ok(Noted::Ours)
    }
}

/// Polls the body. The watchdog can see since when one poll lasts.
fn poll_body<F: Future<Output = Outcome>>(
    worker: &Shared,
    lease: &Lease<'_>,
    mut body: Pin<&mut Option<F>>,
) -> impl Future<Output = Outcome> + Unpin {
    std::future::poll_fn(move |context| {
        // The body is dropped only when it is polled no more.
        let Some(body) = body.as_mut().as_pin_mut() else { return Poll::Pending };
        let scan = worker.leases.scan();
        lease.state.poll_began(scan);
        let polled = body.poll(context);
        lease.state.poll_ended(scan);
        polled
    })
}

async fn pending_or(write: &mut Option<RecordWrite<'_>>) -> Result<u64> {
    match write {
        Some(write) => write.await,
        None => std::future::pending().await,
    }
}

/// The end of a run. The error of a body that was told to stop is no failure of its own.
fn end_of(outcome: Outcome, lease: &Lease<'_>) -> End {
    match (outcome, lease.state.stop_reason()) {
        (Outcome::Done(payload), _) => End::Outcome(Outcome::Done(payload)),
        (_, Some(reason)) => End::Stopped(reason),
        (other, None) => End::Outcome(other),
    }
}
