//! Waiting for the end of a job.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::Jobs;
use crate::context::Waiting;
use crate::error::Result;
use crate::message::JobId;
use crate::store::{JobRecord, JobStore, Status, Watched};

/// When a waiter reads the record again although nobody told it to, and then after twice as long each time: what a
/// word that got lost on its way may cost.
const FIRST_RECHECK: Duration = Duration::from_secs(1);
const LAST_RECHECK: Duration = Duration::from_secs(10);

/// How long a wait may last before it is asked whether anybody takes jobs of the queue.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before a watch is tried again.
const PAUSE: Duration = Duration::from_millis(200);

impl Jobs {
    /// Waits until a job has ended, and returns its record. Pushed by the store, not polled.
    ///
    /// # Errors
    /// - [`NotFound`](crate::ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Unsupported`](crate::ErrorKind::Unsupported): the backend keeps no records.
    pub(crate) async fn wait(&self, id: &JobId, queue: &str) -> Result<JobRecord> {
        let store = self.store()?;
        // Watched first, read second: a record written in between is seen by the one or the other.
        let records = self.rewatched(store, id, queue).await?;
        match store.get(id).await {
            Ok(Some(stored)) if stored.record.status == Status::Completed => return Ok(stored.record),
            Ok(None) => {}
            Err(error) if !error.is_outage() => return Err(error),
            // A job that did not complete may have been kicked again; its message tells.
            Ok(Some(_)) | Err(_) => {
                if let Some(record) = self.ended_already(id).await? {
                    return Ok(record);
                }
            }
        }
        let waiting = Waiting::begin();
        let ended = tokio::select! {
            biased;
            ended = self.until_ended(store, id, queue, records) => ended,
            // Boxed, so that the future of a wait stays small.
            never = Box::pin(self.warn_if_unheard(id, queue)) => match never {},
        };
        waiting.end().await;
        ended
    }

    async fn until_ended(
        &self,
        store: &dyn JobStore,
        id: &JobId,
        queue: &str,
        mut records: BoxStream<'static, JobRecord>,
    ) -> Result<JobRecord> {
        let mut recheck = FIRST_RECHECK;
        loop {
            match tokio::time::timeout(recheck, records.next()).await {
                Ok(Some(told)) => {
                    if let Some(record) = self.believed(store, told).await? {
                        return Ok(record);
                    }
                    continue;
                }
                // The watch broke: watch anew, then look.
                Ok(None) => records = self.rewatched(store, id, queue).await?,
                // Nothing came for long: look.
                Err(_) => recheck = (recheck * 2).min(LAST_RECHECK),
            }
            if let Some(record) = self.ended_already(id).await? {
                return Ok(record);
            }
        }
    }

    /// Says if no worker takes jobs of the queue when the wait has lasted for a while.
    async fn warn_if_unheard(&self, id: &JobId, queue: &str) -> Infallible {
        tokio::time::sleep(PATIENCE).await;
        match self.client.why_unheard(queue).await {
            Ok(Some(why)) => tracing::warn!(%id, queue, "waits for a job, and {why}"),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, queue, "cannot ask who takes jobs of the queue"),
        }
        std::future::pending().await
    }

    /// The end of a job that was told of, if it is stored: anybody may tell who is permitted to publish there.
    async fn believed(&self, store: &dyn JobStore, told: JobRecord) -> Result<Option<JobRecord>> {
        if !told.status.is_terminal() {
            return Ok(None);
        }
        if self.client.in_process() {
            return Ok(Some(told));
        }
        match store.get(&told.id).await {
            Ok(stored) => Ok(stored.map(|stored| stored.record).filter(|record| record.status.is_terminal())),
            // It is looked at again.
            Err(error) if error.is_outage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn rewatched(
        &self,
        store: &dyn JobStore,
        id: &JobId,
        queue: &str,
    ) -> Result<BoxStream<'static, JobRecord>> {
        loop {
            match store.watch(Watched::Job { id: id.clone(), queue: queue.to_owned() }).await {
                // An outage is no reason to stop waiting.
                Err(error) if error.is_outage() => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
    }

    async fn ended_already(&self, id: &JobId) -> Result<Option<JobRecord>> {
        match self.get(id).await {
            Ok(record) => Ok(Some(record).filter(|record| record.status.is_terminal())),
            // An outage is no reason to stop waiting.
            Err(error) if error.is_outage() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
