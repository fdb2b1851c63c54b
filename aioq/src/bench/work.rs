//! Works to measure, and their settings.

use std::time::Duration;

use crate::store::RecordLevel;

/// A work to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Work {
    /// 256 Tokio tasks kick, and each waits for its confirmations.
    Kick,
    /// One bulk kick.
    Bulk,
    /// One worker empties a full queue.
    Drain,
    /// Kick and drain at once.
    Both,
    /// From the kick to the body and to the result, at 100 jobs a second.
    Latency,
    /// Cost of a worker without work.
    Idle,
}

impl Work {
    /// Name of the work in reports.
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

    /// True if the work takes a fixed time: it is run once and has no rate.
    #[must_use]
    pub fn is_paced(self) -> bool {
        matches!(self, Self::Latency | Self::Idle)
    }
}

/// Settings of a work.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of jobs.
    pub jobs: usize,
    /// Jobs that the worker, or the raw program, runs at once.
    pub concurrency: usize,
    /// Records that the worker writes of each job. A raw program always writes a full record.
    pub records: RecordLevel,
    /// Time to measure a worker without work.
    pub idle: Duration,
}
