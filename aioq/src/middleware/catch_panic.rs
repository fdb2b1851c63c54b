//! Panics become failures, also those of what is dropped.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use futures_util::FutureExt as _;

use super::Outcome;
use crate::error::{AfterFailure, JobError, Reason, TaskError};

/// What is dropped with whatever a user's code left in it.
type Payload = Box<dyn Any + Send>;

/// Runs a future; its panic is a failed attempt.
pub(super) async fn catch(run: impl Future<Output = Outcome>) -> Outcome {
    // What the body left half done is the body's own: nothing of it is used after a panic.
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            let error = JobError::new("Panic", message(panic));
            Outcome::Failed(TaskError::described(AfterFailure::Policy, Reason::Panic, error))
        }
    }
}

/// Drops a future of a user's code in its place; what that says if it panics.
pub(crate) fn drop_in_place<F>(mut future: Pin<&mut Option<F>>) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| future.set(None))).err().map(message)
}

/// Drops what an error came from, so that nothing of a user's code is dropped after this. If that
/// panics, it is the reason of the failure; the error keeps its text.
pub(super) fn drop_sources(outcome: &mut Outcome) {
    let error = match outcome {
        Outcome::Failed(error) | Outcome::Retry { error, .. } | Outcome::Cancelled { why: error } => error,
        Outcome::Done(_) | Outcome::Snooze { .. } => return,
    };
    let source = error.take_source();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(source))) {
        error.set_panicked(&message(panic));
    }
}

/// What a panic says.
fn message(panic: Payload) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // It may go on like that for ever.
        std::mem::forget(another);
    }
    text.unwrap_or_else(|| "panicked".to_owned())
}
