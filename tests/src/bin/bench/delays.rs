//! Many delayed jobs: their memory, a restart of the server, a page, a cancel, and how late those
//! start that fall due in one second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aioq::bench::{Stopwatch, Tally, percentile_us};
use aioq::clap::Args;
use aioq::jobs::JobFilter;
use aioq::store::Status;
use aioq::{App, BoxError, Client, Exit, JobId, Result, Timestamp, task};
use serde::Serialize;

use crate::jobs::{Running, app};
use crate::place::{Place, PlaceArgs};
use crate::report::Report;

/// Jobs of a bulk kick.
const BATCH: usize = 10_000;

/// Cancels that are measured.
const CANCELS: usize = 200;

#[derive(Args)]
pub(crate) struct DelaysArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Jobs that wait for hours
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    jobs: u64,
    /// Jobs that fall due in one second
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    due: u64,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    delayed: usize,
    kicked_per_s: f64,
    /// By the memory of this process, or of the server.
    bytes_per_job: Option<f64>,
    /// From the kill of the server to its first answer; `None` for a server that was not started
    /// for it.
    restart_s: Option<f64>,
    list_50_ms: f64,
    cancel_p50_us: Option<f64>,
    due_in_a_second: usize,
    /// From the due time of a job to the start of its body.
    late_p50_ms: Option<f64>,
    late_p99_ms: Option<f64>,
}

/// How late the bodies have started.
static LATE: Mutex<Vec<Duration>> = Mutex::new(Vec::new());

/// Falls due at this time.
#[task(name = "bench.due", queue = "bench")]
async fn due(micros: i64) {
    let late = Timestamp::now().since(Timestamp::from_micros(micros));
    LATE.lock().unwrap_or_else(PoisonError::into_inner).push(late);
}

pub(crate) async fn run(args: DelaysArgs, _app: App) -> Result<Exit, BoxError> {
    let mut report = Report::default();
    for mut place in args.places.places().await? {
        eprintln!("delays on {}", place.name);
        report.add(&measure(&mut place, &args).await?)?;
    }
    report.tables();
    Ok(Exit::Done)
}

async fn measure(place: &mut Place, args: &DelaysArgs) -> Result<Line, BoxError> {
    let (jobs, falling) = (usize::try_from(args.jobs)?, usize::try_from(args.due)?);
    let site = place.site(falling)?;
    let client = Client::connect(site.backend()).await?;
    let before = place.rss_bytes();
    let watch = Stopwatch::start();
    for start in (0..jobs).step_by(BATCH) {
        let delay = |n: usize| Duration::from_secs(7_200) + Duration::from_millis(n as u64 * 3);
        let calls = (start..jobs.min(start + BATCH)).map(|n| due(0).delay(delay(n)).id(format!("later-{n}")));
        for kicked in client.kiq_all(calls).await {
            kicked?;
        }
    }
    let kicked_per_s = watch.stop(jobs).per_second();
    let bytes = place.rss_bytes().zip(before).map(|(after, before)| after.saturating_sub(before) as f64);
    let restart_s = restart(place, &client).await?;
    let list = Instant::now();
    let page = client.jobs().list(JobFilter::new().status(Status::Scheduled), 50).await?;
    assert_eq!(page.jobs.len(), 50, "all are there");
    let list_50_ms = list.elapsed().as_secs_f64() * 1e3;
    let mut cancels = Vec::new();
    for n in 0..CANCELS {
        let begun = Instant::now();
        assert!(client.jobs().cancel(&JobId::from(format!("later-{}", n * (jobs / CANCELS)))).await?);
        cancels.push(begun.elapsed());
    }
    let lateness = fall_due(&client, &site, falling).await?;
    let ms = |part| percentile_us(&lateness, part).map(|us| us / 1e3);
    client.shutdown().await?;
    site.clean().await?;
    Ok(Line {
        work: "delays",
        backend: place.name,
        delayed: jobs,
        kicked_per_s,
        bytes_per_job: bytes.map(|bytes| bytes / jobs as f64),
        restart_s,
        list_50_ms,
        cancel_p50_us: percentile_us(&cancels, 0.5),
        due_in_a_second: falling,
        late_p50_ms: ms(0.5),
        late_p99_ms: ms(0.99),
    })
}

/// Kills the server and starts it again.
async fn restart(place: &mut Place, client: &Client) -> Result<Option<f64>, BoxError> {
    let begun = Instant::now();
    if !place.restart().await? {
        return Ok(None);
    }
    while client.jobs().get(&JobId::from("later-0")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(Some(begun.elapsed().as_secs_f64()))
}

/// Kicks jobs that fall due in one second, and runs them.
async fn fall_due(
    client: &Client,
    site: &crate::place::Site,
    jobs: usize,
) -> Result<Vec<Duration>, BoxError> {
    let running = Running::start(app(site.backend(), &Tally::of(usize::MAX)).worker().await?);
    // Long enough for the kicks.
    let first = Timestamp::now().as_micros() + 5_000_000;
    let time = |n: usize| first + (n * 1_000_000 / jobs) as i64;
    let calls = (0..jobs).map(|n| due(time(n)).at(Timestamp::from_micros(time(n))));
    for kicked in client.kiq_all(calls).await {
        kicked?;
    }
    assert!(Timestamp::now().as_micros() < first, "the kicks took too long");
    let count = || LATE.lock().unwrap_or_else(PoisonError::into_inner).len();
    while count() < jobs {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lateness = std::mem::take(&mut *LATE.lock().unwrap_or_else(PoisonError::into_inner));
    if !client.backend().broker().info().in_process {
        running.stop().await?.shutdown().await?;
    }
    Ok(lateness)
}
