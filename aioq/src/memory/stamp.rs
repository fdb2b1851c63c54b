//! Numbers in the order of time, drawn in many places at once.

use std::sync::LazyLock;
use std::time::Instant;

/// Draws numbers that differ from all others: they rise here, and from place to place with the time.
///
/// A counter for all would be memory that every processor writes. A clock is read by each on its own.
pub(super) struct Stamps {
    place: u64,
    last: u64,
}

/// The most places.
const PLACES: u64 = 32;

/// Numbers count from here: nanoseconds, and the place in the lowest bits.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Stamps {
    /// The numbers of one place: of [`PLACES`], each must be told apart.
    pub(super) fn of(place: usize) -> Self {
        let place = place as u64;
        assert!(place < PLACES, "the place is one of few");
        Self { place, last: place }
    }

    /// The next number, of something that happens at `now` by the real clock. It is never 0.
    pub(super) fn next(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*START).as_nanos();
        // 2^59 nanoseconds are 18 years.
        let by_clock =
            u64::try_from(since).unwrap_or(u64::MAX / PLACES - 1).saturating_mul(PLACES) + self.place;
        self.last = by_clock.max(self.last + PLACES);
        self.last
    }
}

impl Stamps {
    /// The next number, of something whose time does not matter.
    pub(super) fn next_untimed(&mut self) -> u64 {
        self.last += PLACES;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_differ_from_those_of_other_places() {
        let (mut here, mut there) = (Stamps::of(0), Stamps::of(31));
        let now = Instant::now();
        let numbers = [here.next(now), here.next(now), there.next(now), there.next(now)];
        assert!(numbers[0] < numbers[1] && numbers[2] < numbers[3]);
        let distinct = std::collections::HashSet::from(numbers);
        assert_eq!(distinct.len(), 4);
        let later = now + std::time::Duration::from_micros(1);
        assert!(there.next(later) > numbers[1]);
    }
}
