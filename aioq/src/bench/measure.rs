//! Time, processor time and memory; and work by many tasks at once.

use std::fs;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};
use crate::process::rss_bytes;

/// Tasks that kick at the same time.
const KICKERS: usize = 256;

/// The pause between two jobs when latency is measured.
const PAUSE: Duration = Duration::from_millis(10);

/// What one run of one program came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sample {
    /// Jobs that were done.
    pub jobs: usize,
    /// How long that took.
    pub took: Duration,
    /// The processor time of this process in it; `None` where the system does not tell.
    pub cpu: Option<Duration>,
    /// The memory that this process had at its end, in MiB; `None` where the system does not tell.
    pub rss_mib: Option<f64>,
    /// How long each job took, by what was measured of it.
    pub spans: Vec<(&'static str, Vec<Duration>)>,
}

impl Sample {
    /// The same with the time of each job.
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

    /// Processor time for a million jobs, in seconds; `None` if there were no jobs.
    #[must_use]
    pub fn cpu_s_per_million(&self) -> Option<f64> {
        (self.jobs > 0).then_some(self.cpu?.as_secs_f64() / self.jobs as f64 * 1e6)
    }

    /// The time in microseconds that a part of the jobs stays below, of what was measured at that
    /// place.
    #[must_use]
    pub fn percentile_us(&self, place: usize, part: f64) -> Option<f64> {
        percentile_us(&self.spans.get(place)?.1, part)
    }
}

/// Measures from its start.
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
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { cpu: cpu_time(), started: Instant::now() }
    }

    /// Stops; that many jobs were done.
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

/// Does `jobs` jobs by 256 tasks at once, each one job after the other; how long each job took.
///
/// # Errors
/// The first that a job returns; the others are dropped.
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

/// Does `jobs` jobs, one started every 10 ms; how long each took.
///
/// # Errors
/// The first that a job returns; the others are dropped.
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
            // Not before: to wake the thread that this runs on is no part of the job.
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
    Error::new(ErrorKind::Backend, "a job of the benchmark did not end").with_source(error)
}

/// The middle one; of an even number, the mean of the two in the middle.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let upper = *numbers.get(numbers.len() / 2)?;
    let lower = numbers[(numbers.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// From the least to the most, as a part of the median; `None` of a single number.
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

/// The time in microseconds that a part of all stays below.
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
