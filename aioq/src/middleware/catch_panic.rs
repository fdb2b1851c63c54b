//! Turns panics into failures, also panics of destructors.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use futures_util::FutureExt as _;

use super::Outcome;
use crate::error::{AfterFailure, JobError, Reason, TaskError};

/// Payload of a panic. Its destructor is a user's code and may panic, too.
type Payload = Box<dyn Any + Send>;

/// Runs a future. A panic in it becomes a failed attempt.
pub(super) async fn catch(run: impl Future<Output = Outcome>) -> Outcome {
    // Unwind safe: no value of the body is used after a panic.
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            let error = JobError::new("Panic", message(panic));
            Outcome::Failed(TaskError::described(AfterFailure::Policy, Reason::Panic, error))
        }
    }
}

/// Drops a future of a user's code in its place. Returns the text of the panic if that panics.
pub(crate) fn drop_in_place<F>(mut future: Pin<&mut Option<F>>) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| future.set(None))).err().map(message)
}

/// Drops the source of an error, so that no destructor of a user runs later. If that panics, the
/// panic becomes the reason of the failure; the error keeps its text.
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

/// Text of a panic.
fn message(panic: Payload) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // The payload of the second panic may panic when it is dropped, and so on.
        std::mem::forget(another);
    }
    text.unwrap_or_else(|| "panicked".to_owned())
}
