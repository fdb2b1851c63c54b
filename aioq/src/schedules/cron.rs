//! Cron expressions: which instants one means in a time zone.
//!
//! In the hours that a time zone skips or repeats this module follows Vixie's cron. An expression
//! that begins with `*` in the field of its minutes, seconds or hours means a *rhythm*: every real
//! instant whose local time matches. Any other one means *times of day*, each once on a local day:
//! a time that the zone skips comes as the clock has been set ahead, a time that it repeats comes
//! the first time.
//!
//! `#[task]` reads expressions in the same way when it compiles
//! (`aioq-macros/src/task/options/schedule.rs`).

use std::fmt;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron as Pattern, Weekday};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp as Instant};

use super::zone;
use crate::error::{Error, ErrorKind, Result, excerpt};
use crate::time::Timestamp;

/// Longest search for the next date that matches, in days. The rarest one that comes at all, a leap
/// day with a given weekday, comes within 40 years.
const LONGEST_SEARCH: usize = 41 * 366;

/// Names for expressions.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression in a time zone.
#[derive(Clone)]
pub(crate) struct Cron {
    pattern: Pattern,
    zone: TimeZone,
    hours: Box<[i8]>,
    minutes: Box<[i8]>,
    seconds: Box<[i8]>,
    is_rhythm: bool,
}

impl Cron {
    /// Reads an expression of 5 fields, or 6 with seconds first, and the name of a time zone.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument), with what is wrong: no expression, a date
    /// that never comes, an unknown zone.
    pub(crate) fn new(expression: &str, zone: &str) -> Result<Self> {
        let refused = |why: String| {
            let why = format!("bad cron expression \"{}\": {why}", excerpt(expression));
            Error::new(ErrorKind::InvalidArgument, why)
        };
        let nickname = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(expression.trim()));
        let fields = nickname.map_or(expression, |(_, fields)| fields);
        let count = fields.split_whitespace().count();
        if !(5..=6).contains(&count) {
            return Err(refused(format!(
                "it has {count} of 5 fields (minute, hour, day, month, weekday; 6 with seconds first)"
            )));
        }
        if fields.contains('=') {
            return Err(refused("the time zone is an option of its own".to_owned()));
        }
        // Sloppy: `0/15` counts from 0 on.
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed);
        let parser = parser.sloppy_ranges(true).build();
        let pattern = parser.parse(fields).map_err(|error| refused(reason(&error)))?;
        let parts = &pattern.pattern;
        let values =
            |values: Vec<u16>| values.into_iter().filter_map(|value| i8::try_from(value).ok()).collect();
        let is_star =
            |field: usize| fields.split_whitespace().nth(field).is_some_and(|field| field.starts_with('*'));
        // Without seconds the fields begin with the minutes.
        let clock_fields = if count == 6 { 0..3 } else { 0..2 };
        let hours: Box<[i8]> = values(parts.hours.values());
        let cron = Self {
            is_rhythm: clock_fields.into_iter().any(is_star) || hours.len() == 24,
            zone: zone::find(zone)?,
            hours,
            minutes: values(parts.minutes.values()),
            seconds: values(parts.seconds.values()),
            pattern,
        };
        if !cron.can_come() {
            return Err(refused("it names a date or a time that never comes".to_owned()));
        }
        Ok(cron)
    }

    /// The first instant after `after`; `None` after the year 9999.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = Instant::from_microsecond(after.as_micros()).ok()?;
        let found = if self.is_rhythm { self.next_in_rhythm(after) } else { self.next_time_of_day(after) };
        found.map(|instant| Timestamp::from_micros(instant.as_microsecond()))
    }

    /// The first real instant after `after` whose local time matches.
    fn next_in_rhythm(&self, after: Instant) -> Option<Instant> {
        let mut local = self.zone.to_datetime(after);
        let mut at = after;
        loop {
            // From one change of the offset to the next, local time goes with real time.
            let offset = self.zone.to_offset(at);
            let change = self.zone.following(at).next().map(|change| change.timestamp());
            let found = offset.to_timestamp(self.next_local(local)?).ok()?;
            match change {
                Some(change) if found >= change => {
                    at = change;
                    // The instant of the change may itself match.
                    local = self.zone.to_datetime(change).checked_sub(Span::new().nanoseconds(1)).ok()?;
                }
                _ => return Some(found),
            }
        }
    }

    /// The instant after `after` of the first time of day that has one.
    ///
    /// A later local time never has an earlier instant, so the search begins at the local time of
    /// `after`.
    fn next_time_of_day(&self, after: Instant) -> Option<Instant> {
        let mut local = self.zone.to_datetime(after);
        loop {
            local = self.next_local(local)?;
            let found = self.instant_of(local)?;
            if found > after {
                return Some(found);
            }
        }
    }

    /// The instant of a time of day: the first of two, or the end of the gap that it is in.
    fn instant_of(&self, local: DateTime) -> Option<Instant> {
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        match ambiguous.offset() {
            AmbiguousOffset::Gap { after, .. } => {
                // With the offset after the gap, a time in it lies before the change.
                let before = after.to_timestamp(local).ok()?;
                self.zone.following(before).next().map(|change| change.timestamp())
            }
            _ => ambiguous.earlier().ok(),
        }
    }

    /// The first local time after `after` that matches.
    fn next_local(&self, after: DateTime) -> Option<DateTime> {
        let mut date = after.date();
        if self.is_day(date)
            && let Some(time) = self.next_time(after.time())
        {
            return Some(date.to_datetime(time));
        }
        let first =
            Time::new(*self.hours.first()?, *self.minutes.first()?, *self.seconds.first()?, 0).ok()?;
        for _ in 0..LONGEST_SEARCH {
            date = date.tomorrow().ok()?;
            if self.is_day(date) {
                return Some(date.to_datetime(first));
            }
        }
        None
    }

    /// The first time of day after `after` that matches.
    fn next_time(&self, after: Time) -> Option<Time> {
        let (hour, minute, second) = (after.hour(), after.minute(), after.second());
        let (&first_minute, &first_second) = (self.minutes.first()?, self.seconds.first()?);
        let later = |values: &[i8], value: i8| values.iter().copied().find(|own| *own > value);
        if self.hours.contains(&hour) {
            if self.minutes.contains(&minute)
                && let Some(second) = later(&self.seconds, second)
            {
                return Time::new(hour, minute, second, 0).ok();
            }
            if let Some(minute) = later(&self.minutes, minute) {
                return Time::new(hour, minute, first_second, 0).ok();
            }
        }
        later(&self.hours, hour).and_then(|hour| Time::new(hour, first_minute, first_second, 0).ok())
    }

    fn is_day(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        let parts = (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs());
        self.is_day_of(parts.0, parts.1.into(), parts.2.into(), weekday.unsigned_abs().into())
    }

    /// True if the day matches: its month, and its number in the month or its weekday, from 0 for
    /// Sunday.
    fn is_day_of(&self, year: i32, month: u32, day: u32, weekday: u32) -> bool {
        let pattern = &self.pattern.pattern;
        // All parts are in range, so there is no error.
        pattern.month_match(month).unwrap_or(false)
            && WEEKDAYS
                .get(weekday as usize)
                .is_some_and(|weekday| pattern.day_match(year, month, day, *weekday).unwrap_or(false))
    }

    /// True if there is a date and a time that match. Over the years, each date falls on each
    /// weekday.
    fn can_come(&self) -> bool {
        let has_times = [&self.hours, &self.minutes, &self.seconds].iter().all(|values| !values.is_empty());
        // A leap year.
        let has_day =
            |month| (1..=31).any(|day| (0..7).any(|weekday| self.is_day_of(2024, month, day, weekday)));
        has_times && (1..=12).any(has_day)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cron").field("pattern", &self.pattern.as_str()).finish_non_exhaustive()
    }
}

const WEEKDAYS: [Weekday; 7] = [
    Weekday::Sunday,
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
];

/// What is wrong with an expression, as the end of a sentence.
fn reason(error: &CronError) -> String {
    let reason = match error {
        CronError::InvalidPattern(reason)
        | CronError::IllegalCharacters(reason)
        | CronError::ComponentError(reason) => reason.clone(),
        other => other.to_string(),
    };
    let reason = reason.trim_end_matches('.');
    let mut letters = reason.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
