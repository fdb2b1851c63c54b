//! When a schedule ticks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cron::Cron;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Timestamp, check_span};

/// Shortest period of a schedule.
pub(crate) const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// When a schedule ticks, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Timing {
    /// At the instants of a cron expression in a time zone.
    Cron { expression: String, zone: String },
    /// Every so often, counted from the anchor, which is no tick itself.
    Every {
        micros: u64,
        /// Microseconds since 1970.
        anchor: i64,
    },
    /// Once, in microseconds since 1970.
    At { micros: i64 },
}

impl Timing {
    /// Checks the timing, and makes it ready to compute ticks.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument), with what is wrong.
    pub(crate) fn trigger(&self) -> Result<Trigger> {
        Ok(match self {
            Self::Cron { expression, zone } => Trigger::Cron(Box::new(Cron::new(expression, zone)?)),
            Self::Every { micros, anchor } => {
                let period = check_period(Duration::from_micros(*micros))?;
                Trigger::Every { period, anchor: Timestamp::from_micros(*anchor) }
            }
            Self::At { micros } => Trigger::At(Timestamp::from_micros(*micros)),
        })
    }

    /// True if both mean the same ticks, apart from the anchor of a period.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Every { micros: own, .. }, Self::Every { micros: other, .. }) => own == other,
            _ => self == other,
        }
    }
}

/// Checks the period of a schedule.
pub(crate) fn check_period(period: Duration) -> Result<Duration> {
    let period = check_span("the period of a schedule", period)?;
    if period < SHORTEST_PERIOD {
        let why = format!("a schedule ticks at most once a second, not every {period:?}");
        return Err(Error::new(ErrorKind::InvalidArgument, why));
    }
    Ok(period)
}

/// When a schedule ticks, ready to compute. Ticks strictly increase.
#[derive(Clone, Debug)]
pub(crate) enum Trigger {
    Cron(Box<Cron>),
    Every { period: Duration, anchor: Timestamp },
    At(Timestamp),
}

impl Trigger {
    /// The first tick after `after`.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next(after),
            Self::Every { period, anchor } => {
                let past = after.since(*anchor).as_micros() / period.as_micros();
                // A period of 1 s reaches beyond all times that there are.
                let ticks = u32::try_from(past + 1).ok();
                let span = ticks.and_then(|ticks| period.checked_mul(ticks)).unwrap_or_else(|| {
                    Duration::from_micros(u64::try_from((past + 1) * period.as_micros()).unwrap_or(u64::MAX))
                });
                Some(*anchor + span)
            }
            Self::At(time) => (*time > after).then_some(*time),
        }
    }

    /// True if there is a tick at that time.
    pub(crate) fn has(&self, tick: Timestamp) -> bool {
        self.next(Timestamp::from_micros(tick.as_micros().saturating_sub(1))) == Some(tick)
    }

    /// The ticks after `after`, in order.
    pub(crate) fn ticks(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next(after), |tick| self.next(*tick))
    }

    /// The ticks after `after` and up to `until`.
    pub(crate) fn due(&self, after: Timestamp, until: Timestamp) -> DueTicks {
        let mut due = DueTicks::default();
        for tick in self.ticks(after).take_while(|tick| *tick <= until).take(MOST_COUNTED) {
            due.count += 1;
            due.push(tick);
        }
        if due.count < MOST_COUNTED as u64 {
            return due;
        }
        // The newest ones are far away: looked for from ever earlier moments before `until`.
        let mut span = Duration::from_secs(2 * MOST_DUE as u64);
        loop {
            let from = Timestamp::from_micros(until.as_micros().saturating_sub_unsigned(micros(span)));
            let mut newest = DueTicks { count: due.count, ..DueTicks::default() };
            self.ticks(from.max(after)).take_while(|tick| *tick <= until).for_each(|tick| newest.push(tick));
            if newest.ticks.len() >= MOST_DUE || from <= after {
                return newest;
            }
            span *= 2;
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Number of due ticks that are told one by one.
pub(crate) const MOST_DUE: usize = 1_000;

/// Number of due ticks that are counted. A schedule by the second misses more in a day; then the
/// count is a lower bound.
const MOST_COUNTED: usize = 100_000;

/// Ticks that have come and are not settled.
#[derive(Debug, Default)]
pub(crate) struct DueTicks {
    /// The newest ones, at most [`MOST_DUE`], the oldest first.
    pub(crate) ticks: std::collections::VecDeque<Timestamp>,
    /// Number of all.
    pub(crate) count: u64,
}

impl DueTicks {
    fn push(&mut self, tick: Timestamp) {
        if self.ticks.len() == MOST_DUE {
            self.ticks.pop_front();
        }
        self.ticks.push_back(tick);
    }
}
