//! The tracing layer: a span around each attempt, an event for each failure.

use tracing::Span;

use super::Outcome;
use crate::context::Context;
use crate::error::Reason;

/// The span of an attempt; what the body logs is inside.
pub(super) fn span(ctx: &Context) -> Span {
    tracing::info_span!("job", id = %ctx.id(), task = ctx.task(), queue = ctx.queue(), attempt = ctx.attempt())
}

/// Logs what an attempt came to.
pub(super) fn outcome(ctx: &Context, outcome: &Outcome) {
    let (id, task, attempt) = (ctx.id(), ctx.task(), ctx.attempt());
    match outcome {
        Outcome::Done(_) => tracing::debug!(%id, task, attempt, "completed"),
        // Told to stop, and it did: the job goes on elsewhere.
        Outcome::Failed(error) if ctx.is_cancelled() && error.reason() == Reason::Error => {
            tracing::debug!(%id, task, attempt, %error, "stopped");
        }
        Outcome::Failed(error) => {
            tracing::error!(%id, task, attempt, reason = %error.reason(), %error, "failed");
        }
        Outcome::Retry { after, error } => {
            tracing::warn!(%id, task, attempt, reason = %error.reason(), %error, ?after, "failed, will be retried");
        }
        Outcome::Snooze { after } => tracing::debug!(%id, task, attempt, ?after, "put off"),
        Outcome::Cancelled { why } => tracing::info!(%id, task, attempt, %why, "called off"),
    }
}
