//! Finds files with the same content: one background job per file, gathered through its handles.
//!
//! ```text
//! cargo run --release --example dedupe -- PATH            # all in this process
//! cargo run --release --example dedupe -- PATH --json
//! ```
//!
//! With a NATS server the same program only produces, and workers do the work, as many as you
//! start, on every machine that sees the same files under the same paths:
//!
//! ```text
//! cargo run --release --example dedupe -- worker --nats nats://localhost:4222
//! cargo run --release --example dedupe -- PATH --nats nats://localhost:4222
//! ```
//!
//! Every regular file below PATH counts, hidden and empty ones too; links are not followed (PATH
//! itself may be one). A file that cannot be read is a failed job and is reported, the rest goes
//! on. Paths travel as bytes, so any file name works; one that is not UTF-8 is printed with a � in
//! the place of what is not.

mod hash;
mod report;
mod walk;

use std::path::PathBuf;
use std::time::Instant;

use aioq::{App, BoxError, Client, ErrorKind, Exit, Memory};
// For its side effect: it is what makes `--nats URL` work.
use aioq_nats as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::hash::{Hashed, hash_file};
use crate::report::{Failure, Report};
use crate::walk::Found;

#[derive(clap::Args)]
struct Options {
    /// The directory to search, or a single file
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Jobs that are kicked with one flush.
const BATCH: usize = 512;
/// Jobs that are under way at once, so that memory does not grow with the number of files that
/// wait.
const WINDOW: usize = 8 * BATCH;

#[aioq::main]
fn app() -> App {
    App::new(Memory::new()).default_command("Finds files with the same content", dedupe)
}

/// The program without a subcommand; `worker`, `tasks`, `jobs` and so on are commands of aioq.
async fn dedupe(options: Options, app: App) -> Result<Exit, BoxError> {
    let files = walk::walk(&options.path)?;
    let client = app.client().await?;
    let start = Instant::now();
    let report = if client.backend().broker().info().in_process {
        gather_here(&client, files, app).await?
    } else {
        eprintln!("the work is for workers, started with the same `--nats` and the subcommand `worker`");
        gather(&client, files).await?
    };
    client.shutdown().await?;
    report.print(start.elapsed(), options.json)?;
    Ok(Exit::Done)
}

/// Gathers, with a worker in this process: nobody else sees what is in its memory.
async fn gather_here(client: &Client, files: mpsc::Receiver<Found>, app: App) -> Result<Report, BoxError> {
    let stop = CancellationToken::new();
    let mut worker = tokio::spawn(app.worker().await?.run(stop.clone().cancelled_owned()));
    let report = tokio::select! {
        report = gather(client, files) => report?,
        ended = &mut worker => return Err(format!("the worker ended early: {ended:?}").into()),
    };
    stop.cancel();
    worker.await??;
    Ok(report)
}

/// Kicks a job for each file and takes in what comes back, both at once.
async fn gather(client: &Client, mut files: mpsc::Receiver<Found>) -> aioq::Result<Report> {
    let bar = bar();
    let (mut report, mut batch) = (Report::default(), Vec::with_capacity(BATCH));
    let mut under_way = FuturesUnordered::new();
    let mut walking = true;
    while walking || !under_way.is_empty() {
        tokio::select! {
            Some((path, result)) = under_way.next() => {
                bar.inc(1);
                take_in(&mut report, &bar, path, result)?;
            }
            found = files.recv_many(&mut batch, BATCH), if walking && under_way.len() + BATCH <= WINDOW => {
                walking = found > 0;
                let paths = sort_out(&mut report, &bar, batch.drain(..));
                bar.inc_length(paths.len() as u64);
                let handles = client.kiq_all(paths.iter().map(|path| hash_file(walk::to_bytes(path)))).await;
                for (path, handle) in paths.into_iter().zip(handles) {
                    let handle = handle?;
                    under_way.push(async move { (path, handle.result().await) });
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// The paths of the files; what could not be searched goes to the report.
fn sort_out(report: &mut Report, bar: &ProgressBar, batch: impl Iterator<Item = Found>) -> Vec<PathBuf> {
    let files = batch.filter_map(|found| match found {
        Found::File(path) => Some(path),
        Found::Unreadable(failure) => {
            fail(report, bar, failure);
            None
        }
    });
    files.collect()
}

/// A job that failed is one file that failed; anything else that went wrong concerns all of them.
fn take_in(
    report: &mut Report,
    bar: &ProgressBar,
    path: PathBuf,
    result: aioq::Result<Hashed>,
) -> aioq::Result<()> {
    report.files += 1;
    match result {
        Ok(hashed) => report.add(path, hashed),
        Err(error) => match error.kind() {
            ErrorKind::JobFailed | ErrorKind::Cancelled | ErrorKind::Expired => {
                let why = error.job_error().map_or_else(|| error.to_string(), ToString::to_string);
                fail(report, bar, Failure { path, error: why });
            }
            _ => return Err(error),
        },
    }
    Ok(())
}

fn fail(report: &mut Report, bar: &ProgressBar, failure: Failure) {
    bar.suspend(|| eprintln!("{}: {}", failure.path.display(), failure.error));
    report.failed.push(failure);
}

/// A bar on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} files, {per_sec}, {elapsed}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
