//! Jobs that may have killed their process: they are run one at a time, so that a death tells which one it was.
//!
//! A job is a suspect when its body was started more than twice and left no end; what one death, of a machine or of a
//! deploy, has cut off is run again at once. All suspects of a process wait in one line. Other jobs go on beside them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::Shared;
use super::leases::Lease;
use super::process::Turn;
use super::run::stays_here;
use crate::broker::Delivery;
use crate::error::Result;

/// Starts that may have left no end before a job is a suspect.
const UNSUSPECTED: u32 = 2;

/// How long a suspect waits here, before other workers get it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many wait here at most.
const MOST_WAITING: usize = 64;

/// How long one that has waited is left to other workers, for each time that it was delivered, and at most.
const DELAY: Duration = Duration::from_secs(1);
const MOST_DELAYS: u32 = 10;

/// How long a suspect that runs keeps the others waiting; after each further start without an end twice as long.
const ALONE: Duration = Duration::from_secs(5 * 60);
const MOST_DOUBLED: u32 = 10;

/// Whether a job is a suspect that is now started for the `starts`th time, none of which has left an end.
pub(super) fn is_suspect(starts: u32, max_crashes: u32) -> bool {
    starts > UNSUSPECTED.min(max_crashes)
}

/// The suspects of a worker.
#[derive(Default)]
pub(super) struct Suspects {
    /// For a worker whose process is not what dies: that of a memory backend, or of a test with a clock of its own.
    own: Arc<Line>,
    stopping: watch::Sender<bool>,
}

struct Line {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Those that run although it is another one's turn.
    beside: AtomicUsize,
}

impl Default for Line {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0), beside: AtomicUsize::new(0) }
    }
}

/// The line of this process, whose death is to be explained, however many workers are in it.
static OF_PROCESS: LazyLock<Arc<Line>> = LazyLock::new(Arc::default);

impl Suspects {
    /// Gives back those that wait: the worker starts nothing any more.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    async fn stopped(&self) {
        // The sender is a part of this.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// A suspect's turn to run. To be kept until its end is recorded.
pub(super) struct SuspectTurn {
    line: Arc<Line>,
    /// `None` once others may run beside it.
    permit: Option<OwnedSemaphorePermit>,
    since: Instant,
    starts: u32,
    gives_way: bool,
}

impl SuspectTurn {
    /// Whether no other suspect runs in this process.
    pub(super) fn is_alone(&self) -> bool {
        self.line.beside.load(Ordering::SeqCst) == 0
    }

    /// Whether it is to let others run beside it, once that is written down: a death is no proof from then on.
    pub(super) fn gives_way(&mut self) -> bool {
        let doubled = self.starts.saturating_sub(UNSUSPECTED + 1).min(MOST_DOUBLED);
        self.gives_way |=
            self.line.waiting.load(Ordering::SeqCst) > 0 && self.since.elapsed() >= ALONE * (1 << doubled);
        self.gives_way
    }

    /// Lets others run beside it, if it is to.
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

/// Waits until it is the turn of a suspect that is started for the `starts`th time. `None` if it was given back.
///
/// Meanwhile the job is held and its lease extended, but it keeps no slot and no thread from others.
pub(super) async fn wait_for_turn(
    shared: &Shared,
    delivery: &Delivery,
    lease: &Lease<'_>,
    starts: u32,
    turn: &mut Turn,
) -> Result<Option<SuspectTurn>> {
    let line = if stays_here(shared) { &shared.suspects.own } else { &*OF_PROCESS };
    let permit = match Arc::clone(&line.turn).try_acquire_owned() {
        Ok(permit) => Ok(permit),
        Err(_) => {
            turn.leave();
            wait(shared, delivery, line, turn).await
        }
    };
    match permit {
        Ok(permit) => {
            let since = Instant::now();
            let line = Arc::clone(line);
            tracing::warn!(
                id = %delivery.id, starts = starts - 1,
                "was started and left no end, runs with no other such job beside it"
            );
            Ok(Some(SuspectTurn { line, permit: Some(permit), since, starts, gives_way: false }))
        }
        Err(delay) => {
            tracing::debug!(id = %delivery.id, ?delay, "may kill its process as the one that runs, given back");
            if lease.is_current() {
                delivery.receipt.release(delay).await?;
            }
            Ok(None)
        }
    }
}

/// Waits for the turn, and then for a slot. An error is how long to leave the job to other workers.
async fn wait(
    shared: &Shared,
    delivery: &Delivery,
    line: &Line,
    turn: &mut Turn,
) -> Result<OwnedSemaphorePermit, Duration> {
    let delay = DELAY * delivery.deliveries.clamp(1, MOST_DELAYS);
    let _waiting = Waiting(&line.waiting);
    if line.waiting.fetch_add(1, Ordering::SeqCst) >= MOST_WAITING {
        return Err(delay);
    }
    let entered = async {
        let permit = Arc::clone(&line.turn).acquire_owned().await.ok()?;
        turn.slot = Some(Arc::clone(&shared.scope.slots).reacquire().await?);
        Some(permit)
    };
    // In burst mode it would look as if nothing were left to do.
    let others_may = !shared.options.burst && !shared.scope.client.in_process();
    tokio::select! {
        biased;
        () = shared.suspects.stopped() => Err(Duration::ZERO),
        permit = entered => permit.ok_or(Duration::ZERO),
        () = tokio::time::sleep(PATIENCE), if others_may => Err(delay),
    }
}

/// Counted as waiting as long as this lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
