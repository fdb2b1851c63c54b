//! The command `bench`: measures aioq on this backend, beside a raw program that does the same
//! without aioq.

mod framework;
mod job;
mod raw;
mod report;
mod sites;

use std::time::Duration;

use clap::{Args, ValueEnum};

use self::report::{Line, Report};
use self::sites::{Site, Sites};
use super::out;
use super::signals::Signals;
use crate::app::{App, Exit};
use crate::bench::{Plan, Sample, Work};
use crate::error::{BoxError, Result};
use crate::store::RecordLevel;
use crate::time::parse_duration;

#[derive(Args)]
#[command(after_long_help = "\
Works in a place of its own, apart from the queues and jobs of this program, and removes what it made; also when \
it is interrupted. On a server that others use it competes with them all the same. CPU and memory are those of \
this process, a server's are not counted.

--json prints one object per work on a line, null where a number makes no sense:
  work, backend, jobs, concurrency, records, runs
  jobs_per_s, raw_jobs_per_s, spread, raw_spread   spread: from the slowest run to the fastest, part of the median
  ratio                  1 is as good as the raw program; for latency of the medians, kick to start of the body
  p50_us, p99_us, raw_p50_us, raw_p99_us           a kick; for latency kick to start of the body
  result_p50_us, result_p99_us, raw_result_p50_us, raw_result_p99_us, result_ratio    kick to result
  cpu_s_per_million, raw_cpu_s_per_million, rss_mib, cpu_percent   cpu_percent: of one core, while idle")]
pub(super) struct BenchArgs {
    /// Work to measure
    #[arg(value_enum, default_value_t = Chosen::All)]
    work: Chosen,
    /// Jobs per run [default: 100000 in memory, 30000 elsewhere; at most 500 for latency]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    jobs: Option<usize>,
    /// Jobs that the worker, or the raw program, runs at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    concurrency: usize,
    /// Runs of each work; the report has their medians. Latency and idle run once
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    runs: usize,
    /// Records that the worker writes of each job; the raw program always writes a full record
    #[arg(long, value_enum, default_value_t = Records::Full)]
    records: Records,
    /// Time to measure a worker without work
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    idle: Duration,
    /// Skip the raw program, for a profiler
    #[arg(long)]
    no_raw: bool,
    /// Print a JSON object per work, each on a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Chosen {
    /// 256 tasks kick, each waits for its confirmation
    Kick,
    /// One bulk kick
    Bulk,
    /// One worker empties a full queue
    Drain,
    /// Kick and drain at once
    Both,
    /// From the kick to the body and to the result, at 100 jobs a second
    Latency,
    /// Cost of a worker without work
    Idle,
    /// All of these
    All,
}

impl Chosen {
    /// Idle and latency come first: the other works fill the memory.
    fn works(self) -> &'static [Work] {
        match self {
            Self::Kick => &[Work::Kick],
            Self::Bulk => &[Work::Bulk],
            Self::Drain => &[Work::Drain],
            Self::Both => &[Work::Both],
            Self::Latency => &[Work::Latency],
            Self::Idle => &[Work::Idle],
            Self::All => &[Work::Idle, Work::Latency, Work::Kick, Work::Bulk, Work::Drain, Work::Both],
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Records {
    None,
    Results,
    Full,
}

impl Records {
    fn level(self) -> RecordLevel {
        match self {
            Self::None => RecordLevel::None,
            Self::Results => RecordLevel::Results,
            Self::Full => RecordLevel::Full,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

pub(super) async fn run(app: App, args: BenchArgs) -> Result<Exit, BoxError> {
    let mut signals = Signals::new()?;
    let mut bench = Bench { sites: Sites::of(app), report: Report::new(args.json), args };
    let measured = tokio::select! {
        measured = bench.measure_all() => measured.map(|()| Exit::Done),
        () = signals.next() => Ok(Exit::Failed),
    };
    // Removes what a failed or interrupted run has left behind.
    let cleaned = bench.sites.clean().await;
    bench.report.finish();
    let exit = measured?;
    cleaned?;
    Ok(exit)
}

struct Bench {
    args: BenchArgs,
    sites: Sites,
    report: Report,
}

impl Bench {
    async fn measure_all(&mut self) -> Result<()> {
        self.sites.check().await?;
        for work in self.args.work.works() {
            let line = self.measure(*work).await?;
            self.report.add(line);
        }
        Ok(())
    }

    /// Runs a work a number of times, by both programs in turns, and sums it up.
    async fn measure(&mut self, work: Work) -> Result<Line> {
        let plan = self.plan(work);
        if !work.is_paced() {
            let short = Plan { jobs: (plan.jobs / 10).max(1), ..plan };
            self.raw(work, short).await?;
            self.framework(work, short).await?;
        }
        let runs = if work.is_paced() { 1 } else { self.args.runs };
        let mut pairs = Vec::with_capacity(runs);
        for run in 0..runs {
            out::tell(&format!("{} on {}, run {} of {runs}", work.name(), self.sites.name(), run + 1));
            // The order alternates: the second program may find a warmer or a busier machine.
            pairs.push(if run % 2 == 0 {
                let raw = self.raw(work, plan).await?;
                (self.framework(work, plan).await?, raw)
            } else {
                let framework = self.framework(work, plan).await?;
                (framework, self.raw(work, plan).await?)
            });
        }
        Ok(Line::of(work, plan, self.sites.name(), &pairs))
    }

    fn plan(&self, work: Work) -> Plan {
        let jobs = self.args.jobs.unwrap_or(self.sites.usual_jobs());
        let jobs = match work {
            Work::Idle => 0,
            Work::Latency => jobs.min(500),
            _ => jobs,
        };
        let BenchArgs { concurrency, records, idle, .. } = &self.args;
        Plan { jobs, concurrency: *concurrency, records: records.level(), idle: *idle }
    }

    async fn framework(&mut self, work: Work, plan: Plan) -> Result<Sample> {
        let site = self.sites.next().await?;
        let sample = framework::run(work, plan, site).await?;
        self.sites.clean().await?;
        Ok(sample)
    }

    async fn raw(&mut self, work: Work, plan: Plan) -> Result<Option<Sample>> {
        if self.args.no_raw {
            return Ok(None);
        }
        let sample = self.sites.next().await?.raw(work, plan).await?;
        self.sites.clean().await?;
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::jobs::JobFilter;
    use crate::memory::Memory;

    /// On a backend without a bench site.
    #[tokio::test(flavor = "multi_thread")]
    async fn on_any_backend_a_queue_is_used_that_nobody_has_and_nothing_is_left_in_it() -> Result<()> {
        let memory = Memory::new();
        let client = crate::client::Client::connect(memory.clone()).await?;
        let mine = client.kiq(job::noop(1)).await?;
        let idle = Duration::from_millis(1);
        let plan = Plan { jobs: 50, concurrency: 10, records: RecordLevel::Full, idle };
        for work in Chosen::All.works() {
            let mut sites = Sites::of(App::new(Backend::from(memory.clone())));
            let sample = framework::run(*work, plan, sites.next().await?).await?;
            assert!(*work == Work::Idle || sample.jobs == 50);
            sites.clean().await?;
            let client = crate::client::Client::connect(memory.clone()).await?;
            let jobs = client.jobs().list(JobFilter::new(), 100).await?.jobs;
            assert_eq!(jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [mine.id()], "{work:?}");
        }
        Ok(())
    }
}
