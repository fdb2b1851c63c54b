//! Workers from the outside: [`Workers`] lists them.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::codec::Codec;
use crate::error::Result;
use crate::time::Timestamp;

/// The keys of workers start with this.
pub(crate) const WORKERS: &str = "worker.";

/// The keys of the signs of life of workers end with this, after the key of the worker.
pub(crate) const SIGN: &str = ".alive";

/// How long a sign of life counts, by the clock of the store: its key is gone then. A worker whose last sign is older
/// counts as dead.
pub(crate) const SIGN_TTL: Duration = Duration::from_secs(30);

/// How far a clock may seem to be off before it is worth a word: a sign of life takes its time.
#[cfg(feature = "cli")]
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// Looks at workers.
#[derive(Clone, Debug)]
pub struct Workers {
    client: Client,
}

impl Client {
    /// Lists workers.
    #[must_use]
    pub fn workers(&self) -> Workers {
        Workers { client: self.clone() }
    }
}

impl Workers {
    /// The workers that are known, the oldest first. One that died is listed for five minutes more; one that
    /// was stopped is not.
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn list(&self) -> Result<Vec<WorkerInfo>> {
        let entries = self.client.backend().kv().scan(WORKERS).await?;
        let signs: HashSet<&str> = entries.iter().filter_map(|entry| entry.key.strip_suffix(SIGN)).collect();
        // What another version wrote, and this one cannot read, is passed over.
        let readable = entries.iter().filter_map(|entry| {
            let mut worker: Registered = Codec::decode_value(&entry.value).ok()?;
            worker.info.alive = !worker.gives_signs || signs.contains(&*entry.key);
            Some(worker.info)
        });
        let mut workers: Vec<WorkerInfo> = readable.collect();
        workers.sort_by_key(|worker| worker.registered_at);
        Ok(workers)
    }
}

/// What is stored of a worker.
#[derive(Serialize, Deserialize)]
pub(crate) struct Registered {
    #[serde(flatten)]
    pub(crate) info: WorkerInfo,
    /// Its signs of life have a key of their own. One of an older version lives as long as it is listed.
    #[serde(default)]
    pub(crate) gives_signs: bool,
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
    /// Its latest sign of life, by its own clock.
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
    /// Whether its sign of life was there when it was listed.
    #[serde(skip)]
    pub(crate) alive: bool,
}

impl WorkerInfo {
    /// Whether it gave a sign of life within the last 30 s before it was listed. The store tells by its own clock:
    /// neither that of the worker nor that of this machine counts.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// How far its clock is off at least, as seen from a machine whose clock shows `now`; `None` if they may agree.
    #[cfg(feature = "cli")]
    pub(crate) fn clock_off(&self, now: Timestamp) -> Option<Duration> {
        let (behind, ahead) = (now.since(self.last_heartbeat), self.last_heartbeat.since(now));
        let off = behind.saturating_sub(SIGN_TTL).max(ahead);
        (self.alive && off > CLOCK_SLACK).then_some(off)
    }
}
