//! Where messages are: in line, on loan, or waiting for their time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ranked::Ranked;
use super::seats::{QueueId, SeatId, Seats};
use super::series::Slot;
use super::timers::Timers;
use crate::broker::{DEFAULT_ACK_WAIT, MAX_ACK_WAIT, QueueDepth};
use crate::message::{JobId, Name, Priority};

/// A message.
pub(super) struct Message {
    pub(super) id: JobId,
    /// Of the id.
    pub(super) hash: u64,
    /// Tells it from its predecessors and successors of the same id.
    pub(super) serial: u64,
    /// Its place in line, which its successors inherit.
    pub(super) order: u64,
    pub(super) queue: QueueId,
    pub(super) priority: Priority,
    /// It is not the first attempt of its job.
    pub(super) retried: bool,
    pub(super) body: Bytes,
    /// How often it has been handed out.
    pub(super) deliveries: u32,
    pub(super) place: Place,
    /// When it was put in line last.
    pub(super) ready_since: Instant,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In no queue yet, or no more.
    Nowhere,
    /// In line.
    Ready,
    /// On loan until then.
    Held(Instant),
    /// Back in line then.
    Scheduled(Instant),
}

/// How long a delivery of a queue stays hidden, as soon as a listener has named it.
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

/// How long deliveries of some queues stay hidden.
pub(super) struct Leases(Vec<(QueueId, Arc<AckWait>)>);

impl Leases {
    /// That of one of these queues.
    pub(super) fn ack_wait(&self, queue: QueueId) -> Duration {
        self.find(queue).map_or(DEFAULT_ACK_WAIT, AckWait::get)
    }

    fn find(&self, queue: QueueId) -> Option<&AckWait> {
        let (first, _) = self.0.first()?;
        let is = |(number, _): &&(QueueId, Arc<AckWait>)| *number == queue;
        // Queues that were listened to together mostly have numbers in a row.
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
    /// By priority, then by place in line; a message that comes back finds its old place.
    pub(super) line: Ranked<Priority>,
    held: u64,
    /// Those that wait for their time, by place in line: first attempts, and later ones.
    pub(super) scheduled: BTreeMap<u64, Slot>,
    pub(super) retrying: BTreeMap<u64, Slot>,
    listeners: Vec<SeatId>,
}

impl Queue {
    fn delayed(&mut self, retried: bool) -> &mut BTreeMap<u64, Slot> {
        if retried { &mut self.retrying } else { &mut self.scheduled }
    }
}

/// All places, and the listeners that take messages from them.
#[derive(Default)]
pub(super) struct Places {
    queues: Vec<Queue>,
    names: HashMap<Name, QueueId, RandomState>,
    /// When leases run out: of those messages that are held until then.
    pub(super) leases: Timers,
    /// When delays run out, by the serial of the message.
    delays: BTreeMap<(Instant, u64), Slot>,
    pub(super) seats: Seats,
    /// The queues of messages that nobody has been woken for yet.
    fresh: Vec<QueueId>,
    /// Messages in line or on loan.
    busy: usize,
    /// Messages on loan.
    pub(super) held: usize,
    pub(super) idle: Arc<Notify>,
    /// Somebody waits for that.
    idle_awaited: bool,
}

impl Places {
    /// The number of the queue of that name.
    pub(super) fn queue(&mut self, name: &str) -> QueueId {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let name = Name::from(name);
        self.queues.push(Queue {
            name: name.clone(),
            ack_wait: Arc::default(),
            line: Ranked::default(),
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

    /// Whether nothing is in line or on loan; if something is, it will be told when nothing is.
    pub(super) fn await_idle(&mut self) -> bool {
        self.idle_awaited = self.busy > 0;
        self.busy == 0
    }

    /// Whether somebody waits for something.
    pub(super) fn is_awaited(&self) -> bool {
        self.idle_awaited || self.seats.anybody_waits()
    }

    pub(super) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    pub(super) fn named(&self, name: &str) -> Option<&Queue> {
        self.names.get(name).map(|&id| &self.queues[id])
    }

    pub(super) fn depth(&self, name: &str) -> QueueDepth {
        let mut depth = QueueDepth::new(name);
        if let Some(queue) = self.named(name) {
            depth.ready = queue.line.len() as u64;
            depth.held = queue.held;
            depth.scheduled = queue.scheduled.len() as u64;
            depth.retrying = queue.retrying.len() as u64;
        }
        depth
    }

    /// A new listener. The first one of a queue that names an `ack_wait` fixes it: leases of different lengths in
    /// one queue would leave a holder guessing when to extend.
    pub(super) fn listen(&mut self, queues: &[String], ack_wait: Option<Duration>) -> (SeatId, Leases) {
        let ids: Vec<QueueId> = queues.iter().map(|name| self.queue(name)).collect();
        let seat = self.seats.sit(ids.clone());
        let mut leases = Vec::with_capacity(ids.len());
        for id in ids {
            let queue = &mut self.queues[id];
            queue.ack_wait.set_once(ack_wait);
            leases.push((id, Arc::clone(&queue.ack_wait)));
            queue.listeners.push(seat);
            if !queue.line.is_empty() {
                self.seats.add_turn(seat, id);
            }
        }
        leases.sort_unstable_by_key(|(queue, _)| *queue);
        (seat, Leases(leases))
    }

    /// The listener is gone.
    pub(super) fn unlisten(&mut self, seat: SeatId) {
        self.stop_waiting(seat);
        for id in self.seats.stand(seat) {
            self.queues[id].listeners.retain(|listener| *listener != seat);
        }
    }

    /// The listener gave up waiting.
    pub(super) fn stop_waiting(&mut self, seat: SeatId) {
        let rung = self.seats.wake(seat);
        self.took(seat, rung);
    }

    /// The listener took what it wanted. If it was woken for that, others were not: what it left is for them.
    pub(super) fn took(&mut self, seat: SeatId, rung: bool) {
        self.seats.resign(seat);
        if rung {
            self.fresh.extend(self.seats.turns(seat));
            self.wake_for_fresh();
        }
    }

    /// Wakes a listener for each message that became ready and is still there.
    pub(super) fn wake_for_fresh(&mut self) {
        while let Some(id) = self.fresh.pop() {
            let queue = &self.queues[id];
            if !queue.line.is_empty() {
                self.seats.ring_one(&queue.listeners);
            }
        }
    }

    /// The next message for that listener; its queues take turns.
    pub(super) fn pop(&mut self, seat: SeatId) -> Option<Slot> {
        let queues = &mut self.queues;
        self.seats.turns_of(seat)?.take(|queue| {
            let line = &mut queues[queue].line;
            (line.pop(), !line.is_empty())
        })
    }

    /// When the next delay is over.
    pub(super) fn next_delay(&self) -> Option<Instant> {
        Some(self.delays.first_key_value()?.0.0)
    }

    /// The message whose delay was over first, by `now`.
    pub(super) fn delay_over(&self, now: Instant) -> Option<Slot> {
        let ((at, _), slot) = self.delays.first_key_value()?;
        (*at <= now).then_some(*slot)
    }

    /// Puts the message in line; [`wake_for_fresh`](Self::wake_for_fresh) is to follow.
    pub(super) fn ready(&mut self, slot: Slot, message: &mut Message) {
        // What has run out did so before somebody looks; a new message says it itself.
        if let Place::Held(at) | Place::Scheduled(at) = message.place {
            message.ready_since = at.min(Instant::now());
        }
        self.leave(message);
        message.place = Place::Ready;
        self.busy += 1;
        let queue = &mut self.queues[message.queue];
        if queue.line.is_empty() {
            queue.listeners.iter().for_each(|&seat| self.seats.add_turn(seat, message.queue));
        }
        queue.line.insert(message.priority, message.order, slot);
        self.fresh.push(message.queue);
    }

    /// Lends the message, which was just popped, or extends the loan.
    pub(super) fn hold(&mut self, slot: Slot, message: &mut Message, now: Instant) {
        self.leave(message);
        let queue = &mut self.queues[message.queue];
        let until = self.leases.add(now, queue.ack_wait.get(), slot);
        message.place = Place::Held(until);
        queue.held += 1;
        self.busy += 1;
        self.held += 1;
        self.seats.set_timer(until);
    }

    /// Puts the message aside until `at`.
    pub(super) fn schedule(&mut self, slot: Slot, message: &mut Message, at: Instant) {
        self.leave(message);
        message.place = Place::Scheduled(at);
        self.queues[message.queue].delayed(message.retried).insert(message.order, slot);
        self.delays.insert((at, message.serial), slot);
        self.seats.set_timer(at);
    }

    /// Takes the message from where it is; one that is in line has been popped from it.
    pub(super) fn leave(&mut self, message: &mut Message) {
        let queue = &mut self.queues[message.queue];
        match std::mem::replace(&mut message.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Ready => self.busy -= 1,
            Place::Held(_) => {
                self.busy -= 1;
                self.held -= 1;
                queue.held -= 1;
            }
            Place::Scheduled(at) => {
                queue.delayed(message.retried).remove(&message.order);
                self.delays.remove(&(at, message.serial));
            }
        }
    }

    /// Tells those who wait for idleness, if it has come.
    pub(super) fn report_idle(&mut self) {
        if self.busy == 0 {
            self.idle_awaited = false;
            self.idle.notify_waiters();
        }
    }

    /// Takes the message out for good, wherever it is.
    pub(super) fn withdraw(&mut self, message: &mut Message) {
        if message.place == Place::Ready {
            self.queues[message.queue].line.remove(message.priority, message.order);
        }
        self.leave(message);
    }
}
