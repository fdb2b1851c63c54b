//! Cancelling jobs: [`cancel`](Jobs::cancel) before they start, [`abort`](Jobs::abort) at any time.
//!
//! The workers are asked by the protocol of [`crate::cancel`]; here is the part around it: which
//! jobs to ask about, and their record and message afterwards.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::Jobs;
use super::find::Found;
use crate::broker::Queued;
use crate::cancel::{CancelRequest, Requester, Target, aborted, cancelled_before_start};
use crate::context::Waiting;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, Status, put_fitting};
use crate::time::{IntoDuration, check_span, from_now};

/// Largest number of jobs in one request.
const MAX_TARGETS: usize = 500;

/// Smallest number of tries for a job that changes state meanwhile; within the deadline there are
/// more.
const TRIES: usize = 8;

/// Interval between looks at a job that was told to stop, in case its end was not announced.
const RECHECK: Duration = Duration::from_secs(1);

/// The result of a try to cancel a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The job never starts, and is recorded as cancelled.
    Cancelled,
    /// The job had ended before, or is in a state that this version does not know.
    Untouched,
    /// The job has started. Its worker stops it if the request says so.
    Started,
}

/// A job to ask the workers about.
struct Candidate {
    index: usize,
    found: Found,
    target: Target,
}

impl Jobs {
    /// Cancels a job that has not started. True: its body never starts, not even if a worker holds
    /// the job already. False: the job runs or has ended, and nothing has changed.
    ///
    /// Takes about one round trip to the workers of the job's queue. A client that keeps no
    /// [records](crate::store::RecordLevel::None) may return true for a job that runs and ends in
    /// that moment.
    ///
    /// Dropping the future leaves the outcome open: workers that were asked skip the job for up to
    /// five minutes, and a worker that receives it records it as cancelled.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Deadline`](ErrorKind::Deadline): a worker that seems to live did not answer; the error
    ///   names it. The job may run or be cancelled, and asking again is safe.
    pub async fn cancel(&self, id: &JobId) -> Result<bool> {
        let mut fates = self.cancel_all(std::slice::from_ref(id)).await;
        fates.pop().unwrap_or_else(|| Ok(false))
    }

    /// [Cancels](Self::cancel) many jobs, with one question to the workers for hundreds of them.
    /// Returns the result of each, in order.
    pub async fn cancel_all(&self, ids: &[JobId]) -> Vec<Result<bool>> {
        let mut fates = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_TARGETS) {
            let cancelled = self.try_cancel(ids, false).await.into_iter();
            fates.extend(cancelled.map(|fate| fate.map(|fate| fate == Fate::Cancelled)));
        }
        fates
    }

    /// Cancels a job that waits, and stops one that runs: the future of an async body is dropped at
    /// its next await, a blocking body sees [`is_cancelled`](crate::Context::is_cancelled). Waits
    /// for the end of the job, at most for `timeout`. True only if the job ended as cancelled.
    ///
    /// False: the job had ended before, it ended otherwise, or its body is still running after
    /// `timeout`.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel); [`InvalidArgument`](ErrorKind::InvalidArgument) for an invalid
    /// `timeout`, or one that is longer than [`MAX_SPAN`](crate::time::MAX_SPAN).
    pub async fn abort(&self, id: &JobId, timeout: impl IntoDuration) -> Result<bool> {
        let deadline = from_now(check_span("the timeout", timeout.into_duration()?)?);
        let mut asked = false;
        loop {
            let ids = std::slice::from_ref(id);
            let Ok(mut fates) = timeout_at(deadline, self.try_cancel(ids, true)).await else {
                return self.is_cancelled(id).await;
            };
            match fates.pop().unwrap_or(Ok(Fate::Untouched)) {
                Ok(Fate::Cancelled) => return Ok(true),
                // An earlier request of this call may have stopped it.
                Ok(Fate::Untouched) if asked => return self.is_cancelled(id).await,
                Ok(Fate::Untouched) => return Ok(false),
                Ok(Fate::Started) => asked = true,
                Err(error) => return Err(error),
            }
            let waiting = Waiting::begin();
            let status = timeout_at(deadline, self.status_after_running(id)).await;
            waiting.end().await;
            match status {
                Ok(Ok(Some(status))) if status.is_terminal() => return Ok(status == Status::Cancelled),
                // The run failed at that moment and the job waits for its retry, or the worker gave
                // it back.
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return self.is_cancelled(id).await,
            }
        }
    }

    async fn is_cancelled(&self, id: &JobId) -> Result<bool> {
        Ok(self.find(id).await?.record.status == Status::Cancelled)
    }

    /// Waits until a job that was told to stop does not run any more. Returns its status, or `None`
    /// if the status was not announced within [`RECHECK`].
    async fn status_after_running(&self, id: &JobId) -> Result<Option<Status>> {
        let found = self.find(id).await?;
        let Ok(store) = self.store() else {
            // Without records nothing is announced.
            tokio::time::sleep(RECHECK).await;
            return Ok(None);
        };
        let mut records = self.watch_again(store, id, &found.record.queue).await?;
        let status = self.find(id).await?.record.status;
        if status.is_terminal() {
            return Ok(Some(status));
        }
        let recheck = Instant::now() + RECHECK;
        while let Ok(Some(record)) = timeout_at(recheck, records.next()).await {
            if record.status != Status::Running {
                return Ok(Some(record.status));
            }
        }
        Ok(None)
    }

    /// Cancels up to [`MAX_TARGETS`] jobs, trying again for jobs that change state meanwhile.
    async fn try_cancel(&self, ids: &[JobId], abort: bool) -> Vec<Result<Fate>> {
        let mut fates: Vec<Option<Result<Fate>>> = Vec::new();
        fates.resize_with(ids.len(), || None);
        let deadline = from_now(self.client.deadline());
        for attempt in 0.. {
            if attempt >= TRIES && Instant::now() >= deadline {
                break;
            }
            let open: Vec<usize> = (0..ids.len()).filter(|index| fates[*index].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let lookups = open.iter().map(|index| async { (*index, self.find(&ids[*index]).await) });
            let mut candidates = Vec::new();
            for (index, found) in join_all(lookups).await {
                match found {
                    Ok(found) => match fate_before_asking(&found, abort, attempt > 0) {
                        Some(fate) => {
                            fates[index] = Some(self.remove_leftover(found).await.map(|()| fate));
                        }
                        None => candidates.push(Candidate::new(index, found)),
                    },
                    Err(error) => fates[index] = Some(Err(error)),
                }
            }
            self.ask_and_end(candidates, abort, &mut fates).await;
        }
        let unsettled = |id: &JobId| {
            let why = "the job changed state during each try to cancel it; try again";
            Err(Error::new(ErrorKind::Conflict, why).with_id(id.clone()))
        };
        fates.into_iter().zip(ids).map(|(fate, id)| fate.unwrap_or_else(|| unsettled(id))).collect()
    }

    /// Removes the message that an earlier cancel of the job left behind.
    async fn remove_leftover(&self, found: Found) -> Result<()> {
        match found {
            Found { record, queued: Some(queued), revision } if record.status == Status::Cancelled => {
                self.remove_message(queued, revision).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Asks the workers, then ends the jobs that no worker has started.
    async fn ask_and_end(&self, candidates: Vec<Candidate>, abort: bool, fates: &mut [Option<Result<Fate>>]) {
        if candidates.is_empty() {
            return;
        }
        let queues: HashSet<&str> =
            candidates.iter().map(|candidate| &*candidate.found.record.queue).collect();
        let request = CancelRequest {
            queues: queues.into_iter().map(str::to_owned).collect(),
            jobs: candidates.iter().map(|candidate| candidate.target.clone()).collect(),
            abort,
        };
        let (requester, started) = match Requester::ask(&self.client, request).await {
            Ok(answered) => answered,
            Err(error) => {
                for candidate in &candidates {
                    let id = candidate.target.id.clone();
                    let error = Error::new(error.kind(), error.to_string()).with_id(id);
                    fates[candidate.index] = Some(Err(error));
                }
                return;
            }
        };
        let (running, waiting): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| started.contains(&candidate.target.id));
        for candidate in running {
            fates[candidate.index] = Some(Ok(Fate::Started));
        }
        if !abort && !started.is_empty() {
            // Started jobs go on: a retry or a redelivery of them must start on any worker.
            requester.narrow(&started).await;
        }
        let ended = waiting.into_iter().map(|candidate| async move {
            let Candidate { index, found, target } = candidate;
            (index, self.end(found).await.map_err(|error| error.with_id(target.id)))
        });
        for (index, ended) in join_all(ended).await {
            fates[index] = match ended {
                Ok(true) => Some(Ok(Fate::Cancelled)),
                // Another process wrote the record meanwhile: the job is tried again.
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            };
        }
    }

    /// Records that a job was cancelled, then removes its message. False if another process wrote
    /// the record meanwhile, or took the message where there are no records.
    async fn end(&self, found: Found) -> Result<bool> {
        let Found { mut record, queued, revision } = found;
        let mut written = None;
        if let Some(jobs) = self.client.backend().jobs() {
            // The write would expect that there is no record. That is also true of a job that ran
            // and was removed before the workers were asked; its message tells the two apart.
            if revision.is_none() && !self.is_unchanged(queued.as_ref()).await? {
                return Ok(false);
            }
            let ran = record.status == Status::Running;
            record.error = Some(Box::new(if ran { aborted() } else { cancelled_before_start() }));
            record.status = Status::Cancelled;
            record.finished_at = Some(self.client.now());
            record.message = queued.as_ref().map(|queued| queued.body.clone()).or(record.message);
            let expect = revision.map_or(Expect::Absent, Expect::Revision);
            let ttl = self.client.retention().span(Status::Cancelled);
            let record = Arc::new(record);
            match put_fitting(&**jobs, Arc::clone(&record), expect, Some(ttl)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(false),
                put => written = Some(put?),
            }
            self.after_end(&record).await?;
        }
        match queued {
            Some(queued) => self.remove_message(queued, written).await,
            // The worker acked it when the job started.
            None => Ok(true),
        }
    }

    /// Removes the message of a cancelled job, also if it moves meanwhile: a delayed message
    /// becomes another one when it is due. Without a record, the removed message is the proof that
    /// no worker ran the job.
    async fn remove_message(&self, mut queued: Queued, written: Option<u64>) -> Result<bool> {
        let broker = self.client.backend().broker();
        for _ in 0..TRIES {
            let removed = broker.remove(std::slice::from_ref(&queued)).await.into_iter().next();
            let removed = removed.unwrap_or(Ok(false))?;
            match broker.find(&queued.id).await? {
                Some(left) if left.is_older_than(written.unwrap_or(u64::MAX)) => queued = left,
                _ => return Ok(removed || written.is_some()),
            }
        }
        let why = "the message moved during each try to remove it; cancel the job again";
        Err(Error::new(ErrorKind::Conflict, why))
    }
}

impl Candidate {
    fn new(index: usize, found: Found) -> Self {
        let message = found.queued.as_ref().and_then(|queued| Message::open(&queued.body).ok());
        let target = Target::new(&found.record, message.as_ref(), found.revision);
        Self { index, found, target }
    }
}

/// The fate of a job that needs no question to the workers: it cannot be cancelled, or this call
/// has cancelled it already.
fn fate_before_asking(found: &Found, abort: bool, is_retry: bool) -> Option<Fate> {
    match found.record.status {
        // A worker that was asked may have received the job and recorded the cancel before this
        // client did.
        Status::Cancelled if is_retry && found.record.error.as_deref() == Some(&cancelled_before_start()) => {
            Some(Fate::Cancelled)
        }
        Status::Running if !abort => Some(Fate::Started),
        Status::Unknown => Some(Fate::Untouched),
        status if status.is_terminal() => Some(Fate::Untouched),
        _ => None,
    }
}
