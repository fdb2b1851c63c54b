//! The steps of a message. Each is part of one transaction, so a crash is before it or after it.
//!
//! There is one table, by job id, so a job has one newest message by the nature of the key. Each
//! message holds the time from which it can be delivered: a past time if it is ready, the end of
//! the lease if it is held, its due time if it is delayed. So no message has to move when that time
//! comes.
//!
//! The search for the next message reads all of them: fine for thousands. For more, keep a second
//! table by queue, priority and place in line, as the memory backend does.

use std::time::Duration;

use aioq::broker::{Queued, Replaced, Waiting};
use aioq::message::Envelope;
use aioq::{JobId, Timestamp};
use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::file::{Done, count};

/// Serial, place in line, queue, priority, attempt, deliveries, visible from (microseconds since
/// 1970), held, body.
type Row = (u64, u64, &'static str, u8, u32, u32, i64, bool, &'static [u8]);
pub const MESSAGES: TableDefinition<'_, &str, Row> = TableDefinition::new("messages");
/// The names of all queues that were ever used.
pub const QUEUES: TableDefinition<'_, &str, ()> = TableDefinition::new("queues");

pub struct Message {
    pub id: JobId,
    /// Distinguishes the message from its predecessors under the same id.
    serial: u64,
    /// Its place in line, which its successors inherit.
    order: u64,
    pub queue: String,
    priority: u8,
    pub attempt: u32,
    deliveries: u32,
    pub visible_from: Timestamp,
    pub held: bool,
    pub body: Bytes,
}

/// One hand-out of one message. Only the holder of the latest hand-out may move the message.
#[derive(Clone)]
pub struct Loan {
    pub id: JobId,
    serial: u64,
    pub deliveries: u32,
}

/// A message with the hand-out of it.
pub struct Lent {
    pub loan: Loan,
    pub queue: String,
    pub body: Bytes,
    pub until: Timestamp,
}

impl Message {
    fn new(envelope: Envelope, serial: u64, order: u64) -> Self {
        let now = Timestamp::now();
        Self {
            id: envelope.id,
            serial,
            order,
            queue: envelope.queue.into(),
            priority: envelope.priority.value(),
            attempt: envelope.attempt,
            deliveries: 0,
            visible_from: envelope.not_before.map_or(now, |time| time.max(now)),
            held: false,
            body: envelope.body,
        }
    }

    /// The message of `id`.
    pub fn get(table: &impl ReadableTable<&'static str, Row>, id: &str) -> Done<Option<Self>> {
        Ok(table.get(id)?.map(|row| Self::read(id, row.value())))
    }

    /// The event that it waits for.
    pub fn waiting(&self, now: Timestamp) -> Waiting {
        if self.held || self.visible_from <= now {
            Waiting::Ready
        } else if self.attempt > 1 {
            Waiting::Retrying
        } else {
            Waiting::Scheduled
        }
    }

    /// The message as operators see it. Its place in line is its place in lists: no two messages
    /// share one. Its serial distinguishes it from its successors, which have the same place.
    pub fn queued(&self) -> Queued {
        let ready = self.waiting(Timestamp::now()) == Waiting::Ready;
        let queued = Queued::new(self.id.clone(), &*self.queue, self.body.clone(), ready);
        queued.position(self.order).revision(self.serial)
    }

    /// The messages of these queues, in the order of their delivery.
    pub fn all(
        table: &impl ReadableTable<&'static str, Row>,
        wanted: impl Fn(&str) -> bool,
    ) -> Done<Vec<Self>> {
        let mut messages = Vec::new();
        for row in table.iter()? {
            let (id, row) = row?;
            let row = row.value();
            if wanted(row.2) {
                messages.push(Self::read(id.value(), row));
            }
        }
        messages.sort_by_key(|message| (message.priority, message.order));
        Ok(messages)
    }

    fn read(id: &str, row: (u64, u64, &str, u8, u32, u32, i64, bool, &[u8])) -> Self {
        let (serial, order, queue, priority, attempt, deliveries, visible_from, held, body) = row;
        let (queue, body) = (queue.to_owned(), Bytes::copy_from_slice(body));
        let visible_from = Timestamp::from_micros(visible_from);
        Self { id: id.into(), serial, order, queue, priority, attempt, deliveries, visible_from, held, body }
    }
}

/// The messages, in a transaction that may change them.
pub struct Messages<'t> {
    transaction: &'t WriteTransaction,
    table: Table<'t, &'static str, Row>,
}

impl<'t> Messages<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Done<Self> {
        transaction.open_table(QUEUES)?;
        Ok(Self { transaction, table: transaction.open_table(MESSAGES)? })
    }

    /// Stores the name of a queue.
    pub fn used(&self, queue: &str) -> Done<()> {
        self.transaction.open_table(QUEUES)?.insert(queue, ())?;
        Ok(())
    }

    /// Takes a message in, unless there is one of its id.
    pub fn kick(&mut self, envelope: Envelope) -> Done<Option<Queued>> {
        if Message::get(&self.table, envelope.id.as_str())?.is_some() {
            return Ok(None);
        }
        self.used(&envelope.queue)?;
        let serial = count(self.transaction, "serial")?;
        let message = Message::new(envelope, serial, serial);
        self.put(&message)?;
        Ok(Some(message.queued()))
    }

    /// Takes a message out, even if it is held. True if it was there. A successor has another
    /// serial, and stays.
    pub fn remove(&mut self, wanted: &Queued) -> Done<bool> {
        let newest = Message::get(&self.table, wanted.id.as_str())?;
        let same = newest.is_some_and(|message| message.serial == wanted.revision);
        if same {
            self.table.remove(wanted.id.as_str())?;
        }
        Ok(same)
    }

    /// Lends up to `count` messages, each for the `ack_wait` of its queue.
    pub fn lend(
        &mut self,
        queues: &[String],
        count: usize,
        ack_wait: impl Fn(&str) -> Duration,
    ) -> Done<Vec<Lent>> {
        let now = Timestamp::now();
        let messages =
            Message::all(&self.table, |queue| queues.iter().any(|name| name == queue))?.into_iter();
        let ready = messages.filter(|message| message.visible_from <= now);
        ready.take(count).map(|message| self.lend_one(message, now, &ack_wait)).collect()
    }

    fn lend_one(
        &mut self,
        mut message: Message,
        now: Timestamp,
        ack_wait: impl Fn(&str) -> Duration,
    ) -> Done<Lent> {
        message.deliveries += 1;
        message.held = true;
        message.visible_from = now + ack_wait(&message.queue);
        self.put(&message)?;
        let Message { id, serial, deliveries, queue, body, visible_from, .. } = message;
        Ok(Lent { loan: Loan { id, serial, deliveries }, queue, body, until: visible_from })
    }

    pub fn ack(&mut self, loan: &Loan) -> Done<()> {
        if self.lent(loan)?.is_some() {
            self.table.remove(loan.id.as_str())?;
        }
        Ok(())
    }

    /// Hides the message for this long, held or released.
    pub fn hide(&mut self, loan: &Loan, time: Duration, held: bool) -> Done<()> {
        if let Some(message) = self.lent(loan)? {
            self.put(&Message { visible_from: Timestamp::now() + time, held, ..message })?;
        }
        Ok(())
    }

    pub fn replace(&mut self, loan: &Loan, next: Envelope) -> Done<Replaced> {
        let Some(message) = self.lent(loan)? else { return Ok(Replaced::Lost) };
        let serial = count(self.transaction, "serial")?;
        self.put(&Message::new(next, serial, message.order))?;
        Ok(Replaced::Done)
    }

    pub fn is_newest(&self, loan: &Loan) -> Done<bool> {
        let newest = Message::get(&self.table, loan.id.as_str())?;
        Ok(newest.is_some_and(|message| message.serial == loan.serial))
    }

    /// The message of a hand-out, if that is the latest.
    fn lent(&self, loan: &Loan) -> Done<Option<Message>> {
        let newest = Message::get(&self.table, loan.id.as_str())?;
        Ok(newest.filter(|message| {
            message.held && message.serial == loan.serial && message.deliveries == loan.deliveries
        }))
    }

    fn put(&mut self, message: &Message) -> Done<()> {
        let Message { id, serial, order, queue, priority, attempt, deliveries, visible_from, held, body } =
            message;
        let from = visible_from.as_micros();
        let row = (*serial, *order, &**queue, *priority, *attempt, *deliveries, from, *held, &**body);
        self.table.insert(id.as_str(), row)?;
        Ok(())
    }
}
