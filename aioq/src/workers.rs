//! Workers from the outside: [`Workers`] lists them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::codec::Codec;
use crate::error::Result;
use crate::time::Timestamp;

/// The keys of workers start with this.
pub(crate) const WORKERS: &str = "worker.";

/// A worker that gave no sign of life for this long counts as dead.
const ALIVE: Duration = Duration::from_secs(30);

/// Looks at workers.
#[derive(Clone, Debug)]
pub struct Workers {
    client: Client,
}

impl Workers {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The workers that are known, the oldest first. One that died is listed for five minutes more; one that
    /// was stopped is not.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn list(&self) -> Result<Vec<WorkerInfo>> {
        let entries = self.client.backend().kv().scan(WORKERS).await?;
        // What another version wrote, and this one cannot read, is passed over.
        let readable = entries.iter().filter_map(|entry| Codec::decode_value(&entry.value).ok());
        let mut workers: Vec<WorkerInfo> = readable.collect();
        workers.sort_by_key(|worker| worker.registered_at);
        Ok(workers)
    }
}

/// A worker as it describes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its id.
    pub worker_id: String,
    /// The queues that it consumes.
    pub queues: Vec<String>,
    /// When it started.
    pub registered_at: Timestamp,
    /// Its latest sign of life.
    pub last_heartbeat: Timestamp,
    /// The host that it runs on.
    pub host: String,
    /// The version of aioq.
    pub version: String,
    /// Async jobs that it runs at once.
    pub concurrency: usize,
    /// Jobs that it holds.
    pub busy: usize,
    /// Blocking jobs that it runs at once.
    #[serde(default)]
    pub blocking_threads: usize,
    /// Blocking jobs that it runs, but for those that wait for other jobs. One that ignores its timeout is among them.
    #[serde(default)]
    pub blocking_busy: usize,
    /// The memory that its process uses, in bytes; `None` where the system does not tell.
    #[serde(default)]
    pub rss_bytes: Option<u64>,
}

impl WorkerInfo {
    /// Whether its latest sign of life is young enough.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Timestamp::now().since(self.last_heartbeat) < ALIVE
    }
}
