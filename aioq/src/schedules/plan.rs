//! What a schedule has to do at a moment: a pure function of its entry and the time.

use std::time::Duration;

use super::entry::ScheduleEntry;
use super::trigger::Trigger;
use crate::task::Missed;
use crate::time::Timestamp;

/// Shortest and longest time for which a tick may be late and is in time all the same.
const GRACE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The next thing to do for a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A tick is to be fired; the ticks before it that are due count as missed.
    Fire { tick: Timestamp, missed: u64 },
    /// All ticks up to this one count as missed.
    Miss { last: Timestamp, missed: u64 },
}

/// What to do for a schedule `now`; `None` if no tick is due.
pub(super) fn plan(entry: &ScheduleEntry, trigger: &Trigger, now: Timestamp) -> Option<Plan> {
    if entry.is_at_rest() {
        return None;
    }
    let due = trigger.due(entry.last, now);
    let newest = *due.ticks.back()?;
    // Ticks that are due and not among the newest ones were missed in any case.
    let passed_over = due.count - due.ticks.len() as u64;
    let in_time = |tick: &Timestamp| now.since(*tick) <= grace(trigger, *tick);
    let first = match entry.missed {
        Missed::All => Some(0),
        Missed::Skip => due.ticks.iter().position(in_time),
        Missed::Once => due.ticks.iter().position(in_time).or(Some(due.ticks.len() - 1)),
    };
    Some(match first {
        Some(place) => Plan::Fire { tick: due.ticks[place], missed: passed_over + place as u64 },
        None => Plan::Miss { last: newest, missed: due.count },
    })
}

/// Number of ticks between `last` and a tick that is fired, none of which is fired any more.
pub(super) fn missed_before(trigger: &Trigger, last: Timestamp, tick: Timestamp) -> u64 {
    trigger.due(last, tick).count.saturating_sub(1)
}

/// Time for which a tick may be late: half the interval to the next one.
pub(super) fn grace(trigger: &Trigger, tick: Timestamp) -> Duration {
    let interval = trigger.next(tick).map(|next| next.since(tick));
    interval.map_or(GRACE.1, |interval| (interval / 2).clamp(GRACE.0, GRACE.1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::super::entry::{Source, TickCounts};
    use super::super::trigger::Timing;
    use super::*;
    use crate::task::Overlap;

    fn entry(every_secs: u64, missed: Missed) -> (ScheduleEntry, Trigger) {
        let timing = Timing::Every { micros: every_secs * 1_000_000, anchor: 0 };
        let trigger = timing.trigger().unwrap();
        let entry = ScheduleEntry {
            message: Bytes::new(),
            ttl: None,
            unique_within: Duration::ZERO,
            source: Source::Api,
            timing,
            missed,
            overlap: Overlap::Allow,
            paused_at: None,
            last: at(0),
            floor: at(0),
            ring: Vec::new(),
            counts: TickCounts::default(),
            by: None,
            ended_at: None,
            renewed_at: None,
            orphaned_at: None,
            is_removed: false,
        };
        (entry, trigger)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// All that is done for a schedule, if each step succeeds: the ticks that are fired, and the
    /// number of those that are missed.
    fn all(every_secs: u64, missed: Missed, now: Timestamp) -> (Vec<Timestamp>, u64) {
        let (mut entry, trigger) = entry(every_secs, missed);
        let (mut fired, mut missed) = (Vec::new(), 0);
        while let Some(plan) = plan(&entry, &trigger, now) {
            missed += match plan {
                Plan::Fire { tick, missed } => {
                    assert_eq!(missed, missed_before(&trigger, entry.last, tick).min(missed));
                    fired.push(tick);
                    entry.last = tick;
                    missed
                }
                Plan::Miss { last, missed } => {
                    entry.last = last;
                    missed
                }
            };
        }
        (fired, missed)
    }

    #[test]
    fn a_tick_that_is_a_little_late_is_fired() {
        for missed in [Missed::Skip, Missed::Once, Missed::All] {
            assert_eq!(all(60, missed, at(59)), (vec![], 0));
            assert_eq!(all(60, missed, at(60)), (vec![at(60)], 0));
            assert_eq!(all(60, missed, at(90)), (vec![at(60)], 0));
        }
        // A day and more between two ticks: an hour.
        assert_eq!(all(172_800, Missed::Skip, at(172_800 + 3_600)), (vec![at(172_800)], 0));
        assert_eq!(all(172_800, Missed::Skip, at(172_800 + 3_601)), (vec![], 1));
    }

    #[test]
    fn what_becomes_of_missed_ticks_is_for_the_schedule_to_say() {
        let six_hours_and_half_a_period = at(6 * 3_600 + 31);
        let newest = at(6 * 3_600);
        assert_eq!(all(60, Missed::Skip, six_hours_and_half_a_period), (vec![], 360));
        assert_eq!(all(60, Missed::Once, six_hours_and_half_a_period), (vec![newest], 359));
        assert_eq!(all(60, Missed::All, six_hours_and_half_a_period).0.len(), 360);
        // The newest one is in time.
        assert_eq!(all(60, Missed::Skip, newest), (vec![newest], 359));
        assert_eq!(all(60, Missed::Once, newest), (vec![newest], 359));
    }

    #[test]
    fn years_without_a_worker_run_a_thousand_ticks_at_most() {
        let three_years = at(3 * 365 * 86_400);
        let (fired, missed) = all(1, Missed::All, three_years);
        assert_eq!(fired.len(), 1_000);
        assert_eq!((fired[0], fired[999]), (at(3 * 365 * 86_400 - 999), three_years));
        // A lower bound.
        assert_eq!(missed, 100_000 - 1_000);
    }
}
