//! Many queues and tasks against one of each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aioq::bench::{Stopwatch, TEXT, Tally, at_once};
use aioq::clap::Args;
use aioq::tasks::{KickOptions, TaskDef};
use aioq::worker::WorkerOptions;
use aioq::{App, BoxError, Client, Context, Error, ErrorKind, Exit, Result, TaskError};
use serde::{Deserialize, Serialize};

use crate::place::{Place, PlaceArgs};
use crate::report::Report;

#[derive(Args)]
pub(crate) struct QueuesArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Queues, each with a task of its own [default: 1000 in memory, 100 on NATS]
    #[arg(long, value_name = "N")]
    queues: Option<usize>,
    /// Jobs of each run [default: 100000 in memory, 20000 on NATS]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    queues: usize,
    jobs: usize,
    kick_jobs_per_s: f64,
    drain_jobs_per_s: f64,
    cpu_s_per_million: Option<f64>,
    rss_mib: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct Arguments {
    number: u64,
    text: String,
}

pub(crate) async fn run(args: QueuesArgs, _app: App) -> Result<Exit, BoxError> {
    let mut report = Report::default();
    for place in args.places.places().await? {
        let (queues, jobs) = if place.is_memory() { (1000, 100_000) } else { (100, 20_000) };
        let (queues, jobs) = (args.queues.unwrap_or(queues), args.jobs.unwrap_or(jobs));
        // The first one warms up.
        for (queues, is_told) in [(1, false), (1, true), (queues, true)] {
            eprintln!("{queues} queues on {}", place.name);
            let line = measure(&place, queues, jobs).await?;
            if is_told {
                report.add(&line)?;
            }
        }
    }
    report.tables();
    Ok(Exit::Done)
}

async fn measure(place: &Place, queues: usize, jobs: usize) -> Result<Line> {
    let site = place.site(jobs)?;
    let client = Client::connect(site.backend()).await?;
    let kicker = client.clone();
    let kick = move |number: usize| {
        let client = kicker.clone();
        async move {
            let options = KickOptions::new().queue(queue(number % queues));
            let arguments = Arguments { number: number as u64, text: TEXT.to_owned() };
            client.kiq_by_name(&task(number % queues), &arguments, options).await.map(drop)
        }
    };
    let watch = Stopwatch::start();
    at_once(jobs, kick).await?;
    let kicked = watch.stop(jobs);
    let (tally, first) = (Tally::of(jobs), First::default());
    let options = WorkerOptions::new().queues((0..queues).map(queue));
    let app = App::new(site.backend()).worker_options(options).state(tally.clone());
    let app = (0..queues).fold(app, |app, number| app.task(counting(number, &tally, &first)));
    let worker = app.worker().await?;
    let own = worker.client().clone();
    worker.run(tally.full()).await?;
    // From the first body on: to declare what a queue needs is done once.
    let drained = first.take()?.stop(jobs);
    own.shutdown().await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(Line {
        work: "queues",
        backend: place.name,
        queues,
        jobs,
        kick_jobs_per_s: kicked.per_second(),
        drain_jobs_per_s: drained.per_second(),
        cpu_s_per_million: drained.cpu_s_per_million(),
        rss_mib: drained.rss_mib,
    })
}

fn queue(number: usize) -> String {
    format!("bench-{number}")
}

fn task(number: usize) -> String {
    format!("bench.task-{number}")
}

/// Time at which the first body started.
#[derive(Clone, Default)]
struct First {
    started: Arc<AtomicBool>,
    watch: Arc<Mutex<Option<Stopwatch>>>,
}

impl First {
    fn note(&self) {
        if !self.started.load(Ordering::Relaxed) && !self.started.swap(true, Ordering::Relaxed) {
            *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stopwatch::start());
        }
    }

    fn take(&self) -> Result<Stopwatch> {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        watch.ok_or_else(|| Error::new(ErrorKind::Backend, "no job has run"))
    }
}

/// A task of its own that counts.
fn counting(number: usize, tally: &Tally, first: &First) -> TaskDef {
    let (tally, first) = (tally.clone(), first.clone());
    TaskDef::from_fn(task(number), move |_: Context, Arguments { number, text }| {
        first.note();
        let tally = tally.clone();
        async move {
            std::hint::black_box((number, text));
            tally.count();
            Ok::<_, TaskError>(())
        }
    })
}
