//! The end of a command of the worker binary: [`Exit`].

use std::process::ExitCode;

/// The end of a command, and its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: refused, failed, or interrupted.
    Failed,
    /// 2: bad usage, or no connection.
    Usage,
    /// 3: the time limit of a wait has passed.
    TimedOut,
}

impl Exit {
    /// The end of two steps: the worse one. A usage error is worse than a failure, which is worse
    /// than a timeout.
    pub(crate) fn and(self, other: Self) -> Self {
        let weight = |exit: &Self| match exit {
            Self::Done => 0,
            Self::TimedOut => 1,
            Self::Failed => 2,
            Self::Usage => 3,
        };
        std::cmp::max_by_key(self, other, weight)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::TimedOut => 3,
        })
    }
}
