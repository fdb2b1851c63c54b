//! What a schedule is made of: when it ticks, and what becomes of ticks that cannot run in time.

use std::time::Duration;

use super::trigger::{Timing, check_period};
use super::zone::UTC;
use crate::error::{Error, ErrorKind, Result};
use crate::task::{ConstWhen, Missed, Overlap, ScheduleOptions};
use crate::time::{IntoDuration, IntoTimestamp, Timestamp};

/// When a job is to run, again and again.
///
/// ```
/// use aioq::schedules::{Missed, Overlap, Schedule};
///
/// let nightly = Schedule::cron("0 2 * * *").tz("Europe/Berlin").missed(Missed::Once);
/// let often = Schedule::every("30s").overlap(Overlap::Skip);
/// let once = Schedule::at("2126-11-01T09:00:00+01:00");
/// # let _ = (nightly, often, once);
/// ```
///
/// An invalid value is remembered, and refused when the schedule is put.
#[derive(Clone, Debug)]
#[must_use = "a schedule does nothing until it is put"]
pub struct Schedule {
    when: When,
    missed: Option<Missed>,
    overlap: Overlap,
    /// The error of the first invalid value.
    invalid: Option<String>,
}

#[derive(Clone, Debug)]
enum When {
    Cron { expression: String, zone: Option<String> },
    Every(Duration),
    At(Timestamp),
}

impl Schedule {
    fn new(when: When) -> Self {
        Self { when, missed: None, overlap: Overlap::default(), invalid: None }
    }

    /// At the times of a cron expression: 5 fields (minute, hour, day of the month, month,
    /// weekday), or 6 with seconds first, or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`. In UTC, unless [`tz`](Self::tz) names a zone. See the
    /// [guide](crate::guide::schedules).
    pub fn cron(expression: impl Into<String>) -> Self {
        Self::new(When::Cron { expression: expression.into(), zone: None })
    }

    /// Every so often, at least every second, counted from when the schedule was made. Restarts and
    /// deploys do not move it.
    pub fn every(period: impl IntoDuration) -> Self {
        match period.into_duration().and_then(check_period) {
            Ok(period) => Self::new(When::Every(period)),
            Err(error) => Self { invalid: Some(error.to_string()), ..Self::new(When::Every(Duration::MAX)) },
        }
    }

    /// Once, at this time. If no worker is there in time it runs later, unless
    /// [`missed`](Self::missed) says otherwise. The schedule is listed for seven days more.
    pub fn at(time: impl IntoTimestamp) -> Self {
        match time.into_timestamp() {
            Ok(time) => Self::new(When::At(time)),
            Err(error) => {
                let never = Self::new(When::At(Timestamp::from_micros(0)));
                Self { invalid: Some(error.to_string()), ..never }
            }
        }
    }

    /// The time zone of a cron expression, by its name in the IANA database: `Europe/Berlin`.
    pub fn tz(mut self, name: impl Into<String>) -> Self {
        match &mut self.when {
            When::Cron { zone, .. } => *zone = Some(name.into()),
            _ => {
                let why = "`tz` is the time zone of a cron expression";
                self.invalid.get_or_insert_with(|| why.to_owned());
            }
        }
        self
    }

    /// What becomes of ticks for which no worker was there in time: [`Skip`](Missed::Skip) unless
    /// this is set, and [`Once`](Missed::Once) for [`at`](Self::at).
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = Some(missed);
        self
    }

    /// What becomes of a tick while the job of the tick before has not ended:
    /// [`Allow`](Overlap::Allow) unless this is set.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// The timing of a schedule that is made `now`, and its policies, all checked.
    pub(super) fn checked(self, now: Timestamp) -> Result<(Timing, Missed, Overlap)> {
        let refused = |why: String| Error::new(ErrorKind::InvalidArgument, why);
        if let Some(why) = self.invalid {
            return Err(refused(why));
        }
        let is_once = matches!(self.when, When::At(_));
        let timing = match self.when {
            When::Cron { expression, zone } => {
                Timing::Cron { expression, zone: zone.unwrap_or_else(|| UTC.to_owned()) }
            }
            When::Every(period) => {
                let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
                Timing::Every { micros, anchor: now.as_micros() }
            }
            When::At(time) => Timing::At { micros: time.as_micros() },
        };
        timing.trigger()?;
        let missed = self.missed.unwrap_or(if is_once { Missed::Once } else { Missed::Skip });
        Ok((timing, missed, self.overlap))
    }
}

impl ScheduleOptions {
    pub(super) fn schedule(&self) -> Schedule {
        let schedule = match self.when {
            ConstWhen::Cron { expression, zone } => Schedule::cron(expression).tz(zone),
            ConstWhen::EveryMs(ms) => Schedule::every(Duration::from_millis(ms)),
        };
        schedule.missed(self.missed).overlap(self.overlap)
    }
}
