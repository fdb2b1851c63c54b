//! The jobs that a worker holds: their leases are extended here, and here they are told to stop.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::{Delivery, Receipt};
use crate::cancel::{Marked, RunMark};
use crate::message::{JobId, Message};
use crate::run::{RunState, StopReason};

/// The jobs that a worker holds, started or about to.
#[derive(Default)]
pub(super) struct Leases {
    seats: Mutex<Slab<Arc<LeaseSlot>>>,
    /// How often to look at the leases, in milliseconds; 0 stands for [`SLOWEST`].
    tick_ms: AtomicU64,
    faster: Notify,
    /// How often it was looked which bodies block: about once a second.
    looks: AtomicU64,
}

/// Where the jobs of one spawned task are held, one after the other. Nearly always only that task comes here, so
/// that a job costs no lock that others want.
#[derive(Default)]
struct LeaseSlot(Mutex<Option<Held>>);

impl LeaseSlot {
    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Held {
    id: JobId,
    receipt: Arc<dyn Receipt>,
    /// When the lease was last known to be ours.
    leased: Instant,
    /// An extension is on its way.
    extending: bool,
    /// It has passed at some time: the job may have had another holder since, whatever an extension says.
    passed: bool,
    state: Arc<RunState>,
}

impl Held {
    fn is_current(&self) -> bool {
        !self.passed && self.leased.elapsed() < self.receipt.ack_wait()
    }
}

/// A lease to be extended.
struct Due {
    seat: Arc<LeaseSlot>,
    receipt: Arc<dyn Receipt>,
    state: Arc<RunState>,
}

/// How often to look at the leases at least: a lower `ack_wait` may be adopted at any time.
const SLOWEST: Duration = Duration::from_secs(1);

/// A place to hold one job after the other.
pub(super) struct LeaseHolder<'a> {
    jobs: &'a Leases,
    seat: Arc<LeaseSlot>,
    index: usize,
    /// That of the last job, for the next one if nobody else looks at it any more.
    state: Arc<RunState>,
}

impl Drop for LeaseHolder<'_> {
    fn drop(&mut self) {
        self.jobs.lock().remove(self.index);
    }
}

impl LeaseHolder<'_> {
    /// Holds a job that was fetched at `leased`: its lease is extended until the guard is dropped.
    pub(super) fn hold(&mut self, delivery: &Delivery, leased: Instant) -> Lease<'_> {
        let receipt = Arc::clone(&delivery.receipt);
        let ack_wait = receipt.ack_wait();
        self.jobs.quicken(ack_wait);
        match Arc::get_mut(&mut self.state) {
            Some(state) => *state = RunState::default(),
            None => self.state = Arc::default(),
        }
        let state = Arc::clone(&self.state);
        *self.seat.lock() = Some(Held {
            id: delivery.id.clone(),
            receipt,
            leased,
            extending: false,
            passed: false,
            state: Arc::clone(&state),
        });
        Lease { seat: &self.seat, leased, ack_wait, state }
    }
}

/// A job is held as long as this lives.
pub(super) struct Lease<'a> {
    seat: &'a LeaseSlot,
    /// When the job came, and how long it is ours from then on, whatever becomes of the extensions.
    pub(super) leased: Instant,
    ack_wait: Duration,
    pub(super) state: Arc<RunState>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.seat.lock().take();
    }
}

impl Lease<'_> {
    /// Whether the lease is still ours for certain.
    pub(super) fn is_current(&self) -> bool {
        self.seat.lock().as_ref().is_some_and(Held::is_current)
    }

    /// As [`is_current`](Self::is_current) at that moment, for a job that has most likely just come.
    pub(super) fn is_current_at(&self, now: Instant) -> bool {
        now - self.leased < self.ack_wait || self.is_current()
    }
}

impl Leases {
    /// A place for the jobs of a spawned task.
    pub(super) fn holder(&self) -> LeaseHolder<'_> {
        let seat = Arc::<LeaseSlot>::default();
        let index = self.lock().insert(Arc::clone(&seat));
        LeaseHolder { jobs: self, seat, index, state: Arc::default() }
    }

    /// How many jobs are held.
    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        self.each(|_| count += 1);
        count
    }

    /// Whether a run of that message goes on here.
    pub(super) fn runs(&self, message: &Message) -> bool {
        let run = RunMark::of(message);
        let mut runs = false;
        self.each(|held| runs |= held.id == message.id && held.state.runs(&run));
        runs
    }

    /// Looks at the jobs that are held.
    fn each(&self, mut look: impl FnMut(&mut Held)) {
        for (_, seat) in self.lock().iter() {
            if let Some(held) = seat.lock().as_mut() {
                look(held);
            }
        }
    }

    /// Tells every job that the worker ends.
    pub(super) fn shut_down(&self) {
        self.each(|held| held.state.stop(StopReason::Shutdown));
    }

    /// Calls off these jobs if they have not started, and aborts the others if `abort` says so; those that have
    /// started.
    pub(super) fn call_off(&self, jobs: &[Marked], abort: bool) -> Vec<JobId> {
        let marked: HashMap<&JobId, &Marked> = jobs.iter().map(|marked| (&marked.id, marked)).collect();
        let mut started = Vec::new();
        self.each(|held| {
            if marked.get(&held.id).is_some_and(|marked| held.state.apply_cancel(marked, abort)) {
                started.push(held.id.clone());
            }
        });
        started
    }

    /// Extends leases for ever, and looks which bodies block; the worker drops the future when it is done.
    ///
    /// Each extension is on its own: one that gets no answer holds no other up.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut extending = FuturesUnordered::new();
        let mut looked = Instant::now();
        let mut next = Instant::now() + self.tick();
        loop {
            tokio::select! {
                biased;
                () = self.faster.notified() => next = next.min(Instant::now() + self.tick()),
                Some(()) = extending.next() => {}
                () = tokio::time::sleep_until(next) => {
                    next = Instant::now() + self.tick();
                    extending.extend(self.due().into_iter().map(Self::extend));
                    if looked.elapsed() >= SLOWEST {
                        looked = Instant::now();
                        self.look_for_blocked();
                    }
                }
            }
        }
    }

    /// How long until the leases are looked at again.
    fn tick(&self) -> Duration {
        match self.tick_ms.load(Ordering::Acquire) {
            0 => SLOWEST,
            ms => Duration::from_millis(ms).min(SLOWEST),
        }
    }

    /// The number of the look that comes next: a clock that costs the runs nothing.
    pub(super) fn look(&self) -> u64 {
        self.looks.load(Ordering::Relaxed) + 1
    }

    /// Says which bodies block their thread since the look before the last one.
    fn look_for_blocked(&self) {
        let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        self.each(|held| {
            if let Some(task) = held.state.blocks_since(look.saturating_sub(1)) {
                tracing::warn!(
                    id = %held.id, task,
                    "its body blocks a thread that other jobs need: make it a plain `fn`, or use `spawn_blocking`"
                );
            }
        });
    }

    /// The tasks and queues of the async bodies that have slots; `None` if one has been polled since the last look.
    pub(super) fn idle_in_slots(&self) -> Option<BTreeSet<(String, String)>> {
        let last = self.look().saturating_sub(1);
        let (mut idle, mut moves) = (BTreeSet::new(), false);
        self.each(|held| match held.state.idle_in_slot(last) {
            Ok(Some((task, queue))) if !moves => _ = idle.insert((task.to_owned(), queue.to_owned())),
            Ok(_) => {}
            Err(()) => moves = true,
        });
        (!moves).then_some(idle)
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

    async fn extend(Due { seat, receipt, state }: Due) {
        let sent = Instant::now();
        // Not longer than until the next try is due.
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
        // The place may be another job's by now.
        if let Some(held) = seat.lock().as_mut().filter(|held| Arc::ptr_eq(&held.state, &state)) {
            held.extending = false;
            if let Some(leased) = leased {
                held.passed = !held.is_current();
                held.leased = leased;
            }
        }
    }

    /// The leases past a third of their time. One that is past all of it may be somebody else's by now, or
    /// nobody's if the server was away: who owns the job is decided by the next write of its record.
    fn due(&self) -> Vec<Due> {
        let now = Instant::now();
        let seats = self.lock();
        let due = seats.iter().filter_map(|(_, seat)| {
            let mut place = seat.lock();
            let held = place.as_mut()?;
            let (age, ack_wait) = (now - held.leased, held.receipt.ack_wait());
            // A value that was lowered while the job is held counts from now on.
            self.quicken(ack_wait);
            if age < ack_wait / 3 || held.extending {
                return None;
            }
            held.extending = true;
            let (receipt, state) = (Arc::clone(&held.receipt), Arc::clone(&held.state));
            Some(Due { seat: Arc::clone(seat), receipt, state })
        });
        due.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<LeaseSlot>>> {
        // Nothing panics while it is locked.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
