//! The memory that a waiting job takes.

use aioq::clap::Args;
use aioq::{App, BoxError, Client, Exit, Memory, Result, task};
use serde::Serialize;

use crate::place::Place;
use crate::report::Report;

#[derive(Args)]
pub(crate) struct QueuedArgs {
    /// Jobs that wait
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// The size of each job's text
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    payload: usize,
}

#[derive(Serialize)]
struct Line {
    work: &'static str,
    backend: &'static str,
    jobs: usize,
    payload_bytes: usize,
    /// Bytes of a message: payload, names, id, labels.
    body_bytes: usize,
    /// All of it, by the memory of this process.
    bytes_per_job: Option<f64>,
}

/// Has a text.
#[task(name = "bench.text", queue = "bench")]
async fn text(text: &str) {
    std::hint::black_box(text);
}

pub(crate) async fn run(args: QueuedArgs, _app: App) -> Result<Exit, BoxError> {
    let (jobs, payload) = (usize::try_from(args.jobs)?, "x".repeat(args.payload));
    let client = Client::connect(Memory::new()).await?;
    let first = client.kiq(text(&*payload)).await?;
    let body = client.backend().broker().find(first.id()).await?.ok_or("the first job waits")?.body;
    let place = Place::memory();
    let before = place.rss_bytes();
    // One by one: what a bulk kick needs meanwhile would be counted too.
    for _ in 0..jobs {
        client.kiq(text(&*payload)).await?;
    }
    let bytes = place.rss_bytes().zip(before).map(|(after, before)| after.saturating_sub(before));
    let mut report = Report::default();
    report.add(&Line {
        work: "queued",
        backend: "memory",
        jobs,
        payload_bytes: args.payload,
        body_bytes: body.len(),
        bytes_per_job: bytes.map(|bytes| bytes as f64 / jobs as f64),
    })?;
    report.tables();
    Ok(Exit::Done)
}
