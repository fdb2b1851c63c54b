//! The rate at which jobs end.

use std::time::Duration;

use tokio::time::Instant;

/// Span of work to hold ready.
const PREFETCH_SPAN: Duration = Duration::from_millis(50);

/// Measures the rate at which jobs end, to fetch ahead what is soon started.
pub(super) struct JobRate {
    /// Begin of the current measurement, and the jobs that had ended by then.
    since: Instant,
    ended: u64,
    /// Length of the current measurement.
    span: Duration,
    taken: u64,
    per_second: f64,
}

impl Default for JobRate {
    fn default() -> Self {
        Self { since: Instant::now(), ended: 0, span: Self::FIRST, taken: 0, per_second: 0.0 }
    }
}

impl JobRate {
    /// Length of the first measurement, and of the first one after a rest. It doubles each time. So
    /// the rate of short jobs is known soon, and long jobs that begin and end together do not look
    /// short.
    const FIRST: Duration = Duration::from_millis(5);
    /// The longest measurement.
    const LAST: Duration = Duration::from_millis(100);

    /// Counts jobs that were fetched.
    pub(super) fn took(&mut self, jobs: usize) {
        self.taken += jobs as u64;
    }

    /// Counts jobs that were given back unstarted.
    pub(super) fn gave_back(&mut self, jobs: usize) {
        self.taken = self.taken.saturating_sub(jobs as u64);
    }

    /// Number of jobs to hold ready: as many as end in [`PREFETCH_SPAN`] at the current rate.
    /// `open` is the number of fetched jobs that have not ended.
    pub(super) fn prefetch(&mut self, open: usize, max: usize) -> usize {
        let now = Instant::now();
        let span = now - self.since;
        if span >= self.span {
            let all = self.taken.saturating_sub(open as u64);
            let ended = all.saturating_sub(self.ended);
            self.per_second = ended as f64 / span.as_secs_f64();
            self.span = if ended == 0 && open == 0 { Self::FIRST } else { (self.span * 2).min(Self::LAST) };
            (self.since, self.ended) = (now, all);
        }
        ((self.per_second * PREFETCH_SPAN.as_secs_f64()) as usize).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 512;

    /// Lets so much time pass, and then so many jobs be taken, of which some are still open.
    async fn after(rate: &mut JobRate, ms: u64, taken: usize, open: usize) -> usize {
        tokio::time::advance(Duration::from_millis(ms)).await;
        rate.took(taken);
        rate.prefetch(open, MAX)
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_of_short_jobs_is_known_after_a_few_milliseconds() {
        let mut rate = JobRate::default();
        assert_eq!(after(&mut rate, 1, 100, 100).await, 0);
        assert_eq!(after(&mut rate, 5, 400, 100).await, MAX);
        // So it is after a rest.
        assert_eq!(after(&mut rate, 5_000, 0, 0).await, 1);
        assert_eq!(after(&mut rate, 5_000, 0, 0).await, 0);
        assert_eq!(after(&mut rate, 5, 500, 0).await, MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_back_has_not_ended() {
        let mut rate = JobRate::default();
        assert_eq!(after(&mut rate, 5, 500, 500).await, 0);
        rate.gave_back(400);
        assert_eq!(after(&mut rate, 10, 0, 100).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn long_jobs_that_end_together_are_not_taken_for_short_ones() {
        let mut rate = JobRate::default();
        let mut most = 0;
        // A hundred at once, each of 100 ms: the half of them is 50 ms of work.
        for time in 1..2_000 {
            let taken = if time % 100 == 1 { 100 } else { 0 };
            most = most.max(after(&mut rate, 1, taken, 100).await);
        }
        assert!((50..=100).contains(&most), "{most}");
    }
}
