//! Points in time on tokio's clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Timestamp;

/// Far enough for everything, and near enough for tokio's timers.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// That long after `now`, or in thirty years.
pub(super) fn after(now: Instant, span: Duration) -> Instant {
    now + span.min(FOREVER)
}

/// What tokio's clock says at that moment, which is now.
pub(super) fn at(now: std::time::Instant) -> Instant {
    // Only tests can pause tokio's clock.
    if cfg!(feature = "testing") { Instant::now() } else { Instant::from_std(now) }
}

/// When `time` comes, unless it has passed.
pub(super) fn due(time: Timestamp) -> Option<Instant> {
    // Read before the clock below, so that what is added to that is never too little.
    let wait = time.until();
    (!wait.is_zero()).then(|| after(Instant::now(), wait))
}

/// What time it was then.
pub(super) fn past(then: Instant) -> Timestamp {
    let ago = i64::try_from(then.elapsed().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(Timestamp::now().as_micros().saturating_sub(ago))
}
