//! Signs of life: each worker keeps an entry of itself in the shared state.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::run::AbortOnDrop;
use crate::broker::lease_runtime;
use crate::client::Client;
use crate::codec::Codec;
use crate::error::Result;
use crate::store::{Expect, KvStore};
use crate::time::Timestamp;

/// How often a worker gives a sign of life.
const EVERY: Duration = Duration::from_secs(10);
/// A worker that gave none for this long counts as dead.
const ALIVE: Duration = Duration::from_secs(30);
/// How long a worker that died is remembered.
const KEEP: Duration = Duration::from_secs(5 * 60);

const PREFIX: &str = "worker.";

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
}

impl WorkerInfo {
    /// Whether its latest sign of life is young enough.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Timestamp::now().since(self.last_heartbeat) < ALIVE
    }

    /// All workers that are known.
    pub(crate) async fn all(client: &Client) -> Result<Vec<Self>> {
        let entries = client.backend().kv().scan(PREFIX).await?;
        // What another version wrote, and this one cannot read, is passed over.
        Ok(entries.iter().filter_map(|entry| Codec::decode_value(&entry.value).ok()).collect())
    }
}

/// Gives signs of life until it is stopped or dropped.
pub(super) struct Heartbeat {
    kv: Arc<dyn KvStore>,
    key: String,
    _beating: AbortOnDrop,
}

impl Heartbeat {
    /// Registers the worker, and goes on saying that it lives.
    pub(super) async fn start(shared: &Arc<Shared>) -> Result<Self> {
        let kv = Arc::clone(shared.scope.client.backend().kv());
        let key = format!("{PREFIX}{}", shared.scope.worker_id);
        let registered_at = Timestamp::now();
        kv.put(&key, describe(shared, registered_at), Expect::Any, Some(KEEP)).await?;
        let beating = beat(Arc::clone(shared), Arc::clone(&kv), key.clone(), registered_at);
        let in_process = shared.scope.client.backend().broker().info().in_process;
        let beating = if in_process { tokio::spawn(beating) } else { lease_runtime().spawn(beating) };
        Ok(Self { kv, key, _beating: AbortOnDrop(beating) })
    }

    /// Deregisters the worker.
    pub(super) async fn stop(self) {
        if let Err(error) = self.kv.delete(&self.key, Expect::Any).await {
            tracing::debug!(%error, "the worker could not be deregistered, it will be forgotten by itself");
        }
    }
}

async fn beat(shared: Arc<Shared>, kv: Arc<dyn KvStore>, key: String, registered_at: Timestamp) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = kv.put(&key, describe(&shared, registered_at), Expect::Any, Some(KEEP)).await {
            tracing::warn!(%error, "no sign of life could be given");
        }
    }
}

fn describe(shared: &Shared, registered_at: Timestamp) -> Bytes {
    let info = WorkerInfo {
        worker_id: shared.scope.worker_id.to_string(),
        queues: shared.queues.clone(),
        registered_at,
        last_heartbeat: Timestamp::now(),
        host: host(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        concurrency: shared.options.concurrency,
        busy: shared.held.count(),
    };
    // A plain struct of text and numbers always has a form.
    Codec::MessagePack.encode(&info).map(|payload| payload.as_bytes().clone()).unwrap_or_default()
}

fn host() -> String {
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = std::env::var("HOSTNAME").ok().or_else(from_kernel);
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
