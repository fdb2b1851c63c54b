//! Jobs that this release does not know how to run: an unknown task, or arguments that do not fit it. A newer one may,
//! and while it is rolled out they are left to its workers.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::message::{JobId, Message};
use crate::registry::TaskDef;

/// The first and the longest time for which such a job is left alone.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How many such jobs a worker remembers at most.
const MOST_SEEN: usize = 4096;

/// Since when this worker has seen such jobs.
#[derive(Default)]
pub(super) struct Unfit(Mutex<HashMap<JobId, Instant>>);

impl Unfit {
    /// Since when this worker has seen the job, and whether it sees it for the first time.
    fn see(&self, id: &JobId, patience: Duration) -> (Instant, bool) {
        let now = Instant::now();
        // Nothing panics while it is locked.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = seen.get(id) {
            return (*since, false);
        }
        if seen.len() >= MOST_SEEN {
            seen.retain(|_, since| since.elapsed() < patience);
        }
        let has_room = seen.len() < MOST_SEEN;
        if has_room {
            seen.insert(id.clone(), now);
        }
        (now, has_room)
    }

    fn forget(&self, id: &JobId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// For how long to leave a job to newer workers, this time; `None` once it has been for long enough since its kick, or
/// since it was due.
pub(super) fn leave_to_newer(shared: &Shared, message: &Message, why: &dyn fmt::Display) -> Option<Duration> {
    let patience = shared.options.patience_of(&shared.scope.client);
    if patience.is_zero() {
        return None;
    }
    let due = message.run_at.or(message.kicked_at);
    let by_clock = due.map_or(Duration::ZERO, |due| shared.scope.client.now().since(due));
    let (since, is_first) = shared.unfit.see(&message.id, patience);
    // Also where a message tells no time, or its clock is ahead.
    let waited = by_clock.max(since.elapsed());
    let left = patience.saturating_sub(waited);
    if left.is_zero() {
        shared.unfit.forget(&message.id);
        return None;
    }
    if is_first {
        let (id, task) = (&message.id, &message.task);
        tracing::warn!(%id, %task, why = %why, ?left, "is left to workers of a newer release");
    }
    Some((waited / 2).clamp(FIRST_DELAY, LONGEST_DELAY).min(left))
}

/// Whether the arguments do not fit the task, as far as can be told without a run.
pub(super) fn check(task: &TaskDef, message: &Message) -> Option<String> {
    // Foreign code: if it panics, the run says so.
    let checked = catch_unwind(AssertUnwindSafe(|| task.check(&message.arguments)));
    checked.ok()?.err().map(|error| error.to_string())
}
