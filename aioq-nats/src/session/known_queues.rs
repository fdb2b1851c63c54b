//! Queues whose registration this process need not repeat: [`KnownQueues`].

use std::collections::HashMap;
use std::sync::RwLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{read, write};

/// Interval at which one process registers a queue again.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// Time for which a kick relies on the registration that an earlier kick has started.
const CLAIM: Duration = Duration::from_secs(5);

/// Number of queues remembered. Beyond it all are forgotten, and registered again on their next
/// use.
const MAX_QUEUES: usize = 10_000;

/// Queues with the time until which their registration holds.
#[derive(Default)]
pub(crate) struct KnownQueues(RwLock<HashMap<String, Instant>>);

impl KnownQueues {
    /// True if the caller must register the queue now. Other callers get false for a while.
    pub(crate) fn claim(&self, queue: &str) -> bool {
        self.claim_at(queue, Instant::now())
    }

    fn claim_at(&self, queue: &str, now: Instant) -> bool {
        let is_known = |known: &HashMap<String, Instant>| known.get(queue).is_some_and(|until| now < *until);
        if is_known(&read(&self.0)) {
            return false;
        }
        let mut known = write(&self.0);
        // Another caller may have claimed it between the two locks.
        let claimed = !is_known(&known);
        if claimed {
            if known.len() >= MAX_QUEUES {
                known.clear();
            }
            known.insert(queue.to_owned(), now + CLAIM);
        }
        claimed
    }

    /// Notes that a queue was registered.
    pub(crate) fn registered(&self, queue: &str) {
        let mut known = write(&self.0);
        known.insert(queue.to_owned(), Instant::now() + RENEWAL);
    }

    /// All queues that this process has used.
    pub(crate) fn all(&self) -> Vec<String> {
        read(&self.0).keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_claimed_once_a_day_and_soon_again_if_that_failed() {
        let (known, now) = (KnownQueues::default(), Instant::now());
        assert!(known.claim_at("a", now) && known.claim_at("b", now));
        assert!(!known.claim_at("a", now));
        known.registered("a");
        assert!(!known.claim_at("a", now + CLAIM) && known.claim_at("b", now + CLAIM));
        assert!(known.claim_at("a", now + CLAIM + RENEWAL));
    }

    #[test]
    fn the_number_of_known_queues_is_limited() {
        let known = KnownQueues::default();
        for n in 0..=MAX_QUEUES {
            assert!(known.claim(&n.to_string()));
        }
        assert!(known.0.read().unwrap().len() <= MAX_QUEUES);
    }
}
