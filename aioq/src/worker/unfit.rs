//! Jobs that this release cannot run: of an unknown task, or with arguments that do not fit it.
//!
//! A newer release may know them. While it is rolled out, they are left to its workers.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::message::{JobId, Message};
use crate::registry::TaskDef;
use crate::sync::Lock;

/// The first and the longest delay after which such a job comes again.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The most such jobs that a worker remembers.
const MOST_SEEN: usize = 4096;

/// Jobs that this release cannot run, with the moment at which this worker first saw them.
#[derive(Default)]
pub(super) struct Unfit(Lock<HashMap<JobId, Instant>>);

impl Unfit {
    /// The moment at which this worker first saw the job, and true if that is now.
    fn see(&self, id: &JobId, patience: Duration) -> (Instant, bool) {
        let now = Instant::now();
        let mut seen = self.0.lock();
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
        self.0.lock().remove(id);
    }
}

/// Delay until the job comes again; `None` once the time for newer workers is over, counted from
/// the kick or from the moment at which the job was due.
pub(super) fn leave_to_newer(shared: &Shared, message: &Message, why: &dyn fmt::Display) -> Option<Duration> {
    let patience = shared.options.patience_of(&shared.scope.client);
    if patience.is_zero() {
        return None;
    }
    let due = message.run_at.or(message.kicked_at);
    let by_clock = due.map_or(Duration::ZERO, |due| shared.scope.client.now().since(due));
    let (since, is_first) = shared.unfit.see(&message.id, patience);
    // A message may carry no time, or one of a clock that is ahead.
    let waited = by_clock.max(since.elapsed());
    let left = patience.saturating_sub(waited);
    if left.is_zero() {
        shared.unfit.forget(&message.id);
        return None;
    }
    if is_first {
        let (id, task) = (&message.id, &message.task);
        tracing::warn!(%id, %task, why = %why, ?left, "left to workers of a newer release");
    }
    Some((waited / 2).clamp(FIRST_DELAY, LONGEST_DELAY).min(left))
}

/// The reason why the arguments do not fit the task, as far as a check without a run can tell.
pub(super) fn check(task: &TaskDef, message: &Message) -> Option<String> {
    // The check runs a user's code. If it panics, the run reports it.
    let checked = catch_unwind(AssertUnwindSafe(|| task.check(&message.arguments)));
    checked.ok()?.err().map(|error| error.to_string())
}
