//! Panics become failures.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use super::Outcome;
use crate::error::{JobError, Reason, Steer, TaskError};

/// Runs a future; its panic is a failed attempt.
pub(super) async fn catch(run: impl Future<Output = Outcome>) -> Outcome {
    // What the body left half done is the body's own: nothing of it is used after a panic.
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            let error = JobError::new("Panic", message(&*panic));
            Outcome::Failed(TaskError::described(Steer::Policy, Reason::Panic, error))
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked")
}
