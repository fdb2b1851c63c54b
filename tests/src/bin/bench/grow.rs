//! The cost of a job among more and more: each should cost the same.

use std::time::{Duration, Instant};

use aioq::bench::{Stopwatch, Tally};
use aioq::clap::Args;
use aioq::jobs::JobFilter;
use aioq::store::Status;
use aioq::{App, BoxError, Client, Exit, Result};
use serde::Serialize;

use crate::jobs::{app, kick_all, middle_us};
use crate::place::{Place, PlaceArgs};
use crate::report::Report;

/// Number of measured looks.
const TIMES: usize = 20;

#[derive(Args)]
pub(crate) struct GrowArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Jobs of each step, with commas between [default: 10000,100000 and in memory 1000000]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    sizes: Option<Vec<usize>>,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    jobs: usize,
    bulk_us_per_job: f64,
    drain_us_per_job: f64,
    cpu_us_per_job: Option<f64>,
    /// A page of 50 jobs that wait, among all.
    waiting_page_us: Option<f64>,
    waiting_counts_us: Option<f64>,
    /// A page of 50 jobs that have ended, among all.
    ended_page_us: Option<f64>,
    ended_counts_us: Option<f64>,
    rss_mib: Option<f64>,
}

pub(crate) async fn run(args: GrowArgs, _app: App) -> Result<Exit, BoxError> {
    let mut report = Report::default();
    for place in args.places.places().await? {
        let usual = if place.is_memory() { &[10_000, 100_000, 1_000_000][..] } else { &[10_000, 100_000] };
        for jobs in args.sizes.as_deref().unwrap_or(usual) {
            eprintln!("{jobs} jobs on {}", place.name);
            report.add(&measure(&place, *jobs).await?)?;
        }
    }
    report.tables();
    Ok(Exit::Done)
}

async fn measure(place: &Place, jobs: usize) -> Result<Line> {
    let site = place.site(jobs)?;
    let client = Client::connect(site.backend()).await?;
    let watch = Stopwatch::start();
    kick_all(&client, jobs).await?;
    let bulk = watch.stop(jobs);
    let (waiting_page_us, waiting_counts_us) = look(&client, Status::Pending).await?;
    let tally = Tally::of(jobs);
    let worker = app(site.backend(), &tally).worker().await?;
    let own = worker.client().clone();
    let watch = Stopwatch::start();
    worker.run(tally.full()).await?;
    let drain = watch.stop(jobs);
    let (ended_page_us, ended_counts_us) = look(&client, Status::Completed).await?;
    own.shutdown().await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(Line {
        work: "grow",
        backend: place.name,
        jobs,
        bulk_us_per_job: 1e6 / bulk.per_second(),
        drain_us_per_job: 1e6 / drain.per_second(),
        cpu_us_per_job: drain.cpu_s_per_million(),
        waiting_page_us,
        waiting_counts_us,
        ended_page_us,
        ended_counts_us,
        rss_mib: drain.rss_mib,
    })
}

/// Durations of a page and of the counts.
async fn look(client: &Client, status: Status) -> Result<(Option<f64>, Option<f64>)> {
    let (mut pages, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        pages.push(span(client.jobs().list(JobFilter::new().status(status), 50)).await?);
        counts.push(span(client.queues().stats()).await?);
    }
    Ok((middle_us(&pages), middle_us(&counts)))
}

async fn span<T>(work: impl Future<Output = Result<T>>) -> Result<Duration> {
    let started = Instant::now();
    work.await.map(|_| started.elapsed())
}
