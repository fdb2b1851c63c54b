//! Why a job ended without a result.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a job ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The body returned an error.
    Error,
    /// The body panicked, or what it left did when it was dropped.
    Panic,
    /// The attempt took too long.
    Timeout,
    /// Its process died each time, so often while it was the only suspect.
    Poison,
    /// No worker that met it in time knows the task.
    UnknownTask,
    /// The arguments do not fit the task, as each worker has it that met them in time.
    BadArguments,
    /// The message cannot be read.
    Undecodable,
    /// It was not started in time.
    Expired,
    /// The result is larger than the limit.
    ResultTooLarge,
    /// The result cannot be encoded: it is nested too deeply, or the codec has no form for it.
    Unencodable,
    /// A job that it depends on did not complete.
    Dependency,
    /// Something that a newer version knows.
    #[serde(other)]
    Other,
}

impl Reason {
    /// The reason as it is written.
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
