//! Cost of each promise: every step of the ladder promises more than the one below.

mod pace;
mod rung;
mod servers;

use std::time::Duration;

use self::pace::Pace;
use self::rung::{Drain, Rung};
use self::servers::Step;
use aioq::bench::{median, spread};
use aioq::clap::Args;
use aioq::time::parse_duration;
use aioq::{App, BoxError, Exit, Result};
use serde::Serialize;

use crate::place::Place;
use crate::report::Report;

#[derive(Args)]
pub(crate) struct LadderArgs {
    /// Jobs per run in memory; as a part of it on the servers, which are slower
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..))]
    jobs: u64,
    /// Runs of each step, of which the medians are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// How long each rate is kept up
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    span: Duration,
    /// Only where the name starts like this: memory, nats, nats_synced, nats_replicated
    #[arg(long, value_name = "NAME")]
    on: Option<String>,
}

/// Result of a rung on a backend.
#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    rung: &'static str,
    jobs: usize,
    runs: usize,
    /// A full queue, emptied.
    drain_jobs_per_s: Option<f64>,
    spread: Option<f64>,
    /// Of the process with the worker, while it drains.
    cpu_s_per_million: Option<f64>,
    /// Of all servers together, meanwhile.
    server_cpu_s_per_million: Option<f64>,
    /// Kicked by 256 tasks, each waits until its job has ended: the most that the rates below are
    /// parts of.
    most_jobs_per_s: f64,
    /// To where the latencies are: `result`, or `start` of the body where there are no results.
    until: &'static str,
    p50_us_at_10: Option<f64>,
    p99_us_at_10: Option<f64>,
    p50_us_at_50: Option<f64>,
    p99_us_at_50: Option<f64>,
    p50_us_at_90: Option<f64>,
    p99_us_at_90: Option<f64>,
}

pub(crate) async fn run(args: LadderArgs, _app: App) -> Result<Exit, BoxError> {
    let mut report = Report::default();
    let wanted = |step: &&Step| args.on.as_ref().is_none_or(|name| step.name().starts_with(name));
    for step in Step::ALL.iter().filter(wanted) {
        let place = step.start().await?;
        let jobs = usize::try_from(args.jobs)? / step.slower();
        for rung in Rung::ALL {
            eprintln!("{} on {}", rung.name(), place.name);
            report.add(&measure(&place, rung, jobs, &args).await?)?;
        }
    }
    report.tables();
    Ok(Exit::Done)
}

async fn measure(place: &Place, rung: Rung, jobs: usize, args: &LadderArgs) -> Result<Line> {
    let mut drains = Vec::new();
    for _ in 0..args.runs {
        drains.push(rung::drain(place, rung, jobs).await?);
    }
    let of_drains =
        |number: fn(&Drain) -> Option<f64>| -> Vec<f64> { drains.iter().filter_map(number).collect() };
    let rates = of_drains(|drain| Some(drain.sample.per_second()));
    let most = pace::most(place, rung, jobs).await?;
    let at_10 = Pace::of(most, 0.1, args.span).measure(place, rung).await?;
    let at_50 = Pace::of(most, 0.5, args.span).measure(place, rung).await?;
    let at_90 = Pace::of(most, 0.9, args.span).measure(place, rung).await?;
    Ok(Line {
        work: "ladder",
        backend: place.name,
        rung: rung.name(),
        jobs,
        runs: drains.len(),
        spread: spread(&rates),
        drain_jobs_per_s: median(rates),
        cpu_s_per_million: median(of_drains(|drain| drain.sample.cpu_s_per_million())),
        server_cpu_s_per_million: median(of_drains(Drain::server_cpu_s_per_million)),
        most_jobs_per_s: most,
        until: if rung.has_results() { "result" } else { "start" },
        p50_us_at_10: at_10.p50_us(),
        p99_us_at_10: at_10.p99_us(),
        p50_us_at_50: at_50.p50_us(),
        p99_us_at_50: at_50.p99_us(),
        p50_us_at_90: at_90.p50_us(),
        p99_us_at_90: at_90.p99_us(),
    })
}
