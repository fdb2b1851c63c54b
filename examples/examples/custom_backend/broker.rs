//! The broker: takes messages in, and says what is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::{
    Broker, BrokerInfo, DEFAULT_ACK_WAIT, Expect, Kicked, Listener, QueueDepth, Queued, Subscription,
};
use aioq::{Envelope, Error, ErrorKind, JobId, Result, Timestamp};
use async_trait::async_trait;
use redb::ReadTransaction;
use tokio::sync::Notify;

use crate::file::{Access, Done, File, lock};
use crate::listener::RedbListener;
use crate::messages::{MESSAGES, Message, Messages};

const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// What broker, listeners and receipts share.
pub struct Shared {
    pub access: Access,
    /// Rung when a message may have become ready, or due earlier.
    pub changed: Notify,
    ack_waits: Mutex<HashMap<String, Duration>>,
}

impl Shared {
    /// Runs a step in a transaction, and wakes those who wait.
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

    /// The messages of these queues.
    pub async fn messages(&self, queues: Vec<String>) -> Result<Vec<Message>> {
        let look =
            move |transaction: &ReadTransaction| Message::all(&transaction.open_table(MESSAGES)?, &queues);
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
        self.shared.access.startup(|transaction| Messages::open(transaction).map(|_| ())).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.shared.access.shutdown();
        // Listeners that wait come back with an error.
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Looks for the id whatever is expected: it is the key.
    async fn kick(&self, envelope: Envelope, _expect: Expect) -> Result<Kicked> {
        check_size(&envelope)?;
        self.shared.step(move |messages| messages.kick(envelope)).await
    }

    /// One transaction for all: one write to the disk.
    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        let count = envelopes.len();
        let kick_all = move |messages: &mut Messages<'_>| {
            let kick = |(envelope, _)| match check_size(&envelope) {
                Ok(()) => messages.kick(envelope).map(Ok),
                Err(error) => Ok(Err(error)),
            };
            envelopes.into_iter().map(kick).collect::<Done<Vec<_>>>()
        };
        self.shared.step(kick_all).await.unwrap_or_else(|error| {
            let same = || Error::new(error.kind(), format!("no message of the bulk was kept: {error}"));
            (0..count).map(|_| Err(same())).collect()
        })
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
        let find = move |transaction: &ReadTransaction| {
            Message::get(&transaction.open_table(MESSAGES)?, id.as_str())
        };
        let found = self.shared.access.read(find).await?;
        Ok(found.map(|message| {
            let ready = message.held || message.visible_from <= Timestamp::now();
            Queued::new(message.id, message.queue, message.body, ready)
        }))
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        let now = Timestamp::now();
        let messages = self.shared.messages(queues.to_vec()).await?;
        let depth = |name: &String| {
            let mut depth = QueueDepth::new(name);
            for message in messages.iter().filter(|message| message.queue == *name) {
                match message.visible_from <= now {
                    true => depth.ready += 1,
                    false if message.held => depth.held += 1,
                    false => depth.scheduled += 1,
                }
            }
            depth
        };
        Ok(queues.iter().map(depth).collect())
    }
}
