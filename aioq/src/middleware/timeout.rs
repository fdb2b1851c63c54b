//! The innermost layer: the body, its time limit, and the pool that it runs on.

use std::time::Duration;

use super::{Outcome, guard};
use crate::context::Context;
use crate::error::{JobError, Reason, Steer, TaskError};
use crate::task::TaskDef;

/// Runs the body, no longer than the call or the task allows.
pub(super) async fn run(task: &TaskDef, ctx: Context) -> Outcome {
    let limit = ctx.timeout().or(task.options.timeout);
    match (task.is_blocking(), limit) {
        (false, None) => body(task, ctx).await,
        (false, Some(limit)) => async_limited(task, ctx, limit).await,
        (true, limit) => {
            // The time that a body waits for a thread is not its own.
            let Some(_place) = ctx.enter_blocking().await else {
                return Outcome::Failed(TaskError::new("told to stop before it got a thread"));
            };
            match limit {
                None => body(task, ctx).await,
                Some(limit) => blocking_limited(task, ctx, limit).await,
            }
        }
    }
}

async fn body(task: &TaskDef, ctx: Context) -> Outcome {
    let run = async {
        match task.run(ctx).await {
            Ok(payload) => Outcome::Done(payload),
            Err(error) => Outcome::Failed(error),
        }
    };
    guard::catch(run).await
}

async fn async_limited(task: &TaskDef, ctx: Context, limit: Duration) -> Outcome {
    match tokio::time::timeout(limit, body(task, ctx.clone())).await {
        Ok(outcome) => outcome,
        Err(_) => {
            ctx.cancel();
            timed_out()
        }
    }
}

/// A thread cannot be stopped from outside: the body is told, and waited for, so that a retry never overlaps
/// its predecessor.
async fn blocking_limited(task: &TaskDef, ctx: Context, limit: Duration) -> Outcome {
    let mut run = std::pin::pin!(body(task, ctx.clone()));
    match tokio::time::timeout(limit, &mut run).await {
        Ok(outcome) => outcome,
        Err(_) => {
            ctx.cancel();
            run.await;
            timed_out()
        }
    }
}

fn timed_out() -> Outcome {
    Outcome::Failed(TaskError::described(Steer::Policy, Reason::Timeout, JobError::timeout()))
}
