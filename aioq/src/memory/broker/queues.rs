//! The queues: ready, held and delayed messages, and the listeners of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::waiters::{QueueId, WaiterId, Waiters};
use crate::broker::{DEFAULT_ACK_WAIT, MAX_ACK_WAIT, QueueDepth};
use crate::memory::index::{RankedSlots, Slot};
use crate::memory::timers::Timers;
use crate::message::{JobId, Name, Priority};

/// A message in the broker.
pub(super) struct QueueEntry {
    pub(super) id: JobId,
    /// Hash of the id.
    pub(super) hash: u64,
    /// Differs from the serials of its predecessors and successors under the same id.
    pub(super) serial: u64,
    /// Place in line. A successor inherits it.
    pub(super) order: u64,
    pub(super) queue: QueueId,
    pub(super) priority: Priority,
    /// True for attempts after the first.
    pub(super) retried: bool,
    pub(super) body: Bytes,
    /// Number of deliveries so far.
    pub(super) deliveries: u32,
    pub(super) stage: Stage,
    /// Time at which it last became ready.
    pub(super) ready_since: Instant,
}

/// Stage of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In no queue.
    Detached,
    /// Ready to be delivered.
    Ready,
    /// Held by a worker until that time.
    Held(Instant),
    /// Delayed until that time.
    Scheduled(Instant),
}

/// The `ack_wait` of a queue, once a listener has named one.
#[derive(Default)]
pub(super) struct AckWait(OnceLock<Duration>);

impl AckWait {
    pub(super) fn get(&self) -> Duration {
        self.0.get().copied().unwrap_or(DEFAULT_ACK_WAIT)
    }

    fn set_once(&self, ack_wait: Option<Duration>) {
        if let Some(ack_wait) = ack_wait {
            self.0.get_or_init(|| ack_wait.min(MAX_ACK_WAIT));
        }
    }
}

/// The `ack_wait` of each queue of a listener.
pub(super) struct Leases(Vec<(QueueId, Arc<AckWait>)>);

impl Leases {
    /// The `ack_wait` of one of these queues.
    pub(super) fn ack_wait(&self, queue: QueueId) -> Duration {
        self.find(queue).map_or(DEFAULT_ACK_WAIT, AckWait::get)
    }

    fn find(&self, queue: QueueId) -> Option<&AckWait> {
        let (first, _) = self.0.first()?;
        let is = |(number, _): &&(QueueId, Arc<AckWait>)| *number == queue;
        // Queues of one listener mostly have consecutive ids.
        let in_a_row = queue.checked_sub(*first).and_then(|index| self.0.get(index)).filter(is);
        let found = in_a_row.or_else(|| {
            let index = self.0.binary_search_by_key(&queue, |(number, _)| *number).ok()?;
            self.0.get(index)
        });
        found.map(|(_, ack_wait)| &**ack_wait)
    }
}

/// A queue.
pub(super) struct Queue {
    pub(super) name: Name,
    ack_wait: Arc<AckWait>,
    /// Ready messages by priority, then by place in line. A message that comes back gets its old
    /// place.
    pub(super) line: RankedSlots<Priority>,
    held: u64,
    /// Delayed first attempts, by place in line.
    pub(super) scheduled: BTreeMap<u64, Slot>,
    /// Delayed later attempts, by place in line.
    pub(super) retrying: BTreeMap<u64, Slot>,
    listeners: Vec<WaiterId>,
}

impl Queue {
    fn delayed(&mut self, retried: bool) -> &mut BTreeMap<u64, Slot> {
        if retried { &mut self.retrying } else { &mut self.scheduled }
    }
}

/// All queues, and the listeners that take messages from them.
#[derive(Default)]
pub(super) struct QueueTable {
    queues: Vec<Queue>,
    names: HashMap<Name, QueueId, RandomState>,
    /// Ends of leases. An entry counts if its message is held until exactly then.
    pub(super) leases: Timers,
    /// Ends of delays, with the serial of the message.
    delays: BTreeMap<(Instant, u64), Slot>,
    pub(super) waiters: Waiters,
    /// Queues of ready messages for which no listener has been woken yet.
    unannounced: Vec<QueueId>,
    /// Number of ready and held messages.
    active: usize,
    /// Number of held messages.
    pub(super) held: usize,
    pub(super) idle: Arc<Notify>,
    /// True if `wait_idle` waits for `idle`.
    idle_awaited: bool,
}

impl QueueTable {
    /// The id of the queue of that name; adds the queue if it is new.
    pub(super) fn queue(&mut self, name: &str) -> QueueId {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let name = Name::from(name);
        self.queues.push(Queue {
            name: name.clone(),
            ack_wait: Arc::default(),
            line: RankedSlots::default(),
            held: 0,
            scheduled: BTreeMap::new(),
            retrying: BTreeMap::new(),
            listeners: Vec::new(),
        });
        self.names.insert(name, self.queues.len() - 1);
        self.queues.len() - 1
    }

    pub(super) fn name(&self, queue: QueueId) -> Name {
        self.queues[queue].name.clone()
    }

    /// True if no message is ready or held. Otherwise the next idle moment is notified.
    pub(super) fn await_idle(&mut self) -> bool {
        self.idle_awaited = self.active > 0;
        self.active == 0
    }

    /// True if `wait_idle` or a listener waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.idle_awaited || self.waiters.any_waiting()
    }

    pub(super) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    pub(super) fn find(&self, name: &str) -> Option<&Queue> {
        self.names.get(name).map(|&id| &self.queues[id])
    }

    pub(super) fn depth(&self, name: &str) -> QueueDepth {
        let mut depth = QueueDepth::new(name);
        if let Some(queue) = self.find(name) {
            depth.ready = queue.line.len() as u64;
            depth.held = queue.held;
            depth.scheduled = queue.scheduled.len() as u64;
            depth.retrying = queue.retrying.len() as u64;
        }
        depth
    }

    /// Adds a listener.
    ///
    /// The first listener of a queue that names an `ack_wait` fixes it: with several lengths in one
    /// queue a worker could not know when to extend.
    pub(super) fn listen(&mut self, queues: &[String], ack_wait: Option<Duration>) -> (WaiterId, Leases) {
        let ids: Vec<QueueId> = queues.iter().map(|name| self.queue(name)).collect();
        let waiter = self.waiters.register(ids.clone());
        let mut leases = Vec::with_capacity(ids.len());
        for id in ids {
            let queue = &mut self.queues[id];
            queue.ack_wait.set_once(ack_wait);
            leases.push((id, Arc::clone(&queue.ack_wait)));
            queue.listeners.push(waiter);
            if !queue.line.is_empty() {
                self.waiters.add_turn(waiter, id);
            }
        }
        leases.sort_unstable_by_key(|(queue, _)| *queue);
        (waiter, Leases(leases))
    }

    /// Removes a listener.
    pub(super) fn unlisten(&mut self, waiter: WaiterId) {
        self.stop_waiting(waiter);
        for id in self.waiters.remove(waiter) {
            self.queues[id].listeners.retain(|listener| *listener != waiter);
        }
    }

    /// Ends the wait of a listener that takes nothing.
    pub(super) fn stop_waiting(&mut self, waiter: WaiterId) {
        let woken = self.waiters.end_wait(waiter);
        self.pass_on(waiter, woken);
    }

    /// Ends a turn of the listener. If it was woken, other listeners were not, so the messages it
    /// left are announced to them.
    pub(super) fn pass_on(&mut self, waiter: WaiterId, woken: bool) {
        if woken {
            self.unannounced.extend(self.waiters.turns(waiter));
            self.announce();
        }
    }

    /// Wakes one waiting listener for each message that became ready and is still there.
    pub(super) fn announce(&mut self) {
        while let Some(id) = self.unannounced.pop() {
            let queue = &self.queues[id];
            if !queue.line.is_empty() {
                self.waiters.wake_one(&queue.listeners);
            }
        }
    }

    /// The next message for that listener. Its queues take turns.
    pub(super) fn pop(&mut self, waiter: WaiterId) -> Option<Slot> {
        let queues = &mut self.queues;
        self.waiters.turns_mut(waiter)?.take(|queue| {
            let line = &mut queues[queue].line;
            (line.pop(), !line.is_empty())
        })
    }

    /// Time at which the next delay ends.
    pub(super) fn next_delay(&self) -> Option<Instant> {
        Some(self.delays.first_key_value()?.0.0)
    }

    /// The message whose delay ended first, if it ended by `now`.
    pub(super) fn first_due(&self, now: Instant) -> Option<Slot> {
        let ((at, _), slot) = self.delays.first_key_value()?;
        (*at <= now).then_some(*slot)
    }

    /// Makes the message ready. The caller then calls [`announce`](Self::announce).
    pub(super) fn make_ready(&mut self, slot: Slot, message: &mut QueueEntry) {
        // A lease or delay may have ended before this look at the clock. A new message brings its
        // own time.
        if let Stage::Held(at) | Stage::Scheduled(at) = message.stage {
            message.ready_since = at.min(Instant::now());
        }
        self.detach(message);
        message.stage = Stage::Ready;
        self.active += 1;
        let queue = &mut self.queues[message.queue];
        if queue.line.is_empty() {
            queue.listeners.iter().for_each(|&waiter| self.waiters.add_turn(waiter, message.queue));
        }
        queue.line.insert(message.priority, message.order, slot);
        self.unannounced.push(message.queue);
    }

    /// Holds the message, which was just popped, or extends its lease.
    pub(super) fn hold(&mut self, slot: Slot, message: &mut QueueEntry, now: Instant) {
        self.detach(message);
        let queue = &mut self.queues[message.queue];
        let until = self.leases.add(now, queue.ack_wait.get(), slot);
        message.stage = Stage::Held(until);
        queue.held += 1;
        self.active += 1;
        self.held += 1;
        self.waiters.set_timer(until);
    }

    /// Delays the message until `at`.
    pub(super) fn schedule(&mut self, slot: Slot, message: &mut QueueEntry, at: Instant) {
        self.detach(message);
        message.stage = Stage::Scheduled(at);
        self.queues[message.queue].delayed(message.retried).insert(message.order, slot);
        self.delays.insert((at, message.serial), slot);
        self.waiters.set_timer(at);
    }

    /// Takes the message out of its stage. The caller has removed a ready one from its line.
    pub(super) fn detach(&mut self, message: &mut QueueEntry) {
        let queue = &mut self.queues[message.queue];
        match std::mem::replace(&mut message.stage, Stage::Detached) {
            Stage::Detached => {}
            Stage::Ready => self.active -= 1,
            Stage::Held(_) => {
                self.active -= 1;
                self.held -= 1;
                queue.held -= 1;
            }
            Stage::Scheduled(at) => {
                queue.delayed(message.retried).remove(&message.order);
                self.delays.remove(&(at, message.serial));
            }
        }
    }

    /// Notifies `wait_idle` if no message is ready or held.
    pub(super) fn notify_idle(&mut self) {
        if self.active == 0 {
            self.idle_awaited = false;
            self.idle.notify_waiters();
        }
    }

    /// Takes the message out of the table, in any stage.
    pub(super) fn remove(&mut self, message: &mut QueueEntry) {
        if message.stage == Stage::Ready {
            self.queues[message.queue].line.remove(message.priority, message.order);
        }
        self.detach(message);
    }
}
