//! The innermost layer: the body, its time limit, and the pool that it runs on.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::{Outcome, catch_panic, trace};
use crate::context::{Context, lending};
use crate::error::{AfterFailure, JobError, Reason, TaskError};
use crate::registry::TaskDef;

/// Runs the body, within the time limit of the call or the task.
pub(super) async fn run(task: &TaskDef, ctx: Context) -> Outcome {
    let limit = Limit::of(task, &ctx);
    match (task.is_blocking(), limit) {
        (false, None) => body(task, ctx).await,
        (false, Some(limit)) => async_limited(task, ctx, limit).await,
        (true, limit) => {
            // The time that a body waits for a thread does not count.
            let Some(_place) = ctx.enter_blocking().await else {
                return Outcome::Failed(TaskError::new("told to stop before it got a thread"));
            };
            match limit {
                None => body(task, ctx.clone()).await,
                Some(limit) => blocking_limited(task, ctx.clone(), limit).await,
            }
        }
    }
}

async fn body(task: &TaskDef, ctx: Context) -> Outcome {
    let run = async {
        let ran =
            if task.is_blocking() { task.run(ctx).await } else { lending(&ctx, task.run(ctx.clone())).await };
        match ran {
            Ok(payload) => Outcome::Done(payload),
            Err(error) => Outcome::Failed(error),
        }
    };
    catch_panic::catch(run).await
}

/// Time limit of an attempt, and its origin.
#[derive(Clone, Copy)]
struct Limit {
    span: Duration,
    of: &'static str,
}

impl Limit {
    fn of(task: &TaskDef, ctx: &Context) -> Option<Self> {
        // A kick writes the task's own limit into the message.
        match ctx.timeout() {
            Some(span) if Some(span) != task.options.timeout => Some(Self { span, of: "call" }),
            _ => task.options.timeout.map(|span| Self { span, of: "task" }),
        }
    }

    fn passed(self) -> TaskError {
        let span = humantime::format_duration(self.span);
        let error = JobError::timeout(format!("timed out after {span} (timeout of the {})", self.of));
        TaskError::described(AfterFailure::Policy, Reason::Timeout, error)
    }
}

async fn async_limited(task: &TaskDef, ctx: Context, limit: Limit) -> Outcome {
    let mut run = pin!(Some(body(task, ctx.clone())));
    let body = std::future::poll_fn(|context| match run.as_mut().as_pin_mut() {
        Some(body) => body.poll(context),
        None => Poll::Pending,
    });
    if let Ok(outcome) = tokio::time::timeout(limit.span, body).await {
        return outcome;
    }
    ctx.interrupt();
    let mut error = limit.passed();
    if let Some(panic) = catch_panic::drop_in_place(run) {
        error.set_panicked(&panic);
    }
    Outcome::Failed(error)
}

/// A thread cannot be stopped from outside. The body is told to stop, and awaited: a retry never
/// overlaps the attempt before it.
async fn blocking_limited(task: &TaskDef, ctx: Context, limit: Limit) -> Outcome {
    let mut run = pin!(body(task, ctx.clone()));
    if let Ok(outcome) = tokio::time::timeout(limit.span, &mut run).await {
        return outcome;
    }
    ctx.interrupt();
    let mut late = wait_out(&ctx, limit, run).await;
    catch_panic::drop_sources(&mut late);
    Outcome::Failed(limit.passed())
}

/// Time after its timeout at which a body that still runs is logged. It doubles each time.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_PATIENCE: Duration = Duration::from_secs(3600);

/// Waits for a body after its timeout, and warns at growing intervals.
async fn wait_out(ctx: &Context, limit: Limit, mut run: Pin<&mut impl Future<Output = Outcome>>) -> Outcome {
    let late = Instant::now();
    let mut pause = PATIENCE;
    loop {
        if let Ok(outcome) = tokio::time::timeout(pause, &mut run).await {
            return outcome;
        }
        pause = (pause * 2).min(LONGEST_PATIENCE);
        let age = limit.span.saturating_add(late.elapsed());
        trace::in_span(ctx, || {
            tracing::warn!(
                ?age,
                limit = ?limit.span,
                "still running after its timeout, and keeps its thread: its body must check `ctx.is_cancelled()`"
            );
        });
    }
}
