//! Retention of ended jobs by number: one worker at a time removes the surplus records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::error::{ErrorKind, Result};
use crate::store::{Expect, JobStore, Page, RecordFilter, Status};
use crate::sync::PerThread;

/// Key of the lock of the worker that removes records.
const LOCK: &str = "lock.retention";
/// The shortest time for which the lock is held, so that many workers do not count one after
/// another.
const LOCK_KEPT: Duration = Duration::from_secs(1);
/// Interval between checks whether enough jobs have ended.
const LOOK: Duration = Duration::from_secs(1);
/// Number of checks after which records are removed in any case.
const LOOKS_WITHOUT_REASON: u32 = 60;

/// Jobs that ended on this worker since the last removal.
#[derive(Default)]
pub(super) struct Ended(PerThread<Counts>);

#[derive(Default)]
struct Counts {
    completed: AtomicU64,
    badly: AtomicU64,
}

impl Counts {
    fn of(&self, status: Status) -> &AtomicU64 {
        match status {
            Status::Completed => &self.completed,
            _ => &self.badly,
        }
    }
}

impl Ended {
    /// Counts one ended job.
    pub(super) fn count(&self, status: Status) {
        self.0.own().1.of(status).fetch_add(1, Ordering::Relaxed);
    }

    /// True if enough jobs have ended to count the records: a fifth of the number to keep.
    fn are_enough(&self, status: Status, kept: u64) -> bool {
        let ended: u64 = self.0.all().iter().map(|counts| counts.of(status).load(Ordering::Relaxed)).sum();
        ended >= (kept / 5).clamp(1_000, 50_000)
    }

    fn forget(&self, status: Status) {
        self.0.all().iter().for_each(|counts| counts.of(status).store(0, Ordering::Relaxed));
    }
}

/// Removes surplus records until the guard is dropped.
pub(super) fn keep(shared: &Arc<Shared>) -> AbortOnDrop {
    spawn_beside(shared, keep_few(Arc::clone(shared)))
}

async fn keep_few(shared: Arc<Shared>) {
    let Some(jobs) = shared.scope.client.backend().jobs() else { return };
    let retention = shared.scope.client.retention();
    let mut looks = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        looks += 1;
        let due = looks >= LOOKS_WITHOUT_REASON;
        let due = |status: &Status| due || shared.ended.are_enough(*status, retention.count(*status));
        let full: Vec<Status> =
            Status::ALL.into_iter().filter(|status| status.is_terminal() && due(status)).collect();
        if full.is_empty() {
            continue;
        }
        if looks >= LOOKS_WITHOUT_REASON {
            looks = 0;
        }
        let tidied = tidy(&shared, &**jobs, &full).await;
        let swept = if full.len() > 1 { sweep(&**jobs).await } else { Ok(()) };
        if let Err(error) = tidied.and(swept) {
            tracing::debug!(%error, "records of ended jobs could not be counted");
        }
    }
}

/// Removes the surplus records of these statuses, unless another worker does.
async fn tidy(shared: &Shared, jobs: &dyn JobStore, full: &[Status]) -> Result<()> {
    for status in full {
        shared.ended.forget(*status);
    }
    let kv = shared.scope.client.backend().kv();
    match kv.put(LOCK, Bytes::new(), Expect::Absent, Some(LOCK_KEPT)).await {
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
        other => other?,
    };
    let retention = shared.scope.client.retention();
    let old = retention.old(shared.scope.client.now());
    for status in full {
        let mut gone = jobs.trim(*status, retention.most(*status), None).await?;
        gone += jobs.trim(*status, retention.count(*status), Some(old)).await?;
        if gone > 0 {
            tracing::debug!(%status, gone, "records beyond the number to keep were removed");
        }
    }
    Ok(())
}

/// Number of running records to check each time.
const SWEPT: usize = 500;

/// Removes running records that are not the newest of their job. A server that crashed may bring
/// back a replaced record, which would be counted until its TTL ends.
async fn sweep(jobs: &dyn JobStore) -> Result<()> {
    let running = RecordFilter::new().status(Status::Running);
    let mut stale = Vec::new();
    for stored in jobs.list(&running, Page::oldest(SWEPT)).await? {
        let newest = jobs.get(&stored.record.id).await?;
        if newest.is_some_and(|newest| newest.revision > stored.revision) {
            stale.push(stored);
        }
    }
    jobs.remove(&stale).await.into_iter().try_for_each(|removed| removed.map(drop))
}
