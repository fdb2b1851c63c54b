//! Instants on tokio's clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// Limit of delays: far beyond any use, and within the range of tokio's timers.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The instant `span` after `now`, at most thirty years.
pub(super) fn after(now: Instant, span: Duration) -> Instant {
    now + span.min(FOREVER)
}

/// The instant of tokio's clock for `now`, which is the present.
pub(super) fn at(now: std::time::Instant) -> Instant {
    // Only tests can pause tokio's clock.
    if cfg!(feature = "testing") { Instant::now() } else { Instant::from_std(now) }
}

/// The instant of `time`, or `None` if it has passed.
pub(super) fn due(time: Timestamp) -> Option<Instant> {
    // Read before the clock below: the sum is never too early.
    let wait = time.until();
    (!wait.is_zero()).then(|| after(Instant::now(), wait))
}

/// The timestamp of a past instant.
pub(super) fn past(then: Instant) -> Timestamp {
    let ago = i64::try_from(then.elapsed().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(ago))
}
