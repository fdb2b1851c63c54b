//! Reasons for the end of a job without a result.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Reason for the end of a job without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The body returned an error.
    Error,
    /// The body panicked, or a value that it left panicked when it was dropped.
    Panic,
    /// The attempt took longer than its timeout.
    Timeout,
    /// The worker's process died on each start, often enough while this job was the only suspect.
    Poison,
    /// No worker that received it in time knows the task.
    UnknownTask,
    /// The arguments do not fit the task, in any worker that received it in time.
    BadArguments,
    /// The message cannot be read.
    Undecodable,
    /// It was not started before it expired.
    Expired,
    /// The result is larger than the limit.
    ResultTooLarge,
    /// The result cannot be encoded: it is nested too deeply, or the codec has no form for it.
    Unencodable,
    /// A job that it depends on did not complete.
    Dependency,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

impl Reason {
    /// The text form of the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Poison => "poison",
            Self::UnknownTask => "unknown_task",
            Self::BadArguments => "bad_arguments",
            Self::Undecodable => "undecodable",
            Self::Expired => "expired",
            Self::ResultTooLarge => "result_too_large",
            Self::Unencodable => "unencodable",
            Self::Dependency => "dependency",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
