//! The conditional write of a settlement.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::Attempt;
use super::TAKEN_OVER;
use super::unsettled::not_newest;
use crate::broker::Expect;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{JobRecord, JobStore, Status, Stored, put_fitting};

/// The record that is found after a conditional write was refused.
pub(in crate::worker::attempt) enum Newest {
    /// A write of this run whose confirmation was lost.
    Own(Box<Stored>),
    /// What the attempt may still replace.
    Before(Replaceable),
    /// A write of another worker, or of a client.
    Others,
}

/// A record that was written.
#[derive(Clone, Copy)]
pub(super) struct Written {
    pub(super) revision: u64,
    /// True if it says that other jobs wait for the end of this one.
    pub(super) awaited: bool,
}

/// What an attempt may replace although it expected something else.
pub(in crate::worker::attempt) struct Replaceable {
    pub(in crate::worker::attempt) expect: Expect,
    /// The record that is there, with the notes of others.
    pub(in crate::worker::attempt) record: Option<Box<JobRecord>>,
}

impl Attempt<'_> {
    /// Writes the record if the job is still this attempt's. `None` if another worker has the job.
    pub(super) async fn write(&self, record: Arc<JobRecord>, ttl: Duration) -> Result<Option<Written>> {
        let Some(jobs) = self.worker.jobs() else { return Ok(Some(Written { revision: 0, awaited: false })) };
        if !self.fence.last.leads_to(record.status) {
            let message = format!("a job that is {} cannot become {}", self.fence.last, record.status);
            return Err(Error::new(ErrorKind::Conflict, message).with_id(record.id.clone()));
        }
        let written = if self.is_doubtful() && !Box::pin(self.is_newest()).await? {
            Err(not_newest())
        } else {
            jobs.put(Arc::clone(&record), self.fence.expect, Some(ttl)).await
        };
        let written = match written {
            Ok(revision) => Ok(Some(Written { revision, awaited: record.awaited })),
            Err(refused) => Box::pin(self.write_after_refusal(&**jobs, record, ttl, refused)).await,
        };
        if let (Ok(Some(_)), Some(unsaved)) = (&written, &self.unsaved) {
            unsaved.saved();
        }
        written
    }

    /// Writes the record although the first write failed, if that is possible.
    ///
    /// A record that is too large is written without its dispensable parts: a job must be able to
    /// end.
    async fn write_after_refusal(
        &self,
        jobs: &dyn JobStore,
        mut record: Arc<JobRecord>,
        ttl: Duration,
        refused: Error,
    ) -> Result<Option<Written>> {
        let mut written = if refused.kind() == ErrorKind::TooLarge || refused.is_outage() {
            self.put_patiently(jobs, &record, self.fence.expect, ttl).await
        } else {
            Err(refused)
        };
        if kind(&written) == Some(ErrorKind::Conflict) {
            let expect = match self.newest(jobs).await? {
                Newest::Own(stored) if stored.record.status == record.status => {
                    return Ok(Some(Written { revision: stored.revision, awaited: stored.record.awaited }));
                }
                Newest::Own(stored) => Some(Expect::Revision(stored.revision)),
                Newest::Before(Replaceable { expect, record: earlier }) => {
                    earlier.iter().for_each(|earlier| Arc::make_mut(&mut record).adopt_notes(earlier));
                    Some(expect)
                }
                Newest::Others => None,
            };
            if let Some(expect) = expect {
                written = self.put_patiently(jobs, &record, expect, ttl).await;
            }
        }
        if kind(&written) == Some(ErrorKind::Conflict) {
            // Another worker has the job, or a client has cancelled it first.
            if record.status != Status::Cancelled {
                self.count_taken_over(TAKEN_OVER);
            }
            return Ok(None);
        }
        written.map(|revision| Some(Written { revision, awaited: record.awaited }))
    }

    async fn put_patiently(
        &self,
        jobs: &dyn JobStore,
        record: &Arc<JobRecord>,
        expect: Expect,
        ttl: Duration,
    ) -> Result<u64> {
        let put = async || {
            if expect == Expect::Absent && self.is_doubtful_at(Instant::now()) {
                self.delivery.check_is_newest().await?;
            }
            put_fitting(jobs, Arc::clone(record), expect, Some(ttl)).await
        };
        self.saving(put).await
    }

    /// True if a write that expects no record needs a check of the message.
    ///
    /// The job may have ended elsewhere, and its record may be removed since. Such a write would
    /// then succeed, and report a job that was removed, or hide one that was kicked under its id.
    /// While the lease of a run holds, no other worker can end the job, so hardly any run needs the
    /// check. After the ack, the message proves nothing.
    pub(super) fn is_doubtful(&self) -> bool {
        match &self.timing {
            Some(timing) => self.is_doubtful_at(timing.ended),
            None => self.is_doubtful_at(Instant::now()),
        }
    }

    fn is_doubtful_at(&self, at: Instant) -> bool {
        // A job that was not started may have been cancelled and removed meanwhile.
        let may_be_anothers = || self.timing.is_none() || !self.lease.is_current_at(at);
        !self.acked && self.fence.expect == Expect::Absent && may_be_anothers()
    }

    /// True if the broker has no newer message of the job, and this one was not removed.
    pub(in crate::worker::attempt) async fn is_newest(&self) -> Result<bool> {
        self.patient(|| self.delivery.is_newest()).await
    }

    /// The writer of the newest record.
    pub(in crate::worker::attempt) async fn newest(&self, jobs: &dyn JobStore) -> Result<Newest> {
        let message = self.message();
        let stored = self.patient(|| jobs.get(&message.id)).await?;
        let is_own = stored.as_ref().is_some_and(|Stored { record, .. }| {
            record.worker_id.as_deref() == Some(&*self.worker.scope.worker_id)
                && record.attempt == message.attempt
                && record.started_at.is_some()
                && record.started_at == self.started_at()
        });
        Ok(match stored {
            Some(stored) if is_own => Newest::Own(Box::new(stored)),
            stored => self.replaceable(stored).await?.map_or(Newest::Others, Newest::Before),
        })
    }

    /// The stored state that the attempt may replace instead of the record that it found: the
    /// record before its message, written again since, or the remains of a record that was removed
    /// while the job was rerun. `None` if anything else is stored.
    pub(in crate::worker::attempt) async fn replaceable(
        &self,
        stored: Option<Stored>,
    ) -> Result<Option<Replaceable>> {
        let message = self.message();
        let expect = match stored {
            Some(Stored { record, revision }) if record.precedes(message) => {
                let (expect, record) = (Expect::Revision(revision), Some(Box::new(record)));
                return Ok(Some(Replaceable { expect, record }));
            }
            _ if !self.fence.replaces_base_of(message) => return Ok(None),
            Some(Stored { record, revision }) if record.is_removed_before(message) => {
                Expect::Revision(revision)
            }
            Some(_) => return Ok(None),
            None => Expect::Absent,
        };
        // The remains of this job, or of one that was kicked under its id since, look the same.
        Ok(self.is_newest().await?.then_some(Replaceable { expect, record: None }))
    }
}

fn kind<T>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}
