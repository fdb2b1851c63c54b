//! Jobs from the outside: the [`TaskHandle`] of one, and [`Jobs`] for any.

mod handle;
mod view;

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

pub use self::handle::TaskHandle;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message};
use crate::store::{JobRecord, JobStore, Status, Stored, Watched};

/// How often a waiter reads the record again although nobody told it to: what a broken connection may cost.
const RECHECK: Duration = Duration::from_secs(10);

/// How often, and how long apart, a retry waits for the message of the run that has just ended to be gone.
const RETRY_TRIES: u32 = 40;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait before a watch is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks at jobs and steers them, by id.
#[derive(Clone, Debug)]
pub struct Jobs {
    client: Client,
}

impl Jobs {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// What is known of a job: its record, or its message in the queue. It exists the moment a kick returns.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) with the id if there is no such job, or its record is gone.
    pub async fn get(&self, id: &JobId) -> Result<JobRecord> {
        let backend = self.client.backend();
        // A job moves from the queue to its record and back while it is looked for, so the queue is asked
        // before and after: it cannot be missed by both.
        let before = backend.broker.find(id).await?;
        let stored = self.stored(id).await?;
        if let Some(record) = view::merge(before, stored)? {
            return Ok(record);
        }
        let after = backend.broker.find(id).await?;
        let stored = self.stored(id).await?;
        view::merge(after, stored)?.ok_or_else(|| not_found(id))
    }

    async fn stored(&self, id: &JobId) -> Result<Option<Stored>> {
        match self.client.backend().jobs() {
            Some(jobs) => jobs.get(id).await,
            None => Ok(None),
        }
    }

    /// Runs a job again that failed, expired or was cancelled: on the queue that it was kicked to, with its
    /// attempts counted from 1. False if it is in another state, or somebody else was first.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): no such job, or its record is gone.
    pub async fn retry(&self, id: &JobId) -> Result<bool> {
        let stored = self.stored(id).await?;
        let Some(Stored { record, revision }) = stored else {
            // It may wait, or be running in its first moments; or there is no such job.
            return self.get(id).await.map(|_| false);
        };
        let again = matches!(record.status, Status::Failed | Status::Expired | Status::Cancelled);
        let Some(body) = record.message.filter(|_| again) else { return Ok(false) };
        let Ok(mut message) = Message::open(&body) else { return Ok(false) };
        message.attempt = 1;
        message.run_at = None;
        message.expires_at = None;
        // The worker then expects that record, and nobody else's.
        message.supersedes = Some(revision);
        self.kick_again(message, revision).await
    }

    /// Kicks the successor of a job that has ended, whose message may still be there for a moment.
    async fn kick_again(&self, message: Message, revision: u64) -> Result<bool> {
        for _ in 0..RETRY_TRIES {
            if !self.client.kick::<()>(message.clone()).await?.existing() {
                return Ok(true);
            }
            let queued = self.client.backend().broker().find(&message.id).await?;
            let newer = queued.and_then(|queued| Message::open(&queued.body).ok());
            if newer.is_some_and(|newer| newer.supersedes.unwrap_or(0) >= revision) {
                return Ok(false);
            }
            let newest = self.stored(&message.id).await?.map(|stored| stored.revision);
            if newest != Some(revision) {
                return Ok(false);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(false)
    }

    /// Waits until a job has ended, and returns its record. Pushed by the store, not polled.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Unsupported`](ErrorKind::Unsupported): the backend keeps no records.
    pub(crate) async fn ended(&self, id: &JobId, queue: &str) -> Result<JobRecord> {
        let store = self.store()?;
        // Watched first, read second: a record written in between is seen by the one or the other.
        let mut records = self.watch_again(store, id, queue).await?;
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
        loop {
            match tokio::time::timeout(RECHECK, records.next()).await {
                Ok(Some(record)) if record.status.is_terminal() => return Ok(record),
                Ok(Some(_)) => continue,
                // The watch broke: watch anew, then look.
                Ok(None) => records = self.watch_again(store, id, queue).await?,
                // Nothing came for long: look.
                Err(_) => {}
            }
            if let Some(record) = self.ended_already(id).await? {
                return Ok(record);
            }
        }
    }

    async fn watch_again(
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

    fn store(&self) -> Result<&dyn JobStore> {
        self.client.backend().jobs().map(|jobs| &**jobs).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "this backend keeps no records of jobs, so there is no result to wait for",
            )
        })
    }
}

fn not_found(id: &JobId) -> Error {
    Error::new(ErrorKind::NotFound, "no such job, or its record is gone").with_id(id.clone())
}
