//! Dependencies: jobs that start when other jobs, their *parents*, have ended.
//!
//! A job that waits for parents is *blocked*. Its record says so and holds its sealed message; the
//! broker has no message of it. An *edge* in the shared state ties it to each parent.
//!
//! - A kick writes the record, then the edges, and then meets each parent ([`tie`]): a parent that
//!   has not ended gets a note on its record that it is *awaited*, so its last write cannot miss
//!   the edge. For a parent that has ended the kick does what that end would have done.
//! - The end of an awaited parent settles its edges ([`end`]), after its last record and before its
//!   ack: a crash in between is repaired by the redelivery.
//! - The last parent that completes releases the job ([`release`]): one conditional write of the
//!   job's record decides, and then its message is kicked.
//!
//! Nobody counts parents. The edges of a job are a list, and one of them carries the baton: the
//! parent that holds it walks on over the edges that are done, and leaves the baton at the first
//! one that is not. Whoever comes to the end of the list releases the job.
//!
//! `tests/tests/search_model` searches the orders of the requests of kicks, workers and reruns.

mod edge;
mod end;
mod release;
mod results;
mod sweep;
mod tie;

pub(crate) use self::tie::{Blocked, BlockedAgain};
use std::collections::HashSet;

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message};
use crate::store::{JobRecord, JobStore, Retention, Status};

/// Maximum number of parents of a job.
pub(crate) const MAX_PARENTS: usize = 10_000;

/// Number of requests to the shared state that one step sends at a time.
const AT_ONCE: usize = 64;

/// Number of tries of a conditional write. Each refusal means that another process has written.
const TRIES: usize = 100;

/// The dependencies of the jobs of a backend.
#[derive(Clone, Copy)]
pub(crate) struct Dependencies<'a> {
    backend: &'a Backend,
    retention: &'a Retention,
    /// Limit of the arguments of a job.
    max_payload_bytes: usize,
}

impl<'a> Dependencies<'a> {
    pub(crate) fn new(backend: &'a Backend, retention: &'a Retention, max_payload_bytes: usize) -> Self {
        Self { backend, retention, max_payload_bytes }
    }

    /// The jobs that wait for a job, or have failed for it.
    pub(crate) async fn children(self, parent: &JobId) -> Result<Vec<JobId>> {
        let edges = edge::all_of(&*self.backend.kv, parent).await?;
        Ok(edges.into_iter().map(|found| found.edge.child).collect())
    }

    /// All jobs that others wait for.
    pub(crate) async fn awaited(self) -> Result<HashSet<JobId>> {
        if self.backend.jobs.is_none() {
            return Ok(HashSet::new());
        }
        Ok(edge::all(&*self.backend.kv).await?.into_iter().map(|found| found.edge.parent).collect())
    }

    fn jobs(self) -> Result<&'a dyn JobStore> {
        self.backend.jobs.as_deref().ok_or_else(|| {
            let why = "a job that waits for others needs records: connect with another `RecordLevel`";
            Error::new(ErrorKind::Unsupported, why)
        })
    }
}

/// Checks the parents of a message.
///
/// # Errors
/// [`InvalidArgument`](ErrorKind::InvalidArgument): too many parents, or the job itself is one.
pub(crate) fn check_parents(message: &Message) -> Result<()> {
    let parents = message.parents();
    let why = if parents.len() > MAX_PARENTS {
        format!("{} parents, a job has at most {MAX_PARENTS}", parents.len())
    } else if parents.contains(&message.id) {
        "a job cannot wait for itself".to_owned()
    } else {
        return parents.iter().try_for_each(JobId::check);
    };
    Err(Error::new(ErrorKind::InvalidArgument, why).with_id(message.id.clone()))
}

impl JobRecord {
    /// True if the job has not started, because of its parents: it waits for them, or failed for
    /// one of them.
    pub(crate) fn is_held_by_parents(&self) -> bool {
        self.status == Status::Blocked || self.failed_for_parent()
    }

    /// True if the job is there only if the broker has a message of it: it was removed, or waits to
    /// be run or run again.
    fn needs_message(&self) -> bool {
        let waits = matches!(self.status, Status::Pending | Status::Scheduled | Status::Retrying);
        waits && !self.is_released()
    }

    /// True if the job ended while it waited for its parents.
    pub(crate) fn was_held_by_parents(&self) -> bool {
        let ended_unstarted =
            matches!(self.status, Status::Cancelled | Status::Expired) && self.started_at.is_none();
        self.failed_for_parent() || (ended_unstarted && !self.depends_on.is_empty())
    }

    /// True if the job failed for one of its parents.
    pub(crate) fn failed_for_parent(&self) -> bool {
        self.status == Status::Failed && self.reason == Some(crate::error::Reason::Dependency)
    }
}

fn contended(id: &JobId) -> Error {
    let why = "the job and its parents changed during each try; try again";
    Error::new(ErrorKind::Conflict, why).with_id(id.clone())
}
