//! Jobs that wait for others: one worker at a time repairs what a crash or a purge left behind.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::error::{ErrorKind, Result};
use crate::store::Expect;

/// Key of the lock of the worker that sweeps.
const LOCK: &str = "lock.blocked";
/// Key of the lock of the worker that sweeps all edges.
const EDGES_LOCK: &str = "lock.edges";
/// Interval between sweeps.
const EVERY: Duration = Duration::from_secs(30);
/// The longest interval, with many blocked jobs.
const RARELY: Duration = Duration::from_secs(5 * 60);
/// A sweep may take at most this fraction of the time.
const SHARE: u32 = 20;
/// Interval between sweeps of all edges.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// Sweeps until the guard is dropped.
pub(super) fn keep(shared: &Arc<Shared>) -> AbortOnDrop {
    spawn_beside(shared, sweep_on(Arc::clone(shared)))
}

async fn sweep_on(shared: Arc<Shared>) {
    if shared.jobs().is_none() {
        return;
    }
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        if let Err(error) = sweep(&shared).await {
            tracing::debug!(%error, "jobs that wait for others could not be looked at, trying again");
        }
        pause = (begun.elapsed() * SHARE).clamp(EVERY, RARELY);
    }
}

/// Sweeps, unless another worker has done so recently.
async fn sweep(shared: &Shared) -> Result<()> {
    let dependencies = shared.scope.client.dependencies();
    if lock(shared, LOCK, EVERY * 2 / 3).await? {
        dependencies.sweep().await?;
    }
    if lock(shared, EDGES_LOCK, DAILY).await? {
        dependencies.sweep_edges().await?;
    }
    Ok(())
}

/// True if this worker has the lock, which ends by itself.
async fn lock(shared: &Shared, key: &str, kept_for: Duration) -> Result<bool> {
    let kv = shared.scope.client.backend().kv();
    match kv.put(key, Bytes::new(), Expect::Absent, Some(kept_for)).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}
