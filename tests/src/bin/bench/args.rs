//! The command line.

use aioq::store::RecordLevel;
use clap::{Parser, ValueEnum};

/// Measures aioq against programs that do the same work without it.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value_t = Work::All)]
    pub(crate) work: Work,
    /// Measure in memory, and elsewhere only if --nats is given too
    #[arg(long)]
    memory: bool,
    /// Measure on NATS, on a server of its own unless a URL is given, and in memory only if --memory is given too
    #[arg(long, value_name = "URL", num_args = 0..=1)]
    nats: Option<Option<String>>,
    /// Jobs per run [default: 100000 in memory, 30000 on NATS; at most 500 for latency]
    #[arg(long, value_parser = at_least_one)]
    pub(crate) jobs: Option<usize>,
    /// Runs of each work, of which the medians are told; idle and latency run once
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pub(crate) runs: usize,
    /// Jobs that a worker, or what stands in for it, runs at once
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// How much the worker writes down of each job; the raw programs always write a record
    #[arg(long, value_enum, default_value_t = Records::Full)]
    pub(crate) records: Records,
    /// Leave the raw programs out, for a profiler
    #[arg(long)]
    pub(crate) no_raw: bool,
    /// Only fill the queue `bench` under the prefix `bench`, for workers elsewhere
    #[arg(long, requires = "nats")]
    pub(crate) seed: bool,
}

/// How much is written down of each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Records {
    None,
    Results,
    Full,
}

impl From<Records> for RecordLevel {
    fn from(records: Records) -> Self {
        match records {
            Records::None => Self::None,
            Records::Results => Self::Results,
            Records::Full => Self::Full,
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

impl Args {
    /// Whether to measure in memory.
    pub(crate) fn wants_memory(&self) -> bool {
        self.memory || self.nats.is_none()
    }

    /// Whether to measure on a server that has to be started.
    pub(crate) fn wants_own_server(&self) -> bool {
        match &self.nats {
            Some(url) => url.is_none(),
            None => !self.memory,
        }
    }

    /// The server that was named.
    pub(crate) fn url(&self) -> Option<String> {
        self.nats.clone().flatten()
    }
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Many kicks at once, each confirmed
    Kick,
    /// One bulk kick
    Bulk,
    /// One worker empties a full queue
    Drain,
    /// Kick and drain at once
    Both,
    /// From the kick to the body and to the result, at 100 jobs a second
    Latency,
    /// What a worker without work costs
    Idle,
    /// Pages, counts and cleaning among 100,000 records
    Look,
    /// All of these
    All,
}

impl Work {
    /// The works that this one stands for: the quiet ones first, before the loud ones fill the memory.
    pub(crate) fn parts(&self) -> &[Self] {
        match self {
            Self::All => {
                &[Self::Idle, Self::Latency, Self::Kick, Self::Bulk, Self::Drain, Self::Both, Self::Look]
            }
            one => std::slice::from_ref(one),
        }
    }

    /// As it is called in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::Bulk => "bulk",
            Self::Drain => "drain",
            Self::Both => "both",
            Self::Latency => "latency",
            Self::Idle => "idle",
            Self::Look => "look",
            Self::All => "all",
        }
    }

    /// How many jobs it takes, if the others take `usual`.
    pub(crate) fn jobs(self, usual: usize) -> usize {
        match self {
            Self::Idle => 0,
            Self::Latency => usual.min(500),
            Self::Look => usual.max(100_000),
            _ => usual,
        }
    }

    /// Whether it takes seconds whatever the number of jobs, and gives a whole distribution at once.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Latency | Self::Idle | Self::Look)
    }

    /// Whether a short run before the first one makes a difference.
    pub(crate) fn wants_warming(self) -> bool {
        !self.is_long()
    }
}
