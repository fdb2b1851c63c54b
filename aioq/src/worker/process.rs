//! One delivery, from open to settled.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Shared;
use super::admit::{Admission, admit};
use super::held::Lease;
use super::settle::{Settlement, running_ttl, still_running};
use crate::broker::{Delivery, Expect};
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::middleware::{self, Outcome};
use crate::store::JobStore;
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
    let Admission::Run { message, task, fence } = admit(shared, delivery).await? else { return Ok(()) };
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
        End::Stopped if task.options.ack == AckMode::OnReceive => Ok(()),
        End::Stopped => settlement.release(lease.is_current()).await,
        End::TakenOver => Ok(()),
    }
}

/// Runs the body; if it lasts, keeps a running record that says so.
async fn run(settlement: &mut Settlement<'_>, task: &TaskDef, ctx: Context, lease: &Lease) -> Result<End> {
    let shared = settlement.shared;
    let mut run = std::pin::pin!(middleware::run(task, ctx.clone(), &shared.layers));
    let jobs = shared.scope.client.backend().jobs();
    let mut mark_after = SHORT;
    loop {
        tokio::select! {
            biased;
            // Polled first: a short job never sets the timer up.
            outcome = &mut run => return Ok(End::Outcome(outcome)),
            _ = lease.stop.stopped() => {
                if task.is_blocking() {
                    // A thread cannot be dropped: told to stop, it is waited for.
                    return Ok(End::Outcome(run.await));
                }
                return Ok(End::Stopped);
            }
            () = tokio::time::sleep(mark_after), if jobs.is_some() => {
                let Some(jobs) = jobs else { continue };
                if !mark_running(settlement, &**jobs).await {
                    ctx.cancel();
                    return Ok(End::TakenOver);
                }
                mark_after = settlement.delivery.receipt.ack_wait();
            }
        }
    }
}

/// Writes or renews the running record; false if another worker has the job.
///
/// The body pauses for the write. A backend that does not answer is no reason to stop it.
async fn mark_running(settlement: &mut Settlement<'_>, jobs: &dyn JobStore) -> bool {
    let record = still_running(settlement);
    let ttl = running_ttl(settlement.delivery.receipt.ack_wait());
    match jobs.put(record, settlement.fence.expect, Some(ttl)).await {
        Ok(revision) => {
            settlement.fence.expect = Expect::Revision(revision);
            true
        }
        Err(error) if error.kind() == ErrorKind::Conflict => {
            let (id, task) = (&settlement.message.id, &settlement.message.task);
            tracing::warn!(%id, task, "another worker took the job over, it is cancelled here");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "the running record could not be written");
            true
        }
    }
}
