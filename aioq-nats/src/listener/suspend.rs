//! Detection of suspensions: the process was frozen, or got no processor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Counts suspensions, which show as long gaps between two checks.
pub(super) struct Suspensions {
    start: Instant,
    /// Time of the last check, in milliseconds since `start`.
    last_check: AtomicU64,
    count: AtomicU64,
}

impl Suspensions {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last_check: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    /// Checks for a gap longer than `gap` since the last check. Returns the number of suspensions
    /// so far.
    pub(super) fn check(&self, gap: Duration) -> u64 {
        self.check_at(Instant::now(), gap)
    }

    fn check_at(&self, now: Instant, gap: Duration) -> u64 {
        let now = now - self.start;
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let last = Duration::from_millis(self.last_check.fetch_max(millis, Ordering::AcqRel));
        let suspended = u64::from(now.saturating_sub(last) > gap);
        self.count.fetch_add(suspended, Ordering::AcqRel) + suspended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_gap_between_checks_is_a_suspension_and_counts_once() {
        let (suspensions, second) = (Suspensions::new(), Duration::from_secs(1));
        let check = |seconds: f64| suspensions.check_at(suspensions.start + second.mul_f64(seconds), second);
        let checks = [0.5, 1.0, 2.0, 2.9, 5.0, 5.1, 6.0, 8.0, 8.5];
        assert_eq!(checks.map(check), [0, 0, 0, 0, 1, 1, 1, 2, 2]);
    }
}
