//! When things run out: leases, records.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::clock;
use super::series::Slot;

/// When the things in some slots run out.
///
/// Most of them last equally long, so that those which are added last run out last: each span has a lane of its own,
/// and adding costs no search. What lasts otherwise is kept in a tree. Nothing is taken out early: its owner says
/// what still counts.
#[derive(Default)]
pub(super) struct Timers {
    lanes: SmallVec<[Lane; LANES]>,
    others: BTreeMap<(Instant, u64), Slot>,
    added: u64,
}

struct Lane {
    span: Duration,
    ends: VecDeque<(Instant, Slot)>,
}

const LANES: usize = 4;

/// How many entries may be there that do not count, besides as many as do.
const STALE: usize = 64;

impl Timers {
    /// Adds a thing that lasts that long; when it runs out.
    pub(super) fn add(&mut self, now: Instant, span: Duration, slot: Slot) -> Instant {
        let at = clock::after(now, span);
        match self.lane(span).filter(|lane| lane.ends.back().is_none_or(|(last, _)| *last <= at)) {
            Some(lane) => lane.ends.push_back((at, slot)),
            None => {
                self.added += 1;
                self.others.insert((at, self.added), slot);
            }
        }
        at
    }

    /// The lane of that span, if there is room for one.
    fn lane(&mut self, span: Duration) -> Option<&mut Lane> {
        let own = self.lanes.iter().position(|lane| lane.span == span);
        let index = match own.or_else(|| self.lanes.iter().position(|lane| lane.ends.is_empty())) {
            Some(index) => index,
            None if self.lanes.len() < LANES => {
                self.lanes.push(Lane { span, ends: VecDeque::new() });
                self.lanes.len() - 1
            }
            None => return None,
        };
        let lane = &mut self.lanes[index];
        lane.span = span;
        Some(lane)
    }

    /// When the next thing runs out that counts.
    pub(super) fn next(&mut self, counts: impl Fn(Slot, Instant) -> bool) -> Option<Instant> {
        loop {
            let (at, slot) = self.first()?;
            if counts(slot, at) {
                return Some(at);
            }
            self.pop_first();
        }
    }

    /// Takes out a thing that has run out by `now` and counts.
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
        let lanes = self.lanes.iter().filter_map(|lane| lane.ends.front().copied());
        let other = self.others.first_key_value().map(|((at, _), slot)| (*at, *slot));
        lanes.chain(other).min_by_key(|(at, _)| *at)
    }

    fn pop_first(&mut self) {
        let Some((first, _)) = self.first() else { return };
        let lane = self.lanes.iter_mut().find(|lane| lane.ends.front().is_some_and(|(at, _)| *at == first));
        match lane {
            Some(lane) => drop(lane.ends.pop_front()),
            None => drop(self.others.pop_first()),
        }
    }

    /// Forgets what does not count, if it is most of what is here. `live` is how many do count.
    pub(super) fn tidy(&mut self, live: usize, counts: impl Fn(Slot, Instant) -> bool) {
        if self.len() <= 2 * live + STALE {
            return;
        }
        for lane in &mut self.lanes {
            lane.ends.retain(|(at, slot)| counts(*slot, *at));
        }
        self.others.retain(|(at, _), slot| counts(*slot, *at));
    }

    fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.ends.len()).sum::<usize>() + self.others.len()
    }

    /// All entries, also those that do not count any more.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Instant, Slot)> {
        let lanes = self.lanes.iter().flat_map(|lane| lane.ends.iter().copied());
        lanes.chain(self.others.iter().map(|((at, _), slot)| (*at, *slot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn things_run_out_in_the_order_of_their_ends_whatever_their_spans_are() {
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
    fn what_counts_no_more_is_passed_over_and_forgotten() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        for slot in 0..1000 {
            timers.add(now, (slot % 9 + 1) * SECOND, slot);
        }
        assert_eq!(timers.pop(now + SECOND, |slot, _| slot >= 500), Some(504));
        timers.tidy(1, |slot, _| slot == 999);
        assert_eq!(timers.iter().collect::<Vec<_>>(), [(now + SECOND, 999)]);
    }
}
