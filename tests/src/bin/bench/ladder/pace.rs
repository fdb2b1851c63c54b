//! Latencies at a given rate.

use std::time::{Duration, Instant};

use aioq::bench::{Stopwatch, Tally, at_once, percentile_us};
use aioq::{Client, Error, ErrorKind, Result};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::rung::Rung;
use crate::jobs::Running;
use crate::place::Place;

/// Jobs are kicked together once in this time.
const TICK: Duration = Duration::from_millis(1);

/// Lateness of a timer by itself.
const TIMER: Duration = Duration::from_millis(2);

/// The most jobs per second that are kicked and end, when 256 tasks each wait for one after the
/// other.
pub(super) async fn most(place: &Place, rung: Rung, jobs: usize) -> Result<f64> {
    let site = place.site(jobs)?;
    let client = rung.client(&site).await?;
    let tally = Tally::of(jobs);
    let running = Running::start(rung.worker(&site, &tally).await?);
    let (own, now) = (client.clone(), tally.clone());
    let watch = Stopwatch::start();
    at_once(jobs, move |_| rung.kick(own.clone(), now.now())).await?;
    tally.full().await;
    let sample = watch.stop(jobs);
    running.stop().await?.shutdown().await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(sample.per_second())
}

/// A rate to keep.
pub(super) struct Pace {
    jobs_per_s: f64,
    span: Duration,
}

/// Durations of the jobs.
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn p50_us(&self) -> Option<f64> {
        percentile_us(&self.0, 0.5)
    }

    pub(super) fn p99_us(&self) -> Option<f64> {
        percentile_us(&self.0, 0.99)
    }
}

impl Pace {
    /// A part of the most, for so long.
    pub(super) fn of(most: f64, part: f64, span: Duration) -> Self {
        Self { jobs_per_s: most * part, span }
    }

    /// Keeps the rate up.
    ///
    /// A job's time counts from its kick, or from soon after that was due: a rate that cannot be
    /// kept shows.
    pub(super) async fn measure(self, place: &Place, rung: Rung) -> Result<Latencies> {
        let jobs = ((self.jobs_per_s * self.span.as_secs_f64()) as usize).max(1);
        let site = place.site(jobs)?;
        let client = rung.client(&site).await?;
        let tally = Tally::with_starts(jobs);
        let running = Running::start(rung.worker(&site, &tally).await?);
        let spans = self.kick(rung, &client, &tally, jobs).await?;
        tally.full().await;
        running.stop().await?.shutdown().await?;
        client.shutdown().await?;
        site.clean().await?;
        Ok(Latencies(if rung.has_results() { spans } else { tally.starts() }))
    }

    async fn kick(&self, rung: Rung, client: &Client, tally: &Tally, jobs: usize) -> Result<Vec<Duration>> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (started, mut kicked, mut tasks) = (Instant::now(), 0, JoinSet::new());
        while kicked < jobs {
            ticks.tick().await;
            let due = ((started.elapsed().as_secs_f64() * self.jobs_per_s) as usize).min(jobs);
            for number in kicked..due {
                let at = started + Duration::from_secs_f64(number as f64 / self.jobs_per_s) + TIMER;
                let at = at.min(Instant::now());
                let late = at.elapsed().as_nanos();
                let stamp = tally.now().saturating_sub(u64::try_from(late).unwrap_or(u64::MAX));
                let client = client.clone();
                tasks.spawn(async move { rung.kick(client, stamp).await.map(|()| at.elapsed()) });
            }
            kicked = due.max(kicked);
        }
        let mut spans = Vec::with_capacity(jobs);
        while let Some(span) = tasks.join_next().await {
            spans.push(span.map_err(|error| Error::new(ErrorKind::Backend, error.to_string()))??);
        }
        Ok(spans)
    }
}
