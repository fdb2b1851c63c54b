//! Mocked jobs, for tests of code that kicks jobs and waits for them.

use std::sync::Arc;

use serde::Serialize;

use crate::broker::Queued;
use crate::client::Client;
use crate::error::{Error, ErrorKind, JobError, Reason, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, JobRecord, JobStore, Status};
use crate::time::Timestamp;

/// Worker id of mocked jobs.
const WORKER: &str = "mock";

/// Marks a waiting job as running.
///
/// No worker may listen to its queue: it would run the job.
///
/// ```
/// use aioq::store::Status;
/// use aioq::testing::{set_complete, set_in_progress};
/// use aioq::{Client, Memory};
///
/// #[aioq::task]
/// async fn add(a: i64, b: i64) -> i64 {
///     a + b
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = Client::connect(Memory::new()).await?;
/// let handle = client.kiq(add(1, 2)).await?;
///
/// set_in_progress(&client, handle.id()).await?;
/// assert_eq!(handle.status().await?, Status::Running);
///
/// set_complete(&client, handle.id(), Ok(3)).await?;
/// assert_eq!(handle.result().await?, 3);
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) if no such job waits, [`Unsupported`](ErrorKind::Unsupported)
/// if the backend keeps no records.
pub async fn set_in_progress(client: &Client, id: &JobId) -> Result<()> {
    let (mut record, _) = waiting(client, id).await?;
    record.status = Status::Running;
    record.started_at = Some(Timestamp::now());
    put(client, record).await
}

/// Marks a job as ended, with the result of its body or with an error text.
///
/// # Errors
/// As [`set_in_progress`], and [`Encode`](ErrorKind::Encode).
pub async fn set_complete<T: Serialize>(client: &Client, id: &JobId, result: Result<T, &str>) -> Result<()> {
    let (mut record, queued) = waiting(client, id).await?;
    let now = Timestamp::now();
    record.started_at.get_or_insert(now);
    record.finished_at = Some(now);
    match result {
        Ok(value) => {
            record.status = Status::Completed;
            record.result = Some(client.codec().encode(&value)?);
        }
        Err(why) => {
            record.status = Status::Failed;
            record.reason = Some(Reason::Error);
            record.error = Some(Box::new(JobError::new("Error", why)));
            record.dead_lettered = true;
            record.message = Some(queued.body.clone());
        }
    }
    put(client, record).await?;
    client.backend().broker().remove(&[queued]).await.into_iter().try_for_each(|removed| removed.map(drop))
}

/// A job that waits or is mocked as running, with its message.
async fn waiting(client: &Client, id: &JobId) -> Result<(JobRecord, Queued)> {
    let queued = client.backend().broker().find(id).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "no such job waits, so it cannot be mocked").with_id(id.clone())
    })?;
    let message = Message::open(&queued.body)?;
    let mut record = match store(client)?.get(id).await? {
        Some(stored) if !stored.record.is_removed() => stored.record,
        _ => JobRecord::of(&message, Status::Pending),
    };
    record.worker_id = Some(WORKER.into());
    Ok((record, queued))
}

async fn put(client: &Client, record: JobRecord) -> Result<()> {
    let ttl = client.retention().span(record.status);
    store(client)?.put(Arc::new(record), Expect::Any, Some(ttl)).await.map(drop)
}

fn store(client: &Client) -> Result<&Arc<dyn JobStore>> {
    let none = || Error::new(ErrorKind::Unsupported, "this backend keeps no records of jobs");
    client.backend().jobs().ok_or_else(none)
}
