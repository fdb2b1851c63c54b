//! The listeners: the queues that have messages for each, the listener to wake, and the timekeeper.

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
/// A message that becomes ready wakes one waiting listener, not all of them. One waiting listener,
/// the timekeeper, sleeps until the next lease or delay ends. The others sleep without a timer.
#[derive(Default)]
pub(super) struct Waiters {
    waiters: BTreeMap<WaiterId, Waiter>,
    last: WaiterId,
    waiting: usize,
    timekeeper: Option<WaiterId>,
    /// Time at which the timekeeper wakes.
    timer: Option<Instant>,
}

/// One listener.
struct Waiter {
    queues: Vec<QueueId>,
    turns: Turns,
    notify: Arc<Notify>,
    waiting: bool,
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
    /// or until the returned time if it keeps the time. `next_timer` is the end of the next lease
    /// or delay.
    pub(super) fn wait(
        &mut self,
        id: WaiterId,
        next_timer: Option<Instant>,
    ) -> (Arc<Notify>, Option<Instant>) {
        let Some(waiter) = self.waiters.get_mut(&id) else {
            // A removed listener never waits: its `Notify` is never notified.
            return (Arc::new(Notify::new()), None);
        };
        self.waiting += usize::from(!waiter.waiting);
        waiter.waiting = true;
        waiter.woken = false;
        let notify = waiter.notify.clone();
        if *self.timekeeper.get_or_insert(id) != id {
            return (notify, None);
        }
        self.timer = next_timer;
        (notify, next_timer)
    }

    /// Ends the wait of a listener. Returns true if it had been woken. A timekeeper stays
    /// timekeeper, so that its next wait wakes no other listener.
    pub(super) fn end_wait(&mut self, id: WaiterId) -> bool {
        let Some(waiter) = self.waiters.get_mut(&id).filter(|waiter| waiter.waiting) else { return false };
        waiter.waiting = false;
        self.waiting -= 1;
        std::mem::take(&mut waiter.woken)
    }

    /// This listener stops being the timekeeper. Wakes another waiter to take over; this one may
    /// have been woken for that.
    pub(super) fn step_down(&mut self, id: WaiterId) {
        self.timekeeper = self.timekeeper.filter(|timekeeper| *timekeeper != id);
        if self.timekeeper.is_none() {
            self.wake_any();
        }
    }

    /// Wakes one waiting listener of these.
    pub(super) fn wake_one(&mut self, subscribers: &[WaiterId]) {
        if self.waiting == 0 {
            return;
        }
        let free =
            |id: &&WaiterId| self.waiters.get(id).is_some_and(|waiter| waiter.waiting && !waiter.woken);
        // The timekeeper comes last, because its successor has to be woken as well.
        let others = subscribers.iter().filter(|id| self.timekeeper != Some(**id));
        if let Some(&id) = others.clone().find(free).or_else(|| subscribers.iter().find(free)) {
            self.wake(id);
        }
    }

    /// Wakes the timekeeper if a lease or delay ends at `at`, before its timer.
    pub(super) fn set_timer(&mut self, at: Instant) {
        match self.timekeeper {
            Some(id) if self.timer.is_none_or(|timer| at < timer) => self.wake(id),
            Some(_) => {}
            None => self.wake_any(),
        }
    }

    /// Wakes all waiting listeners.
    pub(super) fn wake_all(&mut self) {
        let ids: Vec<WaiterId> = self.waiters.keys().copied().collect();
        ids.into_iter().for_each(|id| self.wake(id));
    }

    /// Wakes a waiting listener to become the timekeeper, unless one is awake already.
    fn wake_any(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let waiting = || self.waiters.iter().filter(|(_, waiter)| waiter.waiting);
        let first = waiting().next().map(|(id, _)| *id);
        if let Some(id) = first.filter(|_| !waiting().any(|(_, waiter)| waiter.woken)) {
            self.wake(id);
        }
    }

    fn wake(&mut self, id: WaiterId) {
        if let Some(waiter) = self.waiters.get_mut(&id).filter(|waiter| waiter.waiting && !waiter.woken) {
            waiter.woken = true;
            waiter.notify.notify_one();
        }
    }
}
