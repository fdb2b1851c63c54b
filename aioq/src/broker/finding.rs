//! Findings about a broker for its operator: [`Finding`].

use serde::Serialize;

/// A finding about a broker and its stores: the cost of a crash, a limit that is near, a setting
/// that loses jobs.
///
/// [`Broker::examine`](super::Broker::examine) returns them, the command `doctor` prints them.
///
/// ```
/// use aioq::broker::{Finding, Level};
///
/// let finding = Finding::remark("disk_loss", "A lost disk takes all jobs with it.");
/// let finding = finding.advice("Back it up.");
/// assert_eq!((finding.level, finding.about), (Level::Remark, "disk_loss"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Severity.
    pub level: Level,
    /// Subject, as a stable key for programs. Several findings may have the same one.
    pub about: &'static str,
    /// One or two sentences for readers who do not know the backend.
    pub text: String,
    /// Advice, if there is something to do.
    pub advice: Option<String>,
}

/// Severity of a [`Finding`], lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Level {
    /// No problem.
    Fine,
    /// Good to know, and acceptable in many installations.
    Remark,
    /// Loses or stops jobs, or soon will.
    Warning,
}

impl Finding {
    /// A finding without a problem.
    #[must_use]
    pub fn fine(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Fine, about, text: text.into(), advice: None }
    }

    /// A finding that is good to know.
    #[must_use]
    pub fn remark(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Remark, ..Self::fine(about, text) }
    }

    /// A finding about lost or stopped jobs.
    #[must_use]
    pub fn warning(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::fine(about, text) }
    }

    /// The same, with advice.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}
