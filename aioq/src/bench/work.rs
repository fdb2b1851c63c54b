//! What is measured.

use std::time::Duration;

use crate::store::RecordLevel;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Work {
    /// Many kicks at once, each confirmed.
    Kick,
    /// One bulk kick.
    Bulk,
    /// One worker empties a full queue.
    Drain,
    /// Kick and drain at once.
    Both,
    /// From the kick to the body and to the result, at 100 jobs a second.
    Latency,
    /// What a worker without work costs.
    Idle,
}

impl Work {
    /// Its name, as reports have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::Bulk => "bulk",
            Self::Drain => "drain",
            Self::Both => "both",
            Self::Latency => "latency",
            Self::Idle => "idle",
        }
    }

    /// Whether it takes seconds whatever the number of jobs: it is run once, and has no rate.
    #[must_use]
    pub fn is_paced(self) -> bool {
        matches!(self, Self::Latency | Self::Idle)
    }
}

/// How a work is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many jobs there are.
    pub jobs: usize,
    /// Jobs that a worker, or what stands in for it, runs at once.
    pub concurrency: usize,
    /// How much the worker writes down of each job; a raw program always writes a record.
    pub records: RecordLevel,
    /// How long to look at a worker without work.
    pub idle: Duration,
}
