//! Timers of leases and records.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::clock;
use super::index::Slot;

/// Ends of the values in some slots.
///
/// Most values last equally long, and then end in the order in which they are added. Each such span
/// has a queue of its own, and adding costs no search. Values with other spans are kept in a tree.
/// No end is removed early: the owner tells which ends still count.
#[derive(Default)]
pub(super) struct Timers {
    spans: SmallVec<[SpanQueue; MAX_SPANS]>,
    rest: BTreeMap<(Instant, u64), Slot>,
    added: u64,
}

struct SpanQueue {
    span: Duration,
    ends: VecDeque<(Instant, Slot)>,
}

const MAX_SPANS: usize = 4;

/// Stale ends that are kept beyond one for each live end.
const STALE: usize = 64;

impl Timers {
    /// Adds a value that lasts for `span`. Returns its end.
    pub(super) fn add(&mut self, now: Instant, span: Duration, slot: Slot) -> Instant {
        let at = clock::after(now, span);
        match self.queue_of(span).filter(|queue| queue.ends.back().is_none_or(|(last, _)| *last <= at)) {
            Some(queue) => queue.ends.push_back((at, slot)),
            None => {
                self.added += 1;
                self.rest.insert((at, self.added), slot);
            }
        }
        at
    }

    /// The queue of that span, if there is one or room for one.
    fn queue_of(&mut self, span: Duration) -> Option<&mut SpanQueue> {
        let own = self.spans.iter().position(|queue| queue.span == span);
        let index = match own.or_else(|| self.spans.iter().position(|queue| queue.ends.is_empty())) {
            Some(index) => index,
            None if self.spans.len() < MAX_SPANS => {
                self.spans.push(SpanQueue { span, ends: VecDeque::new() });
                self.spans.len() - 1
            }
            None => return None,
        };
        let queue = &mut self.spans[index];
        queue.span = span;
        Some(queue)
    }

    /// The next end that counts.
    pub(super) fn next(&mut self, counts: impl Fn(Slot, Instant) -> bool) -> Option<Instant> {
        loop {
            let (at, slot) = self.first()?;
            if counts(slot, at) {
                return Some(at);
            }
            self.pop_first();
        }
    }

    /// Removes a value that has ended by `now` and counts.
    pub(super) fn pop(&mut self, now: Instant, counts: impl Fn(Slot, Instant) -> bool) -> Option<Slot> {
        loop {
            let (at, slot) = self.first().filter(|(at, _)| *at <= now)?;
            self.pop_first();
            if counts(slot, at) {
                return Some(slot);
            }
        }
    }

    fn first(&self) -> Option<(Instant, Slot)> {
        let spans = self.spans.iter().filter_map(|queue| queue.ends.front().copied());
        let other = self.rest.first_key_value().map(|((at, _), slot)| (*at, *slot));
        spans.chain(other).min_by_key(|(at, _)| *at)
    }

    fn pop_first(&mut self) {
        let Some((first, _)) = self.first() else { return };
        let queue =
            self.spans.iter_mut().find(|queue| queue.ends.front().is_some_and(|(at, _)| *at == first));
        match queue {
            Some(queue) => drop(queue.ends.pop_front()),
            None => drop(self.rest.pop_first()),
        }
    }

    /// Removes stale ends if they are the majority. `live` is the number of ends that count.
    pub(super) fn tidy(&mut self, live: usize, counts: impl Fn(Slot, Instant) -> bool) {
        if self.len() <= 2 * live + STALE {
            return;
        }
        for queue in &mut self.spans {
            queue.ends.retain(|(at, slot)| counts(*slot, *at));
        }
        self.rest.retain(|(at, _), slot| counts(*slot, *at));
    }

    fn len(&self) -> usize {
        self.spans.iter().map(|queue| queue.ends.len()).sum::<usize>() + self.rest.len()
    }

    /// All ends, stale ones included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Instant, Slot)> {
        let spans = self.spans.iter().flat_map(|queue| queue.ends.iter().copied());
        spans.chain(self.rest.iter().map(|((at, _), slot)| (*at, *slot)))
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
