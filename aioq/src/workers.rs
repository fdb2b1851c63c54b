//! Listing workers: [`Workers`].

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::codec::Codec;
use crate::error::Result;
use crate::time::Timestamp;

/// Prefix of the keys of workers; the id of the worker follows.
pub(crate) const WORKERS: &str = "worker.";

/// Suffix of the key of a worker's heartbeat, after the key of the worker.
pub(crate) const HEARTBEAT: &str = ".alive";

/// Lifetime of a heartbeat, by the clock of the store, which removes its key then. A worker without
/// a heartbeat counts as dead.
pub(crate) const HEARTBEAT_TTL: Duration = Duration::from_secs(30);

/// Smallest clock difference to report: a heartbeat takes time on its way.
#[cfg(feature = "cli")]
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// Lists workers.
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
    /// The known workers, the oldest first. A worker that died is listed for five more minutes; a
    /// worker that was stopped is not.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn list(&self) -> Result<Vec<WorkerInfo>> {
        let mut workers: Vec<WorkerInfo> =
            self.registered().await?.into_iter().map(|worker| worker.info).collect();
        workers.sort_by_key(|worker| worker.registered_at);
        Ok(workers)
    }

    /// The schedules that living workers have in their code.
    pub(crate) async fn schedules_in_code(&self) -> Result<HashSet<String>> {
        let registered = self.registered().await?.into_iter();
        let alive = registered.filter(|worker| worker.info.alive);
        Ok(alive.flat_map(|worker| worker.schedules).collect())
    }

    async fn registered(&self) -> Result<Vec<Registered>> {
        let entries = self.client.backend().kv().scan(WORKERS).await?;
        let heartbeats: HashSet<&str> =
            entries.iter().filter_map(|entry| entry.key.strip_suffix(HEARTBEAT)).collect();
        // Entries that another version wrote and this one cannot read are skipped.
        let readable = entries.iter().filter_map(|entry| {
            let mut worker: Registered = Codec::decode_value(&entry.value).ok()?;
            worker.info.alive = !worker.gives_signs || heartbeats.contains(&*entry.key);
            Some(worker)
        });
        Ok(readable.collect())
    }
}

/// The stored entry of a worker.
#[derive(Serialize, Deserialize)]
pub(crate) struct Registered {
    #[serde(flatten)]
    pub(crate) info: WorkerInfo,
    /// True if the worker's heartbeat has a key of its own. A worker of an older version is alive
    /// while listed.
    #[serde(default)]
    pub(crate) gives_signs: bool,
    /// Ids of the schedules in its code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) schedules: Vec<String>,
}

/// A worker, as it describes itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Id of the worker.
    pub worker_id: String,
    /// Queues that it takes jobs of.
    pub queues: Vec<String>,
    /// Time of its start.
    pub registered_at: Timestamp,
    /// Time of its last heartbeat, by its own clock.
    pub last_heartbeat: Timestamp,
    /// Name of its host.
    pub host: String,
    /// Its version of aioq.
    pub version: String,
    /// Largest number of async jobs that run at once.
    pub concurrency: usize,
    /// Number of jobs that it holds.
    pub busy: usize,
    /// Largest number of blocking jobs that run at once.
    #[serde(default)]
    pub blocking_threads: usize,
    /// Number of running blocking jobs, including jobs that ignore their timeout, without jobs that
    /// wait for other jobs.
    #[serde(default)]
    pub blocking_busy: usize,
    /// Memory of its process in bytes; `None` where the system does not report it.
    #[serde(default)]
    pub rss_bytes: Option<u64>,
    /// True if its heartbeat was there when it was listed.
    #[serde(skip)]
    pub(crate) alive: bool,
}

impl WorkerInfo {
    /// True if it sent a heartbeat within 30 s before it was listed. The clock of the store
    /// decides, not that of the worker or of this machine.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// Smallest possible difference of its clock from one that shows `now`; `None` if they may
    /// agree.
    #[cfg(feature = "cli")]
    pub(crate) fn clock_off(&self, now: Timestamp) -> Option<Duration> {
        let (behind, ahead) = (now.since(self.last_heartbeat), self.last_heartbeat.since(now));
        let off = behind.saturating_sub(HEARTBEAT_TTL).max(ahead);
        (self.alive && off > CLOCK_SLACK).then_some(off)
    }
}
