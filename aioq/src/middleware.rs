//! Code around each run of a body: [`Middleware`], and the built-in layers.

mod body;
pub(crate) mod catch_panic;
mod retry;
mod trace;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument as _;

use crate::client::{KickHook, KickNext, Sent};
use crate::codec::Payload;
use crate::context::Context;
use crate::error::{Result, TaskError};
use crate::message::Message;
use crate::registry::TaskDef;

/// Result of an attempt.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The body returned: its encoded result.
    Done(Payload),
    /// The attempt failed. After the last middleware it means that the job failed, with no retry
    /// left.
    Failed(TaskError),
    /// The attempt failed, and the job runs again after a while.
    Retry {
        /// Delay before the next attempt.
        after: Duration,
        /// Error of the attempt.
        error: TaskError,
    },
    /// The job is put off, and no attempt is spent.
    Snooze {
        /// Delay before the job runs.
        after: Duration,
    },
    /// The job is cancelled.
    Cancelled {
        /// Reason of the cancel.
        why: TaskError,
    },
}

/// Code around each run of a job and around each kick. The first middleware that is added is the
/// outermost.
///
/// ```
/// use aioq::middleware::{Middleware, Next, Outcome};
/// use aioq::{Context, async_trait};
///
/// struct Timing;
///
/// #[async_trait]
/// impl Middleware for Timing {
///     async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
///         let (task, start) = (ctx.task().to_owned(), std::time::Instant::now());
///         let outcome = next.run(ctx).await;
///         println!("{task} took {:?}", start.elapsed());
///         outcome
///     }
/// }
/// ```
///
/// Built-in layers for tracing and retries are around all middlewares. Built-in layers for the
/// timeout and for panics are inside, around the body. So a middleware sees every failure as
/// [`Outcome::Failed`], and may return another outcome. A failure that it returns is retried like a
/// failure of the body. A panic in a middleware fails the attempt.
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Wraps one attempt: `next.run(ctx)` runs the rest. Not calling it skips the body.
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        next.run(ctx).await
    }

    /// Wraps one kick: `next.run(message)` runs the rest. An error refuses the kick.
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent> {
        next.run(message).await
    }
}

#[async_trait]
impl<M: Middleware + ?Sized> KickHook for M {
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent> {
        Middleware::kick(self, message, next).await
    }
}

/// A middleware as a hook of a client.
pub(crate) struct Hooked(pub(crate) Arc<dyn Middleware>);

#[async_trait]
impl Middleware for Hooked {
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent> {
        self.0.kick(message, next).await
    }
}

/// The inner middlewares and the body.
pub struct Next<'a> {
    layers: &'a [Arc<dyn Middleware>],
    task: &'a TaskDef,
}

impl<'a> Next<'a> {
    /// Runs the next middleware, or the body.
    pub fn run(self, ctx: Context) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        match self.layers.split_first() {
            Some((layer, rest)) => {
                let next = Next { layers: rest, task: self.task };
                Box::pin(async move { layer.run(ctx, next).await })
            }
            None => Box::pin(body::run(self.task, ctx)),
        }
    }
}

/// Runs one attempt through all layers.
pub(crate) async fn run(task: &TaskDef, ctx: Context, layers: &[Arc<dyn Middleware>]) -> Outcome {
    let attempt = async {
        let outcome = match layers {
            // Saves the box in the usual case.
            [] => body::run(task, ctx.clone()).await,
            layers => catch_panic::catch(Next { layers, task }.run(ctx.clone())).await,
        };
        // A retry policy is a user's code and may panic.
        let mut outcome = catch_panic::catch(async { retry::decide(task, &ctx, outcome) }).await;
        catch_panic::drop_sources(&mut outcome);
        trace::outcome(&ctx, &outcome);
        outcome
    };
    attempt.instrument(trace::span(&ctx)).await
}
