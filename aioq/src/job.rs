//! Jobs from the outside: the [`TaskHandle`] of one, and [`Jobs`] for any.

mod handle;
mod view;

use std::time::Duration;

use futures_util::StreamExt as _;

pub use self::handle::TaskHandle;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::message::JobId;
use crate::store::{JobRecord, JobStore, Stored, Watched};

/// How often a waiter reads the record again although nobody told it to: what a broken connection may cost.
const RECHECK: Duration = Duration::from_secs(10);

/// Looks at jobs, by id.
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

    /// Waits until a job has ended, and returns its record. Pushed by the store, not polled.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Unsupported`](ErrorKind::Unsupported): the backend keeps no records.
    pub(crate) async fn ended(&self, id: &JobId, queue: &str) -> Result<JobRecord> {
        let store = self.store()?;
        let watched = Watched::Job { id: id.clone(), queue: queue.to_owned() };
        // Watched first, read second: a record written in between is seen by the one or the other.
        let mut records = store.watch(watched).await?;
        if let Some(stored) = store.get(id).await?.filter(|stored| stored.record.status.is_terminal()) {
            return Ok(stored.record);
        }
        loop {
            let next = tokio::time::timeout(RECHECK, records.next()).await;
            match next {
                Ok(Some(record)) if record.status.is_terminal() => return Ok(record),
                Ok(Some(_)) => {}
                // The watch broke, or nothing came for long: look, and watch anew if need be.
                Ok(None) => {
                    records = store.watch(Watched::Job { id: id.clone(), queue: queue.to_owned() }).await?;
                    if let Some(record) = self.ended_already(id).await? {
                        return Ok(record);
                    }
                }
                Err(_) => {
                    if let Some(record) = self.ended_already(id).await? {
                        return Ok(record);
                    }
                }
            }
        }
    }

    async fn ended_already(&self, id: &JobId) -> Result<Option<JobRecord>> {
        match self.get(id).await {
            Ok(record) => Ok(Some(record).filter(|record| record.status.is_terminal())),
            // An outage is no reason to stop waiting.
            Err(error) if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Deadline) => Ok(None),
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
