//! Dead letters: jobs that were given up, until somebody looks.

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use crate::bulk::Bulk;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::{JobFilter, JobList, JobsPage};
use crate::message::JobId;
use crate::store::{JobRecord, Status};

/// How many jobs to kick again at a time.
const AT_ONCE: usize = 64;

/// Jobs that failed for good or expired. Each is a record that says so, with its error, its history, its
/// arguments and the queue that it came from; as many are kept as the client's
/// [`Retention`](crate::store::Retention) says.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    client: Client,
}

impl Client {
    /// Lists, replays and drops dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters { client: self.clone() }
    }
}

impl DeadLetters {
    /// The dead letters, the latest first; of one queue, task or status, if the filter says so.
    ///
    /// # Errors
    /// As [`Jobs::list`](crate::Jobs::list).
    pub async fn list(&self, filter: JobFilter, page: impl Into<JobsPage>) -> Result<JobList> {
        let filter = filter.or_statuses(&[Status::Failed, Status::Expired]).dead_lettered();
        self.client.jobs().list(filter, page).await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if that job is none.
    pub async fn get(&self, id: &JobId) -> Result<JobRecord> {
        let record = self.client.jobs().get(id).await?;
        match record.dead_lettered {
            true => Ok(record),
            false => {
                let message = format!("is no dead letter, it is {}", record.status);
                Err(Error::new(ErrorKind::NotFound, message).with_id(id.clone()))
            }
        }
    }

    /// Runs a job again, on the queue that it came from; as [`Jobs::retry`](crate::Jobs::retry).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job, or it is no dead letter.
    pub async fn replay(&self, id: &JobId) -> Result<bool> {
        self.get(id).await?;
        self.client.jobs().retry(id).await
    }

    /// Runs every dead letter again that the filter lets through, but for those that cannot run again, as
    /// [`replay`](Self::replay) tells of one.
    ///
    /// # Errors
    /// What the backend reports when it cannot be reached. Part of the jobs may have been kicked by then.
    pub async fn replay_all(&self, filter: JobFilter) -> Result<Bulk> {
        self.each(filter, async |id| self.replay(&id).await).await
    }

    /// Forgets a dead letter; false if that job is none any more.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job.
    pub async fn drop(&self, id: &JobId) -> Result<bool> {
        let record = self.client.jobs().get(id).await?;
        match record.dead_lettered {
            true => self.client.jobs().remove(id).await,
            false => Ok(false),
        }
    }

    /// Forgets every dead letter that the filter lets through.
    ///
    /// # Errors
    /// What the backend reports when it cannot be reached. Part of the jobs may be gone by then.
    pub async fn drop_all(&self, filter: JobFilter) -> Result<Bulk> {
        self.each(filter, async |id| self.drop(&id).await).await
    }

    /// Does something to every dead letter.
    async fn each(&self, filter: JobFilter, act: impl AsyncFn(JobId) -> Result<bool>) -> Result<Bulk> {
        let (mut bulk, mut page) = (Bulk::default(), JobsPage::of(1_000));
        let act = async |id: JobId| act(id.clone()).await.map_err(|error| error.with_id(id));
        loop {
            let list = self.list(filter.clone(), page).await?;
            let mut acts = iter(list.jobs.into_iter().map(|job| act(job.id))).buffer_unordered(AT_ONCE);
            while let Some(acted) = acts.next().await {
                match acted {
                    Ok(true) => bulk.done += 1,
                    Ok(false) => {}
                    // Somebody else was faster.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => bulk.pass_over(error)?,
                }
            }
            match list.next {
                Some(next) => page = JobsPage::of(1_000).after(next),
                None => return Ok(bulk),
            }
        }
    }
}
