//! Ties of a message to other things.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{JobId, Label, Name};
use crate::error::{Error, ErrorKind, Result, excerpt};
use crate::time::Timestamp;

/// What ties a job to other things: a tick of a schedule, a unique key, the jobs before and after
/// it. Most messages have no ties.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Ties {
    /// The tick of a schedule that the job runs for.
    pub tick: Option<Tick>,
    /// The unique key that the job holds.
    pub unique: Option<UniqueTie>,
    /// Jobs that must have ended before this one. A message carries the first 100; the record of
    /// the job has all.
    pub parents: Vec<JobId>,
    /// How a new job waits for its parents; `None` once it was released. It does not travel.
    pub(crate) wait: Option<ParentWait>,
    /// True if other jobs wait for the end of this one.
    pub awaited: bool,
    /// Reserved labels that this version does not know. Later messages of the job keep them.
    pub(crate) other: Vec<(String, Label)>,
}

/// Number of parents that a message carries.
pub(crate) const MAX_SENT_PARENTS: usize = 100;

/// What becomes of a job when one of its parents does not complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OnParentFailure {
    /// It fails at once, with the reason [`Dependency`](crate::error::Reason::Dependency).
    #[default]
    Fail,
    /// It counts the parent as completed, and runs.
    Run,
    /// It waits until somebody reruns the parent and the parent completes.
    Wait,
}

impl OnParentFailure {
    /// The word for it, as on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Run => "run",
            Self::Wait => "wait",
        }
    }
}

/// How a job waits for its parents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ParentWait {
    pub(crate) on_failure: OnParentFailure,
    /// Delay of the job after the end of its last parent.
    pub(crate) delay: Duration,
    /// The arguments that are results of its parents.
    pub(crate) takes: Box<[Take]>,
    /// Parents of the same flow: they know that they are awaited, and are kicked after this job.
    pub(crate) in_flow: Vec<JobId>,
}

/// An argument of a job that is made of the results of its parents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Take {
    /// Name of the argument.
    pub(crate) argument: Name,
    pub(crate) of: TakeOf,
    /// True if the argument is a `Result`, with the error of a parent that did not complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) settled: bool,
}

/// The parents whose results an argument is made of, by their places in the list of parents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TakeOf {
    /// The result of one parent.
    One(usize),
    /// A list of results.
    Each(Vec<usize>),
}

impl TakeOf {
    /// The places of the parents.
    pub(crate) fn places(&self) -> &[usize] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Each(places) => places,
        }
    }
}

/// A tick of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Id of the schedule.
    pub schedule: Box<str>,
    /// Nominal time of the tick; `None` for a job that was run by hand, besides the ticks.
    pub at: Option<Timestamp>,
}

/// The unique key of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UniqueTie {
    /// The key.
    pub key: UniqueKey,
    /// Number of the trigger whose arguments a debounced job carries.
    pub version: Option<u64>,
    /// How the kick takes the key. It does not travel.
    pub(crate) terms: Terms,
}

/// How a kick takes a unique key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Time from the kick for which a completed job still holds the key.
    pub(crate) within: Duration,
    /// The pause after the last trigger, and the longest wait since the first one.
    pub(crate) debounce: Option<(Duration, Option<Duration>)>,
}

/// Number of hexadecimal digits of a unique key.
const KEY_DIGITS: usize = 32;

/// The key of a unique job: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UniqueKey(Box<str>);

impl UniqueKey {
    /// The key of these 16 bytes.
    pub(crate) fn of_bytes(bytes: [u8; KEY_DIGITS / 2]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(bytes)).into())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for anything but 32 hexadecimal digits in
    /// lower case.
    pub fn parse(text: &str) -> Result<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == KEY_DIGITS && text.bytes().all(is_digit) {
            return Ok(Self(text.into()));
        }
        let why = format!("a unique key has {KEY_DIGITS} hexadecimal digits, not `{}`", excerpt(text));
        Err(Error::new(ErrorKind::InvalidArgument, why))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl UniqueTie {
    pub(crate) fn new(key: UniqueKey, terms: Terms) -> Self {
        Self { key, version: None, terms }
    }

    /// The form of the label: the key, and after `:` the version.
    pub(crate) fn to_label(&self) -> String {
        match self.version {
            Some(version) => format!("{}:{version}", self.key),
            None => self.key.as_str().to_owned(),
        }
    }

    pub(crate) fn of_label(text: &str) -> Result<Self> {
        let (key, version) = match text.split_once(':') {
            Some((key, version)) => {
                let version = version.parse().map_err(|_| {
                    Error::new(ErrorKind::InvalidArgument, "the version of a unique key is a number")
                })?;
                (key, Some(version))
            }
            None => (text, None),
        };
        Ok(Self { version, ..Self::new(UniqueKey::parse(key)?, Terms::default()) })
    }
}
