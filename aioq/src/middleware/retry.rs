//! The retry layer: whether a failure is the last one.

use std::time::Duration;

use super::Outcome;
use crate::context::Context;
use crate::error::{AfterFailure, TaskError};
use crate::registry::TaskDef;
use crate::task::AckMode;

/// Turns a failure into what follows from it.
pub(super) fn decide(task: &TaskDef, ctx: &Context, outcome: Outcome) -> Outcome {
    let outcome = follow(task, ctx, outcome);
    if task.options.ack != AckMode::OnReceive {
        return outcome;
    }
    // A message that is acked already cannot come back.
    match outcome {
        Outcome::Retry { error, .. } => Outcome::Failed(error),
        Outcome::Snooze { .. } => {
            Outcome::Failed(TaskError::fatal("a task that acks on receive cannot be put off"))
        }
        other => other,
    }
}

fn follow(task: &TaskDef, ctx: &Context, outcome: Outcome) -> Outcome {
    let Outcome::Failed(error) = outcome else { return outcome };
    match error.after_failure() {
        AfterFailure::Snooze(after) => Outcome::Snooze { after },
        AfterFailure::Cancel => Outcome::Cancelled { why: error },
        _ => match delay(task, ctx, &error) {
            Some(after) => Outcome::Retry { after, error },
            None => Outcome::Failed(error),
        },
    }
}

fn delay(task: &TaskDef, ctx: &Context, error: &TaskError) -> Option<Duration> {
    let message = ctx.message();
    let mut policy = task.options.retry;
    policy.max = message.max_retries.unwrap_or(policy.max);
    let delay = match error.after_failure() {
        AfterFailure::RetryIn(delay) => (message.attempt <= policy.max).then_some(delay),
        AfterFailure::Policy => policy.delay(message.attempt, error),
        _ => None,
    }?;
    let too_late = policy.retry_for.is_some_and(|limit| {
        let now = ctx.client().now();
        // Without it this failure is the first one.
        now + delay > message.first_failed_at.unwrap_or(now) + limit
    });
    (!too_late).then_some(delay)
}
