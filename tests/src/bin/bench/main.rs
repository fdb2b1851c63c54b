//! Measures aioq against programs that do the same work without it.
//!
//! ```text
//! cargo run --release -p aioq-tests --bin bench                      # everything, on a server of its own
//! cargo run --release -p aioq-tests --bin bench -- drain --memory --jobs 200000 --runs 7
//! cargo run --release -p aioq-tests --bin bench -- both --nats nats://127.0.0.1:4222
//! ```
//!
//! One line of JSON per work goes to standard output, a table to standard error. A run measures the framework
//! and the raw program one after the other, in turns; numbers are medians over the runs.
//!
//! | work | measured | the raw program in memory | the raw program on NATS |
//! |---|---|---|---|
//! | kick | 256 tasks kick, each waits for its confirmation | encode, send into a channel | encode, publish, await the ack |
//! | bulk | one `kiq_all` | encode, send into a channel | encode, publish, acks in a window |
//! | drain | a full queue, until the last job is settled | receive, spawn, decode, encode the result, hand it over | pull, spawn, decode, publish the record on its condition, await, ack |
//! | both | kick and drain at once | both | both |
//! | latency | 100 jobs/s: kick to start of the body, kick to result | both, with a channel for each result | both, with a subscription for each result |
//! | idle | a worker without work | | |
//! | look | a page of 50, counts, a cancel, an abort, a clean of 10,000, among 100,000 records | | |
//!
//! Bodies, headers, records and streams of the raw programs are those of the framework. CPU and memory are this
//! process's: on NATS without the server's, but with both ends of the work. Where one work follows another,
//! memory that the allocator kept from the earlier one is counted too.

mod args;
mod framework;
mod jobs;
mod look;
mod measure;
mod raw;
mod report;

use std::io;

use aioq::Memory;
use aioq::store::RecordLevel;
use aioq_nats::Nats;
use aioq_tests::{Bed, NatsServer, unique_prefix};

use self::args::{Args, Work};
use self::measure::Sample;
use self::report::{Line, Report};

/// What one run is to do.
#[derive(Clone, Copy, Debug)]
struct Plan {
    jobs: usize,
    /// Jobs that a worker runs at once.
    concurrency: usize,
    /// How much the worker writes down.
    records: RecordLevel,
    /// Whether to run the raw program too.
    raw: bool,
}

/// Where to measure.
#[derive(Clone, Debug)]
enum Place {
    Memory,
    Nats { url: String },
}

impl Place {
    fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Nats { .. } => "nats",
        }
    }

    /// Jobs per run unless the arguments say otherwise: about a second's worth.
    fn usual_jobs(&self) -> usize {
        match self {
            Self::Memory => 100_000,
            Self::Nats { .. } => 30_000,
        }
    }

    async fn framework(&self, work: Work, plan: Plan) -> Sample {
        match self {
            Self::Memory => framework::run(work, plan, &Bed::Memory(Memory::new())).await,
            Self::Nats { url } => {
                let prefix = unique_prefix();
                let nats = Nats::new(url).prefix(&prefix);
                let sample = framework::run(work, plan, &Bed::Nats(Box::new(nats))).await;
                raw::delete_streams(url, &prefix).await;
                sample
            }
        }
    }

    async fn raw(&self, work: Work, plan: Plan) -> Option<Sample> {
        match self {
            _ if !plan.raw => None,
            Self::Memory => raw::in_memory(work, plan).await,
            Self::Nats { url } => raw::on_nats(work, plan, url).await,
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = <Args as clap::Parser>::parse();
    if args.seed {
        return seed(&args).await;
    }
    let server = match args.wants_own_server() {
        true => Some(NatsServer::start().await?),
        false => None,
    };
    let mut report = Report::default();
    for place in places(&args, server.as_ref()) {
        for work in args.work.parts() {
            for line in measure(&args, &place, *work).await {
                report.add(line)?;
            }
        }
    }
    report.table();
    Ok(())
}

fn places(args: &Args, server: Option<&NatsServer>) -> Vec<Place> {
    let url = args.url().or_else(|| server.map(NatsServer::url));
    let memory = args.wants_memory().then_some(Place::Memory);
    memory.into_iter().chain(url.map(|url| Place::Nats { url })).collect()
}

/// Runs a work some times, both programs in turns, and sums it up.
async fn measure(args: &Args, place: &Place, work: Work) -> Vec<Line> {
    let jobs = work.jobs(args.jobs.unwrap_or(place.usual_jobs()));
    let plan = Plan { jobs, concurrency: args.concurrency, records: args.records.into(), raw: !args.no_raw };
    if work.wants_warming() {
        let short = Plan { jobs: (jobs / 10).max(1), ..plan };
        place.raw(work, short).await;
        place.framework(work, short).await;
    }
    let runs = if work.is_long() { 1 } else { args.runs };
    let mut pairs = Vec::new();
    for run in 0..runs {
        eprintln!("{} on {}, run {} of {runs}", work.name(), place.name(), run + 1);
        // Whoever comes second may find a warmer or a busier machine.
        if run % 2 == 0 {
            let raw = place.raw(work, plan).await;
            pairs.push((place.framework(work, plan).await, raw));
        } else {
            let framework = place.framework(work, plan).await;
            pairs.push((framework, place.raw(work, plan).await));
        }
    }
    report::lines(work, place.name(), &pairs)
}

/// Fills the queue `bench` of a server under the prefix `bench`, for workers elsewhere.
async fn seed(args: &Args) -> io::Result<()> {
    let Some(url) = args.url() else {
        return Err(io::Error::other("--seed fills the queue of a server: name it with --nats URL"));
    };
    let place = Place::Nats { url: url.clone() };
    let bed = Bed::Nats(Box::new(Nats::new(url).prefix(jobs::QUEUE)));
    framework::fill(&bed, args.jobs.unwrap_or(place.usual_jobs())).await;
    Ok(())
}
