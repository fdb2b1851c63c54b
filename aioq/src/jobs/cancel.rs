//! Calling jobs off: [`cancel`](Jobs::cancel) before they start, [`abort`](Jobs::abort) at any time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::Jobs;
use super::clean::comes_before;
use super::find::Seen;
use crate::broker::Queued;
use crate::cancel::{self, Asking, Marked, Round};
use crate::context::Waiting;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{JobId, Message};
use crate::store::{Expect, Status, put_fitting};
use crate::time::{IntoDuration, check_span, from_now};

/// The most jobs of one round.
const AT_ONCE: usize = 500;

/// How often a job is looked at again at least because it moved on meanwhile; more often within the deadline.
const TRIES: usize = 8;

/// How often to look at a job that was told to stop, although nobody told of its end.
const RECHECK: Duration = Duration::from_secs(1);

/// What became of an attempt to call a job off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It never starts, and is recorded as cancelled.
    Cancelled,
    /// It had ended before, or nobody may stop what it does now.
    Untouched,
    /// It has started. If it is to be stopped, its worker knows.
    Started,
}

/// A job to be called off.
struct Candidate {
    index: usize,
    seen: Seen,
    marked: Marked,
}

impl Jobs {
    /// Calls a job off that has not started: true means that its body never starts, also if a worker holds it
    /// already. False: it runs or has ended, and nothing has changed.
    ///
    /// Takes about a round trip to the workers of its queue. A client that keeps no
    /// [records](crate::store::RecordLevel::None) may be told true of a job that ran and ended in that moment.
    ///
    /// Dropping the future leaves the matter open: workers that were asked leave the job alone for up to five
    /// minutes, and one that gets it records it as cancelled.
    ///
    /// # Errors
    /// - [`NotFound`](ErrorKind::NotFound): no such job, or its record is gone.
    /// - [`Deadline`](ErrorKind::Deadline): a worker that seems to live did not answer; the error names it. The
    ///   job may run or be called off, and asking again is safe.
    pub async fn cancel(&self, id: &JobId) -> Result<bool> {
        let mut fates = self.cancel_all(std::slice::from_ref(id)).await;
        fates.pop().unwrap_or_else(|| Ok(false))
    }

    /// [`cancel`](Self::cancel) for many jobs at once, with one question to the workers for hundreds of them;
    /// the fate of each, in order.
    pub async fn cancel_all(&self, ids: &[JobId]) -> Vec<Result<bool>> {
        let mut fates = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let called_off = self.call_off(ids, false).await.into_iter();
            fates.extend(called_off.map(|fate| fate.map(|fate| fate == Fate::Cancelled)));
        }
        fates
    }

    /// Calls a job off, also if it runs: the future of an async body is dropped at its next await, a blocking
    /// body sees [`is_cancelled`](crate::Context::is_cancelled). Waits for its end, at most for `timeout`; true
    /// only if it ended as cancelled.
    ///
    /// False: it had ended before, it ended otherwise, or its body goes on for longer than that.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel); [`InvalidArgument`](ErrorKind::InvalidArgument) for a `timeout` that is no
    /// duration, or longer than [`MAX_SPAN`](crate::MAX_SPAN).
    pub async fn abort(&self, id: &JobId, timeout: impl IntoDuration) -> Result<bool> {
        let deadline = from_now(check_span("the timeout", timeout.into_duration()?)?);
        let mut asked = false;
        loop {
            let ids = std::slice::from_ref(id);
            let Ok(mut fates) = timeout_at(deadline, self.call_off(ids, true)).await else {
                return self.is_cancelled(id).await;
            };
            match fates.pop().unwrap_or(Ok(Fate::Untouched)) {
                Ok(Fate::Cancelled) => return Ok(true),
                // What it was stopped by may have been an earlier round of this very call.
                Ok(Fate::Untouched) if asked => return self.is_cancelled(id).await,
                Ok(Fate::Untouched) => return Ok(false),
                Ok(Fate::Started) => asked = true,
                Err(error) => return Err(error),
            }
            let waiting = Waiting::begin();
            let moved_on = timeout_at(deadline, self.moved_on(id)).await;
            waiting.end().await;
            match moved_on {
                Ok(Ok(Some(status))) if status.is_terminal() => return Ok(status == Status::Cancelled),
                // It failed at that very moment, and waits to run again; or its worker gave it back.
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return self.is_cancelled(id).await,
            }
        }
    }

    async fn is_cancelled(&self, id: &JobId) -> Result<bool> {
        Ok(self.look(id).await?.record.status == Status::Cancelled)
    }

    /// Waits until a job that was told to stop is no longer running, and returns its state if that was told.
    async fn moved_on(&self, id: &JobId) -> Result<Option<Status>> {
        let seen = self.look(id).await?;
        let Ok(store) = self.store() else {
            // Nothing will be told.
            tokio::time::sleep(RECHECK).await;
            return Ok(None);
        };
        let mut records = self.rewatched(store, id, &seen.record.queue).await?;
        let status = self.look(id).await?.record.status;
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

    /// Calls off up to a round of jobs; the fate of each.
    async fn call_off(&self, ids: &[JobId], abort: bool) -> Vec<Result<Fate>> {
        let mut fates: Vec<Option<Result<Fate>>> = Vec::new();
        fates.resize_with(ids.len(), || None);
        let deadline = from_now(self.client.deadline());
        for round in 0.. {
            if round >= TRIES && Instant::now() >= deadline {
                break;
            }
            let open: Vec<usize> = (0..ids.len()).filter(|index| fates[*index].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let looks = open.iter().map(|index| async { (*index, self.look(&ids[*index]).await) });
            let mut candidates = Vec::new();
            for (index, seen) in join_all(looks).await {
                match seen {
                    Ok(seen) => match judge(&seen, abort, round > 0) {
                        Some(fate) => fates[index] = Some(self.left_over(seen).await.map(|()| fate)),
                        None => candidates.push(Candidate::new(index, seen)),
                    },
                    Err(error) => fates[index] = Some(Err(error)),
                }
            }
            self.one_round(candidates, abort, &mut fates).await;
        }
        let restless = |id: &JobId| {
            let why = "it moves from state to state faster than it can be called off, try again";
            Err(Error::new(ErrorKind::Conflict, why).with_id(id.clone()))
        };
        fates.into_iter().zip(ids).map(|(fate, id)| fate.unwrap_or_else(|| restless(id))).collect()
    }

    /// Takes away the message that an earlier cancel of the job may have left.
    async fn left_over(&self, seen: Seen) -> Result<()> {
        match seen {
            Seen { record, queued: Some(queued), revision } if record.status == Status::Cancelled => {
                self.take_away(queued, revision).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Asks the workers, then calls off what nobody has started.
    async fn one_round(&self, candidates: Vec<Candidate>, abort: bool, fates: &mut [Option<Result<Fate>>]) {
        if candidates.is_empty() {
            return;
        }
        let queues: HashSet<&str> =
            candidates.iter().map(|candidate| &*candidate.seen.record.queue).collect();
        let round = Round {
            queues: queues.into_iter().map(str::to_owned).collect(),
            jobs: candidates.iter().map(|candidate| candidate.marked.clone()).collect(),
            abort,
        };
        let (asking, started) = match Asking::ask(&self.client, round).await {
            Ok(answered) => answered,
            Err(error) => {
                for candidate in &candidates {
                    let id = candidate.marked.id.clone();
                    let error = Error::new(error.kind(), error.to_string()).with_id(id);
                    fates[candidate.index] = Some(Err(error));
                }
                return;
            }
        };
        let (running, waiting): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| started.contains(&candidate.marked.id));
        for candidate in running {
            fates[candidate.index] = Some(Ok(Fate::Started));
        }
        if !abort && !started.is_empty() {
            // Those go on, wherever they run next.
            asking.let_go(&started).await;
        }
        let ended = waiting.into_iter().map(|candidate| async {
            let (index, id) = (candidate.index, candidate.marked.id.clone());
            (index, self.end(candidate).await.map_err(|error| error.with_id(id)))
        });
        for (index, ended) in join_all(ended).await {
            fates[index] = match ended {
                Ok(true) => Some(Ok(Fate::Cancelled)),
                // Somebody wrote its record meanwhile: it is looked at again.
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            };
        }
    }

    /// Records that a job was called off, then takes its message away. False if somebody else wrote its record
    /// meanwhile, or took its message where there are no records.
    async fn end(&self, candidate: Candidate) -> Result<bool> {
        let Seen { mut record, queued, revision } = candidate.seen;
        let mut written = None;
        if let Some(jobs) = self.client.backend().jobs() {
            // Without a record before, none that is there now is also what a job leaves that ran and was removed
            // before the workers were asked. Its message tells.
            if revision.is_none() && !self.is_unchanged(queued.as_ref()).await? {
                return Ok(false);
            }
            let ran = record.status == Status::Running;
            record.error = Some(Box::new(if ran { cancel::aborted() } else { cancel::called_off() }));
            record.status = Status::Cancelled;
            record.finished_at = Some(self.client.now());
            record.message = queued.as_ref().map(|queued| queued.body.clone()).or(record.message);
            let expect = revision.map_or(Expect::Absent, Expect::Revision);
            let ttl = self.client.retention().span(Status::Cancelled);
            match put_fitting(&**jobs, Arc::new(record), expect, Some(ttl)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => return Ok(false),
                put => written = Some(put?),
            }
        }
        match queued {
            Some(queued) => self.take_away(queued, written).await,
            // It was acked when it started.
            None => Ok(true),
        }
    }

    /// Takes away the message of a job that was called off, also if it moves meanwhile: when its time comes, it
    /// is another message. Without a record it is the proof that nobody ran the job.
    async fn take_away(&self, mut queued: Queued, written: Option<u64>) -> Result<bool> {
        let broker = self.client.backend().broker();
        for _ in 0..TRIES {
            let removed = broker.remove(std::slice::from_ref(&queued)).await.into_iter().next();
            let removed = removed.unwrap_or(Ok(false))?;
            match broker.find(&queued.id).await? {
                Some(left) if comes_before(&left, written.unwrap_or(u64::MAX)) => queued = left,
                _ => return Ok(removed || written.is_some()),
            }
        }
        let why = "its message moves faster than it can be taken away, cancel it again";
        Err(Error::new(ErrorKind::Conflict, why))
    }
}

impl Candidate {
    fn new(index: usize, seen: Seen) -> Self {
        let message = seen.queued.as_ref().and_then(|queued| Message::open(&queued.body).ok());
        let marked = Marked::new(&seen.record, message.as_ref(), seen.revision);
        Self { index, seen, marked }
    }
}

/// The fate of a job that cannot be called off, or has been by this call; `None` if it can be tried.
fn judge(seen: &Seen, abort: bool, again: bool) -> Option<Fate> {
    match seen.record.status {
        // Whoever was told to leave it alone may have recorded that first.
        Status::Cancelled if again && seen.record.error.as_deref() == Some(&cancel::called_off()) => {
            Some(Fate::Cancelled)
        }
        Status::Running if !abort => Some(Fate::Started),
        Status::Unknown => Some(Fate::Untouched),
        status if status.is_terminal() => Some(Fate::Untouched),
        _ => None,
    }
}
