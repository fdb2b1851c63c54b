//! Dead letters: jobs that failed for good or expired, kept for an operator.

use futures_util::StreamExt as _;
use futures_util::stream::iter;

use crate::bulk::Bulk;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::{JobFilter, JobList, JobsPage};
use crate::message::JobId;
use crate::store::{JobRecord, Status};

/// Number of jobs to rerun or drop concurrently.
const CONCURRENT: usize = 64;

/// Jobs that failed for good or expired. A dead letter is the record of its job, with error,
/// history, arguments and queue. The client's [`Retention`](crate::store::Retention) limits how
/// many are kept.
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
    /// Lists the dead letters that match a filter, the latest first.
    ///
    /// # Errors
    /// As [`Jobs::list`](crate::jobs::Jobs::list).
    pub async fn list(&self, filter: JobFilter, page: impl Into<JobsPage>) -> Result<JobList> {
        let filter = filter.or_statuses(&[Status::Failed, Status::Expired]).dead_lettered();
        self.client.jobs().list(filter, page).await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the job is not a dead letter.
    pub async fn get(&self, id: &JobId) -> Result<JobRecord> {
        let record = self.client.jobs().get(id).await?;
        if record.dead_lettered {
            return Ok(record);
        }
        let message = format!("is not a dead letter, its status is {}", record.status);
        Err(Error::new(ErrorKind::NotFound, message).with_id(id.clone()))
    }

    /// Reruns the job of a dead letter on its queue, as [`Jobs::retry`](crate::jobs::Jobs::retry).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job, or it is not a dead letter.
    pub async fn replay(&self, id: &JobId) -> Result<bool> {
        self.get(id).await?;
        self.client.jobs().retry(id).await
    }

    /// [Replays](Self::replay) all dead letters that match a filter. Goes on past jobs that cannot
    /// run again.
    ///
    /// # Errors
    /// The errors of the backend when it cannot be reached. Some of the jobs may be kicked by then.
    pub async fn replay_all(&self, filter: JobFilter) -> Result<Bulk> {
        self.each(filter, async |id| self.replay(&id).await).await
    }

    /// Removes a dead letter. False if the job is not a dead letter any more.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job.
    pub async fn drop(&self, id: &JobId) -> Result<bool> {
        let record = self.client.jobs().get(id).await?;
        if record.dead_lettered { self.client.jobs().remove(id).await } else { Ok(false) }
    }

    /// Removes all dead letters that match a filter.
    ///
    /// # Errors
    /// The errors of the backend when it cannot be reached. Some of the jobs may be removed by
    /// then.
    pub async fn drop_all(&self, filter: JobFilter) -> Result<Bulk> {
        self.each(filter, async |id| self.drop(&id).await).await
    }

    /// Acts on all dead letters that match a filter.
    async fn each(&self, filter: JobFilter, act: impl AsyncFn(JobId) -> Result<bool>) -> Result<Bulk> {
        let (mut bulk, mut page) = (Bulk::default(), JobsPage::of(1_000));
        let act = async |id: JobId| act(id.clone()).await.map_err(|error| error.with_id(id));
        loop {
            let list = self.list(filter.clone(), page).await?;
            let mut acts = iter(list.jobs.into_iter().map(|job| act(job.id))).buffer_unordered(CONCURRENT);
            while let Some(acted) = acts.next().await {
                match acted {
                    Ok(true) => bulk.done += 1,
                    Ok(false) => {}
                    // Another client was faster.
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
