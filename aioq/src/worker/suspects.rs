//! Suspects: jobs that may have killed their process. They run one at a time, so that a death shows
//! which of them it was.
//!
//! A job is a suspect when its body was started more than twice and left no end. Jobs that one
//! death of a machine or one deploy has cut off are run again at once. All suspects of a process
//! wait in one line. Other jobs go on beside them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::Shared;
use super::run::stays_here;
use super::runner::SlotTurn;
use crate::message::JobId;

/// Starts without an end after which a job is a suspect.
const UNSUSPECTED: u32 = 2;

/// Time that a suspect waits here before other workers get it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most suspects that wait here.
const MOST_WAITING: usize = 64;

/// Delay after which a suspect that has waited comes again, per delivery so far, and the most of
/// them.
const DELAY: Duration = Duration::from_secs(1);
const MOST_DELAYS: u32 = 10;

/// Time for which a running suspect keeps the others waiting. It doubles with each further start
/// without an end.
const ALONE: Duration = Duration::from_secs(5 * 60);
const MOST_DOUBLED: u32 = 10;

/// True if a job is a suspect whose `starts`th start begins now, and none of them has left an end.
pub(super) fn is_suspect(starts: u32, max_crashes: u32) -> bool {
    starts > UNSUSPECTED.min(max_crashes)
}

/// The suspects of a worker.
#[derive(Default)]
pub(super) struct Suspects {
    /// The line of a worker whose process does not die alone: with a memory backend, or in a test
    /// with a clock of its own.
    own: Arc<Line>,
    stopping: watch::Sender<bool>,
}

struct Line {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Suspects that run out of turn.
    beside: AtomicUsize,
}

impl Default for Line {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0), beside: AtomicUsize::new(0) }
    }
}

/// The line of this process, shared by all of its workers.
static OF_PROCESS: LazyLock<Arc<Line>> = LazyLock::new(Arc::default);

impl Suspects {
    /// Gives back the waiting suspects: the worker starts no more jobs.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    async fn stopped(&self) {
        // The sender is a field of `self`.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// A suspect's turn to run. Kept until its end is recorded.
pub(super) struct SuspectTurn {
    line: Arc<Line>,
    /// `None` once others may run beside it.
    permit: Option<OwnedSemaphorePermit>,
    since: Instant,
    starts: u32,
    gives_way: bool,
}

impl SuspectTurn {
    /// True if no other suspect runs in this process.
    pub(super) fn is_alone(&self) -> bool {
        self.line.beside.load(Ordering::SeqCst) == 0
    }

    /// True if others are to run beside it. Its record must say so first: a death proves nothing
    /// from then on.
    pub(super) fn gives_way(&mut self) -> bool {
        let doubled = self.starts.saturating_sub(UNSUSPECTED + 1).min(MOST_DOUBLED);
        self.gives_way |=
            self.line.waiting.load(Ordering::SeqCst) > 0 && self.since.elapsed() >= ALONE * (1 << doubled);
        self.gives_way
    }

    /// Lets others run beside it, if [`gives_way`](Self::gives_way) has said so.
    pub(super) fn give_way(&mut self) {
        if self.gives_way && self.permit.is_some() {
            self.line.beside.fetch_add(1, Ordering::SeqCst);
            self.permit = None;
        }
    }
}

impl Drop for SuspectTurn {
    fn drop(&mut self) {
        if self.permit.is_none() {
            self.line.beside.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl std::fmt::Debug for SuspectTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SuspectTurn").field("starts", &self.starts).finish_non_exhaustive()
    }
}

/// Waits until no other suspect runs in this process. `starts` is the number of this start. The
/// error is the time for which the job is left to other workers.
///
/// Meanwhile the job is held and its lease extended, but it keeps no slot and no thread from
/// others.
pub(super) async fn wait_for_turn(
    worker: &Shared,
    id: &JobId,
    deliveries: u32,
    starts: u32,
    turn: &mut SlotTurn,
) -> Result<SuspectTurn, Duration> {
    let line = if stays_here(worker) { &worker.suspects.own } else { &*OF_PROCESS };
    let permit = match Arc::clone(&line.turn).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            turn.give_up();
            wait(worker, deliveries, line, turn).await?
        }
    };
    tracing::warn!(%id, starts = starts - 1, "its earlier starts left no end: it runs with no other suspect beside it");
    let (line, since) = (Arc::clone(line), Instant::now());
    Ok(SuspectTurn { line, permit: Some(permit), since, starts, gives_way: false })
}

/// Waits for the turn, and then for a slot.
async fn wait(
    worker: &Shared,
    deliveries: u32,
    line: &Line,
    turn: &mut SlotTurn,
) -> Result<OwnedSemaphorePermit, Duration> {
    let delay = DELAY * deliveries.clamp(1, MOST_DELAYS);
    let _waiting = Waiting(&line.waiting);
    if line.waiting.fetch_add(1, Ordering::SeqCst) >= MOST_WAITING {
        return Err(delay);
    }
    let entered = async {
        let permit = Arc::clone(&line.turn).acquire_owned().await.ok()?;
        turn.slot = Some(Arc::clone(&worker.scope.slots).reacquire().await?);
        Some(permit)
    };
    // A burst would take the worker for idle if the job were given back.
    let others_may = !worker.options.burst && !worker.client().in_process();
    tokio::select! {
        biased;
        () = worker.suspects.stopped() => Err(Duration::ZERO),
        permit = entered => permit.ok_or(Duration::ZERO),
        () = tokio::time::sleep(PATIENCE), if others_may => Err(delay),
    }
}

/// Counts a waiting suspect until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
