//! What an operator should know of a broker: [`Finding`].

use serde::Serialize;

/// One thing that an operator should know of a broker and its stores: what a crash would cost, a limit that
/// is near, a setting that loses jobs. [`Broker::examine`](super::Broker::examine) tells them, the command
/// `doctor` prints them.
///
/// ```
/// use aioq::broker::{Finding, Level};
///
/// let finding = Finding::remark("disk_loss", "A lost disk takes all jobs with it.").advice("Back it up.");
/// assert_eq!((finding.level, finding.about), (Level::Remark, "disk_loss"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a key for programs, the same for ever. Several findings may be about the same.
    pub about: &'static str,
    /// A sentence or two for people who do not know the backend.
    pub text: String,
    /// What to do about it, where there is something to do.
    pub advice: Option<String>,
}

/// How bad a [`Finding`] is, from the best up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Level {
    /// As it should be.
    Fine,
    /// Good to know; many live well with it.
    Remark,
    /// It loses jobs, stops them, or soon will.
    Warning,
}

impl Finding {
    /// Something is as it should be.
    #[must_use]
    pub fn fine(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Fine, about, text: text.into(), advice: None }
    }

    /// Something is good to know.
    #[must_use]
    pub fn remark(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Remark, ..Self::fine(about, text) }
    }

    /// Something loses jobs, stops them, or soon will.
    #[must_use]
    pub fn warning(about: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::fine(about, text) }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}
