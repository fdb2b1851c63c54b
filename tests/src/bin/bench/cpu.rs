//! Jobs that keep processors busy, and async jobs beside them in the same worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aioq::bench::{QUEUE, Sample, Stopwatch, Tally, percentile_us, steadily};
use aioq::clap::Args;
use aioq::worker::WorkerOptions;
use aioq::{App, BoxError, Client, Error, ErrorKind, Exit, Result, task};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::jobs::{Running, noop};
use crate::place::{Place, PlaceArgs};
use crate::report::Report;

#[derive(Args)]
pub(crate) struct CpuArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Async jobs, a hundred each second
    #[arg(long, value_name = "N", default_value_t = 300)]
    jobs: usize,
    /// CPU-bound jobs that wait when the async ones begin
    #[arg(long, value_name = "N", default_value_t = 3000)]
    spins: usize,
    /// How long each of them takes
    #[arg(long, value_name = "MS", default_value_t = 20)]
    ms: u64,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    /// With aioq, or a program that does the same on a runtime with channels.
    program: &'static str,
    /// CPU-bound jobs that waited or ran; none in the first line of each program.
    spins: usize,
    spins_per_s: f64,
    /// Of all processors.
    busy_percent: Option<f64>,
    /// From the kick of an async job to the start of its body.
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

/// Number of bodies that have spun.
static SPUN: AtomicUsize = AtomicUsize::new(0);

/// Keeps a processor busy.
#[task(name = "bench.spin", queue = "bench-cpu")]
fn spin(ms: u64) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(ms) {
        std::hint::spin_loop();
    }
    SPUN.fetch_add(1, Ordering::Relaxed);
}

pub(crate) async fn run(args: CpuArgs, _app: App) -> Result<Exit, BoxError> {
    let mut report = Report::default();
    for place in args.places.places().await? {
        for spins in [0, args.spins] {
            eprintln!("{spins} CPU-bound jobs on {}", place.name);
            report.add(&with_aioq(&place, spins, &args).await?)?;
        }
    }
    for spins in [0, args.spins] {
        report.add(&raw(spins, &args).await?)?;
    }
    report.tables();
    Ok(Exit::Done)
}

async fn with_aioq(place: &Place, spins: usize, args: &CpuArgs) -> Result<Line> {
    let site = place.site(args.jobs + spins)?;
    let client = Client::connect(site.backend()).await?;
    let tally = Tally::with_starts(args.jobs);
    let options = WorkerOptions::new().queues([QUEUE, "bench-cpu"]);
    let app = App::new(site.backend()).worker_options(options).state(tally.clone());
    let running = Running::start(app.worker().await?);
    for kicked in client.kiq_all((0..spins).map(|_| spin(args.ms))).await {
        kicked?;
    }
    let kick = |_| {
        let (client, tally) = (client.clone(), tally.clone());
        async move { client.kiq(noop(tally.now(), "")).await?.result().await }
    };
    let watch = Watch::start();
    steadily(args.jobs, kick).await?;
    let line = watch.stop(place.name, "aioq", spins, &tally);
    running.stop().await?.shutdown().await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(line)
}

/// The same by a thread for each CPU-bound job, as many at once, and a task for each async one.
async fn raw(spins: usize, args: &CpuArgs) -> Result<Line> {
    let tally = Tally::with_starts(args.jobs);
    // As many as a worker has by default.
    let places = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from) + 4));
    let mut spinning = JoinSet::new();
    for _ in 0..spins {
        let (places, ms) = (Arc::clone(&places), args.ms);
        spinning.spawn(async move {
            let _place = places.acquire().await;
            tokio::task::spawn_blocking(move || spin::call(ms)).await
        });
    }
    let (jobs, mut waiting) = tokio::sync::mpsc::unbounded_channel::<u64>();
    let started = tally.clone();
    let working = tokio::spawn(async move {
        while let Some(kicked) = waiting.recv().await {
            let tally = started.clone();
            tokio::spawn(async move { tally.started(kicked) });
        }
    });
    let kick = |_| {
        let (jobs, tally) = (jobs.clone(), tally.clone());
        async move { jobs.send(tally.now()).map_err(|_| Error::new(ErrorKind::Backend, "nobody works")) }
    };
    let watch = Watch::start();
    steadily(args.jobs, kick).await?;
    let line = watch.stop("memory", "raw", spins, &tally);
    drop(jobs);
    working.await.map_err(|error| Error::new(ErrorKind::Backend, error.to_string()))?;
    spinning.shutdown().await;
    Ok(line)
}

/// Measures what is done from its start.
struct Watch {
    before: usize,
    watch: Stopwatch,
}

impl Watch {
    fn start() -> Self {
        Self { before: SPUN.load(Ordering::Relaxed), watch: Stopwatch::start() }
    }

    fn stop(self, backend: &'static str, program: &'static str, spins: usize, tally: &Tally) -> Line {
        let spun = SPUN.load(Ordering::Relaxed) - self.before;
        let (sample, starts) = (self.watch.stop(spun), tally.starts());
        Line {
            work: "cpu",
            backend,
            program,
            spins,
            spins_per_s: sample.per_second(),
            busy_percent: busy_percent(&sample),
            p50_us: percentile_us(&starts, 0.5),
            p99_us: percentile_us(&starts, 0.99),
        }
    }
}

fn busy_percent(sample: &Sample) -> Option<f64> {
    let processors = std::thread::available_parallelism().ok()?.get() as f64;
    Some(sample.cpu?.as_secs_f64() / sample.took.as_secs_f64() / processors * 100.0)
}
