//! The clock of one process: [`Clock`].

use super::Timestamp;

/// The clock that a client or a worker reads for the times it writes: the system's, unless a test
/// sets another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(feature = "testing")]
    set: Option<TestClock>,
}

impl Clock {
    /// The time by this clock.
    pub(crate) fn now(&self) -> Timestamp {
        #[cfg(feature = "testing")]
        if let Some(clock) = &self.set {
            return clock.now();
        }
        Timestamp::now()
    }
}

#[cfg(feature = "testing")]
pub use self::test::TestClock;

#[cfg(feature = "testing")]
mod test {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use super::{Clock, Timestamp};

    /// A clock that a test sets ahead of the real one or behind it, like the clock of another
    /// machine.
    ///
    /// Clones share one setting. [`Backend::clock`](crate::Backend::clock) gives the clock to the
    /// clients and workers of a backend, so each simulated machine opens the backend with a clock
    /// of its own. The backend's own timekeeping is not affected.
    ///
    /// ```
    /// use aioq::testing::TestClock;
    /// use aioq::{Backend, Memory, Timestamp};
    /// use std::time::Duration;
    ///
    /// let clock = TestClock::new();
    /// let late = Backend::from(Memory::new()).clock(&clock);
    /// clock.set_behind(Duration::from_secs(120));
    /// assert!(clock.now() < Timestamp::now());
    /// # drop(late);
    /// ```
    #[derive(Clone, Debug, Default)]
    pub struct TestClock {
        /// Microseconds ahead of the real clock; negative if behind.
        ahead: Arc<AtomicI64>,
    }

    impl TestClock {
        /// A clock that agrees with the real one.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Sets the clock ahead of the real one by `span`.
        pub fn set_ahead(&self, span: Duration) {
            self.ahead.store(micros(span), Ordering::SeqCst);
        }

        /// Sets the clock behind the real one by `span`.
        pub fn set_behind(&self, span: Duration) {
            self.ahead.store(-micros(span), Ordering::SeqCst);
        }

        /// The time by this clock.
        #[must_use]
        pub fn now(&self) -> Timestamp {
            let ahead = self.ahead.load(Ordering::SeqCst);
            Timestamp::from_micros(Timestamp::now().as_micros().saturating_add(ahead))
        }
    }

    fn micros(span: Duration) -> i64 {
        i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
    }

    impl From<&TestClock> for Clock {
        fn from(clock: &TestClock) -> Self {
            Self { set: Some(clock.clone()) }
        }
    }
}
