//! Signs of life: each worker keeps an entry of itself in the shared state.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::codec::Codec;
use crate::error::Result;
use crate::store::{Expect, KvStore};
use crate::time::Timestamp;
use crate::workers::{WORKERS, WorkerInfo};
use bytes::Bytes;

/// How often a worker gives a sign of life.
const EVERY: Duration = Duration::from_secs(10);
/// How long a worker that died is remembered.
const KEEP: Duration = Duration::from_secs(5 * 60);

/// Gives signs of life until it is stopped or dropped.
pub(super) struct Heartbeat {
    kv: Arc<dyn KvStore>,
    key: String,
    beating: AbortOnDrop,
}

impl Heartbeat {
    /// Registers the worker, and goes on saying that it lives.
    pub(super) async fn start(shared: &Arc<Shared>) -> Result<Self> {
        let kv = Arc::clone(shared.scope.client.backend().kv());
        let key = format!("{WORKERS}{}", shared.scope.worker_id);
        let registered_at = Timestamp::now();
        kv.put(&key, describe(shared, registered_at), Expect::Any, Some(KEEP)).await?;
        let beating = beat(Arc::clone(shared), Arc::clone(&kv), key.clone(), registered_at);
        Ok(Self { kv, key, beating: spawn_beside(shared, beating) })
    }

    /// Deregisters the worker.
    pub(super) async fn stop(self) {
        // No sign of life after this one.
        drop(self.beating);
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
        rss_bytes: rss_bytes(),
    };
    // A plain struct of text and numbers always has a form.
    Codec::MessagePack.encode(&info).map(|payload| payload.as_bytes().clone()).unwrap_or_default()
}

/// The resident memory of this process, where the kernel tells.
fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

fn host() -> String {
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = std::env::var("HOSTNAME").ok().or_else(from_kernel);
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
