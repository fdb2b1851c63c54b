//! The tracing layer: a span around each attempt, an event for each end.

use tracing::Span;

use super::Outcome;
use crate::context::Context;
use crate::error::Reason;

/// The name of the span of an attempt.
const NAME: &str = "job";

/// The span of an attempt. Events of the body are inside.
pub(super) fn span(ctx: &Context) -> Span {
    tracing::info_span!("job", id = %ctx.id(), task = ctx.task(), queue = ctx.queue(), attempt = ctx.attempt())
}

/// Logs an event inside of the span of the attempt. If a filter has left out that span, a span of a
/// higher level takes its place: the event itself has none of the fields.
pub(super) fn in_span(ctx: &Context, say: impl FnOnce()) {
    if Span::current().metadata().is_some_and(|metadata| metadata.name() == NAME) {
        return say();
    }
    let span = tracing::error_span!("job", id = %ctx.id(), task = ctx.task(), queue = ctx.queue(), attempt = ctx.attempt());
    span.in_scope(say);
}

/// Logs the outcome of an attempt. Called inside of its span.
pub(super) fn outcome(ctx: &Context, outcome: &Outcome) {
    match outcome {
        Outcome::Done(_) => tracing::debug!("completed"),
        // The run was told to stop, and the job runs again elsewhere.
        Outcome::Failed(error) if ctx.is_cancelled() && error.reason() == Reason::Error => {
            tracing::debug!(%error, "stopped");
        }
        // The job may be left to a newer release. The decision is logged where it is made.
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
