//! Whether a delivery may be run: what its message and its record say.
//!
//! The first delivery of a fresh job runs without a look at the record; what others need is boxed, so that its
//! future stays small. Every other one reads it, and every redelivery claims the job by a conditional write before the
//! body starts, because an earlier holder may still be alive.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::leases::Lease;
use super::process::Turn;
use super::settle::{self, patient, saving};
use super::suspects::{SuspectTurn, is_suspect, wait_for_turn};
use super::unfit::leave_to_newer;
use crate::broker::{Delivery, Expect};
use crate::client::Client;
use crate::error::{Error, ErrorKind, JobError, Reason, Result};
use crate::fault::{Fault, point};
use crate::message::{Message, Name};
use crate::store::{History, JobRecord, Status, Stored, put_fitting};
use crate::task::{AckMode, TaskDef};
use crate::time::Timestamp;
use crate::wire::Known;

/// What every later write of the job's record is conditional on, and what earlier runs left there.
#[derive(Debug)]
pub(super) struct Fence {
    /// The record that this run saw.
    pub(super) expect: Expect,
    /// What that record says; pending without one.
    pub(super) last: Status,
    /// Starts of this attempt without an end, this one included.
    pub(super) starts: u32,
    /// Those of them, this one not included, that had no other suspect beside them.
    pub(super) solo: u32,
    /// Whether this one has none beside it, of a suspect.
    pub(super) alone: bool,
    /// The turn of a suspect.
    pub(super) turn: Option<Box<SuspectTurn>>,
    /// When a body of this attempt began before, as the record says.
    pub(super) started_at: Option<Timestamp>,
    /// What earlier runs left in the record.
    pub(super) history: Option<Box<History>>,
}

impl Fence {
    /// Whether the run waits to write over the record that its message comes after, of an earlier run. In place of
    /// such a record may come that the message waits, and it may be removed at any time: [`settle::in_place`].
    pub(super) fn came_after_one(&self, message: &Message) -> bool {
        let base = message.supersedes.filter(|revision| *revision > 0);
        base.is_some_and(|revision| self.expect == Expect::Revision(revision))
    }

    fn fresh() -> Self {
        Self {
            expect: Expect::Absent,
            last: Status::Pending,
            starts: 1,
            solo: 0,
            alone: false,
            turn: None,
            started_at: None,
            history: None,
        }
    }

    /// The fence of a job that is refused.
    pub(super) fn unstarted(expect: Expect, last: Status) -> Self {
        Self { expect, last, starts: 0, ..Self::fresh() }
    }

    /// Starts the job as a suspect.
    fn take_turn(&mut self, turn: SuspectTurn) {
        self.alone = turn.is_alone();
        self.turn = Some(Box::new(turn));
    }

    /// Counts this start as one that is not alone, if the suspect has kept others waiting for long.
    pub(super) fn end_turn(&mut self) {
        if self.turn.as_mut().is_some_and(|turn| turn.gives_way()) {
            self.alone = false;
        }
    }
}

/// Reads the message of a delivery, and finds its task. An error means that the bytes are no message.
pub(super) fn open<'a>(
    shared: &'a Shared,
    delivery: &Delivery,
    queue: &Name,
) -> Result<(Message, Option<&'a TaskDef>)> {
    let mut task = None;
    let mut known_task = |name: &str| {
        let found = task.insert(shared.registry.find(name)?);
        (found.name() == name).then(|| found.shared_name())
    };
    let known = Known { id: &delivery.id, queue, task: &mut known_task };
    let mut message = Message::open_known(&delivery.body, known)?;
    // The broker's word on what it holds counts: records and successors go by it.
    if message.id != delivery.id {
        message.id = delivery.id.clone();
    }
    if message.queue != *queue {
        message.queue = queue.clone();
    }
    if shared.options.quote_arguments {
        message.arguments.quote_values();
    }
    let task = task.or_else(|| shared.registry.find(&message.task));
    Ok((message, task))
}

/// Decides on a delivery. `None` if it is settled: refused, put off, or somebody else's.
pub(super) async fn admit(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    task: &TaskDef,
    lease: &Lease<'_>,
    turn: &mut Turn,
) -> Result<Option<Fence>> {
    if let Some(wait) = left_until_due(shared, delivery, message) {
        tracing::debug!(id = %message.id, ?wait, "came before its time, put back");
        delivery.receipt.release(wait).await?;
        return Ok(None);
    }
    let fresh = delivery.deliveries == 1 && message.supersedes.is_none();
    let fence = match fresh {
        true => Some(Fence::fresh()),
        false => Box::pin(look_up(shared, delivery, message)).await?,
    };
    let Some(mut fence) = fence else { return Ok(None) };
    if fence.started_at.is_some() && task.options.ack == AckMode::OnReceive {
        // Its ack was lost; such a job never runs twice.
        Box::pin(drop_unrun(delivery, "it was started before")).await?;
        return Ok(None);
    }
    if has_expired(message, &fence, &shared.scope.client) {
        Box::pin(settle::expire(shared, delivery, message, fence)).await?;
        return Ok(None);
    }
    if fence.solo >= shared.options.max_crashes {
        Box::pin(settle::poison(shared, delivery, message, fence)).await?;
        return Ok(None);
    }
    if is_suspect(fence.starts, shared.options.max_crashes) {
        let waiting = wait_for_turn(shared, delivery, lease, fence.starts, turn);
        let Some(turn) = Box::pin(waiting).await? else { return Ok(None) };
        fence.take_turn(turn);
    }
    match delivery.deliveries {
        1 => Ok(Some(fence)),
        _ => Box::pin(claim(shared, delivery, message, fence)).await,
    }
}

/// A job that comes earlier than this before its time has come on time: clocks agree no better.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// The longest that a job which came too early is put back for. Then it is looked at again.
const LONGEST_PUT_BACK: Duration = Duration::from_secs(3600);

/// How long to put a job back that is not due; `None` if it is.
///
/// It is due when either the worker's clock says so or the broker's does: one that is wrong makes no job late.
fn left_until_due(shared: &Shared, delivery: &Delivery, message: &Message) -> Option<Duration> {
    let run_at = message.run_at?;
    let left = run_at.since(shared.scope.client.now());
    let due_by_broker = || {
        let ready_since = delivery.receipt.ready_since();
        ready_since.is_some_and(|since| run_at.since(since) <= CLOCK_SLACK)
    };
    (left > CLOCK_SLACK && !due_by_broker()).then(|| left.min(LONGEST_PUT_BACK))
}

/// Settles a delivery whose bytes are no message.
pub(super) async fn undecodable(shared: &Shared, delivery: &Delivery, error: Error) -> Result<()> {
    let error = JobError::new("Undecodable", error.to_string());
    settle::refuse(shared, delivery, None, Reason::Undecodable, error).await
}

/// A job expires only before its first start.
fn has_expired(message: &Message, fence: &Fence, client: &Client) -> bool {
    let late = message.expires_at.is_some_and(|time| time <= client.now());
    late && message.attempt == 1 && fence.started_at.is_none()
}

/// Settles a delivery of a task that is not known here.
pub(super) async fn unknown_task(shared: &Shared, delivery: &Delivery, message: &Message) -> Result<()> {
    let error = shared.registry.unknown(&message.task);
    if let Some(delay) = leave_to_newer(shared, message, &error) {
        return delivery.receipt.release(delay).await;
    }
    let error = JobError::new("UnknownTask", error.to_string());
    settle::refuse(shared, delivery, Some(message), Reason::UnknownTask, error).await
}

/// What the record says of the delivery. `None` if the delivery is settled.
async fn look_up(shared: &Shared, delivery: &Delivery, message: &Message) -> Result<Option<Fence>> {
    if delivery.deliveries > 1 && shared.leases.runs(message) {
        // The server was away for longer than the lease lasts. Its holder is here, and settles it.
        tracing::debug!(id = %delivery.id, "delivered again while it runs here, left alone");
        return Ok(None);
    }
    let Some(jobs) = shared.scope.client.backend().jobs() else { return Ok(Some(Fence::fresh())) };
    // A first start whose process died soon left no trace; a delivery that was given back unstarted looks the
    // same. It counts as a start, but never as one that was alone.
    let starts = delivery.deliveries.min(2);
    let stored = patient(&delivery.receipt, || jobs.get(&message.id)).await?;
    if delivery.deliveries > 1
        && let Some(stored) = &stored
    {
        jobs.drop_older(stored);
    }
    let base = message.supersedes.unwrap_or(0);
    // A first delivery that was long on its way may be of a job that was removed, and the record of one that was kicked
    // anew under its id.
    let others = stored.as_ref().is_some_and(|Stored { record, revision }| {
        *revision > base && !record.status.is_terminal() && !record.is_waiting(message)
    });
    // Asked afterwards: the record that was found, or none, may be what running the job again has left.
    if (delivery.deliveries > 1 || others)
        && !patient(&delivery.receipt, || delivery.receipt.is_newest()).await?
    {
        return drop_unrun(delivery, "the job was removed, or a newer message of it is in the queue").await;
    }
    let fence = match stored {
        None => Fence { starts, ..Fence::fresh() },
        Some(Stored { record, revision }) if record.is_waiting(message) => Fence {
            expect: Expect::Revision(revision),
            starts,
            history: History::of(record),
            ..Fence::fresh()
        },
        // Of a job that was removed, while this message was on its way or before.
        Some(Stored { record, revision }) if record.is_unstarted() && revision > base => {
            if record.kicked_at == message.kicked_at {
                return drop_unrun(delivery, "the job was removed").await;
            }
            Fence { expect: Expect::Revision(revision), starts, ..Fence::fresh() }
        }
        Some(Stored { record, revision }) if revision > base => match record.status {
            status if status.is_terminal() => return drop_unrun(delivery, "the job has ended already").await,
            Status::Retrying | Status::Scheduled => {
                settle::finish_move(shared, delivery, message, &record, revision).await?;
                return Ok(None);
            }
            _ if record.attempt > message.attempt => {
                return drop_unrun(delivery, "a later attempt runs").await;
            }
            status => {
                if status == Status::Running
                    && let Some(delay) = unheard(shared, delivery, &record)
                {
                    tracing::debug!(id = %delivery.id, "its worker may be alive, left to it for a while");
                    delivery.receipt.release(delay).await?;
                    return Ok(None);
                }
                Fence {
                    expect: Expect::Revision(revision),
                    last: status,
                    starts: record.starts.saturating_add(1),
                    solo: record.solo,
                    // A worker that gave it back before it began says so.
                    started_at: record.started_at,
                    history: History::of(record),
                    ..Fence::fresh()
                }
            }
        },
        // The record that the message comes after: of the attempt before, or of a job that is run again.
        Some(Stored { record, revision }) => Fence {
            expect: Expect::Revision(revision),
            last: record.status,
            starts,
            history: History::of(record),
            ..Fence::fresh()
        },
    };
    Ok(Some(fence))
}

/// How long to leave a job alone that runs elsewhere as far as the record knows.
fn unheard(shared: &Shared, delivery: &Delivery, record: &JobRecord) -> Option<Duration> {
    let elsewhere = record.worker_id.as_ref() != Some(&shared.scope.worker_id);
    delivery.receipt.holder_unheard().filter(|_| elsewhere)
}

/// Writes that this worker starts the job now. `None` if somebody else was first.
pub(super) async fn claim(
    shared: &Shared,
    delivery: &Delivery,
    message: &Message,
    mut fence: Fence,
) -> Result<Option<Fence>> {
    let Some(jobs) = shared.scope.client.backend().jobs() else { return Ok(Some(fence)) };
    let record = &Arc::new(running(shared, message, &fence, shared.scope.client.now()));
    let ttl = settle::running_ttl(delivery.receipt.ack_wait());
    let put = |expect| {
        let mut again = false;
        saving(shared, &delivery.receipt, move || {
            let doubtful = std::mem::replace(&mut again, true) && expect == Expect::Absent;
            async move {
                if doubtful {
                    // It took long, and the look at the message is as old.
                    settle::check_is_newest(&delivery.receipt).await?;
                }
                put_fitting(&**jobs, Arc::clone(record), expect, Some(ttl)).await
            }
        })
    };
    let mut written = put(fence.expect).await;
    if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict)
        && fence.came_after_one(message)
    {
        let stored = patient(&delivery.receipt, || jobs.get(&message.id)).await?;
        if let Some(expect) = settle::in_place(&delivery.receipt, message, stored.as_ref()).await? {
            written = put(expect).await;
        }
    }
    let written = match written {
        Err(error) if error.kind() == ErrorKind::Conflict => {
            let stored = patient(&delivery.receipt, || jobs.get(&message.id)).await?;
            // A claim of our own whose confirmation was lost: left alone, it would count as a start.
            stored.filter(|stored| is_same_start(&stored.record, record)).map(|stored| stored.revision)
        }
        written => Some(written?),
    };
    let Some(revision) = written else {
        tracing::debug!(id = %message.id, "another worker claimed the job first");
        return Ok(None);
    };
    fence.expect = Expect::Revision(revision);
    fence.last = Status::Running;
    point(Fault::Claimed);
    Ok(Some(fence))
}

fn is_same_start(one: &JobRecord, other: &JobRecord) -> bool {
    let start = |record: &JobRecord| (record.worker_id.clone(), record.started_at, record.attempt);
    one.status == other.status && start(one) == start(other)
}

/// The record of a job that runs here.
pub(super) fn running(shared: &Shared, message: &Message, fence: &Fence, started_at: Timestamp) -> JobRecord {
    let mut record = JobRecord::of(message, Status::Running);
    record.started_at = Some(started_at);
    record.worker_id = Some(shared.scope.worker_id.clone());
    record.starts = fence.starts;
    record.solo = fence.solo + u32::from(fence.alone);
    if let Some(history) = &fence.history {
        history.fill(&mut record);
    }
    record
}

async fn drop_unrun(delivery: &Delivery, why: &str) -> Result<Option<Fence>> {
    tracing::debug!(id = %delivery.id, deliveries = delivery.deliveries, why, "dropped without running");
    delivery.receipt.ack().await?;
    Ok(None)
}
