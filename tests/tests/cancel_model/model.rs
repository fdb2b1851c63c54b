//! The states that each job may have, and the answers of each operation.

use std::collections::BTreeMap;
use std::time::Duration;

use aioq::store::Status;
use aioq::{ErrorKind, JobId, Result};
use tokio::time::Instant;

use crate::bodies::{PAUSE, RETRIES};
use crate::op::How;

/// Inexactness of points in time: the timers of tokio, and the duration of a step.
pub(crate) const SLACK: Duration = Duration::from_millis(10);
/// Time that a job stays with a worker that is gone.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(2);
/// Time that a worker that is gone seems to live.
const SEEMS_ALIVE: Duration = Duration::from_secs(30);
/// Number of crashes from which a job may have to wait until others that crashed have ended.
const SUSPICIOUS: u32 = 2;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// For its time, or for a worker.
    Waits {
        due: Instant,
    },
    /// On a worker that lives.
    Runs {
        run: usize,
    },
    /// Its worker has gone without a word.
    Lost {
        since: Instant,
    },
    Ended(Status),
}

/// A job from its kick or its latest retry on.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) state: State,
    pub(crate) attempt: u32,
    /// The outcome of a request on it is uncertain: it may have been called off.
    pub(crate) unsure: bool,
    /// It may have been purged.
    pub(crate) purged: bool,
    /// Workers that have gone without a word in this attempt. After two it is a suspect, which may
    /// wait for others.
    pub(crate) crashes: u32,
    /// The first run that is its own.
    pub(crate) first_run: usize,
    /// Statuses that its records had.
    pub(crate) told: Vec<Status>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) paused: bool,
    /// Number of workers that live.
    pub(crate) workers: usize,
    /// Times at which workers were dropped.
    pub(crate) dropped: Vec<Instant>,
}

impl Job {
    pub(crate) fn kicked(delay: Duration, first_run: usize) -> Self {
        let state = State::Waits { due: Instant::now() + delay };
        Self { state, attempt: 1, unsure: false, purged: false, crashes: 0, first_run, told: Vec::new() }
    }

    /// Statuses that it may have now.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        let before = if self.attempt > 1 { Status::Retrying } else { Status::Scheduled };
        match self.state {
            State::Waits { due } if is_before(due) => vec![before],
            State::Waits { due } if is_past(due) => vec![Status::Pending],
            State::Waits { .. } => vec![before, Status::Pending],
            // In its first moments it has no record.
            State::Runs { .. } | State::Lost { .. } => vec![Status::Pending, Status::Running],
            State::Ended(status) => vec![status],
        }
    }

    /// Its body came to an end.
    pub(crate) fn finish(&mut self, how: How) {
        self.crashes = 0;
        let again = State::Waits { due: Instant::now() + PAUSE };
        self.state = match how {
            How::Well => State::Ended(Status::Completed),
            How::Later => again,
            How::Again if self.attempt <= RETRIES => {
                self.attempt += 1;
                again
            }
            How::Again | How::Badly => State::Ended(Status::Failed),
        };
    }

    /// True if a worker may start it at that time.
    pub(crate) fn may_start(&self, at: Instant) -> bool {
        match self.state {
            State::Waits { due } => due <= at + SLACK,
            State::Lost { since } => since <= at,
            State::Runs { .. } | State::Ended(_) => false,
        }
    }

    /// True if a worker that takes jobs must have started it by now.
    pub(crate) fn must_have_started(&self) -> bool {
        match self.state {
            _ if self.crashes >= SUSPICIOUS => false,
            State::Waits { due } => is_past(due),
            State::Lost { since } => is_past(since + ACK_WAIT),
            State::Runs { .. } | State::Ended(_) => false,
        }
    }

    pub(crate) fn may_be_retried(&self) -> bool {
        matches!(self.state, State::Ended(status) if status != Status::Completed)
    }
}

/// Results of cancelling a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOff {
    Cancel,
    Abort,
    Remove,
}

impl Model {
    /// True if jobs that are due are started.
    pub(crate) fn takes_jobs(&self) -> bool {
        self.workers > 0 && !self.paused
    }

    /// True if a request may wait in vain for a worker that is gone.
    pub(crate) fn may_lack_an_answer(&self) -> bool {
        self.dropped.iter().any(|dropped| dropped.elapsed() < SEEMS_ALIVE + SLACK)
    }

    /// Checks the answer to a request to call a job off, `seen` as this before, and takes it over.
    pub(crate) fn called_off(
        &mut self,
        id: &JobId,
        request: CallOff,
        seen: Option<Status>,
        answer: &Result<bool>,
    ) {
        let may_lack_an_answer = self.may_lack_an_answer();
        let Some(job) = self.jobs.get_mut(id) else {
            let kind = answer.as_ref().unwrap_err().kind();
            assert_eq!(kind, ErrorKind::NotFound, "{request:?} of {id}, which is not there");
            return;
        };
        let expected = match job.state {
            State::Ended(_) => request == CallOff::Remove,
            State::Waits { .. } => true,
            State::Runs { .. } => request == CallOff::Abort,
            // Nobody can tell whether it still runs.
            State::Lost { .. } => request == CallOff::Abort || seen == Some(Status::Pending),
        };
        match answer {
            Ok(done) => assert_eq!(*done, expected, "{request:?} of {id}, {job:?}"),
            Err(error) => {
                let why = format!("{request:?} of {id}, {job:?}: {error}");
                assert!(error.kind() == ErrorKind::Deadline && may_lack_an_answer, "{why}");
                assert!(!matches!(job.state, State::Ended(_)), "{why}");
                job.unsure = true;
                return;
            }
        }
        match request {
            _ if !expected => {}
            CallOff::Remove => drop(self.jobs.remove(id)),
            CallOff::Cancel | CallOff::Abort => job.state = State::Ended(Status::Cancelled),
        }
    }

    /// The runs of these jobs were on a worker that is gone.
    pub(crate) fn lost(&mut self, runs: &[usize]) {
        for job in self.on(runs) {
            job.state = State::Lost { since: Instant::now() };
            job.crashes += 1;
        }
    }

    /// The runs of these jobs were on a worker that gave them back.
    pub(crate) fn given_back(&mut self, runs: &[usize]) {
        for job in self.on(runs) {
            job.state = State::Waits { due: Instant::now() };
        }
    }

    fn on(&mut self, runs: &[usize]) -> impl Iterator<Item = &mut Job> {
        self.jobs.values_mut().filter(|job| matches!(&job.state, State::Runs { run } if runs.contains(run)))
    }

    /// The jobs that run, with the numbers of their runs.
    pub(crate) fn running(&self) -> Vec<(JobId, usize)> {
        let run = |(id, job): (&JobId, &Job)| match job.state {
            State::Runs { run } => Some((id.clone(), run)),
            _ => None,
        };
        self.jobs.iter().filter_map(run).collect()
    }

    /// Takes over a purge that dropped this number of jobs: all that wait, for their time or for a
    /// worker.
    pub(crate) fn purged(&mut self, dropped: u64) {
        let (takes_jobs, mut certain, mut possible) = (self.takes_jobs(), 0, 0);
        self.jobs.retain(|_, job| {
            let (may, must) = match job.state {
                State::Waits { due } if takes_jobs => (true, is_before(due)),
                State::Waits { .. } => (true, true),
                State::Lost { since } => (true, !takes_jobs && is_past(since + ACK_WAIT + SLACK * 50)),
                State::Runs { .. } | State::Ended(_) => (false, false),
            };
            certain += u64::from(must);
            possible += u64::from(may);
            job.purged = may && !must;
            !must
        });
        assert!((certain..=possible).contains(&dropped), "{dropped} purged, of {certain} to {possible}");
    }
}

fn is_before(time: Instant) -> bool {
    Instant::now() + SLACK < time
}

fn is_past(time: Instant) -> bool {
    time + SLACK < Instant::now()
}
