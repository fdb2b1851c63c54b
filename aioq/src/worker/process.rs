//! One delivery, from open to settled.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Shared;
use super::admit::{Admitted, admit};
use super::held::Lease;
use super::settle::{Settlement, running_ttl, still_running};
use crate::broker::{Delivery, Expect};
use crate::context::Context;
use crate::error::{ErrorKind, Result, TaskError};
use crate::middleware::{self, Outcome};
use crate::task::{AckMode, TaskDef};
use crate::time::Timestamp;

/// A job that lasts longer than this gets a running record.
const SHORT: Duration = Duration::from_millis(500);

/// How a run ended.
enum End {
    Outcome(Outcome),
    /// The worker shuts down; the body was dropped.
    Stopped,
    /// Another worker has the job; the body was dropped.
    TakenOver,
}

/// Takes one delivery through admission, run and settlement. `slot` is its place among the async jobs.
pub(super) async fn process(shared: Arc<Shared>, delivery: Delivery, slot: OwnedSemaphorePermit) {
    let lease = shared.held.hold(Arc::clone(&delivery.receipt));
    if let Err(error) = settle_one(&shared, &delivery, &lease, slot).await {
        // Not acked, so it comes back after `ack_wait`.
        tracing::error!(id = %delivery.id, %error, "could not be settled, it will be delivered again");
    }
}

async fn settle_one(
    shared: &Arc<Shared>,
    delivery: &Delivery,
    lease: &Lease,
    slot: OwnedSemaphorePermit,
) -> Result<()> {
    let Some(Admitted { message, task, fence }) = admit(shared, delivery).await? else { return Ok(()) };
    if task.options.ack == AckMode::OnReceive {
        delivery.receipt.ack().await?;
    }
    let token = lease.stop.token().clone();
    let ctx = Context::new(message, Arc::clone(&shared.scope), token, Some(slot));
    let start = Instant::now();
    let mut settlement = Settlement {
        shared,
        delivery,
        message: ctx.message(),
        task: Some(&task),
        fence,
        started_at: Some(Timestamp::now()),
        took: Duration::ZERO,
    };
    let end = run(&mut settlement, &task, ctx.clone(), lease).await?;
    settlement.took = start.elapsed();
    match end {
        End::Outcome(outcome) => settlement.outcome(outcome).await,
        // It is acked already, and never runs twice: that is its end.
        End::Stopped if task.options.ack == AckMode::OnReceive => {
            let error = TaskError::fatal("the worker stopped before the job ended");
            settlement.outcome(Outcome::Failed(error)).await
        }
        End::Stopped => settlement.release(lease.is_current()).await,
        End::TakenOver => Ok(()),
    }
}

/// Runs the body; if it lasts, keeps a running record that says so.
async fn run(settlement: &mut Settlement<'_>, task: &TaskDef, ctx: Context, lease: &Lease) -> Result<End> {
    let shared = settlement.shared;
    let mut run = std::pin::pin!(middleware::run(task, ctx, &shared.layers));
    let jobs = shared.scope.client.backend().jobs();
    let mut mark_after = SHORT;
    let mut marking: Option<Marking<'_>> = None;
    let end = loop {
        tokio::select! {
            biased;
            // Polled first: a short job never sets the timer up.
            outcome = &mut run => break ended(outcome, lease),
            _ = lease.stop.stopped() => break match task.is_blocking() {
                // A thread cannot be dropped: it is told, and waited for.
                true => ended(run.await, lease),
                false => End::Stopped,
            },
            marked = pending_or(&mut marking) => {
                marking = None;
                if !note_mark(settlement, marked).await? {
                    lease.stop.token().cancel();
                    return Ok(End::TakenOver);
                }
                mark_after = settlement.delivery.receipt.ack_wait();
            }
            () = tokio::time::sleep(mark_after), if jobs.is_some() && marking.is_none() => {
                let ttl = running_ttl(settlement.delivery.receipt.ack_wait());
                let (record, expect) = (still_running(settlement), settlement.fence.expect);
                marking = jobs.map(|jobs| jobs.put(Arc::new(record), expect, Some(ttl)));
            }
        }
    };
    // The last write of the record comes after this one, and must know its revision.
    let still_ours = match marking {
        Some(marking) => note_mark(settlement, marking.await).await?,
        None => true,
    };
    Ok(if still_ours { end } else { End::TakenOver })
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
fn ended(outcome: Outcome, lease: &Lease) -> End {
    match outcome {
        Outcome::Done(payload) => End::Outcome(Outcome::Done(payload)),
        _ if lease.stop.is_stopped() => End::Stopped,
        other => End::Outcome(other),
    }
}

/// Takes note of a write of the running record; false if another worker has the job.
///
/// A backend that does not answer is no reason to stop the job.
async fn note_mark(settlement: &mut Settlement<'_>, marked: Result<u64>) -> Result<bool> {
    let revision = match marked {
        Ok(revision) => Some(revision),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            let jobs = settlement.shared.scope.client.backend().jobs();
            let own = match jobs {
                Some(jobs) => settlement.own(&**jobs).await?,
                None => None,
            };
            // An earlier write of our own whose confirmation was lost is no other worker's.
            own.map(|stored| stored.revision)
        }
        Err(error) => {
            tracing::debug!(%error, "the running record could not be written");
            return Ok(true);
        }
    };
    match revision {
        Some(revision) => settlement.fence.expect = Expect::Revision(revision),
        None => {
            let (id, task) = (&settlement.message.id, &settlement.message.task);
            tracing::warn!(%id, task, "another worker took the job over, it is cancelled here");
        }
    }
    Ok(revision.is_some())
}
