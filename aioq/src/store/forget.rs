//! Removing records so that they stay removed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use crate::broker::Expect;
use crate::error::{ErrorKind, Result};
use crate::store::{JobRecord, JobStore, Stored};
use crate::time::Timestamp;

/// For how long the place of a record stays taken: longer than any write is on its way, and any job with a worker that
/// cannot start it.
const TAKEN: Duration = Duration::from_secs(3600);

/// How many records to write at a time.
const WRITES: usize = 64;

/// Removes these records, as they were read: one that was written again meanwhile stays. For each, whether it went.
///
/// A worker may still hold the message of a job that is gone, and write what became of it if there is no record. So
/// the record of a job that ended of late is replaced by [one that says nothing](JobRecord::removed), which expires.
pub(crate) async fn forget(store: &dyn JobStore, records: &[Stored], now: Timestamp) -> Vec<Result<bool>> {
    let old = |stored: &Stored| stored.record.finished_at.is_some_and(|at| now.since(at) >= TAKEN);
    let (old, recent): (Vec<usize>, Vec<usize>) = (0..records.len()).partition(|index| old(&records[*index]));
    let mut gone: Vec<(usize, Result<bool>)> = Vec::with_capacity(records.len());
    if !old.is_empty() {
        let removed: Vec<Stored> = old.iter().map(|index| records[*index].clone()).collect();
        gone.extend(old.into_iter().zip(store.remove(&removed).await));
    }
    let replaced = iter(recent).map(|index| async move { (index, replace(store, &records[index]).await) });
    gone.extend(replaced.buffer_unordered(WRITES).collect::<Vec<_>>().await);
    gone.sort_unstable_by_key(|(index, _)| *index);
    gone.into_iter().map(|(_, gone)| gone).collect()
}

async fn replace(store: &dyn JobStore, stored: &Stored) -> Result<bool> {
    let removed = Arc::new(JobRecord::removed(&stored.record));
    match store.put(removed, Expect::Revision(stored.revision), Some(TAKEN)).await {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        put => put.map(|_| true),
    }
}
