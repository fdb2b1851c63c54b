//! Events of a world, in order.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aioq::store::JobRecord;
use aioq::{JobId, Timestamp};
use bytes::Bytes;
use tokio::time::Instant;

/// Everything that has happened, in order. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    begun: Instant,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// Something that has happened.
#[derive(Clone, Debug)]
pub struct Line {
    /// Since the beginning.
    pub at: Duration,
    /// The number of the link that it happened on.
    pub link: usize,
    /// The event.
    pub fact: Fact,
}

/// Kinds of events.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The broker got a kick; whether it became a message, and which record it comes after.
    Kicked {
        /// The job.
        id: JobId,
        /// The revision that the message comes after.
        supersedes: Option<u64>,
        /// Tells the kicks under one id apart.
        kicked_at: Option<Timestamp>,
        /// True if it became a message.
        new: bool,
    },
    /// The store keeps a record.
    Put(Arc<JobRecord>, u64),
    /// The store has removed the record of a job.
    Removed(JobId),
    /// The entry of a unique key has a value.
    Wrote(String, Bytes),
    /// The body of a job was started: the number of the run, the job, its attempt.
    Started(usize, JobId, u32),
    /// A run has come to its end, or was dropped.
    Ended(usize, String),
    /// A request of a client, with its number.
    Asked(usize, Request, JobId),
    /// The request was answered; `None` for an error.
    Answered(usize, Option<bool>),
    /// A request to the backend, and what goes wrong with it.
    Fault(&'static str, String, &'static str),
    /// Anything else.
    Note(String),
}

/// Requests of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A kick.
    Kick,
    /// A cancel.
    Cancel,
    /// An abort.
    Abort,
    /// A retry.
    Retry,
    /// A removal.
    Remove,
}

impl Journal {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, lines: Arc::default() }
    }

    /// Adds a line.
    pub fn note(&self, link: usize, fact: Fact) {
        self.lines().push(Line { at: self.begun.elapsed(), link, fact });
    }

    /// All lines.
    ///
    /// # Panics
    /// A thread panicked while it wrote an event.
    pub fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().expect("nothing panics while it is locked")
    }

    /// Differs where the journals differ, in more than the numbers of revisions: those follow the
    /// real clock.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let (mut hasher, mut numbers) = (DefaultHasher::new(), HashMap::from([(0, 0)]));
        for line in self.lines().iter() {
            line.renumbered(&mut numbers).to_string().hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Line {
    /// The same, with revisions numbered as they come.
    fn renumbered(&self, numbers: &mut HashMap<u64, u64>) -> Self {
        let mut line = self.clone();
        let revision = match &mut line.fact {
            Fact::Put(_, revision) => Some(revision),
            Fact::Kicked { supersedes, .. } => supersedes.as_mut(),
            _ => None,
        };
        if let Some(revision) = revision {
            let next = numbers.len() as u64;
            *revision = *numbers.entry(*revision).or_insert(next);
        }
        line
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} [{}] {}", self.at.as_secs_f64(), self.link, self.fact)
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kicked { id, supersedes, new, .. } => {
                let what = if *new { "is in the broker" } else { "was in the broker before" };
                write!(f, "{id} {what}, after {supersedes:?}")
            }
            Self::Put(record, revision) if record.is_removed() => {
                write!(f, "{} is removed at revision {revision}", record.id)
            }
            Self::Put(record, revision) => {
                let JobRecord { id, status, attempt, starts, reason, .. } = &**record;
                write!(f, "{id} is {status} at revision {revision}, attempt {attempt}, starts {starts}")?;
                reason.map_or(Ok(()), |reason| write!(f, ", because of {reason}"))
            }
            Self::Wrote(key, _) => write!(f, "{key} is written"),
            Self::Removed(id) => write!(f, "the record of {id} is removed"),
            Self::Started(run, id, attempt) => write!(f, "{id} runs, run {run}, attempt {attempt}"),
            Self::Ended(run, how) => write!(f, "run {run} ends: {how}"),
            Self::Asked(number, request, id) => write!(f, "request {number}: {request:?} {id}"),
            Self::Answered(number, answer) => write!(f, "request {number} is answered {answer:?}"),
            Self::Fault(what, of, fault) => write!(f, "{what} {of} {fault}"),
            Self::Note(text) => f.write_str(text),
        }
    }
}
