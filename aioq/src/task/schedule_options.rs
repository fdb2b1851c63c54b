//! The schedule of a task, as set by its attribute, and the policies of schedules.

use serde::{Deserialize, Serialize};

/// What becomes of ticks for which no worker was there in time.
///
/// In time is: within half the interval to the next tick, at least a second and at most an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Missed {
    /// They are counted, and not run.
    #[default]
    Skip,
    /// The newest one is run, the others are counted.
    Once,
    /// All are run, the oldest first: at most the newest 1,000. The others are counted.
    All,
}

impl Missed {
    /// The word for it, as in the attribute and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

/// What becomes of a tick while the job of the tick before has not ended: it waits, runs, or waits
/// for a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Overlap {
    /// It is run all the same.
    #[default]
    Allow,
    /// It is counted as skipped, and not run.
    Skip,
}

impl Overlap {
    /// The word for it, as in the attribute and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Skip => "skip",
        }
    }
}

/// The schedule of a task's attribute, as a constant.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleOptions {
    pub(crate) when: ConstWhen,
    pub(crate) missed: Missed,
    pub(crate) overlap: Overlap,
}

/// When a task ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConstWhen {
    Cron { expression: &'static str, zone: &'static str },
    EveryMs(u64),
}

impl ScheduleOptions {
    /// `cron = "..", tz = ".."`.
    #[must_use]
    pub const fn cron(expression: &'static str, zone: &'static str) -> Self {
        Self::new(ConstWhen::Cron { expression, zone })
    }

    /// `every = ".."`, in milliseconds.
    #[must_use]
    pub const fn every_ms(ms: u64) -> Self {
        Self::new(ConstWhen::EveryMs(ms))
    }

    const fn new(when: ConstWhen) -> Self {
        Self { when, missed: Missed::Skip, overlap: Overlap::Allow }
    }

    /// `missed = ".."`.
    #[must_use]
    pub const fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// `overlap = ".."`.
    #[must_use]
    pub const fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }
}
