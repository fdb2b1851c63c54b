//! The listeners: the queues that have messages for each, and the listener to wake.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Identifies a listener.
pub(super) type WaiterId = u64;
/// Index of a queue.
pub(super) type QueueId = usize;

/// All listeners.
///
/// A message that becomes ready wakes one waiting listener, not all of them. Each waiting listener
/// sleeps until the next lease or delay ends, at the latest.
#[derive(Default)]
pub(super) struct Waiters {
    waiters: BTreeMap<WaiterId, Waiter>,
    last: WaiterId,
    waiting: usize,
}

/// One listener.
struct Waiter {
    queues: Vec<QueueId>,
    turns: Turns,
    notify: Arc<Notify>,
    waiting: bool,
    /// Time at which it wakes by itself.
    timer: Option<Instant>,
    /// True after `notify` was notified, until the listener ends its wait.
    woken: bool,
}

/// Queues that have messages for a listener, in the order of their turns.
///
/// A queue that other listeners emptied stays until its turn comes.
#[derive(Default)]
pub(super) struct Turns {
    order: VecDeque<QueueId>,
    /// True for the queues in `order`, by queue id.
    present: Vec<bool>,
}

impl Turns {
    fn add(&mut self, queue: QueueId) {
        if self.present.len() <= queue {
            self.present.resize(queue + 1, false);
        }
        if !std::mem::replace(&mut self.present[queue], true) {
            self.order.push_back(queue);
        }
    }

    /// Takes an item from the queue whose turn it is, or from the next one that has an item. `take`
    /// also returns true if its queue has more.
    pub(super) fn take<T>(&mut self, mut take: impl FnMut(QueueId) -> (Option<T>, bool)) -> Option<T> {
        loop {
            let queue = self.order.pop_front()?;
            let (taken, more) = take(queue);
            if more {
                self.order.push_back(queue)
            } else {
                self.present[queue] = false
            }
            if taken.is_some() {
                return taken;
            }
        }
    }
}

impl Waiters {
    /// Adds a listener of these queues.
    pub(super) fn register(&mut self, queues: Vec<QueueId>) -> WaiterId {
        self.last += 1;
        let waiter = Waiter {
            queues,
            turns: Turns::default(),
            notify: Arc::new(Notify::new()),
            waiting: false,
            timer: None,
            woken: false,
        };
        self.waiters.insert(self.last, waiter);
        self.last
    }

    /// Removes a listener. Returns its queues.
    pub(super) fn remove(&mut self, id: WaiterId) -> Vec<QueueId> {
        self.waiters.remove(&id).map(|waiter| waiter.queues).unwrap_or_default()
    }

    /// True if a listener waits for messages.
    pub(super) fn any_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Adds a turn for a queue that has messages.
    pub(super) fn add_turn(&mut self, id: WaiterId, queue: QueueId) {
        if let Some(waiter) = self.waiters.get_mut(&id) {
            waiter.turns.add(queue);
        }
    }

    /// The turns of that listener.
    pub(super) fn turns_mut(&mut self, id: WaiterId) -> Option<&mut Turns> {
        Some(&mut self.waiters.get_mut(&id)?.turns)
    }

    /// Queues that may still have messages for that listener.
    pub(super) fn turns(&self, id: WaiterId) -> Vec<QueueId> {
        self.waiters.get(&id).map(|waiter| waiter.turns.order.iter().copied().collect()).unwrap_or_default()
    }

    /// Registers the wait of a listener that found nothing. It waits for the returned [`Notify`],
    /// and no longer than until `timer`, the end of the next lease or delay.
    pub(super) fn wait(&mut self, id: WaiterId, timer: Option<Instant>) -> Arc<Notify> {
        let Some(waiter) = self.waiters.get_mut(&id) else {
            // A removed listener never waits: its `Notify` is never notified.
            return Arc::new(Notify::new());
        };
        self.waiting += usize::from(!waiter.waiting);
        waiter.waiting = true;
        waiter.woken = false;
        waiter.timer = timer;
        waiter.notify.clone()
    }

    /// Ends the wait of a listener. Returns true if it had been woken.
    pub(super) fn end_wait(&mut self, id: WaiterId) -> bool {
        let Some(waiter) = self.waiters.get_mut(&id).filter(|waiter| waiter.waiting) else { return false };
        waiter.waiting = false;
        self.waiting -= 1;
        std::mem::take(&mut waiter.woken)
    }

    /// Wakes one waiting listener of these.
    pub(super) fn wake_one(&mut self, subscribers: &[WaiterId]) {
        if self.waiting == 0 {
            return;
        }
        let free =
            |id: &&WaiterId| self.waiters.get(id).is_some_and(|waiter| waiter.waiting && !waiter.woken);
        if let Some(&id) = subscribers.iter().find(free) {
            self.wake(id);
        }
    }

    /// Wakes the waiting listeners that would sleep past `at`, when a lease or delay ends.
    pub(super) fn set_timer(&mut self, at: Instant) {
        if self.waiting == 0 {
            return;
        }
        for waiter in self.waiters.values_mut() {
            if waiter.timer.is_none_or(|timer| at < timer) {
                waiter.wake();
            }
        }
    }

    /// Wakes all waiting listeners.
    pub(super) fn wake_all(&mut self) {
        self.waiters.values_mut().for_each(Waiter::wake);
    }

    fn wake(&mut self, id: WaiterId) {
        self.waiters.get_mut(&id).into_iter().for_each(Waiter::wake);
    }
}

impl Waiter {
    fn wake(&mut self) {
        if self.waiting && !self.woken {
            self.woken = true;
            self.notify.notify_one();
        }
    }
}
