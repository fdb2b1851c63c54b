//! Waiting for a condition: [`until`].

use std::time::Duration;

use aioq::store::JobRecord;
use aioq::{Client, JobId, TaskHandle};
use tokio::time::{Instant, sleep};

use crate::patience::{PATIENCE, soon};

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until a condition holds.
///
/// # Panics
/// It does not hold within [`PATIENCE`].
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE, what, condition).await;
}

/// Waits until a condition holds, with a limit of its own.
///
/// # Panics
/// It does not hold within `limit`.
pub async fn until_within(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        sleep(PAUSE).await;
    }
}

/// The record of a job once it has ended.
///
/// # Panics
/// It does not end within [`PATIENCE`].
pub async fn ended<O>(handle: &TaskHandle<O>) -> JobRecord {
    soon(handle.wait()).await.expect("the record can be read")
}

/// The record of a job once it is as wanted.
///
/// # Panics
/// It does not get there within [`PATIENCE`].
pub async fn record_when(client: &Client, id: &JobId, wanted: impl Fn(&JobRecord) -> bool) -> JobRecord {
    let found = async {
        loop {
            match client.jobs().get(id).await {
                Ok(record) if wanted(&record) => return record,
                _ => sleep(PAUSE).await,
            }
        }
    };
    soon(found).await
}
