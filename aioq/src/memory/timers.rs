//! Timers of leases and records.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use super::index::Slot;

/// Ends of the values in some slots, earliest first.
///
/// No end is removed early: the owner tells which ends still count.
#[derive(Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, Slot)>>);

/// Stale ends that are kept beyond one for each live end.
const STALE: usize = 64;

impl Timers {
    /// Adds a value that lasts for `span`. Returns its end.
    pub(super) fn add(&mut self, now: Instant, span: Duration, slot: Slot) -> Instant {
        let at = clock::after(now, span);
        self.0.push(Reverse((at, slot)));
        at
    }

    /// The next end that counts.
    pub(super) fn next(&mut self, counts: impl Fn(Slot, Instant) -> bool) -> Option<Instant> {
        loop {
            let (at, slot) = self.first()?;
            if counts(slot, at) {
                return Some(at);
            }
            self.0.pop();
        }
    }

    /// Removes a value that has ended by `now` and counts.
    pub(super) fn pop(&mut self, now: Instant, counts: impl Fn(Slot, Instant) -> bool) -> Option<Slot> {
        loop {
            let (at, slot) = self.first().filter(|(at, _)| *at <= now)?;
            self.0.pop();
            if counts(slot, at) {
                return Some(slot);
            }
        }
    }

    fn first(&self) -> Option<(Instant, Slot)> {
        self.0.peek().map(|Reverse(first)| *first)
    }

    /// Removes stale ends if they are the majority. `live` is the number of ends that count.
    pub(super) fn tidy(&mut self, live: usize, counts: impl Fn(Slot, Instant) -> bool) {
        if self.0.len() > 2 * live + STALE {
            self.0.retain(|Reverse((at, slot))| counts(*slot, *at));
        }
    }

    /// All ends, stale ones included, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Instant, Slot)> {
        self.0.iter().map(|Reverse(end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn values_end_in_the_order_of_their_ends_with_any_spans() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        let spans = [7, 3, 9, 1, 8, 2, 3, 1];
        for (slot, seconds) in (0..).zip(spans) {
            timers.add(now, seconds * SECOND, slot);
        }
        assert_eq!(timers.next(|_, _| true), Some(now + SECOND));
        assert_eq!(timers.pop(now, |_, _| true), None);
        let later = now + 100 * SECOND;
        let popped: Vec<Slot> = std::iter::from_fn(|| timers.pop(later, |_, _| true)).collect();
        let ends: Vec<u32> = popped.iter().map(|slot| spans[*slot as usize]).collect();
        assert!(ends.is_sorted() && ends.len() == spans.len(), "{ends:?}");
    }

    #[test]
    fn stale_ends_are_skipped_and_removed() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        for slot in 0..1000 {
            timers.add(now, (slot % 9 + 1) * SECOND, slot);
        }
        assert_eq!(timers.pop(now + SECOND, |slot, _| slot >= 500), Some(504));
        timers.tidy(1, |slot, _| slot == 999);
        assert_eq!(timers.iter().collect::<Vec<_>>(), [(now + SECOND, 999)]);
    }
}
