//! Jobs that wait for others: one worker at a time repairs what a crash or a purge left behind.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::error::{ErrorKind, Result};
use crate::store::Expect;
use crate::workers::WorkerInfo;

/// Key of the lock of the worker that sweeps.
const LOCK: &str = "lock.blocked";
/// Key of the lock of the worker that sweeps all edges.
const EDGES_LOCK: &str = "lock.edges";
/// Interval between sweeps.
const EVERY: Duration = Duration::from_secs(30);
/// The longest interval between sweeps, with many blocked jobs. A lock that a dead worker left ends
/// after this time.
const RARELY: Duration = Duration::from_secs(5 * 60);
/// Sweeps take at most one part in this many of the time.
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
        pause = sweep(&shared).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "jobs that wait for others could not be looked at, trying again");
            EVERY
        });
    }
}

/// Sweeps, unless another worker has done so recently. Returns the time to the next sweep.
async fn sweep(shared: &Shared) -> Result<Duration> {
    let dependencies = shared.scope.client.dependencies();
    let mut pause = EVERY;
    if let Some(revision) = lock(shared, LOCK, Expect::Absent, RARELY).await? {
        let begun = Instant::now();
        let swept = sweep_all(shared).await;
        pause = (begun.elapsed() * SHARE).clamp(EVERY, RARELY);
        // It ends before this worker wakes up: the next sweep is its own, or that of another one.
        lock(shared, LOCK, Expect::Revision(revision), pause * 9 / 10).await?;
        swept?;
    }
    if let Some(revision) = lock(shared, EDGES_LOCK, Expect::Absent, RARELY).await? {
        dependencies.sweep_edges().await?;
        lock(shared, EDGES_LOCK, Expect::Revision(revision), DAILY).await?;
    }
    Ok(pause)
}

/// Looks at all jobs that wait for others, and at all running jobs that are awaited.
async fn sweep_all(shared: &Shared) -> Result<()> {
    let client = &shared.scope.client;
    let dependencies = client.dependencies();
    let running = dependencies.running_without_message().await?;
    if !running.is_empty() {
        // A worker is listed before it takes jobs, so the workers of these jobs are listed now,
        // unless they have died.
        let workers = client.workers().list().await?.into_iter().filter(WorkerInfo::is_alive);
        let alive: HashSet<String> = workers.map(|worker| worker.worker_id).collect();
        for stored in running {
            if !stored.record.worker_id.as_deref().is_some_and(|worker| alive.contains(worker)) {
                dependencies.fail_orphan(stored).await?;
            }
        }
    }
    dependencies.sweep().await
}

/// Takes or renews a lock, which ends by itself. Returns its revision; `None` if another worker has
/// it.
async fn lock(shared: &Shared, key: &str, expect: Expect, kept_for: Duration) -> Result<Option<u64>> {
    let kv = shared.scope.client.backend().kv();
    match kv.put(key, Bytes::new(), expect, Some(kept_for)).await {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
        Err(error) => Err(error),
    }
}
