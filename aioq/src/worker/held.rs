//! The jobs that a worker holds: their leases are extended here, and here they are told to stop.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Receipt;
use crate::message::JobId;

/// The jobs that a worker holds, started or about to.
#[derive(Default)]
pub(super) struct HeldJobs {
    jobs: Mutex<Slab<Held>>,
    /// How often to look at the leases, in milliseconds; 0 stands for [`SLOWEST`].
    tick_ms: AtomicU64,
    faster: Notify,
}

struct Held {
    id: JobId,
    receipt: Arc<dyn Receipt>,
    /// When the lease was last known to be ours.
    leased: Instant,
    stop: Stop,
}

/// How often to look at the leases at least: a lower `ack_wait` may be adopted at any time.
const SLOWEST: Duration = Duration::from_secs(1);

/// Tells one job to stop, and why; and whether it has started, so that it is called off before or not at all.
#[derive(Clone)]
pub(super) struct Stop {
    token: CancellationToken,
    state: Arc<AtomicU8>,
}

/// The states of a [`Stop`] without a reason to stop.
const WAITING: u8 = 0;
const STARTED: u8 = 1;

/// Why a job is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Why {
    /// The worker shuts down, and its patience is over.
    Shutdown = 2,
    /// It was stopped on demand while it ran.
    Aborted = 3,
    /// It was called off before it started.
    CalledOff = 4,
}

impl Stop {
    fn new() -> Self {
        Self { token: CancellationToken::new(), state: Arc::new(AtomicU8::new(WAITING)) }
    }

    /// Starts the job, unless it was told to stop before.
    pub(super) fn start(&self) -> Result<(), Why> {
        let started = self.state.compare_exchange(WAITING, STARTED, Ordering::AcqRel, Ordering::Acquire);
        started.map(drop).map_err(|_| self.why().unwrap_or(Why::Shutdown))
    }

    /// Tells a job to stop that is in state `from`; whether it was.
    fn stop(&self, from: u8, why: Why) -> bool {
        let first = self.state.compare_exchange(from, why as u8, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.token.cancel();
        }
        first.is_ok()
    }

    /// What the body sees.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Why the job was told to stop from outside, if it was.
    pub(super) fn why(&self) -> Option<Why> {
        [Why::Shutdown, Why::Aborted, Why::CalledOff]
            .into_iter()
            .find(|why| *why as u8 == self.state.load(Ordering::Acquire))
    }

    /// Resolves when the job is told to stop from outside.
    pub(super) async fn stopped(&self) -> Why {
        self.token.cancelled().await;
        match self.why() {
            Some(why) => why,
            // The body's own timeout fired the token: the run ends by itself.
            None => std::future::pending().await,
        }
    }
}

/// A job is held as long as this lives.
pub(super) struct Lease {
    held: Arc<HeldJobs>,
    index: usize,
    pub(super) stop: Stop,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.lock().remove(self.index);
    }
}

impl Lease {
    /// Whether the lease is still ours for certain.
    pub(super) fn is_current(&self) -> bool {
        let jobs = self.held.lock();
        let held = &jobs[self.index];
        held.leased.elapsed() < held.receipt.ack_wait()
    }
}

impl HeldJobs {
    /// Holds a job: its lease is extended until the guard is dropped.
    pub(super) fn hold(self: &Arc<Self>, id: JobId, receipt: Arc<dyn Receipt>) -> Lease {
        self.quicken(receipt.ack_wait());
        let stop = Stop::new();
        let index = self.lock().insert(Held { id, receipt, leased: Instant::now(), stop: stop.clone() });
        Lease { held: Arc::clone(self), index, stop }
    }

    /// How many jobs are held.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells every job that the worker ends.
    pub(super) fn shut_down(&self) {
        for (_, held) in self.lock().iter() {
            // It may start between the two.
            while held.stop.why().is_none()
                && !held.stop.stop(STARTED, Why::Shutdown)
                && !held.stop.stop(WAITING, Why::Shutdown)
            {}
        }
    }

    /// Calls off the jobs with these ids that have not started, and stops the others if `abort` says so; those
    /// that have started.
    pub(super) fn call_off<'a>(&self, ids: impl Iterator<Item = &'a JobId>, abort: bool) -> Vec<JobId> {
        let ids: HashSet<&JobId> = ids.collect();
        let mut started = Vec::new();
        for (_, held) in self.lock().iter().filter(|(_, held)| ids.contains(&held.id)) {
            if held.stop.stop(WAITING, Why::CalledOff) || held.stop.why() == Some(Why::CalledOff) {
                continue;
            }
            if abort {
                held.stop.stop(STARTED, Why::Aborted);
            }
            started.push(held.id.clone());
        }
        started
    }

    /// Extends leases for ever; the worker drops the future when it is done.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            let tick = match self.tick_ms.load(Ordering::Acquire) {
                0 => SLOWEST,
                ms => Duration::from_millis(ms).min(SLOWEST),
            };
            if tokio::time::timeout(tick, self.faster.notified()).await.is_err() {
                self.extend_due().await;
            }
        }
    }

    /// Looks often enough for a lease of that length: six times in it.
    fn quicken(&self, ack_wait: Duration) {
        if ack_wait / 6 >= SLOWEST {
            return;
        }
        let wanted = u64::try_from(ack_wait.as_millis() / 6).unwrap_or(u64::MAX).max(10);
        let now = self.tick_ms.load(Ordering::Acquire);
        if (now == 0 || wanted < now)
            && self
                .tick_ms
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                    (now == 0 || wanted < now).then_some(wanted)
                })
                .is_ok()
        {
            self.faster.notify_one();
        }
    }

    async fn extend_due(&self) {
        let due = self.due();
        let extensions = due.into_iter().map(|(index, receipt, stop)| async move {
            let sent = Instant::now();
            // Not longer than until the next try is due.
            let extended = tokio::time::timeout(receipt.ack_wait() / 3, receipt.extend()).await;
            match extended {
                Ok(Ok(())) => self.extended(index, &stop, sent),
                Ok(Err(error)) => tracing::debug!(%error, "a lease could not be extended"),
                Err(_) => tracing::debug!("a lease could not be extended in time"),
            }
        });
        futures_util::future::join_all(extensions).await;
    }

    /// The leases past a third of their time. One that is past all of it may be somebody else's by now, or
    /// nobody's if the server was away: who owns the job is decided by the next write of its record.
    fn due(&self) -> Vec<(usize, Arc<dyn Receipt>, Stop)> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (index, held) in self.lock().iter() {
            let (age, ack_wait) = (now - held.leased, held.receipt.ack_wait());
            // A value that was lowered while the job is held counts from now on.
            self.quicken(ack_wait);
            if age >= ack_wait / 3 {
                due.push((index, Arc::clone(&held.receipt), held.stop.clone()));
            }
        }
        due
    }

    fn extended(&self, index: usize, stop: &Stop, sent: Instant) {
        let mut jobs = self.lock();
        // The place may be another job's by now.
        if let Some(held) = jobs.get_mut(index).filter(|held| Arc::ptr_eq(&held.stop.state, &stop.state)) {
            held.leased = sent;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Held>> {
        // Nothing panics while it is locked.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
