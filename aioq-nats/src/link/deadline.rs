//! Time limit of a request: [`Deadline`].

use std::time::Duration;

use tokio::time::Instant;

/// Point in time after which an answer is of no use, and the span that led to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) span: Duration,
}

impl Deadline {
    pub(crate) fn within(span: Duration) -> Self {
        // The system's clock may not reach farther.
        const MAX: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        Self { at: Instant::now() + span.min(MAX), span }
    }

    /// Time at which an unanswered request is sent again.
    ///
    /// A server of a cluster may have died with the request. A break of this process's own
    /// connection is noticed without that. Asking a busy server twice makes it busier, so the wait
    /// is long.
    pub(crate) fn resend_at(self) -> Instant {
        const LONGEST: Duration = Duration::from_secs(2);
        (Instant::now() + (self.span / 2).min(LONGEST)).min(self.at)
    }

    pub(crate) fn has_passed(self) -> bool {
        Instant::now() >= self.at
    }
}
