//! The broker's content and what can happen to it, without locks and without waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashTable;
use slab::Slab;
use tokio::time::Instant;

use super::boxes::Boxes;
use super::clock;
use super::desk::Left;
use super::page::Gathering;
use super::places::{Message, Place, Places};
use super::seats::{QueueId, SeatId};
use super::series::{Slot, slot};
use super::stamp::Stamps;
use super::watch::{Watchable, Watchers};
use crate::broker::{Kicked, Page, QueueDepth, Queued, QueuedFilter, Replaced, Waiting};
use crate::message::{Envelope, JobId, Name};
use crate::time::Timestamp;

/// All messages.
pub(super) struct State {
    messages: Slab<Message>,
    by_id: HashTable<Slot>,
    pub(super) places: Places,
    stamps: Stamps,
    /// What came from the boxes; empty, but for its room, whenever somebody looks.
    pub(super) left: Vec<Left>,
    /// Of all kicks.
    pub(super) watchers: Watchers<(), Queued>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            messages: Slab::new(),
            by_id: HashTable::new(),
            places: Places::default(),
            stamps: Boxes::<Left>::stamps(),
            left: Vec::new(),
            watchers: Watchers::default(),
        }
    }
}

impl Watchable for State {
    type Topic = ();
    type Change = Queued;

    fn watchers(&mut self) -> &mut Watchers<(), Queued> {
        &mut self.watchers
    }
}

/// A message on its way in.
pub(super) struct Arrival {
    pub(super) envelope: Envelope,
    /// Of its id.
    pub(super) hash: u64,
    /// Since when it could be delivered, unless it says itself that it is too early.
    pub(super) since: Instant,
}

/// Names one hand-out of one message.
#[derive(Clone, Copy)]
pub(super) struct Loan {
    slot: Slot,
    serial: u64,
    pub(super) deliveries: u32,
}

impl Message {
    /// Whether it is on that loan still.
    fn is_lent(&self, loan: &Loan) -> bool {
        let same = self.serial == loan.serial && self.deliveries == loan.deliveries;
        same && matches!(self.place, Place::Held(_))
    }
}

/// A message as it is handed out.
pub(super) struct Lent {
    pub(super) loan: Loan,
    pub(super) id: JobId,
    pub(super) queue: Name,
    pub(super) queue_id: QueueId,
    pub(super) body: Bytes,
}

impl State {
    /// Takes a message in, unless there is one of its job.
    pub(super) fn kick(&mut self, arrival: Arrival, now: std::time::Instant) -> Kicked {
        let serial = self.stamps.next(now);
        self.arrive(arrival, serial)
    }

    /// The same for one that has its number already.
    pub(super) fn arrive(&mut self, arrival: Arrival, serial: u64) -> Kicked {
        let hash = arrival.hash;
        if self.slot(&arrival.envelope.id, hash).is_some() {
            return Kicked::Existing;
        }
        let entry = self.messages.vacant_entry();
        let slot = slot(entry.key());
        let message = admit(&mut self.places, slot, arrival, serial, serial);
        let message = entry.insert(message);
        if !self.watchers.is_empty() {
            self.watchers.send(&(), &queued(&self.places, message));
        }
        let messages = &self.messages;
        self.by_id.insert_unique(hash, slot, |slot| messages[*slot as usize].hash);
        self.places.wake_for_fresh();
        Kicked::New
    }

    /// Where the message of that id is.
    fn slot(&self, id: &JobId, hash: u64) -> Option<Slot> {
        self.by_id.find(hash, |slot| self.messages[*slot as usize].id == *id).copied()
    }

    /// Whether somebody waits for what may happen.
    pub(super) fn is_awaited(&self) -> bool {
        self.places.is_awaited() || !self.watchers.is_empty()
    }

    /// Hands out up to `count` messages.
    pub(super) fn take<T>(&mut self, seat: SeatId, count: usize, mut give: impl FnMut(Lent) -> T) -> Vec<T> {
        let rung = self.places.seats.wake(seat);
        let now = Instant::now();
        self.expire(now);
        let mut lent = Vec::new();
        while lent.len() < count
            && let Some(slot) = self.places.pop(seat)
        {
            lent.extend(self.lend(slot, now).map(&mut give));
        }
        if !lent.is_empty() {
            self.places.took(seat, rung);
            let (live, messages) = (self.places.held, &self.messages);
            self.places.leases.tidy(live, |slot, at| is_held(messages, slot, at));
        }
        self.places.wake_for_fresh();
        lent
    }

    fn lend(&mut self, slot: Slot, now: Instant) -> Option<Lent> {
        let message = self.messages.get_mut(slot as usize)?;
        message.deliveries = message.deliveries.saturating_add(1);
        self.places.hold(slot, message, now);
        Some(Lent {
            id: message.id.clone(),
            queue: self.places.name(message.queue),
            body: message.body.clone(),
            queue_id: message.queue,
            loan: Loan { slot, serial: message.serial, deliveries: message.deliveries },
        })
    }

    /// When the next lease or delay runs out.
    pub(super) fn next_timer(&mut self) -> Option<Instant> {
        let messages = &self.messages;
        let lease = self.places.leases.next(|slot, at| is_held(messages, slot, at));
        lease.into_iter().chain(self.places.next_delay()).min()
    }

    /// Puts in line what has been lent or delayed long enough.
    fn sweep(&mut self) {
        self.expire(Instant::now());
        self.places.wake_for_fresh();
    }

    fn expire(&mut self, now: Instant) {
        loop {
            let messages = &self.messages;
            let lapsed = self.places.leases.pop(now, |slot, at| is_held(messages, slot, at));
            let Some(slot) = lapsed.or_else(|| self.places.delay_over(now)) else { break };
            let Some(message) = self.messages.get_mut(slot as usize) else { break };
            self.places.ready(slot, message);
        }
    }

    /// The message on that loan, unless it was taken back.
    fn lent(&mut self, loan: &Loan) -> Option<(&mut Message, &mut Places)> {
        let message = self.messages.get_mut(loan.slot as usize)?;
        message.is_lent(loan).then_some((message, &mut self.places))
    }

    /// Removes the message; it is handed back to be dropped where nobody waits for that.
    pub(super) fn ack(&mut self, loan: &Loan) -> Option<Message> {
        let (message, places) = self.lent(loan)?;
        places.leave(message);
        places.report_idle();
        Some(self.forget(loan.slot))
    }

    fn forget(&mut self, slot: Slot) -> Message {
        let message = self.messages.remove(slot as usize);
        if let Ok(entry) = self.by_id.find_entry(message.hash, |other| *other == slot) {
            entry.remove();
        }
        message
    }

    pub(super) fn release(&mut self, loan: &Loan, delay: Duration) {
        if let Some((message, places)) = self.lent(loan) {
            match delay.is_zero() {
                true => places.ready(loan.slot, message),
                false => places.schedule(loan.slot, message, clock::after(Instant::now(), delay)),
            }
            places.wake_for_fresh();
            places.report_idle();
        }
    }

    pub(super) fn extend(&mut self, loan: &Loan) {
        if let Some((message, places)) = self.lent(loan) {
            places.hold(loan.slot, message, Instant::now());
        }
    }

    pub(super) fn replace(&mut self, loan: &Loan, next: Envelope) -> Replaced {
        let serial = self.stamps.next(std::time::Instant::now());
        let Some((message, places)) = self.lent(loan) else { return Replaced::Lost };
        places.leave(message);
        let arrival = Arrival { envelope: next, hash: message.hash, since: Instant::now() };
        *message = admit(places, loan.slot, arrival, serial, message.order);
        places.wake_for_fresh();
        places.report_idle();
        Replaced::Done
    }

    pub(super) fn is_newest(&self, loan: &Loan) -> bool {
        self.messages.get(loan.slot as usize).is_some_and(|message| message.serial == loan.serial)
    }

    pub(super) fn find(&mut self, id: &JobId, hash: u64) -> Option<Queued> {
        self.sweep();
        let slot = self.slot(id, hash)?;
        Some(queued(&self.places, &self.messages[slot as usize]))
    }

    pub(super) fn remove(&mut self, wanted: &Queued, hash: u64) -> bool {
        let Some(slot) = self.slot(&wanted.id, hash) else { return false };
        let found = self.messages.get_mut(slot as usize).filter(|message| message.serial == wanted.revision);
        let Some(message) = found else { return false };
        self.places.withdraw(message);
        self.places.report_idle();
        self.forget(slot);
        true
    }

    pub(super) fn list(&mut self, filter: &QueuedFilter, page: Page) -> Vec<Queued> {
        self.sweep();
        let mut page = Gathering::new(page);
        let queues = self.places.queues().iter();
        for queue in queues.filter(|queue| filter.queue.as_deref().is_none_or(|name| *queue.name == *name)) {
            if wants(filter, Waiting::Ready) {
                queue.line.rows().for_each(|(_, row)| row.gather(|slot| slot, &mut page));
            }
            for (waiting, delayed) in
                [(Waiting::Scheduled, &queue.scheduled), (Waiting::Retrying, &queue.retrying)]
            {
                if wants(filter, waiting) {
                    let delayed = delayed.range(page.positions());
                    page.add(delayed.map(|(place, slot)| (*place, *slot)));
                }
            }
        }
        if wants(filter, Waiting::Ready) {
            let held = self.held(filter);
            page.add(held.range(page.positions()).map(|(place, slot)| (*place, *slot)));
        }
        let messages = page.finish().filter_map(|(_, slot)| self.messages.get(slot as usize));
        messages.map(|message| queued(&self.places, message)).collect()
    }

    /// The messages on loan, by place in line.
    fn held(&self, filter: &QueuedFilter) -> BTreeMap<u64, Slot> {
        let leases = self.places.leases.iter().filter(|(at, slot)| is_held(&self.messages, *slot, *at));
        let held = leases.filter_map(|(_, slot)| Some((slot, self.messages.get(slot as usize)?)));
        let queue = filter.queue.as_deref();
        let wanted = held
            .filter(move |(_, message)| queue.is_none_or(|name| *self.places.name(message.queue) == *name));
        // One that was lent twice at the same time has two leases.
        wanted.map(|(slot, message)| (message.order, slot)).collect()
    }

    pub(super) fn queues(&self) -> Vec<String> {
        let mut names: Vec<String> = self.places.queues().iter().map(|queue| (*queue.name).into()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn depths(&mut self, queues: &[String]) -> Vec<QueueDepth> {
        self.sweep();
        let depth = |queue: &String| {
            let mut depth = self.places.depth(queue);
            depth.oldest = self.oldest(queue);
            depth
        };
        queues.iter().map(depth).collect()
    }

    /// Since when the first message in line of any priority could have been delivered.
    fn oldest(&self, queue: &str) -> Option<Timestamp> {
        let queue = self.places.named(queue)?;
        let firsts = queue.line.rows().filter_map(|(_, row)| row.first());
        let since = firsts.filter_map(|slot| Some(self.messages.get(slot as usize)?.ready_since));
        since.min().map(clock::past)
    }

    /// Whether nothing is ready or on loan. If something is, its end is told.
    pub(super) fn await_idle(&mut self) -> bool {
        self.sweep();
        self.places.await_idle()
    }
}

/// Whether the message in that slot is held until then.
fn is_held(messages: &Slab<Message>, slot: Slot, until: Instant) -> bool {
    messages.get(slot as usize).is_some_and(|message| message.place == Place::Held(until))
}

/// Puts a new message in line, or aside until its time.
fn admit(places: &mut Places, slot: Slot, arrival: Arrival, serial: u64, order: u64) -> Message {
    let Arrival { envelope, hash, since } = arrival;
    let mut message = Message {
        id: envelope.id,
        hash,
        serial,
        order,
        queue: places.queue(&envelope.queue),
        priority: envelope.priority,
        retried: envelope.attempt > 1,
        body: envelope.body,
        deliveries: 0,
        place: Place::Nowhere,
        ready_since: since,
    };
    match envelope.not_before.and_then(clock::due) {
        Some(at) => places.schedule(slot, &mut message, at),
        None => places.ready(slot, &mut message),
    }
    message
}

fn queued(places: &Places, message: &Message) -> Queued {
    let ready = !matches!(message.place, Place::Scheduled(_));
    let queue = places.name(message.queue);
    Queued::new(message.id.clone(), &*queue, message.body.clone(), ready)
        .position(message.order)
        .revision(message.serial)
}

fn wants(filter: &QueuedFilter, waiting: Waiting) -> bool {
    filter.waiting.is_none_or(|wanted| wanted == waiting)
}
