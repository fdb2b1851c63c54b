//! Requests that are repeated while the server is away.

use std::future::Future;
use std::time::Duration;

use super::{Attempt, Unsettled};
use crate::error::{Error, ErrorKind, Result};

/// The first and the longest pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Attempt<'_> {
    /// Repeats a request while the server is away: the result of a run is worth the wait.
    ///
    /// The worker ends the wait by dropping the future when its grace period is over. The job then
    /// comes again after `ack_wait`.
    pub(super) async fn patient<T, F>(&self, request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        repeat(self.delivery, request, warn_unreachable).await
    }

    /// As [`patient`](Self::patient), for a request that stores something: while the storage is
    /// full, the worker starts no job.
    pub(super) async fn saving<T, F>(&self, request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut unsaved = None;
        let on_outage = |error: &Error| {
            if error.kind() == ErrorKind::StorageFull {
                unsaved.get_or_insert_with(|| self.worker.storage.wait(error));
            } else {
                warn_unreachable(error);
            }
        };
        let saved = repeat(self.delivery, request, on_outage).await;
        if let Some(unsaved) = unsaved {
            unsaved.saved();
        }
        saved
    }
}

fn warn_unreachable(error: &Error) {
    tracing::warn!(%error, "the backend does not answer, trying again");
}

async fn repeat<T, F>(
    delivery: Unsettled<'_>,
    mut request: impl FnMut() -> F,
    mut on_outage: impl FnMut(&Error),
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match request().await {
            Err(error) if error.is_outage() => {
                on_outage(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE).min(delivery.ack_wait());
            }
            other => return other,
        }
    }
}
