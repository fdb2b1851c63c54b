//! The tracing layer: a span around each attempt, an event for each end.

use tracing::Span;

use super::Outcome;
use crate::context::Context;
use crate::error::Reason;

/// The name of the span of an attempt.
const NAME: &str = "job";

/// The span of an attempt; what the body logs is inside.
pub(super) fn span(ctx: &Context) -> Span {
    tracing::info_span!("job", id = %ctx.id(), task = ctx.task(), queue = ctx.queue(), attempt = ctx.attempt())
}

/// Says something of an attempt inside of its span, also where a filter leaves out spans of its
/// level: the event itself repeats no field of the span.
pub(super) fn in_span(ctx: &Context, say: impl FnOnce()) {
    if Span::current().metadata().is_some_and(|metadata| metadata.name() == NAME) {
        return say();
    }
    let span = tracing::error_span!("job", id = %ctx.id(), task = ctx.task(), queue = ctx.queue(), attempt = ctx.attempt());
    span.in_scope(say);
}

/// Logs what an attempt came to. Called inside of its span.
pub(super) fn outcome(ctx: &Context, outcome: &Outcome) {
    match outcome {
        Outcome::Done(_) => tracing::debug!("completed"),
        // Told to stop, and it did: the job goes on elsewhere.
        Outcome::Failed(error) if ctx.is_cancelled() && error.reason() == Reason::Error => {
            tracing::debug!(%error, "stopped");
        }
        // It may be left to a newer release; what became of it is logged when that is known.
        Outcome::Failed(error) if error.reason() == Reason::BadArguments => {
            tracing::debug!(%error, "could not read its arguments");
        }
        Outcome::Failed(error) => {
            in_span(ctx, || tracing::error!(reason = %error.reason(), %error, "failed"));
        }
        Outcome::Retry { after, error } => {
            in_span(
                ctx,
                || tracing::warn!(reason = %error.reason(), %error, ?after, "failed, will be retried"),
            );
        }
        Outcome::Snooze { after } => tracing::debug!(?after, "put off"),
        Outcome::Cancelled { why } => tracing::info!(%why, "cancelled"),
    }
}
