//! Answers that a client keeps for a while, so that many callers cost one question.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Result;
use crate::store::JobCounts;
use crate::sync::Lock;

/// Time for which [`Listening`] is used.
const FRESH: Duration = Duration::from_secs(5);
/// Interval between two warnings about one queue.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
/// Number of warnings to remember.
const MAX_WARNINGS: usize = 1_000;

/// The cached answers of a client.
#[derive(Default)]
pub(crate) struct Caches {
    counts: Lock<Option<JobCounts>>,
    queues: tokio::sync::Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    listening: Option<(Instant, Listening)>,
    /// Time of the last warning, by queue and reason.
    warnings: HashMap<(String, &'static str), Instant>,
}

/// Queues that workers take jobs of.
pub(crate) struct Listening {
    pub(crate) paused: BTreeSet<String>,
    /// The queues of all live workers.
    pub(crate) queues: BTreeSet<String>,
}

impl Caches {
    /// The latest counts of jobs.
    pub(crate) fn counts(&self) -> Option<JobCounts> {
        self.counts.lock().clone()
    }

    pub(crate) fn set_counts(&self, counts: JobCounts) {
        *self.counts.lock() = Some(counts);
    }

    /// The reason why no worker takes jobs of the queue; `None` if one does, or if the last call
    /// that returned this reason is less than a minute ago. `ask` runs if the last answer is too
    /// old.
    pub(crate) async fn why_not_taken(
        &self,
        queue: &str,
        ask: impl Future<Output = Result<Listening>>,
    ) -> Result<Option<&'static str>> {
        // Callers that wait for the lock use the answer that the one before them has asked for.
        let mut queues = self.queues.lock().await;
        if queues.listening.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= FRESH) {
            queues.listening = Some((Instant::now(), ask.await?));
        }
        let why = queues.listening.as_ref().and_then(|(_, listening)| listening.why_not_taken(queue));
        Ok(why.filter(|why| queues.is_warning_due(queue, why)))
    }
}

impl Queues {
    fn is_warning_due(&mut self, queue: &str, why: &'static str) -> bool {
        let now = Instant::now();
        if self.warnings.len() >= MAX_WARNINGS {
            self.warnings.retain(|_, warned| now - *warned < WARN_INTERVAL);
        }
        let key = (queue.to_owned(), why);
        let is_due = self.warnings.get(&key).is_none_or(|warned| now - *warned >= WARN_INTERVAL);
        if is_due {
            self.warnings.insert(key, now);
        }
        is_due
    }
}

impl Listening {
    fn why_not_taken(&self, queue: &str) -> Option<&'static str> {
        if self.paused.contains(queue) {
            Some("its queue is paused")
        } else if self.queues.contains(queue) {
            None
        } else {
            Some("no worker listens to its queue: start one, or look at its `--queues`")
        }
    }
}
