//! The state machine of jobs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Status of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "String")]
#[non_exhaustive]
pub enum Status {
    /// Waits for its time.
    Scheduled,
    /// Waits for other jobs.
    Blocked,
    /// Waits for a worker.
    Pending,
    /// Runs.
    Running,
    /// Failed, and waits for its next attempt.
    Retrying,
    /// Ended with a result.
    Completed,
    /// Ended with an error.
    Failed,
    /// Expired before it was started.
    Expired,
    /// Was cancelled.
    Cancelled,
    /// A status of a newer version.
    Unknown,
}

impl Status {
    /// All statuses that this version knows, in the order of a job's life.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Pending,
        Self::Running,
        Self::Retrying,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The statuses that can follow.
    #[must_use]
    pub const fn next(self) -> &'static [Self] {
        match self {
            Self::Scheduled => &[Self::Pending, Self::Expired, Self::Cancelled],
            Self::Blocked => &[Self::Pending, Self::Scheduled, Self::Failed, Self::Expired, Self::Cancelled],
            Self::Pending => &[Self::Running, Self::Failed, Self::Expired, Self::Cancelled],
            Self::Running => &[
                // A write of its progress.
                Self::Running,
                Self::Completed,
                Self::Failed,
                Self::Retrying,
                // Snoozed by its body.
                Self::Scheduled,
                // Released by a worker that shuts down.
                Self::Pending,
                Self::Cancelled,
            ],
            Self::Retrying => &[Self::Pending, Self::Cancelled],
            // Rerun by hand, at once or after the jobs that it waits for.
            Self::Failed | Self::Expired | Self::Cancelled => &[Self::Pending, Self::Blocked],
            Self::Completed | Self::Unknown => &[],
        }
    }

    /// True if a record with this status may be overwritten by one with status `later`. Pending and
    /// running steps may be skipped, because they are not always recorded.
    #[must_use]
    pub fn leads_to(self, later: Self) -> bool {
        let mut reached = Self::set(self.next());
        for unwritten in [Self::Pending, Self::Running] {
            if reached & unwritten.bit() != 0 {
                reached |= Self::set(unwritten.next());
            }
        }
        reached & later.bit() != 0
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }

    fn set(statuses: &[Self]) -> u16 {
        statuses.iter().fold(0, |set, status| set | status.bit())
    }

    /// True if a job with this status has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// The text form of the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = Error;

    /// Parses a status, also under the names of other frameworks.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "scheduled" | "delayed" | "deferred" => Self::Scheduled,
            "blocked" => Self::Blocked,
            "pending" | "waiting" | "queued" => Self::Pending,
            "running" | "active" | "in_progress" => Self::Running,
            "retrying" => Self::Retrying,
            "completed" | "complete" | "success" => Self::Completed,
            "failed" | "dead" => Self::Failed,
            "expired" => Self::Expired,
            "cancelled" | "canceled" => Self::Cancelled,
            _ => {
                let known = Self::ALL.map(Self::as_str).join(", ");
                let message = format!("unknown status `{text}`, expected one of {known}");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        })
    }
}

impl From<String> for Status {
    /// For records: a status of a newer version is not an error.
    fn from(text: String) -> Self {
        text.parse().unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::Status::{
        Blocked, Cancelled, Completed, Expired, Failed, Pending, Retrying, Running, Scheduled, Unknown,
    };
    use super::*;

    /// From every status, the statuses that may be written next.
    const WRITABLE: [(Status, &[Status]); 10] = [
        (Scheduled, &[Scheduled, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Blocked, &[Scheduled, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Pending, &[Scheduled, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Running, &[Scheduled, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Retrying, &[Scheduled, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Completed, &[]),
        (Failed, &[Scheduled, Blocked, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Expired, &[Scheduled, Blocked, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Cancelled, &[Scheduled, Blocked, Pending, Running, Retrying, Completed, Failed, Expired, Cancelled]),
        (Unknown, &[]),
    ];

    #[test]
    fn only_listed_transitions_are_legal() {
        for (from, writable) in WRITABLE {
            for to in Status::ALL.into_iter().chain([Unknown]) {
                assert_eq!(from.leads_to(to), writable.contains(&to), "{from} to {to}");
            }
        }
    }

    #[test]
    fn a_job_comes_back_from_its_end_only_as_pending_or_blocked() {
        for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
            assert!(status.next().iter().all(|next| matches!(next, Pending | Blocked)), "{status}");
        }
        assert!(Completed.next().is_empty());
    }

    #[test]
    fn a_waiting_job_neither_completes_nor_is_put_off_without_running() {
        for status in [Scheduled, Blocked, Pending, Retrying] {
            assert!(!status.next().contains(&Completed) && !status.next().contains(&Retrying), "{status}");
        }
    }

    #[test]
    fn statuses_of_other_frameworks_are_understood() {
        for (alias, status) in [
            ("waiting", Pending),
            ("QUEUED", Pending),
            ("active", Running),
            ("in_progress", Running),
            ("delayed", Scheduled),
            ("deferred", Scheduled),
            ("dead", Failed),
            ("complete", Completed),
            ("success", Completed),
        ] {
            assert_eq!(alias.parse::<Status>().unwrap(), status);
        }
        assert_eq!("done".parse::<Status>().unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(Status::from("archived".to_owned()), Unknown);
    }
}
