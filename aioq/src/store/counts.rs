//! Numbers of jobs by status.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Status;
use crate::time::Timestamp;

/// Numbers of jobs, by status. A status without jobs is left out.
pub type Counts = BTreeMap<Status, u64>;

/// Numbers of all jobs, and the time of the count.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobCounts {
    /// By status; a status without jobs is left out.
    pub counts: Counts,
    /// The time of the count.
    pub counted_at: Timestamp,
}

impl JobCounts {
    /// Time since the count.
    #[must_use]
    pub fn age(&self) -> Duration {
        Timestamp::now().since(self.counted_at)
    }
}
