//! Releasing a job whose parents are done.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use super::edge;
use super::end::ParentEnd;
use super::{AT_ONCE, Dependencies, TRIES, contended};
use crate::broker::Expect;
use crate::error::{ErrorKind, JobError, Result};
use crate::fault::{Fault, point};
use crate::message::{JobId, Message};
use crate::store::{JobRecord, Status, Stored};

impl Dependencies<'_> {
    /// Releases a job all of whose edges are done, then removes them. Idempotent. Returns the end
    /// of the job if it fails instead, because the results of its parents are too large, and is
    /// awaited.
    ///
    /// The write of the record decides. It comes before the kick, so a late attempt to fail the job
    /// is refused, and no run is ever taken back.
    pub(super) async fn release(self, id: &JobId) -> Result<Option<ParentEnd>> {
        let jobs = self.jobs()?;
        for _ in 0..TRIES {
            let Some(Stored { record, revision }) = jobs.get(id).await? else { return Ok(None) };
            if record.is_held_by_parents() {
                let Some(message) = self.released_message(&record) else {
                    let why = JobError::new("Undecodable", "its message cannot be read");
                    return self.fail(id, why).await;
                };
                let message = match self.hand_over(&record, message).await? {
                    Ok(message) => message,
                    Err(too_large) => return self.fail(id, too_large).await,
                };
                let released = JobRecord {
                    status: Status::Pending,
                    awaited: message.is_awaited(),
                    run_at: message.run_at,
                    arguments: Some(message.arguments.clone()),
                    message: Some(message.seal().body),
                    reason: None,
                    error: None,
                    finished_at: None,
                    dead_lettered: false,
                    ..record.clone()
                };
                match jobs.put(Arc::new(released), Expect::Revision(revision), None).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => continue,
                    Err(error) if error.kind() == ErrorKind::TooLarge => {
                        return self.fail(id, self.too_large()).await;
                    }
                    Err(error) => return Err(error),
                    Ok(revision) => {
                        point(Fault::Released);
                        self.kick(message, revision).await?;
                    }
                }
            } else if record.is_released()
                && let Some(Ok(message)) = record.message.as_ref().map(Message::open)
            {
                self.kick(message, revision).await?;
            }
            return self.remove_edges(&record).await.map(|()| None);
        }
        Err(contended(id))
    }

    /// The message of a job that is released now; `None` if the record has none that can be read.
    fn released_message(self, record: &JobRecord) -> Option<Message> {
        let mut message = Message::open(record.message.as_ref()?).ok()?;
        let now = self.backend.now();
        message.attempt = 1;
        message.run_at = message.run_at.max((!record.delay.is_zero()).then(|| now + record.delay));
        message.run_at = message.run_at.filter(|due| *due > now);
        // Jobs that were kicked after it had failed have seen its end and left no note. They come
        // back to life with it.
        message.ties_mut().awaited = record.awaited || record.failed_for_parent();
        Some(message)
    }

    /// Kicks the message of a job that was released by the record of this revision.
    pub(super) async fn kick(self, mut message: Message, revision: u64) -> Result<()> {
        message.supersedes = Some(revision);
        self.backend.broker.kick(message.seal(), Expect::Absent).await?;
        point(Fault::Sent);
        Ok(())
    }

    /// Removes the edges of a job that waits for nobody any more.
    pub(super) async fn remove_edges(self, child: &JobRecord) -> Result<()> {
        let kv = &*self.backend.kv;
        let places = 0..child.depends_on.len();
        let removals = places.map(|place| edge::remove(kv, &child.depends_on[place], &child.id));
        let mut removals = stream::iter(removals).buffer_unordered(AT_ONCE);
        while let Some(removed) = removals.next().await {
            removed?;
        }
        Ok(())
    }
}
