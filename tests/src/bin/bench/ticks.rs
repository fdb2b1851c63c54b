//! Many schedules: how late the bodies of their ticks start, and what idle ones cost.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aioq::bench::{Stopwatch, Tally, percentile_us};
use aioq::clap::Args;
use aioq::schedules::{Schedule, ScheduleFilter};
use aioq::{App, BoxError, Client, Context, Exit, Result, Timestamp, task};
use serde::Serialize;

use crate::jobs::{Running, app};
use crate::place::{Place, PlaceArgs};
use crate::report::Report;

#[derive(Args)]
pub(crate) struct TicksArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Schedules
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    schedules: u64,
    /// Workers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    workers: u64,
    /// Seconds for which they tick, and for which they are idle
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    schedules: usize,
    workers: usize,
    fired: u64,
    missed: u64,
    /// From a tick to the start of its body, with a period of a second.
    late_p50_ms: Option<f64>,
    late_p99_ms: Option<f64>,
    /// Part of a processor that this process takes with one worker, with a period of a year.
    idle_cpu_percent: Option<f64>,
}

/// How late the bodies have started.
static LATE: Mutex<Vec<Duration>> = Mutex::new(Vec::new());

/// Runs for a tick.
#[task(name = "bench.tick", queue = "bench")]
async fn beat(#[inject] ctx: &Context) {
    let late = ctx.tick().map(|tick| Timestamp::now().since(tick));
    LATE.lock().unwrap_or_else(PoisonError::into_inner).extend(late);
}

pub(crate) async fn run(args: TicksArgs, _app: App) -> Result<Exit, BoxError> {
    let mut report = Report::default();
    for place in args.places.places().await? {
        eprintln!("ticks on {}", place.name);
        report.add(&measure(&place, &args).await?)?;
    }
    report.tables();
    Ok(Exit::Done)
}

async fn put(client: &Client, schedules: u64, period: &str) -> Result<()> {
    for n in 0..schedules {
        client.schedules().put(&format!("tick-{n}"), Schedule::every(period), beat()).await?;
    }
    Ok(())
}

async fn measure(place: &Place, args: &TicksArgs) -> Result<Line, BoxError> {
    let idle_cpu_percent = idle(place, args).await?;
    let site = place.site(100_000)?;
    let client = Client::connect(site.backend()).await?;
    let mut workers = Vec::new();
    for _ in 0..args.workers {
        workers.push(Running::start(app(site.backend(), &Tally::of(usize::MAX)).worker().await?));
    }
    put(&client, args.schedules, "1s").await?;
    // Until each has ticked, and one worker goes first.
    tokio::time::sleep(Duration::from_secs(3)).await;
    LATE.lock().unwrap_or_else(PoisonError::into_inner).clear();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let lateness = std::mem::take(&mut *LATE.lock().unwrap_or_else(PoisonError::into_inner));
    let views = client.schedules().list(ScheduleFilter::new()).await?;
    let ms = |part| percentile_us(&lateness, part).map(|us| us / 1e3);
    let line = Line {
        work: "ticks",
        backend: place.name,
        schedules: views.len(),
        workers: workers.len(),
        fired: views.iter().map(|view| view.counts.fired).sum(),
        missed: views.iter().map(|view| view.counts.missed).sum(),
        late_p50_ms: ms(0.5),
        late_p99_ms: ms(0.99),
        idle_cpu_percent,
    };
    for worker in workers {
        worker.stop().await?;
    }
    client.shutdown().await?;
    site.clean().await?;
    Ok(line)
}

/// The processor time of a worker with schedules that do not tick.
async fn idle(place: &Place, args: &TicksArgs) -> Result<Option<f64>, BoxError> {
    let site = place.site(1_000)?;
    let client = Client::connect(site.backend()).await?;
    put(&client, args.schedules, "365d").await?;
    let running = Running::start(app(site.backend(), &Tally::of(usize::MAX)).worker().await?);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let watch = Stopwatch::start();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let cpu = watch.stop(1).cpu;
    running.stop().await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(cpu.map(|cpu| cpu.as_secs_f64() * 100.0 / args.seconds as f64))
}
