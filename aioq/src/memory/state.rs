//! The broker's content and what can happen to it, without locks and without waiting.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use slab::Slab;
use tokio::time::Instant;

use super::clock;
use super::page::{cut, positions, take};
use super::places::{AckWait, Message, Place, Places, Slot};
use super::seats::SeatId;
use super::watch::{Watchable, Watchers};
use crate::broker::{Kicked, Page, QueueDepth, Queued, QueuedFilter, Replaced, Waiting};
use crate::message::{Envelope, JobId};
use crate::time::Timestamp;

/// All messages.
#[derive(Default)]
pub(super) struct State {
    messages: Slab<Message>,
    by_id: HashMap<JobId, Slot, RandomState>,
    pub(super) places: Places,
    serial: u64,
    /// Of all kicks.
    pub(super) watchers: Watchers<(), Queued>,
}

impl Watchable for State {
    type Topic = ();
    type Change = Queued;

    fn watchers(&mut self) -> &mut Watchers<(), Queued> {
        &mut self.watchers
    }
}

/// Names one hand-out of one message.
#[derive(Clone)]
pub(super) struct Loan {
    pub(super) id: JobId,
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
    pub(super) queue: Arc<str>,
    pub(super) body: Bytes,
    pub(super) ack_wait: Arc<AckWait>,
}

impl State {
    pub(super) fn kick(&mut self, envelope: Envelope) -> Kicked {
        let Entry::Vacant(vacant) = self.by_id.entry(envelope.id.clone()) else { return Kicked::Existing };
        self.serial += 1;
        let slot = self.messages.vacant_entry();
        vacant.insert(slot.key());
        let message = admit(&mut self.places, slot.key(), envelope, self.serial, self.serial);
        let message = slot.insert(message);
        if !self.watchers.is_empty() {
            self.watchers.send(&(), &queued(&self.places, message));
        }
        self.places.wake_for_fresh();
        Kicked::New
    }

    /// Hands out up to `count` messages.
    pub(super) fn take(&mut self, seat: SeatId, count: usize) -> Vec<Lent> {
        let rung = self.places.seats.wake(seat);
        let now = Instant::now();
        self.expire(now);
        let mut lent = Vec::new();
        while lent.len() < count
            && let Some(slot) = self.places.pop(seat)
        {
            lent.extend(self.lend(slot, now));
        }
        if !lent.is_empty() {
            self.places.took(seat, rung);
        }
        self.places.wake_for_fresh();
        lent
    }

    fn lend(&mut self, slot: Slot, now: Instant) -> Option<Lent> {
        let message = self.messages.get_mut(slot)?;
        message.deliveries = message.deliveries.saturating_add(1);
        let ack_wait = Arc::clone(self.places.ack_wait(message.queue));
        self.places.hold(slot, message, clock::after(now, ack_wait.get()));
        Some(Lent {
            queue: self.places.name(message.queue),
            body: message.body.clone(),
            ack_wait,
            loan: Loan {
                id: message.id.clone(),
                slot,
                serial: message.serial,
                deliveries: message.deliveries,
            },
        })
    }

    /// Puts in line what has been lent or delayed long enough.
    fn sweep(&mut self) {
        self.expire(Instant::now());
        self.places.wake_for_fresh();
    }

    fn expire(&mut self, now: Instant) {
        while let Some(slot) = self.places.expired(now)
            && let Some(message) = self.messages.get_mut(slot)
        {
            self.places.ready(slot, message);
        }
    }

    /// The message on that loan, unless it was taken back.
    fn lent(&mut self, loan: &Loan) -> Option<(&mut Message, &mut Places)> {
        let message = self.messages.get_mut(loan.slot)?;
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
        let message = self.messages.remove(slot);
        self.by_id.remove(&message.id);
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
            let until = clock::after(Instant::now(), places.ack_wait(message.queue).get());
            places.hold(loan.slot, message, until);
        }
    }

    pub(super) fn replace(&mut self, loan: &Loan, next: Envelope) -> Replaced {
        let serial = self.serial + 1;
        let Some((message, places)) = self.lent(loan) else { return Replaced::Lost };
        places.leave(message);
        *message = admit(places, loan.slot, next, serial, message.order);
        places.wake_for_fresh();
        places.report_idle();
        self.serial = serial;
        Replaced::Done
    }

    pub(super) fn is_newest(&self, loan: &Loan) -> bool {
        self.messages.get(loan.slot).is_some_and(|message| message.serial == loan.serial)
    }

    pub(super) fn find(&mut self, id: &JobId) -> Option<Queued> {
        self.sweep();
        let message = self.messages.get(*self.by_id.get(id)?)?;
        Some(queued(&self.places, message))
    }

    pub(super) fn remove(&mut self, wanted: &Queued) -> bool {
        let Some(&slot) = self.by_id.get(&wanted.id) else { return false };
        let found = self.messages.get_mut(slot).filter(|message| message.serial == wanted.revision);
        let Some(message) = found else { return false };
        self.places.withdraw(message);
        self.places.report_idle();
        self.forget(slot);
        true
    }

    pub(super) fn list(&mut self, filter: &QueuedFilter, page: Page) -> Vec<Queued> {
        self.sweep();
        let places = positions(page);
        let mut rows: Vec<(u64, Slot)> = Vec::new();
        let queues = self.places.queues().iter();
        for queue in queues.filter(|queue| filter.queue.as_deref().is_none_or(|name| *queue.name == *name)) {
            if wants(filter, Waiting::Ready) {
                queue.line.by_place(places.clone()).for_each(|line| take(page, line, &mut rows));
            }
            for (waiting, delayed) in
                [(Waiting::Scheduled, &queue.scheduled), (Waiting::Retrying, &queue.retrying)]
            {
                if wants(filter, waiting) {
                    let delayed = delayed.range(places.clone()).map(|(place, slot)| (*place, *slot));
                    take(page, delayed, &mut rows);
                }
            }
        }
        if wants(filter, Waiting::Ready) {
            rows.extend(self.held(filter).filter(|(place, _)| places.contains(place)));
        }
        cut(page, &mut rows);
        let messages = rows.into_iter().filter_map(|(_, slot)| self.messages.get(slot));
        messages.map(|message| queued(&self.places, message)).collect()
    }

    fn held(&self, filter: &QueuedFilter) -> impl Iterator<Item = (u64, Slot)> {
        let held = self.places.held().filter_map(|slot| Some((slot, self.messages.get(slot)?)));
        let queue = filter.queue.as_deref();
        let wanted = held
            .filter(move |(_, message)| queue.is_none_or(|name| *self.places.name(message.queue) == *name));
        wanted.map(|(slot, message)| (message.order, slot))
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
        let first = queue.line.by_place(0..u64::MAX).filter_map(|mut line| line.next());
        let since = first.filter_map(|(_, slot)| Some(self.messages.get(slot)?.ready_since));
        since.min().map(clock::past)
    }

    pub(super) fn is_idle(&mut self) -> bool {
        self.sweep();
        self.places.is_idle()
    }
}

/// Puts a new message in line, or aside until its time.
fn admit(places: &mut Places, slot: Slot, envelope: Envelope, serial: u64, order: u64) -> Message {
    let mut message = Message {
        id: envelope.id,
        serial,
        order,
        queue: places.queue(&envelope.queue),
        priority: envelope.priority,
        retried: envelope.attempt > 1,
        body: envelope.body,
        deliveries: 0,
        place: Place::Nowhere,
        ready_since: Instant::now(),
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
