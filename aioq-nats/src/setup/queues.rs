//! Which queues there are: each has a key, written by those who use it.
//!
//! The streams cannot be asked cheaply, and a queue whose jobs are all done leaves no trace in them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use aioq::Result;
use aioq::store::Expect;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;

use crate::connection::Session;
use crate::kv;

/// The keys of queues start with this; the rest is the name.
const KEYS: &str = "queue.";

/// How long a queue is remembered that nobody uses.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often one process says that it uses a queue.
const RENEWED: Duration = Duration::from_secs(24 * 3600);

/// How long a kick leaves it to an earlier one, which is at it or failed.
const LEFT: Duration = Duration::from_secs(5);

/// How many queues are known at most; then all are forgotten, and written again.
const MOST: usize = 10_000;

/// How many are written at a time.
const AT_ONCE: usize = 64;

/// The queues that this process need not write, each until that time.
#[derive(Default)]
pub(crate) struct KnownQueues(RwLock<HashMap<String, Instant>>);

impl KnownQueues {
    /// Whether the caller is to write this queue now; if so, others do not for a while.
    pub(crate) fn claim(&self, queue: &str) -> bool {
        self.claim_at(queue, Instant::now())
    }

    fn claim_at(&self, queue: &str, now: Instant) -> bool {
        let is_known = |known: &HashMap<String, Instant>| known.get(queue).is_some_and(|until| now < *until);
        if is_known(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return false;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have been faster.
        let claimed = !is_known(&known);
        if claimed {
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(queue.to_owned(), now + LEFT);
        }
        claimed
    }

    /// All queues that this process has used.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn written(&self, queue: &str) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(queue.to_owned(), Instant::now() + RENEWED);
    }
}

/// Writes a queue that was claimed. A failure is no reason to refuse a job: a later kick tries again.
pub(crate) async fn write(session: &Session, queue: &str) {
    let key = format!("{KEYS}{queue}");
    match kv::put(session, &key, Bytes::new(), Expect::Any, Some(REMEMBERED)).await {
        Ok(_) => session.queues.written(queue),
        Err(error) => tracing::warn!(%error, queue, "the list of queues may lack one for now"),
    }
}

/// As [`write()`], for many.
pub(crate) async fn write_all(session: &Session, queues: Vec<&str>) {
    stream::iter(queues).for_each_concurrent(AT_ONCE, |queue| write(session, queue)).await;
}

/// The queues, in the order of their names.
pub(crate) async fn list(session: &Session) -> Result<Vec<String>> {
    let entries = kv::scan(session, KEYS).await?;
    Ok(entries.into_iter().filter_map(|entry| entry.key.strip_prefix(KEYS).map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_claimed_once_a_day_and_soon_again_if_that_failed() {
        let (known, now) = (KnownQueues::default(), Instant::now());
        assert!(known.claim_at("a", now) && known.claim_at("b", now));
        assert!(!known.claim_at("a", now));
        known.written("a");
        assert!(!known.claim_at("a", now + LEFT) && known.claim_at("b", now + LEFT));
        assert!(known.claim_at("a", now + LEFT + RENEWED));
    }

    #[test]
    fn no_more_than_so_many_are_known() {
        let known = KnownQueues::default();
        for n in 0..=MOST {
            assert!(known.claim(&n.to_string()));
        }
        assert!(known.0.read().unwrap().len() <= MOST);
    }
}
