//! The retry layer: decides if a failed job is retried.

use std::time::Duration;

use super::Outcome;
use crate::context::Context;
use crate::error::{AfterFailure, TaskError};
use crate::registry::TaskDef;
use crate::task::AckMode;

/// Turns a failure into a retry, a snooze, a cancel or the end of the job.
pub(super) fn decide(task: &TaskDef, ctx: &Context, outcome: Outcome) -> Outcome {
    let outcome = follow(task, ctx, outcome);
    if task.options.ack != AckMode::OnReceive {
        return outcome;
    }
    // The message is acked already and cannot come back.
    match outcome {
        Outcome::Retry { error, .. } => Outcome::Failed(error),
        Outcome::Snooze { .. } => {
            Outcome::Failed(TaskError::fatal("a task with `ack = \"on_receive\"` cannot be put off"))
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
        // Without that time this failure is the first one.
        now + delay > message.first_failed_at.unwrap_or(now) + limit
    });
    (!too_late).then_some(delay)
}
