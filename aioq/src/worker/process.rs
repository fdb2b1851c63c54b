//! One delivery, from open to settled.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::Shared;
use super::admit::{admit, claim, open, undecodable, unknown_task};
use super::leases::{Lease, LeaseHolder};
use super::prefetch::{Fetched, Runner};
use super::settle::{self, Newest, Settlement, check_is_newest, is_doubtful, running_ttl, still_running};
use super::tally::Kind;
use super::unfit;
use crate::broker::{Delivery, Expect, MAX_ACK_WAIT};
use crate::cancel;
use crate::context::{Context, Report, RunScope};
use crate::error::{ErrorKind, Reason, Result, TaskError};
use crate::fault::{Fault, point};
use crate::message::{Message, Name};
use crate::middleware::{self, Outcome, catch_panic};
use crate::run::{Reservation, StopReason};
use crate::store::{RecordLevel, Status, put_fitting};
use crate::task::{AckMode, TaskDef};

/// A job that lasts longer than this gets a running record.
const SHORT: Duration = Duration::from_millis(500);

/// How long a body may go on that was told to stop, before the log says so; then twice as long each time.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_PATIENCE: Duration = Duration::from_secs(3600);

/// How long it may go on when the worker ends, before its job is given back.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// How long to wait before the running record is written again that there was no room for.
const FULL_PAUSE: Duration = Duration::from_secs(2);

/// How a run ended.
enum End {
    Outcome(Outcome),
    /// It was told to stop; an async body was dropped.
    Stopped(StopReason),
    /// It was told to stop, and its blocking body goes on although the worker ends.
    CutOff(StopReason),
    /// Another worker has the job; the body was dropped.
    TakenOver,
}

/// Takes a delivery through admission, run and settlement, and then those in hand one after the other. `slot` is the
/// place among the async jobs.
pub(super) async fn work(mut runner: Runner, first: Fetched, slot: OwnedSemaphorePermit) {
    let shared = Arc::clone(&runner.shared);
    let mut common = Common::new(&shared);
    let mut holder = shared.leases.holder();
    let mut turn = Turn { slot: Some(slot), taken: None, ended: first.at };
    let mut next = Some(first);
    while let Some(fetched) = next {
        common.prepare(&fetched.delivery);
        {
            // In place: it is large to be moved.
            let job = pin!(process(&shared, &common, &mut holder, fetched, &mut turn));
            runner.run(job).await;
        }
        // Jobs that never wait would keep the thread to themselves.
        consume_budget().await;
        // Without a slot of its own it must not start another one. A body that is to go on comes before a new one.
        if turn.slot.is_none() || shared.scope.slots.are_wanted() {
            return;
        }
        next = runner.next(turn.ended).await;
    }
}

/// What a job takes over from the one before.
pub(super) struct Turn {
    /// The slot, unless the job gave it up.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// If the job was taken for a place of a blocking job.
    taken: Option<Reservation>,
    /// When the last one ended.
    ended: Instant,
}

impl Turn {
    /// Gives up for others what the job was fetched for.
    pub(super) fn leave(&mut self) {
        (self.slot, self.taken) = (None, None);
    }
}

/// What the jobs of one runner have in common. Of its own from the second one on: processors that count the references
/// of one allocation at once slow each other down.
struct Common<'a> {
    shared: &'a Shared,
    scope: Arc<RunScope>,
    queue: Name,
    /// How many there were.
    jobs: u64,
}

impl Drop for Common<'_> {
    fn drop(&mut self) {
        self.shared.jobs.fetch_add(self.jobs, Ordering::Relaxed);
    }
}

impl<'a> Common<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, scope: Arc::clone(&shared.scope), queue: Name::default(), jobs: 0 }
    }

    fn prepare(&mut self, delivery: &Delivery) {
        if self.jobs == 1 {
            self.scope = Arc::new(self.scope.copied());
        }
        if self.queue != delivery.queue {
            self.queue = Name::from(delivery.queue.as_str());
        }
        self.jobs += 1;
    }
}

/// Takes one delivery from open to settled.
async fn process(
    shared: &Shared,
    common: &Common<'_>,
    holder: &mut LeaseHolder<'_>,
    Fetched { delivery, at, taken }: Fetched,
    turn: &mut Turn,
) {
    turn.taken = taken;
    let lease = holder.hold(&delivery, at);
    if let Err(error) = settle_one(shared, common, &delivery, &lease, turn).await {
        // Not acked, so it comes back after `ack_wait`.
        shared.unsettled.fetch_add(1, Ordering::Relaxed);
        tracing::error!(id = %delivery.id, %error, "could not be settled, it will be delivered again");
    }
    turn.taken = None;
}

async fn settle_one(
    shared: &Shared,
    common: &Common<'_>,
    delivery: &Delivery,
    lease: &Lease<'_>,
    turn: &mut Turn,
) -> Result<()> {
    point(Fault::Fetched);
    let (message, task) = match open(shared, delivery, &common.queue) {
        Ok((message, Some(task))) => (message, task),
        Ok((message, None)) => return Box::pin(unknown_task(shared, delivery, &message)).await,
        Err(error) => return Box::pin(undecodable(shared, delivery, error)).await,
    };
    let doubtful = delivery.deliveries > 1 || task.options.ack == AckMode::OnReceive;
    if doubtful && let Some(delay) = left_to_newer(shared, &message, task) {
        return delivery.receipt.release(delay).await;
    }
    let Some(mut fence) = admit(shared, delivery, &message, task, lease, turn).await? else { return Ok(()) };
    if !is_answered_for(shared, lease).await {
        tracing::debug!(id = %message.id, "given back: this worker could not be asked about it for a while");
        return match delivery.deliveries {
            // It comes again by itself, and nothing was written of it yet.
            1 if !lease.is_current() => Ok(()),
            _ => Box::pin(settle::give_back(shared, delivery, &message, fence, lease)).await,
        };
    }
    match start(shared, &message, task, lease) {
        Ok(()) => {}
        Err(StopReason::Cancelled | StopReason::Aborted) => {
            return Box::pin(settle::call_off(shared, delivery, &message, fence)).await;
        }
        Err(StopReason::Shutdown) => {
            return Box::pin(settle::give_back(shared, delivery, &message, fence, lease)).await;
        }
    }
    let mut begun = Instant::now();
    if !lease.is_current_at(begun) {
        // Another worker has it by now, or it comes again.
        tracing::warn!(id = %message.id, task = %message.task, "is not started: its lease is over");
        return match delivery.deliveries {
            // Nothing was written of it yet.
            1 => Ok(()),
            _ => Box::pin(settle::give_back(shared, delivery, &message, fence, lease)).await,
        };
    }
    if task.options.ack == AckMode::OnReceive {
        // Once it is acked, its record is all that tells of it.
        let Some(claimed) = Box::pin(claim(shared, delivery, &message, fence)).await? else { return Ok(()) };
        fence = claimed;
        delivery.receipt.ack().await?;
        point(Fault::Acked);
        begun = Instant::now();
    }
    let ctx = Context::new(message, Arc::clone(&common.scope), Arc::clone(&lease.state), turn.slot.take());
    let mut settlement = Settlement {
        shared,
        worker_id: &common.scope.worker_id,
        delivery,
        message: ctx.message(),
        task: Some(task),
        report: Some(ctx.report()),
        fence,
        lease: Some(lease),
        started_at: Some(shared.scope.client.now()),
        took: Duration::ZERO,
        ended_at: begun,
        acked: AtomicBool::new(false),
        unsaved: None,
    };
    point(Fault::Started);
    let end = run(&mut settlement, task, ctx.clone(), lease).await?;
    point(Fault::Ran);
    turn.ended = Instant::now();
    turn.slot = ctx.take_slot();
    settlement.took = turn.ended - begun;
    settlement.ended_at = turn.ended;
    match end {
        End::Outcome(Outcome::Failed(error)) if error.reason() == Reason::BadArguments => {
            Box::pin(settle_unfit(settlement, task, error)).await
        }
        End::Outcome(outcome) => {
            let kind = Kind::of(&outcome);
            settlement.outcome(outcome).await?;
            kind.into_iter().for_each(|kind| shared.tally.count(task, kind));
            Ok(())
        }
        End::Stopped(why) => Box::pin(stopped(settlement, task, why)).await,
        End::CutOff(why) => {
            let settled = Box::pin(stopped(settlement, task, why)).await;
            shared.cut_off.fetch_add(1, Ordering::Relaxed);
            settled
        }
        End::TakenOver => Ok(()),
    }
}

/// Settles a run that was told to stop.
async fn stopped(settlement: Settlement<'_>, task: &TaskDef, why: StopReason) -> Result<()> {
    match why {
        StopReason::Aborted | StopReason::Cancelled => settlement.called_off(cancel::aborted()).await,
        // It is acked already, and never runs twice: that is its end.
        StopReason::Shutdown if task.options.ack == AckMode::OnReceive => {
            let error = TaskError::fatal("the worker stopped before the job ended");
            settlement.outcome(Outcome::Failed(error)).await
        }
        StopReason::Shutdown => settlement.release(Duration::ZERO).await,
    }
}

/// Whether all who called jobs off since this one came have asked this worker. They ask those that are known to live;
/// if it was not, the job may have been called off without a word to it, and is delivered again if it was not.
async fn is_answered_for(shared: &Shared, lease: &Lease<'_>) -> bool {
    let client = &shared.scope.client;
    client.in_process() || shared.heartbeat.known(client).await <= lease.leased
}

/// How long to leave a job alone whose arguments do not fit. Asked before the start where that writes something, or
/// cannot be taken back.
fn left_to_newer(shared: &Shared, message: &Message, task: &TaskDef) -> Option<Duration> {
    let why = unfit::check(task, message)?;
    unfit::leave_to_newer(shared, message, &why)
}

/// Settles a run that could not read its arguments.
async fn settle_unfit(settlement: Settlement<'_>, task: &TaskDef, error: TaskError) -> Result<()> {
    let (shared, message) = (settlement.shared, settlement.message);
    let is_acked = task.options.ack == AckMode::OnReceive;
    // Otherwise the body read something else.
    if !is_acked && let Some(delay) = left_to_newer(shared, message, task) {
        return settlement.put_back(delay).await;
    }
    tracing::error!(id = %message.id, task = %message.task, reason = %error.reason(), %error, "failed");
    let outcome = Outcome::Failed(error);
    let kind = Kind::of(&outcome);
    settlement.outcome(outcome).await?;
    kind.into_iter().for_each(|kind| shared.tally.count(task, kind));
    Ok(())
}

/// Starts the job, unless somebody wants it left alone.
fn start(shared: &Shared, message: &Message, task: &TaskDef, lease: &Lease<'_>) -> Result<(), StopReason> {
    lease.state.start(message, task, || shared.cancels.cover(message))
}

/// Runs the body.
async fn run(
    settlement: &mut Settlement<'_>,
    task: &TaskDef,
    ctx: Context,
    lease: &Lease<'_>,
) -> Result<End> {
    let shared = settlement.shared;
    let mut body = pin!(Some(middleware::run(task, ctx, &shared.layers)));
    match futures_util::poll!(polled(shared, lease, body.as_mut())) {
        Poll::Ready(outcome) => Ok(ended(outcome, lease)),
        // Boxed: what a short job does not need must not make its future large.
        Poll::Pending => Box::pin(run_on(settlement, task, lease, body)).await,
    }
}

/// Goes on with a body that has begun; if it lasts, keeps a running record that says so.
async fn run_on<F: Future<Output = Outcome>>(
    settlement: &mut Settlement<'_>,
    task: &TaskDef,
    lease: &Lease<'_>,
    mut body: Pin<&mut Option<F>>,
) -> Result<End> {
    let shared = settlement.shared;
    let report = settlement.report;
    let client = &shared.scope.client;
    let jobs = client.backend().jobs().filter(|_| client.records() == RecordLevel::Full);
    let mut marked_at = Instant::now();
    let mut mark_at = marked_at + SHORT;
    let mut marking: Option<Marking<'_>> = None;
    // Said by the body, and not in the record yet.
    let mut unwritten = false;
    let end = loop {
        tokio::select! {
            biased;
            outcome = polled(shared, lease, body.as_mut()) => break ended(outcome, lease),
            why = lease.state.stopped() => break match task.is_blocking() {
                // A thread cannot be dropped: it is told, and waited for.
                true => {
                    let waited = waited_for(settlement, lease, polled(shared, lease, body.as_mut()));
                    match Box::pin(waited).await {
                        Some(outcome) => ended(outcome, lease),
                        None => End::CutOff(why),
                    }
                }
                false => {
                    // Before anything is written: that may take long. The job has not failed, whatever the drop does.
                    if let Some(panic) = catch_panic::drop_in_place(body.as_mut()) {
                        let Message { id, task, .. } = settlement.message;
                        tracing::error!(%id, %task, panic, "its body panicked when it was dropped");
                    }
                    End::Stopped(why)
                }
            },
            marked = pending_or(&mut marking) => {
                marking = None;
                if !Box::pin(note_mark(settlement, marked)).await? {
                    lease.state.interrupt();
                    return Ok(End::TakenOver);
                }
                marked_at = Instant::now();
                let in_force = settlement.delivery.receipt.ack_wait().min(MAX_ACK_WAIT);
                let wait = match unwritten {
                    true => SHORT,
                    false if settlement.unsaved.is_some() => FULL_PAUSE,
                    false => in_force,
                };
                mark_at = marked_at + wait;
            }
            () = news(report), if jobs.is_some() => {
                unwritten = true;
                mark_at = mark_at.min(marked_at + SHORT);
            }
            () = tokio::time::sleep_until(mark_at), if jobs.is_some() && marking.is_none() => {
                let ttl = running_ttl(settlement.delivery.receipt.ack_wait());
                settlement.fence.end_turn();
                let (record, expect) = (still_running(settlement), settlement.fence.expect);
                unwritten = false;
                let receipt = &settlement.delivery.receipt;
                marking = jobs.map(|jobs| -> Marking<'_> {
                    Box::pin(async move {
                        if expect == Expect::Absent && is_doubtful(Some(lease), Instant::now()) {
                            check_is_newest(receipt).await?;
                        }
                        put_fitting(&**jobs, Arc::new(record), expect, Some(ttl)).await
                    })
                });
            }
        }
    };
    // The last write of the record comes after this one, and must know its revision.
    let still_ours = match marking {
        Some(marking) => {
            let marked = marking.await;
            Box::pin(note_mark(settlement, marked)).await?
        }
        None => true,
    };
    Ok(if still_ours { end } else { End::TakenOver })
}

/// Polls the body, and lets others see since when it is polled.
fn polled<F: Future<Output = Outcome>>(
    shared: &Shared,
    lease: &Lease<'_>,
    mut body: Pin<&mut Option<F>>,
) -> impl Future<Output = Outcome> + Unpin {
    std::future::poll_fn(move |context| {
        // It is dropped only when nobody polls it any more.
        let Some(body) = body.as_mut().as_pin_mut() else { return Poll::Pending };
        let look = shared.leases.look();
        lease.state.poll_began(look);
        let polled = body.poll(context);
        lease.state.poll_ended(look);
        polled
    })
}

/// Waits for a body that was told to stop and cannot be dropped; `None` if the worker ends before it does.
async fn waited_for(
    settlement: &Settlement<'_>,
    lease: &Lease<'_>,
    mut run: impl Future<Output = Outcome> + Unpin,
) -> Option<Outcome> {
    let Message { id, task, .. } = settlement.message;
    let told = Instant::now();
    let mut pause = PATIENCE;
    let worker_ends = async {
        lease.state.worker_ended().await;
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
                let age = told.elapsed();
                tracing::warn!(%id, %task, ?age, "was told to stop and goes on: look at `ctx.is_cancelled()` in its body");
            }
        }
    }
    tracing::warn!(%id, %task, "its body goes on although the worker ends, the job is given back");
    None
}

async fn news(report: Option<&Report>) {
    match report {
        Some(report) => report.news().await,
        None => std::future::pending().await,
    }
}

/// A write of the running record, under way.
type Marking<'a> = BoxFuture<'a, Result<u64>>;

async fn pending_or(marking: &mut Option<Marking<'_>>) -> Result<u64> {
    match marking {
        Some(marking) => marking.await,
        None => std::future::pending().await,
    }
}

/// How a run ended: what a body says that was told to stop is no failure of its own.
fn ended(outcome: Outcome, lease: &Lease<'_>) -> End {
    match outcome {
        Outcome::Done(payload) => End::Outcome(Outcome::Done(payload)),
        other => match lease.state.stop_reason() {
            Some(why) => End::Stopped(why),
            None => End::Outcome(other),
        },
    }
}

/// Takes note of a write of the running record; false if another worker has the job.
///
/// A backend that does not answer is no reason to stop the job.
async fn note_mark(settlement: &mut Settlement<'_>, marked: Result<u64>) -> Result<bool> {
    let expect = match marked {
        Ok(revision) => {
            if let Some(unsaved) = settlement.unsaved.take() {
                unsaved.saved();
            }
            Some(Expect::Revision(revision))
        }
        Err(error) if error.kind() == ErrorKind::Conflict => {
            let Some(jobs) = settlement.shared.scope.client.backend().jobs() else { return Ok(true) };
            match settlement.newest(&**jobs).await? {
                // An earlier write of our own whose confirmation was lost is no other worker's.
                Newest::Own(stored) => Some(Expect::Revision(stored.revision)),
                Newest::Before(expect) => {
                    settlement.fence.expect = expect;
                    return Ok(true);
                }
                Newest::Others => None,
            }
        }
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            settlement.unsaved.get_or_insert_with(|| settlement.shared.storage.wait(&error));
            return Ok(true);
        }
        Err(error) => {
            tracing::debug!(%error, "the running record could not be written");
            return Ok(true);
        }
    };
    match expect {
        Some(expect) => {
            settlement.fence.expect = expect;
            settlement.fence.last = Status::Running;
            if let Some(turn) = &mut settlement.fence.turn {
                turn.give_way();
            }
        }
        None => {
            let (id, task) = (&settlement.message.id, &settlement.message.task);
            settlement.shared.taken_over.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%id, %task, "another worker took the job over, it is cancelled here");
        }
    }
    Ok(expect.is_some())
}
