//! Who listens: which queues have something for whom, whom to wake, and who watches the clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The number of a listener.
pub(super) type SeatId = u64;
/// The number of a queue.
pub(super) type QueueId = usize;

/// All listeners.
///
/// A message that becomes ready wakes one waiting listener, not all. One of those that wait, the timekeeper,
/// sleeps until the next lease or delay runs out; the others sleep without a timer.
#[derive(Default)]
pub(super) struct Seats {
    seats: BTreeMap<SeatId, Seat>,
    last: SeatId,
    waiting: usize,
    keeper: Option<SeatId>,
    /// When the timekeeper wakes.
    armed: Option<Instant>,
}

/// One listener.
struct Seat {
    queues: Vec<QueueId>,
    turns: Turns,
    bell: Arc<Notify>,
    waiting: bool,
    /// The bell has been rung and not been heard yet.
    rung: bool,
}

/// The queues of a listener that have something, in the order of their turns. A queue that others emptied
/// stays until its turn comes.
#[derive(Default)]
pub(super) struct Turns {
    order: VecDeque<QueueId>,
    /// Whether a queue is among them, by its number.
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

    /// What `take` gets from the queue whose turn it is, or from the next one that has something. It also says
    /// whether there is more.
    pub(super) fn take<T>(&mut self, mut take: impl FnMut(QueueId) -> (Option<T>, bool)) -> Option<T> {
        loop {
            let queue = self.order.pop_front()?;
            let (taken, more) = take(queue);
            match more {
                true => self.order.push_back(queue),
                false => self.present[queue] = false,
            }
            if taken.is_some() {
                return taken;
            }
        }
    }
}

impl Seats {
    /// A new listener of `queues`, some of which may have something already.
    pub(super) fn sit(&mut self, queues: Vec<QueueId>) -> SeatId {
        self.last += 1;
        let seat = Seat {
            queues,
            turns: Turns::default(),
            bell: Arc::new(Notify::new()),
            waiting: false,
            rung: false,
        };
        self.seats.insert(self.last, seat);
        self.last
    }

    /// The listener is gone; the queues that it listened to.
    pub(super) fn stand(&mut self, id: SeatId) -> Vec<QueueId> {
        self.seats.remove(&id).map(|seat| seat.queues).unwrap_or_default()
    }

    /// Whether a listener waits for something to do.
    pub(super) fn anybody_waits(&self) -> bool {
        self.waiting > 0
    }

    /// The queue has something for that listener.
    pub(super) fn add_turn(&mut self, id: SeatId, queue: QueueId) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.turns.add(queue);
        }
    }

    /// Whose turn it is for that listener.
    pub(super) fn turns_of(&mut self, id: SeatId) -> Option<&mut Turns> {
        Some(&mut self.seats.get_mut(&id)?.turns)
    }

    /// The queues that still have something for that listener, as far as it knows.
    pub(super) fn turns(&self, id: SeatId) -> Vec<QueueId> {
        self.seats.get(&id).map(|seat| seat.turns.order.iter().copied().collect()).unwrap_or_default()
    }

    /// The listener has nothing to do until its bell rings or the time returned comes. `next_timer` is when
    /// the next lease or delay runs out.
    pub(super) fn wait(&mut self, id: SeatId, next_timer: Option<Instant>) -> (Arc<Notify>, Option<Instant>) {
        let Some(seat) = self.seats.get_mut(&id) else {
            // A listener that stopped never waits; a bell that nobody rings says so.
            return (Arc::new(Notify::new()), None);
        };
        self.waiting += usize::from(!seat.waiting);
        seat.waiting = true;
        seat.rung = false;
        let bell = seat.bell.clone();
        if *self.keeper.get_or_insert(id) != id {
            return (bell, None);
        }
        self.armed = next_timer;
        (bell, next_timer)
    }

    /// The listener looks for itself now; whether its bell had been rung. It still keeps the time if it did, so
    /// that going back to wait costs nobody else a look.
    pub(super) fn wake(&mut self, id: SeatId) -> bool {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.waiting) else { return false };
        seat.waiting = false;
        self.waiting -= 1;
        std::mem::take(&mut seat.rung)
    }

    /// The listener does not keep the time, or no more; another one that waits does. It may have been woken for that.
    pub(super) fn resign(&mut self, id: SeatId) {
        self.keeper = self.keeper.filter(|keeper| *keeper != id);
        if self.keeper.is_none() {
            self.ring_any();
        }
    }

    /// A queue with these listeners has something more: wakes one that waits.
    pub(super) fn ring_one(&mut self, subscribers: &[SeatId]) {
        if self.waiting == 0 {
            return;
        }
        let free = |id: &&SeatId| self.seats.get(id).is_some_and(|seat| seat.waiting && !seat.rung);
        // The timekeeper last: whoever takes its place has to be woken too.
        let others = subscribers.iter().filter(|id| self.keeper != Some(**id));
        if let Some(&id) = others.clone().find(free).or_else(|| subscribers.iter().find(free)) {
            self.ring(id);
        }
    }

    /// A lease or a delay runs out at `at`: somebody who waits has to know.
    pub(super) fn set_timer(&mut self, at: Instant) {
        match self.keeper {
            Some(id) if self.armed.is_none_or(|armed| at < armed) => self.ring(id),
            Some(_) => {}
            None => self.ring_any(),
        }
    }

    /// Wakes all that wait.
    pub(super) fn ring_all(&mut self) {
        let ids: Vec<SeatId> = self.seats.keys().copied().collect();
        ids.into_iter().for_each(|id| self.ring(id));
    }

    /// Wakes one that waits, to keep the time, unless one is on its way.
    fn ring_any(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let waiting = || self.seats.iter().filter(|(_, seat)| seat.waiting);
        let first = waiting().next().map(|(id, _)| *id);
        if let Some(id) = first.filter(|_| !waiting().any(|(_, seat)| seat.rung)) {
            self.ring(id);
        }
    }

    fn ring(&mut self, id: SeatId) {
        if let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.waiting && !seat.rung) {
            seat.rung = true;
            seat.bell.notify_one();
        }
    }
}
