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

use crate::broker::Kicked;
use crate::client::{KickHook, KickNext};
use crate::codec::Payload;
use crate::context::Context;
use crate::error::{Result, TaskError};
use crate::message::Message;
use crate::registry::TaskDef;

/// What an attempt came to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The body returned; this is its encoded result.
    Done(Payload),
    /// The attempt failed. Outside of all middlewares it means that the job failed, retries used
    /// up.
    Failed(TaskError),
    /// The attempt failed, and the job runs again after a while.
    Retry {
        /// How long to wait.
        after: Duration,
        /// Why it failed.
        error: TaskError,
    },
    /// The job is put off; no attempt is spent.
    Snooze {
        /// For how long.
        after: Duration,
    },
    /// The job is called off.
    Cancelled {
        /// Why.
        why: TaskError,
    },
}

/// Stands around each run of a job, and around each kick, like the layers of an onion; the first
/// one added is the outermost.
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
/// The built-in layers: tracing and retries are around all of these, the timeout and the catching
/// of panics are inside, around the body. So a middleware sees every failure as
/// [`Outcome::Failed`], may turn it into something else, and what it fails itself is retried like a
/// failure of the body. A panic in it fails the attempt; the job is settled all the same.
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Around one attempt: `next.run(ctx)` goes on. Not calling it skips the body.
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        next.run(ctx).await
    }

    /// Around one kick: `next.run(message)` goes on. An error refuses the kick.
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Kicked> {
        next.run(message).await
    }
}

#[async_trait]
impl<M: Middleware + ?Sized> KickHook for M {
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Kicked> {
        Middleware::kick(self, message, next).await
    }
}

/// A middleware as a hook of a client.
pub(crate) struct Hooked(pub(crate) Arc<dyn Middleware>);

#[async_trait]
impl Middleware for Hooked {
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Kicked> {
        self.0.kick(message, next).await
    }
}

/// The rest of the way to the body.
pub struct Next<'a> {
    layers: &'a [Arc<dyn Middleware>],
    task: &'a TaskDef,
}

impl<'a> Next<'a> {
    /// Goes on: the next middleware, or the body.
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
            // The usual case, without a box.
            [] => body::run(task, ctx.clone()).await,
            layers => catch_panic::catch(Next { layers, task }.run(ctx.clone())).await,
        };
        // A policy of the user's own may panic, too.
        let mut outcome = catch_panic::catch(async { retry::decide(task, &ctx, outcome) }).await;
        catch_panic::drop_sources(&mut outcome);
        trace::outcome(&ctx, &outcome);
        outcome
    };
    attempt.instrument(trace::span(&ctx)).await
}
