//! The clock of one process: [`Clock`].

use super::Timestamp;

/// The clock by which a client or a worker stamps what it writes. It is the machine's, unless a test sets another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(feature = "testing")]
    set: Option<TestClock>,
}

impl Clock {
    /// The time now, by this clock.
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

    /// A clock that is ahead of the real one or behind it, as that of another machine may be. It can be set at any
    /// time. Clones are one clock.
    ///
    /// [`Backend::clock`](crate::Backend::clock) gives it to the clients and workers of a backend: each machine of a
    /// test opens the backend with a clock of its own. What the backend itself keeps the time by is not changed.
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
        /// Microseconds ahead of the real clock; negative ones are behind it.
        ahead: Arc<AtomicI64>,
    }

    impl TestClock {
        /// A clock that agrees with the real one.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Sets it ahead of the real clock by that much.
        pub fn set_ahead(&self, span: Duration) {
            self.ahead.store(micros(span), Ordering::SeqCst);
        }

        /// Sets it behind the real clock by that much.
        pub fn set_behind(&self, span: Duration) {
            self.ahead.store(-micros(span), Ordering::SeqCst);
        }

        /// The time that it shows.
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
