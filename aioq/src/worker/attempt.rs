//! One attempt at a job, from its delivery to its settlement.
//!
//! [`process`] is the whole way: open, admit, start, run, settle. Each step has a file of its own.
//! Only `settle` can ack, release or replace a message: [`Unsettled`] keeps these methods private
//! to it.

mod admit;
mod claim;
mod fence;
mod key;
mod patience;
mod run;
mod settle;
mod start;
mod tick;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::fence::Fence;
pub(super) use self::settle::Unsettled;
use super::Shared;
use super::leases::Lease;
use super::runner::{RunnerCache, SlotTurn};
use super::storage::Unsaved;
use crate::context::Context;
use crate::error::Result;
use crate::fault::{Fault, point};
use crate::message::Message;
use crate::registry::TaskDef;
use crate::time::Timestamp;
use crate::wire::Known;

/// An attempt on its way through the worker. What a step learns, the next steps find here.
struct Attempt<'a> {
    worker: &'a Shared,
    delivery: Unsettled<'a>,
    lease: &'a Lease<'a>,
    /// Holds the message, and what the body reports of itself.
    ctx: Context,
    /// `None` if this program has no such task.
    task: Option<&'a TaskDef>,
    fence: Fence,
    /// `None` until the body starts.
    timing: Option<Timing>,
    /// True once the message is acked.
    acked: bool,
    /// Present while the running record cannot be written because the storage is full.
    unsaved: Option<Unsaved<'a>>,
}

/// The times of a run.
struct Timing {
    started_at: Timestamp,
    began: Instant,
    ended: Instant,
}

/// Takes a delivery from its bytes to its settlement.
///
/// # Errors
/// The delivery is not settled: its message comes again after `ack_wait`.
pub(super) async fn process(
    worker: &Shared,
    cache: &RunnerCache<'_>,
    delivery: Unsettled<'_>,
    lease: &Lease<'_>,
    turn: &mut SlotTurn,
) -> Result<()> {
    point(Fault::Fetched);
    let mut attempt = match open(worker, delivery, cache) {
        Ok((message, task)) => Attempt::new(worker, cache, delivery, lease, message, task),
        Err(error) => {
            let message = Message::unreadable(delivery.id().clone(), cache.queue.clone());
            let attempt = Attempt::new(worker, cache, delivery, lease, message, None);
            return Box::pin(attempt.refuse_undecodable(error)).await;
        }
    };
    let Some(task) = attempt.task else { return Box::pin(attempt.refuse_unknown_task()).await };
    if !attempt.admit(task, turn).await? || !attempt.start(task, turn).await? {
        return Ok(());
    }
    let end = attempt.run(task, turn).await?;
    attempt.settle(task, end).await
}

/// Reads the message of a delivery, and finds its task.
///
/// # Errors
/// The bytes are no message.
fn open<'a>(
    worker: &'a Shared,
    delivery: Unsettled<'_>,
    cache: &RunnerCache<'_>,
) -> Result<(Message, Option<&'a TaskDef>)> {
    let mut task = None;
    let mut known_task = |name: &str| {
        let found = task.insert(worker.registry.find(name)?);
        (found.name() == name).then(|| found.shared_name())
    };
    let known = Known { id: delivery.id(), queue: &cache.queue, task: &mut known_task };
    let mut message = Message::open_known(delivery.body(), known)?;
    // The broker decides on id and queue: records and successors go by what it holds.
    if message.id != *delivery.id() {
        message.id = delivery.id().clone();
    }
    if message.queue != cache.queue {
        message.queue = cache.queue.clone();
    }
    if worker.options.quote_arguments {
        message.arguments.quote_values();
    }
    let task = task.or_else(|| worker.registry.find(&message.task));
    Ok((message, task))
}

impl<'a> Attempt<'a> {
    fn new(
        worker: &'a Shared,
        cache: &RunnerCache<'_>,
        delivery: Unsettled<'a>,
        lease: &'a Lease<'a>,
        message: Message,
        task: Option<&'a TaskDef>,
    ) -> Self {
        let ctx = Context::new(message, Arc::clone(&cache.scope), Arc::clone(&lease.state));
        let (fence, timing) = (Fence::fresh(), None);
        Self { worker, delivery, lease, ctx, task, fence, timing, acked: false, unsaved: None }
    }

    fn message(&self) -> &Message {
        self.ctx.message()
    }

    fn started_at(&self) -> Option<Timestamp> {
        self.timing.as_ref().map(|timing| timing.started_at)
    }

    /// Duration of the run; zero before the body starts.
    fn execution_time(&self) -> Duration {
        self.timing.as_ref().map_or(Duration::ZERO, |timing| timing.ended - timing.began)
    }
}
