//! The broker: takes messages in, and lists them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::{
    Broker, BrokerInfo, DEFAULT_ACK_WAIT, Expect, Finding, Kicked, Listener, Page, QueueDepth, Queued,
    QueuedFilter, Subscription,
};
use aioq::message::Envelope;
use aioq::{Error, ErrorKind, JobId, Result, Timestamp};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use tokio::sync::Notify;

use crate::file::{Access, Done, File, fates, lock};
use crate::listener::RedbListener;
use crate::messages::{MESSAGES, Message, Messages, QUEUES};
use crate::page::cut;
use crate::watch::Watchers;

const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// State that broker, listeners and receipts share.
pub struct Shared {
    pub access: Access,
    /// Notified when a message may have become ready, or due earlier.
    pub changed: Notify,
    ack_waits: Mutex<HashMap<String, Duration>>,
    /// Watchers of all kicks.
    watchers: Arc<Watchers<Queued>>,
}

impl Shared {
    /// Runs a step in a transaction, and wakes the listeners that wait.
    pub async fn step<R: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Messages<'_>) -> Done<R> + Send + 'static,
    ) -> Result<R> {
        let result = self.quietly(step).await?;
        self.changed.notify_waiters();
        Ok(result)
    }

    /// Runs a step that makes nothing ready.
    pub async fn quietly<R: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Messages<'_>) -> Done<R> + Send + 'static,
    ) -> Result<R> {
        self.access.write(|transaction| step(&mut Messages::open(transaction)?), |_| {}).await
    }

    /// Takes messages in and tells the watchers, in one transaction. True for each message that is
    /// new.
    async fn kick(&self, envelopes: Vec<Envelope>) -> Result<Vec<Result<Kicked>>> {
        let kick_all = |transaction: &WriteTransaction| {
            let mut messages = Messages::open(transaction)?;
            let kick = |envelope| match check_size(&envelope) {
                Ok(()) => messages.kick(envelope).map(Ok),
                Err(error) => Ok(Err(error)),
            };
            envelopes.into_iter().map(kick).collect::<Done<Vec<Result<Option<Queued>>>>>()
        };
        let watchers = self.watchers.clone();
        let tell = move |kicked: &Vec<Result<Option<Queued>>>| {
            kicked.iter().flatten().flatten().for_each(|message| watchers.tell(message.clone()));
        };
        let kicked = self.access.write(kick_all, tell).await?;
        self.changed.notify_waiters();
        let fate = |new: Option<Queued>| if new.is_some() { Kicked::New } else { Kicked::Existing };
        Ok(kicked.into_iter().map(|new| new.map(fate)).collect())
    }

    /// The messages of the queues that a filter names.
    pub async fn messages(&self, wanted: impl Fn(&str) -> bool + Send + 'static) -> Result<Vec<Message>> {
        let look = |transaction: &ReadTransaction| Message::all(&transaction.open_table(MESSAGES)?, wanted);
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
        let (changed, ack_waits, watchers) = (Notify::new(), Mutex::default(), Arc::default());
        let shared = Shared { access: Access::new(file), changed, ack_waits, watchers };
        Self { shared: Arc::new(shared), address }
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
    /// Not `in_process`, although it is: leases follow the wall clock, and are extended from a
    /// thread that a blocking body cannot hold up.
    fn info(&self) -> BrokerInfo {
        BrokerInfo::new("redb", &*self.address).max_body_bytes(MAX_BODY_BYTES)
    }

    async fn startup(&self) -> Result<()> {
        self.shared.access.startup(|transaction| Messages::open(transaction).map(|_| ())).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.shared.access.shutdown();
        self.shared.watchers.end();
        // Listeners that wait come back with an error.
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Looks for the id in any case, because it is the key.
    async fn kick(&self, envelope: Envelope, _expect: Expect) -> Result<Kicked> {
        fates(1, self.shared.kick(vec![envelope]).await).remove(0)
    }

    /// One transaction for all: one write to the disk.
    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        let envelopes: Vec<Envelope> = envelopes.into_iter().map(|(envelope, _)| envelope).collect();
        fates(envelopes.len(), self.shared.kick(envelopes).await)
    }

    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>> {
        let queues = subscription.queues.clone();
        let used =
            move |messages: &mut Messages<'_>| queues.iter().try_for_each(|queue| messages.used(queue));
        self.shared.quietly(used).await?;
        for queue in &subscription.queues {
            let wanted = subscription.ack_wait.unwrap_or(DEFAULT_ACK_WAIT);
            lock(&self.shared.ack_waits).entry(queue.clone()).or_insert(wanted);
        }
        Ok(Box::new(RedbListener::new(self.shared.clone(), subscription.queues)))
    }

    async fn find(&self, id: &JobId) -> Result<Option<Queued>> {
        let id = id.clone();
        let find = move |transaction: &ReadTransaction| {
            Message::get(&transaction.open_table(MESSAGES)?, id.as_str())
        };
        let found = self.shared.access.read(find).await?;
        Ok(found.map(|message| message.queued()))
    }

    async fn list(&self, filter: &QueuedFilter, page: Page) -> Result<Vec<Queued>> {
        let queue = filter.queue.clone();
        let in_queue = move |name: &str| queue.as_deref().is_none_or(|queue| queue == name);
        let (mut messages, now) = (self.shared.messages(in_queue).await?, Timestamp::now());
        messages.retain(|message| filter.waiting.is_none_or(|waiting| waiting == message.waiting(now)));
        let rows = messages.iter().map(Message::queued).collect();
        Ok(cut(rows, page, |row: &Queued| row.position))
    }

    /// One transaction for all. A holder learns of it at its next step: the hand-out that it names
    /// is not there.
    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>> {
        let wanted = messages.to_vec();
        let remove = move |messages: &mut Messages<'_>| {
            wanted.iter().map(|message| messages.remove(message).map(Ok)).collect::<Done<Vec<_>>>()
        };
        fates(messages.len(), self.shared.quietly(remove).await)
    }

    async fn queues(&self) -> Result<Vec<String>> {
        let names = |transaction: &ReadTransaction| {
            let table = transaction.open_table(QUEUES)?;
            table.iter()?.map(|row| Ok(row?.0.value().to_owned())).collect()
        };
        self.shared.access.read(names).await
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        let wanted = queues.to_vec();
        let asked_for = move |name: &str| wanted.iter().any(|queue| queue == name);
        let (messages, now) = (self.shared.messages(asked_for).await?, Timestamp::now());
        let depth = |name: &String| {
            let mut depth = QueueDepth::new(name);
            let of_queue = messages.iter().filter(|message| message.queue == *name);
            of_queue.for_each(|message| add(&mut depth, message, now));
            depth
        };
        Ok(queues.iter().map(depth).collect())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Queued>> {
        self.shared.access.started()?;
        Ok(self.shared.watchers.watch(|_| true))
    }

    /// Durability of its commits: redb syncs each to the disk before it returns, by default.
    async fn examine(&self) -> Result<Vec<Finding>> {
        self.shared.access.started()?;
        let address = &self.address;
        let survives =
            "What was confirmed is on the disk: a crash of the process or a power loss costs no job.";
        let lost = format!("The file {address} is the only copy: a lost disk takes all jobs with it.");
        let alone =
            "Only one process can open the file: while it is away nothing is kicked and nothing runs.";
        Ok(vec![
            Finding::fine("process_crash", survives),
            Finding::fine("power_loss", survives),
            Finding::remark("disk_loss", lost).advice("Back the file up, or keep it on a mirrored disk."),
            Finding::remark("node_loss", alone),
        ])
    }
}

/// Counts one message of a queue.
fn add(depth: &mut QueueDepth, message: &Message, now: Timestamp) {
    match message.visible_from {
        // Ready since its kick, its due time, its release or the end of its lease.
        since if since <= now => {
            depth.ready += 1;
            depth.oldest = Some(depth.oldest.map_or(since, |oldest| oldest.min(since)));
        }
        _ if message.held => depth.held += 1,
        _ if message.attempt > 1 => depth.retrying += 1,
        _ => depth.scheduled += 1,
    }
}
