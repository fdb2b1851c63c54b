//! Whether the process was asleep: frozen, or without a processor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Counts sleeps, which show as long times between two looks.
pub(super) struct Sleeps {
    since: Instant,
    /// When it was looked last, in milliseconds.
    looked: AtomicU64,
    count: AtomicU64,
}

impl Sleeps {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), looked: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    /// How many sleeps there were that took longer than this.
    pub(super) fn longer_than(&self, span: Duration) -> u64 {
        self.look(Instant::now(), span)
    }

    fn look(&self, now: Instant, span: Duration) -> u64 {
        let now = now - self.since;
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let looked = Duration::from_millis(self.looked.fetch_max(millis, Ordering::AcqRel));
        let slept = u64::from(now.saturating_sub(looked) > span);
        self.count.fetch_add(slept, Ordering::AcqRel) + slept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_without_a_look_is_a_sleep_and_counts_once() {
        let (sleeps, second) = (Sleeps::new(), Duration::from_secs(1));
        let look = |seconds: f64| sleeps.look(sleeps.since + second.mul_f64(seconds), second);
        let looks = [0.5, 1.0, 2.0, 2.9, 5.0, 5.1, 6.0, 8.0, 8.5];
        assert_eq!(looks.map(look), [0, 0, 0, 0, 1, 1, 1, 2, 2]);
    }
}
