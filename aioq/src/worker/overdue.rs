//! Overdue jobs: delayed jobs whose time has come and whose message the broker never delivered. One
//! worker at a time has the broker search for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::error::{ErrorKind, Result};
use crate::store::Expect;
use crate::time::Timestamp;

/// Key of the last search: its start, and the time for which it is enough.
const KEY: &str = "overdue";
/// Interval between searches while nothing fails.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// A search may take at most this fraction of the time: the next one waits this many times as long.
const SHARE: u32 = 100;
/// Time from the moment the storage has room again to the search. By then a missed job is late
/// enough to be told from one that the broker is about to deliver.
const AFTER: Duration = Duration::from_secs(6);
/// Pause after a search that failed.
const AGAIN: Duration = Duration::from_secs(10);

/// Searches until the guard is dropped.
pub(super) fn keep(shared: &Arc<Shared>) -> AbortOnDrop {
    spawn_beside(shared, look_on(Arc::clone(shared)))
}

async fn look_on(shared: Arc<Shared>) {
    if shared.scope.client.in_process() {
        // A broker in this process misses nothing that the worker survives.
        return;
    }
    let mut since = None;
    loop {
        let pause = match look(&shared, since).await {
            Ok(()) => {
                since = None;
                EVERY
            }
            Err(error) => {
                tracing::debug!(%error, "the search for overdue jobs failed, trying again");
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.storage.freed() => {
                tokio::time::sleep(AFTER).await;
                since = Some(shared.scope.client.now());
            }
        }
    }
}

/// Searches for overdue jobs, unless a worker has done so after `since`, or without one recently.
async fn look(shared: &Shared, since: Option<Timestamp>) -> Result<()> {
    if !claim(shared, since).await? {
        return Ok(());
    }
    let (begun, started) = (Instant::now(), shared.scope.client.now());
    let broker = shared.scope.client.backend().broker();
    // No other worker searches for a while after the claim.
    let found = loop {
        match broker.recover_overdue().await {
            Err(error) if error.is_outage() => {
                tracing::debug!(%error, "overdue jobs could not be recovered, trying again");
                tokio::time::sleep(AGAIN).await;
            }
            found => break found?,
        }
    };
    if found > 0 {
        tracing::warn!(found, "recovered overdue jobs that the broker had not delivered");
    }
    write(shared, started, begun.elapsed() * SHARE, Expect::Any).await
}

/// True if this worker is to search.
async fn claim(shared: &Shared, since: Option<Timestamp>) -> Result<bool> {
    let last = shared.scope.client.backend().kv().get(KEY).await?;
    let now = shared.scope.client.now();
    let expect = match last {
        Some(last) if is_enough(&last.value, since, now) => return Ok(false),
        Some(last) => Expect::Revision(last.revision),
        None => Expect::Absent,
    };
    match write(shared, now, EVERY, expect).await {
        Ok(()) => Ok(true),
        // Another worker has just begun its search.
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

async fn write(shared: &Shared, started: Timestamp, enough: Duration, expect: Expect) -> Result<()> {
    let enough = enough.max(EVERY);
    let value = format!("{} {}", started.as_micros(), enough.as_secs());
    let kv = shared.scope.client.backend().kv();
    kv.put(KEY, Bytes::from(value), expect, Some(enough * 2)).await.map(drop)
}

/// True if the search in `value` makes another one needless.
fn is_enough(value: &[u8], since: Option<Timestamp>, now: Timestamp) -> bool {
    let read = || {
        let (started, enough) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some((Timestamp::from_micros(started.parse().ok()?), Duration::from_secs(enough.parse().ok()?)))
    };
    match (read(), since) {
        // A start in the future comes from a worker whose clock is ahead.
        (Some((started, _)), Some(since)) => started >= since && started <= now,
        (Some((started, enough)), None) => started <= now && now.since(started) < enough,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_enough_for_its_time_and_not_for_what_happened_since() {
        let at = |seconds: i64| Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000);
        let value = format!("{} 600", at(0).as_micros());
        let is_enough = |since: Option<i64>, now| is_enough(value.as_bytes(), since.map(at), at(now));
        assert!(is_enough(None, 599) && !is_enough(None, 601) && !is_enough(None, -1));
        assert!(is_enough(Some(-5), 3) && !is_enough(Some(1), 3));
        assert!(!super::is_enough(b"?", None, at(0)));
    }
}
