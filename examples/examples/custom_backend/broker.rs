//! What can happen to a message. Each step is one transaction, so a crash is either before or after it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::{
    Broker, BrokerInfo, DEFAULT_ACK_WAIT, Expect, Kicked, Listener, QueueDepth, Queued, Replaced,
    Subscription,
};
use aioq::{Envelope, Error, ErrorKind, JobId, Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use tokio::sync::Notify;

use crate::file::{Access, Done, File, count, lock};
use crate::listener::RedbListener;

/// By id: serial, place in line, queue, priority, deliveries, state, time of that state.
type Row = (u64, u64, &'static str, u8, u32, u8, i64);
const MESSAGES: TableDefinition<'_, &str, Row> = TableDefinition::new("messages");
const BODIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bodies");
/// What can be delivered, in order: queue, priority, place in line.
const LINE: TableDefinition<'_, (&str, u8, u64), &str> = TableDefinition::new("line");
/// What waits for a time: queue, whether it is held, the time in microseconds since 1970, serial.
const TIMES: TableDefinition<'_, (&str, bool, i64, u64), &str> = TableDefinition::new("times");

const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Held(i64),
    Scheduled(i64),
}

struct Message {
    /// Tells it from its predecessors under the same id.
    serial: u64,
    /// Its place in line, which its successors inherit.
    order: u64,
    queue: String,
    priority: u8,
    deliveries: u32,
    state: State,
}

impl Message {
    fn new(envelope: &Envelope, serial: u64, order: u64) -> Self {
        let now = Timestamp::now();
        let later = envelope.not_before.filter(|time| *time > now);
        Self {
            serial,
            order,
            queue: envelope.queue.clone(),
            priority: envelope.priority.value(),
            deliveries: 0,
            state: later.map_or(State::Ready, |time| State::Scheduled(time.as_micros())),
        }
    }

    fn read(
        (serial, order, queue, priority, deliveries, state, time): (u64, u64, &str, u8, u32, u8, i64),
    ) -> Self {
        let state = match state {
            0 => State::Ready,
            1 => State::Held(time),
            _ => State::Scheduled(time),
        };
        Self { serial, order, queue: queue.to_owned(), priority, deliveries, state }
    }
}

/// One hand-out of one message.
#[derive(Clone)]
pub struct Loan {
    pub id: JobId,
    pub serial: u64,
    pub deliveries: u32,
}

/// A message as it is handed out.
pub struct Lent {
    pub loan: Loan,
    pub queue: String,
    pub body: Bytes,
    pub until: Timestamp,
}

/// The broker's tables in a transaction, and its steps.
pub struct Tables<'t> {
    transaction: &'t WriteTransaction,
    messages: Table<'t, &'static str, Row>,
    bodies: Table<'t, &'static str, &'static [u8]>,
    line: Table<'t, (&'static str, u8, u64), &'static str>,
    times: Table<'t, (&'static str, bool, i64, u64), &'static str>,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Done<Self> {
        Ok(Self {
            transaction,
            messages: transaction.open_table(MESSAGES)?,
            bodies: transaction.open_table(BODIES)?,
            line: transaction.open_table(LINE)?,
            times: transaction.open_table(TIMES)?,
        })
    }

    fn get(&self, id: &str) -> Done<Option<Message>> {
        Ok(self.messages.get(id)?.map(|row| Message::read(row.value())))
    }

    /// Writes the message and enters it where its state belongs.
    fn enter(&mut self, id: &str, message: &Message) -> Done<()> {
        let Message { serial, order, queue, priority, deliveries, state } = message;
        let (state, time) = match *state {
            State::Ready => (0, 0),
            State::Held(time) => (1, time),
            State::Scheduled(time) => (2, time),
        };
        self.messages.insert(id, (*serial, *order, &**queue, *priority, *deliveries, state, time))?;
        match state {
            0 => self.line.insert((&**queue, *priority, *order), id)?,
            _ => self.times.insert((&**queue, state == 1, time, *serial), id)?,
        };
        Ok(())
    }

    /// Takes the message out of where its state put it.
    fn leave(&mut self, message: &Message) -> Done<()> {
        let queue = &*message.queue;
        match message.state {
            State::Ready => self.line.remove((queue, message.priority, message.order))?,
            State::Held(time) => self.times.remove((queue, true, time, message.serial))?,
            State::Scheduled(time) => self.times.remove((queue, false, time, message.serial))?,
        };
        Ok(())
    }

    fn change(&mut self, id: &str, message: &mut Message, state: State) -> Done<()> {
        self.leave(message)?;
        message.state = state;
        self.enter(id, message)
    }

    fn kick(&mut self, envelope: &Envelope) -> Done<Kicked> {
        let id = envelope.id.as_str();
        if self.get(id)?.is_some() {
            return Ok(Kicked::Existing);
        }
        let serial = count(self.transaction, "serial")?;
        self.bodies.insert(id, &*envelope.body)?;
        self.enter(id, &Message::new(envelope, serial, serial))?;
        Ok(Kicked::New)
    }

    /// Lends the first message of a queue, if there is one.
    pub fn lend(&mut self, queue: &str, ack_wait: Duration) -> Done<Option<Lent>> {
        self.put_due_in_line(queue)?;
        let first = self.line.range((queue, 0, 0)..=(queue, u8::MAX, u64::MAX))?.next().transpose()?;
        let Some(id) = first.map(|(_, id)| id.value().to_owned()) else { return Ok(None) };
        let Some(mut message) = self.get(&id)? else { return Ok(None) };
        let until = Timestamp::now() + ack_wait;
        message.deliveries += 1;
        self.change(&id, &mut message, State::Held(until.as_micros()))?;
        let body = self.bodies.get(&*id)?.map(|body| Bytes::copy_from_slice(body.value()));
        Ok(Some(Lent {
            loan: Loan { id: id.into(), serial: message.serial, deliveries: message.deliveries },
            queue: message.queue,
            body: body.unwrap_or_default(),
            until,
        }))
    }

    fn put_due_in_line(&mut self, queue: &str) -> Done<()> {
        let now = Timestamp::now().as_micros();
        for held in [true, false] {
            let due = self.times.range((queue, held, i64::MIN, 0)..=(queue, held, now, u64::MAX))?;
            let ids = due.map(|row| Ok(row?.1.value().to_owned())).collect::<Done<Vec<String>>>()?;
            for id in ids {
                if let Some(mut message) = self.get(&id)? {
                    self.change(&id, &mut message, State::Ready)?;
                }
            }
        }
        Ok(())
    }

    /// The message on that loan, unless it was taken back: only its holder may move it.
    fn lent(&self, loan: &Loan) -> Done<Option<Message>> {
        let same = |message: &Message| {
            let held = matches!(message.state, State::Held(_));
            held && message.serial == loan.serial && message.deliveries == loan.deliveries
        };
        Ok(self.get(loan.id.as_str())?.filter(same))
    }

    pub fn ack(&mut self, loan: &Loan) -> Done<()> {
        if let Some(message) = self.lent(loan)? {
            self.leave(&message)?;
            self.messages.remove(loan.id.as_str())?;
            self.bodies.remove(loan.id.as_str())?;
        }
        Ok(())
    }

    pub fn release(&mut self, loan: &Loan, delay: Duration) -> Done<()> {
        if let Some(mut message) = self.lent(loan)? {
            let state = match delay.is_zero() {
                true => State::Ready,
                false => State::Scheduled((Timestamp::now() + delay).as_micros()),
            };
            self.change(loan.id.as_str(), &mut message, state)?;
        }
        Ok(())
    }

    pub fn extend(&mut self, loan: &Loan, ack_wait: Duration) -> Done<()> {
        if let Some(mut message) = self.lent(loan)? {
            let until = State::Held((Timestamp::now() + ack_wait).as_micros());
            self.change(loan.id.as_str(), &mut message, until)?;
        }
        Ok(())
    }

    pub fn replace(&mut self, loan: &Loan, next: &Envelope) -> Done<Replaced> {
        let Some(message) = self.lent(loan)? else { return Ok(Replaced::Lost) };
        self.leave(&message)?;
        let serial = count(self.transaction, "serial")?;
        self.bodies.insert(next.id.as_str(), &*next.body)?;
        self.enter(next.id.as_str(), &Message::new(next, serial, message.order))?;
        Ok(Replaced::Done)
    }

    pub fn is_newest(&self, loan: &Loan) -> Done<bool> {
        Ok(self.get(loan.id.as_str())?.is_some_and(|message| message.serial == loan.serial))
    }
}

/// What broker, listeners and receipts share.
pub struct Shared {
    pub access: Access,
    /// Rung when a message may have become ready, or a time may have come nearer.
    pub changed: Notify,
    ack_waits: Mutex<HashMap<String, Duration>>,
}

impl Shared {
    /// Runs one step of the tables, and wakes those who wait.
    pub async fn step<R: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tables<'_>) -> Done<R> + Send + 'static,
    ) -> Result<R> {
        let result = self.quietly(step).await?;
        self.changed.notify_waiters();
        Ok(result)
    }

    /// Runs a step that makes nothing ready.
    pub async fn quietly<R: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tables<'_>) -> Done<R> + Send + 'static,
    ) -> Result<R> {
        self.access.write(|transaction| step(&mut Tables::open(transaction)?), |_| {}).await
    }

    /// When the first message of these queues can be delivered, now or later.
    pub async fn next_time(&self, queues: Vec<String>) -> Result<Option<Timestamp>> {
        let look = move |transaction: &redb::ReadTransaction| {
            let (line, times) = (transaction.open_table(LINE)?, transaction.open_table(TIMES)?);
            let mut first = None;
            for queue in queues.iter().map(|queue| &**queue) {
                if line.range((queue, 0, 0)..=(queue, u8::MAX, u64::MAX))?.next().is_some() {
                    return Ok(Some(Timestamp::now()));
                }
                for held in [true, false] {
                    let next =
                        times.range((queue, held, i64::MIN, 0)..=(queue, held, i64::MAX, u64::MAX))?.next();
                    let time = next.transpose()?.map(|(key, _)| Timestamp::from_micros(key.value().2));
                    first = first.into_iter().chain(time).min();
                }
            }
            Ok(first)
        };
        self.access.read(look).await
    }

    pub fn ack_wait(&self, queue: &str) -> Duration {
        lock(&self.ack_waits).get(queue).copied().unwrap_or(DEFAULT_ACK_WAIT)
    }
}

/// [`Broker`] on redb.
pub struct RedbBroker {
    shared: Arc<Shared>,
    address: String,
}

impl RedbBroker {
    pub fn new(file: Arc<File>, address: String) -> Self {
        let (changed, ack_waits) = (Notify::new(), Mutex::default());
        Self { shared: Arc::new(Shared { access: Access::new(file), changed, ack_waits }), address }
    }
}

fn check_size(envelope: &Envelope) -> Result<()> {
    match envelope.body.len() {
        0..=MAX_BODY_BYTES => Ok(()),
        size => {
            let message = format!("a message has at most {MAX_BODY_BYTES} bytes, this one has {size}");
            Err(Error::new(ErrorKind::TooLarge, message).with_id(envelope.id.clone()))
        }
    }
}

#[async_trait]
impl Broker for RedbBroker {
    /// Not `in_process`, although it is: leases follow the wall clock, and are extended from a thread that a
    /// blocking body cannot hold up.
    fn info(&self) -> BrokerInfo {
        BrokerInfo::new("redb", &*self.address).max_body_bytes(MAX_BODY_BYTES)
    }

    async fn startup(&self) -> Result<()> {
        self.shared.access.startup(|transaction| Tables::open(transaction).map(|_| ())).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.shared.access.shutdown();
        // Listeners that wait come back with an error.
        self.shared.changed.notify_waiters();
        Ok(())
    }

    async fn kick(&self, envelope: Envelope, _expect: Expect) -> Result<Kicked> {
        check_size(&envelope)?;
        self.shared.step(move |tables| tables.kick(&envelope)).await
    }

    /// One transaction for all: one write to the disk.
    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        let count = envelopes.len();
        let kick = |tables: &mut Tables<'_>, envelope: &Envelope| match check_size(envelope) {
            Ok(()) => tables.kick(envelope).map(Ok),
            Err(error) => Ok(Err(error)),
        };
        let kick_all = move |tables: &mut Tables<'_>| {
            envelopes.iter().map(|(envelope, _)| kick(tables, envelope)).collect::<Done<Vec<_>>>()
        };
        match self.shared.step(kick_all).await {
            Ok(fates) => fates,
            Err(error) => {
                let again = || Error::new(error.kind(), format!("the bulk was not kicked: {error}"));
                (0..count).map(|_| Err(again())).collect()
            }
        }
    }

    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>> {
        self.shared.access.started()?;
        for queue in &subscription.queues {
            let wanted = subscription.ack_wait.unwrap_or(DEFAULT_ACK_WAIT);
            lock(&self.shared.ack_waits).entry(queue.clone()).or_insert(wanted);
        }
        Ok(Box::new(RedbListener::new(self.shared.clone(), subscription.queues)))
    }

    async fn find(&self, id: &JobId) -> Result<Option<Queued>> {
        let id = id.clone();
        let find = move |transaction: &redb::ReadTransaction| {
            let row = transaction.open_table(MESSAGES)?.get(id.as_str())?;
            let body = transaction.open_table(BODIES)?.get(id.as_str())?;
            Ok(row.zip(body).map(|(row, body)| {
                let message = Message::read(row.value());
                let now = Timestamp::now().as_micros();
                let ready = !matches!(message.state, State::Scheduled(time) if time > now);
                Queued::new(id, message.queue, Bytes::copy_from_slice(body.value()), ready)
            }))
        };
        self.shared.access.read(find).await
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        let queues = queues.to_vec();
        let count = move |transaction: &redb::ReadTransaction| {
            let (line, times) = (transaction.open_table(LINE)?, transaction.open_table(TIMES)?);
            let now = Timestamp::now().as_micros();
            let depth = |name: &String| {
                let queue = &**name;
                let mut depth = QueueDepth::new(name);
                depth.ready = line.range((queue, 0, 0)..=(queue, u8::MAX, u64::MAX))?.count() as u64;
                for row in times.range((queue, false, i64::MIN, 0)..=(queue, true, i64::MAX, u64::MAX))? {
                    match row?.0.value() {
                        (_, _, time, _) if time <= now => depth.ready += 1,
                        (_, true, ..) => depth.held += 1,
                        (_, false, ..) => depth.scheduled += 1,
                    }
                }
                Ok(depth)
            };
            queues.iter().map(depth).collect()
        };
        self.shared.access.read(count).await
    }
}
