//! Timestamps and durations, and their text forms.

mod clock;

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

pub(crate) use self::clock::Clock;
#[cfg(feature = "testing")]
pub use self::clock::TestClock;
use crate::error::{Error, ErrorKind, Result};

/// Limit of every delay, timeout, TTL, retention and wait: a hundred years of 365.25 days.
///
/// A longer span in a call, a flag or an attribute is refused with
/// [`InvalidArgument`](ErrorKind::InvalidArgument). A longer computed span, such as the delay of a
/// retry policy or of a snooze, is cut to the limit. NATS counts nanoseconds in 64 bits, which end
/// in the year 2262: a message that is delayed beyond it would be delivered at once, again and
/// again.
// Equals `MAX_MILLIS` in `duration.rs` of the macros.
pub const MAX_SPAN: Duration = Duration::from_secs(100 * 31_557_600);

/// Longest time ahead that an `Instant` can hold on every system: thirty years.
const FAR: Duration = Duration::from_secs(30 * 31_557_600);

/// The instant `span` after now, at most thirty years: a larger sum may overflow the system's
/// clock.
pub(crate) fn from_now(span: Duration) -> Instant {
    Instant::now() + span.min(FAR)
}

/// Refuses a span beyond the limit. `what` names it in the error.
pub(crate) fn check_span(what: &str, span: Duration) -> Result<Duration> {
    if span > MAX_SPAN {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("{what} is longer than {LIMIT}")));
    }
    Ok(span)
}

/// Refuses a time too far ahead of `now`. `what` names it in the error.
pub(crate) fn check_time(what: &str, time: Timestamp, now: Timestamp) -> Result<Timestamp> {
    if time.since(now) > MAX_SPAN {
        let message = format!("{what} is {time}, which is more than {LIMIT} ahead");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(time)
}

/// [`MAX_SPAN`] in words.
const LIMIT: &str = "the limit of 100 years";

/// A point in time with microsecond precision. Its text form is RFC 3339 in UTC.
///
/// Inside a tokio runtime whose clock is paused (feature `testing`), [`Timestamp::now`] follows
/// that clock.
///
/// ```
/// use aioq::Timestamp;
/// use std::time::Duration;
///
/// let noon: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
/// assert_eq!((noon + Duration::from_millis(1500)).to_string(), "2026-03-01T12:00:01.5Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

/// Bias of the Unix epoch. Stored as `micros + EPOCH`: unsigned order is time order, and 0 stays
/// free for `Option`.
const EPOCH: u64 = 1 << 63;

impl Timestamp {
    /// The time now.
    #[must_use]
    pub fn now() -> Self {
        #[cfg(feature = "testing")]
        if let Some(virtual_now) = Self::by_paused_clock() {
            return virtual_now;
        }
        SystemTime::now().into()
    }

    /// The time of tokio's clock, if a test has paused it.
    #[cfg(feature = "testing")]
    fn by_paused_clock() -> Option<Self> {
        use std::sync::OnceLock;
        use std::time::Instant;

        static ANCHOR: OnceLock<(Timestamp, Instant)> = OnceLock::new();
        let (before, tokio, after) = (Instant::now(), tokio::time::Instant::now().into_std(), Instant::now());
        if (before..=after).contains(&tokio) {
            return None;
        }
        // One anchor for the process, so that virtual times differ by exactly what the test
        // advanced.
        let (time, instant) = *ANCHOR.get_or_init(|| (SystemTime::now().into(), before));
        let (ahead, behind) =
            (tokio.saturating_duration_since(instant), instant.saturating_duration_since(tokio));
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Some(Self::from_micros(time.as_micros().saturating_add(micros(ahead)).saturating_sub(micros(behind))))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0.get().wrapping_add(EPOCH).cast_signed()
    }

    /// The time `micros` microseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        match NonZeroU64::new(micros.cast_unsigned().wrapping_sub(EPOCH)) {
            Some(micros) => Self(micros),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(
            u64::try_from(self.as_micros().saturating_sub(earlier.as_micros())).unwrap_or(0),
        )
    }

    /// The time from now to `self`; zero if it has passed. Rounded up, so that a wait of that
    /// length is enough.
    #[must_use]
    pub fn until(self) -> Duration {
        match self.since(Self::now()) {
            Duration::ZERO => Duration::ZERO,
            left => left + Duration::from_micros(1),
        }
    }

    fn to_jiff(self) -> jiff::Timestamp {
        let range = (jiff::Timestamp::MIN.as_microsecond(), jiff::Timestamp::MAX.as_microsecond());
        jiff::Timestamp::from_microsecond(self.as_micros().clamp(range.0, range.1)).unwrap_or_default()
    }
}

/// True if a test has paused tokio's clock: it stands still while the real one goes on.
#[cfg(feature = "testing")]
pub(crate) fn clock_is_paused() -> bool {
    use std::time::Instant;

    let (virtual_now, real) = (tokio::time::Instant::now(), Instant::now());
    while Instant::now() == real {}
    tokio::time::Instant::now() == virtual_now
}

/// Only tests pause the clock.
#[cfg(not(feature = "testing"))]
pub(crate) fn clock_is_paused() -> bool {
    false
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self::from_micros(
            self.as_micros().saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)),
        )
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_micros(micros(after)),
            Err(before) => Self::from_micros(-micros(before.duration())),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed: Result<jiff::Timestamp, _> = text.parse();
        parsed.map(|time| Self::from_micros(time.as_microsecond())).map_err(|error| {
            let message = format!("invalid timestamp `{text}`, expected RFC 3339 like 2026-03-01T12:00:00Z");
            Error::new(ErrorKind::InvalidArgument, message).with_source(error)
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_jiff().fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A span of time: a [`Duration`], or text like `"250ms"`, `"5s"`, `"1h 30m"`, `"2d"`.
pub trait IntoDuration {
    /// The span.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for text that is not a duration.
    fn into_duration(self) -> Result<Duration>;
}

impl IntoDuration for Duration {
    fn into_duration(self) -> Result<Duration> {
        Ok(self)
    }
}

impl IntoDuration for &str {
    fn into_duration(self) -> Result<Duration> {
        read_duration(self)
    }
}

/// Parses a duration: `250ms`, `5s`, `10m`, `1h`, `2d`, or several combined (`1h 30m`).
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for any other text, a bare number included, and for more than
/// [`MAX_SPAN`].
pub fn parse_duration(text: &str) -> Result<Duration> {
    read_duration(text).and_then(|span| check_span(&format!("`{text}`"), span))
}

fn read_duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text).map_err(|error| {
        let message =
            format!("invalid duration `{text}`, expected something like 250ms, 5s, 10m, 1h or 2d ({error})");
        Error::new(ErrorKind::InvalidArgument, message)
    })
}

/// A point in time: a [`Timestamp`], a [`SystemTime`], or RFC 3339 text.
pub trait IntoTimestamp {
    /// The point in time.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for text that is not a timestamp.
    fn into_timestamp(self) -> Result<Timestamp>;
}

impl IntoTimestamp for Timestamp {
    fn into_timestamp(self) -> Result<Timestamp> {
        Ok(self)
    }
}

impl IntoTimestamp for SystemTime {
    fn into_timestamp(self) -> Result<Timestamp> {
        Ok(self.into())
    }
}

impl IntoTimestamp for &str {
    fn into_timestamp(self) -> Result<Timestamp> {
        self.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("1h 30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("2d").unwrap(), Duration::from_secs(172_800));
        assert_eq!(parse_duration("5").unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(parse_duration("").unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(parse_duration("99999999999999999d").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_hundred_years_are_the_limit_and_not_beyond_it() {
        assert_eq!(parse_duration("100y").unwrap(), MAX_SPAN);
        let error = parse_duration("100y 1ns").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("100 years"), "{error}");
        let now = Timestamp::now();
        assert!(check_time("run_at", now + MAX_SPAN, now).is_ok());
        for far in [now + MAX_SPAN + Duration::from_micros(1), Timestamp::from_micros(i64::MAX)] {
            assert_eq!(check_time("run_at", far, now).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(
            check_time("run_at", Timestamp::from_micros(i64::MIN), now).unwrap().as_micros(),
            i64::MIN + 1
        );
    }

    #[test]
    fn no_instant_is_too_far_ahead() {
        assert!(from_now(Duration::MAX) > Instant::now());
    }

    #[test]
    fn timestamps_round_trip_through_text() {
        let time = Timestamp::from_micros(1_772_366_400_123_456);
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert_eq!(
            Timestamp::from_micros(i64::MAX).to_string().parse::<Timestamp>().unwrap().to_string(),
            Timestamp::from_micros(i64::MAX).to_string()
        );
    }

    #[test]
    fn a_time_in_the_past_is_no_time_away() {
        assert_eq!(Timestamp::from_micros(0).until(), Duration::ZERO);
    }
}
