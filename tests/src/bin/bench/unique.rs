//! Kicks of unique jobs beside plain ones, and the memory of held keys.

use std::time::{Duration, Instant};

use aioq::bench::{Stopwatch, TEXT, Tally};
use aioq::clap::Args;
use aioq::tasks::{Call, Task};
use aioq::{App, BoxError, Client, Exit, Result, task};
use serde::Serialize;

use crate::jobs::{app, job, middle_us, noop};
use crate::place::{Place, PlaceArgs};
use crate::report::Report;

/// Number of kicks that are timed one by one.
const TIMES: usize = 500;

#[derive(Args)]
pub(crate) struct UniqueArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Jobs that wait, each with a key of its own
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// Jobs that a worker runs, plain and unique
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    /// Jobs that waited, each with a key of its own, when kicks were timed.
    held: usize,
    plain_kick_us: Option<f64>,
    /// A kick that takes a free key.
    unique_kick_us: Option<f64>,
    /// A kick whose key is held by a job that waits.
    refused_kick_us: Option<f64>,
    /// In bulk.
    plain_kicks_per_s: f64,
    unique_kicks_per_s: f64,
    plain_drain_per_s: f64,
    unique_drain_per_s: f64,
    /// A waiting job, by the memory of what keeps it.
    plain_bytes_per_job: Option<f64>,
    /// A waiting unique job with its key.
    unique_bytes_per_job: Option<f64>,
}

/// As `noop`, once for each number.
#[task(name = "bench.unique", queue = "bench", unique(by = number))]
async fn once(number: u64, text: &str, #[inject] tally: &Tally) {
    noop::call(number, text, tally).await;
}

fn unique_job(number: usize) -> Call<once> {
    once(number as u64, TEXT)
}

pub(crate) async fn run(args: UniqueArgs, _app: App) -> Result<Exit, BoxError> {
    let (jobs, runs) = (usize::try_from(args.jobs)?, usize::try_from(args.runs)?);
    let mut report = Report::default();
    for place in args.places.places().await? {
        eprintln!("{jobs} jobs on {}", place.name);
        report.add(&measure(&place, jobs, runs).await?)?;
    }
    report.tables();
    Ok(Exit::Done)
}

async fn measure(place: &Place, jobs: usize, runs: usize) -> Result<Line> {
    let plain_drain_per_s = drain(place, runs, job).await?;
    let unique_drain_per_s = drain(place, runs, unique_job).await?;
    let site = place.site(jobs)?;
    let client = Client::connect(site.backend()).await?;
    let plain = held(place, &client, jobs, job).await?;
    let plain_kick_us = kicks(&client, jobs, job).await?;
    let unique = held(place, &client, jobs, unique_job).await?;
    let unique_kick_us = kicks(&client, jobs, unique_job).await?;
    let refused_kick_us = kicks(&client, 0, unique_job).await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(Line {
        work: "unique",
        backend: place.name,
        held: jobs,
        plain_kick_us,
        unique_kick_us,
        refused_kick_us,
        plain_kicks_per_s: plain.kicks_per_s,
        unique_kicks_per_s: unique.kicks_per_s,
        plain_drain_per_s,
        unique_drain_per_s,
        plain_bytes_per_job: plain.bytes_per_job,
        unique_bytes_per_job: unique.bytes_per_job,
    })
}

/// Jobs that wait.
struct Held {
    kicks_per_s: f64,
    bytes_per_job: Option<f64>,
}

/// Kicks jobs in bulk, which stay.
async fn held<T: Task>(
    place: &Place,
    client: &Client,
    jobs: usize,
    job: impl Fn(usize) -> Call<T>,
) -> Result<Held> {
    let before = place.rss_bytes();
    let watch = Stopwatch::start();
    for kicked in client.kiq_all((0..jobs).map(job)).await {
        kicked?;
    }
    let kicks_per_s = watch.stop(jobs).per_second();
    let bytes = place.rss_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(Held { kicks_per_s, bytes_per_job: bytes.map(|bytes| bytes as f64 / jobs as f64) })
}

/// Middle duration of a kick, one after the other, of jobs from number `first` on.
async fn kicks<T: Task>(
    client: &Client,
    first: usize,
    job: impl Fn(usize) -> Call<T>,
) -> Result<Option<f64>> {
    let mut spans: Vec<Duration> = Vec::with_capacity(TIMES);
    for number in first..first + TIMES {
        let started = Instant::now();
        client.kiq(job(number)).await?;
        spans.push(started.elapsed());
    }
    Ok(middle_us(&spans))
}

/// Jobs that one worker runs in a second.
async fn drain<T: Task>(place: &Place, jobs: usize, job: impl Fn(usize) -> Call<T>) -> Result<f64> {
    let site = place.site(jobs)?;

    let tally = Tally::of(jobs);
    let worker = app(site.backend(), &tally).worker().await?;
    let client = worker.client().clone();
    for kicked in client.kiq_all((0..jobs).map(job)).await {
        kicked?;
    }
    let watch = Stopwatch::start();
    worker.run(tally.full()).await?;
    let drained = watch.stop(jobs);
    client.shutdown().await?;
    site.clean().await?;
    Ok(drained.per_second())
}
