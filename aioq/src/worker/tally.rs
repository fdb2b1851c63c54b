//! Counts of ended attempts by task, logged once a minute.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use crate::middleware::Outcome;
use crate::registry::Registry;
use crate::registry::TaskDef;
use crate::sync::PerThread;

/// Number of tasks that one log line names.
const NAMED: usize = 10;

/// Counts of ended attempts by task since the last log line.
pub(super) struct Tally(PerThread<Box<[Counts]>>);

/// Counts of one task on one thread.
#[derive(Default)]
struct Counts([AtomicU64; 3]);

/// The kinds of ends that are counted.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Completed,
    Failed,
    Retried,
}

impl Kind {
    /// `None` for an attempt that is not counted: the job was snoozed or cancelled.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Done(_) => Some(Self::Completed),
            Outcome::Failed(_) => Some(Self::Failed),
            Outcome::Retry { .. } => Some(Self::Retried),
            Outcome::Snooze { .. } | Outcome::Cancelled { .. } => None,
        }
    }
}

impl Tally {
    /// Zero counts for all tasks of the registry.
    pub(super) fn new(registry: &Registry) -> Self {
        let tasks = registry.len();
        Self(PerThread::new(|_| (0..tasks).map(|_| Counts::default()).collect()))
    }

    /// Counts one attempt.
    pub(super) fn count(&self, task: &TaskDef, kind: Kind) {
        // A task of another registry is not counted.
        if let Some(counts) = self.0.own().1.get(task.number()) {
            counts.0[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the counts of a task, and sets them to zero.
    fn take(&self, task: &TaskDef) -> [u64; 3] {
        let mut sums = [0; 3];
        for counts in self.0.all().iter().filter_map(|counts| counts.get(task.number())) {
            for (sum, count) in sums.iter_mut().zip(&counts.0) {
                *sum += count.swap(0, Ordering::Relaxed);
            }
        }
        sums
    }
}

/// Logs the counts since the last log line, unless all are zero.
pub(super) fn say(shared: &Shared) {
    let tasks = shared.registry.iter().map(|task| (task.name(), shared.tally.take(task)));
    let mut done: Vec<(&str, [u64; 3])> =
        tasks.filter(|(_, counts)| counts.iter().any(|count| *count > 0)).collect();
    if done.is_empty() {
        return;
    }
    done.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u64>()));
    let sum = |kind: Kind| done.iter().map(|(_, counts)| counts[kind as usize]).sum::<u64>();
    tracing::info!(
        completed = sum(Kind::Completed),
        failed = sum(Kind::Failed),
        retried = sum(Kind::Retried),
        held = shared.leases.count(),
        tasks = %by_task(&done),
        "in the last minute"
    );
}

/// The counts of the busiest tasks as text. Counts of zero are left out.
fn by_task(done: &[(&str, [u64; 3])]) -> String {
    let mut text = String::new();
    for (task, counts) in &done[..done.len().min(NAMED)] {
        let kinds = ["completed", "failed", "retried"];
        let counts = counts.iter().zip(kinds).filter(|(count, _)| **count > 0);
        let counts: Vec<String> = counts.map(|(count, kind)| format!("{count} {kind}")).collect();
        let between = if text.is_empty() { "" } else { "; " };
        // Writing to a string never fails.
        let _ = write!(text, "{between}{task}: {}", counts.join(", "));
    }
    if done.len() > NAMED {
        let _ = write!(text, "; and {} more", done.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_tasks_are_named_and_zeros_are_not() {
        assert_eq!(by_task(&[("b", [9, 0, 2]), ("a", [0, 1, 0])]), "b: 9 completed, 2 retried; a: 1 failed");
        let many: Vec<(&str, [u64; 3])> = std::iter::repeat_n(("t", [1, 0, 0]), 12).collect();
        assert!(by_task(&many).ends_with("t: 1 completed; and 2 more"));
    }
}
