//! Blocking a job, and tying it to its parents.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::sleep;

use super::edge::{self, Edge, EdgeState};
use super::end::ParentEnd;
use super::{AT_ONCE, Dependencies, TRIES, contended};
use crate::error::{ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::{JobId, Message, Name, ParentWait};
use crate::store::{Expect, JobRecord, Status, Stored};
use crate::time::Timestamp;

/// Time for which the record of a waiting or running parent outlives the moment at which it is due.
const MARGIN: Duration = Duration::from_secs(24 * 3600);

/// Time in which a message that a record announces appears in the broker.
const ANNOUNCED: Duration = Duration::from_secs(1);

/// Result of blocking a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    New,
    /// A job has the id already, in this queue.
    Existing(Name),
}

/// Result of blocking a job again that ended while it waited for its parents.
pub(crate) enum BlockedAgain {
    Yes,
    /// The job was rerun by another client, or removed.
    ChangedMeanwhile,
    /// A parent has ended badly and was not rerun.
    For {
        id: JobId,
        parent: JobId,
        fate: String,
    },
}

/// What a look at a parent found.
enum Met {
    /// It has not ended, and its end will settle its edges.
    Awaited,
    Ended(ParentEnd),
}

impl Dependencies<'_> {
    /// Records the job of a message as blocked, and ties it to its parents. `sealed` is the encoded
    /// message. If all parents have ended, the job is released or fails at once.
    ///
    /// After an error the job may be blocked; then the sweep of the workers ties it.
    ///
    /// # Errors
    /// - [`Unsupported`](ErrorKind::Unsupported): the client keeps no records.
    /// - The errors of the backend.
    pub(crate) async fn block(self, message: &Message, sealed: Bytes) -> Result<Blocked> {
        let jobs = self.jobs()?;
        if message.supersedes.is_some()
            && let Some(queued) = self.backend.broker.find(&message.id).await?
        {
            return Ok(Blocked::Existing(queued.queue.into()));
        }
        let ParentWait { delay, takes, in_flow, .. } = message.parent_wait().cloned().unwrap_or_default();
        let blocked = JobRecord::of(message, Status::Blocked);
        let record = JobRecord { delay, takes, message: Some(sealed), ..blocked };
        let expect = match message.base_revision() {
            0 => Expect::Absent,
            removed => Expect::Revision(removed),
        };
        match jobs.put(Arc::new(record.clone()), expect, None).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let found = jobs.get(&message.id).await?;
                return Ok(Blocked::Existing(found.map_or(record.queue, |found| found.record.queue)));
            }
            written => written?,
        };
        point(Fault::Tied);
        // An edge that is there is of an earlier job of this id. A server that was killed may bring
        // back an edge that was removed.
        self.draw_all(&record, true).await?;
        let in_flow: HashSet<JobId> = in_flow.into_iter().collect();
        let is_there = |parent: &JobId| !in_flow.contains(parent);
        self.meet_all(&record, false, is_there).await?;
        Ok(Blocked::New)
    }

    /// Ties a job to its parents again, if it is still blocked.
    pub(crate) async fn tie_again(self, id: &JobId) -> Result<()> {
        match self.jobs()?.get(id).await? {
            Some(Stored { record, .. }) if record.status == Status::Blocked => self.tie(&record, false).await,
            _ => Ok(()),
        }
    }

    /// Blocks a job again that ended while it waited for its parents, and releases it if they have
    /// all completed. `stored` is its last record.
    pub(crate) async fn block_again(self, stored: Stored, now: Timestamp) -> Result<BlockedAgain> {
        let Stored { record, .. } = stored;
        let id = record.id.clone();
        self.tie(&record, true).await?;
        let edges = edge::get_all(&*self.backend.kv, record.depends_on.iter(), &id).await?;
        for (parent, edge) in record.depends_on.iter().zip(edges) {
            if edge.is_some_and(|found| found.edge.is_fatal())
                && let Met::Ended(end) = self.look_at(parent).await?
            {
                return Ok(BlockedAgain::For { id, parent: parent.clone(), fate: end.fate });
            }
        }
        let jobs = self.jobs()?;
        let (mut record, revision) = match jobs.get(&id).await? {
            // The last parent has completed meanwhile.
            Some(newer) if newer.record.is_unstarted() => return Ok(BlockedAgain::Yes),
            Some(newer) if newer.record.was_held_by_parents() => (newer.record, newer.revision),
            _ => return Ok(BlockedAgain::ChangedMeanwhile),
        };
        record.status = Status::Blocked;
        record.kicked_at = Some(now);
        (record.reason, record.error, record.finished_at) = (None, None, None);
        record.dead_lettered = false;
        let sealed = record.message.as_ref().and_then(|message| Message::open(message).ok());
        record.message = sealed.map(|mut message| {
            message.kicked_at = Some(now);
            message.expires_at = None;
            message.ties_mut().awaited = true;
            message.seal().body
        });
        record.awaited = true;
        match jobs.put(Arc::new(record.clone()), Expect::Revision(revision), None).await {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(BlockedAgain::ChangedMeanwhile),
            written => written?,
        };
        // A parent that has ended since releases the job now, or fails it again.
        self.tie(&record, false).await?;
        Ok(BlockedAgain::Yes)
    }

    /// Writes the edges of a job that are missing, then meets each parent. With `anew`, the edge
    /// of a parent that ended badly and was rerun since waits again.
    pub(crate) async fn tie(self, child: &JobRecord, anew: bool) -> Result<()> {
        self.draw_all(child, false).await?;
        self.meet_all(child, anew, |_| true).await
    }

    /// Writes the edges of a job that are missing; with `anew`, all of them.
    async fn draw_all(self, child: &JobRecord, anew: bool) -> Result<()> {
        let mut wanted = vec![false; child.depends_on.len()];
        for place in child.takes.iter().flat_map(|take| take.of.places()) {
            wanted.get_mut(*place).into_iter().for_each(|wanted| *wanted = true);
        }
        let draws = (0..wanted.len()).map(|place| self.draw(child, place, wanted[place], anew));
        let draws = stream::iter(draws).buffer_unordered(AT_ONCE);
        draws.try_for_each(async |()| Ok(())).await?;
        point(Fault::Edged);
        Ok(())
    }

    /// Meets the parents of a job that are there.
    async fn meet_all(self, child: &JobRecord, anew: bool, is_there: impl Fn(&JobId) -> bool) -> Result<()> {
        let mut failed = Vec::new();
        let places = (0..child.depends_on.len()).filter(|place| is_there(&child.depends_on[*place]));
        let meetings = places.map(|place| self.meet(&child.depends_on[place], &child.id, anew));
        let mut meetings = stream::iter(meetings).buffer_unordered(AT_ONCE);
        while let Some(met) = meetings.next().await {
            failed.extend(met?);
        }
        drop(meetings);
        self.cascade(failed).await
    }

    /// Writes the edge of the parent at this place, unless it is there; with `anew`, in any case.
    async fn draw(self, child: &JobRecord, place: usize, wanted: bool, anew: bool) -> Result<()> {
        let edge = Edge {
            parent: child.depends_on[place].clone(),
            child: child.id.clone(),
            next: child.depends_on.get(place + 1).cloned(),
            on_failure: child.on_parent_failure,
            state: EdgeState::Waiting,
            baton: place == 0,
            wanted,
            yielded: None,
        };
        edge::draw(&*self.backend.kv, &edge, anew).await
    }

    /// Meets one parent: notes that it is awaited, or does what its end would have done. Returns
    /// the end of the child if that failed.
    async fn meet(self, parent: &JobId, child: &JobId, anew: bool) -> Result<Option<ParentEnd>> {
        let kv = &*self.backend.kv;
        for _ in 0..TRIES {
            let met = self.look_at(parent).await?;
            point(Fault::Marked);
            if !anew && matches!(met, Met::Awaited) {
                return Ok(None);
            }
            let Some(found) = edge::get(kv, parent, child).await? else { return Ok(None) };
            match met {
                Met::Awaited if anew && found.edge.state == EdgeState::Bad => {
                    // The parent may end meanwhile, so it is looked at again.
                    let waiting = Edge { state: EdgeState::Waiting, ..found.edge };
                    edge::put(kv, &waiting, Expect::Revision(found.revision)).await?;
                }
                Met::Awaited => return Ok(None),
                Met::Ended(end) => return self.settle(found, &end).await,
            }
        }
        Err(contended(child))
    }

    /// Notes on the record of a parent that it is awaited, unless it has ended.
    async fn look_at(self, parent: &JobId) -> Result<Met> {
        for _ in 0..TRIES {
            let stored = self.jobs()?.get(parent).await?;
            let needs_message = match &stored {
                Some(Stored { record, revision }) if record.status.is_terminal() => {
                    self.is_rerun(parent, *revision).await?
                }
                Some(Stored { record, .. }) => record.needs_message(),
                None => true,
            };
            let met = match stored {
                Some(Stored { record, revision }) if !needs_message => {
                    self.look_at_record(&record, revision).await?
                }
                stored => self.look_at_message(parent, stored).await?,
            };
            if let Some(met) = met {
                return Ok(met);
            }
        }
        Err(contended(parent))
    }

    /// As [`look_at`](Self::look_at), for a parent that has ended, runs, or waits for parents of
    /// its own. `None` if its record has changed.
    async fn look_at_record(self, record: &JobRecord, revision: u64) -> Result<Option<Met>> {
        if record.status.is_terminal() {
            return Ok(Some(Met::Ended(ParentEnd::of(record))));
        }
        let is_noted = record.awaited || self.mark(record, Expect::Revision(revision)).await?.is_some();
        Ok(is_noted.then_some(Met::Awaited))
    }

    /// As [`look_at`](Self::look_at), for a parent that is there only if the broker has a message
    /// of it. `None` if the parent has changed.
    async fn look_at_message(self, parent: &JobId, stored: Option<Stored>) -> Result<Option<Met>> {
        let jobs = self.jobs()?;
        let Some(queued) = self.backend.broker.find(parent).await? else {
            let is_gone = self.is_gone(parent, stored.as_ref()).await?;
            return Ok(is_gone.then(|| Met::Ended(ParentEnd::unknown(parent))));
        };
        let expect = stored.as_ref().map_or(Expect::Absent, |stored| Expect::Revision(stored.revision));
        let message = Message::open(&queued.body)
            .unwrap_or_else(|_| Message::unreadable(parent.clone(), queued.queue.clone()));
        let waiting = match stored.map(|stored| stored.record).filter(|record| !record.is_removed()) {
            // Its record says what the message comes after, and is written again as it is.
            Some(record) if !record.status.is_terminal() => {
                let is_noted = record.awaited || self.mark(&record, expect).await?.is_some();
                return Ok(is_noted.then_some(Met::Awaited));
            }
            _ if message.is_awaited() => return Ok(Some(Met::Awaited)),
            Some(ended) => JobRecord::waiting(&message, ended),
            None => JobRecord::of(&message, Status::Pending),
        };
        let Some(revision) = self.mark(&waiting, expect).await? else { return Ok(None) };
        if self.backend.broker.find(parent).await?.is_some() {
            return Ok(Some(Met::Awaited));
        }
        // It was taken away meanwhile. If it ran and has ended, its last record has replaced the
        // note; else the note would stay behind.
        if let Some(left) = jobs.get(parent).await?.filter(|left| left.revision == revision) {
            jobs.remove(&[left]).await.into_iter().try_for_each(|gone| gone.map(drop))?;
        }
        Ok(None)
    }

    /// True if a parent of which the broker has no message is gone: its record has not changed, and
    /// no message of it is on its way.
    async fn is_gone(self, parent: &JobId, stored: Option<&Stored>) -> Result<bool> {
        let waits = |record: &JobRecord| !record.is_removed() && !record.status.is_terminal();
        if stored.is_some_and(|stored| waits(&stored.record)) {
            // The retry of a job that is acked on receive is announced before its message is sent.
            sleep(ANNOUNCED).await;
            if self.backend.broker.find(parent).await?.is_some() {
                return Ok(false);
            }
        }
        let newest = self.jobs()?.get(parent).await?;
        Ok(newest.map(|newest| newest.revision) == stored.map(|stored| stored.revision))
    }

    /// True if a job that has ended is in the broker again: it was rerun by hand, and such a
    /// message says that it is awaited.
    async fn is_rerun(self, id: &JobId, revision: u64) -> Result<bool> {
        let queued = self.backend.broker.find(id).await?;
        Ok(queued.is_some_and(|queued| Message::base_revision_of(&queued.body) >= revision))
    }

    /// Writes a record again with the note that the job is awaited. `None` if it has changed.
    async fn mark(self, record: &JobRecord, expect: Expect) -> Result<Option<u64>> {
        let now = self.backend.now();
        let due = record.run_at.map(|due| due.since(now)).unwrap_or_default();
        // The record of a blocked job has no TTL, nor that of a job that is about to be kicked.
        let is_kept = record.status == Status::Blocked || record.is_released();
        let ttl = (!is_kept).then(|| due.saturating_add(MARGIN));
        let awaited = Arc::new(JobRecord { awaited: true, ..record.clone() });
        match self.jobs()?.put(awaited, expect, ttl).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::broker::Expect as Is;
    use crate::codec::Arguments;
    use crate::memory::Memory;
    use crate::store::Retention;

    #[tokio::test]
    async fn edges_of_an_earlier_job_do_not_release_a_new_one_of_its_id() {
        let backend = crate::Backend::from(Memory::new());
        backend.startup().await.unwrap();
        let retention = Retention::default();
        let dependencies = Dependencies::new(&backend, &retention, 1_000);
        let message = |id: &str| Message::new(id.into(), "task", Arguments::default());
        backend.broker.kick(message("parent").seal(), Is::Absent).await.unwrap();
        let (parent, child) = (JobId::from("parent"), JobId::from("child"));
        let left = Edge {
            parent: parent.clone(),
            child: child.clone(),
            next: None,
            on_failure: Default::default(),
            state: EdgeState::Done,
            baton: true,
            wanted: false,
            yielded: None,
        };
        edge::put(&*backend.kv, &left, Expect::Absent).await.unwrap();
        let mut waits = message("child");
        waits.ties_mut().parents.push(parent.clone());
        waits.ties_mut().wait = Some(ParentWait::default());
        let sealed = waits.seal().body;
        assert_eq!(dependencies.block(&waits, sealed).await.unwrap(), Blocked::New);
        let record = dependencies.jobs().unwrap().get(&child).await.unwrap().unwrap().record;
        assert_eq!(record.status, Status::Blocked);
        let found = edge::get(&*backend.kv, &parent, &child).await.unwrap().unwrap();
        assert_eq!(found.edge.state, EdgeState::Waiting);
    }
}
