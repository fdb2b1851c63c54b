//! The content of the broker and its operations: no locks, no waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashTable;
use slab::Slab;
use tokio::time::Instant;

use super::inbox;
use super::ops::{DeliveryTag, HandedOut, Incoming, PendingOp};
use super::queues::{QueueEntry, QueueTable, Stage};
use super::waiters::WaiterId;
use crate::broker::{Kicked, Page, QueueDepth, Queued, QueuedFilter, Replaced, Waiting};
use crate::memory::clock;
use crate::memory::index::{PageBuilder, Slot, slot};
use crate::memory::ordered_ids::OrderedIds;
use crate::memory::watch::{Watchable, Watchers};
use crate::message::{Envelope, JobId};
use crate::time::Timestamp;

/// All messages.
pub(super) struct State {
    messages: Slab<QueueEntry>,
    by_id: HashTable<Slot>,
    pub(super) queues: QueueTable,
    ids: OrderedIds,
    /// Buffer for the operations of the inbox. Empty outside of a drain.
    pub(super) pending: Vec<PendingOp>,
    /// Watchers of kicks.
    pub(super) watchers: Watchers<(), Queued>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            messages: Slab::new(),
            by_id: HashTable::new(),
            queues: QueueTable::default(),
            ids: inbox::direct_ids(),
            pending: Vec::new(),
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

impl QueueEntry {
    /// True if this delivery still holds the message.
    fn is_held_under(&self, tag: &DeliveryTag) -> bool {
        let same = self.serial == tag.serial && self.deliveries == tag.deliveries;
        same && matches!(self.stage, Stage::Held(_))
    }
}

impl State {
    /// Adds a message, unless there is one of the same job.
    pub(super) fn kick(&mut self, incoming: Incoming, now: std::time::Instant) -> Kicked {
        let serial = self.ids.next(now);
        self.add(incoming, serial)
    }

    /// Adds a message under a serial that it has already.
    pub(super) fn add(&mut self, incoming: Incoming, serial: u64) -> Kicked {
        let hash = incoming.hash;
        if self.slot(&incoming.envelope.id, hash).is_some() {
            return Kicked::Existing;
        }
        let entry = self.messages.vacant_entry();
        let slot = slot(entry.key());
        let message = new_entry(&mut self.queues, slot, incoming, serial, serial);
        let message = entry.insert(message);
        if !self.watchers.is_empty() {
            self.watchers.send(&(), &queued(&self.queues, message));
        }
        let messages = &self.messages;
        self.by_id.insert_unique(hash, slot, |slot| messages[*slot as usize].hash);
        self.queues.announce();
        Kicked::New
    }

    /// The slot of the message with that id.
    fn slot(&self, id: &JobId, hash: u64) -> Option<Slot> {
        self.by_id.find(hash, |slot| self.messages[*slot as usize].id == *id).copied()
    }

    /// True if a listener, a watcher or `wait_idle` waits for changes.
    pub(super) fn is_awaited(&self) -> bool {
        self.queues.is_awaited() || !self.watchers.is_empty()
    }

    /// Hands out up to `count` messages.
    pub(super) fn take<T>(
        &mut self,
        waiter: WaiterId,
        count: usize,
        mut give: impl FnMut(HandedOut) -> T,
    ) -> Vec<T> {
        let woken = self.queues.waiters.end_wait(waiter);
        let now = Instant::now();
        self.expire(now);
        let mut handed_out = Vec::new();
        while handed_out.len() < count
            && let Some(slot) = self.queues.pop(waiter)
        {
            handed_out.extend(self.hand_out(slot, now).map(&mut give));
        }
        if !handed_out.is_empty() {
            self.queues.pass_on(waiter, woken);
            let (live, messages) = (self.queues.held, &self.messages);
            self.queues.leases.tidy(live, |slot, at| is_held(messages, slot, at));
        }
        self.queues.announce();
        handed_out
    }

    fn hand_out(&mut self, slot: Slot, now: Instant) -> Option<HandedOut> {
        let message = self.messages.get_mut(slot as usize)?;
        message.deliveries = message.deliveries.saturating_add(1);
        self.queues.hold(slot, message, now);
        Some(HandedOut {
            id: message.id.clone(),
            queue: self.queues.name(message.queue),
            body: message.body.clone(),
            queue_id: message.queue,
            tag: DeliveryTag { slot, serial: message.serial, deliveries: message.deliveries },
        })
    }

    /// Time at which the next lease or delay ends.
    pub(super) fn next_timer(&mut self) -> Option<Instant> {
        let messages = &self.messages;
        let lease = self.queues.leases.next(|slot, at| is_held(messages, slot, at));
        lease.into_iter().chain(self.queues.next_delay()).min()
    }

    /// Makes messages ready whose lease or delay has ended, and wakes listeners for them.
    fn sweep(&mut self) {
        self.expire(Instant::now());
        self.queues.announce();
    }

    fn expire(&mut self, now: Instant) {
        loop {
            let messages = &self.messages;
            let lapsed = self.queues.leases.pop(now, |slot, at| is_held(messages, slot, at));
            let Some(slot) = lapsed.or_else(|| self.queues.first_due(now)) else { break };
            let Some(message) = self.messages.get_mut(slot as usize) else { break };
            self.queues.make_ready(slot, message);
        }
    }

    /// The message, if this delivery still holds it.
    fn held_under(&mut self, tag: &DeliveryTag) -> Option<(&mut QueueEntry, &mut QueueTable)> {
        let message = self.messages.get_mut(tag.slot as usize)?;
        message.is_held_under(tag).then_some((message, &mut self.queues))
    }

    /// Removes the message. Returns it, so that the caller can drop it outside of the lock.
    pub(super) fn ack(&mut self, tag: &DeliveryTag) -> Option<QueueEntry> {
        let (message, queues) = self.held_under(tag)?;
        queues.detach(message);
        queues.notify_idle();
        Some(self.remove_slot(tag.slot))
    }

    fn remove_slot(&mut self, slot: Slot) -> QueueEntry {
        let message = self.messages.remove(slot as usize);
        if let Ok(entry) = self.by_id.find_entry(message.hash, |other| *other == slot) {
            entry.remove();
        }
        message
    }

    pub(super) fn release(&mut self, tag: &DeliveryTag, delay: Duration) {
        if let Some((message, queues)) = self.held_under(tag) {
            if delay.is_zero() {
                queues.make_ready(tag.slot, message)
            } else {
                queues.schedule(tag.slot, message, clock::after(Instant::now(), delay))
            }
            queues.announce();
            queues.notify_idle();
        }
    }

    pub(super) fn extend(&mut self, tag: &DeliveryTag) {
        if let Some((message, queues)) = self.held_under(tag) {
            queues.hold(tag.slot, message, Instant::now());
        }
    }

    pub(super) fn replace(&mut self, tag: &DeliveryTag, next: Envelope) -> Replaced {
        let serial = self.ids.next(std::time::Instant::now());
        let Some((message, queues)) = self.held_under(tag) else { return Replaced::Lost };
        queues.detach(message);
        let incoming = Incoming { envelope: next, hash: message.hash, ready_since: Instant::now() };
        *message = new_entry(queues, tag.slot, incoming, serial, message.order);
        queues.announce();
        queues.notify_idle();
        Replaced::Done
    }

    pub(super) fn is_newest(&self, tag: &DeliveryTag) -> bool {
        self.messages.get(tag.slot as usize).is_some_and(|message| message.serial == tag.serial)
    }

    pub(super) fn find(&mut self, id: &JobId, hash: u64) -> Option<Queued> {
        self.sweep();
        let slot = self.slot(id, hash)?;
        Some(queued(&self.queues, &self.messages[slot as usize]))
    }

    pub(super) fn remove(&mut self, wanted: &Queued, hash: u64) -> bool {
        let Some(slot) = self.slot(&wanted.id, hash) else { return false };
        let found = self.messages.get_mut(slot as usize).filter(|message| message.serial == wanted.revision);
        let Some(message) = found else { return false };
        self.queues.remove(message);
        self.queues.notify_idle();
        self.remove_slot(slot);
        true
    }

    pub(super) fn list(&mut self, filter: &QueuedFilter, page: Page) -> Vec<Queued> {
        self.sweep();
        let mut page = PageBuilder::new(page);
        let queues = self.queues.queues().iter();
        for queue in queues.filter(|queue| filter.queue.as_deref().is_none_or(|name| *queue.name == *name)) {
            if wants(filter, Waiting::Ready) {
                queue.line.rows().for_each(|(_, row)| row.add_to_page(|slot| slot, &mut page));
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
            let held = self.held_messages(filter);
            page.add(held.range(page.positions()).map(|(place, slot)| (*place, *slot)));
        }
        let messages = page.finish().filter_map(|(_, slot)| self.messages.get(slot as usize));
        messages.map(|message| queued(&self.queues, message)).collect()
    }

    /// Held messages, by place in line.
    fn held_messages(&self, filter: &QueuedFilter) -> BTreeMap<u64, Slot> {
        let leases = self.queues.leases.iter().filter(|(at, slot)| is_held(&self.messages, *slot, *at));
        let held = leases.filter_map(|(_, slot)| Some((slot, self.messages.get(slot as usize)?)));
        let queue = filter.queue.as_deref();
        let wanted = held
            .filter(move |(_, message)| queue.is_none_or(|name| *self.queues.name(message.queue) == *name));
        // A message that was handed out twice at one instant has two leases.
        wanted.map(|(slot, message)| (message.order, slot)).collect()
    }

    pub(super) fn queues(&self) -> Vec<String> {
        let mut names: Vec<String> = self.queues.queues().iter().map(|queue| (*queue.name).into()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn depths(&mut self, queues: &[String]) -> Vec<QueueDepth> {
        self.sweep();
        let depth = |queue: &String| {
            let mut depth = self.queues.depth(queue);
            depth.oldest = self.oldest(queue);
            depth
        };
        queues.iter().map(depth).collect()
    }

    /// Earliest time at which the first message of a priority became ready.
    fn oldest(&self, queue: &str) -> Option<Timestamp> {
        let queue = self.queues.find(queue)?;
        let firsts = queue.line.rows().filter_map(|(_, row)| row.first());
        let since = firsts.filter_map(|slot| Some(self.messages.get(slot as usize)?.ready_since));
        since.min().map(clock::past)
    }

    /// True if nothing is ready or held. Otherwise the next idle moment is notified.
    pub(super) fn await_idle(&mut self) -> bool {
        self.sweep();
        self.queues.await_idle()
    }
}

/// True if the message in that slot is held until `until`.
fn is_held(messages: &Slab<QueueEntry>, slot: Slot, until: Instant) -> bool {
    messages.get(slot as usize).is_some_and(|message| message.stage == Stage::Held(until))
}

/// Makes the entry of a new message, ready or scheduled.
fn new_entry(queues: &mut QueueTable, slot: Slot, incoming: Incoming, serial: u64, order: u64) -> QueueEntry {
    let Incoming { envelope, hash, ready_since } = incoming;
    let mut message = QueueEntry {
        id: envelope.id,
        hash,
        serial,
        order,
        queue: queues.queue(&envelope.queue),
        priority: envelope.priority,
        retried: envelope.attempt > 1,
        body: envelope.body,
        deliveries: 0,
        stage: Stage::Detached,
        ready_since,
    };
    match envelope.not_before.and_then(clock::due) {
        Some(at) => queues.schedule(slot, &mut message, at),
        None => queues.make_ready(slot, &mut message),
    }
    message
}

fn queued(queues: &QueueTable, message: &QueueEntry) -> Queued {
    let ready = !matches!(message.stage, Stage::Scheduled(_));
    let queue = queues.name(message.queue);
    Queued::new(message.id.clone(), &*queue, message.body.clone(), ready)
        .position(message.order)
        .revision(message.serial)
}

fn wants(filter: &QueuedFilter, waiting: Waiting) -> bool {
    filter.waiting.is_none_or(|wanted| wanted == waiting)
}
