//! Removal of records that late writes cannot undo.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use crate::broker::Expect;
use crate::error::{ErrorKind, Result};
use crate::store::{JobRecord, JobStore, Stored};
use crate::time::Timestamp;

/// Time for which a removed record stays replaced: longer than any write takes to arrive, and than
/// any job has a worker that cannot start it.
const REPLACED_FOR: Duration = Duration::from_secs(3600);

/// Number of concurrent writes.
const MAX_WRITES: usize = 64;

/// Removes these records, unless they were written again since. Returns true for each that was
/// removed.
///
/// A worker may still hold the message of a removed job, and write its result if there is no
/// record. So the record of a job that ended recently is replaced by [one that counts as
/// absent](JobRecord::removed), which expires.
pub(crate) async fn forget(store: &dyn JobStore, records: &[Stored], now: Timestamp) -> Vec<Result<bool>> {
    let old = |stored: &Stored| stored.record.finished_at.is_some_and(|at| now.since(at) >= REPLACED_FOR);
    let (old, recent): (Vec<usize>, Vec<usize>) = (0..records.len()).partition(|index| old(&records[*index]));
    let mut gone: Vec<(usize, Result<bool>)> = Vec::with_capacity(records.len());
    if !old.is_empty() {
        let removed: Vec<Stored> = old.iter().map(|index| records[*index].clone()).collect();
        gone.extend(old.into_iter().zip(store.remove(&removed).await));
    }
    let replaced = iter(recent).map(|index| async move { (index, replace(store, &records[index]).await) });
    gone.extend(replaced.buffer_unordered(MAX_WRITES).collect::<Vec<_>>().await);
    gone.sort_unstable_by_key(|(index, _)| *index);
    gone.into_iter().map(|(_, gone)| gone).collect()
}

async fn replace(store: &dyn JobStore, stored: &Stored) -> Result<bool> {
    let removed = Arc::new(JobRecord::removed(&stored.record));
    match store.put(removed, Expect::Revision(stored.revision), Some(REPLACED_FOR)).await {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        put => put.map(|_| true),
    }
}
