//! Ids in the order of time, drawn from several sources without a shared counter.

use std::sync::LazyLock;
use std::time::Instant;

/// Draws ids that differ from those of all other sources. Ids of one source rise; ids of different
/// sources rise with the time.
///
/// A shared counter would be memory that every core writes. Each source reads the clock instead.
pub(super) struct OrderedIds {
    source: u64,
    last: u64,
}

/// Maximum number of sources.
const SOURCES: u64 = 32;

/// Origin of the ids: nanoseconds since this instant, with the source in the lowest bits.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl OrderedIds {
    /// The ids of one source. Each of the [`SOURCES`] has its own index.
    pub(super) fn new(source: usize) -> Self {
        let source = source as u64;
        assert!(source < SOURCES, "a source has its own index");
        Self { source, last: source }
    }

    /// The next id, for an event at `now` by the real clock. Never 0.
    pub(super) fn next(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*START).as_nanos();
        // 2^59 nanoseconds are 18 years.
        let by_clock =
            u64::try_from(since).unwrap_or(u64::MAX / SOURCES - 1).saturating_mul(SOURCES) + self.source;
        self.last = by_clock.max(self.last + SOURCES);
        self.last
    }

    /// The next id, for an event whose time does not matter.
    pub(super) fn next_untimed(&mut self) -> u64 {
        self.last += SOURCES;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_differ_from_those_of_other_sources() {
        let (mut here, mut there) = (OrderedIds::new(0), OrderedIds::new(31));
        let now = Instant::now();
        let numbers = [here.next(now), here.next(now), there.next(now), there.next(now)];
        assert!(numbers[0] < numbers[1] && numbers[2] < numbers[3]);
        let distinct = std::collections::HashSet::from(numbers);
        assert_eq!(distinct.len(), 4);
        let later = now + std::time::Duration::from_micros(1);
        assert!(there.next(later) > numbers[1]);
    }
}
