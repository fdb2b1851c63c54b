//! The broker's content and what can happen to it, without locks and without waiting.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::clock;
use super::places::{Message, Place, Places};
use super::seats::SeatId;
use crate::broker::{Kicked, QueueDepth, Queued, Replaced};
use crate::message::{Envelope, JobId};

/// All messages.
#[derive(Default)]
pub(super) struct State {
    messages: HashMap<JobId, Message>,
    pub(super) places: Places,
    serial: u64,
}

/// Names one hand-out of one message.
#[derive(Clone)]
pub(super) struct Loan {
    pub(super) id: JobId,
    serial: u64,
    pub(super) deliveries: u32,
}

/// A message as it is handed out.
pub(super) struct Lent {
    pub(super) loan: Loan,
    pub(super) queue: Arc<str>,
    pub(super) body: Bytes,
    pub(super) ack_wait: Duration,
}

impl State {
    pub(super) fn kick(&mut self, envelope: Envelope) -> Kicked {
        let id = envelope.id.clone();
        let Entry::Vacant(vacant) = self.messages.entry(id.clone()) else { return Kicked::Existing };
        self.serial += 1;
        let message = admit(&mut self.places, envelope, self.serial, self.serial);
        vacant.insert(message);
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
            && let Some(id) = self.places.pop(seat)
        {
            lent.extend(self.lend(id, now));
        }
        if !lent.is_empty() {
            self.places.took(seat, rung);
        }
        self.places.wake_for_fresh();
        lent
    }

    fn lend(&mut self, id: JobId, now: Instant) -> Option<Lent> {
        let message = self.messages.get_mut(&id)?;
        message.deliveries = message.deliveries.saturating_add(1);
        let ack_wait = self.places.ack_wait(message.queue);
        self.places.hold(&id, message, clock::after(now, ack_wait));
        Some(Lent {
            queue: self.places.name(message.queue),
            body: message.body.clone(),
            ack_wait,
            loan: Loan { serial: message.serial, deliveries: message.deliveries, id },
        })
    }

    /// Puts in line what has been lent or delayed long enough.
    fn sweep(&mut self) {
        self.expire(Instant::now());
        self.places.wake_for_fresh();
    }

    fn expire(&mut self, now: Instant) {
        while let Some(id) = self.places.expired(now)
            && let Some(message) = self.messages.get_mut(&id)
        {
            self.places.ready(&id, message);
        }
    }

    /// The message on that loan, unless it was taken back.
    fn lent(&mut self, loan: &Loan) -> Option<(&mut Message, &mut Places)> {
        let message = self.messages.get_mut(&loan.id)?;
        let held = matches!(message.place, Place::Held(_));
        let same = message.serial == loan.serial && message.deliveries == loan.deliveries;
        (held && same).then_some((message, &mut self.places))
    }

    pub(super) fn ack(&mut self, loan: &Loan) {
        if let Some((message, places)) = self.lent(loan) {
            places.leave(message);
            places.report_idle();
            self.messages.remove(&loan.id);
        }
    }

    pub(super) fn release(&mut self, loan: &Loan, delay: Duration) {
        if let Some((message, places)) = self.lent(loan) {
            match delay.is_zero() {
                true => places.ready(&loan.id, message),
                false => places.schedule(&loan.id, message, clock::after(Instant::now(), delay)),
            }
            places.wake_for_fresh();
            places.report_idle();
        }
    }

    pub(super) fn extend(&mut self, loan: &Loan) {
        if let Some((message, places)) = self.lent(loan) {
            let until = clock::after(Instant::now(), places.ack_wait(message.queue));
            places.hold(&loan.id, message, until);
        }
    }

    pub(super) fn replace(&mut self, loan: &Loan, next: Envelope) -> Replaced {
        let serial = self.serial + 1;
        let Some((message, places)) = self.lent(loan) else { return Replaced::Lost };
        places.leave(message);
        *message = admit(places, next, serial, message.order);
        places.wake_for_fresh();
        places.report_idle();
        self.serial = serial;
        Replaced::Done
    }

    pub(super) fn is_newest(&self, loan: &Loan) -> bool {
        self.messages.get(&loan.id).is_some_and(|message| message.serial == loan.serial)
    }

    pub(super) fn find(&mut self, id: &JobId) -> Option<Queued> {
        self.sweep();
        let message = self.messages.get(id)?;
        let ready = !matches!(message.place, Place::Scheduled(_));
        let queue = self.places.name(message.queue);
        Some(Queued::new(id.clone(), &*queue, message.body.clone(), ready))
    }

    pub(super) fn depths(&mut self, queues: &[String]) -> Vec<QueueDepth> {
        self.sweep();
        queues.iter().map(|queue| self.places.depth(queue)).collect()
    }

    pub(super) fn is_idle(&mut self) -> bool {
        self.sweep();
        self.places.is_idle()
    }
}

/// Puts a new message in line, or aside until its time.
fn admit(places: &mut Places, envelope: Envelope, serial: u64, order: u64) -> Message {
    let mut message = Message {
        serial,
        order,
        queue: places.queue(&envelope.queue),
        priority: envelope.priority,
        body: envelope.body,
        deliveries: 0,
        place: Place::Nowhere,
    };
    match envelope.not_before.and_then(clock::due) {
        Some(at) => places.schedule(&envelope.id, &mut message, at),
        None => places.ready(&envelope.id, &mut message),
    }
    message
}
