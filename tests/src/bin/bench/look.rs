//! Looking at jobs and steering them, among many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aioq::bench::{QUEUE, Tally, at_once, percentile_us};
use aioq::clap::Args;
use aioq::jobs::JobFilter;
use aioq::store::{Expect, JobRecord, Retention, Status};
use aioq::{App, BoxError, Client, Exit, JobId, Result, Timestamp};
use serde::Serialize;

use crate::jobs::{Running, WAITS, app, job, wait};
use crate::place::{Place, PlaceArgs};
use crate::report::Report;

/// Number of times that each thing is done.
const TIMES: usize = 50;
/// One record in this number is of a failed job.
const RARE: usize = 1_000;
const QUEUES: usize = 10;
/// Jobs that are forgotten at once.
const CLEANED: usize = 10_000;

#[derive(Args)]
pub(crate) struct LookArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Records to look among
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(50_000..))]
    records: u64,
}

#[derive(Serialize)]
struct Line {
    work: String,
    backend: &'static str,
    records: usize,
    times: usize,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

pub(crate) async fn run(args: LookArgs, _app: App) -> Result<Exit, BoxError> {
    let (mut report, records) = (Report::default(), usize::try_from(args.records)?);
    for place in args.places.places().await? {
        eprintln!("look on {}", place.name);
        for (what, spans) in look(&place, records).await? {
            let (work, times) = (format!("look_{what}"), spans.len());
            let (p50_us, p99_us) = (percentile_us(&spans, 0.5), percentile_us(&spans, 0.99));
            report.add(&Line { work, backend: place.name, records, times, p50_us, p99_us })?;
        }
    }
    report.tables();
    Ok(Exit::Done)
}

/// Fills the store, then looks at it and steers jobs.
async fn look(place: &Place, records: usize) -> Result<Vec<(&'static str, Vec<Duration>)>> {
    let site = place.site(records + 2 * TIMES)?;
    let client = Client::connect(site.backend()).await?;
    fill(&client, records).await?;
    for queue in 0..QUEUES {
        client.kiq(job(1).queue(format!("{QUEUE}-{queue}")).delay("1h")).await?;
    }
    let jobs = client.jobs();
    let page = async |filter: JobFilter| {
        let list = jobs.list(filter, 50).await?;
        assert_eq!(list.jobs.len(), 50);
        Ok(())
    };
    let mut measured = vec![
        ("page", timed(async || page(JobFilter::new().status(Status::Completed)).await).await?),
        ("rare_page", timed(async || page(JobFilter::new().status(Status::Failed)).await).await?),
        ("page_of_all", timed(async || page(JobFilter::new()).await).await?),
        ("counts", timed(async || client.queues().stats().await.map(drop)).await?),
    ];
    let running = Running::start(app(site.backend(), &Tally::of(1)).worker().await?);
    measured.extend([("cancel", cancel(&client).await?), ("abort", abort(&client).await?)]);
    let own = running.stop().await?;
    let started = Instant::now();
    assert_eq!(jobs.clean(Status::Completed, "0s", CLEANED).await?.done.len(), CLEANED);
    measured.push(("clean", vec![started.elapsed()]));
    own.shutdown().await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(measured)
}

async fn timed(work: impl AsyncFn() -> Result<()>) -> Result<Vec<Duration>> {
    let mut spans = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let started = Instant::now();
        work().await?;
        spans.push(started.elapsed());
    }
    Ok(spans)
}

async fn fill(client: &Client, records: usize) -> Result<()> {
    let store = Arc::clone(client.backend().jobs().expect("there is a store"));
    let ttl = Some(Retention::new().span(Status::Completed));
    let put = move |number: usize| {
        let store = Arc::clone(&store);
        async move {
            let status = if number.is_multiple_of(RARE) { Status::Failed } else { Status::Completed };
            let queue = format!("{QUEUE}-{}", number % QUEUES);
            let mut record = JobRecord::unreadable(JobId::from(number.to_string()), queue, status);
            record.task = "bench.noop".into();
            record.finished_at = Some(Timestamp::now());
            store.put(Arc::new(record), Expect::Absent, ttl).await.map(drop)
        }
    };
    at_once(records, put).await.map(drop)
}

async fn cancel(client: &Client) -> Result<Vec<Duration>> {
    let mut spans = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let handle = client.kiq(job(1).delay("1h")).await?;
        let started = Instant::now();
        assert!(handle.cancel().await?);
        spans.push(started.elapsed());
    }
    Ok(spans)
}

/// From the request to the end of a body that waits.
async fn abort(client: &Client) -> Result<Vec<Duration>> {
    let mut spans = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let handle = client.kiq(wait()).await?;
        WAITS.notified().await;
        let started = Instant::now();
        assert!(handle.abort("10s").await?);
        spans.push(started.elapsed());
    }
    Ok(spans)
}
