//! Jobs that wait for others: how soon a child follows its parent, many children of one job, many
//! parents of one.

use std::time::{Duration, Instant};

use aioq::bench::{Stopwatch, Tally, percentile_us};
use aioq::clap::Args;
use aioq::flow::join;
use aioq::{App, BoxError, Client, Exit, JobId, Result, TaskHandle, Timestamp, task};
use serde::Serialize;

use crate::jobs::{app, job};
use crate::place::{Place, PlaceArgs};
use crate::report::Report;

/// Delay of the parent that ends last.
const LAST_AFTER: Duration = Duration::from_secs(8);

#[derive(Args)]
pub(crate) struct FlowArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Jobs of a chain
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..))]
    links: u64,
    /// Children of one job
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    children: u64,
    /// Parents of one job, whose results it takes
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    parents: u64,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    /// From the end of a parent to the start of its only child.
    link_p50_us: Option<f64>,
    link_p99_us: Option<f64>,
    children: usize,
    children_kicked_per_s: f64,
    /// From the start of the worker, which begins with the parent, to the last end.
    children_run_per_s: f64,
    /// Memory of the process of client and worker.
    children_rss_mib: Option<f64>,
    parents: usize,
    parents_kicked_per_s: f64,
    parents_run_per_s: f64,
    /// From the last end of a parent to the start of the child.
    join_released_ms: f64,
}

#[task(name = "bench.link", queue = "bench")]
async fn link(number: u64) -> u64 {
    number + 1
}

#[task(name = "bench.total", queue = "bench")]
async fn total(numbers: Vec<u64>) -> u64 {
    numbers.iter().sum()
}

pub(crate) async fn run(args: FlowArgs, _app: App) -> Result<Exit, BoxError> {
    let mut report = Report::default();
    for place in args.places.places().await? {
        eprintln!("flows on {}", place.name);
        report.add(&measure(&place, &args).await?)?;
    }
    report.tables();
    Ok(Exit::Done)
}

async fn measure(place: &Place, args: &FlowArgs) -> Result<Line, BoxError> {
    let gaps = chain(place, usize::try_from(args.links)?).await?;
    let fan_out = fan_out(place, usize::try_from(args.children)?).await?;
    let fan_in = fan_in(place, args.parents).await?;
    Ok(Line {
        work: "flow",
        backend: place.name,
        link_p50_us: percentile_us(&gaps, 0.5),
        link_p99_us: percentile_us(&gaps, 0.99),
        children: usize::try_from(args.children)?,
        children_kicked_per_s: fan_out.kicked_per_s,
        children_run_per_s: fan_out.run_per_s,
        children_rss_mib: fan_out.rss_mib,
        parents: usize::try_from(args.parents)?,
        parents_kicked_per_s: fan_in.kicked_per_s,
        parents_run_per_s: fan_in.run_per_s,
        join_released_ms: fan_in.released.as_secs_f64() * 1e3,
    })
}

/// A worker, and its client.
async fn running(place: &Place, jobs: usize, tally: &Tally) -> Result<Bed, BoxError> {
    let site = place.site(2 * jobs)?;
    let worker = app(site.backend(), tally).worker().await?;
    let client = worker.client().clone();
    Ok(Bed { site, worker, client })
}

struct Bed {
    site: crate::place::Site,
    worker: aioq::Worker,
    client: Client,
}

/// Times between the end of each job of a chain and the start of the next one.
async fn chain(place: &Place, links: usize) -> Result<Vec<Duration>, BoxError> {
    let tally = Tally::of(usize::MAX);
    let Bed { site, worker, client } = running(place, links, &tally).await?;
    let mut flow = link(0).then(link);
    for _ in 2..links {
        flow = flow.then(link);
    }
    let last = client.kiq_flow(flow).await?;
    run_until_ended(worker, &last).await?;
    let mut gaps = Vec::with_capacity(links);
    let mut child = last.record().await?;
    while let Some(parent) = child.depends_on.first() {
        let parent = client.jobs().get(parent).await?;
        gaps.extend(child.started_at.zip(parent.finished_at).map(|(start, end)| start.since(end)));
        child = parent;
    }
    client.shutdown().await?;
    site.clean().await?;
    Ok(gaps)
}

struct FanOut {
    kicked_per_s: f64,
    run_per_s: f64,
    rss_mib: Option<f64>,
}

async fn fan_out(place: &Place, children: usize) -> Result<FanOut, BoxError> {
    let tally = Tally::of(children + 1);
    let Bed { site, worker, client } = running(place, children, &tally).await?;
    let parent = JobId::from("parent");
    client.kiq(job(0).id(parent.clone())).await?;
    let watch = Stopwatch::start();
    for kicked in client.kiq_all((1..=children).map(|number| job(number).after_ids([&parent]))).await {
        kicked?;
    }
    let kicked_per_s = watch.stop(children).per_second();
    let watch = Stopwatch::start();
    worker.run(tally.full()).await?;
    let run = watch.stop(children);
    client.shutdown().await?;
    site.clean().await?;
    Ok(FanOut { kicked_per_s, run_per_s: run.per_second(), rss_mib: run.rss_mib })
}

struct FanIn {
    kicked_per_s: f64,
    run_per_s: f64,
    released: Duration,
}

async fn fan_in(place: &Place, parents: u64) -> Result<FanIn, BoxError> {
    let count = usize::try_from(parents)?;
    let tally = Tally::of(usize::MAX);
    let Bed { site, worker, client } = running(place, count, &tally).await?;
    // One of the parents ends well after all others. The time from its end on is that of the
    // release.
    let mut calls: Vec<_> = (1..parents).map(|number| link(number).retries(0)).collect();
    calls.insert(count / 2, link(0).delay(LAST_AFTER));
    let flow = join(calls).then(total);
    let started = Instant::now();
    let last = client.kiq_flow(flow).await?;
    let kicked = started.elapsed();
    let began = Timestamp::now();
    run_until_ended(worker, &last).await?;
    let child = last.record().await?;
    let mut ends = Vec::with_capacity(count);
    for parent in &child.depends_on {
        ends.extend(client.jobs().get(parent).await?.finished_at);
    }
    ends.sort_unstable();
    let released = ends.last().zip(child.started_at).map(|(end, start)| start.since(*end));
    // All but the last one, from the start of the worker on.
    let run = ends.get(count.saturating_sub(2)).map(|end| end.since(began)).unwrap_or_default();
    client.shutdown().await?;
    site.clean().await?;
    let per_s = |span: Duration| count as f64 / span.as_secs_f64();
    Ok(FanIn { kicked_per_s: per_s(kicked), run_per_s: per_s(run), released: released.unwrap_or_default() })
}

async fn run_until_ended<O>(worker: aioq::Worker, last: &TaskHandle<O>) -> Result<()> {
    let ended = async {
        // An error shows in the record that is read afterwards.
        let _ = last.wait().await;
    };
    worker.run(ended).await.map(drop)
}
