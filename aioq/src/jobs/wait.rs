//! Waiting for the end of a job.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::Jobs;
use crate::client::Listening;
use crate::context::Waiting;
use crate::error::Result;
use crate::message::JobId;
use crate::store::{JobRecord, JobStore, Status, Watched};

/// Time until a waiter reads the record without having been notified; doubled each time. A lost
/// notification costs at most this.
const FIRST_RECHECK: Duration = Duration::from_secs(1);
const LAST_RECHECK: Duration = Duration::from_secs(10);

/// Length of a wait after which it is checked that workers take jobs of the queue.
const WARN_AFTER: Duration = Duration::from_secs(5);

/// Pause before a broken watch is opened again.
const WATCH_RETRY: Duration = Duration::from_millis(200);

impl Jobs {
    /// Waits until a job has ended, and returns its record. Pushed by the store, not polled.
    ///
    /// # Errors
    /// - [`NotFound`](crate::ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Unsupported`](crate::ErrorKind::Unsupported): the backend keeps no records.
    pub(crate) async fn wait(&self, id: &JobId, queue: &str) -> Result<JobRecord> {
        let store = self.store()?;
        // First the watch, then the read: a record written in between is in one of them.
        let records = self.watch_again(store, id, queue).await?;
        match store.get(id).await {
            Ok(Some(stored)) if stored.record.status == Status::Completed => return Ok(stored.record),
            Ok(Some(stored)) if !stored.record.status.is_terminal() => {}
            Ok(None) => {}
            Err(error) if !error.is_outage() => return Err(error),
            // A job that failed may have been kicked again: then its message is newer.
            Ok(Some(_)) | Err(_) => {
                if let Some(record) = self.ended_record(id).await? {
                    return Ok(record);
                }
            }
        }
        let waiting = Waiting::begin();
        let ended = tokio::select! {
            biased;
            ended = self.until_ended(store, id, queue, records) => ended,
            // Boxed to keep the future of a wait small.
            never = Box::pin(self.warn_if_no_worker(id, queue)) => match never {},
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
                Ok(Some(announced)) => {
                    if let Some(record) = self.confirmed_end(store, announced).await? {
                        return Ok(record);
                    }
                    continue;
                }
                // The watch broke: open it again, then read.
                Ok(None) => records = self.watch_again(store, id, queue).await?,
                // No notification for long: read.
                Err(_) => recheck = (recheck * 2).min(LAST_RECHECK),
            }
            if let Some(record) = self.ended_record(id).await? {
                return Ok(record);
            }
        }
    }

    /// Logs a warning if the wait lasts and no worker takes jobs of the queue.
    async fn warn_if_no_worker(&self, id: &JobId, queue: &str) -> Infallible {
        tokio::time::sleep(WARN_AFTER).await;
        match self.client.caches().why_not_taken(queue, self.listening()).await {
            Ok(Some(why)) => tracing::warn!(%id, queue, "a caller waits for a job, and {why}"),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, queue, "cannot check whether a worker takes jobs of the queue")
            }
        }
        std::future::pending().await
    }

    async fn listening(&self) -> Result<Listening> {
        let paused = self.client.queues().paused().await?;
        let workers = self.client.workers().list().await?;
        let alive = workers.into_iter().filter(|worker| worker.is_alive());
        Ok(Listening { paused, queues: alive.flat_map(|worker| worker.queues).collect() })
    }

    /// The stored record of an announced end. An announcement alone proves nothing: any user who
    /// may publish there can forge it.
    async fn confirmed_end(&self, store: &dyn JobStore, announced: JobRecord) -> Result<Option<JobRecord>> {
        if !announced.status.is_terminal() {
            return Ok(None);
        }
        if self.client.in_process() {
            return Ok(Some(announced));
        }
        match store.get(&announced.id).await {
            Ok(stored) => Ok(stored.map(|stored| stored.record).filter(|record| record.status.is_terminal())),
            // The next recheck reads it.
            Err(error) if error.is_outage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a watch of one job, trying again during an outage.
    pub(super) async fn watch_again(
        &self,
        store: &dyn JobStore,
        id: &JobId,
        queue: &str,
    ) -> Result<BoxStream<'static, JobRecord>> {
        loop {
            match store.watch(Watched::Job { id: id.clone(), queue: queue.to_owned() }).await {
                // The wait goes on during an outage.
                Err(error) if error.is_outage() => tokio::time::sleep(WATCH_RETRY).await,
                other => return other,
            }
        }
    }

    async fn ended_record(&self, id: &JobId) -> Result<Option<JobRecord>> {
        match self.get(id).await {
            Ok(record) => Ok(Some(record).filter(|record| record.status.is_terminal())),
            // The wait goes on during an outage.
            Err(error) if error.is_outage() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
