//! Queues from the outside: [`Queues`] pauses and resumes them.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::broker::QueueDepth;
use crate::client::Client;
use crate::error::Result;
use crate::message::check_queue_name;
use crate::store::Expect;

/// Looks at queues, pauses and resumes them.
#[derive(Clone, Debug)]
pub struct Queues {
    client: Client,
}

impl Queues {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// How much is in each of these queues.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        self.client.backend().broker().depths(queues).await
    }

    /// Pauses a queue for all workers: they stop taking its jobs, running ones finish. Kicks and delays go on.
    /// It lasts until [`resume`](Self::resume), over restarts of everything; pausing twice is once.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn pause(&self, queue: &str) -> Result<()> {
        check_queue_name(queue)?;
        self.client.backend().kv().put(&key(queue), Bytes::new(), Expect::Any, None).await.map(drop)
    }

    /// Ends the pause of a queue; whether it was paused. Workers take its jobs again at once.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn resume(&self, queue: &str) -> Result<bool> {
        check_queue_name(queue)?;
        self.client.backend().kv().delete(&key(queue), Expect::Any).await
    }

    /// The queues that are paused.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn paused(&self) -> Result<BTreeSet<String>> {
        let entries = self.client.backend().kv().scan(PAUSES).await?;
        Ok(entries.iter().filter_map(|entry| queue_of(&entry.key)).collect())
    }
}

/// The keys of paused queues start with this.
pub(crate) const PAUSES: &str = "pause.";

fn key(queue: &str) -> String {
    // One part of a key, whatever the name: keys are split at dots.
    format!("{PAUSES}{}", queue.replace('%', "%25").replace('.', "%2E"))
}

/// The queue that a key pauses.
pub(crate) fn queue_of(key: &str) -> Option<String> {
    Some(key.strip_prefix(PAUSES)?.replace("%2E", ".").replace("%25", "%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_queue_name_is_one_part_of_a_key() {
        for queue in ["default", "a.b", "..", "50%", "%2E", "größe >*"] {
            let key = key(queue);
            assert_eq!(key.matches('.').count(), 1, "{key}");
            assert_eq!(queue_of(&key).unwrap(), queue);
        }
    }
}
