//! How many records of ended jobs are kept: one worker at a time tidies up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::error::{ErrorKind, Result};
use crate::store::{Expect, JobStore, Status};

/// Whoever holds this key tidies up.
const LOCK: &str = "lock.retention";
/// How long the lock is held at least, so that many workers do not all count one after the other.
const LOCK_KEPT: Duration = Duration::from_secs(1);
/// How often a worker looks whether it has reason to tidy up.
const LOOK: Duration = Duration::from_secs(1);
/// How often it tidies up without a reason of its own: every so many looks.
const LOOKS_WITHOUT_REASON: u32 = 60;

/// Tidies up until the guard is dropped.
pub(super) fn keep(shared: &Arc<Shared>) -> AbortOnDrop {
    spawn_beside(shared, keep_few(Arc::clone(shared)))
}

async fn keep_few(shared: Arc<Shared>) {
    let Some(jobs) = shared.scope.client.backend().jobs() else { return };
    let mut looks = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        looks += 1;
        if shared.ended.load(Ordering::Relaxed) < enough(&shared) && looks < LOOKS_WITHOUT_REASON {
            continue;
        }
        looks = 0;
        shared.ended.store(0, Ordering::Relaxed);
        if let Err(error) = tidy(&shared, &**jobs).await {
            tracing::debug!(%error, "records of ended jobs could not be counted");
        }
    }
}

/// So many jobs ended here are a reason to look: a tenth of what is kept.
fn enough(shared: &Shared) -> u64 {
    let retention = shared.scope.client.retention();
    let fewest = retention.count(Status::Completed).min(retention.count(Status::Failed));
    (fewest / 10).clamp(1_000, 20_000)
}

async fn tidy(shared: &Shared, jobs: &dyn JobStore) -> Result<()> {
    let kv = shared.scope.client.backend().kv();
    match kv.put(LOCK, Bytes::new(), Expect::Absent, Some(LOCK_KEPT)).await {
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
        other => other?,
    };
    let retention = shared.scope.client.retention();
    for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
        let gone = jobs.trim(status, retention.count(status)).await?;
        if gone > 0 {
            tracing::debug!(%status, gone, "records beyond the number to keep were removed");
        }
    }
    Ok(())
}
