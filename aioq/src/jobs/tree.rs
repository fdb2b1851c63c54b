//! The jobs around a job: those that it waits for, and those that wait for it.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;

use super::Jobs;
use crate::error::{ErrorKind, Result};
use crate::message::{JobId, Name};
use crate::store::{JobRecord, Page, RecordFilter, Status};

/// Number of jobs to look up at a time.
const AT_ONCE: usize = 64;

/// Number of records to read at a time.
const PAGE: usize = 500;

/// Number of records in which jobs are searched that have waited for others.
const SEARCHED: usize = 10_000;

/// A job of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TreeJob {
    /// Id of the job.
    pub id: JobId,
    /// Name of its task; `None` if the job is unknown.
    pub task: Option<Name>,
    /// Its status; `None` if the job is unknown: it was removed, its record has expired, or it was
    /// never kicked.
    pub status: Option<Status>,
    /// The jobs that it waits for, or waited for.
    pub depends_on: Vec<JobId>,
}

/// Jobs that depend on each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JobTree {
    /// The jobs, parents before their children.
    pub jobs: Vec<TreeJob>,
    /// True if there are more.
    pub is_cut: bool,
}

impl Jobs {
    /// The jobs that are known to wait for the end of a job, or have failed for it.
    ///
    /// # Errors
    /// The errors of the backend.
    pub async fn children(&self, id: &JobId) -> Result<Vec<JobId>> {
        self.client.dependencies().children(id).await
    }

    /// A job with all that it depends on, and all that depend on it, as far as they are remembered,
    /// up to `limit` jobs.
    ///
    /// A job that has ended is remembered as long as its record is kept. Which jobs have waited for
    /// it is searched in the records of the 10,000 latest jobs.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job; the errors of the backend.
    pub async fn tree(&self, id: &JobId, limit: usize) -> Result<JobTree> {
        let mut found = HashMap::from([(id.clone(), TreeJob::of(self.get(id).await?))]);
        let latest = self.latest_children().await?;
        let (mut open, mut is_cut) = (VecDeque::from([id.clone()]), false);
        while let Some(id) = open.pop_front() {
            let mut near: HashSet<JobId> = self.children(&id).await?.into_iter().collect();
            near.extend(latest.get(&id).into_iter().flatten().cloned());
            near.extend(found.get(&id).into_iter().flat_map(|job| job.depends_on.iter().cloned()));
            near.retain(|id| !found.contains_key(id));
            let room = limit.saturating_sub(found.len());
            is_cut |= near.len() > room;
            let near: Vec<JobId> = near.into_iter().take(room).collect();
            for job in self.look_up(&near).await? {
                open.push_back(job.id.clone());
                found.insert(job.id.clone(), job);
            }
        }
        Ok(JobTree { jobs: sorted(found), is_cut })
    }

    /// What is known of jobs, in the same order.
    pub(crate) async fn look_up(&self, ids: &[JobId]) -> Result<Vec<TreeJob>> {
        let looks = (0..ids.len()).map(async |index| match self.get(&ids[index]).await {
            Ok(record) => Ok(TreeJob::of(record)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(TreeJob::unknown(ids[index].clone())),
            Err(error) => Err(error),
        });
        let looks: Vec<Result<TreeJob>> = stream::iter(looks).buffered(AT_ONCE).collect().await;
        looks.into_iter().collect()
    }

    /// The children of jobs, by the records of the latest jobs.
    async fn latest_children(&self) -> Result<HashMap<JobId, Vec<JobId>>> {
        let mut children: HashMap<JobId, Vec<JobId>> = HashMap::new();
        let (filter, mut page) = (RecordFilter::new(), Page::newest(PAGE));
        for _ in 0..SEARCHED.div_ceil(PAGE) {
            let found = self.store()?.list(&filter, page).await?;
            let (read, last) = (found.len(), found.last().map(|stored| stored.revision));
            for record in found.into_iter().map(|stored| stored.record) {
                for parent in &record.depends_on {
                    children.entry(parent.clone()).or_default().push(record.id.clone());
                }
            }
            match last {
                Some(last) if read == PAGE => page = page.after(last),
                _ => break,
            }
        }
        Ok(children)
    }
}

/// The jobs, each after those that it depends on.
fn sorted(mut jobs: HashMap<JobId, TreeJob>) -> Vec<TreeJob> {
    let mut ids: Vec<JobId> = jobs.keys().cloned().collect();
    ids.sort_unstable();
    let (mut sorted, mut seen) = (Vec::with_capacity(ids.len()), HashSet::new());
    for id in ids {
        // A walk without recursion: a chain may be long. Each job is opened, then closed.
        let mut walk = vec![(id, false)];
        while let Some((id, is_closed)) = walk.pop() {
            if is_closed {
                sorted.extend(jobs.remove(&id));
            } else if seen.insert(id.clone())
                && let Some(job) = jobs.get(&id)
            {
                walk.push((id, true));
                walk.extend(job.depends_on.iter().rev().map(|parent| (parent.clone(), false)));
            }
        }
    }
    sorted
}

impl TreeJob {
    fn of(record: JobRecord) -> Self {
        let JobRecord { id, task, status, depends_on, .. } = record;
        Self { id, task: Some(task), status: Some(status), depends_on }
    }

    fn unknown(id: JobId) -> Self {
        Self { id, task: None, status: None, depends_on: Vec::new() }
    }
}
