//! The end of a parent: its edges are settled, and jobs that fail for it end as well.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use super::edge::{self, Edge, EdgeState, StoredEdge, Yielded};
use super::{AT_ONCE, Dependencies, TRIES, contended};
use crate::codec::Codec;
use crate::error::{ErrorKind, JobError, Reason, Result, excerpt};
use crate::fault::{Fault, point};
use crate::message::{JobId, OnParentFailure};
use crate::store::{Expect, JobRecord, Status, Stored, put_fitting};
use crate::unique::{self, Tenant};

/// The end of a parent.
#[derive(Clone, Debug)]
pub(super) struct ParentEnd {
    id: JobId,
    completed: bool,
    /// True if neither a record nor a message of it is there.
    is_unknown: bool,
    /// What became of it, in words that follow its id.
    pub(super) fate: String,
    /// The end for which it failed itself: the root of a cascade.
    root: Option<String>,
    /// What its children take from it.
    yielded: Yielded,
}

impl ParentEnd {
    pub(super) fn of(record: &JobRecord) -> Self {
        let (fate, root) = match (record.status, &record.error) {
            (Status::Cancelled, _) => ("was cancelled".to_owned(), None),
            (Status::Failed, Some(error)) if record.failed_for_parent() => {
                let root = error.chain.first().unwrap_or(&error.message);
                ("failed for a parent of its own".to_owned(), Some(root.clone()))
            }
            (Status::Failed, Some(error)) => (format!("failed: {}", excerpt(&error.message)), None),
            (status, _) => (status.as_str().to_owned(), None),
        };
        let completed = record.status == Status::Completed;
        let yielded = match (&record.result, &record.error) {
            (Some(result), _) if completed => {
                Yielded::Result(result.recoded(Codec::MessagePack).as_bytes().clone())
            }
            (_, Some(error)) => Yielded::Error((**error).clone()),
            _ => Yielded::Error(JobError::new("Dependency", format!("`{}` {fate}", record.id))),
        };
        Self { id: record.id.clone(), completed, is_unknown: false, fate, root, yielded }
    }

    pub(super) fn unknown(id: &JobId) -> Self {
        let fate = "is unknown: it was removed, or never kicked".to_owned();
        let yielded = Yielded::Error(JobError::new("Dependency", format!("`{id}` {fate}")));
        Self { id: id.clone(), completed: false, is_unknown: true, fate, root: None, yielded }
    }

    /// The error of a job that fails for this end.
    fn error(&self) -> JobError {
        let mut error = JobError::new("Dependency", format!("its parent `{}` {}", self.id, self.fate));
        error.chain.extend(self.root.clone());
        error
    }
}

impl Dependencies<'_> {
    /// Settles the edges of a job that has ended, of which this is the last record. Idempotent: a
    /// redelivery does it again.
    pub(crate) async fn ended(self, record: &JobRecord) -> Result<()> {
        self.cascade(vec![ParentEnd::of(record)]).await
    }

    /// Settles the edges of a job whose message was dropped: it is unknown from now on. A record
    /// that only says that it waits, with the note that it is awaited, is removed.
    pub(crate) async fn dropped(self, id: &JobId) -> Result<()> {
        let jobs = self.jobs()?;
        if let Some(left) = jobs.get(id).await?
            && left.record.needs_message()
            && !left.record.is_removed()
        {
            jobs.remove(&[left]).await.into_iter().try_for_each(|gone| gone.map(drop))?;
        }
        self.cascade(vec![ParentEnd::unknown(id)]).await
    }

    /// Settles the edges of jobs that have ended, and of those that fail for it in turn.
    pub(super) async fn cascade(self, mut ends: Vec<ParentEnd>) -> Result<()> {
        while let Some(end) = ends.pop() {
            let edges = edge::all_of(&*self.backend.kv, &end.id).await?;
            let settled = edges.into_iter().map(|edge| self.settle(edge, &end));
            let mut settled = stream::iter(settled).buffer_unordered(AT_ONCE);
            let mut failed = Vec::new();
            while let Some(child) = settled.next().await {
                failed.extend(child?);
            }
            drop(settled);
            ends.append(&mut failed);
        }
        Ok(())
    }

    /// Settles one edge by the end of its parent. Returns the end of the child if that has failed
    /// for it and is awaited itself.
    pub(super) async fn settle(self, mut found: StoredEdge, end: &ParentEnd) -> Result<Option<ParentEnd>> {
        let kv = &*self.backend.kv;
        let counts_as_completed = end.completed || found.edge.on_failure == OnParentFailure::Run;
        let state = if counts_as_completed { EdgeState::Done } else { EdgeState::Bad };
        for _ in 0..TRIES {
            if found.edge.state != EdgeState::Done && found.edge.state != state {
                let is_taken = found.edge.wanted && state == EdgeState::Done;
                let yielded = is_taken.then(|| end.yielded.clone());
                let settled = Edge { state, yielded, ..found.edge.clone() };
                let written = match edge::put(kv, &settled, Expect::Revision(found.revision)).await {
                    Err(error) if error.kind() == ErrorKind::TooLarge => {
                        return self.fail(&found.edge.child, self.too_large()).await;
                    }
                    written => written?,
                };
                let Some(revision) = written else {
                    match edge::get(kv, &found.edge.parent, &found.edge.child).await? {
                        Some(newer) => found = newer,
                        None => return Ok(None),
                    }
                    continue;
                };
                point(Fault::Settled);
                found = StoredEdge { edge: settled, revision };
            }
            let Edge { state, baton, on_failure, child, .. } = &found.edge;
            return match state {
                EdgeState::Done if *baton => self.walk(found.edge).await,
                EdgeState::Bad if *on_failure == OnParentFailure::Fail || end.is_unknown => {
                    self.fail(child, end.error()).await
                }
                _ => Ok(None),
            };
        }
        Err(contended(&found.edge.child))
    }

    /// Walks on from an edge that is done and has the baton, and leaves the baton at the first edge
    /// that is not done. At the end of the list the job is released. Returns its end if it fails
    /// instead, and is awaited.
    async fn walk(self, mut done: Edge) -> Result<Option<ParentEnd>> {
        let kv = &*self.backend.kv;
        while let Some(next) = &done.next {
            let mut handed = false;
            for _ in 0..TRIES {
                let Some(found) = edge::get(kv, next, &done.child).await? else {
                    let child = self.jobs()?.get(&done.child).await?;
                    // The kick of the job is about to write the edge, and comes by itself.
                    if !child.is_some_and(|child| child.record.is_held_by_parents()) {
                        edge::remove(kv, &done.parent, &done.child).await?;
                    }
                    return Ok(None);
                };
                if found.edge.state == EdgeState::Done {
                    (done, handed) = (found.edge, true);
                    break;
                }
                if found.edge.baton {
                    return Ok(None);
                }
                let handed_on = Edge { baton: true, ..found.edge };
                if edge::put(kv, &handed_on, Expect::Revision(found.revision)).await?.is_some() {
                    point(Fault::Handed);
                    return Ok(None);
                }
            }
            if !handed {
                return Err(contended(&done.child));
            }
        }
        self.release(&done.child).await
    }

    /// Fails a job for a parent, unless it was released before. Returns its end if it is awaited.
    pub(super) async fn fail(self, id: &JobId, why: JobError) -> Result<Option<ParentEnd>> {
        let jobs = self.jobs()?;
        for _ in 0..TRIES {
            let Some(Stored { mut record, revision }) = jobs.get(id).await? else { return Ok(None) };
            if record.status == Status::Blocked {
                record.status = Status::Failed;
                record.reason = Some(Reason::Dependency);
                record.error = Some(Box::new(why.clone()));
                record.finished_at = Some(self.backend.now());
                record.dead_lettered = true;
                let ttl = self.retention.span(Status::Failed);
                let put = put_fitting(jobs, Arc::new(record.clone()), Expect::Revision(revision), Some(ttl));
                match put.await {
                    Err(error) if error.kind() == ErrorKind::Conflict => continue,
                    written => written?,
                };
                point(Fault::Failed);
                tracing::error!(id = %record.id, task = %record.task, "failed: {}", why.message);
                if let Some(tenant) = Tenant::of(&record) {
                    unique::free(&*self.backend.kv, tenant, Status::Failed, self.backend.now()).await;
                }
            } else if !record.failed_for_parent() {
                return Ok(None);
            }
            return Ok(record.awaited.then(|| ParentEnd::of(&record)));
        }
        Err(contended(id))
    }
}
