//! Measurements of time, processor time and memory; work by many Tokio tasks at once.

use std::fs;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};
use crate::process::rss_bytes;

/// Number of Tokio tasks that kick at the same time.
const KICKERS: usize = 256;

/// Interval between two jobs when latency is measured.
const PAUSE: Duration = Duration::from_millis(10);

/// Measurement of one run of one program.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sample {
    /// Number of jobs that were done.
    pub jobs: usize,
    /// Time that the jobs took.
    pub took: Duration,
    /// Processor time of this process in that time; `None` if the system does not report it.
    pub cpu: Option<Duration>,
    /// Resident memory of this process at the end, in MiB; `None` if the system does not report it.
    pub rss_mib: Option<f64>,
    /// Time of each job, by the name of the measured part.
    pub spans: Vec<(&'static str, Vec<Duration>)>,
}

impl Sample {
    /// Adds the time of each job, under the name of the measured part.
    #[must_use]
    pub fn with(mut self, what: &'static str, spans: Vec<Duration>) -> Self {
        self.spans.push((what, spans));
        self
    }

    /// Jobs per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.jobs as f64 / self.took.as_secs_f64()
    }

    /// Processor time for a million jobs, in seconds; `None` without jobs.
    #[must_use]
    pub fn cpu_s_per_million(&self) -> Option<f64> {
        (self.jobs > 0).then_some(self.cpu?.as_secs_f64() / self.jobs as f64 * 1e6)
    }

    /// Percentile in microseconds of the measured part at index `place`; `part` is 0.5 for the
    /// median.
    #[must_use]
    pub fn percentile_us(&self, place: usize, part: f64) -> Option<f64> {
        percentile_us(&self.spans.get(place)?.1, part)
    }
}

/// Measures time and processor time from its start.
///
/// ```
/// let watch = aioq::bench::Stopwatch::start();
/// assert_eq!(watch.stop(7).jobs, 7);
/// ```
#[derive(Debug)]
pub struct Stopwatch {
    started: Instant,
    cpu: Option<Duration>,
}

impl Stopwatch {
    /// Starts a measurement.
    #[must_use]
    pub fn start() -> Self {
        Self { cpu: cpu_time(), started: Instant::now() }
    }

    /// Ends the measurement of `jobs` jobs.
    #[must_use]
    pub fn stop(self, jobs: usize) -> Sample {
        let took = self.started.elapsed();
        let cpu = cpu_time().zip(self.cpu).map(|(now, then)| now.saturating_sub(then));
        let rss_mib = rss_bytes().map(|bytes| bytes as f64 / f64::from(1 << 20));
        Sample { jobs, took, cpu, rss_mib, spans: Vec::new() }
    }
}

/// Processor time of this process so far, in steps of 10 ms; `None` if the kernel does not report
/// it.
fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name of the program in brackets. It may contain spaces and brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux counts in hundredths of a second, on every architecture.
    Some(Duration::from_millis((user + system) * 10))
}

/// Does `jobs` jobs in 256 Tokio tasks at once, each of which does one job after another. Returns
/// the time of each job.
///
/// # Errors
/// The first error of a job. The other jobs are aborted.
pub async fn at_once<F, R>(jobs: usize, job: F) -> Result<Vec<Duration>>
where
    F: Fn(usize) -> R + Clone + Send + 'static,
    R: Future<Output = Result<()>> + Send,
{
    let mut tasks = JoinSet::new();
    for task in 0..KICKERS.min(jobs) {
        let job = job.clone();
        tasks.spawn(async move {
            let mut spans = Vec::with_capacity(jobs / KICKERS + 1);
            for number in (task..jobs).step_by(KICKERS) {
                let started = Instant::now();
                job(number).await?;
                spans.push(started.elapsed());
            }
            Ok(spans)
        });
    }
    let mut all = Vec::with_capacity(jobs);
    while let Some(spans) = tasks.join_next().await {
        all.extend(spans.map_err(stopped)??);
    }
    Ok(all)
}

/// Does `jobs` jobs and starts one every 10 ms. Returns the time of each job.
///
/// # Errors
/// The first error of a job. The other jobs are aborted.
pub async fn steadily<F, R>(jobs: usize, job: F) -> Result<Vec<Duration>>
where
    F: Fn(usize) -> R,
    R: Future<Output = Result<()>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(PAUSE);
    let mut tasks = JoinSet::new();
    for number in 0..jobs {
        ticks.tick().await;
        let job = job(number);
        tasks.spawn(async move {
            // Measured from here: waking this thread is not part of the job.
            let started = Instant::now();
            job.await.map(|()| started.elapsed())
        });
    }
    let mut spans = Vec::with_capacity(jobs);
    while let Some(span) = tasks.join_next().await {
        spans.push(span.map_err(stopped)??);
    }
    Ok(spans)
}

fn stopped(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Backend, "a task of the benchmark panicked or was aborted").with_source(error)
}

/// Median; of an even number of values, the mean of the two in the middle.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let upper = *numbers.get(numbers.len() / 2)?;
    let lower = numbers[(numbers.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// Difference of the largest and the smallest number, as a fraction of the median; `None` for fewer
/// than two numbers.
#[must_use]
pub fn spread(numbers: &[f64]) -> Option<f64> {
    if numbers.len() < 2 {
        return None;
    }
    let median = median(numbers.to_vec())?;
    let most = numbers.iter().copied().max_by(f64::total_cmp)?;
    let least = numbers.iter().copied().min_by(f64::total_cmp)?;
    Some((most - least) / median)
}

/// Percentile in microseconds; `part` is 0.5 for the median.
#[must_use]
pub fn percentile_us(spans: &[Duration], part: f64) -> Option<f64> {
    let mut spans = spans.to_vec();
    spans.sort_unstable();
    let index = ((spans.len() as f64 * part) as usize).min(spans.len().checked_sub(1)?);
    Some(spans[index].as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads_are_of_the_sorted_numbers() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(1.0));
        assert_eq!(spread(&[3.0]), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_numbers() {
        let spans: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(percentile_us(&spans, 0.5).map(f64::round), Some(51.0));
        assert_eq!(percentile_us(&spans, 0.99).map(f64::round), Some(100.0));
        assert_eq!(percentile_us(&[], 0.5), None);
    }
}
