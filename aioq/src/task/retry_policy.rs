//! Number and delays of the retries of a failed job.

use std::time::Duration;

use crate::error::TaskError;
use crate::time::MAX_SPAN;

/// Number and delays of the retries of a failed job.
///
/// ```
/// use aioq::tasks::RetryPolicy;
/// use aioq::TaskError;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::new(3).exponential_ms(1_000, 3_000);
/// let error = TaskError::new("no answer");
/// let waits: Vec<_> = (1..=4).map(|attempt| policy.delay(attempt, &error)).collect();
/// let seconds = |s| Some(Duration::from_secs(s));
/// assert_eq!(waits, [seconds(1), seconds(2), seconds(3), None]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    pub(crate) max: u32,
    pub(crate) backoff: Backoff,
    pub(crate) jitter: bool,
    pub(crate) retry_for: Option<Duration>,
}

/// Delay after the n-th failure.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Backoff {
    /// The same delay each time.
    Fixed(Duration),
    /// n times `step`, at most `cap`.
    Linear {
        /// The first delay.
        step: Duration,
        /// The longest delay.
        cap: Duration,
    },
    /// `first`, then double each time, at most `cap`.
    Exponential {
        /// The first delay.
        first: Duration,
        /// The longest delay.
        cap: Duration,
    },
    /// The result of a function of the failed attempt (from 1) and its error; `None` gives up.
    Custom(fn(u32, &TaskError) -> Option<Duration>),
}

impl RetryPolicy {
    /// Up to `max` retries after the first run, waiting 1 s, 2 s, 4 s and so on up to 5 min.
    #[must_use]
    pub const fn new(max: u32) -> Self {
        let backoff = Backoff::Exponential { first: Duration::from_secs(1), cap: Duration::from_secs(300) };
        Self { max, backoff, jitter: false, retry_for: None }
    }

    /// No retries.
    #[must_use]
    pub const fn never() -> Self {
        Self::new(0)
    }

    /// Waits the same number of milliseconds each time.
    #[must_use]
    pub const fn fixed_ms(mut self, ms: u64) -> Self {
        self.backoff = Backoff::Fixed(Duration::from_millis(ms));
        self
    }

    /// Waits `step` milliseconds longer each time, up to `cap`.
    #[must_use]
    pub const fn linear_ms(mut self, step: u64, cap: u64) -> Self {
        self.backoff = Backoff::Linear { step: Duration::from_millis(step), cap: Duration::from_millis(cap) };
        self
    }

    /// Waits `first` milliseconds, then twice as long each time, up to `cap`.
    #[must_use]
    pub const fn exponential_ms(mut self, first: u64, cap: u64) -> Self {
        self.backoff =
            Backoff::Exponential { first: Duration::from_millis(first), cap: Duration::from_millis(cap) };
        self
    }

    /// Waits for the result of `delay`, a function of the failed attempt (from 1) and its error;
    /// `None` gives up.
    #[must_use]
    pub const fn custom(mut self, delay: fn(u32, &TaskError) -> Option<Duration>) -> Self {
        self.backoff = Backoff::Custom(delay);
        self
    }

    /// Waits a random part of the delay, so that jobs that failed together do not retry together
    /// ("full jitter").
    #[must_use]
    pub const fn jitter(mut self) -> Self {
        self.jitter = true;
        self
    }

    /// Gives up `ms` milliseconds after the first failure, even if retries are left: a retry that
    /// would start later is dropped. The time before the first run does not count.
    #[must_use]
    pub const fn retry_for_ms(mut self, ms: u64) -> Self {
        self.retry_for = Some(Duration::from_millis(ms));
        self
    }

    /// Delay after this failed attempt (from 1), at most [`MAX_SPAN`]; `None` if no retries are
    /// left.
    #[must_use]
    pub fn delay(&self, attempt: u32, error: &TaskError) -> Option<Duration> {
        if attempt > self.max {
            return None;
        }
        let delay = self.backoff.delay(attempt, error)?.min(MAX_SPAN);
        Some(if self.jitter { delay.mul_f64(fastrand::f64()) } else { delay })
    }
}

impl Backoff {
    fn delay(self, attempt: u32, error: &TaskError) -> Option<Duration> {
        match self {
            Self::Fixed(delay) => Some(delay),
            Self::Linear { step, cap } => Some(step.saturating_mul(attempt).min(cap)),
            Self::Exponential { first, cap } => {
                let factor = 2u32.saturating_pow(attempt.saturating_sub(1));
                Some(first.saturating_mul(factor).min(cap))
            }
            Self::Custom(delay) => delay(attempt, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(policy: RetryPolicy, attempts: u32) -> Vec<Option<u64>> {
        let error = TaskError::new("no");
        let ms = |delay: Duration| u64::try_from(delay.as_millis()).unwrap();
        (1..=attempts).map(|attempt| policy.delay(attempt, &error).map(ms)).collect()
    }

    #[test]
    fn max_counts_retries_after_the_first_run() {
        assert_eq!(waits(RetryPolicy::new(2).fixed_ms(10), 3), [Some(10), Some(10), None]);
        assert_eq!(waits(RetryPolicy::never(), 1), [None]);
    }

    #[test]
    fn linear_backoff_grows_by_its_step_up_to_its_cap() {
        assert_eq!(waits(RetryPolicy::new(3).linear_ms(10, 25), 3), [Some(10), Some(20), Some(25)]);
    }

    #[test]
    fn exponential_backoff_doubles_up_to_its_cap_however_many_attempts() {
        let policy = RetryPolicy::new(u32::MAX).exponential_ms(10, 35);
        assert_eq!(waits(policy, 4), [Some(10), Some(20), Some(35), Some(35)]);
        assert_eq!(policy.delay(u32::MAX, &TaskError::new("no")), Some(Duration::from_millis(35)));
    }

    #[test]
    fn no_policy_waits_longer_than_the_limit() {
        fn for_ever(_: u32, _: &TaskError) -> Option<Duration> {
            Some(Duration::MAX)
        }
        let policy = RetryPolicy::new(u32::MAX);
        for policy in [
            policy.fixed_ms(u64::MAX),
            policy.linear_ms(u64::MAX, u64::MAX),
            policy.exponential_ms(u64::MAX, u64::MAX),
            policy.custom(for_ever),
        ] {
            assert_eq!(policy.delay(7, &TaskError::new("no")), Some(MAX_SPAN));
            assert!(policy.jitter().delay(7, &TaskError::new("no")).unwrap() <= MAX_SPAN);
        }
    }

    #[test]
    fn jitter_stays_below_the_backoff_and_varies() {
        let policy = RetryPolicy::new(200).fixed_ms(1000).jitter();
        let waits = waits(policy, 200);
        assert!(waits.iter().all(|wait| wait.unwrap() <= 1000));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }

    #[test]
    fn a_custom_policy_sees_the_attempt_and_the_error_and_may_give_up() {
        fn unless_fatal(attempt: u32, error: &TaskError) -> Option<Duration> {
            (error.to_string() != "hopeless").then_some(Duration::from_secs(attempt.into()))
        }
        let policy = RetryPolicy::new(9).custom(unless_fatal);
        assert_eq!(policy.delay(2, &TaskError::new("later")), Some(Duration::from_secs(2)));
        assert_eq!(policy.delay(2, &TaskError::new("hopeless")), None);
    }
}
