//! The handle of one job.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::Jobs;
use crate::client::Client;
use crate::client::Sent;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Name};
use crate::store::{JobRecord, Status};
use crate::task::IntoParents;
use crate::task::flow::{Branches, IntoFlow, goes_on};
use crate::time::{IntoDuration, check_span};

/// Handle of a kicked job with output `O`. Cheap to clone. Dropping it does not affect the job.
pub struct TaskHandle<O> {
    id: JobId,
    queue: Name,
    existing: bool,
    client: Client,
    output: PhantomData<fn() -> O>,
}

impl<O> TaskHandle<O> {
    pub(crate) fn kicked(client: Client, Sent { id, queue, existing }: Sent) -> Self {
        Self { id, queue, existing, client, output: PhantomData }
    }

    /// The id of the job.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// The queue of the job.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// True if the job existed before the kick, under its id or its unique key: the kick then added
    /// nothing.
    #[must_use]
    pub fn existing(&self) -> bool {
        self.existing
    }

    /// The current record of the job.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) once its record is gone.
    pub async fn record(&self) -> Result<JobRecord> {
        self.jobs().get(&self.id).await
    }

    /// The current status of the job.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) once its record is gone.
    pub async fn status(&self) -> Result<Status> {
        Ok(self.record().await?.status)
    }

    /// Cancels the job if it has not started; see [`Jobs::cancel`].
    ///
    /// # Errors
    /// As [`Jobs::cancel`].
    pub async fn cancel(&self) -> Result<bool> {
        self.jobs().cancel(&self.id).await
    }

    /// Cancels the job or stops its run, and waits for its end; see [`Jobs::abort`].
    ///
    /// # Errors
    /// As [`Jobs::abort`].
    pub async fn abort(&self, timeout: impl IntoDuration) -> Result<bool> {
        self.jobs().abort(&self.id, timeout).await
    }

    /// Reruns the job if it failed, expired or was cancelled; see [`Jobs::retry`].
    ///
    /// # Errors
    /// As [`Jobs::retry`].
    pub async fn retry(&self) -> Result<bool> {
        self.jobs().retry(&self.id).await
    }

    /// Removes the job, unless it runs; see [`Jobs::remove`].
    ///
    /// # Errors
    /// As [`Jobs::remove`].
    pub async fn remove(&self) -> Result<bool> {
        self.jobs().remove(&self.id).await
    }

    /// True if the job has ended, with or without a result.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) once its record is gone.
    pub async fn is_ready(&self) -> Result<bool> {
        Ok(self.record().await?.status.is_terminal())
    }

    /// Waits until the job has ended, and returns its record, with or without a result.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): its record is gone.
    /// - [`Unsupported`](ErrorKind::Unsupported): the backend keeps no records.
    pub async fn wait(&self) -> Result<JobRecord> {
        self.jobs().wait(&self.id, &self.queue).await
    }

    fn jobs(&self) -> Jobs {
        self.client.jobs()
    }
}

goes_on! {
    impl[O] TaskHandle<O>, O;
}

impl<O> IntoFlow for TaskHandle<O> {
    type Output = O;

    fn into_branches(self) -> Branches {
        Branches::job(self.id)
    }
}

impl<O: DeserializeOwned> TaskHandle<O> {
    /// Waits until the job has ended, and returns the output of its body. The store pushes the end;
    /// nothing polls. Waits without a limit; see [`result_within`](Self::result_within). A body
    /// that waits [lends its slot](crate::guide::jobs#wait-inside-a-body) meanwhile.
    ///
    /// If no worker takes jobs of the queue after five seconds, the log has a warning, once a
    /// minute per queue.
    ///
    /// Cancel safe: dropping the future does not affect the job.
    ///
    /// # Errors
    /// - [`JobFailed`](ErrorKind::JobFailed), with the [error of the job](Error::job_error);
    ///   [`Cancelled`](ErrorKind::Cancelled); [`Expired`](ErrorKind::Expired).
    /// - [`NotFound`](ErrorKind::NotFound): its record is gone.
    /// - [`Decode`](ErrorKind::Decode): the result cannot be decoded as `O`.
    /// - [`Unsupported`](ErrorKind::Unsupported): the backend keeps no records.
    pub async fn result(&self) -> Result<O> {
        output(self.wait().await?)
    }

    /// [`result`](Self::result) that waits for at most `limit`.
    ///
    /// # Errors
    /// As [`result`](Self::result), and [`NotReady`](ErrorKind::NotReady) if the job has not ended
    /// by then.
    pub async fn result_within(&self, limit: impl IntoDuration) -> Result<O> {
        let limit = check_span("the limit", limit.into_duration()?)?;
        match tokio::time::timeout(limit, self.result()).await {
            Ok(result) => result,
            Err(_) => Err(not_ready(&self.id)),
        }
    }

    /// The output of the body, without waiting.
    ///
    /// # Errors
    /// As [`result`](Self::result), and [`NotReady`](ErrorKind::NotReady) if the job has not ended
    /// yet.
    pub async fn get_result(&self) -> Result<O> {
        let record = self.record().await?;
        if record.status.is_terminal() { output(record) } else { Err(not_ready(&self.id)) }
    }
}

fn not_ready(id: &JobId) -> Error {
    Error::new(ErrorKind::NotReady, "has not ended yet").with_id(id.clone())
}

fn output<O: DeserializeOwned>(record: JobRecord) -> Result<O> {
    let id = record.id.clone();
    let ended = |kind, why: &str| Error::new(kind, why.to_owned());
    let error = match (record.status, record.result) {
        (Status::Completed, Some(payload)) => return payload.decode().map_err(|error| error.with_id(id)),
        (Status::Completed, None) => ended(ErrorKind::Decode, "its record cannot be read"),
        (Status::Cancelled, _) => ended(ErrorKind::Cancelled, "was cancelled"),
        (Status::Expired, _) => ended(ErrorKind::Expired, "expired before it was started"),
        (status, _) => match &record.error {
            Some(error) => ended(ErrorKind::JobFailed, &format!("failed: {error}")),
            None => ended(ErrorKind::JobFailed, &format!("{status} without a result")),
        },
    };
    let error = error.with_id(id);
    Err(match record.error {
        Some(job_error) => error.with_job_error(*job_error),
        None => error,
    })
}

impl<O> IntoParents for &TaskHandle<O> {
    fn into_parents(self) -> Vec<JobId> {
        vec![self.id.clone()]
    }
}

impl<O> Clone for TaskHandle<O> {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            queue: self.queue.clone(),
            existing: self.existing,
            client: self.client.clone(),
            output: PhantomData,
        }
    }
}

impl<O> fmt::Debug for TaskHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("id", &self.id).field("queue", &self.queue).finish_non_exhaustive()
    }
}
