//! The leases of the jobs that a worker holds. They are extended here, and jobs are told to stop
//! here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::{Delivery, Receipt};
use crate::cancel::{RunId, Target};
use crate::message::{JobId, Message};
use crate::run::{RunState, StopReason};
use crate::sync::Lock;

/// The leases of the jobs that a worker holds, started or not.
#[derive(Default)]
pub(super) struct Leases {
    slots: Lock<Slab<Arc<LeaseSlot>>>,
    /// Interval between checks of the leases, in milliseconds; 0 stands for [`SLOWEST`].
    tick_ms: AtomicU64,
    faster: Notify,
    /// Number of watchdog scans so far, one a second.
    scans: AtomicU64,
}

/// The place of one runner's lease. Nearly always only that runner locks it, so a job costs no
/// contended lock.
type LeaseSlot = Lock<Option<HeldJob>>;

struct HeldJob {
    id: JobId,
    receipt: Arc<dyn Receipt>,
    /// The last moment at which the lease was known to be this worker's.
    leased: Instant,
    /// True while an extension is on its way.
    extending: bool,
    /// True if the lease has ever expired. The job may have had another holder since, whatever an
    /// extension says.
    has_expired: bool,
    state: Arc<RunState>,
}

impl HeldJob {
    fn is_current(&self) -> bool {
        !self.has_expired && self.leased.elapsed() < self.receipt.ack_wait()
    }
}

/// A lease to extend.
struct DueExtension {
    slot: Arc<LeaseSlot>,
    receipt: Arc<dyn Receipt>,
    state: Arc<RunState>,
}

/// The longest interval between checks: a lower `ack_wait` may be adopted at any time.
const SLOWEST: Duration = Duration::from_secs(1);

/// A runner's place among the leases, for one job after another.
pub(super) struct LeaseHolder<'a> {
    jobs: &'a Leases,
    slot: Arc<LeaseSlot>,
    index: usize,
    /// State of the last job. The next job reuses it if nothing else refers to it.
    state: Arc<RunState>,
}

impl Drop for LeaseHolder<'_> {
    fn drop(&mut self) {
        self.jobs.slots.lock().remove(self.index);
    }
}

impl LeaseHolder<'_> {
    /// Holds a job that was fetched at `leased`. Its lease is extended until the guard is dropped.
    pub(super) fn hold(&mut self, delivery: &Delivery, leased: Instant) -> Lease<'_> {
        let receipt = Arc::clone(&delivery.receipt);
        let ack_wait = receipt.ack_wait();
        self.jobs.check_within(ack_wait);
        match Arc::get_mut(&mut self.state) {
            Some(state) => *state = RunState::default(),
            None => self.state = Arc::default(),
        }
        let state = Arc::clone(&self.state);
        *self.slot.lock() = Some(HeldJob {
            id: delivery.id.clone(),
            receipt,
            leased,
            extending: false,
            has_expired: false,
            state: Arc::clone(&state),
        });
        Lease { slot: &self.slot, leased, ack_wait, state }
    }
}

/// The lease of one job. Dropping it ends the extensions.
pub(super) struct Lease<'a> {
    slot: &'a LeaseSlot,
    /// The moment at which the job came. Even without an extension the worker holds the job for
    /// `ack_wait` from then on.
    pub(super) leased: Instant,
    ack_wait: Duration,
    pub(super) state: Arc<RunState>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.slot.lock().take();
    }
}

impl Lease<'_> {
    /// True if the lease is certainly this worker's.
    pub(super) fn is_current(&self) -> bool {
        self.slot.lock().as_ref().is_some_and(HeldJob::is_current)
    }

    /// As [`is_current`](Self::is_current), at `now`; cheap for a job that has just come.
    pub(super) fn is_current_at(&self, now: Instant) -> bool {
        now - self.leased < self.ack_wait || self.is_current()
    }
}

impl Leases {
    /// A place for the jobs of one runner.
    pub(super) fn holder(&self) -> LeaseHolder<'_> {
        let slot = Arc::<LeaseSlot>::default();
        let index = self.slots.lock().insert(Arc::clone(&slot));
        LeaseHolder { jobs: self, slot, index, state: Arc::default() }
    }

    /// Number of held jobs.
    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        self.each(|_| count += 1);
        count
    }

    /// True if a run of this message goes on here.
    pub(super) fn runs(&self, message: &Message) -> bool {
        let run = RunId::of(message);
        let mut runs = false;
        self.each(|held| runs |= held.id == message.id && held.state.runs(&run));
        runs
    }

    /// Visits the held jobs.
    fn each(&self, mut visit: impl FnMut(&mut HeldJob)) {
        for (_, slot) in self.slots.lock().iter() {
            if let Some(held) = slot.lock().as_mut() {
                visit(held);
            }
        }
    }

    /// Tells every job that the worker ends.
    pub(super) fn shut_down(&self) {
        self.each(|held| held.state.stop(StopReason::Shutdown));
    }

    /// Cancels these jobs if they have not started, and aborts the others if `abort` is set. The
    /// ids of the started ones.
    pub(super) fn apply_cancel(&self, targets: &[Target], abort: bool) -> Vec<JobId> {
        let targets: HashMap<&JobId, &Target> = targets.iter().map(|target| (&target.id, target)).collect();
        let mut started = Vec::new();
        self.each(|held| {
            if targets.get(&held.id).is_some_and(|target| held.state.apply_cancel(target, abort)) {
                started.push(held.id.clone());
            }
        });
        started
    }

    /// Extends leases and reports bodies that block, until the future is dropped.
    ///
    /// Each extension is a request of its own: one without an answer delays no other.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut extending = FuturesUnordered::new();
        let mut scanned = Instant::now();
        let mut next = Instant::now() + self.tick();
        loop {
            tokio::select! {
                biased;
                () = self.faster.notified() => next = next.min(Instant::now() + self.tick()),
                Some(()) = extending.next() => {}
                () = tokio::time::sleep_until(next) => {
                    next = Instant::now() + self.tick();
                    extending.extend(self.due().into_iter().map(Self::extend));
                    if scanned.elapsed() >= SLOWEST {
                        scanned = Instant::now();
                        self.report_blocked();
                    }
                }
            }
        }
    }

    /// Time until the next check of the leases.
    fn tick(&self) -> Duration {
        match self.tick_ms.load(Ordering::Acquire) {
            0 => SLOWEST,
            ms => Duration::from_millis(ms).min(SLOWEST),
        }
    }

    /// Number of the next scan: a clock that costs the runs nothing.
    pub(super) fn scan(&self) -> u64 {
        self.scans.load(Ordering::Relaxed) + 1
    }

    /// Logs the bodies that have blocked their thread since the scan before the last one.
    fn report_blocked(&self) {
        let scan = self.scans.fetch_add(1, Ordering::Relaxed) + 1;
        self.each(|held| {
            if let Some(task) = held.state.blocks_since(scan.saturating_sub(1)) {
                tracing::warn!(
                    id = %held.id, task,
                    "its body blocks a thread that other jobs need: make it a plain `fn`, or use `spawn_blocking`"
                );
            }
        });
    }

    /// Tasks and queues of the async bodies that have slots; `None` if one was polled since the
    /// last scan.
    pub(super) fn idle_in_slots(&self) -> Option<BTreeSet<(String, String)>> {
        let last = self.scan().saturating_sub(1);
        let (mut idle, mut moves) = (BTreeSet::new(), false);
        self.each(|held| match held.state.idle_in_slot(last) {
            Ok(Some((task, queue))) if !moves => _ = idle.insert((task.to_owned(), queue.to_owned())),
            Ok(_) => {}
            Err(()) => moves = true,
        });
        (!moves).then_some(idle)
    }

    /// Shortens the interval between checks to a sixth of `ack_wait`.
    fn check_within(&self, ack_wait: Duration) {
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

    async fn extend(DueExtension { slot, receipt, state }: DueExtension) {
        let sent = Instant::now();
        // No longer than until the next try is due.
        let extended = tokio::time::timeout(receipt.ack_wait() / 3, receipt.extend()).await;
        let leased = match extended {
            Ok(Ok(())) => Some(sent),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a lease could not be extended");
                None
            }
            Err(_) => {
                tracing::debug!("a lease could not be extended in time");
                None
            }
        };
        // Another job may have the place by now.
        if let Some(held) = slot.lock().as_mut().filter(|held| Arc::ptr_eq(&held.state, &state)) {
            held.extending = false;
            if let Some(leased) = leased {
                held.has_expired = !held.is_current();
                held.leased = leased;
            }
        }
    }

    /// Leases that are past a third of their time.
    ///
    /// A lease that has expired may be another worker's by now, or unclaimed if the server was
    /// away. The next write of the job's record decides who owns the job.
    fn due(&self) -> Vec<DueExtension> {
        let now = Instant::now();
        let slots = self.slots.lock();
        let due = slots.iter().filter_map(|(_, slot)| {
            let mut place = slot.lock();
            let held = place.as_mut()?;
            let (age, ack_wait) = (now - held.leased, held.receipt.ack_wait());
            // An `ack_wait` that was lowered while the job is held counts from now on.
            self.check_within(ack_wait);
            if age < ack_wait / 3 || held.extending {
                return None;
            }
            held.extending = true;
            let (receipt, state) = (Arc::clone(&held.receipt), Arc::clone(&held.state));
            Some(DueExtension { slot: Arc::clone(slot), receipt, state })
        });
        due.collect()
    }
}
